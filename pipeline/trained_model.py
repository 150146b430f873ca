"""A trained model and what it needs to look at brains."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from foldnorm.models.protocols import Decodes, Encodes, Recognises, ShowsDepths
from foldnorm.pipeline.conditions import Conditions
from foldnorm.pipeline.forward_pass import AskedPrecision, ForwardPass, Precision, scoring_precision
from foldnorm.preprocessing.cohort import Brain, few_at_a_time
from foldnorm.preprocessing.errors import InputError

BLOCKS = 3  # along each axis, that the maps of a network's levels are averaged in


@dataclass(frozen=True)
class TrainedModel:
    """A model, where it is, and what it is told of each brain.

    Attributes:
        model: in evaluation mode.
        device: where it is.
        conditions: columns that it is told.
        precision: in which it computes codes, depths, and what scores look at.
        config: of its run, ``model`` and ``training``; empty for a model that has none.
    """

    model: nn.Module
    device: torch.device
    conditions: Conditions = field(default_factory=Conditions)
    config: Mapping[str, Any] = field(default_factory=dict)
    precision: Precision = "32"
    _last: list[ForwardPass] = field(default_factory=list, init=False, repr=False, compare=False)

    @property
    def encodes(self) -> Encodes:
        """The model as one that has a latent space.

        Raises:
            InputError: it has none.
        """
        if not isinstance(self.model, Encodes):
            raise InputError(f"{type(self.model).__name__} has no latent space")
        return self.model

    @property
    def decodes(self) -> Decodes:
        """The model as one that makes volumes out of codes.

        Raises:
            InputError: it makes none.
        """
        if not isinstance(self.model, Decodes):
            raise InputError(f"{type(self.model).__name__} makes no volumes out of codes")
        return self.model

    @property
    def recognises(self) -> Recognises:
        """The model as one that names sulci.

        Raises:
            InputError: it names none.
        """
        if not isinstance(self.model, Recognises):
            raise InputError(f"{type(self.model).__name__} recognises no sulci")
        return self.model

    def for_scoring(self, asked: AskedPrecision) -> "TrainedModel":
        """The same model, computing in the precision of `scoring_precision`."""
        trained_in = self.config.get("training", {}).get("precision", "32")
        return replace(self, precision=scoring_precision(asked, trained_in, self.device))

    def condition(self, rows: Sequence[Mapping[str, str]]) -> Tensor | None:
        """Conditions of brains, (B, size) on the device; None if the model is told nothing."""
        if not self.conditions.size:
            return None
        return torch.from_numpy(self.conditions.encode(rows)).to(self.device)

    def batches(self, brains: Iterable[Brain]) -> Iterator[tuple[Tensor, Tensor | None]]:
        """Volumes on the device, a few at a time: (B, I, J, K) uint8, and their conditions."""
        for few in few_at_a_time(brains):
            volumes = torch.from_numpy(np.stack([brain.volume for brain in few])).to(self.device)
            yield volumes, self.condition([brain.row for brain in few])

    def passes(self, brains: Iterable[Brain]) -> Iterator[ForwardPass]:
        """What the model makes of brains, a few at a time.

        Who asks for the brains that were last asked for gets the same pass: what was computed then
        is there already.
        """
        for volumes, condition in self.batches(brains):
            if not any(last.is_of(volumes, condition) for last in self._last):
                self._last.clear()  # before another is made: two would need twice the memory
                last = ForwardPass(self.model, volumes, condition, self.precision)
                self._last.append(last)
            yield self._last[0]

    def encode(self, brains: Iterable[Brain]) -> NDArray[np.float32]:
        """Codes of brains, (N, latent_dim) float32; never more than a few volumes in memory.

        Raises:
            InputError: the model has no latent space.
        """
        model = self.encodes
        codes = [own.codes.cpu().numpy() for own in self.passes(brains)]
        if not codes:
            return np.empty((0, model.latent_dim), dtype=np.float32)
        return np.concatenate(codes)

    def depths(self, brains: Iterable[Brain]) -> list[NDArray[np.float32]]:
        """What each level of the network makes of brains, (N, d) float32 a level, inwards.

        Maps are averaged in `BLOCKS`³ parts. Empty for a model that shows none.
        """
        if not isinstance(self.model, ShowsDepths):
            return []
        found: list[list[NDArray[np.float32]]] = []
        for own in self.passes(brains):
            pooled = [F.adaptive_avg_pool3d(m.float(), BLOCKS).flatten(1) for m in own.depths]
            found.append([level.cpu().numpy() for level in pooled])
        return [np.concatenate(level) for level in zip(*found, strict=True)]
