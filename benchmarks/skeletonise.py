"""Skeletons from segmentations: agreement with Morphologist's, topology, stability, cost.

DATA is a folder with morphologist/archi/001 (skeletons, grey-white volumes, fold graphs of both
hemispheres) and brain_labels (whole-brain maps with FreeSurfer's numbers). The recipe was settled
on the left hemisphere of archi/001; the right one is untouched. F1 is strict: within one voxel is
itself or a face neighbour; within the 26 neighbours is printed beside it. Without the hull, each
skeleton is without its own. Ends with one line of JSON, which is also written to OUT; of both
sides the worse counts.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from figures import write_figures
from scipy import ndimage
from sklearn.metrics import adjusted_rand_score

from foldnorm.preprocessing.io.fold_graph import read_fold_graph
from foldnorm.preprocessing.io.volumes import LabelVolume, read_labels
from foldnorm.preprocessing.skeletons.segmentation import SegmentedHemisphere, hemispheres
from foldnorm.preprocessing.skeletons.skeletonise import Skeleton, skeletonise
from foldnorm.preprocessing.topology.simple_surfaces import simple_surfaces
from foldnorm.preprocessing.topology.topology import SURFACE, topological_classes

FACE, ANY = 1.0, 1.74  # voxels: as far as a face neighbour, and as any of 26
LARGE = 200  # voxels of a fold that counts
FLIPPED = 0.005  # share of boundary voxels flipped at random


def f1(found: np.ndarray, truth: np.ndarray, distance: float) -> float:
    near_truth = ndimage.distance_transform_edt(~truth) <= distance
    near_found = ndimage.distance_transform_edt(~found) <= distance
    precision, recall = near_truth[found].mean(), near_found[truth].mean()
    return float(2 * precision * recall / (precision + recall))


def skeleton_of(tissue: SegmentedHemisphere, size: tuple[float, float, float]) -> Skeleton:
    return skeletonise(tissue.grey, tissue.white, size)


def read_side(folder: Path, side: str) -> tuple[LabelVolume, SegmentedHemisphere]:
    raw = read_labels(folder / f"{side}skeleton_001.nii.gz")
    (tissue,) = hemispheres(read_labels(folder / f"{side}grey_white_001.nii.gz"), side=side)
    return raw, tissue


def against_morphologist(folder: Path, side: str, repeats: int) -> dict[str, float]:
    raw, tissue = read_side(folder, side)
    seconds = []
    for _ in range(repeats + 1):  # the first compiles
        begin = time.perf_counter()
        skeleton = skeleton_of(tissue, raw.voxel_size)
        seconds.append(time.perf_counter() - begin)
    truth = (raw.data != 0) & (raw.data != 11)
    own, folds = skeleton.mask & ~skeleton.hull, truth & ~ndimage.binary_dilation(raw.data == 11)
    figures = {
        "f1_1vox_all": f1(skeleton.mask, truth, FACE),
        "f1_1vox_folds": f1(own, folds, FACE),
        "f1_26_all": f1(skeleton.mask, truth, ANY),
        "f1_26_folds": f1(own, folds, ANY),
        "f1_0vox_all": f1(skeleton.mask, truth, 0),
        "volume_ratio": float(skeleton.mask.sum() / truth.sum()),
        "seconds": statistics.median(seconds[1:]),
    }
    return figures | against_graph(folder, side, skeleton)


def against_graph(folder: Path, side: str, skeleton: Skeleton) -> dict[str, float]:
    """Fold labels against the simple surfaces of the fold graph, on voxels that both have."""
    graph = read_fold_graph(next(folder.parent.glob(f"folds/*/*/{side}001_*.arg")))
    truth = np.zeros(skeleton.values.shape, dtype=np.int32)
    for fold in graph.folds:
        i, j, k = (np.array(truth.shape) - 1 - fold.surface).T.astype(int)
        truth[i, j, k] = fold.number
    labels = simple_surfaces(skeleton.mask, skeleton.hull)
    shared = (truth > 0) & (labels > 0)
    # A graph counts what touches the hull as junction, not as simple surface.
    surface = topological_classes(skeleton.mask) == SURFACE
    surface &= ~ndimage.binary_dilation(skeleton.hull, np.ones((3, 3, 3)))
    large = [
        int((np.bincount(which)[1:] > LARGE).sum())
        for which in (labels[surface & (labels > 0)], truth[truth > 0])
    ]
    return {
        "fold_ari": float(adjusted_rand_score(truth[shared], labels[shared])),
        "large_folds_ratio": large[0] / large[1],
    }


def stability(folder: Path) -> dict[str, float]:
    """Share of voxels that a shift, mirror or change of axes moves; F1 after flipped voxels."""
    raw, tissue = read_side(folder, "R")
    held = np.argwhere(tissue.grey | tissue.white)
    low, high = held.min(axis=0) - 14, held.max(axis=0) + 15
    box = tuple(slice(max(a, 0), b) for a, b in zip(low, high, strict=True))
    grey, white, size = tissue.grey[box], tissue.white[box], raw.voxel_size
    before = skeletonise(grey, white, size).mask
    i, j, k = size
    changes = {
        "shift": (lambda a: np.roll(a, (1, 2, 1), axis=(0, 1, 2)), size),
        "mirror": (lambda a: a[::-1], size),
        "axes": (lambda a: a.transpose(2, 0, 1), (k, i, j)),
    }
    figures = {}
    for name, (change, changed_size) in changes.items():
        after = skeletonise(change(grey), change(white), changed_size).mask
        figures[name] = float((after != change(before)).sum() / before.sum() / 2)
    rng = np.random.default_rng(0)
    classes = np.where(white, 2, np.where(grey, 1, 0))
    edge = ndimage.grey_dilation(classes, 3 * (3,)) != ndimage.grey_erosion(classes, 3 * (3,))
    flipped = edge & (rng.random(edge.shape) < FLIPPED)
    others = ndimage.grey_dilation(classes, footprint=ndimage.generate_binary_structure(3, 1))
    noisy = np.where(flipped, np.where(others > classes, others, classes - 1).clip(0), classes)
    after = skeletonise(noisy == 1, noisy == 2, size).mask
    figures["flipped_f1_1vox"] = f1(after, before, FACE)
    return figures


# Both hemispheres of one brain, read to written, in a process of its own.
BRAIN = """
import resource, sys, time
from foldnorm.pipeline.cli import main
begin = time.perf_counter()
code = main(["skeletonise", sys.argv[1], "-o", sys.argv[2], "--quiet", "--n-procs", "1"])
print(time.perf_counter() - begin, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
sys.exit(code)
"""


def whole_brain(path: Path) -> dict[str, float]:
    taken = []
    with tempfile.TemporaryDirectory() as folder:
        for n in range(4):
            command = [sys.executable, "-c", BRAIN, str(path), f"{folder}/{n}"]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            taken.append([float(word) for word in done.stdout.split()])
    seconds, kib = (statistics.median(column) for column in zip(*taken[1:], strict=True))
    return {"brain_seconds": seconds, "brain_mib": kib / 1024}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path, metavar="DATA")
    parser.add_argument("out", type=Path, metavar="OUT", help="JSON")
    parser.add_argument("--repeats", type=int, default=5, help="of timings (default 5)")
    arguments = parser.parse_args()
    print(__doc__.splitlines()[0])
    folder = next(arguments.data.glob("morphologist/archi/001/**/segmentation"))
    sides = {side: against_morphologist(folder, side, arguments.repeats) for side in "LR"}
    for side, figures in sides.items():
        print(side, {name: round(value, 4) for name, value in figures.items()})
    maps = sorted(arguments.data.glob("brain_labels/*.nii.gz"))
    bad = []
    for path in maps:
        volume = read_labels(path)
        for tissue in hemispheres(volume):
            if not skeleton_of(tissue, volume.voxel_size).is_right:
                bad.append(f"{path.name} {tissue.side}")
    print(f"wrong topology: {len(bad)} of {2 * len(maps)} hemispheres {bad}")
    stable = stability(folder)
    figures = {
        name: min(sides[side][name] for side in "LR")
        for name in ("f1_1vox_all", "f1_1vox_folds", "f1_26_all", "f1_26_folds", "f1_0vox_all",
                     "fold_ari")
    }  # fmt: skip
    for name in ("volume_ratio", "large_folds_ratio"):
        figures[name] = max((sides[s][name] for s in "LR"), key=lambda r: abs(np.log(r)))
    figures["bad_topology"] = len(bad)
    figures["seconds"] = max(sides[side]["seconds"] for side in "LR")
    figures |= stable | whole_brain(maps[0])
    figures |= {f"{name}_{side}": value for side in "LR" for name, value in sides[side].items()}
    figures = {name: round(value, 4) for name, value in figures.items()}
    write_figures(arguments.out, figures)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
