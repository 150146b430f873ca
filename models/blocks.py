"""Convolution blocks and pixel shuffles in 2-D and 3-D, of plain PyTorch.

MONAI has them too, but importing any part of MONAI loads all of it, which takes longer than a
trained network takes to look at a brain. Names of parts are those of MONAI's ``Convolution``, under
which runs and bundles hold their weights.
"""

from collections import OrderedDict
from math import gcd

import torch
from torch import Tensor, nn


def convolution(
    dims: int,
    inputs: int,
    outputs: int,
    kernel_size: int,
    *,
    stride: int = 1,
    norm: nn.Module | None = None,
    act: nn.Module | None = None,
) -> nn.Sequential:
    """Build a convolution, and a norm and an activation after it if they are given.

    (B, inputs, *sides) → (B, outputs, *sides / stride).

    Args:
        dims: 2 or 3.
        inputs: channels.
        outputs: channels.
        kernel_size: voxels.
        stride: voxels.
        norm: of ``outputs`` channels; it has a bias, and would leave the convolution's without a
            gradient, so that one has none.
        act: activation.
    """
    kind = {2: nn.Conv2d, 3: nn.Conv3d}[dims]
    padding = "same" if stride == 1 else (kernel_size - 1) // 2
    conv = kind(inputs, outputs, kernel_size, stride, padding, bias=norm is None)
    parts: OrderedDict[str, nn.Module] = OrderedDict(conv=conv)
    after = OrderedDict((name, part) for name, part in (("N", norm), ("A", act)) if part)
    if after:
        parts["adn"] = nn.Sequential(after)
    return nn.Sequential(parts)


def pixelshuffle(x: Tensor, dims: int, factor: int) -> Tensor:
    """Turn channels into blocks of voxels: (B, C·factor^dims, *sides) → (B, C, *factor·sides).

    Source:
        Shi et al. 2016, arXiv:1609.05158.
    """
    batch, whole, *sides = x.shape
    channels = whole // factor**dims
    x = x.reshape(batch, channels, *[factor] * dims, *sides)  # (B, C, factor, …, *sides)
    axes = [axis for n in range(2, 2 + dims) for axis in (n + dims, n)]
    return x.permute(0, 1, *axes).reshape(batch, channels, *(side * factor for side in sides))


def pixelunshuffle(x: Tensor, dims: int, factor: int) -> Tensor:
    """Turn blocks of voxels into channels, the inverse of `pixelshuffle`."""
    batch, channels, *whole = x.shape
    sides = [side // factor for side in whole]
    x = x.reshape(batch, channels, *(n for side in sides for n in (side, factor)))
    axes = [*range(3, 3 + 2 * dims, 2), *range(2, 2 + 2 * dims, 2)]
    return x.permute(0, 1, *axes).reshape(batch, channels * factor**dims, *sides)


def conv_block(dims: int, inputs: int, outputs: int, *, stride: int = 1, norm: bool) -> nn.Module:
    """3-wide convolution, group norm if any, leaky ReLU."""
    groups = nn.GroupNorm(gcd(8, outputs), outputs) if norm else None
    act = nn.LeakyReLU(negative_slope=0.2)
    return convolution(dims, inputs, outputs, 3, stride=stride, norm=groups, act=act)


class Up(nn.Module):
    """Doubles the sides: 2^d times the channels point by point, a pixel shuffle, a convolution."""

    def __init__(self, dims: int, inputs: int, outputs: int, *, norm: bool) -> None:
        super().__init__()
        self.dims = dims
        self.widen = convolution(dims, inputs, outputs * 2**dims, 1)
        self.mix = conv_block(dims, outputs, outputs, norm=norm)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, *sides) → (B, outputs, *2·sides)."""
        return self.mix(pixelshuffle(self.widen(x), self.dims, 2))


def as_channels_last(module: nn.Module, dims: int) -> nn.Module:
    """Lay convolution weights out channels last, which the fast kernels want in 3-D.

    `nn.Module.to` lays out whatever has four or five axes, and fails where that is no convolution
    of so many dimensions.
    """
    format_of = {2: torch.channels_last, 3: torch.channels_last_3d}[dims]
    for parameter in module.parameters():
        if parameter.ndim == dims + 2:
            parameter.data = parameter.data.contiguous(memory_format=format_of)
    return module
