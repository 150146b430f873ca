"""One pass of a few brains through a model, shared by everything that needs its outputs."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import cached_property
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from foldnorm.models.protocols import (
    Decodes,
    Encodes,
    Expects,
    HasFeatureMaps,
    Recognises,
    Restores,
)
from foldnorm.pipeline.runs.predict import restored_in_windows

N_BLOCKS = 3  # along each axis, in which feature maps are averaged
Precision = Literal["32", "bf16"]
AskedPrecision = Literal["auto", "32", "bf16"]


class ForwardPass:
    """Outputs of a model for a few brains, each computed once, when it is asked for.

    Args:
        model: in evaluation mode.
        volumes: (B, I, J, K) on its device.
        condition: (B, size) of each, or None.
        precision: ``bf16`` computes what autocast does in bfloat16.
        computing: context of every use of the model, see `TrainedModel.computing`.
        patch: sides of the patches that a model was trained on, if not on whole volumes.

    Attributes:
        volumes: as given.
        condition: likewise.
    """

    def __init__(
        self,
        model: nn.Module,
        volumes: Tensor,
        condition: Tensor | None,
        precision: Precision,
        computing: Callable[[], AbstractContextManager[None]],
        patch: Sequence[int] | None = None,
    ) -> None:
        self.model, self.precision, self.patch = model, precision, patch
        self._computing = computing
        self.volumes, self.condition = volumes, condition

    def is_of(self, volumes: Tensor, condition: Tensor | None) -> bool:
        """Say if it is a pass of these volumes under these conditions."""
        if condition is None or self.condition is None:
            return condition is self.condition and torch.equal(volumes, self.volumes)
        return torch.equal(condition, self.condition) and torch.equal(volumes, self.volumes)

    @cached_property
    def feature_maps(self) -> Sequence[Tensor]:
        """Map of each level of the network, inwards; empty for a model without feature maps."""
        if not isinstance(self.model, HasFeatureMaps):
            return []
        with self._computing(), self._autocast():
            return self.model.feature_maps(self.volumes, self.condition)

    @property
    def features(self) -> list[Tensor]:
        """(B, d) float32 of each level: the means of its map in `N_BLOCKS` parts an axis."""
        return [
            F.adaptive_avg_pool3d(own.float(), N_BLOCKS).flatten(1) for own in self.feature_maps
        ]

    @cached_property
    def codes(self) -> Tensor:
        """Codes, (B, latent_dim) float32."""
        assert isinstance(self.model, Encodes)
        with self._computing(), self._autocast():
            return self.model.encode(self.volumes, self.condition, **self._known).float()

    @cached_property
    def reconstructed(self) -> Tensor:
        """(B, C, I, J, K) float32 class logits of the volumes made of the codes."""
        assert isinstance(self.model, Decodes)
        with self._computing(), self._autocast():
            return self.model.decode(self.codes, self.condition).float()

    @cached_property
    def restored(self) -> Tensor:
        """(B, C, I, J, K) float32 class logits of a healthy brain."""
        assert isinstance(self.model, Restores)
        with self._computing(), self._autocast():
            if self.patch is not None:
                return restored_in_windows(self.model, self.volumes, self.patch)
            known = {**self._known, **self._known_of_voxels}
            return self.model.restore(self.volumes, self.condition, **known).float()

    @cached_property
    def expected(self) -> Tensor:
        """(B, C, I, J, K) float32 probabilities of classes, given what lies around each voxel."""
        assert isinstance(self.model, Expects)
        with self._computing(), self._autocast():
            return self.model.expected(self.volumes, self.condition).float()

    @cached_property
    def recognised(self) -> Tensor:
        """(B, n + 1, I, J, K) float32 logits of sulci."""
        assert isinstance(self.model, Recognises)
        with self._computing(), self._autocast():
            return self.model.recognise(self.volumes).float()

    @property
    def _known(self) -> dict[str, Any]:
        """Outputs that `encode` and `restore` need not compute again."""
        return {"feature_maps": self.feature_maps} if isinstance(self.model, HasFeatureMaps) else {}

    @property
    def _known_of_voxels(self) -> dict[str, Any]:
        """Outputs that `restore` need not compute again besides."""
        return {"expected": self.expected} if isinstance(self.model, Expects) else {}

    def _autocast(self) -> AbstractContextManager[Any]:
        device = self.volumes.device.type
        return torch.autocast(device, torch.bfloat16, enabled=self.precision == "bf16")


def scoring_precision(asked: AskedPrecision, trained_in: str, device: torch.device) -> Precision:
    """Choose the precision that a model computes scores in.

    Args:
        asked: ``auto``: bfloat16 on a CPU that is faster with it, for a model that was trained so.
        trained_in: precision of the training.
        device: where the model is.
    """
    if asked != "auto":
        return asked
    return "bf16" if trained_in == "bf16" and faster_in_bf16(device) else "32"


def faster_in_bf16(device: torch.device) -> bool:
    """Say if a CPU has instructions for bfloat16, which take half the time."""
    if device.type != "cpu":
        return False
    names = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, name, bool)() for name in names)
