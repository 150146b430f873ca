"""Random affine motion and mirroring of images, as MONAI transforms."""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from monai.config import KeysCollection
from monai.transforms import MapTransform
from numpy.typing import NDArray
from scipy import ndimage

from foldnorm.pipeline.data.augmentation import STREAM, AugmentationOptions, draw_affine
from foldnorm.pipeline.data.items import GeneratorTransform, like
from foldnorm.preprocessing.spatial.space import Matrix

MIRRORED = 0.5  # share of the draws in which an axis is


@dataclass(frozen=True)
class ImageMotion:
    """Motion of images of one shape.

    Attributes:
        matrix: (d + 1, d + 1), pixel index after the motion → before, once mirrored.
        mirrored: axes that are mirrored first.
        order: of the splines; 1 where pixels move as a whole.
    """

    matrix: Matrix
    mirrored: tuple[int, ...]
    order: int

    def of(self, image: NDArray[Any]) -> NDArray[Any]:
        """Move a (*sides) image; edges go on beyond the border."""
        image = np.flip(image, self.mirrored)
        moved = ndimage.affine_transform(
            image, self.matrix[:-1, :-1], self.matrix[:-1, -1], order=self.order, mode="nearest"
        )
        return moved.clip(image.min(), image.max())


class RandImageAffine(GeneratorTransform):
    """Rotate, stretch, shift and mirror an image at random, all of its channels alike.

    Cubic splines: linear interpolation would teach that images are blurred. Edges go on beyond the
    border, and values stay within those of the channel. The grid stays, so the affine of a
    ``MetaTensor`` is kept.

    Args:
        rotation: degrees at most; in volumes, about any axis.
        stretch: of each axis at most, as a share.
        shift: pixels at most along each axis, whole ones.
        mirror: whether each axis is mirrored in every second draw.

    Raises:
        InputError: a limit is below 0, or of no image that still shows the same.

    Example:
        >>> import numpy as np
        >>> image = np.linspace(-1, 1, 64, dtype=np.float32).reshape(1, 8, 8)
        >>> move = RandImageAffine(rotation=10, mirror=True).set_random_state(seed=0)
        >>> moved = move(image)
        >>> moved.shape, moved.dtype
        ((1, 8, 8), dtype('float32'))
    """

    stream = STREAM

    def __init__(
        self,
        rotation: float = 0.0,
        stretch: float = 0.0,
        shift: int = 0,
        *,
        mirror: bool = False,
    ) -> None:
        super().__init__()
        self.limits = AugmentationOptions(rotation, stretch, shift, mirror=mirror)

    def __call__(self, image: Any) -> Any:
        """(C, *sides) float → the same shape, dtype and type, array or tensor."""
        return self.moved(image, self.draw(self.rng, tuple(image.shape[1:])))

    def draw(self, rng: np.random.Generator, shape: tuple[int, ...]) -> ImageMotion:
        """Draw the motion of images of a shape (*sides)."""
        matrix = draw_affine(rng, self.limits, shape)
        mirrored: tuple[int, ...] = ()
        if self.limits.mirror:
            mirrored = tuple(np.flatnonzero(rng.random(len(shape)) < MIRRORED).tolist())
        bends = self.limits.rotation or self.limits.stretch
        return ImageMotion(matrix, mirrored, 3 if bends else 1)  # whole pixels: exact

    @staticmethod
    def moved(image: Any, motion: ImageMotion) -> Any:
        """Move each channel of a (C, *sides) image."""
        return like(image, np.stack([motion.of(channel) for channel in np.asarray(image)]))


class RandImageAffined(GeneratorTransform, MapTransform):
    """Dictionary version of `RandImageAffine`; all keys are moved alike.

    Args:
        keys: of (C, *sides) images of one shape.
        rotation: as of `RandImageAffine`, and the others likewise.
        stretch: likewise.
        shift: likewise.
        mirror: likewise.
        allow_missing_keys: whether a dictionary may lack a key.

    Example:
        >>> import numpy as np
        >>> item = {"image": np.eye(8, dtype=np.float32)[None]}
        >>> move = RandImageAffined("image", shift=2).set_random_state(seed=0)
        >>> move(item)["image"].shape
        (1, 8, 8)
    """

    stream = STREAM

    def __init__(
        self,
        keys: KeysCollection,
        rotation: float = 0.0,
        stretch: float = 0.0,
        shift: int = 0,
        *,
        mirror: bool = False,
        allow_missing_keys: bool = False,
    ) -> None:
        MapTransform.__init__(self, keys, allow_missing_keys)
        GeneratorTransform.__init__(self)
        self.array = RandImageAffine(rotation, stretch, shift, mirror=mirror)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the dictionary with the images moved."""
        changed = dict(data)
        keys = list(self.key_iterator(changed))
        if not keys:
            return changed
        motion = self.array.draw(self.rng, tuple(changed[keys[0]].shape[1:]))
        for key in keys:
            changed[key] = self.array.moved(changed[key], motion)
        return changed
