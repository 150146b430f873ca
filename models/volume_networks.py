"""Convolutional encoder, generator and critic for label volumes.

Both ends are cheap: a space-to-depth stem turns 2×2×2 voxels into channels, and a subpixel head
turns channels into 2×2×2 voxels. Each output voxel has weights of its own, so nothing forces
neighbouring voxels to be equal, as an upsampling before the last layer would.
"""

from collections.abc import Sequence
from itertools import pairwise
from math import gcd, prod

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from foldnorm.models.blocks import Up, conv_block, convolution, pixelshuffle, pixelunshuffle
from foldnorm.models.grids import STEM, ShapeError, code_grid

MAX_LOG_VARIANCE = 6.0  # of a code; beyond, e^x is noise only


def soft_bound(log_variance: Tensor) -> Tensor:
    """Bounded by ±`MAX_LOG_VARIANCE`, softly: a hard bound has no gradient.

    Codes beyond it would shrink to 0 instead of filling N(0, I).
    """
    return MAX_LOG_VARIANCE * torch.tanh(log_variance / MAX_LOG_VARIANCE)


class ConditionMap(nn.Module):
    """Learned map that a condition adds to another: one for each of its numbers, 0 at first.

    So each place learns by itself what follows from, say, age.

    Args:
        size: numbers of a condition.
        shape: of the map.
    """

    def __init__(self, size: int, shape: Sequence[int]) -> None:
        super().__init__()
        self.maps = nn.Parameter(torch.zeros(size, *shape))

    def forward(self, condition: Tensor | None, places: Tensor | None = None) -> Tensor:
        """(B, size) → (B, *shape).

        Args:
            condition: of each volume.
            places: (B, n) int64, rows of the map that are asked for, (B, n, …); None: all.
        """
        if condition is None:
            raise ValueError("this model is conditioned; give it the condition of each volume")
        if places is None:
            return torch.tensordot(condition, self.maps, dims=1)
        return torch.einsum("bc,cb...->b...", condition, self.maps[:, places])


class FeatureEncoder(nn.Module):
    """One-hot volume → its deepest map.

    Args:
        shape: sides of the volume, 2-D or 3-D.
        n_classes: input channels.
        channels: after each level; each level halves the sides.
        norm: group norm after each convolution but the first.
    """

    def __init__(
        self, shape: Sequence[int], n_classes: int, channels: Sequence[int], norm: bool = True
    ) -> None:
        super().__init__()
        dims = len(shape)
        self.grid = code_grid(shape, len(channels))
        _check_norm(shape, self.grid, channels[-1], norm)
        widths = [n_classes * STEM**dims, *channels]
        self.levels = _downwards(dims, widths, norm)
        self.refine = conv_block(dims, channels[-1], channels[-1], norm=norm)

    def forward(
        self,
        volume: Tensor,
        added: Tensor | None = None,
        maps: Sequence[Tensor] | None = None,
    ) -> Tensor:
        """(B, C, *sides) → (B, channels[-1], *grid).

        Args:
            volume: channels.
            added: of the shape of the result, comes in before.
            maps: of the volume, if they are known.
        """
        x = (maps or self.maps(volume))[-1]
        return self.refine(x if added is None else x + added)

    def maps(self, volume: Tensor) -> list[Tensor]:
        """(B, C, *sides) → (B, channels[n], *sides / 2^(n + 2)) of each level n."""
        x = pixelunshuffle(volume, volume.ndim - 2, STEM)  # (B, C·2^d, *sides / 2)
        found = []
        for level in self.levels:
            x = level(x)
            found.append(x)
        return found


class FeatureGenerator(nn.Module):
    """The deepest map → class logits; the mirror of `FeatureEncoder`, with the same arguments."""

    def __init__(
        self, shape: Sequence[int], n_classes: int, channels: Sequence[int], norm: bool = True
    ) -> None:
        super().__init__()
        self.dims = len(shape)
        self.levels, self.head = _upwards(self.dims, n_classes, channels, norm)

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels[-1], *grid) → (B, C, *sides) logits, unbounded."""
        return pixelshuffle(self.head(self.levels(x)), self.dims, STEM)


class Encoder(FeatureEncoder):
    """One-hot volume → mean and log-variance of its code.

    Args:
        shape: sides of the volume, 2-D or 3-D.
        n_classes: input channels.
        channels: after each level; each level halves the sides.
        code_channels: of the deepest map, the code's own grid.
        latent_dim: of the code; None: the deepest map itself, flattened, so that a code stays
            local. A number adds one dense layer on that small map.
        norm: group norm after each convolution but the first and the last.
        condition_size: numbers of the condition of each volume; 0 if there is none.
    """

    def __init__(
        self,
        shape: Sequence[int],
        n_classes: int,
        channels: Sequence[int],
        code_channels: int,
        latent_dim: int | None,
        norm: bool = True,
        condition_size: int = 0,
    ) -> None:
        super().__init__(shape, n_classes, channels, norm)
        place = (channels[-1], *self.grid)
        self.condition_size = condition_size
        self.condition = ConditionMap(condition_size, place) if condition_size else None
        flat = code_channels * prod(self.grid)
        outputs = code_channels * (2 if latent_dim is None else 1)
        self.to_map = convolution(len(shape), channels[-1], outputs, 1)
        self.to_code = None if latent_dim is None else nn.Linear(flat, 2 * latent_dim)

    def forward(  # type: ignore[override]  # a code in place of the map
        self,
        volume: Tensor,
        condition: Tensor | None = None,
        maps: Sequence[Tensor] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """(B, C, *sides) → mean and log-variance, (B, latent_dim) float32 each.

        Args:
            volume: channels.
            condition: (B, condition_size).
            maps: of the volume, if they are known.
        """
        added = None if self.condition is None else self.condition(condition)
        x = self.to_map(super().forward(volume, added, maps))
        x = x.flatten(1) if self.to_code is None else self.to_code(x.flatten(1))
        mean, log_variance = x.float().chunk(2, dim=1)
        return mean, soft_bound(log_variance)


class Generator(nn.Module):
    """Code → class logits; the mirror of `Encoder`, with the same arguments.

    A code that is a map says what is at each place. Where that place lies, and what its
    surroundings hold, the generator adds: a learned map of position, and context from the map at
    half its sides. Without them, codes drawn from N(0, I) could decode to texture only. A condition
    adds to the map of position.
    """

    def __init__(
        self,
        shape: Sequence[int],
        n_classes: int,
        channels: Sequence[int],
        code_channels: int,
        latent_dim: int | None,
        norm: bool = True,
        condition_size: int = 0,
    ) -> None:
        super().__init__()
        dims = len(shape)
        self.grid = code_grid(shape, len(channels))
        self.code_channels = code_channels
        flat = code_channels * prod(self.grid)
        self.from_code = None if latent_dim is None else nn.Linear(latent_dim, flat)
        width = channels[-1]
        _check_norm(shape, [-(-side // 2) for side in self.grid], width, norm)
        self.from_map = conv_block(dims, code_channels, width, norm=norm)
        place = (width, *self.grid)
        self.position = nn.Parameter(torch.zeros(1, *place))
        self.condition = ConditionMap(condition_size, place) if condition_size else None
        self.context = nn.Sequential(
            conv_block(dims, width, width, stride=2, norm=norm),
            conv_block(dims, width, width, norm=norm),
        )
        self.levels, self.head = _upwards(dims, n_classes, channels, norm)

    def forward(self, code: Tensor, condition: Tensor | None = None) -> Tensor:
        """(B, latent_dim) → (B, C, *sides) logits, unbounded."""
        x = code if self.from_code is None else self.from_code(code)
        x = x.view(-1, self.code_channels, *self.grid)
        x = self.from_map(x) + self.position  # (B, channels[-1], *grid)
        if self.condition is not None:
            x = x + self.condition(condition)
        x = x + F.interpolate(self.context(x), size=self.grid, mode="nearest")
        x = self.levels(x)  # (B, channels[0] / 4, *sides / 2)
        return pixelshuffle(self.head(x), len(self.grid), STEM)


class Critic(nn.Module):
    """One-hot volume → one unbounded number.

    What a volume is worth under its condition is a second linear function of its features, whose
    weights follow from the condition (Miyato & Koyama 2018, arXiv:1802.05637).

    Args:
        shape: sides of the volume.
        n_classes: input channels.
        channels: after each level; each level halves the sides.
        norm: group norm after each level but the first; not where the gradient is penalised.
        condition_size: numbers of the condition of each volume; 0 if there is none.
    """

    def __init__(
        self,
        shape: Sequence[int],
        n_classes: int,
        channels: Sequence[int],
        norm: bool = False,
        condition_size: int = 0,
    ) -> None:
        super().__init__()
        dims = len(shape)
        grid = code_grid(shape, len(channels))
        widths = [n_classes * STEM**dims, *channels]
        self.levels = _downwards(dims, widths, norm)
        flat = channels[-1] * prod(grid)
        self.to_value = nn.Linear(flat, 1)
        self.condition = ConditionMap(condition_size, [flat]) if condition_size else None

    def forward(self, volume: Tensor, condition: Tensor | None = None) -> Tensor:
        """(B, C, *sides) → (B,)."""
        features = self.features(volume)
        value = self.to_value(features).squeeze(1)
        if self.condition is None:
            return value
        return value + (features * self.condition(condition)).sum(dim=1)

    def features(self, volume: Tensor) -> Tensor:
        """(B, C, *sides) → (B, n): what the value is a linear function of."""
        return self.levels(pixelunshuffle(volume, volume.ndim - 2, STEM)).flatten(1)


def _downwards(dims: int, widths: Sequence[int], norm: bool) -> nn.Sequential:
    """Convolutions that halve the sides; the first has no norm (Radford et al. 2016, section 3).

    A norm there would also take all meaning from weights of input channels that are constant: what
    is left of their gradients is rounding, which Adam blows up to steps.
    """
    return nn.Sequential(
        *[
            conv_block(dims, a, b, stride=2, norm=norm and n > 0)
            for n, (a, b) in enumerate(pairwise(widths))
        ]
    )


def _upwards(
    dims: int, n_classes: int, channels: Sequence[int], norm: bool
) -> tuple[nn.Module, nn.Module]:
    """Levels that double the sides, and the convolution to one channel a class and voxel."""
    # The last map is the largest: its width is what the whole costs.
    widths = [*reversed(channels), max(channels[0] // 4, 8)]
    levels = nn.Sequential(*[Up(dims, a, b, norm=norm) for a, b in pairwise(widths)])
    head = convolution(dims, widths[-1], n_classes * STEM**dims, 3)
    return levels, head


def _check_norm(shape: Sequence[int], grid: Sequence[int], width: int, norm: bool) -> None:
    """Refuse group norm of single numbers, each of which it would make 0.

    Args:
        shape: sides of the volumes.
        grid: of the smallest map.
        width: channels there.
        norm: whether there is a norm.

    Raises:
        ShapeError: the map is one voxel, and each group one channel.
    """
    if norm and prod(grid) == 1 and width == gcd(8, width):
        raise ShapeError(
            f"volumes of {tuple(shape)} voxels end in a map of one voxel with {width} channels, "
            "each of which group norm would make 0: fewer levels, more than 8 channels, or "
            "norm: false"
        )
