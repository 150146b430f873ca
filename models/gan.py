"""The first generative adversarial network, dense, with an encoder; for small volumes.

Goodfellow et al. 2014 (arXiv:1406.2661). Dense layers know no neighbourhood and grow with the
volume: their place is to be compared with.
"""

from collections.abc import Sequence
from itertools import pairwise
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from foldnorm.models.adversarial_losses import Adversarial
from foldnorm.models.encoder_gan import EncoderGAN
from foldnorm.models.grids import ShapeError
from foldnorm.models.volume_networks import soft_bound

MAX_VOXELS = 48**3  # one-hot, times the first width: some 10⁸ weights


class GAN(EncoderGAN):
    """Dense encoder, generator and discriminator.

    Args:
        shape: sides of the volumes; taken from the cohort by ``foldnorm train``.
        n_classes: taken from the cohort's label scheme.
        widths: of the encoder's layers, and backwards of the generator's.
        critic_widths: of the discriminator's.
        latent_dim: size of the code.
        adversarial: name of the adversarial loss.
        critic_steps: discriminator steps a generator step.
        condition: columns of ``participants.tsv`` that the networks are told.
        condition_size: numbers they amount to; taken from the cohort.
        others: see `EncoderGAN`, `VariationalAutoencoder` and `LabelAutoencoder`.

    Raises:
        ShapeError: the volume is too large for dense layers.
    """

    def __init__(
        self,
        shape: Sequence[int],
        n_classes: int = 3,
        widths: Sequence[int] = (128, 128),
        critic_widths: Sequence[int] = (128, 128),
        latent_dim: int = 128,
        adversarial: Adversarial = "non-saturating",
        critic_steps: int = 1,
        condition: Sequence[str] = (),
        condition_size: int = 0,
        **others: Any,
    ) -> None:
        if prod(shape) > MAX_VOXELS:
            raise ShapeError(
                f"volumes of {tuple(shape)} voxels are too large for dense layers: at most "
                f"{MAX_VOXELS} voxels, such as 48³; take dcgan"
            )
        voxels = n_classes * prod(shape)
        super().__init__(
            DenseEncoder([voxels + condition_size, *widths, 2 * latent_dim]),
            DenseGenerator(
                [latent_dim + condition_size, *reversed(widths), voxels], (n_classes, *shape)
            ),
            DenseCritic([voxels + condition_size, *critic_widths, 1]),
            shape,
            n_classes,
            latent_dim,
            adversarial=adversarial,
            critic_steps=critic_steps,
            condition=condition,
            **others,
        )


class DenseEncoder(nn.Module):
    """One-hot volume → mean and log-variance of its code."""

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        self.layers = _dense(widths)

    def forward(self, volume: Tensor, condition: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(B, C, *sides) → (B, latent_dim) float32 twice."""
        mean, log_variance = self.layers(_joined(volume, condition)).float().chunk(2, dim=1)
        return mean, soft_bound(log_variance)


class DenseGenerator(nn.Module):
    """Code → class logits."""

    def __init__(self, widths: Sequence[int], shape: Sequence[int]) -> None:
        super().__init__()
        self.layers, self.shape = _dense(widths), tuple(shape)

    def forward(self, code: Tensor, condition: Tensor | None = None) -> Tensor:
        """(B, latent_dim) → (B, C, *sides)."""
        return self.layers(_joined(code, condition)).view(-1, *self.shape)


class DenseCritic(nn.Module):
    """One-hot volume → one unbounded number."""

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        self.layers = _dense(widths)

    def forward(self, volume: Tensor, condition: Tensor | None = None) -> Tensor:
        """(B, C, *sides) → (B,)."""
        return self.layers(_joined(volume, condition)).squeeze(1)


def _joined(x: Tensor, condition: Tensor | None) -> Tensor:
    """Flatten a batch and append the condition, if any: input of a dense layer, (B, n)."""
    return x.flatten(1) if condition is None else torch.cat([x.flatten(1), condition], dim=1)


def _dense(widths: Sequence[int]) -> nn.Sequential:
    """Linear layers with leaky ReLU between them."""
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(widths):
        layers += [nn.Linear(inputs, outputs), nn.LeakyReLU(0.2)]
    return nn.Sequential(*layers[:-1])
