"""Convolutional encoder, generator and critic, played as `EncoderGAN` says."""

from collections.abc import Sequence
from typing import Any

from foldnorm.models.class_paths import ClassPath
from foldnorm.models.encoder_gan import EncoderGAN
from foldnorm.models.grids import code_size
from foldnorm.models.named_networks import NamedCritic, encoder_from, generator_from
from foldnorm.models.volume_networks import Critic


class ConvolutionalGAN(EncoderGAN):
    """Convolutional encoder, generator and critic: the base of DCGAN, WGAN and WGAN-GP.

    Args:
        shape: sides of the volumes; taken from the cohort by ``foldnorm train``.
        n_classes: taken from the cohort's label scheme.
        channels: of encoder and generator, a level each.
        critic_channels: of the critic, a level each.
        code_channels: of the map that is the code (or from which a dense layer makes it).
        latent_dim: size of the code; None: the map itself.
        norm: group norm in encoder and generator.
        critic_norm: group norm in the critic; not where its gradient is penalised.
        condition: columns of ``participants.tsv`` that the networks are told.
        condition_size: numbers they amount to; taken from the cohort.
        encoder: by class path, in the place of ours: twice ``latent_dim`` numbers come out.
        generator: likewise: ``latent_dim`` numbers go in, class logits come out.
        critic: likewise: one number comes out.
        others: see `EncoderGAN`, `VariationalAutoencoder` and `LabelAutoencoder`.
    """

    def __init__(
        self,
        shape: Sequence[int],
        n_classes: int = 3,
        *,
        channels: Sequence[int] = (32, 64, 128),
        critic_channels: Sequence[int] = (32, 64, 128),
        code_channels: int = 16,
        latent_dim: int | None = None,
        norm: bool = False,
        critic_norm: bool = False,
        condition: Sequence[str] = (),
        condition_size: int = 0,
        encoder: ClassPath | None = None,
        generator: ClassPath | None = None,
        critic: ClassPath | None = None,
        **others: Any,
    ) -> None:
        sizes = (shape, n_classes, channels, code_channels, latent_dim, norm, condition_size)
        super().__init__(
            encoder_from(encoder, sizes),
            generator_from(generator, sizes),
            Critic(shape, n_classes, critic_channels, critic_norm, condition_size)
            if critic is None
            else NamedCritic(critic, shape, n_classes, condition_size),
            shape,
            n_classes,
            latent_dim or code_size(shape, len(channels), code_channels),
            condition=condition,
            **others,
        )
