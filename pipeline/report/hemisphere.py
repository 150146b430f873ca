"""Pictures of a hemisphere from three sides, sulci dark, regions lit up."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

PIXEL = 1.0  # mm
SMOOTHING = 1.0  # mm, sd, of the surface
SEEN_THROUGH = 25  # mm below the surface that a region shines through: as deep as sulci are
ENVELOPE = 15  # mm, wider than a sulcus is open
SULCUS_DEPTH = 6.0  # mm below the envelope at which a sulcus has its full darkness
SULCUS_SHADE = 0.6
LIGHT = np.array([-0.35, 0.45, 0.82])  # from the upper left, in front
TISSUE = np.array([228.0, 224, 218])
REGION_COLOURS = np.array([[208.0, 2, 27], [243, 128, 32], [247, 190, 60]])  # by rank
STRENGTH = 0.7  # of the colour of a region
# Where the eye is: axis of the ray, whether at its high end, whether the picture runs from the
# high end of the first axis left to the low one.
EYES = {"left": (0, False, True), "right": (0, True, False), "above": (2, True, False)}
NAMES = {
    "L": {"left": "lateral", "right": "medial"},
    "R": {"right": "lateral", "left": "medial"},
}
LETTERS = {"left": "AP", "right": "PA", "above": "LR"}
Field = NDArray[np.float32]


def hemisphere_views(
    inside: NDArray[np.bool_],
    regions: NDArray[np.uint8],
    voxel_size: Sequence[float],
    hemi: str,
) -> list[tuple[str, str, NDArray[np.uint8]]]:
    """Draw a hemisphere from lateral, from medial and from above.

    Args:
        inside: (I, J, K), RAS+, what has a surface.
        regions: (I, J, K) rank of each voxel's region, 0 for none.
        voxel_size: mm.
        hemi: ``L``, ``R``, or empty for a whole brain.

    Returns:
        Name, letters at the left and at the right, and picture (H, W, 3) uint8 of `PIXEL` mm each;
        superior is up, or anterior where one looks from above.
    """
    zoom = np.array(voxel_size) / PIXEL
    smooth = ndimage.zoom(inside.astype(np.float32), zoom, order=1)
    smooth = ndimage.gaussian_filter(smooth, SMOOTHING / PIXEL)
    ranks = ndimage.zoom(regions, zoom, order=0)
    slopes = [np.asarray(own) for own in np.gradient(smooth)]
    side_names = NAMES.get(hemi, {})
    order = sorted(EYES, key=lambda eye: (eye == "above", side_names.get(eye) == "medial"))
    return [
        (side_names.get(eye, f"from {'the ' if eye != 'above' else ''}{eye}"), LETTERS[eye],
         _view(smooth, slopes, ranks, *EYES[eye]))
        for eye in order
    ]  # fmt: skip


def _view(
    smooth: Field,
    slopes: Sequence[Field],
    ranks: NDArray[np.uint8],
    axis: int,
    from_high: bool,
    high_is_left: bool,
) -> NDArray[np.uint8]:
    """Draw a surface in parallel projection along an axis, (H, W, 3)."""
    across, up = (n for n in range(3) if n != axis)

    def turned(field: NDArray[Any]) -> NDArray[Any]:
        field = field.transpose(across, up, axis)
        return field[:: -1 if high_is_left else 1, :, :: -1 if from_high else 1]

    solid = turned(smooth) > 0.5
    hit, first = np.asarray(solid.any(axis=2)), solid.argmax(axis=2)
    i, j = np.indices(first.shape)
    # Out of the surface is where the field falls; the third axis points to the eye.
    signs = (1 if high_is_left else -1, -1, -1 if from_high else 1)
    normal = np.stack(
        [
            sign * turned(slopes[n])[i, j, first].astype(np.float64)
            for sign, n in zip(signs, (across, up, axis), strict=True)
        ],
        axis=-1,
    )
    normal /= np.maximum(np.linalg.norm(normal, axis=-1, keepdims=True), 1e-9)
    light = 0.45 + 0.55 * np.clip(normal @ (LIGHT / np.linalg.norm(LIGHT)), 0, 1)
    colour = TISSUE * (light * (1 - SULCUS_SHADE * _sulci(first, hit)))[..., None]
    depth = np.arange(solid.shape[2])
    seen = (depth >= first[..., None]) & (depth <= first[..., None] + SEEN_THROUGH / PIXEL)
    oriented = turned(ranks)
    for rank in range(len(REGION_COLOURS), 0, -1):  # the strongest on top
        lit = ((oriented == rank) & seen).any(axis=2) & hit
        region = REGION_COLOURS[rank - 1] * (0.55 + 0.45 * light[..., None])
        colour = np.where(lit[..., None], (1 - STRENGTH) * colour + STRENGTH * region, colour)
    colour[~hit] = 255
    return np.asarray(colour.transpose(1, 0, 2)[::-1].round(), dtype=np.uint8)


def _sulci(first: NDArray[np.int64], hit: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Compute how deep a surface lies below its envelope, 0 to 1."""
    depth = np.where(hit, first, first.max()).astype(np.float64)
    envelope = ndimage.grey_opening(depth, round(ENVELOPE / PIXEL))  # fills sulci, keeps slopes
    return np.clip((depth - envelope) * PIXEL / SULCUS_DEPTH, 0, 1)
