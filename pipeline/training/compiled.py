"""Networks that PyTorch compiles (``training.compile``): fewer kernels, each of which does more.

Steps of training are compiled, nothing else: validation and the look at what a training takes see
batches of other sizes, and what they find is not to depend on how the steps are computed.
"""

import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

import torch
from torch import nn

from foldnorm.models.protocols import Trainable, networks_of
from foldnorm.pipeline.runs.options import Compile
from foldnorm.preprocessing.core.errors import InputError


def compile_networks(model: nn.Module, how: Compile, device: torch.device) -> None:
    """Have the networks of a model compiled in place, each when it is first called.

    Names of weights stay, and a copy of the model is not compiled, so that checkpoints, averages
    and exports know nothing of it.

    Args:
        model: on its device.
        how: see `TrainingOptions.compile`.
        device: of the model.

    Raises:
        InputError: no network of the model can be compiled.
        TorchDynamoException: nothing can be compiled on this machine.
    """
    if not how:
        return
    assert isinstance(model, Trainable)
    parts = compiled_parts(model)
    if not parts:
        raise InputError(
            f"training.compile: {type(model).__name__} has nothing to compile: its networks are "
            "rows of PyTorch's own layers, or their gradient is penalised; leave the option out"
        )
    torch.compiler.reset()  # of another training in this process nothing is left to look through
    # At once, not after the run folder is written.
    torch.compile(lambda x: x.sin() + 1, dynamic=False)(torch.zeros(2, device=device))
    mode = "reduce-overhead" if uses_graphs(how, device) else None
    for part in parts.values():
        # A network is called with few shapes, which stay: kernels for any would be slower.
        part.compile(dynamic=False, mode=mode)


def uses_graphs(how: Compile, device: torch.device) -> bool:
    """Say if steps are CUDA graphs, which a CPU knows nothing of."""
    return how == "reduce-overhead" and device.type == "cuda"


def compiled_parts(model: Trainable) -> dict[str, nn.Module]:
    """Return the modules of a model that are compiled, by name: the largest that can be.

    PyTorch cannot differentiate twice what it compiled, so networks whose gradient is penalised
    stay as they are.
    """
    penalised = {
        name
        for phase in model.phases.values()
        if phase.penalises_gradient
        for name in phase.networks
    }
    found: dict[str, nn.Module] = {}
    for name in networks_of(model):
        if name not in penalised:
            found |= _compilable(name, getattr(model, name))
    return found


def _compilable(name: str, part: nn.Module) -> dict[str, nn.Module]:
    """Return a module, or those of its children that PyTorch would compile.

    It passes over modules whose ``forward`` is one of its own, without a word: single layers, and
    `nn.Sequential`. One that has none is not called itself.
    """
    if not type(part).forward.__module__.startswith("torch."):
        return {name: part}
    found: dict[str, nn.Module] = {}
    for own, child in part.named_children():
        found |= _compilable(f"{name}.{own}", child)
    return found


def not_compiled() -> AbstractContextManager[None]:
    """Let compiled networks be called as they are, within a block."""
    return torch.compiler.set_stance("force_eager")


@contextmanager
def compiler_errors_are_said() -> Iterator[None]:
    """Say in one line that networks cannot be compiled, and what that takes.

    Raises:
        InputError: in the place of an error of PyTorch's compiler.
    """
    try:
        yield
    except Exception as error:
        # Not loaded here: that takes a second, and few trainings compile anything.
        compiler = sys.modules.get("torch._dynamo.exc")
        if compiler is None or not isinstance(error, compiler.TorchDynamoException):
            raise
        reason = str(error).strip().splitlines()[0]
        raise InputError(
            f"training.compile: networks cannot be compiled here ({reason}); that takes a C++ "
            "compiler, such as g++, and for a GPU Triton: install them, or leave the option out"
        ) from error
