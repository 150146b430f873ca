"""Effect of augmentation on thin sheets: plain nearest neighbour against ours, on a cohort.

COHORT was prepared with --thin. Each volume is altered once by each kind. Printed, as means over
volumes: holes (by how much the Euler number of the sheets changes, inside a margin that nothing
from beyond the border reaches), change of the number of 26-connected pieces, and voxels of sheet
relative to before. Ends with one line of JSON.
"""

import argparse
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
from skimage.measure import euler_number, label

from foldnorm.pipeline.data.augmentation import Augmentation, AugmentationOptions
from foldnorm.preprocessing.cohort.cohort import Cohort
from foldnorm.preprocessing.cohort.preparation import Preparation

MARGIN = 5  # voxels
KINDS = {
    "rotation 5°": AugmentationOptions(rotation=5),
    "stretch 5 %": AugmentationOptions(stretch=0.05),
    "shift 2": AugmentationOptions(shift=2),
    "elastic 1": AugmentationOptions(elastic=1.0),
    "elastic 2": AugmentationOptions(elastic=2.0),
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
    preparation = Preparation.from_dict(cohort.preparation)
    print(__doc__.splitlines()[0])
    found = {}
    for kind, options in KINDS.items():
        for way, thin in (("nearest", False), ("ours", True)):
            alter = Augmentation(options, replace(preparation, thin=thin), seed=0)
            measured = [
                figures(cohort.scheme.foreground(volume), cohort.scheme.foreground(made))
                for draw, brain in enumerate(cohort.brains(cohort.indices()))
                for volume in (brain.volume,)
                for made in (alter(volume[None], draw)[0],)
            ]
            holes, pieces, voxels = np.mean(measured, axis=0)
            print(f"{kind:<12} {way:<8} holes {holes:6.1f}  pieces {pieces:+6.1f}  "
                  f"voxels × {voxels:.3f}")  # fmt: skip
            found[f"{kind} {way}"] = [round(float(x), 3) for x in (holes, pieces, voxels)]
    print(json.dumps(found))


if __name__ == "__main__":
    main()
