"""Encoders and a generator that know a linear map between a block of voxels and its code."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from foldnorm.models.blocks import convolution, pixelshuffle, pixelunshuffle
from foldnorm.models.grids import STEM, code_grid
from foldnorm.models.volume_networks import Encoder, Generator, soft_bound


class BlockEncoder(nn.Module):
    """Encoder whose code of a block of voxels has a part for each cube of it, told by that alone.

    An encoder that saw more would say the same with fewer codes, in which everything around a block
    leaves its traces. A decoder does not mind them; a model of codes has to foresee each before it
    can say what comes next.

    Args:
        shape: sides of the volume, 2-D or 3-D.
        n_classes: input channels.
        channels: of the generator; each level doubles the sides of a block.
        code_channels: of a block's code.
        n_parts: cubes of a block, a number to the power of the dimensions.
    """

    def __init__(
        self,
        shape: Sequence[int],
        n_classes: int,
        channels: Sequence[int],
        code_channels: int,
        n_parts: int,
    ) -> None:
        super().__init__()
        dims, block = len(shape), STEM * 2 ** len(channels)
        self.grid = code_grid(shape, len(channels))
        self.split = round(n_parts ** (1 / dims))
        if self.split**dims != n_parts or block % self.split:
            raise ValueError(
                f"n_codebooks: expected as many as there are equal cubes in a block of {block} "
                f"voxels along each of {dims} axes, such as {2**dims}, got {n_parts}"
            )
        self.side = block // self.split
        voxels, width, outputs = n_classes * self.side**dims, channels[-1], code_channels // n_parts
        self.short = convolution(dims, voxels, outputs, 1)
        self.layers = nn.Sequential(
            convolution(dims, voxels, width, 1, act=nn.GELU()),
            convolution(dims, width, outputs, 1),
        )

    def forward(self, volume: Tensor, condition: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(B, C, *sides) → mean and log-variance, as `Encoder.forward` has them.

        The variance means nothing.
        """
        del condition
        cubes = pixelunshuffle(volume, volume.ndim - 2, self.side)  # (B, C · side^d, *split · grid)
        mean = self._by_part(self.short(cubes) + self.layers(cubes)).float().flatten(1)
        return mean, torch.zeros_like(mean)

    def cubes(self, volume: Tensor) -> Tensor:
        """(B, C, *sides) → (B, parts, C · voxels of a cube, *grid): each block, cube by cube."""
        return self._by_part(pixelunshuffle(volume, volume.ndim - 2, self.side))

    def volume(self, cubes: Tensor) -> Tensor:
        """(B, parts, C · voxels of a cube, *grid) → (B, C, *sides): what `cubes` was made of."""
        dims = cubes.ndim - 3
        return pixelshuffle(
            pixelshuffle(cubes.transpose(1, 2).flatten(1, 2), dims, self.split), dims, self.side
        )

    def _by_part(self, cubes: Tensor) -> Tensor:
        """(B, n, *split · grid) → (B, parts, n, *grid)."""
        of_blocks = pixelunshuffle(cubes, cubes.ndim - 2, self.split)  # (B, n · parts, *grid)
        return of_blocks.unflatten(1, (cubes.shape[1], -1)).transpose(1, 2)


class BlockGenerator(Generator):
    """A `Generator` to whose logits each code adds those of its own block, a linear map of it."""

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
        _refuse_dense(latent_dim)
        super().__init__(shape, n_classes, channels, code_channels, None, norm, condition_size)
        dims = len(shape)
        self.factor = STEM * 2 ** len(channels)
        self.blocks = convolution(dims, code_channels, n_classes * self.factor**dims, 1)

    def forward(self, code: Tensor, condition: Tensor | None = None) -> Tensor:
        """(B, latent_dim) → (B, C, *sides) logits, unbounded."""
        blocks = self.blocks(code.view(-1, self.code_channels, *self.grid))
        return super().forward(code, condition) + pixelshuffle(blocks, len(self.grid), self.factor)


class ShortEncoder(Encoder):
    """An `Encoder` to whose code each block of voxels adds its own, a linear map of it.

    Made for a code that is a map, as `BlockGenerator`: what is smooth needs hardly more than both
    linear maps, and what the networks add to them is learned sooner.

    Args:
        shape: see `Encoder`; likewise what is not named here.
        n_classes: see there.
        channels: see there.
        code_channels: see there.
        latent_dim: None.
        norm: see there.
        condition_size: see there.
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
        _refuse_dense(latent_dim)
        super().__init__(shape, n_classes, channels, code_channels, None, norm, condition_size)
        self.factor = STEM * 2 ** len(channels)
        dims = len(shape)
        self.blocks = convolution(dims, n_classes * self.factor**dims, 2 * code_channels, 1)

    def forward(  # type: ignore[override]  # a code in place of the map
        self,
        volume: Tensor,
        condition: Tensor | None = None,
        maps: Sequence[Tensor] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Encode as `Encoder.forward` does."""
        mean, log_variance = super().forward(volume, condition, maps)
        blocks = self.blocks(pixelunshuffle(volume, volume.ndim - 2, self.factor))
        more, of_variance = blocks.flatten(1).float().chunk(2, dim=1)
        return mean + more, soft_bound(log_variance + of_variance)


def _refuse_dense(latent_dim: int | None) -> None:
    """Refuse a dense layer, which leaves no code of a block.

    Raises:
        ValueError: with the size that was asked for.
    """
    if latent_dim is not None:
        raise ValueError(f"latent_dim: expected null, a code that is a map, got {latent_dim}")
