"""Wasserstein GAN with gradient penalty and an encoder: a VAE-GAN on label volumes.

Gulrajani et al. 2017 (arXiv:1704.00028) for the critic; the encoder is that of `EncoderGAN`.
"""

from collections.abc import Sequence
from typing import Any

from foldnorm.models.adversarial_losses import Adversarial
from foldnorm.models.encoder_gan import EncoderGAN
from foldnorm.models.volume_networks import Critic, Encoder, Generator, code_size


class WGANGP(EncoderGAN):
    """Convolutional networks, the Wasserstein loss, and a penalty on the critic's gradient.

    The critic is Lipschitz in root-mean-square distance, so one ``adversarial_weight`` suits all
    sizes.

    Args:
        shape: sides of the volumes; taken from the cohort by ``foldnorm train``.
        n_classes: taken from the cohort's label scheme.
        channels: of encoder and generator, a level each.
        critic_channels: of the critic, a level each.
        code_channels: of the map that is the code (or from which a dense layer makes it).
        latent_dim: size of the code; None: the map itself.
        norm: group norm in encoder and generator (never in the critic).
        adversarial: name of the adversarial loss.
        critic_steps: critic steps a generator step.
        penalty_weight: λ of the gradient penalty.
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
        penalty_weight: float = 10.0,
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
            penalty_weight=penalty_weight,
            **others,
        )
