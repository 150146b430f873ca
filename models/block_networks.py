"""Encoder and generator with a short way from a block of voxels to its code and back."""

from collections.abc import Sequence

from torch import Tensor

from foldnorm.models.blocks import convolution, pixelshuffle, pixelunshuffle
from foldnorm.models.grids import STEM
from foldnorm.models.volume_networks import Encoder, Generator


class BlockEncoder(Encoder):
    """An `Encoder` whose code is a linear map of each block of voxels, and what the others add.

    Sheets one voxel thick are learned first along the short way, in fewer steps: the principal
    components of blocks are not far from it.
    """

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
        self.blocks = convolution(dims, n_classes * self.factor**dims, code_channels, 1)

    def forward(  # type: ignore[override]  # as `Encoder.forward`
        self,
        volume: Tensor,
        condition: Tensor | None = None,
        maps: Sequence[Tensor] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """(B, C, *sides) → mean and log-variance, as `Encoder.forward` has them."""
        mean, log_variance = super().forward(volume, condition, maps)
        blocks = self.blocks(pixelunshuffle(volume, volume.ndim - 2, self.factor))
        return mean + blocks.flatten(1).float(), log_variance


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
