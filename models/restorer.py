"""Restoration of what a healthy brain would hold where something was erased or added.

A network that is shown healthy brains with some of their folds erased, and learns to bring them
back, knows where a fold is to be expected from what is around it. Asked about a brain from which
nothing was erased, what it adds all the same is evidence that a fold is missing there. Erasing and
restoring is the masked autoencoder's idea (Pathak et al. 2016, arXiv:1604.07379); the network is
V-Net's (Milletari et al. 2016, arXiv:1606.04797).
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from foldnorm.models.class_paths import ClassPath
from foldnorm.models.classes import one_hot
from foldnorm.models.edited_volumes import EditedVolumes
from foldnorm.models.grids import coordinates
from foldnorm.models.losses import class_weights_of
from foldnorm.models.named_networks import NamedNetwork
from foldnorm.models.noise import StepNoise
from foldnorm.models.protocols import ADDING, EditKind, Phase
from foldnorm.models.vnet import VNetwork

INITIAL_TRUST = 5.0  # logits of the classes of the input, so 99 %


class Restorer(EditedVolumes):
    """Edited volume → class logits of the volume that it was.

    It is asked only where an answer counts as evidence: at void voxels (*inside*, in a skeleton),
    and, if it learns from what was added, at voxels of structure too. What was erased is asked for
    with a margin of one voxel: the place of a sheet in a gap is known no better than that, and a
    sharp target would be answered by next to nothing everywhere.

    Args:
        n_classes: of the cohort's volumes; taken from it by ``foldnorm train``.
        void: class of what is erased; likewise.
        edits: see `EditedVolumes`; likewise what follows.
        max_edits: see there.
        radii: see there.
        channels: a level each; each level below the first halves the sides.
        convolutions: of each level's residual stage.
        kernel_size: of them.
        stem: side of the block of voxels that becomes channels at the first level.
        norm: group norm after each convolution.
        class_weights: of the cross entropy, by class.
        coordinates: the network is also shown where a voxel lies in the cohort's box, from −1 to 1
            along each axis. Healthy brains lie there alike in MNI space.
        network: by class path, such as ``monai.networks.nets.SegResNet``, in the place of ours. It
            is shown volumes of the sides of the training cohort, or of its patches, only.

    Volumes may be parts of brains, of any sides; ``condition`` then says where they lie (see
    `foldnorm.models.protocols.TakesPatches`).
    """

    takes_patches = True

    def __init__(
        self,
        n_classes: int = 3,
        void: int = 1,
        edits: Sequence[EditKind] = ("folds",),
        max_edits: int = 6,
        radii: Sequence[float] = (4.0, 16.0),
        channels: Sequence[int] = (16, 32, 64, 128),
        convolutions: Sequence[int] = (1, 1, 2, 2),
        kernel_size: int = 3,
        stem: int = 2,
        norm: bool = True,
        class_weights: Sequence[float] | None = None,
        coordinates: bool = False,
        network: ClassPath | None = None,
    ) -> None:
        super().__init__(edits, max_edits, radii)
        self.n_classes, self.void, self.coordinates = n_classes, void, coordinates
        weights = class_weights_of(class_weights, n_classes)
        self.class_weights: Tensor | None
        self.register_buffer("class_weights", weights, persistent=False)
        inputs = n_classes + 3 * coordinates
        self.network = (
            _Correction(inputs, n_classes, channels, convolutions, kernel_size, stem, norm)
            if network is None
            else _NamedCorrection(network, inputs, n_classes)
        )
        self.phases: Mapping[str, Phase] = {"restoration": Phase(("network",))}

    def phase_order(self, step: int) -> Sequence[str]:
        """One step of the network."""
        del step
        return ("restoration",)

    def loss(
        self, phase: str, volumes: Tensor, noise: StepNoise, condition: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Cross entropy of what was; (B, 2, I, J, K) uint8, edited and as it was."""
        del phase, noise
        entropy = self._entropy(volumes, condition, self.class_weights).mean()
        return {"cross_entropy": entropy, "loss": entropy}

    def validation_loss(self, volumes: Tensor, condition: Tensor | None = None) -> Tensor:
        """Cross entropy of what was, nats a voxel that is asked for, (B,)."""
        return self._entropy(volumes, condition, None)

    def _entropy(self, volumes: Tensor, condition: Tensor | None, weights: Tensor | None) -> Tensor:
        """Cross entropy over the voxels that are asked for, nats a voxel, (B,)."""
        edited, healthy = volumes.unbind(1)
        target = torch.where(edited == self.void, self._with_margin(edited, healthy), healthy)
        asked = edited == self.void
        if ADDING.intersection(self.edits):
            asked |= edited > self.void
        restored = self.restore(edited, condition).float()
        entropy = F.cross_entropy(restored, target.long(), weights, reduction="none")
        return (entropy * asked).flatten(1).sum(1) / asked.flatten(1).sum(1).clamp(min=1)

    def _with_margin(self, edited: Tensor, healthy: Tensor) -> Tensor:
        """Healthy classes, what was erased one voxel wider, (B, I, J, K) uint8."""
        erased = torch.where((edited == self.void) & (healthy > self.void), healthy, self.void)
        wider = F.max_pool3d(erased.float().unsqueeze(1), 3, 1, 1).squeeze(1)
        return torch.maximum(healthy, wider.to(healthy.dtype))

    def feature_maps(self, volumes: Tensor, condition: Tensor | None = None) -> Sequence[Tensor]:
        """(B, I, J, K) uint8 → the map of each level on the way down; none of a named network."""
        if isinstance(self.network, _NamedCorrection):
            return []
        return self.network.maps(self._channels(volumes, condition))

    def restore(
        self,
        volumes: Tensor,
        condition: Tensor | None = None,
        feature_maps: Sequence[Tensor] | None = None,
    ) -> Tensor:
        """(B, I, J, K) uint8 class numbers → (B, C, I, J, K) logits, of a healthy brain."""
        return self.network(self._channels(volumes, condition), feature_maps)

    def _channels(self, volumes: Tensor, places: Tensor | None) -> Tensor:
        """(B, I, J, K) uint8 class numbers → (B, C, I, J, K) what the network is shown."""
        classes = one_hot(volumes, self.n_classes)
        if not self.coordinates:
            return classes
        where = coordinates(volumes.shape[1:], places, volumes.device).to(classes)
        return torch.cat([classes, where.expand(len(volumes), *where.shape[1:])], dim=1)


class _Correction(VNetwork):
    """V-Net whose output corrects the classes of its input, so that it need not learn to copy."""

    def __init__(self, inputs: int, outputs: int, *sizes: Any) -> None:
        super().__init__(inputs, outputs, *sizes)
        self.outputs = outputs
        self.trust = nn.Parameter(torch.tensor(INITIAL_TRUST))

    def forward(self, volume: Tensor, maps: Sequence[Tensor] | None = None) -> Tensor:
        """(B, classes or more, *sides) one-hot first → (B, classes, *sides) logits."""
        return self.trust * volume[:, : self.outputs] + super().forward(volume, maps)


class _NamedCorrection(nn.Module):
    """A network by class path, whose output corrects the classes of its input likewise."""

    def __init__(self, named: ClassPath, inputs: int, outputs: int) -> None:
        super().__init__()
        self.correction = NamedNetwork(named, inputs=inputs, outputs=outputs)
        self.outputs = outputs
        self.trust = nn.Parameter(torch.tensor(INITIAL_TRUST))

    def forward(self, volume: Tensor, maps: Sequence[Tensor] | None = None) -> Tensor:
        """(B, classes or more, *sides) one-hot first → (B, classes, *sides) logits."""
        del maps
        return self.trust * volume[:, : self.outputs] + self.correction(volume)
