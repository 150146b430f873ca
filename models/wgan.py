"""Wasserstein GAN with clipped weights and an encoder.

Arjovsky et al. 2017 (arXiv:1701.07875): what keeps the critic Lipschitz is a bound on each of its
weights. Kept for comparison; `foldnorm.models.wgan_gp` replaced it.
"""

from collections.abc import Sequence
from typing import Any

from foldnorm.models.adversarial_losses import Adversarial
from foldnorm.models.encoder_gan import EncoderGAN
from foldnorm.models.volume_networks import Critic, Encoder, Generator, code_size


class WGAN(EncoderGAN):
    """Convolutional networks, the Wasserstein loss, and a critic whose weights are clipped.

    A clipped critic's values have no natural scale, so ``adversarial_weight`` depends on ``clip``
    and on the critic's width.

    Args:
        shape: sides of the volumes; taken from the cohort by ``foldnorm train``.
        n_classes: taken from the cohort's label scheme.
        channels: of encoder and generator, a level each.
        critic_channels: of the critic, a level each.
        code_channels: of the map that is the code (or from which a dense layer makes it).
        latent_dim: size of the code; None: the map itself.
        norm: group norm in encoder and generator.
        adversarial: name of the adversarial loss.
        critic_steps: critic steps a generator step.
        clip: bound of the critic's weights.
        others: see `EncoderGAN`, `VariationalAutoencoder` and `LabelAutoencoder`.
    """

    def __init__(
        self,
        shape: Sequence[int],
        n_classes: int = 3,
        channels: Sequence[int] = (32, 64, 128),
        critic_channels: Sequence[int] = (32, 64, 128),
        code_channels: int = 16,
        latent_dim: int | None = None,
        norm: bool = False,
        adversarial: Adversarial = "wasserstein",
        critic_steps: int = 5,
        clip: float = 0.01,
        **others: Any,
    ) -> None:
        sizes = (shape, n_classes, channels, code_channels, latent_dim, norm)
        super().__init__(
            Encoder(*sizes),
            Generator(*sizes),
            Critic(shape, n_classes, critic_channels),
            shape,
            n_classes,
            latent_dim or code_size(shape, len(channels), code_channels),
            adversarial=adversarial,
            critic_steps=critic_steps,
            clip=clip,
            **others,
        )
