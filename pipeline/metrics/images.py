"""Figures of repaired images against the originals, and of masks of damage against true ones."""

import numpy as np
from numpy.typing import NDArray
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

RANGE = 2.0  # of intensities from −1 to 1
Image = NDArray[np.float32]


def repair_figures(repaired: Image, damaged: Image, clean: Image) -> dict[str, float]:
    """PSNR (dB) and SSIM of a repaired image, and the PSNR that it gained; all (*sides)."""
    after = psnr(clean, repaired)
    figures = {
        "psnr": after,
        "ssim": float(structural_similarity(clean, repaired, data_range=RANGE)),
    }
    if (damaged != clean).any():
        figures["psnr_gain"] = after - psnr(clean, damaged)
    return figures


def psnr(clean: Image, other: Image) -> float:
    """Peak signal-to-noise ratio, dB; infinite where both are the same.

    Example:
        >>> round(psnr(np.zeros((4, 4)), np.full((4, 4), 0.2)), 6)
        20.0
    """
    if (clean == other).all():
        return float("inf")
    return float(peak_signal_noise_ratio(clean, other, data_range=RANGE))


def iou(told: NDArray[np.bool_], true: NDArray[np.bool_]) -> float:
    """Intersection over union of two masks; NaN where there is nothing in either.

    Example:
        >>> iou(np.array([True, True, False]), np.array([True, False, False]))
        0.5
    """
    either = int((told | true).sum())
    return float((told & true).sum() / either) if either else float("nan")
