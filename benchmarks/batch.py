"""Preprocessing of a population, on phantoms written as a Morphologist tree.

Raw skeletons at 0.7 mm to 1 mm. Subjects a second with one worker and with two; cost of a subject
among 100 and among 2,000; how long it takes to see that 2,000 are done; memory of one worker on a
hemisphere of 260×311×260 voxels. A few phantoms are drawn and copied under many ids: what is
measured is reading, preparing
and packing, not drawing. Ends with one line of JSON.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from foldnorm.preprocessing.phantom.hemisphere import draw_hemisphere
from foldnorm.preprocessing.volumes import write_labels

KIBIBYTES = 1024  # in a MiB
RAW_SHAPE = (260, 311, 260)  # of an HCP hemisphere at 0.7 mm


def draw(folder: Path, number: int) -> list[Path]:
    paths = []
    for seed in range(number):
        hemisphere = draw_hemisphere(seed, voxel_size=0.7)
        paths.append(folder / f"{seed}.nii.gz")
        write_labels(paths[-1], hemisphere.skeleton, hemisphere.affine)
    return paths


def tree(folder: Path, drawn: list[Path], subjects: int) -> Path:
    """A Morphologist tree of ``subjects`` left hemispheres."""
    for n in range(subjects):
        place = folder / f"s{n:05d}/t1mri/default_acquisition/default_analysis/segmentation"
        place.mkdir(parents=True)
        shutil.copy(drawn[n % len(drawn)], place / f"Lskeleton_s{n:05d}.nii.gz")
    return folder


def run(source: Path, out: Path, workers: int) -> float:
    """Seconds of one whole command."""
    command = [sys.executable, "-m", "foldnorm.pipeline.cli", "preprocess", source, out]
    options = ["--voxel-size", "1", "--n-procs", str(workers), "--quiet"]
    begin = time.perf_counter()
    subprocess.run([*map(str, command), *options], check=True)
    return time.perf_counter() - begin


def worker_mib(folder: Path) -> float:
    """Peak resident memory of a fresh process that prepares one raw-sized hemisphere."""
    hemisphere = draw_hemisphere(0, voxel_size=0.7)
    whole = np.full(RAW_SHAPE, 11, dtype=np.int16)
    part = hemisphere.skeleton[tuple(slice(0, side) for side in RAW_SHAPE)]
    whole[tuple(slice(0, side) for side in part.shape)] = part
    path = folder / "raw.nii.gz"
    write_labels(path, whole, hemisphere.affine)
    command = [sys.executable, "-c", WORKER, str(path)]
    for _ in range(2):  # the first compiles kernels, once a machine
        done = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(done.stdout) / KIBIBYTES


# What a worker of joblib imports and does, and nothing of this script.
WORKER = """
import sys
from pathlib import Path
import foldnorm.preprocessing.preprocess
from foldnorm.preprocessing.preparation import SKELETON, Preparation
from foldnorm.preprocessing.prepare import prepare_volume
from foldnorm.preprocessing.sources import SourceVolume
prepare_volume(SourceVolume("s", "L", Path(sys.argv[1])), Preparation(SKELETON, 1.0))
# Not ru_maxrss: that starts from the memory of whoever started the process.
status = Path("/proc/self/status").read_text()
print(status.partition("VmHWM:")[2].split()[0])
"""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--few", type=int, default=100, help="subjects (default 100)")
    parser.add_argument("--many", type=int, default=2000, help="subjects (default 2000)")
    parser.add_argument("--drawn", type=int, default=20, help="different phantoms (default 20)")
    arguments = parser.parse_args()
    print(__doc__.splitlines()[0])
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        drawn = draw(folder, arguments.drawn)
        few = tree(folder / "few", drawn, arguments.few)
        third = tree(folder / "third", drawn, arguments.few * 3)
        many = tree(folder / "many", drawn, arguments.many)
        run(few, folder / "warm", 2)
        seconds = {}
        for workers in (1, 2):
            short = run(few, folder / f"few{workers}", workers)
            long = run(third, folder / f"third{workers}", workers)
            seconds[workers] = (long - short) / (2 * arguments.few)
            print(f"{workers} workers: {1 / seconds[workers]:.1f} subjects/s beyond start-up")
            startup = short - seconds[workers] * arguments.few
        whole = run(many, folder / "out", 2)
        per_subject = (whole - startup) / arguments.many
        again = run(many, folder / "out", 2)
        print(f"{arguments.many} subjects: {whole:.1f} s; again, all done: {again:.1f} s")
        figures = {
            "efficiency_2_workers": round(seconds[1] / (2 * seconds[2]), 3),
            "cost_growth": round(per_subject / seconds[2], 3),
            f"skip_seconds_{arguments.many}": round(again, 2),
            "worker_mib": round(worker_mib(folder), 1),
            "subjects_per_second": {n: round(1 / s, 1) for n, s in seconds.items()},
        }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
