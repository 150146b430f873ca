"""Our WGAN-GP with one of the study's errors put back each, for `ablation.py`."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from foldnorm.models.classes import one_hot, to_classes
from foldnorm.models.grids import STEM
from foldnorm.models.protocols import Phase
from foldnorm.models.volume_networks import Critic
from foldnorm.models.wgan_gp import WGANGP


class EncoderNeverTrains(WGANGP):
    """The optimiser of the encoder holds the generator's parameters."""

    def __init__(self, shape: Sequence[int], n_classes: int = 3, **others: Any) -> None:
        super().__init__(shape, n_classes, **others)
        self.phases: Mapping[str, Phase] = {
            "critic": Phase(("critic",)),
            "generator": Phase(("generator",)),
            "reconstruction": Phase(("generator",)),
        }


class CriticSeesNumbers(WGANGP):
    """The critic gets ``argmax`` volumes, classes as 0, 1, 2: no gradient passes."""

    def __init__(
        self,
        shape: Sequence[int],
        n_classes: int = 3,
        *,
        critic_channels: Sequence[int] = (32, 64, 128),
        **others: Any,
    ) -> None:
        super().__init__(shape, n_classes, critic_channels=critic_channels, **others)
        self.critic = OfNumbers(Critic(shape, 1, critic_channels))

    def _shown(self, logits: Tensor) -> Tensor:
        return one_hot(to_classes(logits), self.n_classes)


class OfNumbers(nn.Module):
    """A critic of (B, 1, *sides) volumes whose voxels are numbers of classes."""

    def __init__(self, critic: nn.Module) -> None:
        super().__init__()
        self.critic = critic

    def forward(self, volume: Tensor, condition: Tensor | None = None) -> Tensor:
        """(B, C, *sides) → (B,)."""
        numbers = torch.arange(volume.shape[1], device=volume.device, dtype=volume.dtype)
        return self.critic(torch.einsum("bc...,c->b...", volume, numbers)[:, None], condition)


class BlocksOfVoxels(WGANGP):
    """Upsample by 2, then a 1×1×1 convolution, then tanh."""

    def __init__(self, shape: Sequence[int], n_classes: int = 3, **others: Any) -> None:
        super().__init__(shape, n_classes, **others)
        width = next(self.generator.head.parameters()).shape[1]
        self.generator.head = Repeated(width, n_classes, len(shape))


class Repeated(nn.Module):
    """One bounded value a class for each block of `STEM` voxels a side."""

    def __init__(self, inputs: int, n_classes: int, dims: int) -> None:
        super().__init__()
        self.conv = (nn.Conv2d if dims == 2 else nn.Conv3d)(inputs, n_classes, 1)
        self.voxels = STEM**dims

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, *sides) → (B, C · voxels of a block, *sides)."""
        return torch.tanh(self.conv(x)).repeat_interleave(self.voxels, dim=1)


class BatchNorm(WGANGP):
    """Batch norm in both networks, evaluated as it should be: `NeverEval` stands beside it."""

    def __init__(
        self, shape: Sequence[int], n_classes: int = 3, *, norm: bool = False, **others: Any
    ) -> None:
        del norm
        super().__init__(shape, n_classes, norm=True, **others)
        for network in (self.encoder, self.generator):
            for module in list(network.modules()):
                for name, child in list(module.named_children()):
                    if isinstance(child, nn.GroupNorm):
                        setattr(module, name, nn.BatchNorm3d(child.num_channels))


class NeverEval(BatchNorm):
    """``.eval()`` is never called, and volumes come one by one."""

    def train(self, mode: bool = True) -> "NeverEval":
        """Train, whatever is asked for."""
        del mode
        return super().train(True)

    def encode(
        self,
        volumes: Tensor,
        condition: Tensor | None = None,
        feature_maps: Sequence[Tensor] | None = None,
    ) -> Tensor:
        """Codes by the statistics of one volume."""
        del condition, feature_maps  # those of a batch
        return torch.cat([super(NeverEval, self).encode(volume[None]) for volume in volumes])

    def decode(self, codes: Tensor, condition: Tensor | None = None) -> Tensor:
        """Logits likewise."""
        del condition
        return torch.cat([super(NeverEval, self).decode(code[None]) for code in codes])


class DeadDimensions(WGANGP):
    """The encoder ends in batch norm and ReLU, while volumes are drawn from N(0, I)."""

    def __init__(self, shape: Sequence[int], n_classes: int = 3, **others: Any) -> None:
        super().__init__(shape, n_classes, **others)
        self.encoder = Rectified(self.encoder, self.latent_dim)


class Rectified(nn.Module):
    """An encoder whose means are what batch norm and ReLU leave."""

    def __init__(self, encoder: nn.Module, latent_dim: int) -> None:
        super().__init__()
        self.encoder, self.norm = encoder, nn.BatchNorm1d(latent_dim)

    def forward(self, volume: Tensor, condition: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Mean and log-variance."""
        mean, log_variance = self.encoder(volume, condition)
        return torch.relu(self.norm(mean)), log_variance
