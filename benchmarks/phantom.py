"""The phantom beside real hemispheres: what folding measures, median of each.

DATA is a folder of whole-brain maps with FreeSurfer's numbers, 1 mm; both hemispheres of each are
skeletonised, and as many phantoms are drawn at 1 mm. Folds of both are simple surfaces, found by
one method. Ends with one line of JSON, which is also written to OUT: medians of both, by quantity,
and phantom over real.
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import joblib
import numpy as np
from figures import write_figures
from scipy import ndimage

from foldnorm.preprocessing.io.volumes import read_labels
from foldnorm.preprocessing.phantom.hemisphere import draw_hemisphere
from foldnorm.preprocessing.skeletons.segmentation import hemispheres
from foldnorm.preprocessing.skeletons.skeletonise import blocks, skeletonise
from foldnorm.preprocessing.topology.simple_surfaces import simple_surfaces

INSIDE, OUTSIDE = 0, 11


def quantities(values: np.ndarray) -> dict[str, float]:
    """Measure a skeleton with Morphologist's values, at 1 mm."""
    ball = values != OUTSIDE
    skeleton = ball & (values != INSIDE)
    hull = skeleton & ndimage.binary_dilation(~ball)
    folds = skeleton & ~hull
    depth = ndimage.distance_transform_edt(ball)[folds]
    away = ndimage.distance_transform_edt(~skeleton)[ball & ~skeleton]
    sizes = np.bincount(simple_surfaces(skeleton, hull).ravel())[1:]
    found = {
        "inside_cm3": float(ball.sum()) / 1000,
        "skeleton_share": float(skeleton.sum() / ball.sum()),
        "hull_share": float(hull.sum() / skeleton.sum()),
        "blocks_share": float(blocks(skeleton).sum() / skeleton.sum()),
        "folds_over_200": float((sizes > 200).sum()),
        "folds_over_500": float((sizes > 500).sum()),
        "folds_over_800": float((sizes > 800).sum()),
    }
    found |= {f"depth_p{p}_mm": float(np.percentile(depth, p)) for p in (50, 75, 95, 99)}
    found |= {f"to_fold_p{p}_mm": float(np.percentile(away, p)) for p in (50, 75, 95, 99)}
    large = sizes[sizes > 50]
    return found | {f"size_p{p}": float(np.percentile(large, p)) for p in (25, 50, 75, 90)}


def of_map(path: Path) -> list[dict[str, float]]:
    volume = read_labels(path)
    return [
        quantities(skeletonise(side.grey, side.white, volume.voxel_size).values)
        for side in hemispheres(volume)
    ]


def of_phantom(subject: int) -> dict[str, float]:
    return quantities(draw_hemisphere(subject).skeleton)


def medians(measured: list[dict[str, float]]) -> dict[str, float]:
    return {name: float(np.median([m[name] for m in measured])) for name in measured[0]}


def parallel(work: Callable, over: list) -> list:
    return joblib.Parallel(n_jobs=-1)(joblib.delayed(work)(item) for item in over)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path, metavar="DATA")
    parser.add_argument("out", type=Path, metavar="OUT", help="JSON")
    arguments = parser.parse_args()
    print(__doc__.splitlines()[0])
    real = [
        found
        for both in parallel(of_map, sorted(arguments.data.glob("*.nii.gz")))
        for found in both
    ]
    phantom = parallel(of_phantom, list(range(len(real))))
    one, other = medians(real), medians(phantom)
    figures: dict[str, float] = {"hemispheres": len(real)}
    for name in one:
        print(f"{name:18} real {one[name]:9.3f}  phantom {other[name]:9.3f}")
        figures |= {f"real_{name}": round(one[name], 4), f"phantom_{name}": round(other[name], 4)}
        if one[name]:
            figures[f"ratio_{name}"] = round(other[name] / one[name], 3)
    write_figures(arguments.out, figures)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
