"""Exponential moving average of a model's weights."""

from copy import deepcopy

import torch
from torch import Tensor, nn


class WeightAverage:
    """A copy of a model, whose weights follow those of the model slowly.

    PyTorch's `AveragedModel` has its count of updates copied to the GPU at each, and waits for it;
    an exponential average needs none.

    Args:
        model: at the beginning.
        decay: share of the average that an update keeps.

    Attributes:
        module: the copy; its buffers are those of the last update.
        has_begun: whether it was updated; the first update takes the weights as they are.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.module, self.decay, self.has_begun = deepcopy(model), decay, False

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Take a step towards the weights of the model."""
        own: list[Tensor] = list(self.module.parameters())
        others: list[Tensor] = list(model.parameters())
        if self.has_begun:
            torch._foreach_lerp_(own, others, 1 - self.decay)
        else:
            torch._foreach_copy_(own, others)
        for buffer, other in zip(self.module.buffers(), model.buffers(), strict=True):
            buffer.copy_(other)
        self.has_begun = True
