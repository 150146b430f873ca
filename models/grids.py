"""Grids of voxels that networks work on: sides that suit them, the code's own, places in them."""

from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor

STEM = 2  # side of the block of voxels that becomes channels


class ShapeError(ValueError):
    """A volume's sides do not suit the network."""


def code_grid(shape: Sequence[int], levels: int, stem: int = STEM) -> tuple[int, ...]:
    """Sides of the deepest map: each side of the volume over stem · 2^levels.

    Raises:
        ShapeError: a side is not a multiple of that.
    """
    factor = stem * 2**levels
    if any(side % factor for side in shape):
        raise ShapeError(
            f"volumes of {tuple(shape)} voxels do not suit {levels} levels: each side must be a "
            f"multiple of {factor} (preprocess --pad multiple:{factor}; images --shape)"
        )
    return tuple(side // factor for side in shape)


def code_size(shape: Sequence[int], levels: int, code_channels: int, stem: int = STEM) -> int:
    """Numbers of a code that is the deepest map itself."""
    return code_channels * prod(code_grid(shape, levels, stem))


def coordinates(
    shape: Sequence[int],
    places: Tensor | None = None,
    device: torch.device | None = None,
) -> Tensor:
    """Channels that say where a voxel lies along each axis: from −1 to 1 in the cohort's box.

    Args:
        shape: sides of the volumes, 2-D or 3-D.
        places: (B, 2 · dims), the coordinates of the first voxel of each volume and of its last,
            for parts of the box; None: the volumes fill it.
        device: to make them on, where the volumes fill the box; None: the CPU.

    Returns:
        (B, dims, *shape) float32; B is 1 where all fill the box.
    """
    dims = len(shape)
    if places is None:
        axes = [torch.linspace(-1, 1, side, device=device) for side in shape]
        return torch.stack(torch.meshgrid(*axes, indexing="ij"))[None]
    first, last = places.view(-1, 2, dims).unbind(1)  # (B, dims) each
    channels = []
    for n, side in enumerate(shape):
        steps = torch.linspace(0, 1, side, device=places.device)
        along = first[:, n, None] + (last - first)[:, n, None] * steps  # (B, side)
        line = [side if axis == n else 1 for axis in range(dims)]
        channels.append(along.view(-1, *line).expand(-1, *shape))
    return torch.stack(channels, dim=1)


def tiles(grid: Sequence[int], side: int, shift: int) -> list[Tensor]:
    """Part a grid into boxes of a side, and these into groups of boxes that do not touch.

    Args:
        grid: its sides.
        side: of a box; those at the ends may be smaller.
        shift: of the first box, which is smaller by so much.

    Returns:
        A group each: (places,) bool, row by row, on the CPU. Each place is in one of them.
    """
    axes = [((torch.arange(n) + shift) // side) % 2 for n in grid]
    odd = torch.stack(torch.meshgrid(*axes, indexing="ij"))
    number = sum(own * 2**n for n, own in enumerate(odd))
    groups = [(number == n).flatten() for n in range(2 ** len(grid))]
    return [own for own in groups if own.any()]
