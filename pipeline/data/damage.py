"""Random damage to images, as MONAI transforms: strokes, blobs and noise.

Strokes are straight, broken (pieces of a straight one, each moved and turned a little) or curved (a
chain of pieces that turns). In volumes they are tubes, or plates. What is known of damage is its
mask: where it lies, and changed the image by more than `VISIBLE`.
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from monai.config import KeysCollection
from monai.transforms import CopyItemsd, MapTransform
from monai.utils import ensure_tuple
from numpy.typing import NDArray

from foldnorm.models.protocols import (
    DamageKind,
    Denoises,
    LearnsFromDamage,
    LearnsFromTrueDamage,
)
from foldnorm.pipeline.data.items import (
    GeneratorTransform,
    ItemTransform,
    like,
    stacked,
    transformed,
)
from foldnorm.pipeline.data.strokes import Mask, draw_blob, draw_stroke
from foldnorm.pipeline.metrics.images import RANGE
from foldnorm.preprocessing.core.errors import InputError

VISIBLE = 0.02  # of intensities from −1 to 1: a change that can be seen at all
NOISE = 0.05, 0.3  # standard deviation, share of the range
LIKELY = 0.5  # probability of damage, that counts as some
UNKNOWN = -1.0  # mask of damage, in images that came damaged
STREAM = "degrade"  # of random numbers
DEGRADED = ("image", "mask", "clean")  # what models learn from: given, what was done, as it was
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


class RandStrokes(GeneratorTransform):
    """Lay strokes, blobs and noise onto an image at random; values stay within −1 and 1.

    Args:
        kinds: ``straight``, ``broken`` and ``curved`` strokes, ``blobs``, ``noise``.
        most: pieces of damage of an image; from one on.
        widths: of strokes, smallest and largest, pixels.

    Example:
        >>> import numpy as np
        >>> image = np.zeros((1, 32, 32), np.float32)
        >>> scratch = RandStrokes(["curved"], most=3).set_random_state(seed=0)
        >>> bool((scratch(image) != 0).any())
        True
    """

    stream = STREAM

    def __init__(
        self,
        kinds: Sequence[DamageKind] = ("straight", "broken", "curved"),
        most: int = 12,
        widths: tuple[float, float] = (1.5, 6.0),
    ) -> None:
        super().__init__()
        self.kinds, self.most, self.widths = tuple(kinds), most, widths

    def __call__(self, image: Any) -> Any:
        """(1, *sides) from −1 to 1 → the same shape, dtype and type, array or tensor."""
        return self.damaged(image, self.draw(self.rng, tuple(image.shape[1:])))

    def draw(self, rng: np.random.Generator, shape: Sequence[int]) -> list[Damage]:
        """Draw damage of images of a shape, in the order in which it is laid onto them."""
        found: list[Damage] = []
        for _ in range(int(rng.integers(1, self.most + 1))):
            kind = self.kinds[int(rng.integers(len(self.kinds)))]
            if kind == "noise":
                if not any(damage.added for damage in found):  # once is enough
                    found.append(_noise(shape, rng))
            elif kind == "blobs":
                found.append(_filled(draw_blob(shape, rng), rng))
            else:
                width = rng.uniform(*self.widths)
                found.append(_filled(draw_stroke(kind, shape, width, rng), rng))
        return found

    @staticmethod
    def damaged(image: Any, damage: Sequence[Damage]) -> Any:
        """Lay damage onto each channel of a (C, *sides) image."""
        channels = np.asarray(image)
        for piece in damage:
            channels = np.stack([piece.onto(channel) for channel in channels])
        return like(image, channels)


class RandStrokesd(GeneratorTransform, MapTransform):
    """Dictionary version of `RandStrokes`; all keys get the same damage.

    To keep what the image was, put MONAI's ``CopyItemsd`` before it.

    Args:
        keys: of (1, *sides) images of one shape.
        kinds: as of `RandStrokes`, and the others likewise.
        most: likewise.
        widths: likewise.
        mask_keys: for each of the keys that of a mask that is written, float32: 1 where the image
            changed by more than `VISIBLE`, else 0; none are written if there are none.
        came_damaged_key: of a flag; where it is true, nothing is done, and the mask is −1: nobody
            knows what the image was. None: no image came damaged.
        allow_missing_keys: whether a dictionary may lack a key.

    Example:
        >>> import numpy as np
        >>> item = {"image": np.zeros((1, 32, 32), np.float32)}
        >>> scratch = RandStrokesd("image", mask_keys="mask").set_random_state(seed=0)
        >>> damaged = scratch(item)
        >>> bool((damaged["image"][damaged["mask"] == 0] == 0).all())
        True
    """

    stream = STREAM

    def __init__(
        self,
        keys: KeysCollection,
        kinds: Sequence[DamageKind] = ("straight", "broken", "curved"),
        most: int = 12,
        widths: tuple[float, float] = (1.5, 6.0),
        *,
        mask_keys: KeysCollection = (),
        came_damaged_key: Hashable | None = None,
        allow_missing_keys: bool = False,
    ) -> None:
        MapTransform.__init__(self, keys, allow_missing_keys)
        GeneratorTransform.__init__(self)
        self.array = RandStrokes(kinds, most, widths)
        masks = ensure_tuple(mask_keys)
        if masks and len(masks) != len(self.keys):
            raise InputError(f"expected a mask key for each of {self.keys}, got {masks}")
        self.mask_of = dict(zip(self.keys, masks, strict=True)) if masks else {}
        self.came_damaged_key = came_damaged_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the dictionary with the images damaged, and the masks."""
        changed = dict(data)
        keys = list(self.key_iterator(changed))
        if not keys:
            return changed
        if self.came_damaged_key is not None and np.any(changed[self.came_damaged_key]):
            unknown = np.full(changed[keys[0]].shape, UNKNOWN, dtype=np.float32)
            return changed | {mask: like(changed[keys[0]], unknown) for mask in self._masks(keys)}
        damage = self.array.draw(self.rng, tuple(changed[keys[0]].shape[1:]))
        for key in keys:
            before, after = changed[key], self.array.damaged(changed[key], damage)
            changed[key] = after
            if key in self.mask_of:
                visible = np.abs(np.asarray(after) - np.asarray(before)) > VISIBLE
                changed[self.mask_of[key]] = like(before, visible.astype(np.float32))
        return changed

    def _masks(self, keys: Sequence[Hashable]) -> list[Hashable]:
        return [self.mask_of[key] for key in keys if key in self.mask_of]


class RandClippedNoise(GeneratorTransform):
    """Add Gaussian noise to an image from −1 to 1, cut off at the ends of that range.

    Args:
        factor: standard deviation of the noise, as a share of the range; 0: none.

    Example:
        >>> import numpy as np
        >>> image = np.zeros((1, 16, 16), np.float32)
        >>> noisy = RandClippedNoise(0.5).set_random_state(seed=0)(image)
        >>> bool(noisy.std() > 0.5), bool(abs(noisy).max() <= 1)
        (True, True)
    """

    stream = STREAM

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def __call__(self, image: Any) -> Any:
        """(C, *sides) from −1 to 1 → the same shape, dtype and type, array or tensor."""
        if not self.factor:
            return image
        noise = self.rng.standard_normal(tuple(image.shape), dtype=np.float32)
        return like(image, np.clip(np.asarray(image) + self.factor * RANGE * noise, -1, 1))


class RandClippedNoised(GeneratorTransform, MapTransform):
    """Dictionary version of `RandClippedNoise`; each key gets noise of its own.

    Args:
        keys: of (C, *sides) images from −1 to 1.
        factor: as of `RandClippedNoise`.
        allow_missing_keys: whether a dictionary may lack a key.

    Example:
        >>> import numpy as np
        >>> item = {"image": np.zeros((1, 16, 16), np.float32)}
        >>> noisy = RandClippedNoised("image", 0.1).set_random_state(seed=0)(item)["image"]
        >>> bool(0 < noisy.std() < 0.3)
        True
    """

    stream = STREAM

    def __init__(
        self, keys: KeysCollection, factor: float, allow_missing_keys: bool = False
    ) -> None:
        MapTransform.__init__(self, keys, allow_missing_keys)
        GeneratorTransform.__init__(self)
        self.array = RandClippedNoise(factor)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the dictionary with noise in the images."""
        changed = dict(data)
        self.array.set_random_state(state=self.R)
        for key in self.key_iterator(changed):
            changed[key] = self.array(changed[key])
        return changed


def _filled(mask: Mask, rng: np.random.Generator) -> Damage:
    """Fill a mask with one random grey."""
    return Damage(mask, np.full(mask.shape, rng.uniform(-1, 1), dtype=np.float32))


def _noise(shape: Sequence[int], rng: np.random.Generator) -> Damage:
    """Gaussian, everywhere."""
    spread = 2 * rng.uniform(*NOISE)
    values = spread * rng.standard_normal(tuple(shape), dtype=np.float32)
    return Damage(np.ones(tuple(shape), dtype=np.bool_), values, added=True)


def degradation_of(
    model: Any,
    kinds: Sequence[DamageKind] = (),
    widths: tuple[float, float] | None = None,
    came_damaged_key: Hashable | None = None,
) -> list[ItemTransform]:
    """Return what degrades images as those that a model learned from.

    Args:
        model: that takes noise away, or finds damage.
        kinds: of damage, instead of the model's own.
        widths: of strokes, smallest and largest, pixels, likewise.
        came_damaged_key: see `RandStrokesd`.

    Returns:
        Transforms of an item with ``image``, (1, *sides) float32 from −1 to 1: it is degraded, and
        ``clean`` as it was; of damage, ``mask`` is its mask.

    Raises:
        InputError: the model learned from neither.
    """
    keep = CopyItemsd("image", names="clean")
    if isinstance(model, LearnsFromDamage):
        low, high = widths or model.widths
        strokes = RandStrokesd(
            "image", kinds or model.damage, model.max_damage, (low, high), mask_keys="mask",
            came_damaged_key=came_damaged_key,
        )  # fmt: skip
        return [keep, strokes]
    if kinds or widths or not isinstance(model, Denoises):
        raise InputError(f"{type(model).__name__} did not learn from damage")
    return [keep, RandClippedNoised("image", model.noise_factor)]


def degraded(
    image: Image, degradation: Sequence[ItemTransform], name: int | str, seed: int = 0
) -> Image:
    """Degrade an image, the same way whenever it is done.

    Args:
        image: (*sides) float32 from −1 to 1.
        degradation: see `degradation_of`.
        name: of the image, part of the key of what is drawn.
        seed: of what is drawn.

    Returns:
        (2, *sides), degraded and as it was; of damage (3, *sides), with the mask between them as 0
        and 1.
    """
    return stacked(transformed({"image": image[None]}, degradation, seed, name), DEGRADED)


def came_damaged(rows: Sequence[Mapping[str, str]], model: object) -> NDArray[np.bool_]:
    """Return which images came damaged, (N,) bool; the model names the column that says so."""
    condition = model.damaged_column if isinstance(model, LearnsFromTrueDamage) else ""
    column, _, value = condition.partition("=")
    return np.array([bool(condition) and row.get(column) == value for row in rows], dtype=np.bool_)
