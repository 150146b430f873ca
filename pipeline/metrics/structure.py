"""Statistics of the structure of single volumes: of sheets, and of microstructures.

Two-point correlation and chord lengths: Torquato 2002, *Random Heterogeneous Materials*, chapter 2.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.stats import ks_2samp
from skimage.feature import canny
from skimage.measure import euler_number
from skimage.transform import hough_circle, hough_circle_peaks

from foldnorm.pipeline.metrics.sheets import count_components, opening_fraction
from foldnorm.preprocessing.io.schemes import LabelScheme

FAR = 0.25  # of the smallest side: lag of the two-point correlation
MIN_CIRCLE, MAX_CIRCLE = 3, 0.25  # radius in pixels; share of the smallest side
ROUND = 0.5  # share of its edge that a circle shows at least
Mask = NDArray[np.bool_]


def sheet_statistics(volume: NDArray[np.uint8], scheme: LabelScheme) -> dict[str, float]:
    """Voxels, pieces, Euler number, depth and thickness of what a deletion can take.

    Args:
        volume: (I, J, K) class numbers.
        scheme: of them.

    Returns:
        ``voxels``; ``components``, 26-connected; ``euler_number``; ``thick``, the share of voxels
        in full 2×2×2 blocks; with a class outside, ``depth`` and ``depth_90``: mean and 90th
        percentile of the distance of the structure from it, voxels.

    Example:
        >>> from foldnorm.preprocessing.io.schemes import load_scheme
        >>> volume = np.zeros((12, 12, 12), np.uint8)  # outside
        >>> volume[2:10, 2:10, 2:10] = 1
        >>> volume[5, 3:9, 3:9] = 2  # a sulcus, one voxel thick
        >>> found = sheet_statistics(volume, load_scheme("skeleton"))
        >>> found["voxels"], found["components"], found["thick"]
        (36.0, 1.0, 0.0)
    """
    mask = scheme.foreground(volume)
    found = {
        "voxels": float(mask.sum()),
        "components": float(count_components(mask)),
        "euler_number": float(euler_number(mask, connectivity=3)),
        "thick": opening_fraction(mask),
    }
    outside = volume == scheme.fill
    if scheme.fill != scheme.void and outside.any() and mask.any():
        depth = ndimage.distance_transform_edt(~outside)[mask]
        found |= {"depth": float(depth.mean()), "depth_90": float(np.quantile(depth, 0.9))}
    return found


def microstructure_statistics(image: NDArray[np.floating], threshold: float) -> dict[str, float]:
    """Volume fraction, two-point correlation, chord lengths and round grains of the bright phase.

    Args:
        image: (I, J) or (I, J, K).
        threshold: above which it is bright.

    Returns:
        ``volume_fraction``; ``correlation``, the share of pairs of points that are both bright, a
        quarter of the smallest side apart, over that of any two; ``chord``, the mean length of
        chords through it, pixels; in 2-D ``circles``, how many a Hough transform finds, and
        ``circle_radius``, their mean radius.

    Example:
        >>> stripes = np.zeros((40, 40))
        >>> stripes[:, [column for column in range(40) if column % 8 < 3]] = 1
        >>> found = microstructure_statistics(stripes, 0.5)
        >>> found["volume_fraction"], found["chord"]
        (0.375, 3.0)
    """
    bright = image > threshold
    fraction = float(bright.mean())
    found = {
        "volume_fraction": fraction,
        "correlation": _correlation(bright, fraction),
        "chord": _mean_chord(bright),
    }
    if image.ndim == 2:
        radii = circle_radii(bright)
        found |= {
            "circles": float(len(radii)),
            "circle_radius": float(np.mean(radii)) if len(radii) else float("nan"),
        }
    return found


def circle_radii(bright: Mask) -> NDArray[np.int64]:
    """Radii of the circles that a Hough transform finds in a picture, pixels."""
    radii = np.arange(MIN_CIRCLE, max(int(MAX_CIRCLE * min(bright.shape)), 4))
    votes = hough_circle(canny(bright.astype(float), sigma=1.0), radii)
    _, _, _, found = hough_circle_peaks(
        votes, radii, min_xdistance=MIN_CIRCLE, min_ydistance=MIN_CIRCLE, threshold=ROUND,
        normalize=False,
    )  # fmt: skip
    return np.asarray(found, dtype=np.int64)


def distance_between(
    first: list[dict[str, float]], second: list[dict[str, float]]
) -> Mapping[str, float]:
    """Kolmogorov–Smirnov distance of each statistic between two sets of volumes, 0 to 1."""
    found = {}
    for name in first[0]:
        a, b = (np.array([row.get(name, np.nan) for row in rows]) for rows in (first, second))
        a, b = a[np.isfinite(a)], b[np.isfinite(b)]
        found[name] = float(ks_2samp(a, b).statistic) if len(a) and len(b) else float("nan")
    return found


def _correlation(bright: Mask, fraction: float) -> float:
    """Two-point correlation over that of independent points, mean over axes."""
    if not 0 < fraction < 1:
        return float("nan")
    lag = max(int(FAR * min(bright.shape)), 1)
    shares = []
    for axis in range(bright.ndim):
        ahead = np.take(bright, range(lag, bright.shape[axis]), axis=axis)
        behind = np.take(bright, range(bright.shape[axis] - lag), axis=axis)
        shares.append((ahead & behind).mean())
    return float(np.mean(shares) / fraction**2)


def _mean_chord(bright: Mask) -> float:
    """Mean length of runs along the axes, that do not touch the border."""
    lengths = []
    for axis in range(bright.ndim):
        lines = np.moveaxis(bright, axis, -1).reshape(-1, bright.shape[axis]).astype(np.int8)
        steps = np.diff(lines, axis=1)
        for line in steps[(steps != 0).any(axis=1)]:
            begins, ends = np.flatnonzero(line == 1), np.flatnonzero(line == -1)
            ends = ends[ends > begins[0]] if len(begins) else ends[:0]
            lengths += [end - begin for begin, end in zip(begins, ends, strict=False)]
    return float(np.mean(lengths)) if lengths else float("nan")
