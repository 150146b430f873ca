"""Communication between the processes of one training."""

from collections.abc import Iterable

import torch
from lightning.fabric import Fabric
from torch import Tensor


def clip_gradients(optimizers: Iterable[torch.optim.Optimizer], bound: float) -> None:
    """Shorten the gradient of all these optimisers together to at most ``bound``."""
    groups = [group for optimizer in optimizers for group in optimizer.param_groups]
    parameters = [p for group in groups for p in group["params"]]
    torch.nn.utils.clip_grad_norm_(parameters, bound)


def average_gradients(fabric: Fabric, optimizer: torch.optim.Optimizer) -> None:
    """Replace each gradient by its mean over processes, in one message."""
    if fabric.world_size == 1:
        return
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
    flat = torch.cat([g.flatten() for g in gradients])
    flat = mean_over_processes(fabric, flat)
    for p, g in zip(parameters, flat.split([p.numel() for p in parameters]), strict=True):
        p.grad = g.view_as(p)


def mean_over_processes(fabric: Fabric, tensor: Tensor) -> Tensor:
    """Mean of a tensor over all processes; the tensor itself if there is one."""
    if fabric.world_size == 1:
        return tensor
    mean = fabric.all_reduce(tensor, reduce_op="mean")
    assert isinstance(mean, Tensor)
    return mean


def largest(fabric: Fabric, code: int) -> int:
    """Largest code over all processes, so that they stop together."""
    if fabric.world_size == 1:
        return code
    codes = fabric.all_gather(torch.tensor(code, device=fabric.device))
    return int(torch.as_tensor(codes).max())
