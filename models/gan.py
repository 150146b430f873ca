"""The first generative adversarial network, dense, with an encoder; for small volumes.

Goodfellow et al. 2014 (arXiv:1406.2661). Dense layers know no neighbourhood and grow with the
volume: their place is to be compared with.
"""

from collections.abc import Sequence
from itertools import pairwise
from math import prod
from typing import Any

from torch import Tensor, nn

from foldnorm.models.adversarial_losses import Adversarial
from foldnorm.models.encoder_gan import EncoderGAN
from foldnorm.models.volume_networks import ShapeError, soft_bound

MOST_VOXELS = 48**3  # one-hot, times the first width: some 10⁸ weights


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
        **others: Any,
    ) -> None:
        if prod(shape) > MOST_VOXELS:
            raise ShapeError(
                f"volumes of {tuple(shape)} voxels are too large for dense layers: at most "
                f"{MOST_VOXELS} voxels, such as 48³; take dcgan"
            )
        voxels = n_classes * prod(shape)
        super().__init__(
            DenseEncoder([voxels, *widths, 2 * latent_dim]),
            nn.Sequential(
                _dense([latent_dim, *reversed(widths), voxels]),
                nn.Unflatten(1, (n_classes, *shape)),
            ),
            nn.Sequential(nn.Flatten(), _dense([voxels, *critic_widths, 1]), nn.Flatten(0)),
            shape,
            n_classes,
            latent_dim,
            adversarial=adversarial,
            critic_steps=critic_steps,
            **others,
        )


class DenseEncoder(nn.Module):
    """One-hot volume → mean and log-variance of its code."""

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        self.layers = _dense(widths)

    def forward(self, volume: Tensor) -> tuple[Tensor, Tensor]:
        """(B, C, *sides) → (B, latent_dim) float32 twice."""
        mean, log_variance = self.layers(volume.flatten(1)).float().chunk(2, dim=1)
        return mean, soft_bound(log_variance)


def _dense(widths: Sequence[int]) -> nn.Sequential:
    """Linear layers with leaky ReLU between them."""
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(widths):
        layers += [nn.Linear(inputs, outputs), nn.LeakyReLU(0.2)]
    return nn.Sequential(*layers[:-1])
