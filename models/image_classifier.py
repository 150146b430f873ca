"""Networks that tell images or volumes apart: a perceptron of several layers, and a CNN.

LeCun et al. 1998 (doi:10.1109/5.726791); dropout: Srivastava et al. 2014.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from math import prod
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from foldnorm.models.blocks import conv_block
from foldnorm.models.class_paths import ClassPath
from foldnorm.models.classes import as_channels
from foldnorm.models.named_networks import NamedNetwork
from foldnorm.models.noise import StepNoise
from foldnorm.models.protocols import InputKind, Phase


class ImageClassifier(nn.Module):
    """Image or label volume → logits of the levels of a column.

    Args:
        shape: sides, 2-D or 3-D; taken from the cohort by ``foldnorm train``.
        n_channels: 1 for images, the number of classes for label volumes; taken from the cohort.
        target: column of ``participants.tsv`` that is learned; volumes without it are left out.
        condition_size: its levels; taken from the cohort.
        architecture: ``cnn``, two convolutions a level, the second of which halves the sides; or
            ``mlp``.
        widths: channels of each level, or units of each hidden layer.
        hidden: units between the deepest map and the logits of a CNN.
        dropout: share of the units before each dense layer that are left out in training.
        network: by class path, such as ``monai.networks.nets.DenseNet121``, in the place of ours.
    """

    input_kind: InputKind = "classified"

    def __init__(
        self,
        shape: Sequence[int],
        n_channels: int = 1,
        target: str = "class",
        condition_size: int = 2,
        architecture: Literal["cnn", "mlp"] = "cnn",
        widths: Sequence[int] = (32, 64),
        hidden: int = 128,
        dropout: float = 0.4,
        network: ClassPath | None = None,
    ) -> None:
        super().__init__()
        if not widths:
            raise ValueError("widths: expected at least one level")
        self.n_channels, self.target = n_channels, target
        self.condition = (f"{target}:category",)
        if network is not None:
            self.network: nn.Module = NamedNetwork(
                network,
                inputs=n_channels,
                outputs=condition_size,
                sides=shape,
                dims=len(shape),
                gives="numbers",
            )
        elif architecture == "mlp":
            sizes = [n_channels * prod(shape), *widths]
            self.network = nn.Sequential(
                nn.Flatten(), *_dense(sizes, dropout), nn.Linear(widths[-1], condition_size)
            )
        else:
            sides = list(shape)
            for _ in widths:
                sides = [-(-side // 2) for side in sides]
            self.network = nn.Sequential(
                *_levels(len(shape), [n_channels, *widths]),
                nn.Flatten(),
                nn.Dropout(dropout),
                *_dense([widths[-1] * prod(sides), hidden], dropout),
                nn.Linear(hidden, condition_size),
            )
        self.phases: Mapping[str, Phase] = {"classification": Phase(("network",))}

    def phase_order(self, step: int) -> Sequence[str]:
        """One step of the network."""
        del step
        return ("classification",)

    def loss(
        self, phase: str, volumes: Tensor, noise: StepNoise, condition: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Cross entropy of the levels, and the share that is told right."""
        del phase, noise
        assert condition is not None
        logits = self.classify(volumes)
        known = condition.sum(dim=1)  # 0 where the column says nothing
        right = (logits.argmax(dim=1) == condition.argmax(dim=1)).float()
        count = known.sum().clamp(min=1)
        entropy = (self._entropy(logits, condition) * known).sum() / count
        return {
            "cross_entropy": entropy,
            "accuracy": (right * known).sum() / count,
            "loss": entropy,
        }

    def validation_loss(self, volumes: Tensor, condition: Tensor | None = None) -> Tensor:
        """Cross entropy of the levels, nats, (B,)."""
        assert condition is not None
        return self._entropy(self.classify(volumes), condition)

    def classify(self, volumes: Tensor) -> Tensor:
        """(B, *sides) → (B, condition_size) logits."""
        return self.network(as_channels(volumes, self.n_channels))

    @staticmethod
    def _entropy(logits: Tensor, levels: Tensor) -> Tensor:
        return -(F.log_softmax(logits.float(), dim=1) * levels).sum(dim=1)


def _dense(sizes: Sequence[int], dropout: float) -> list[nn.Module]:
    """Dense layers, each with ReLU and dropout after it."""
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(sizes):
        layers += [nn.Linear(inputs, outputs), nn.ReLU(), nn.Dropout(dropout)]
    return layers


def _levels(dims: int, widths: Sequence[int]) -> list[nn.Module]:
    """Two convolutions a level; the second halves the sides."""
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(widths):
        layers.append(conv_block(dims, inputs, outputs, norm=True))
        layers.append(conv_block(dims, outputs, outputs, stride=2, norm=True))
    return layers
