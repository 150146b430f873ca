"""What a healthy brain would hold where something was erased or added.

A network that is shown healthy brains with some of their folds erased, and learns to bring them
back, knows where a fold is to be expected from what is around it. Asked about a brain from which
nothing was erased, what it adds all the same is evidence that a fold is missing there. Erasing and
restoring is the masked autoencoder's idea (Pathak et al. 2016, arXiv:1604.07379); the network is
V-Net's (Milletari et al. 2016, arXiv:1606.04797).
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from foldnorm.models.classes import one_hot
from foldnorm.models.edited_volumes import EditedVolumes
from foldnorm.models.losses import class_cross_entropy
from foldnorm.models.noise import StepNoise
from foldnorm.models.protocols import EditKind, Phase
from foldnorm.models.vnet import VNetwork

TRUST = 5.0  # at first, in the classes of the input: logits, so 99 %


class Restorer(EditedVolumes):
    """Edited volume → class logits of the volume that it was.

    Args:
        n_classes: of the cohort's volumes; taken from it by ``foldnorm train``.
        edits: see `EditedVolumes`; likewise what follows.
        most_edits: see there.
        radii: see there.
        channels: a level each; each level below the first halves the sides.
        convolutions: of each level's residual stage.
        kernel_size: of them.
        stem: side of the block of voxels that becomes channels at the first level.
        norm: group norm after each convolution.
        class_weights: of the cross entropy, by class.
    """

    def __init__(
        self,
        n_classes: int = 3,
        edits: Sequence[EditKind] = ("folds",),
        most_edits: int = 3,
        radii: Sequence[float] = (4.0, 16.0),
        channels: Sequence[int] = (16, 32, 64, 128),
        convolutions: Sequence[int] = (1, 1, 2, 2),
        kernel_size: int = 3,
        stem: int = 2,
        norm: bool = True,
        class_weights: Sequence[float] | None = None,
    ) -> None:
        super().__init__(edits, most_edits, radii)
        self.n_classes = n_classes
        weights = None if class_weights is None else torch.tensor(class_weights)
        self.class_weights: Tensor | None
        self.register_buffer("class_weights", weights, persistent=False)
        self.network = _Correction(
            n_classes, n_classes, channels, convolutions, kernel_size, stem, norm
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
        del phase, noise, condition
        edited, healthy = volumes.unbind(1)
        logits = self.restore(edited).float()
        entropy = class_cross_entropy(logits, healthy, self.class_weights).mean()
        return {"cross_entropy": entropy, "loss": entropy}

    def validation_loss(self, volumes: Tensor, condition: Tensor | None = None) -> Tensor:
        """Cross entropy of what was, nats a voxel, (B,)."""
        del condition
        edited, healthy = volumes.unbind(1)
        return class_cross_entropy(self.restore(edited).float(), healthy)

    def depths(self, volumes: Tensor, condition: Tensor | None = None) -> Sequence[Tensor]:
        """(B, I, J, K) uint8 → the map of each level on the way down."""
        del condition
        return self.network.maps(one_hot(volumes, self.n_classes))

    def restore(self, volumes: Tensor) -> Tensor:
        """(B, I, J, K) uint8 class numbers → (B, C, I, J, K) logits, of a healthy brain."""
        return self.network(one_hot(volumes, self.n_classes))


class _Correction(VNetwork):
    """What the input's own classes are to be corrected by: it need not learn to copy them."""

    def __init__(self, *sizes: Any) -> None:
        super().__init__(*sizes)
        self.trust = nn.Parameter(torch.tensor(TRUST))

    def forward(self, volume: Tensor) -> Tensor:
        """(B, C, *sides) one-hot → (B, C, *sides) logits."""
        return self.trust * volume + super().forward(volume)
