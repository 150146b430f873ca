"""Warnings of what is unusual in a segmentation or in the skeleton made of it, a line each."""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from foldnorm.preprocessing.core.counts import counted
from foldnorm.preprocessing.skeletons.skeletonise import Size, Skeleton
from foldnorm.preprocessing.topology.homotopy import Mask

FEW_FOLDS = 0.02  # share of fold voxels at 1 mm; adults have about 0.06
# Cortex is thinner than 8 mm and sulci are narrower, but for some 0.9 cm³ of amygdala or Sylvian
# fissure; ventricles that count as cortex or as sulcus are not.
WIDE_MM, WIDE_CM3 = 4.0, 1.1
# Of 176 hemispheres of four sites, 1 mm: 305 to 566 folds, and at most 0.2 lone voxels for a
# thousand of white matter; where 1 % of these are flipped at random there are 7.
MANY_FOLDS = 1000  # at 1 mm; smaller voxels give more, smaller ones
SPECKLED = 1e-3  # lone voxels ÷ voxels of white matter


def tissue_warnings(grey: Mask, white: Mask, size: Size) -> list[str]:
    """Describe what is unusual in a segmentation: specks, and ventricles that count as cortex."""
    warnings = []
    lone = lone_voxels(white)
    per_thousand = 1000 * lone / max(int(np.count_nonzero(white)), 1)
    if per_thousand > 1000 * SPECKLED:
        warnings.append(
            f"speckled: {lone} lone voxels in or of white matter, {per_thousand:.1f} for a "
            f"thousand of its voxels; clean maps have at most 0.2"
        )
    return warnings + _wide_warning("grey matter", grey, size)


def skeleton_warnings(
    skeleton: Skeleton, labels: NDArray[np.uint16], grey: Mask, white: Mask, size: Size
) -> list[str]:
    """Describe what is unusual in a skeleton: folds too few or too many, wide sulci, topology.

    Args:
        skeleton: as it was made.
        labels: (I, J, K) fold labels.
        grey: (I, J, K) grey matter that it was made of.
        white: (I, J, K) white matter, likewise.
        size: of a voxel, mm.
    """
    warnings = []
    share = np.count_nonzero(labels) * float(np.prod(size)) ** (2 / 3)
    share /= max(np.count_nonzero(grey | white) * float(np.prod(size)), 1)
    if share < FEW_FOLDS:
        warnings.append(f"hardly any fold: {share:.3f} mm² a mm³ of brain, adults have about 0.06")
    warnings += many_folds_warning(len(np.unique(labels[labels > 0])), size)
    fluid = skeleton.ball & ~skeleton.hull & ~grey & ~white
    warnings += _wide_warning("sulci", fluid, size)
    if not skeleton.is_right:
        warnings.append(
            f"{counted(skeleton.components, 'component')}, Euler number {skeleton.euler}, "
            f"{counted(skeleton.blocks, '2×2×2 block')}; expected 1, 2, 0"
        )
    return warnings


def many_folds_warning(folds: int, size: Size) -> list[str]:
    """Warn of a hemisphere with far more folds than any brain has.

    Args:
        folds: number of folds.
        size: of a voxel, mm; a brain's number grows as voxels get smaller than 1 mm³, about as
            their number does.
    """
    usual = MANY_FOLDS / min(float(np.prod(size)), 1.0)
    if folds <= usual:
        return []
    return [f"{folds} folds, expected at most {usual:.0f}: is the segmentation speckled?"]


def lone_voxels(mask: Mask) -> int:
    """Count voxels that differ from all six neighbours, (I, J, K); beyond the edge nothing is."""
    padded = np.pad(mask, 1)
    differs = np.ones(mask.shape, dtype=np.bool_)
    for axis in range(3):
        for shift in (0, 2):
            window = [slice(1, -1)] * 3
            window[axis] = slice(shift, shift + mask.shape[axis])
            differs &= padded[tuple(window)] != mask
    return int(np.count_nonzero(differs))


def _wide_warning(what: str, mask: Mask, size: Size) -> list[str]:
    wide = wide_volume(mask, size)
    if wide <= WIDE_CM3:
        return []
    return [
        f"{wide:.1f} cm³ of {what} lie more than {WIDE_MM:g} mm from anything else: "
        "ventricles? they belong to white matter"
    ]


def wide_volume(mask: NDArray[np.bool_], size: tuple[float, float, float]) -> float:
    """Volume in cm³ of what lies more than `WIDE_MM` within a mask, read every 2 mm."""
    i, j, k = (max(int(2 / side), 1) for side in size)
    sampled = np.pad(mask[::i, ::j, ::k], 1)
    apart = (i * size[0], j * size[1], k * size[2])
    within = ndimage.distance_transform_edt(sampled, sampling=apart) > WIDE_MM
    return float(np.count_nonzero(within) * np.prod(apart) / 1000)
