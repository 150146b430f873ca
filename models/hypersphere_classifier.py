"""A latent space in which healthy brains lie near a centre, and altered ones away from it.

Its own alterations stand for those that nobody has seen yet: outlier exposure in the form of the
hypersphere classifier (Ruff et al. 2020, arXiv:2006.00339), which its authors put in the place of
deep SAD (Ruff et al. 2020, arXiv:1906.02694). The code is a map, as in its fully convolutional form
(Liznerski et al. 2021, arXiv:2007.01760), and each place is told whether something was altered
there: told only of whole brains, it learned nothing from folds of 1 % of a volume.
"""

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from foldnorm.models.class_paths import ClassPath
from foldnorm.models.classes import EncoderInput, encode_input
from foldnorm.models.edited_volumes import EditedVolumes
from foldnorm.models.grids import code_grid, code_size, coordinates
from foldnorm.models.losses import hypersphere_loss
from foldnorm.models.named_networks import NamedNetwork
from foldnorm.models.noise import StepNoise
from foldnorm.models.protocols import EditKind, Phase
from foldnorm.models.vnet import VEncoder


class HypersphereClassifier(EditedVolumes):
    """Volume → code, a map; the length at each place says how unusual the volume is there.

    Args:
        shape: sides of the volumes; taken from the cohort by ``foldnorm train``.
        n_classes: of the volumes; likewise.
        edits: see `EditedVolumes`; likewise what follows.
        max_edits: see there.
        radii: see there.
        channels: a level each; each level below the first halves the sides.
        convolutions: of each level's residual stage.
        stem: side of the block of voxels that becomes channels at the first level.
        code_channels: of the deepest map, which is the code.
        norm: group norm after each convolution.
        encoder_input: each class as 0 and 1, or signed distances to it.
        network: by class path, such as ``monai.networks.nets.SegResNet``, in the place of ours: a
            map of ``code_channels`` comes out, and is averaged over the places of the code.
    """

    def __init__(
        self,
        shape: Sequence[int],
        n_classes: int = 3,
        edits: Sequence[EditKind] = ("folds",),
        max_edits: int = 3,
        radii: Sequence[float] = (4.0, 16.0),
        channels: Sequence[int] = (16, 32, 64),
        convolutions: Sequence[int] = (1, 1, 2),
        stem: int = 2,
        code_channels: int = 8,
        norm: bool = True,
        encoder_input: EncoderInput = "one-hot",
        network: ClassPath | None = None,
    ) -> None:
        super().__init__(edits, max_edits, radii)
        self.n_classes = n_classes
        self.encoder_input: EncoderInput = encoder_input
        self.latent_dim = code_size(shape, len(channels) - 1, code_channels, stem)
        self.healthy_grid = code_grid(shape, len(channels) - 1, stem)
        self.places: Tensor
        self.register_buffer("places", coordinates(shape), persistent=False)
        inputs = n_classes + len(shape)
        if network is None:
            self.encoder: nn.Module = VEncoder(inputs, channels, convolutions, 3, stem, norm)
            self.head = nn.Conv3d(channels[-1], code_channels, 1)
        else:
            self.encoder = NamedNetwork(
                network, inputs=inputs, outputs=code_channels, sides=shape, gives="map"
            )
        trained = ("encoder", "head") if network is None else ("encoder",)
        self.phases: Mapping[str, Phase] = {"separation": Phase(trained)}

    def phase_order(self, step: int) -> Sequence[str]:
        """One step of the network."""
        del step
        return ("separation",)

    def loss(
        self, phase: str, volumes: Tensor, noise: StepNoise, condition: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Healthy places to the centre, edited ones away; (B, 2, *sides) uint8."""
        del phase, noise, condition
        loss = self.validation_loss(volumes).mean()
        return {"separation": loss, "loss": loss}

    def validation_loss(self, volumes: Tensor, condition: Tensor | None = None) -> Tensor:
        """Cross entropy of telling edited places from others, nats, (B,)."""
        del condition
        edited, healthy = volumes.unbind(1)
        return hypersphere_loss(self.code_map(edited), edited != healthy)

    def encode(
        self,
        volumes: Tensor,
        condition: Tensor | None = None,
        feature_maps: Sequence[Tensor] | None = None,
    ) -> Tensor:
        """(B, *sides) uint8 → (B, latent_dim): the map of codes."""
        del condition
        return self.code_map(volumes, feature_maps).flatten(1)

    def feature_maps(self, volumes: Tensor, condition: Tensor | None = None) -> Sequence[Tensor]:
        """(B, *sides) uint8 → the map of each level; none of a network by class path."""
        del condition
        if not isinstance(self.encoder, VEncoder):
            return []
        return self.encoder.maps(self._channels(volumes))

    def code_map(self, volumes: Tensor, feature_maps: Sequence[Tensor] | None = None) -> Tensor:
        """(B, *sides) uint8 → (B, code_channels, *grid); the centre is 0."""
        if isinstance(self.encoder, NamedNetwork):
            i, j, k = self.healthy_grid
            return F.adaptive_avg_pool3d(self.encoder(self._channels(volumes)), (i, j, k))
        return self.head((feature_maps or self.feature_maps(volumes))[-1])

    def _channels(self, volumes: Tensor) -> Tensor:
        """(B, *sides) uint8 → (B, C + 3, *sides): classes, and where a voxel lies."""
        channels = encode_input(volumes, self.n_classes, self.encoder_input)
        places = self.places.expand(len(volumes), *self.places.shape[1:])
        return torch.cat([channels, places], dim=1)
