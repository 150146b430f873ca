"""Effect of augmentation on thin sheets: plain nearest neighbour against ours, on a cohort.

COHORT was prepared with --thin. Each volume is altered once by each kind. Printed, as means over
volumes: holes (by how much the Euler number of the sheets changes, inside a margin that nothing
from beyond the border reaches), change of the number of 26-connected pieces, and voxels of sheet
relative to before. Ends with one line of JSON.
"""

import argparse
import json
from pathlib import Path

import numpy as np
from skimage.measure import euler_number, label

from foldnorm.pipeline.data.sheet_affine import RandSheetAffine
from foldnorm.preprocessing.cohort.cohort import Cohort

MARGIN = 5  # voxels
KINDS = {
    "rotation 5°": {"rotation": 5},
    "stretch 5 %": {"stretch": 0.05},
    "shift 2": {"shift": 2},
    "elastic 1": {"elastic": 1.0},
    "elastic 2": {"elastic": 2.0},
}


def figures(before: np.ndarray, after: np.ndarray) -> tuple[float, float, float]:
    inner = tuple(slice(MARGIN, -MARGIN) for _ in range(3))
    a, b = before[inner], after[inner]
    return (
        abs(euler_number(b, connectivity=3) - euler_number(a, connectivity=3)),
        int(label(b, connectivity=3).max()) - int(label(a, connectivity=3).max()),
        b.sum() / max(a.sum(), 1),
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("cohort", type=Path, metavar="COHORT")
    arguments = parser.parse_args()
    cohort = Cohort.open(arguments.cohort)
    print(__doc__.splitlines()[0])
    found = {}
    for kind, limits in KINDS.items():
        for way, thin in (("nearest", False), ("ours", True)):
            move = RandSheetAffine(**limits, scheme=cohort.scheme, thin=thin)
            measured = [
                figures(cohort.scheme.foreground(volume), cohort.scheme.foreground(made))
                for draw, brain in enumerate(cohort.brains(cohort.indices()))
                for volume in (brain.volume,)
                for made in (np.asarray(move.set_random_state(seed=draw)(volume[None]))[0],)
            ]
            holes, pieces, voxels = np.mean(measured, axis=0)
            print(f"{kind:<12} {way:<8} holes {holes:6.1f}  pieces {pieces:+6.1f}  "
                  f"voxels × {voxels:.3f}")  # fmt: skip
            found[f"{kind} {way}"] = [round(float(x), 3) for x in (holes, pieces, voxels)]
    print(json.dumps(found))


if __name__ == "__main__":
    main()
