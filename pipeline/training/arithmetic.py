"""Arithmetic of a training, by ``training.precision``: flags of a GPU's libraries, and autocast."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch

from foldnorm.models.precision import TrainingPrecision, float32_of, tf32
from foldnorm.models.protocols import Phase
from foldnorm.models.small_maps import small_maps_in_float32


@contextmanager
def arithmetic(precision: TrainingPrecision, device: torch.device) -> Iterator[None]:
    """Set what a GPU computes in, also where it validates; afterwards it is as before.

    cuDNN tries its algorithms for each shape, and shapes are constant; not where deterministic ones
    are asked for: which one wins is chance.
    """
    cudnn = torch.backends.cudnn
    before = cudnn.benchmark
    cudnn.benchmark = device.type == "cuda" and not torch.are_deterministic_algorithms_enabled()
    try:
        with float32_of(precision, device):
            yield
    finally:
        cudnn.benchmark = before


@contextmanager
def mixed(precision: TrainingPrecision, device: torch.device) -> Iterator[None]:
    """Compute a loss in bfloat16, where that is asked for and does no harm."""
    if precision != "bf16":
        yield
        return
    with torch.autocast(device.type, torch.bfloat16), small_maps_in_float32(device):
        yield


def of_backward(phase: Phase, device: torch.device) -> AbstractContextManager[None]:
    """Context of the backward pass of a phase: without TF32, where the phase asks for it."""
    return tf32(device, allowed=False) if phase.full_float32 else nullcontext()
