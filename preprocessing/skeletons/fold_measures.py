"""Measures of the folds of a skeleton, as the sidecar of its fold labels has them."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foldnorm.preprocessing.io.volumes import voxel_size_of
from foldnorm.preprocessing.naming.gyri import FoldName
from foldnorm.preprocessing.skeletons.segmentation import NAMES
from foldnorm.preprocessing.topology.topology import BORDER


def fold_measures(
    labels: NDArray[np.uint16],
    values: NDArray[np.uint8],
    depth: NDArray[np.float32],
    affine: NDArray[np.float64],
) -> list[dict[str, Any]]:
    """Measure each fold: its voxels, sheet, depth, bottom line, box and centre.

    Args:
        labels: (I, J, K) fold labels.
        values: (I, J, K) Morphologist's values of the skeleton.
        depth: (I, J, K) mm.
        affine: (4, 4), voxel index → world mm, in which boxes and centres are given.
    """
    size = np.array(voxel_size_of(affine))
    places = np.argwhere(labels)
    label = labels[tuple(places.T)]
    mm = places @ affine[:3, :3].T + affine[:3, 3]
    counts = np.bincount(label)
    bottoms = np.bincount(label[values[tuple(places.T)] == BORDER], minlength=len(counts))
    deepest = np.zeros(len(counts))
    np.maximum.at(deepest, label, depth[tuple(places.T)])
    low, high = np.full((len(counts), 3), np.inf), np.full((len(counts), 3), -np.inf)
    np.minimum.at(low, label, mm)
    np.maximum.at(high, label, mm)
    total = np.zeros((len(counts), 3))
    np.add.at(total, label, mm)
    face, side = float(np.prod(size)) ** (2 / 3), float(np.prod(size)) ** (1 / 3)
    return [
        {
            "fold": int(n),
            "voxels": int(counts[n]),
            "surface_mm2": round(float(counts[n]) * face, 2),
            "depth_mm": round(float(deepest[n]), 2),
            "bottom_mm": round(float(bottoms[n]) * side, 2),
            "min": [round(float(v), 2) for v in low[n]],
            "max": [round(float(v), 2) for v in high[n]],
            "centre": [round(float(v), 2) for v in total[n] / counts[n]],
        }
        for n in np.flatnonzero(counts)
    ]


def named_measures(
    folds: Sequence[Mapping[str, Any]], names: Mapping[int, FoldName], side: str
) -> list[dict[str, Any]]:
    """Add to the measures of each fold its sulcus with the side, as fold graphs have it.

    Args:
        folds: of `fold_measures`.
        names: fold label → name.
        side: ``L`` or ``R``.
    """
    named = []
    for fold in folds:
        one = names[fold["fold"]]
        named.append(
            {
                **fold,
                "name": f"{one.sulcus}_{NAMES[side]}" if one.sulcus else "",
                "confidence": round(one.share, 3),
                "between": list(one.between),
            }
        )
    return named
