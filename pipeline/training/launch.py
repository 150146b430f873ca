"""Processes that train together, as torchrun or srun started them."""

import os
from typing import Any

import torch
from lightning.fabric import Fabric

from foldnorm.pipeline.runs.devices import choose_device


def launch(device: str) -> Fabric:
    """Join the processes of this training; one alone if none were started together."""
    chosen = choose_device(device)
    if chosen.type == "cuda":
        devices: Any = [chosen.index] if chosen.index is not None else 1
        fabric = Fabric(accelerator="cuda", devices=processes_here() or devices, num_nodes=nodes())
    else:
        fabric = Fabric(accelerator="cpu", devices=processes_here() or 1, num_nodes=nodes())
    fabric.launch()
    return fabric


def leave() -> None:
    """Leave the other processes: a group still open when Python ends aborts now and then (gloo)."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def processes_here() -> int | None:
    """Return the number of processes on this node, if torchrun or srun started several."""
    for name in ("LOCAL_WORLD_SIZE", "SLURM_NTASKS_PER_NODE"):
        if os.environ.get(name, "").isdigit():
            return int(os.environ[name])
    return None


def nodes() -> int:
    """Nodes, as torchrun or srun says."""
    for name in ("GROUP_WORLD_SIZE", "SLURM_NNODES"):
        if os.environ.get(name, "").isdigit():
            return int(os.environ[name])
    return 1
