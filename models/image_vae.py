"""VAE on images: the networks of the β-VAE, with intensities in the place of classes.

Kingma & Welling 2014 (arXiv:1312.6114). How much a pixel may differ is not set by hand: the
variance of an image's pixels is the one that is likeliest for it (σ-VAE; Rybkin et al. 2021,
arXiv:2006.13202, section 3).
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from foldnorm.models.beta_vae import BetaVAE
from foldnorm.models.label_autoencoder import LabelAutoencoder
from foldnorm.models.losses import gaussian_nll_of_error
from foldnorm.models.protocols import InputKind


class ImageMixin(LabelAutoencoder):
    """Mixin that makes an autoencoder of label volumes one of images.

    It stands before the autoencoder among the base classes.
    """

    input_kind: InputKind = "images"

    def to_encoder_input(self, volumes: Tensor) -> Tensor:
        """Add the channel axis: (B, *sides) float32 from −1 to 1 → (B, 1, *sides)."""
        return volumes.unsqueeze(1)

    def to_critic_input(self, volumes: Tensor) -> Tensor:
        """Add the channel axis: (B, *sides) float32 from −1 to 1 → (B, 1, *sides)."""
        return volumes.unsqueeze(1)

    def decode(self, codes: Tensor, condition: Tensor | None = None) -> Tensor:
        """(B, latent_dim) → (B, 1, *sides) float32 from −1 to 1."""
        return torch.tanh(self.generator(codes, condition).float())

    def to_output(self, logits: Tensor) -> Tensor:
        """Drop the channel axis of what was decoded: (B, 1, *sides) → (B, *sides)."""
        return logits[:, 0]

    def repair(self, images: Tensor) -> Tensor:
        """(B, *sides) float32 from −1 to 1 → what their codes bring back, likewise.

        A conditioned model is told nothing of them: zeros, as where a value is missing.
        """
        size = int(self.encoder.condition_size)  # type: ignore[arg-type]
        told = images.new_zeros(len(images), size) if size else None
        return self.to_output(self.decode(self.encode(images, told), told))

    def validation_loss(self, volumes: Tensor, condition: Tensor | None = None) -> Tensor:
        """Mean squared error of the reconstruction of each image, (B,)."""
        back = self.to_output(self.decode(self.encode(volumes, condition), condition))
        return (back - volumes).square().flatten(1).mean(dim=1)

    def reconstruction_terms(self, logits: Tensor, volumes: Tensor) -> dict[str, Tensor]:
        """Compute the squared error, and as ``"loss"`` nats a pixel under the likeliest variance.

        Args:
            logits: (B, 1, *sides) as decoded.
            volumes: (B, *sides) float32 from −1 to 1.
        """
        error = (self.to_output(logits) - volumes).square().flatten(1).mean(dim=1)
        return {"squared_error": error.mean(), "loss": gaussian_nll_of_error(error).mean()}


class ImageVAE(ImageMixin, BetaVAE):
    """Image → code → image, with codes near N(0, I), from which images are drawn.

    Args:
        shape: sides, 2-D or 3-D; taken from the cohort by ``foldnorm train``.
        channels: of encoder and generator, a level each.
        latent_dim: of the code; None: the deepest map itself.
        others: see `BetaVAE`.
    """

    def __init__(
        self,
        shape: Sequence[int],
        channels: Sequence[int] = (32, 64, 128),
        latent_dim: int | None = 64,
        **others: Any,
    ) -> None:
        super().__init__(shape, 1, channels=channels, latent_dim=latent_dim, **others)
