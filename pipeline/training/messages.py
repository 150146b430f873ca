"""Messages of processes that train together: gradients, terms, exit codes, shares of work.

Lightning's messages wait for a barrier first, at which a process stands still until its GPU has
done all that it was given. These do not. Tensors of a GPU go by NCCL; numbers and all else by Gloo,
between the processes alone, so that no GPU is waited for.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import TypeVar

import torch
from lightning.fabric import Fabric
from torch import Tensor, nn

Told = TypeVar("Told")
BACKENDS = {"cpu": "gloo", "cuda": "cpu:gloo,cuda:nccl"}  # by the device that trains


def average_gradients(fabric: Fabric, optimizers: Iterable[torch.optim.Optimizer]) -> None:
    """Replace each gradient of these optimisers by its mean over processes, in one message.

    The mean is written into the gradient, whose memory format stays: Adam would be slower with
    another than the parameter's.
    """
    if fabric.world_size == 1:
        return
    groups = [group for optimizer in optimizers for group in optimizer.param_groups]
    gradients = [_gradient_of(p) for group in groups for p in group["params"]]
    flat = mean_over_ranks(fabric, torch.cat([g.flatten() for g in gradients]))
    pieces = flat.split([g.numel() for g in gradients])
    means = [piece.view(g.shape) for piece, g in zip(pieces, gradients, strict=True)]
    torch._foreach_copy_(gradients, means)


def _gradient_of(parameter: Tensor) -> Tensor:
    """Gradient of a parameter; zeros, where this process has none and others may."""
    if parameter.grad is None:
        parameter.grad = torch.zeros_like(parameter)
    return parameter.grad


def mean_over_ranks(fabric: Fabric, tensor: Tensor) -> Tensor:
    """Replace a tensor by its mean over all processes, and return it."""
    if fabric.world_size > 1:
        torch.distributed.all_reduce(tensor)
        tensor /= fabric.world_size
    return tensor


def max_over_ranks(fabric: Fabric, code: int) -> int:
    """Return the largest exit code of all processes, so that they stop together."""
    if fabric.world_size == 1:
        return code
    codes = torch.tensor(code)
    torch.distributed.all_reduce(codes, op=torch.distributed.ReduceOp.MAX)
    return int(codes)


def wait_for_others(fabric: Fabric) -> None:
    """Wait until all processes are here."""
    max_over_ranks(fabric, 0)


def told_by_first(fabric: Fabric, value: Told) -> Told:
    """Return what the first process says."""
    if fabric.world_size == 1:
        return value
    return fabric.broadcast(value)


def share_buffers(fabric: Fabric, model: nn.Module) -> None:
    """Give all processes the buffers of the first one: batch norms have seen other volumes each."""
    if fabric.world_size > 1:
        for buffer in model.buffers():
            torch.distributed.broadcast(buffer, 0)


def dealt(fabric: Fabric, count: int, name: str) -> Iterator[int]:
    """Yield the numbers below ``count``, each to the process that asks first.

    So no process waits in the end for longer than one piece of work takes.

    Args:
        fabric: of this process.
        count: pieces of work.
        name: of the work, another each time.
    """
    if fabric.world_size == 1:
        yield from range(count)
        return
    everyone = torch.distributed.group.WORLD
    assert everyone is not None
    store = everyone.get_group_store()
    while (number := store.add(f"foldnorm/{name}", 1) - 1) < count:
        yield number


def gathered(fabric: Fabric, made: Mapping[int, Told]) -> dict[int, Told]:
    """Bring what each process has made to the first; the others get nothing.

    Args:
        fabric: of this process.
        made: by the number of the piece of work.
    """
    if fabric.world_size == 1:
        return dict(made)
    parts: list[Mapping[int, Told]] | None = None
    if fabric.is_global_zero:
        parts = [{} for _ in range(fabric.world_size)]
    torch.distributed.gather_object(dict(made), parts)
    return {number: each for part in parts or () for number, each in part.items()}
