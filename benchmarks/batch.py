"""Preprocessing of a population, on phantoms written as a Morphologist tree.

Raw skeletons at 0.7 mm to 1 mm. Subjects a second with one worker and with two; cost of a subject
among 100 and among 2,000; how long it takes to see that 2,000 are done, and `foldnorm inspect` to
look through them; memory of one worker on a
hemisphere of 260×311×260 voxels; time and memory of gathering 10,000 crops of 80³ (5 GB), beside
copying the same bytes. A few phantoms are drawn and copied under many ids: what is measured is
reading, preparing and packing, not drawing. Ends with one line of JSON, which is also written to
OUT.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from figures import flattened, write_figures

from foldnorm.preprocessing.io.volumes import write_labels
from foldnorm.preprocessing.phantom.hemisphere import draw_hemisphere

KIBIBYTES = 1024  # in a MiB
MORE = 4  # times as many subjects: what is beyond start-up shows in the difference
RAW_SHAPE = (260, 311, 260)  # of an HCP hemisphere at 0.7 mm


def draw(folder: Path, number: int) -> list[Path]:
    paths = []
    for seed in range(number):
        hemisphere = draw_hemisphere(seed, voxel_size=0.7)
        paths.append(folder / f"{seed}.nii.gz")
        write_labels(paths[-1], hemisphere.skeleton, hemisphere.affine)
    return paths


def tree(folder: Path, drawn: list[Path], subjects: int) -> Path:
    """Write a Morphologist tree of ``subjects`` left hemispheres."""
    for n in range(subjects):
        place = folder / f"s{n:05d}/t1mri/default_acquisition/default_analysis/segmentation"
        place.mkdir(parents=True)
        shutil.copy(drawn[n % len(drawn)], place / f"Lskeleton_s{n:05d}.nii.gz")
    return folder


def run(source: Path, out: Path, workers: int) -> float:
    """Seconds of one whole command."""
    command = [sys.executable, "-m", "foldnorm.pipeline.cli", "preprocess", source, "-o", out]
    options = ["--voxel-size", "1", "--n-procs", str(workers), "--quiet"]
    begin = time.perf_counter()
    subprocess.run([*map(str, command), *options], check=True)
    return time.perf_counter() - begin


def gathering(folder: Path, drawn: list[Path], number: int) -> dict[str, float]:
    """Pack ``number`` crops of 80³ that shards have prepared; beside it, copy what was packed."""
    source, out = tree(folder / "few_crops", drawn, len(drawn)), folder / "crops"
    crop = ["--crop", "mm:-70,10,-60,20,-30,50", "--voxel-size", "1", "--quiet"]
    command = [sys.executable, "-m", "foldnorm.pipeline.cli", "preprocess"]
    prepare = [*command, str(source), "-o", str(out), "--shard", "1/1", *crop]
    subprocess.run(prepare, check=True)
    prepared = sorted(out.glob("sub-*/anat/*_dseg.json"))
    rows = ["participant_id\themi\tpath"]
    for n in range(number):
        sidecar = prepared[n % len(prepared)]
        content = json.loads(sidecar.read_text())
        volume = sidecar.with_name(sidecar.name.replace(".json", ".nii.gz"))
        name = f"c{n:05d}"
        place = out / f"sub-{name}/anat/sub-{name}_hemi-L_dseg.json"
        place.parent.mkdir(parents=True)
        place.write_text(json.dumps({**content, "Participant": name}, indent=2))
        os.link(volume, place.with_name(place.name.replace(".json", ".nii.gz")))
        rows.append(f"{name}\tL\t{content['Volume']}")
    for sidecar in prepared:
        shutil.rmtree(sidecar.parents[1])
    table = folder / "crops.tsv"
    table.write_text("\n".join(rows) + "\n")
    begin = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", GATHER, str(table), "-o", str(out), "--finalize", "--n-procs", "2",
         *crop], check=True, capture_output=True, text=True,
    )  # fmt: skip
    seconds = time.perf_counter() - begin
    packed = out / "volumes.npy"
    shape = np.load(packed, mmap_mode="r").shape
    assert shape == (number, 80, 80, 80), shape
    begin = time.perf_counter()
    shutil.copyfile(packed, folder / "copy.npy")
    copied = time.perf_counter() - begin
    for path in (packed, folder / "copy.npy"):
        path.unlink()
    peak = float(done.stdout.split()[-1]) / KIBIBYTES
    return {"seconds": round(seconds, 1), "copy_seconds": round(copied, 1), "mib": round(peak, 1)}


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
import foldnorm.preprocessing.cohort.preprocess
from foldnorm.preprocessing.cohort.preparation import SKELETON, Preparation
from foldnorm.preprocessing.cohort.prepare_volume import prepare_volume
from foldnorm.preprocessing.io.source_volume import SourceVolume
prepare_volume(SourceVolume("s", "L", Path(sys.argv[1])), Preparation(SKELETON, 1.0))
# Not ru_maxrss: that starts from the memory of whoever started the process.
status = Path("/proc/self/status").read_text()
print(status.partition("VmHWM:")[2].split()[0])
"""


# Gathers as the command does, and says what it held at most.
GATHER = """
import sys
from pathlib import Path
from foldnorm.pipeline.cli import main
code = main(["preprocess", *sys.argv[1:]])
print(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0])
sys.exit(code)
"""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path, metavar="OUT", help="JSON")
    parser.add_argument("--few", type=int, default=100, help="subjects (default 100)")
    parser.add_argument("--many", type=int, default=2000, help="subjects (default 2000)")
    parser.add_argument("--repeats", type=int, default=3, help="runs, medians count (default 3)")
    parser.add_argument("--drawn", type=int, default=20, help="different phantoms (default 20)")
    parser.add_argument("--crops", type=int, default=10_000, help="to gather (default 10000)")
    arguments = parser.parse_args()
    print(__doc__.splitlines()[0])
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        drawn = draw(folder, arguments.drawn)
        few = tree(folder / "few", drawn, arguments.few)
        more = tree(folder / "more", drawn, arguments.few * MORE)
        many = tree(folder / "many", drawn, arguments.many)
        run(few, folder / "warm", 2)
        seconds = {}
        times: dict[tuple[int, Path], list[float]] = {}
        for n in range(arguments.repeats):
            for workers in (1, 2):
                for source in (few, more):
                    took = run(source, folder / f"{source.name}{workers}{n}", workers)
                    times.setdefault((workers, source), []).append(took)
        for workers in (1, 2):
            short, long = (statistics.median(times[workers, source]) for source in (few, more))
            seconds[workers] = (long - short) / ((MORE - 1) * arguments.few)
            print(f"{workers} workers: {1 / seconds[workers]:.1f} subjects/s beyond start-up")
            startup = short - seconds[workers] * arguments.few
        whole = run(many, folder / "out", 2)
        per_subject = (whole - startup) / arguments.many
        again = run(many, folder / "out", 2)
        begin = time.perf_counter()
        look = [sys.executable, "-m", "foldnorm.pipeline.cli", "inspect", str(many)]
        subprocess.run(look, check=True, stdout=subprocess.DEVNULL)
        inspected = time.perf_counter() - begin
        print(f"{arguments.many} subjects: {whole:.1f} s; again, all done: {again:.1f} s")
        figures = {
            "efficiency_2_workers": round(seconds[1] / (2 * seconds[2]), 3),
            "cost_growth": round(per_subject / seconds[2], 3),
            f"skip_seconds_{arguments.many}": round(again, 2),
            f"inspect_seconds_{arguments.many}": round(inspected, 2),
            "worker_mib": round(worker_mib(folder), 1),
            f"gather_{arguments.crops}": gathering(folder, drawn, arguments.crops),
            "subjects_per_second": {f"{n}_workers": round(1 / s, 1) for n, s in seconds.items()},
        }
    figures = flattened(figures)
    write_figures(arguments.out, figures)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
