"""Estimate of the memory that a training needs, a warning if it may not fit, and what it took."""

import logging
import statistics
import sys
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from foldnorm.models.checkpointed import Checkpointed
from foldnorm.models.noise import StepNoise
from foldnorm.models.protocols import Trainable
from foldnorm.pipeline.data.batches import Batches
from foldnorm.pipeline.runs.options import TrainingPrecision
from foldnorm.pipeline.training.arithmetic import mixed
from foldnorm.pipeline.training.compiled import not_compiled
from foldnorm.preprocessing.core.resources import GIB, available_memory

if TYPE_CHECKING:
    from foldnorm.pipeline.training.setup import Training

try:
    import resource
except ModuleNotFoundError:  # Windows has none
    resource = None  # type: ignore[assignment]

LOG = logging.getLogger(__name__)
# What is taken, over what is counted: work space of convolutions, gaps of the allocator.
WORKSPACE_FACTOR = 1.2
MAX_MEMORY_SHARE = 0.9  # of the available memory; a training that takes more is warned of


def saved_tensor_bytes(loss: Callable[[], object], module: nn.Module) -> int:
    """Count the bytes that a loss keeps for its backward pass, weights left out.

    Of blocks that are computed again (`Checkpointed`), what goes into them, and what the largest
    keeps while it is.

    Args:
        loss: computes it, alone or among others.
        module: whose weights are left out.
    """
    weights = {p.untyped_storage().data_ptr() for p in module.parameters()}
    in_bf16 = {p.shape for p in module.parameters()}  # a copy that autocast makes once a step
    kept: dict[int, int] = {}
    alive: list[Tensor] = []  # so that no address is given out twice

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        is_copy = tensor.dtype == torch.bfloat16 and tensor.shape in in_bf16
        if storage.data_ptr() not in weights and not is_copy:
            kept[storage.data_ptr()] = storage.nbytes()
            alive.append(tensor)
        return tensor

    blocks: list[tuple[nn.Module, tuple[Tensor, ...]]] = []

    def note_block(block: Checkpointed, given: tuple[Tensor, ...]) -> None:
        blocks.append((block.block, tuple(note(tensor) for tensor in given)))

    marked = [m for m in module.modules() if isinstance(m, Checkpointed)]
    hooks = [block.register_forward_pre_hook(note_block) for block in marked]
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        loss()
    for hook in hooks:
        hook.remove()
    again = (saved_tensor_bytes(partial(block, *given), block) for block, given in blocks)
    return sum(kept.values()) + max(again, default=0)


def bytes_per_sample(
    model: nn.Module,
    batches: Batches,
    steps: range,
    seed: int,
    device: torch.device,
    precision: TrainingPrecision = "32",
) -> int:
    """Count the bytes that one training volume keeps for the backward pass, at most.

    In the phase that keeps most.

    Nothing of the model or of what it draws is changed.

    Args:
        model: to be trained.
        batches: its training volumes.
        steps: that are to come.
        seed: of the training.
        device: where the model is.
        precision: of the training; bfloat16 takes half as much.
    """
    assert isinstance(model, Trainable)
    training = model.training
    model.eval()
    phases = dict.fromkeys(phase for step in steps for phase in model.phase_order(step))
    found = 0
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        for number, phase in enumerate(phases):
            first = batches.first_of(number)
            volumes = first.volume.to(device)
            condition = None if first.condition is None else first.condition.to(device)
            noise = StepNoise((seed, steps.start, number), len(volumes), device)
            terms = partial(model.loss, phase, volumes, noise, condition)
            with mixed(precision, device):
                found = max(found, saved_tensor_bytes(terms, model))
    model.train(training)
    return found


def needed_bytes(held: float, batch: int, module: nn.Module) -> int:
    """Estimate the bytes of a training: activations, weights, gradients, two moments of Adam."""
    weights = sum(p.numel() * p.element_size() for p in module.parameters())
    return int(WORKSPACE_FACTOR * held * batch) + 4 * weights


def available_bytes(device: torch.device) -> int | None:
    """Return the free memory of a GPU, or of this machine and this job; None if unknown."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return available_memory()


def memory_warning(held: float, batch: int, module: nn.Module, available: int | None) -> str:
    """Return a warning about a training that may not fit into memory; empty if it fits.

    Args:
        held: bytes that one volume keeps for the backward pass.
        batch: volumes of this process.
        module: the model.
        available: bytes that are free; None if unknown.
    """
    needed = needed_bytes(held, batch, module)
    if available is None or needed <= MAX_MEMORY_SHARE * available:
        return ""
    alone = needed_bytes(held, 1, module)
    fits = int(
        (MAX_MEMORY_SHARE * available - needed_bytes(0, 0, module))
        / (WORKSPACE_FACTOR * max(held, 1))
    )
    if fits >= 1:
        advice = f"--training.batch_size {fits} would fit"
    else:
        advice = (
            f"one volume alone takes {alone / GIB:.1f} GiB: smaller volumes, fewer channels, or "
            "--training.precision bf16 on a GPU"
        )
    if getattr(module, "checkpointing", None) is False:
        advice += "; --model.init_args.checkpointing true takes less, and more time"
    return (
        f"training takes about {needed / GIB:.1f} GiB ({held / GIB:.2f} GiB a volume, "
        f"{batch} at once), and {available / GIB:.1f} GiB are free; {advice}"
    )


def warn_of_memory(training: "Training") -> None:
    """Warn before the first step if the training may not fit into memory."""
    model, batches, options = training.model, training.batches, training.options
    device = training.fabric.device
    steps = range(training.state.step, options.steps)
    with not_compiled():
        held = bytes_per_sample(model, batches, steps, options.seed, device, options.precision)
    warning = memory_warning(held, batches.local_batch_size, model, available_bytes(device))
    if warning:
        LOG.warning(warning)


def peak_memory() -> float:
    """Return the most memory that this process has held, in MiB; NaN where nobody counts it."""
    if resource is None:
        return float("nan")
    unit = 2**20 if sys.platform == "darwin" else 2**10  # bytes there, KiB on Linux
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def cost_of(training: "Training") -> dict[str, float]:
    """Return the cost of a run: parameters, pace, peak memory of this process or of its GPU."""
    device = training.fabric.device
    if device.type == "cuda":
        peak = torch.cuda.max_memory_allocated(device) / 2**20
    else:
        peak = peak_memory()
    pace = statistics.median(training.paces) if training.paces else float("nan")
    return {
        "parameters": sum(p.numel() for p in training.model.parameters()),
        "seconds_per_step": round(pace, 6),
        "seconds": round(training.state.seconds, 2),
        "peak_memory_mib": round(peak, 1),
    }
