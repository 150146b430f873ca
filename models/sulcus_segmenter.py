"""Recognition of sulci: each voxel of a skeleton gets the name of a sulcus, or none.

A fold that never formed leaves no void where its neighbours fill the place; what is missing then is
a name. Recognition of sulci by a U-Net on skeletons is Borne et al. 2020 (Medical Image Analysis
62, doi:10.1016/j.media.2020.101651); the network here is V-Net's (Milletari et al. 2016,
arXiv:1606.04797).
"""

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from foldnorm.models.class_paths import ClassPath
from foldnorm.models.classes import one_hot
from foldnorm.models.grids import coordinates
from foldnorm.models.named_networks import NamedNetwork
from foldnorm.models.noise import StepNoise
from foldnorm.models.protocols import InputKind, Phase
from foldnorm.models.vnet import VNetwork


class SulcusSegmenter(nn.Module):
    """Volume → logits of the sulci that its voxels belong to.

    Args:
        shape: sides of the volumes; taken from the cohort by ``foldnorm train``.
        n_classes: of the volumes; likewise. The highest is the one that is named (sulcus).
        sulci: names, of classes 1 to n; class 0 is any other sulcus. If there are none in the
            configuration, ``foldnorm train`` takes those that nearly every training brain has.
        substitutes: share of the training volumes in which one of the sulci is taken out and its
            place filled with small folds, so that the network learns what is not that sulcus.
        channels: a level each; each level below the first halves the sides.
        convolutions: of each level's residual stage.
        kernel_size: of them.
        stem: side of the block of voxels that becomes channels at the first level.
        norm: group norm after each convolution.
        network: by class path, such as ``monai.networks.nets.SegResNet``, in the place of ours.
    """

    input_kind: InputKind = "sulci"

    def __init__(
        self,
        shape: Sequence[int],
        n_classes: int = 3,
        sulci: Sequence[str] = (),
        substitutes: float = 0.5,
        channels: Sequence[int] = (32, 64, 128),
        convolutions: Sequence[int] = (1, 2, 2),
        kernel_size: int = 3,
        stem: int = 2,
        norm: bool = True,
        network: ClassPath | None = None,
    ) -> None:
        super().__init__()
        if not sulci:
            raise ValueError(
                "expected sulci to recognise, got none: the cohort names none that nearly all of "
                "its training brains have (model.init_args.sulci)"
            )
        self.n_classes, self.sulci, self.substitutes = n_classes, tuple(sulci), substitutes
        self.places: Tensor
        self.register_buffer("places", coordinates(shape), persistent=False)
        inputs, outputs = n_classes + len(shape), len(sulci) + 1
        self.network = (
            VNetwork(inputs, outputs, channels, convolutions, kernel_size, stem, norm)
            if network is None
            else NamedNetwork(network, inputs=inputs, outputs=outputs, sides=shape)
        )
        self.phases: Mapping[str, Phase] = {"recognition": Phase(("network",))}

    def phase_order(self, step: int) -> Sequence[str]:
        """One step of the network."""
        del step
        return ("recognition",)

    def loss(
        self, phase: str, volumes: Tensor, noise: StepNoise, condition: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Cross entropy of the names of sulcus voxels; (B, 2, I, J, K) uint8, volume and names."""
        del phase, noise, condition
        entropy = self.validation_loss(volumes).mean()
        return {"cross_entropy": entropy, "loss": entropy}

    def validation_loss(self, volumes: Tensor, condition: Tensor | None = None) -> Tensor:
        """Cross entropy of the names, nats a sulcus voxel, (B,)."""
        del condition
        volume, named = volumes.unbind(1)
        entropy = F.cross_entropy(self.recognise(volume).float(), named.long(), reduction="none")
        sulcus = volume == self.n_classes - 1
        count = sulcus.flatten(1).sum(1).clamp(min=1)
        return (entropy * sulcus).flatten(1).sum(1) / count

    def recognise(self, volumes: Tensor) -> Tensor:
        """(B, I, J, K) uint8 class numbers → (B, n + 1, I, J, K) logits of the sulci."""
        places = self.places.expand(len(volumes), -1, -1, -1, -1)
        return self.network(torch.cat([one_hot(volumes, self.n_classes), places], dim=1))
