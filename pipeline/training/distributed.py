"""Processes that train together, as torchrun or srun started them."""

import os
import signal
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from lightning.fabric import Fabric
from lightning.fabric.plugins.environments import (
    ClusterEnvironment,
    LightningEnvironment,
    TorchElasticEnvironment,
)
from lightning.fabric.strategies import DDPStrategy

from foldnorm.pipeline.runs.devices import choose_device
from foldnorm.pipeline.training.messages import BACKENDS
from foldnorm.pipeline.training.signals import STOPPED
from foldnorm.pipeline.training.slurm import SlurmStep, refuse_unstarted_tasks
from foldnorm.preprocessing.core.counts import counted
from foldnorm.preprocessing.core.errors import InputError
from foldnorm.preprocessing.core.isolation import end_with

GRACE = 60.0  # seconds in which a process whose launcher was killed saves its state


@dataclass(frozen=True)
class Group:
    """Processes that train together, and which of them this one is.

    Attributes:
        local: number of them on each node.
        nodes: number of nodes.
        rank: of this process, over all nodes.
        environment: tells Lightning where the others are.
    """

    local: int = 1
    nodes: int = 1
    rank: int = 0
    environment: ClusterEnvironment = field(default_factory=LightningEnvironment)

    @classmethod
    def of_launcher(cls) -> "Group":
        """Group that torchrun or srun started; this process alone if neither did.

        Raises:
            InputError: a job of SLURM has several tasks, and none was started.
        """
        if TorchElasticEnvironment.detect():
            local, nodes, rank = (
                int(os.environ[name]) for name in ("LOCAL_WORLD_SIZE", "GROUP_WORLD_SIZE", "RANK")
            )
            return cls(local, nodes, rank, TorchElasticEnvironment())
        step = SlurmStep.of_environment()
        if step is None:
            refuse_unstarted_tasks()
        if step is None or step.tasks == 1:
            return cls()
        return cls(step.tasks // step.nodes, step.nodes, step.global_rank(), step)

    @property
    def size(self) -> int:
        """Number of processes."""
        return self.local * self.nodes


def launch(device: str, group: Group | None = None) -> Fabric:
    """Join the processes of this training.

    Args:
        device: see `choose_device`; of several processes on a node, each takes one.
        group: those processes; None: this one alone, whoever started it.

    Raises:
        InputError: there are fewer GPUs than processes.
    """
    group = group or Group()
    chosen = choose_device(device)
    devices: Any = group.local
    if chosen.type == "cuda":
        if group.local > torch.cuda.device_count():
            raise InputError(
                f"{group.local} processes on this node, and each sees "
                f"{counted(torch.cuda.device_count(), 'GPU')}: let all of them see all (SLURM: "
                "--gpus-per-node, no --gpus-per-task)"
            )
        devices = [chosen.index] if chosen.index is not None and group.local == 1 else devices
    together = DDPStrategy(process_group_backend=BACKENDS[chosen.type])
    fabric = Fabric(
        accelerator=chosen.type,
        strategy=together if group.size > 1 else "auto",
        devices=devices,
        num_nodes=group.nodes,
        plugins=[group.environment],
    )
    if group.size > 1:  # torchrun may be killed, and its processes with the state unsaved
        end_with(os.getppid(), _stop)
    fabric.launch()
    return fabric


def _stop() -> None:
    """Save the state and leave; leave without it if that takes too long."""
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE)
    os._exit(STOPPED)


@contextmanager
def lost_peers_are_said(group: Group) -> Iterator[None]:
    """Turn what PyTorch raises when another process of the training has ended into one line.

    Raises:
        ConnectionError: with that line.
    """
    try:
        yield
    except RuntimeError as error:
        is_lost = isinstance(error, torch.distributed.DistError) or "gloo" in str(error)
        if group.size == 1 or not is_lost:
            raise
        reason = str(error).splitlines()[0]
        raise ConnectionError(
            f"another of the {group.size} processes of this training has ended, see what it said "
            f"({reason}); --resume auto goes on from the last checkpoint"
        ) from error
    finally:
        shutdown_distributed()


def shutdown_distributed() -> None:
    """Leave the other processes: a group still open when Python ends aborts now and then (gloo)."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def clip_gradients(optimizers: Iterable[torch.optim.Optimizer], bound: float) -> None:
    """Shorten the gradient of all these optimisers together to at most ``bound``."""
    groups = [group for optimizer in optimizers for group in optimizer.param_groups]
    parameters = [p for group in groups for p in group["params"]]
    torch.nn.utils.clip_grad_norm_(parameters, bound)
