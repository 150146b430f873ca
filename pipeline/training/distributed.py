"""Processes that train together, as torchrun or srun started them, and what they exchange."""

import os
from collections.abc import Iterable
from typing import Any

import torch
from lightning.fabric import Fabric
from torch import Tensor

from foldnorm.pipeline.runs.devices import choose_device


def launch(device: str) -> Fabric:
    """Join the processes of this training; one alone if none were started together."""
    chosen = choose_device(device)
    if chosen.type == "cuda":
        devices: Any = [chosen.index] if chosen.index is not None else 1
        fabric = Fabric(
            accelerator="cuda", devices=local_world_size() or devices, num_nodes=num_nodes()
        )
    else:
        fabric = Fabric(accelerator="cpu", devices=local_world_size() or 1, num_nodes=num_nodes())
    fabric.launch()
    return fabric


def shutdown_distributed() -> None:
    """Leave the other processes: a group still open when Python ends aborts now and then (gloo)."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def local_world_size() -> int | None:
    """Return the number of processes on this node, if torchrun or srun started several."""
    for name in ("LOCAL_WORLD_SIZE", "SLURM_NTASKS_PER_NODE"):
        if os.environ.get(name, "").isdigit():
            return int(os.environ[name])
    return None


def num_nodes() -> int:
    """Return the number of nodes, as torchrun or srun says; 1 if neither does."""
    for name in ("GROUP_WORLD_SIZE", "SLURM_NNODES"):
        if os.environ.get(name, "").isdigit():
            return int(os.environ[name])
    return 1


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
    flat = mean_over_ranks(fabric, flat)
    for p, g in zip(parameters, flat.split([p.numel() for p in parameters]), strict=True):
        p.grad = g.view_as(p)


def mean_over_ranks(fabric: Fabric, tensor: Tensor) -> Tensor:
    """Mean of a tensor over all processes; the tensor itself if there is one."""
    if fabric.world_size == 1:
        return tensor
    mean = fabric.all_reduce(tensor, reduce_op="mean")
    assert isinstance(mean, Tensor)
    return mean


def max_over_ranks(fabric: Fabric, code: int) -> int:
    """Return the largest exit code of all processes, so that they stop together."""
    if fabric.world_size == 1:
        return code
    codes = fabric.all_gather(torch.tensor(code, device=fabric.device))
    return int(torch.as_tensor(codes).max())
