"""Parts of training volumes, where whole ones are too large to learn from.

What is keyed by the number of a draw is the same in a resumed run, and on one process or many.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foldnorm.models.noise import seed_of
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


@dataclass(frozen=True)
class Patches:
    """Draws which part of a training volume is learned from.

    A voxel of structure (sulcus, in a skeleton) is drawn, and where in the patch it lies: no patch
    is empty, and none goes beyond the volume.

    Attributes:
        sides: of a patch, voxels.
        shape: of the volumes.
        scheme: of the volumes.
        seed: of the draws.

    Raises:
        InputError: a patch is larger than the volumes.
    """

    sides: tuple[int, int, int]
    shape: tuple[int, ...]
    scheme: LabelScheme
    seed: int

    def __post_init__(self) -> None:
        if any(not 1 <= own <= side for own, side in zip(self.sides, self.shape, strict=True)):
            raise InputError(
                f"training.patch: expected sides from 1 to those of the volumes, "
                f"{tuple(self.shape)}, got {tuple(self.sides)}"
            )

    def window(self, volumes: NDArray[Any], draw: int) -> Window:
        """Patch of (1 or 2, I, J, K) volumes, the first of which holds class numbers."""
        rng = np.random.default_rng(seed_of(self.seed, "patch", draw))
        structure = np.flatnonzero(self.scheme.foreground(volumes[0]))
        voxel = rng.choice(structure) if len(structure) else rng.integers(volumes[0].size)
        place = np.array(np.unravel_index(voxel, self.shape))
        most = np.array(self.shape) - self.sides
        a, b, c = map(int, np.clip(place - rng.integers(self.sides), 0, most))
        return Window((a, b, c), self.sides)

    def place(self, volumes: NDArray[Any], draw: int) -> NDArray[np.float32]:
        """Return the position of the patch, (6,): see `foldnorm.models.protocols.TakesPatches`."""
        return self.window(volumes, draw).place(self.shape)
