"""Parts of training volumes, where whole ones are too large to learn from."""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from monai.config import KeysCollection
from monai.transforms import MapTransform
from numpy.typing import NDArray

from foldnorm.pipeline.data.items import GeneratorTransform, class_numbers
from foldnorm.preprocessing.core.errors import InputError
from foldnorm.preprocessing.io.schemes import LabelScheme


@dataclass(frozen=True)
class Window:
    """A box of voxels in a volume, or partly beyond it.

    Attributes:
        first: its first voxel.
        shape: its sides.
    """

    first: tuple[int, int, int]
    shape: tuple[int, int, int]

    @classmethod
    def whole(cls, shape: tuple[int, ...]) -> "Window":
        """Return the window that is all of an (I, J, K) volume."""
        i, j, k = shape
        return cls((0, 0, 0), (i, j, k))

    def wider(self, margin: int) -> "Window":
        """Return this window with a margin added on each side."""
        (a, b, c), (i, j, k) = self.first, self.shape
        more = 2 * margin
        return Window((a - margin, b - margin, c - margin), (i + more, j + more, k + more))

    def of(self, volumes: NDArray[Any]) -> NDArray[Any]:
        """Cut the window out of (…, I, J, K) volumes; outside them, edge voxels are repeated."""
        i, j, k = (
            np.clip(np.arange(first, first + length), 0, side - 1)
            for first, length, side in zip(self.first, self.shape, volumes.shape[-3:], strict=True)
        )
        return volumes[..., i[:, None, None], j[:, None], k]

    def place(self, shape: tuple[int, ...]) -> NDArray[np.float32]:
        """Return the position of first and last voxel in a box, −1 to 1 along each axis, (6,)."""
        ends = np.stack([self.first, np.add(self.first, self.shape) - 1])
        return (2 * ends / np.maximum(np.array(shape) - 1, 1) - 1).astype(np.float32).ravel()


class RandStructureWindowd(GeneratorTransform, MapTransform):
    """Draw which part of a volume is learned from; `RandSheetAffined` makes that part.

    A voxel of structure (sulcus, in a skeleton) is drawn, and where in the part it lies: no part
    is empty, and none goes beyond the volume.

    Args:
        keys: of a (1, I, J, K) label volume.
        sides: of the part, voxels.
        shape: of the volumes, (I, J, K).
        scheme: of the volumes.
        margin: voxels around the part that are made with it.
        window_key: of the `Window` that is written: the part with its margin.
        place_key: of what else is written, (6,) float32: the position of the part, see
            `foldnorm.models.protocols.TakesPatches`.

    Raises:
        InputError: the part is larger than the volumes.
    """

    stream = "patch"

    def __init__(
        self,
        keys: KeysCollection,
        sides: tuple[int, int, int],
        shape: tuple[int, ...],
        *,
        scheme: LabelScheme,
        margin: int = 0,
        window_key: Hashable = "window",
        place_key: Hashable = "condition",
    ) -> None:
        MapTransform.__init__(self, keys)
        GeneratorTransform.__init__(self)
        if any(not 1 <= own <= side for own, side in zip(sides, shape, strict=True)):
            raise InputError(
                f"training.patch: expected sides from 1 to those of the volumes, "
                f"{tuple(shape)}, got {tuple(sides)}"
            )
        self.sides, self.shape, self.scheme, self.margin = sides, shape, scheme, margin
        self.window_key, self.place_key = window_key, place_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the dictionary with the window, and its place."""
        changed = dict(data)
        for key in self.key_iterator(changed):
            window = self.draw(self.rng, class_numbers(changed[key]))
            changed[self.window_key] = window.wider(self.margin)
            changed[self.place_key] = window.place(self.shape)
        return changed

    def draw(self, rng: np.random.Generator, classes: NDArray[np.uint8]) -> Window:
        """Draw a part of (I, J, K) class numbers."""
        structure = np.flatnonzero(self.scheme.foreground(classes))
        voxel = rng.choice(structure) if len(structure) else rng.integers(classes.size)
        place = np.array(np.unravel_index(voxel, self.shape))
        most = np.array(self.shape) - self.sides
        a, b, c = map(int, np.clip(place - rng.integers(self.sides), 0, most))
        return Window((a, b, c), self.sides)
