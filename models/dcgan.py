"""Deep convolutional GAN with an encoder.

Radford et al. 2016 (arXiv:1511.06434): strided convolutions, a norm in both networks, leaky ReLU,
the non-saturating loss. Group norm stands where the paper has batch norm: the statistics of a
batch would make a volume's value depend on its neighbours, and two processes differ from one.
"""

from collections.abc import Sequence
from typing import Any

from foldnorm.models.adversarial_losses import Adversarial
from foldnorm.models.encoder_gan import EncoderGAN
from foldnorm.models.volume_networks import Critic, Encoder, Generator, code_size


class DCGAN(EncoderGAN):
    """Convolutional networks with norms, and a discriminator of real against generated.

    Args:
        shape: sides of the volumes; taken from the cohort by ``foldnorm train``.
        n_classes: taken from the cohort's label scheme.
        channels: of encoder and generator, a level each.
        critic_channels: of the discriminator, a level each.
        code_channels: of the map that is the code (or from which a dense layer makes it).
        latent_dim: size of the code; None: the map itself.
        norm: group norm in all three networks.
        adversarial: name of the adversarial loss.
        critic_steps: discriminator steps a generator step.
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
        norm: bool = True,
        adversarial: Adversarial = "non-saturating",
        critic_steps: int = 1,
        **others: Any,
    ) -> None:
        sizes = (shape, n_classes, channels, code_channels, latent_dim, norm)
        super().__init__(
            Encoder(*sizes),
            Generator(*sizes),
            Critic(shape, n_classes, critic_channels, norm=norm),
            shape,
            n_classes,
            latent_dim or code_size(shape, len(channels), code_channels),
            adversarial=adversarial,
            critic_steps=critic_steps,
            **others,
        )
