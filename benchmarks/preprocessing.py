"""Preprocessing one volume against reading it, and against the stock MONAI chain, side by side.

Ours: read → discretise → crop → sulcus-priority downsampling to 1 mm → write. Compared with
(a) reading the file with nibabel, and (b) MONAI: LoadImage, Spacing (nearest), CropForeground,
SaveImage. One core, medians, all three in turns so that noise falls on each alike, each in a
process of its own so that none inherits the other's memory. Peak memory is what a fresh process
allocates for one volume, the file's bytes and the array included. Ends with one line of
JSON, which is also written to OUT.
"""

import argparse
import json
import logging
import multiprocessing
import statistics
import tempfile
import time
import tracemalloc
import warnings
from collections.abc import Callable
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path

import nibabel
import numpy as np
import SimpleITK
import torch
from figures import flattened, write_figures
from threadpoolctl import threadpool_limits

from foldnorm.preprocessing.cohort.preparation import Preparation
from foldnorm.preprocessing.cohort.prepare_volume import prepare_volume
from foldnorm.preprocessing.io.schemes import SKELETON
from foldnorm.preprocessing.io.source_volume import Companions, SourceVolume
from foldnorm.preprocessing.io.volumes import write_labels
from foldnorm.preprocessing.phantom.hemisphere import draw_hemisphere

MEBIBYTE = 2**20


Method = Callable[[Path, Path], None]


def ours() -> Method:
    def run(path: Path, out: Path) -> None:
        prepared = prepare_volume(SourceVolume("s", "", path), Preparation(SKELETON, 1.0))
        write_labels(out / "ours.nii.gz", prepared.classes, prepared.affine)

    return run


def ours_to_mni(transform: Path, *, thin: bool = False) -> Method:
    preparation = Preparation(SKELETON, 1.0, space="mni", thin=thin)

    def run(path: Path, out: Path) -> None:
        source = SourceVolume("s", "", path, Companions(transform=transform))
        prepared = prepare_volume(source, preparation)
        write_labels(out / "mni.nii.gz", prepared.classes, prepared.affine)

    return run


def read_only() -> Method:
    def run(path: Path, out: Path) -> None:
        np.asanyarray(nibabel.load(path).dataobj)

    return run


def monai_chain() -> Method:
    from monai.transforms import Compose, CropForeground, LoadImage, SaveImage, Spacing

    load = Compose(
        [
            LoadImage(image_only=True, ensure_channel_first=True),
            Spacing(pixdim=(1.0, 1.0, 1.0), mode="nearest"),
            CropForeground(select_fn=lambda x: x != 11),
        ]
    )

    def run(path: Path, out: Path) -> None:
        save = SaveImage(out, output_postfix="monai", separate_folder=False, print_log=False)
        save(load(str(path)))

    return run


METHODS: dict[str, Callable[[], Method]] = {
    "ours": ours,
    "read": read_only,
    "monai": monai_chain,
}


def methods(transform: Path | None) -> dict[str, Callable[[], Method]]:
    if transform is None:
        return METHODS
    return {
        **METHODS,
        "mni": partial(ours_to_mni, transform),
        "mni_thin": partial(ours_to_mni, transform, thin=True),
    }


def serve(make: Callable[[], Method], path: Path, out: Path, pipe: Connection) -> None:
    """Run one method whenever asked to, on one core; answers with the seconds it took."""
    one_core()
    method = make()
    while pipe.recv():
        begin = time.perf_counter()
        method(path, out)
        pipe.send(time.perf_counter() - begin)


def peak_of_ours(path: Path, out: Path, pipe: Connection) -> None:
    """Peak memory that one preparation allocates, bytes; kernels are compiled before."""
    one_core()
    small, method = out / "warm.nii.gz", ours()
    write_labels(small, np.full((8, 8, 8), 60, np.int16), np.diag([0.7, 0.7, 0.7, 1]))
    method(small, out)
    tracemalloc.start()
    method(path, out)
    pipe.send(tracemalloc.get_traced_memory()[1])


def one_core() -> None:
    threadpool_limits(1)
    SimpleITK.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    warnings.filterwarnings("ignore")


def start(target: Callable[..., None], *arguments: object) -> Connection:
    """Start a fresh process and return our end of the pipe to it."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    context.Process(target=target, args=(*arguments, there), daemon=True).start()
    return here


def measure(path: Path, repeats: int, transform: Path | None = None) -> dict[str, float]:
    compared = methods(transform)
    seconds: dict[str, list[float]] = {name: [] for name in compared}
    with tempfile.TemporaryDirectory() as folder:
        pipes = {name: start(serve, make, path, Path(folder)) for name, make in compared.items()}
        for _ in range(repeats + 1):
            for name, pipe in pipes.items():
                pipe.send(True)
                seconds[name].append(pipe.recv())
        for pipe in pipes.values():
            pipe.send(False)
        peak = start(peak_of_ours, path, Path(folder)).recv()
    medians = {name: statistics.median(values[1:]) for name, values in seconds.items()}
    array = np.asanyarray(nibabel.load(path).dataobj).nbytes
    print(
        f"{path.name}: ours {medians['ours']:.4f} s, reading {medians['read']:.4f} s, "
        f"MONAI {medians['monai']:.4f} s; peak {peak / MEBIBYTE:.0f} MiB for an array of "
        f"{array / MEBIBYTE:.0f} MiB"
    )
    to_mni = {
        f"{name}_vs_read": round(medians[name] / medians["read"], 3)
        for name in ("mni", "mni_thin")
        if name in medians
    }
    return {
        **to_mni,
        "vs_read": round(medians["ours"] / medians["read"], 3),
        "vs_monai": round(medians["monai"] / medians["ours"], 2),
        "peak_memory_ratio": round(peak / array, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path, metavar="OUT", help="JSON")
    parser.add_argument(
        "volumes", type=Path, nargs="*", help="raw skeletons; a phantom at 0.7 mm is always added"
    )
    parser.add_argument(
        "--transform", type=Path, help=".trm of the first volume: also time the way to MNI space"
    )
    parser.add_argument("--repeats", type=int, default=9)
    arguments = parser.parse_args()
    print(__doc__.splitlines()[0])
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        phantom = Path(folder) / "phantom.nii.gz"
        hemisphere = draw_hemisphere(0, voxel_size=0.7)
        write_labels(phantom, hemisphere.skeleton, hemisphere.affine)
        for n, path in enumerate([*arguments.volumes, phantom]):
            transform = arguments.transform if n == 0 and arguments.volumes else None
            name = path.name.removesuffix(".nii.gz")
            results[name] = measure(path, arguments.repeats, transform)
    worst = {
        "vs_read": max(r["vs_read"] for r in results.values()),
        "vs_monai": min(r["vs_monai"] for r in results.values()),
        "peak_memory_ratio": max(r["peak_memory_ratio"] for r in results.values()),
    }
    figures = flattened({**worst, **results})
    write_figures(arguments.out, figures)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
