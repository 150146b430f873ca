"""Wasserstein GAN with gradient penalty and an encoder, on images.

Gulrajani et al. 2017 (arXiv:1704.00028); the encoder is that of `EncoderGAN`, reconstructions are
judged as in `ImageVAE`.
"""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from foldnorm.models.image_vae import ImageMixin
from foldnorm.models.wgan_gp import WGANGP


class ImageWGANGP(ImageMixin, WGANGP):
    """Encoder → code → generator → image, against a critic whose gradient is penalised.

    Args:
        shape: sides, 2-D or 3-D; taken from the cohort by ``foldnorm train``.
        channels: of encoder and generator, a level each.
        critic_channels: of the critic, a level each.
        latent_dim: of the code; None: the deepest map itself.
        others: see `WGANGP`.
    """

    def __init__(
        self,
        shape: Sequence[int],
        channels: Sequence[int] = (32, 64, 128),
        critic_channels: Sequence[int] = (32, 64, 128),
        latent_dim: int | None = 64,
        **others: Any,
    ) -> None:
        super().__init__(
            shape, 1, channels=channels, critic_channels=critic_channels, latent_dim=latent_dim,
            **others,
        )  # fmt: skip

    def sharpened(self, logits: Tensor) -> Tensor:
        """Images are shown to the critic as they are decoded, (B, 1, *sides)."""
        return logits
