"""Variational autoencoder of distance maps: smooth fields, lowest where a sheet is."""

from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from foldnorm.models.beta_vae import BetaVAE
from foldnorm.models.block_networks import BlockGenerator, ShortEncoder
from foldnorm.models.classes import LARGEST_DISTANCE, signed_distances
from foldnorm.models.volume_networks import Encoder, Generator


class DistanceAutoencoder(BetaVAE):
    """Signed distances to each class → code → signed distances to each class.

    A sheet one voxel thick that moves by a voxel changes its one-hot channels wherever it was and
    is, and its distance map a little everywhere near. What is nearest is the class of a voxel, so
    that minus the distances are logits, and volumes, probabilities and scores are had of them as of
    any autoencoder.

    Args:
        shape: see `BetaVAE`; likewise what is not named here.
        n_classes: see there.
        longest_distance: at which distances are truncated, voxels.
        sharpness: logits a voxel of distance.
        sheet_margin: voxels by which the highest class (sulcus) may be farther than another where a
            volume is drawn; its sheets are mended and thinned afterwards.
        others: see there; ``cross_entropy_weight`` is that of the classes beside the distances.
    """

    own_encoder: type[Encoder] = ShortEncoder
    own_generator: type[Generator] = BlockGenerator

    def __init__(
        self,
        shape: Sequence[int],
        n_classes: int = 3,
        longest_distance: int = 4,
        sharpness: float = 4.0,
        sheet_margin: float = 0.3,
        **others: Any,
    ) -> None:
        if not 1 <= longest_distance <= LARGEST_DISTANCE or not sharpness > 0:
            raise ValueError(
                f"expected a longest_distance of 1 to {LARGEST_DISTANCE} voxels and a sharpness "
                f"above 0, got {longest_distance} and {sharpness:g}"
            )
        super().__init__(
            shape, n_classes, encoder_input="distance", sheet_margin=sheet_margin, **others
        )
        self.longest_distance, self.sharpness = longest_distance, sharpness

    def to_encoder_input(self, volumes: Tensor) -> Tensor:
        """Compute distances, (B, C, *sides) from −1 to 1, of (B, *sides) uint8."""
        return signed_distances(volumes, self.n_classes, self.longest_distance)

    def decode(self, codes: Tensor, condition: Tensor | None = None) -> Tensor:
        """(B, latent_dim) → (B, C, *sides) class logits: minus the distances."""
        return -self.sharpness * self.distances(codes, condition)

    def distances(self, codes: Tensor, condition: Tensor | None = None) -> Tensor:
        """(B, latent_dim) → (B, C, *sides) float32 signed distances to each class, voxels."""
        return self.generator(codes, condition).float()

    def reconstruction_terms(self, logits: Tensor, volumes: Tensor) -> dict[str, Tensor]:
        """Add the error of the distances, voxels, to `LabelAutoencoder.reconstruction_terms`."""
        true = self.longest_distance * self.to_encoder_input(volumes)
        error = F.smooth_l1_loss(logits / -self.sharpness, true)
        terms = super().reconstruction_terms(logits, volumes)
        return {"distance_error": error, **terms, "loss": error + terms["loss"]}
