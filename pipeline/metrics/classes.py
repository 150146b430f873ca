"""Agreement of the classes of a label volume with the true ones: Dice, surface distances."""

import warnings

import numpy as np
import torch
from monai.metrics import (
    compute_average_surface_distance,
    compute_hausdorff_distance,
    compute_surface_dice,
)
from numpy.typing import NDArray

from foldnorm.models.classes import one_hot
from foldnorm.preprocessing.io.schemes import LabelScheme

Labels = NDArray[np.uint8]
TOLERANCE_MM = 1.0  # of the surface Dice
PERCENTILE = 95.0  # of the Hausdorff distance


def class_dice(predicted: Labels, target: Labels, scheme: LabelScheme) -> dict[str, float]:
    """Dice of each class, and their mean.

    Args:
        predicted: (I, J, K) uint8 class numbers.
        target: (I, J, K) uint8.
        scheme: names the classes.

    Returns:
        ``dice_<class>`` for all classes, NaN where both have none of it, and ``mean_dice``.

    Example:
        >>> from foldnorm.preprocessing.io.schemes import load_scheme
        >>> scheme = load_scheme("grey-white")
        >>> found = class_dice(np.uint8([[[0, 1, 2, 2]]]), np.uint8([[[0, 1, 1, 2]]]), scheme)
        >>> {name: round(dice, 2) for name, dice in found.items()}
        {'dice_background': 1.0, 'dice_grey': 0.67, 'dice_white': 0.67, 'mean_dice': 0.78}
    """
    figures = {}
    for number, name in enumerate(scheme.names):
        ours, theirs = predicted == number, target == number
        total = ours.sum() + theirs.sum()
        figures[f"dice_{name}"] = float(2 * (ours & theirs).sum() / total) if total else np.nan
    known = [value for value in figures.values() if not np.isnan(value)]
    return {**figures, "mean_dice": float(np.mean(known))}


def sulcus_dice(named: Labels, true: Labels, count: int) -> NDArray[np.float64]:
    """Dice of each of ``count`` sulci, numbers 1 and up; NaN where a brain lacks it.

    Args:
        named: (I, J, K) numbers of sulci, as recognised.
        true: (I, J, K), as they are.
        count: of the sulci.

    Example:
        >>> sulcus_dice(np.array([[[1, 1, 2]]]), np.array([[[1, 2, 2]]]), 3).round(2).tolist()
        [0.67, 0.67, nan]
    """
    both = np.bincount(named[named == true].ravel(), minlength=count + 1)[1:]
    ours = np.bincount(named.ravel(), minlength=count + 1)[1:]
    theirs = np.bincount(true.ravel(), minlength=count + 1)[1:]
    return np.where(theirs > 0, 2 * both / np.maximum(ours + theirs, 1), np.nan)


def class_distances(
    predicted: Labels, target: Labels, scheme: LabelScheme, voxel_size: tuple[float, ...]
) -> dict[str, float]:
    """Distances between the surfaces of each class but the fill class, by MONAI.

    Args:
        predicted: (I, J, K) uint8 class numbers.
        target: (I, J, K) uint8.
        scheme: names the classes.
        voxel_size: mm.

    Returns:
        ``surface_dice_<class>`` at 1 mm, ``hd95_<class>`` and ``assd_<class>`` in mm; NaN where a
        surface is missing.
    """
    numbers = [n for n in range(scheme.n_classes) if n != scheme.fill]
    ours, theirs = (
        one_hot(torch.from_numpy(labels)[None], scheme.n_classes)[:, numbers]
        for labels in (predicted, target)
    )
    spacing = list(voxel_size)
    with np.errstate(invalid="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # MONAI 1.6 warns of its own arguments,
        warnings.simplefilter("ignore", UserWarning)  # and of a class that is missing: NaN here
        found = {
            "surface_dice": compute_surface_dice(
                ours, theirs, [TOLERANCE_MM] * len(numbers), include_background=True,
                spacing=spacing,
            ),
            "hd95": compute_hausdorff_distance(
                ours, theirs, include_background=True, percentile=PERCENTILE, spacing=spacing
            ),
            "assd": compute_average_surface_distance(
                ours, theirs, include_background=True, symmetric=True, spacing=spacing
            ),
        }  # fmt: skip
    figures = {}
    for name, values in found.items():
        for number, value in zip(numbers, values[0].tolist(), strict=True):
            figures[f"{name}_{scheme.names[number]}"] = value if np.isfinite(value) else np.nan
    return figures
