"""Codes of volumes by a trained model."""

from collections.abc import Iterable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from foldnorm.models.protocols import Encodes
from foldnorm.preprocessing.errors import InputError

BATCH = 8


@torch.no_grad()
def encode_volumes(
    model: nn.Module, volumes: Iterable[NDArray[np.uint8]], device: torch.device
) -> NDArray[np.float32]:
    """Codes of volumes, (N, latent_dim) float32; never more than a few volumes in memory.

    Args:
        model: in evaluation mode.
        volumes: (I, J, K) uint8 each.
        device: where the model is.
    """
    if not isinstance(model, Encodes):
        raise InputError(f"{type(model).__name__} has no latent space to embed in")
    codes = [model.encode(batch).float().cpu().numpy() for batch in in_batches(volumes, device)]
    if not codes:
        return np.empty((0, model.latent_dim), dtype=np.float32)
    return np.concatenate(codes)


def in_batches(
    volumes: Iterable[NDArray[np.uint8]], device: torch.device
) -> Iterator[torch.Tensor]:
    """Volumes on the device, `BATCH` at a time: (B, I, J, K) uint8."""
    waiting: list[NDArray[np.uint8]] = []
    for volume in volumes:
        waiting.append(volume)
        if len(waiting) == BATCH:
            yield torch.from_numpy(np.stack(waiting)).to(device)
            waiting = []
    if waiting:
        yield torch.from_numpy(np.stack(waiting)).to(device)
