"""Class numbers, one-hot and distance channels, volumes that carry a gradient to the critic."""

from typing import Literal

import torch
from torch import Tensor

# Channels that an encoder gets: each class as 0 and 1, or the signed distance of each voxel to it.
EncoderInput = Literal["one-hot", "distance"]
MAX_DISTANCE = 8  # voxels; longer distances are truncated
LARGEST_DISTANCE = 11  # at which they may be: twice its square still is a byte


def one_hot(volumes: Tensor, n_classes: int) -> Tensor:
    """Turn (B, *sides) integer class numbers into (B, C, *sides) float32 channels of 0 and 1."""
    channels = torch.arange(n_classes, device=volumes.device).view(1, -1, *[1] * (volumes.ndim - 1))
    return (volumes.unsqueeze(1) == channels).float()


def signed_distances(volumes: Tensor, n_classes: int, longest: int = MAX_DISTANCE) -> Tensor:
    """Compute signed distances to each class: (B, *sides) class numbers → (B, C, *sides) float32.

    Euclidean, in voxels, to the nearest voxel of the class, or minus that to the nearest of any
    other where the voxel is of the class; truncated at ± ``longest`` and divided by it. A fold
    that moves by a voxel changes it a little everywhere near, where one-hot channels only say that
    no voxel is the same. Exact: along one axis after the other the smallest of d² + k² over shifts
    k (Saito & Toriwaki 1994, doi:10.1016/0031-3203(94)90133-3).
    """
    inside = one_hot(volumes, n_classes) > 0
    return (_distance_to(inside, longest) - _distance_to(~inside, longest)) / longest


def _distance_to(mask: Tensor, longest: int) -> Tensor:
    """Compute the distance to the nearest true voxel, at most ``longest``."""
    squared = torch.where(mask, 0, longest**2).to(torch.uint8)  # as bytes: five times as fast
    for axis in range(2, mask.ndim):
        before, length = squared, squared.shape[axis]
        squared = before.clone()
        for shift in range(1, min(longest, length)):
            moved, rest = before + shift**2, length - shift
            for own, other in ((0, shift), (shift, 0)):
                part = squared.narrow(axis, own, rest)
                torch.minimum(part, moved.narrow(axis, other, rest), out=part)
    return squared.float().sqrt()


def encode_input(volumes: Tensor, n_classes: int, kind: EncoderInput) -> Tensor:
    """Turn (B, *sides) class numbers into an encoder's input: (B, C, *sides) float32."""
    return (
        one_hot(volumes, n_classes) if kind == "one-hot" else signed_distances(volumes, n_classes)
    )


def as_channels(volumes: Tensor, n_channels: int) -> Tensor:
    """Turn a batch of images or label volumes into channels from −1 to 1.

    Args:
        volumes: (B, *sides), float32 intensities from −1 to 1, or integer class numbers.
        n_channels: 1 for intensities, the number of classes for class numbers.

    Returns:
        (B, n_channels, *sides) float32.
    """
    if volumes.is_floating_point():
        return volumes.unsqueeze(1)
    return 2 * one_hot(volumes, n_channels) - 1


def to_classes(logits: Tensor) -> Tensor:
    """Take the likeliest class: (B, C, *sides) logits → (B, *sides) uint8."""
    return logits.argmax(dim=1).to(torch.uint8)


def straight_through(logits: Tensor) -> Tensor:
    """Make the likeliest class one-hot forwards; backwards, pass the gradient of the softmax.

    So the critic sees generated volumes that are as sharp as real ones, and the generator still
    gets its gradient: an arg-max alone passes none (Bengio et al. 2013, arXiv:1308.3432).
    """
    soft = torch.softmax(logits, dim=1)
    # Comparing with the maximum is a hundred times faster on CPUs than arg-max over channels.
    hard = (soft == soft.amax(dim=1, keepdim=True)).to(soft.dtype)
    hard = hard / hard.sum(dim=1, keepdim=True)  # classes that tie share the voxel
    return hard + soft - soft.detach()
