"""Masks of strokes and spots of damage, drawn at random in images and volumes."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from foldnorm.models.protocols import DamageKind

PIECES = 3, 6  # of a broken or curved stroke
MOVED = 0.04  # of the longest side, that a piece is moved by at most along each axis
TURNED = 0.35  # radians that a piece of a broken stroke is turned by at most
BENT = 0.8  # radians between pieces of a curved one, at most
KEPT = 0.75  # of the length of a piece of a broken one
LENGTH = 0.3, 1.0  # of the longest side
RADIUS = 0.03, 0.1  # of a blob, likewise
ROUGHNESS = 0.5  # of its radius, that its border departs by
PLATES = 0.5  # share of the strokes of a volume that are plates
Mask = NDArray[np.bool_]


def draw_stroke(
    kind: DamageKind, shape: Sequence[int], width: float, rng: np.random.Generator
) -> Mask:
    """Draw the mask of a stroke.

    Args:
        kind: ``straight``, ``broken`` or ``curved``; in volumes a straight one may be a plate.
        shape: sides of the image.
        width: of the stroke, pixels.
        rng: where random numbers come from.

    Returns:
        (*sides) bool.
    """
    longest = max(shape)
    length = longest * rng.uniform(*LENGTH)
    start = rng.uniform(0, 1, len(shape)) * np.array(shape)
    direction = _direction(len(shape), rng)
    if len(shape) == 3 and kind == "straight" and rng.random() < PLATES:
        return _plate(shape, start, direction, length / 2, width)
    if kind == "straight":
        pieces = [(start, start + length * direction)]
    else:
        pieces = _pieces(kind, start, direction, length, MOVED * longest, rng)
    mask = np.zeros(tuple(shape), dtype=np.bool_)
    for first, last in pieces:
        _paint(mask, first, last, width / 2)
    return mask


def _pieces(
    kind: DamageKind,
    start: NDArray[np.float64],
    direction: NDArray[np.float64],
    length: float,
    moved: float,
    rng: np.random.Generator,
) -> list[tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """Draw the ends of the pieces of a broken or curved stroke."""
    count = int(rng.integers(PIECES[0], PIECES[1] + 1))
    step = length / count
    found = []
    at, way = start, direction
    for n in range(count):
        if kind == "curved":  # each begins where the last one ended
            way = _turned(way, BENT, rng)
            found.append((at, at + step * way))
            at = at + step * way
            continue
        first = start + n * step * direction + rng.uniform(-moved, moved, len(start))
        found.append((first, first + KEPT * step * _turned(direction, TURNED, rng)))
    return found


def _plate(
    shape: Sequence[int],
    centre: NDArray[np.float64],
    normal: NDArray[np.float64],
    radius: float,
    thickness: float,
) -> Mask:
    """Compute the mask of a round plate in a volume."""
    apart = np.moveaxis(np.indices(tuple(shape)), 0, -1) - centre
    near = np.linalg.norm(apart, axis=-1) <= radius
    return near & (np.abs(apart @ normal) <= thickness / 2)


def draw_blob(shape: Sequence[int], rng: np.random.Generator) -> Mask:
    """Draw the mask of a spot with a rough border, (*sides) bool."""
    radius = max(shape) * rng.uniform(*RADIUS)
    centre = rng.uniform(0, 1, len(shape)) * np.array(shape)
    apart = np.moveaxis(np.indices(tuple(shape)), 0, -1) - centre
    rough = ndimage.gaussian_filter(rng.standard_normal(tuple(shape)), radius / 2)
    rough *= ROUGHNESS / max(float(rough.std()), 1e-9)
    return np.linalg.norm(apart, axis=-1) <= radius * (1 + rough)


def _paint(
    mask: Mask, first: NDArray[np.float64], last: NDArray[np.float64], radius: float
) -> None:
    """Set a mask where it lies near the line between two points, pixels."""
    low = np.floor(np.minimum(first, last) - radius).astype(int).clip(0)
    high = np.ceil(np.maximum(first, last) + radius).astype(int) + 1
    box = tuple(slice(a, b) for a, b in zip(low, np.minimum(high, mask.shape), strict=True))
    part = mask[box]
    if not part.size:
        return
    apart = np.moveaxis(np.indices(part.shape), 0, -1) + low - first
    along = last - first
    share = np.clip(apart @ along / max(float(along @ along), 1e-12), 0, 1)
    part |= np.linalg.norm(apart - share[..., None] * along, axis=-1) <= radius


def _direction(dims: int, rng: np.random.Generator) -> NDArray[np.float64]:
    vector = rng.standard_normal(dims)
    return vector / np.linalg.norm(vector)


def _turned(
    direction: NDArray[np.float64], most: float, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Turn a unit vector by a random angle of at most ``most`` radians in a random plane."""
    other = _direction(len(direction), rng)
    aside = other - (other @ direction) * direction
    norm = float(np.linalg.norm(aside))
    if norm < 1e-9:
        return direction
    angle = rng.uniform(-most, most)
    return np.cos(angle) * direction + np.sin(angle) * aside / norm
