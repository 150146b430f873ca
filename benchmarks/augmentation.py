"""Effect of augmentation on thin sheets, and what it costs: plain nearest neighbour against ours.

COHORT was prepared with --thin. Each of `--volumes` volumes is altered once by each kind. Means:
holes (by how much the Euler number of the sheets changes, inside a margin that nothing from beyond
the border reaches), change of the number of 26-connected pieces, voxels of sheet relative to
before. Of the first `--truths`, against a truth warped by nearest neighbour at three times the
resolution, where sheets are three voxels thick and do not tear: the share of our sheet that holds a
voxel of its sheet, and the share of its sheet that is no more than one voxel off ours.
Milliseconds of one thread's processor time a volume (a busy machine alters them less than the
clock's), medians. `--before` takes the JSON that another commit wrote, which is kept beside. Ends
with one line of JSON, which is also written to OUT.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
from figures import flattened, write_figures
from scipy import ndimage
from skimage.measure import euler_number, label

from foldnorm.pipeline.data.sheet_affine import RandSheetAffine, SheetMotion
from foldnorm.preprocessing.cohort.cohort import Cohort
from foldnorm.preprocessing.spatial.warp import warp_nearest

MARGIN = 5  # voxels
FINER = 3  # times the resolution, of the truth
FULL = np.ones((3, 3, 3))
KINDS = {
    "rotation": {"rotation": 5},
    "stretch": {"stretch": 0.05},
    "shift": {"shift": 2},
    "elastic 1": {"elastic": 1.0},
    "elastic 2": {"elastic": 2.0},
    "all": {"rotation": 5, "stretch": 0.05, "shift": 2, "elastic": 2.0},
}
NAMES = ("holes", "pieces", "voxels", "on_the_truth", "truth_within_a_voxel", "cpu_ms")


def topology(before: np.ndarray, after: np.ndarray) -> tuple[float, float, float]:
    inner = tuple(slice(MARGIN, -MARGIN) for _ in range(3))
    a, b = before[inner], after[inner]
    return (
        abs(euler_number(b, connectivity=3) - euler_number(a, connectivity=3)),
        int(label(b, connectivity=3).max()) - int(label(a, connectivity=3).max()),
        b.sum() / max(a.sum(), 1),
    )


def on_the_truth(
    move: RandSheetAffine, volume: np.ndarray, after: np.ndarray, motion: SheetMotion
) -> tuple[float, float]:
    """Shares of ours on the truth and of the truth near to ours, inside the margin."""
    elastic = np.zeros((3, *volume.shape)) if motion.elastic is None else motion.elastic
    finer = np.stack([FINER * ndimage.zoom(e, FINER, order=1, grid_mode=True, mode="nearest")
                      for e in elastic])  # fmt: skip
    # The middle of voxel x is at FINER x + (FINER − 1) / 2 of the finer grid.
    scale = np.diag([FINER, FINER, FINER, 1.0])
    scale[:3, 3] = (FINER - 1) / 2
    matrix = scale @ motion.matrix @ np.linalg.inv(scale)
    fine = np.kron(volume, np.ones((FINER,) * 3, dtype=volume.dtype))
    truth = move.scheme.foreground(warp_nearest(fine, matrix, finer, move.scheme.fill))
    i, j, k = volume.shape
    blocks = truth.reshape(i, FINER, j, FINER, k, FINER).any(axis=(1, 3, 5))
    inner = np.zeros(volume.shape, dtype=np.bool_)
    inner[MARGIN:-MARGIN, MARGIN:-MARGIN, MARGIN:-MARGIN] = True
    near = ndimage.binary_dilation(after, FULL)
    return blocks[after & inner].mean(), near[blocks & inner].mean()


def measured(
    move: RandSheetAffine, volume: np.ndarray, draw: int, *, truth: bool
) -> tuple[float, ...]:
    """Figures of one volume, as `NAMES` says."""
    move.set_random_state(seed=draw)
    began = time.thread_time()
    motion = move.draw(move.rng, volume.shape)
    assert motion is not None
    made = move.moved(volume, motion)
    taken = 1000 * (time.thread_time() - began)
    before, after = move.scheme.foreground(volume), move.scheme.foreground(made)
    shares = on_the_truth(move, volume, after, motion) if truth else (np.nan, np.nan)
    return (*topology(before, after), *shares, taken)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("cohort", type=Path, metavar="COHORT")
    parser.add_argument("out", type=Path, metavar="OUT", help="JSON")
    parser.add_argument("--volumes", type=int, default=28)
    parser.add_argument("--truths", type=int, default=4)
    parser.add_argument("--before", type=Path, metavar="JSON")
    arguments = parser.parse_args()
    cohort = Cohort.open(arguments.cohort)
    rows = cohort.indices()
    rows = rows[np.linspace(0, len(rows) - 1, min(arguments.volumes, len(rows))).astype(int)]
    found: dict[str, dict[str, float]] = {}
    for kind, limits in KINDS.items():
        for way, thin in (("nearest", False), ("ours", True)):
            move = RandSheetAffine(**limits, scheme=cohort.scheme, thin=thin)
            measured(move, np.array(cohort.volumes[rows[0]]), 0, truth=False)  # compiles
            truths = arguments.truths if thin else 0
            each = np.array([measured(move, np.array(cohort.volumes[row]), n, truth=n < truths)
                             for n, row in enumerate(rows)])  # fmt: skip
            means = [*each[:, :3].mean(axis=0), *each[:truths or 1, 3:5].mean(axis=0),
                     np.median(each[:, -1])]  # fmt: skip
            own = {n: round(float(m), 3) for n, m in zip(NAMES, means, strict=True) if m == m}
            print(f"{kind:<12} {way:<8} {own}", flush=True)
            found[f"{kind} {way}"] = own
    figures = {"shape": list(cohort.volumes.shape[1:]), "volumes": len(rows), **found}
    if arguments.before is not None:
        earlier = json.loads(arguments.before.read_text(encoding="utf-8"))
        figures["before"] = {"commit": earlier["commit"], **earlier["figures"]}
    write_figures(arguments.out, flattened(figures))
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
