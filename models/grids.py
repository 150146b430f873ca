"""Grids of voxels that networks work on: sides that suit them, the code's own, places in them."""

from collections.abc import Iterator, Sequence
from itertools import product
from math import prod

import torch
from torch import Tensor, nn

STEM = 2  # side of the block of voxels that becomes channels


class ShapeError(ValueError):
    """A volume's sides do not suit the network.

    Attributes:
        multiple: that each side must be of; 0 where that is not what is wrong.
    """

    def __init__(self, message: str, multiple: int = 0) -> None:
        super().__init__(message)
        self.multiple = multiple


def code_grid(shape: Sequence[int], levels: int, stem: int = STEM) -> tuple[int, ...]:
    """Sides of the deepest map: each side of the volume over stem · 2^levels.

    Raises:
        ShapeError: a side is not a multiple of that.
    """
    factor = stem * 2**levels
    if any(side % factor for side in shape):
        raise ShapeError(
            f"volumes of {tuple(shape)} voxels do not suit {levels} level{'s' * (levels != 1)}: "
            f"each side must be a multiple of {factor} (preprocess --pad multiple:{factor}; images "
            "--shape)",
            factor,
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


class GridWindows(nn.Module):
    """Windows of a grid that overlap by half, for sequences of fewer places than it has.

    Places are numbered row by row, in the grid and in a window.

    Args:
        grid: its sides.
        sides: of a window; None, or longer than the grid: all of it.

    Attributes:
        as_drawn: (windows, places of one) int64, the sequences in which the whole grid is drawn:
            what is known by then, what is drawn, and what the next windows draw.

    Raises:
        ValueError: there are not as many sides as the grid has, or one is below 1.
    """

    first: Tensor
    free: Tensor
    beyond: Tensor
    strides: Tensor
    as_drawn: Tensor

    def __init__(self, grid: Sequence[int], sides: Sequence[int] | None = None) -> None:
        super().__init__()
        if sides is not None and (len(sides) != len(grid) or min(sides) < 1):
            raise ValueError(
                f"window: expected {len(grid)} sides of 1 place or more, got {list(sides)}"
            )
        self.sides = tuple(min(pair) for pair in zip(grid, sides or grid, strict=True))
        self.starts = [list(_starts(*pair)) for pair in zip(grid, self.sides, strict=True)]
        numbers = torch.arange(prod(grid)).view(*grid)
        places = numbers[tuple(map(slice, self.sides))].flatten()
        free = [n - own + 1 for n, own in zip(grid, self.sides, strict=True)]
        self.register_buffer("first", places, persistent=False)  # places of the first window
        self.register_buffer("free", torch.tensor(free), persistent=False)  # where windows may be
        self.register_buffer("beyond", torch.tensor(self.sides) // 2, persistent=False)
        self.register_buffer("strides", torch.tensor(numbers.stride()), persistent=False)
        whole = torch.ones(prod(grid), dtype=torch.bool)
        ways = [torch.cat(parts) for parts in self._one_by_one(whole)]
        self.register_buffer("as_drawn", torch.stack(ways), persistent=False)

    @property
    def covers(self) -> bool:
        """True if a window is the grid."""
        return all(len(own) == 1 for own in self.starts)

    def drawn(self, share: Tensor) -> Tensor:
        """Place windows anywhere: (B, dims) shares of the way, from 0 to below 1 → (B, 1) shifts.

        A shift is what is added to the places of the first window. Windows that would end beyond
        the grid, by half of their sides at most, are moved in: else a corner of the grid would be
        in one of hundreds only.
        """
        where = (share * (self.free + 2 * self.beyond)).long() - self.beyond
        where = torch.minimum(where.clamp(min=0), self.free - 1)
        return (where * self.strides).sum(dim=1, keepdim=True)

    def every(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the places of windows that cover the grid, (n,) int64, and which to ask about.

        These, (n,) bool, are not those at the end of a window where the grid goes on: some of their
        neighbours are in the next one only.
        """
        for start in product(*self.starts):
            axes = []
            for own, first, side in zip(self.starts, start, self.sides, strict=True):
                place = torch.arange(side, device=self.first.device)
                ends_before = (place == 0) & (first > 0) & (side > 2)
                ends_behind = (place == side - 1) & (first < own[-1]) & (side > 2)
                axes.append(~(ends_before | ends_behind))
            asked = torch.stack(torch.meshgrid(*axes, indexing="ij")).all(dim=0).flatten()
            shift = sum(n * step for n, step in zip(start, self.strides.tolist(), strict=True))
            yield self.first + shift, asked

    def orders(self, asked: Tensor) -> Iterator[tuple[Tensor, int]]:
        """Yield sequences that end with each asked place once, after what is known by then.

        Windows of which most is known come first.

        Args:
            asked: (places,) bool.

        Yields:
            (n,) int64, places of a window, and the step of the first that is asked.
        """
        for known, own, _ in self._one_by_one(asked):
            yield torch.cat([known, own]), len(known)

    def _one_by_one(self, asked: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Yield the places of windows that are known, that are asked, and that stay unknown."""
        left, windows = asked.clone(), list(self.every())
        while left.any():
            ways = [(window, left[window] & own) for window, own in windows]
            window, own = min(
                (way for way in ways if way[1].any()), key=lambda way: int(left[way[0]].sum())
            )
            yield window[~left[window]], window[own], window[left[window] & ~own]
            left[window[own]] = False


def _starts(side: int, window: int) -> Iterator[int]:
    """Yield where windows begin along an axis: half a window apart, the last where it ends."""
    yield from range(0, side - window, max(window // 2, 1))
    yield side - window
