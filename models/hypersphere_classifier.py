"""A latent space in which healthy brains lie near a centre, and altered ones away from it.

Its own alterations stand for those that nobody has seen yet: outlier exposure in the form of the
hypersphere classifier (Ruff et al. 2020, arXiv:2006.00339), which its authors put in the place of
deep SAD (Ruff et al. 2020, arXiv:1906.02694). The code is a map, so that what is unusual in one
place stays there, as in its fully convolutional form (Liznerski et al. 2021, arXiv:2007.01760).
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from foldnorm.models.classes import Sees, seen
from foldnorm.models.noise import StepNoise
from foldnorm.models.protocols import EditKind, Phase, Reads
from foldnorm.models.volume_networks import FeatureEncoder, code_size


class HypersphereClassifier(nn.Module):
    """Volume → code; its length says how unusual the volume is.

    Args:
        shape: sides of the volumes; taken from the cohort by ``foldnorm train``.
        n_classes: of the volumes; likewise.
        edits: kinds of what is erased from training volumes; see `Restorer`.
        most_edits: of a volume, at most.
        channels: a level each, which halves the sides.
        code_channels: of the deepest map, which is the code.
        norm: group norm after each convolution but the first.
        encoder_sees: each class as 0 and 1, or signed distances to it.
    """

    reads: Reads = "edits"

    def __init__(
        self,
        shape: Sequence[int],
        n_classes: int = 3,
        edits: Sequence[EditKind] = ("folds",),
        most_edits: int = 3,
        channels: Sequence[int] = (32, 64, 128),
        code_channels: int = 8,
        norm: bool = True,
        encoder_sees: Sees = "one-hot",
    ) -> None:
        super().__init__()
        if not edits or most_edits < 1:
            raise ValueError(f"expected some edits to learn from, got {list(edits)}, at most "
                             f"{most_edits} of them")  # fmt: skip
        self.n_classes, self.edits, self.most_edits = n_classes, tuple(edits), most_edits
        self.encoder_sees: Sees = encoder_sees
        self.latent_dim = code_size(shape, len(channels), code_channels)
        axes = [torch.linspace(-1, 1, side) for side in shape]
        self.places: Tensor
        places = torch.stack(torch.meshgrid(*axes, indexing="ij"))[None]
        self.register_buffer("places", places, persistent=False)
        self.encoder = FeatureEncoder(shape, n_classes + len(axes), channels, norm)
        self.head = nn.Conv3d(channels[-1], code_channels, 1)
        self.phases: Mapping[str, Phase] = {"separation": Phase(("encoder", "head"))}

    def phase_order(self, step: int) -> Sequence[str]:
        """One step of the network."""
        del step
        return ("separation",)

    def loss(
        self, phase: str, volumes: Tensor, noise: StepNoise, condition: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Healthy volumes to the centre, edited ones away; (B, 2, *sides) uint8."""
        del phase, noise, condition
        loss = self.validation_loss(volumes).mean()
        return {"separation": loss, "loss": loss}

    def validation_loss(self, volumes: Tensor, condition: Tensor | None = None) -> Tensor:
        """Cross entropy of telling the edited volume from what it was, nats, (B,).

        h for a healthy volume, −log(1 − e^−h) for one that was edited (Ruff et al. 2020, eq. 3).
        """
        del condition
        edited, healthy = volumes.unbind(1)
        near, far = self.distance(healthy), self.distance(edited)
        is_edited = (edited != healthy).flatten(1).any(1)
        away = -torch.log(-torch.expm1(-far.clamp(min=1e-6)))
        return near + torch.where(is_edited, away, far)

    def distance(self, volumes: Tensor) -> Tensor:
        """Pseudo-Huber length of the code, averaged over the places of its map, (B,)."""
        code = self.code_map(volumes).float()
        return ((code.square().sum(1) + 1).sqrt() - 1).flatten(1).mean(1)

    def encode(self, volumes: Tensor, condition: Tensor | None = None) -> Tensor:
        """(B, *sides) uint8 → (B, latent_dim): the map of codes."""
        del condition
        return self.code_map(volumes).flatten(1)

    def code_map(self, volumes: Tensor) -> Tensor:
        """(B, *sides) uint8 → (B, code_channels, *grid); the centre is 0."""
        channels = seen(volumes, self.n_classes, self.encoder_sees)
        places = self.places.expand(len(volumes), *self.places.shape[1:])
        return self.head(self.encoder(torch.cat([channels, places], dim=1)))
