"""Arithmetic of convolutions and matrix products, where a GPU has more than one.

TF32 is float32 with ten bits after the point instead of 23, which tensor cores multiply: many times
faster, and equal to a CPU's numbers to about a thousandth. PyTorch alone has it on for convolutions
and off for products.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Literal

import torch

TrainingPrecision = Literal["32", "tf32", "bf16"]


@contextmanager
def tf32(device: torch.device, *, allowed: bool) -> Iterator[None]:
    """Allow or forbid TF32 for convolutions and products of a GPU; nothing on a CPU."""
    if device.type != "cuda":
        yield
        return
    cudnn, products = torch.backends.cudnn, torch.backends.cuda.matmul
    before = cudnn.allow_tf32, products.allow_tf32
    cudnn.allow_tf32 = products.allow_tf32 = allowed
    try:
        yield
    finally:
        cudnn.allow_tf32, products.allow_tf32 = before


def float32_of(precision: TrainingPrecision, device: torch.device) -> AbstractContextManager[None]:
    """Compute what is in float32 as a training of this precision does, and what uses its model."""
    return tf32(device, allowed=precision != "32")


@contextmanager
def full_float32(device: torch.device) -> Iterator[None]:
    """Compute in float32 without TF32 and without autocast.

    A backward pass is outside of it: that needs `tf32`.
    """
    with torch.autocast(device.type, enabled=False), tf32(device, allowed=False):
        yield
