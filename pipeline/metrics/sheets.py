"""Metrics for sheets one voxel thick; together they see what each alone is blind to.

Dice punishes a shift of one voxel as much as nothing there; clDice and tolerant surface Dice are
blind to thickening. The 2×2×2-opening fraction is what shows a sheet grown thick.
"""

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.measure import euler_number

Mask = NDArray[np.bool_]
SURFACE_TOLERANCE = 1.0  # voxels, of the surface Dice
PANEL = (
    "dice",
    "precision",
    "recall",
    "volume_ratio",
    "opening",
    "opening_excess",
    "surface_dice",
    "assd",
    "components",
    "euler_number",
)


def sheet_panel(predicted: Mask, target: Mask) -> dict[str, float]:
    """Compare two sheets on one grid.

    Args:
        predicted: (I, J, K) bool.
        target: (I, J, K) bool.

    Returns:
        ``dice``, ``precision``, ``recall``, ``volume_ratio`` (predicted / target),
        ``opening`` (see `opening_fraction`) of the prediction and ``opening_excess`` over the
        target's, ``surface_dice`` at 1 voxel, ``assd`` in voxels, 26-connected ``components`` and
        ``euler_number`` of the prediction. NaN where a figure means nothing (an empty sheet).

    Example:
        >>> sheet = np.zeros((8, 8, 8), bool)
        >>> sheet[3] = True
        >>> panel = sheet_panel(np.roll(sheet, 1, axis=0), sheet)  # one voxel beside
        >>> panel["dice"], panel["surface_dice"], panel["assd"]
        (0.0, 1.0, 1.0)
    """
    both, n_predicted, n_target = (predicted & target).sum(), predicted.sum(), target.sum()
    opening = opening_fraction(predicted)
    return {
        "dice": _ratio(2 * both, n_predicted + n_target),
        "precision": _ratio(both, n_predicted),
        "recall": _ratio(both, n_target),
        "volume_ratio": _ratio(n_predicted, n_target),
        "opening": opening,
        "opening_excess": opening - opening_fraction(target),
        **_distances(predicted, target),
        "components": float(count_components(predicted)),
        "euler_number": float(euler_number(predicted, connectivity=3)),
    }


def mean_panel(pairs: Iterable[tuple[Mask, Mask]]) -> dict[str, float]:
    """Panel averaged over pairs (predicted, target), leaving out what is NaN."""
    panels = [sheet_panel(predicted, target) for predicted, target in pairs]
    if not panels:
        return {}
    table = np.array([[panel[name] for name in PANEL] for panel in panels])
    known = ~np.isnan(table)
    sums = np.where(known, table, 0).sum(axis=0)
    means = [_ratio(s, n) for s, n in zip(sums, known.sum(axis=0), strict=True)]
    return dict(zip(PANEL, means, strict=True))


def compare_populations(drawn: Sequence[Mask], real: Sequence[Mask]) -> dict[str, float]:
    """Compare sheets that have no partner, such as drawn volumes, with real ones on average.

    Args:
        drawn: (I, J, K) bool each.
        real: likewise.

    Returns:
        ``volume_ratio`` and ``components_ratio`` (drawn / real), and ``opening_excess``. Folds in
        pieces are seen by the components, and folds grown thick by the opening.

    Example:
        >>> thin = np.zeros((8, 8, 8), bool)
        >>> thin[3] = True
        >>> thick = thin | np.roll(thin, 1, axis=0)
        >>> compare_populations([thick], [thin])
        {'volume_ratio': 2.0, 'components_ratio': 1.0, 'opening_excess': 1.0}
    """
    ours, theirs = (
        np.mean([(m.sum(), count_components(m), opening_fraction(m)) for m in group], axis=0)
        for group in (drawn, real)
    )
    return {
        "volume_ratio": _ratio(ours[0], theirs[0]),
        "components_ratio": _ratio(ours[1], theirs[1]),
        "opening_excess": float(ours[2] - theirs[2]),
    }


def opening_fraction(mask: Mask) -> float:
    """Share of the voxels that lie inside a full 2×2×2 block: 0 for a thin sheet.

    Example:
        >>> opening_fraction(np.ones((1, 4, 4), bool)), opening_fraction(np.ones((2, 4, 4), bool))
        (0.0, 1.0)
    """
    corners = [slice(None, -1), slice(1, None)]
    blocks = np.ones([side - 1 for side in mask.shape], dtype=np.bool_)
    for i in corners:
        for j in corners:
            for k in corners:
                blocks &= mask[i, j, k]
    opened = np.zeros_like(mask)
    for i in corners:
        for j in corners:
            for k in corners:
                opened[i, j, k] |= blocks
    return _ratio(opened.sum(), mask.sum())


def count_components(mask: Mask) -> int:
    """Count the 26-connected components.

    Example:
        >>> count_components(np.array([[[True, False, True]]]))
        2
    """
    return int(ndimage.label(mask, np.ones((3, 3, 3)))[1])


def _distances(predicted: Mask, target: Mask) -> dict[str, float]:
    if not predicted.any() or not target.any():
        return {"surface_dice": float("nan"), "assd": float("nan")}
    to_target = ndimage.distance_transform_edt(~target)[predicted]
    to_predicted = ndimage.distance_transform_edt(~predicted)[target]
    near = (to_target <= SURFACE_TOLERANCE).sum() + (to_predicted <= SURFACE_TOLERANCE).sum()
    total = len(to_target) + len(to_predicted)
    return {
        "surface_dice": float(near / total),
        "assd": float((to_target.sum() + to_predicted.sum()) / total),
    }


def _ratio(top: float, bottom: float) -> float:
    return float(top / bottom) if bottom else float("nan")
