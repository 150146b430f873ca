"""Damage to images: strokes, blobs and noise, drawn apart from what they are drawn onto.

Strokes are straight, broken (pieces of a straight one, each moved and turned a little) or curved (a
chain of pieces that turns). In volumes they are tubes, or plates. What is known of damage is its
mask: where it lies, and changed the image by more than `VISIBLE`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from foldnorm.models.protocols import (
    DamageKind,
    Denoises,
    LearnsFromDamage,
    LearnsFromTrueDamage,
)
from foldnorm.pipeline.metrics.images import RANGE
from foldnorm.preprocessing.core.errors import InputError

VISIBLE = 0.02  # of intensities from −1 to 1: a change that can be seen at all
PIECES = 3, 6  # of a broken or curved stroke
MOVED = 0.04  # of the longest side, that a piece is moved by at most along each axis
TURNED = 0.35  # radians that a piece of a broken stroke is turned by at most
BENT = 0.8  # radians between pieces of a curved one, at most
KEPT = 0.75  # of the length of a piece of a broken one
LENGTH = 0.3, 1.0  # of the longest side
RADIUS = 0.03, 0.1  # of a blob, likewise
ROUGHNESS = 0.5  # of its radius, that its border departs by
PLATES = 0.5  # share of the strokes of a volume that are plates
NOISE = 0.05, 0.3  # standard deviation, share of the range
LIKELY = 0.5  # probability of damage, that counts as some
Mask = NDArray[np.bool_]
Image = NDArray[np.float32]


@dataclass(frozen=True)
class Damage:
    """Damage that is laid onto an image.

    Attributes:
        mask: (*sides) bool, where it lies.
        values: (*sides) float32; inside the mask they take the place of intensities, or are added
            to them.
        added: whether they are added.
    """

    mask: Mask
    values: Image
    added: bool = False

    def onto(self, image: Image) -> Image:
        """Lay the damage onto an image, cut off at −1 and 1."""
        inside = image + self.values if self.added else self.values
        return np.where(self.mask, np.clip(inside, -1, 1), image).astype(np.float32)


@dataclass(frozen=True)
class Degradations:
    """Draws damage.

    Attributes:
        kinds: ``straight``, ``broken`` and ``curved`` strokes, ``blobs``, ``noise``.
        most: pieces of damage of an image; from one on.
        widths: of strokes, smallest and largest, pixels.
    """

    kinds: Sequence[DamageKind]
    most: int
    widths: tuple[float, float]

    def draw(self, shape: Sequence[int], rng: np.random.Generator) -> list[Damage]:
        """Damage of an image of a shape, in the order in which it is applied."""
        found: list[Damage] = []
        for _ in range(int(rng.integers(1, self.most + 1))):
            kind = self.kinds[int(rng.integers(len(self.kinds)))]
            if kind == "noise":
                if not any(damage.added for damage in found):  # once is enough
                    found.append(_noise(shape, rng))
            elif kind == "blobs":
                found.append(_filled(_blob(shape, rng), rng))
            else:
                width = rng.uniform(*self.widths)
                found.append(_filled(_stroke(kind, shape, width, rng), rng))
        return found

    def degrade(self, image: Image, rng: np.random.Generator) -> Image:
        """(*sides) → (3, *sides): damaged, its mask as 0 and 1, and as it was."""
        damaged = image
        for damage in self.draw(image.shape, rng):
            damaged = damage.onto(damaged)
        mask = np.abs(damaged - image) > VISIBLE
        return np.stack([damaged, mask.astype(np.float32), image]).astype(np.float32)


def _filled(mask: Mask, rng: np.random.Generator) -> Damage:
    """Fill a mask with one random grey."""
    return Damage(mask, np.full(mask.shape, rng.uniform(-1, 1), dtype=np.float32))


def _noise(shape: Sequence[int], rng: np.random.Generator) -> Damage:
    """Gaussian, everywhere."""
    spread = 2 * rng.uniform(*NOISE)
    values = spread * rng.standard_normal(tuple(shape), dtype=np.float32)
    return Damage(np.ones(tuple(shape), dtype=np.bool_), values, added=True)


def _stroke(kind: DamageKind, shape: Sequence[int], width: float, rng: np.random.Generator) -> Mask:
    """Draw the mask of a stroke."""
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


def _blob(shape: Sequence[int], rng: np.random.Generator) -> Mask:
    """Draw the mask of a spot with a rough border."""
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


def degrader(
    model: Any, kinds: Sequence[DamageKind] = ()
) -> Callable[[Image, np.random.Generator], Image]:
    """Return a function that degrades images as those that a model learned from.

    Args:
        model: that takes noise away, or finds damage.
        kinds: of damage, instead of the model's own.

    Returns:
        A function of an image from −1 to 1, (*sides), and a generator: (2, *sides), degraded and as
        it was; of damage (3, *sides), with the mask between them as 0 and 1.

    Raises:
        InputError: the model learned from neither.
    """
    if isinstance(model, LearnsFromDamage):
        low, high = model.widths
        return Degradations(kinds or model.damage, model.max_damage, (low, high)).degrade
    if kinds or not isinstance(model, Denoises):
        raise InputError(f"{type(model).__name__} did not learn from damage")
    factor = model.noise_factor
    return lambda image, rng: np.stack([with_noise(image, factor, rng), image])


def with_noise(images: NDArray[Any], factor: float, rng: np.random.Generator) -> Image:
    """Images from −1 to 1 with Gaussian noise, cut off at the ends of the range.

    Args:
        images: of any shape.
        factor: standard deviation of the noise, as a share of the range; 0 for none.
        rng: draws it.
    """
    if not factor:
        return images.astype(np.float32)
    noise = factor * RANGE * rng.standard_normal(images.shape, dtype=np.float32)
    return np.clip(images + noise, -1, 1).astype(np.float32)


def came_damaged(rows: Sequence[Mapping[str, str]], model: object) -> NDArray[np.bool_]:
    """Return which images came damaged, (N,) bool; the model names the column that says so."""
    told = model.damaged_column if isinstance(model, LearnsFromTrueDamage) else ""
    column, _, value = told.partition("=")
    return np.array([bool(told) and row.get(column) == value for row in rows], dtype=np.bool_)
