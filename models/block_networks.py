"""Encoder that sees a block of voxels cube by cube, and a generator with a short way back."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from foldnorm.models.blocks import convolution, pixelshuffle, pixelunshuffle
from foldnorm.models.grids import STEM, code_grid
from foldnorm.models.volume_networks import Generator


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
        norm: bool = True,
        condition_size: int = 0,
    ) -> None:
        super().__init__(shape, n_classes, channels, code_channels, None, norm, condition_size)
        dims = len(shape)
        self.factor = STEM * 2 ** len(channels)
        self.blocks = convolution(dims, code_channels, n_classes * self.factor**dims, 1)

    def forward(self, code: Tensor, condition: Tensor | None = None) -> Tensor:
        """(B, latent_dim) → (B, C, *sides) logits, unbounded."""
        blocks = self.blocks(code.view(-1, self.code_channels, *self.grid))
        return super().forward(code, condition) + pixelshuffle(blocks, len(self.grid), self.factor)
