"""Class numbers, one-hot and distance channels, volumes that carry a gradient to the critic."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

# What an encoder is shown of a volume: each class as 0 and 1, or how far each voxel is from it.
Sees = Literal["one-hot", "distance"]
FARTHEST = 8  # voxels; a distance beyond is all the same


def one_hot(volumes: Tensor, n_classes: int) -> Tensor:
    """(B, *sides) integer class numbers → (B, C, *sides) float32 channels."""
    channels = torch.arange(n_classes, device=volumes.device).view(1, -1, *[1] * (volumes.ndim - 1))
    return (volumes.unsqueeze(1) == channels).float()


def signed_distances(volumes: Tensor, n_classes: int) -> Tensor:
    """(B, *sides) class numbers → (B, C, *sides) float32: distance of each voxel to each class.

    Euclidean, in voxels, to the nearest voxel of the class, or minus that to the nearest of any
    other where the voxel is of the class; truncated at ± `FARTHEST` and divided by it. A fold that
    moves by a voxel changes it a little everywhere near, where one-hot channels only tell that no
    voxel is the same. Exact: along one axis after the other the smallest of d² + k² over shifts k
    (Saito & Toriwaki 1994, doi:10.1016/0031-3203(94)90133-3).
    """
    inside = one_hot(volumes, n_classes) > 0
    return (_distance_to(inside) - _distance_to(~inside)) / FARTHEST


def _distance_to(mask: Tensor) -> Tensor:
    """Distance to the nearest true voxel, at most `FARTHEST`."""
    squared = torch.where(mask, 0.0, float(FARTHEST**2))
    for axis in range(2, mask.ndim):
        pads = [0, 0] * (mask.ndim - 1 - axis) + [FARTHEST, FARTHEST]
        padded = F.pad(squared, pads, value=float(FARTHEST**2))
        length = squared.shape[axis]
        for shift in range(1, FARTHEST):
            for start in (FARTHEST - shift, FARTHEST + shift):
                squared = torch.minimum(squared, padded.narrow(axis, start, length) + shift**2)
    return squared.sqrt()


def seen(volumes: Tensor, n_classes: int, how: Sees) -> Tensor:
    """Encode (B, *sides) class numbers as an encoder's input: (B, C, *sides) float32."""
    return one_hot(volumes, n_classes) if how == "one-hot" else signed_distances(volumes, n_classes)


def as_channels(volumes: Tensor, n_channels: int) -> Tensor:
    """Channels from −1 to 1 of a batch of images or label volumes.

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
