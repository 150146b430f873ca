"""Tensors of the simulated device, and what CUDA would say to operators on them.

See `simulated_cuda`, which is installed before this is imported.
"""

import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
import torch._dynamo  # looks at `torch.cuda` once, before that is replaced
from torch import Tensor
from torch.optim import optimizer as optimizers
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

aten = torch.ops.aten
GPU = torch.device("cuda", 0)
CPU = torch.device("cpu")
MEMORY = 16 << 30  # bytes that the device says it has
HERE = Path(__file__).parent

# Their result, or its shape, is waited for by Python.
WAITING = {
    aten._local_scalar_dense, aten.nonzero, aten.masked_select, aten.equal, aten._unique2,
    aten.unique_dim, aten.unique_consecutive, aten.bincount, aten.repeat_interleave,
}  # fmt: skip
CONVOLUTION_BACKWARD = aten.convolution_backward.default
INDEXED = {aten.index, aten.index_put, aten.index_put_, aten._unsafe_index}
# Take a tensor without axes from the CPU, as operators on single elements do.
TAKE_SCALARS = {aten.index_put, aten.index_put_, aten.where, aten.fill_, aten.masked_fill,
                aten.masked_fill_, aten.clamp, aten.clamp_min, aten.clamp_max}  # fmt: skip


class MixedDevicesError(RuntimeError):
    """An operator was given tensors of two devices, or a generator of the other one."""


@dataclass
class Traffic:
    """Waits for the device and copies to and from it, by the line that made them."""

    waits: Counter[str] = field(default_factory=Counter)
    copies: Counter[str] = field(default_factory=Counter)

    def since(self, before: "Traffic") -> "Traffic":
        """Return what came after another moment."""
        return Traffic(self.waits - before.waits, self.copies - before.copies)

    def copy(self) -> "Traffic":
        """Return it as it is now."""
        return Traffic(self.waits.copy(), self.copies.copy())


TRAFFIC = Traffic()


def dispatched(
    owner: Any,
    func: Any,
    types: Sequence[type],
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
) -> Any:
    """Compute an operator that PyTorch hands to a tensor of the device, or to a simulation."""
    del owner, types
    return run(func, args, dict(kwargs or {}))


class GPUTensor(Tensor):
    """A tensor that says it is on the GPU."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> "GPUTensor":
        """Wrap a tensor of the CPU."""
        own: GPUTensor = Tensor._make_wrapper_subclass(
            cls, held.shape, strides=held.stride(), storage_offset=held.storage_offset(),
            dtype=held.dtype, layout=held.layout, device=GPU, requires_grad=False,
        )  # fmt: skip
        own.held = held
        return own

    __torch_function__ = torch._C._disabled_torch_function_impl

    __torch_dispatch__ = classmethod(dispatched)

    def untyped_storage(self) -> Any:
        """Return where its data are."""
        return self.held.untyped_storage()

    def data_ptr(self) -> int:
        """Return the address of its data."""
        return self.held.data_ptr()

    def tolist(self) -> Any:
        """Bring it to the CPU, and return its numbers."""
        return self.cpu().tolist()

    def numpy(self, *, force: bool = False) -> Any:
        """Refuse, as CUDA does, unless forced."""
        if not force:
            raise TypeError("can't convert cuda:0 device type tensor to numpy")
        return self.detach().cpu().numpy()

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        if id(self) not in memo:
            with torch.no_grad():
                memo[id(self)] = self.clone().requires_grad_(self.requires_grad)
        if isinstance(self, torch.nn.Parameter):
            memo[id(self)] = torch.nn.Parameter(memo[id(self)].detach(), self.requires_grad)
        found: Tensor = memo[id(self)]
        return found

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Pickle as what a run reads: a tensor of the CPU."""
        return self.detach().cpu().__reduce_ex__(protocol)

    def __repr__(self, *, tensor_contents: Any = None) -> str:
        del tensor_contents
        return f"GPUTensor({self.held})"


class Simulation(TorchDispatchMode):
    """Computes operators of tensors that are on the GPU, and makes tensors there."""

    __torch_dispatch__ = dispatched

    def __enter__(self) -> "Simulation":
        self._patches = _patched()
        self._patches.__enter__()
        return super().__enter__()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        super().__exit__(kind, error, trace)
        self._patches.__exit__(kind, error, trace)


def run(func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    """Compute an operator on the CPU, if CUDA would compute it, and count what it costs."""
    given = [t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
    on_gpu = [t for t in given if isinstance(t, GPUTensor)]
    asked = kwargs.get("device")
    device = torch.device(asked) if asked is not None else GPU if on_gpu else CPU
    packet = func.overloadpacket
    if packet in (aten._to_copy, aten.copy_):
        _copy(func, given, device, args, kwargs)
    else:
        _check(func, packet, given, on_gpu, args)
        if on_gpu and (packet in WAITING or _has_mask(packet, args)):
            _note(TRAFFIC.waits)
    if not on_gpu and device.type == "cpu":
        return func(*args, **kwargs)
    return _compute(func, device, args, kwargs)


def _compute(func: Any, device: torch.device, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    if asked := "device" in kwargs and kwargs["device"] is not None:
        kwargs["device"] = CPU
    if kwargs.get("pin_memory"):
        kwargs["pin_memory"] = False
    known: dict[int, Tensor] = {}

    def inner(value: Any) -> Any:
        if isinstance(value, GPUTensor):
            known[id(value.held)] = value
            return value.held
        return value

    args, kwargs = tree_map(inner, tuple(args)), tree_map(inner, kwargs)
    with _generator_of(kwargs, device):
        made = _convolved(func, args) if func is CONVOLUTION_BACKWARD else func(*args, **kwargs)
    if asked and device.type == "cpu":
        return made
    kept = {id(t) for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)}

    def outer(value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        if id(value) in known:
            return known[id(value)]
        return value if id(value) in kept else GPUTensor(value)

    return tree_map(outer, made)


def _convolved(func: Any, args: Any) -> Any:
    """Gradients of a convolution: a CPU's in bfloat16 are wrong (`foldnorm.models.small_maps`)."""
    kind = args[0].dtype
    if kind != torch.bfloat16:
        return func(*args)
    wide = tree_map(lambda v: v.float() if isinstance(v, Tensor) else v, args)
    return tree_map(lambda v: v.to(kind) if isinstance(v, Tensor) else v, func(*wide))


@contextmanager
def _generator_of(kwargs: dict[str, Any], device: torch.device) -> Iterator[None]:
    """Let a generator of the GPU draw on the CPU; one of the wrong device is refused."""
    generator = kwargs.get("generator")
    if generator is None:
        yield
        return
    if generator.device.type != device.type:
        raise MixedDevicesError(
            f"Expected a '{device.type}' device type for generator but found "
            f"'{generator.device.type}'"
        )
    own = torch.Generator()
    own.set_state(generator.get_state())
    kwargs["generator"] = own
    yield
    generator.set_state(own.get_state())


def _copy(
    func: Any,
    given: Sequence[Tensor],
    device: torch.device,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
) -> None:
    """Count a copy between devices, and whether it is waited for."""
    if func.overloadpacket is aten.copy_:
        target, source = given[0], given[1]
        goes, non_blocking = target.device.type, args[2] if len(args) > 2 else False
    else:
        target, source, goes = None, given[0], device.type
        non_blocking = False
    non_blocking = kwargs.get("non_blocking", non_blocking)
    if source.device.type == goes:
        return
    _note(TRAFFIC.copies)
    # What is made by a copy to the CPU that does not block is pinned by PyTorch.
    on_cpu = target if goes == "cpu" else source
    if not non_blocking or (on_cpu is not None and not on_cpu.is_pinned()):
        _note(TRAFFIC.waits)


def _check(
    func: Any,
    packet: Any,
    given: Sequence[Tensor],
    on_gpu: Sequence[Tensor],
    args: Sequence[Any],
) -> None:
    """Refuse tensors of two devices where CUDA does."""
    others = [t for t in given if not isinstance(t, GPUTensor)]
    if not on_gpu or not others:
        return
    if packet in INDEXED and isinstance(args[0], GPUTensor):
        indices = [i for i in args[1] if isinstance(i, Tensor) and not isinstance(i, GPUTensor)]
        for _ in indices:
            _note(TRAFFIC.copies)
            _note(TRAFFIC.waits)
        others = [t for t in others if all(t is not i for i in indices)]
    name = func.name()
    takes = packet in TAKE_SCALARS or torch.Tag.pointwise in func.tags or "_foreach_" in name
    first = args[0] if args and isinstance(args[0], Tensor) else None
    in_place = str(packet).endswith("_") and first is not None and not isinstance(first, GPUTensor)
    if others and (in_place or not (takes and all(t.ndim == 0 for t in others))):
        shapes = [tuple(t.shape) for t in others]
        raise MixedDevicesError(
            "Expected all tensors to be on the same device, but found at least two devices, "
            f"cuda:0 and cpu! ({name}, of {shapes} on the CPU)"
        )


def _has_mask(packet: Any, args: Sequence[Any]) -> bool:
    return packet in INDEXED and any(
        isinstance(i, GPUTensor) and i.dtype in (torch.bool, torch.uint8) for i in args[1]
    )


def _note(counts: Counter[str]) -> None:
    """Count for the innermost line that is neither PyTorch's nor this module's."""
    frame: Any = sys._getframe(1)
    while frame is not None:
        path = Path(frame.f_code.co_filename)
        if "site-packages" not in path.parts and path.name != Path(__file__).name:
            counts[f"{path.parent.name}/{path.name}:{frame.f_lineno}"] += 1
            return
        frame = frame.f_back
    counts["backward"] += 1


def _waited(*given: Any, **named: Any) -> None:
    del given, named
    _note(TRAFFIC.waits)


def _nothing(*given: Any, **named: Any) -> None:
    del given, named


REPLACED: dict[str, Callable[..., Any]] = {
    "is_available": lambda: True,
    "is_initialized": lambda: True,
    "device_count": lambda: 1,
    "current_device": lambda: 0,
    "get_device_name": lambda device=None: "simulated GPU",
    "get_device_capability": lambda device=None: (9, 0),
    "is_bf16_supported": lambda including_emulation=True: True,
    "mem_get_info": lambda device=None: (MEMORY, MEMORY),
    "max_memory_allocated": lambda device=None: 0,
    "get_rng_state": lambda device=None: torch.get_rng_state(),
    "set_rng_state": lambda state, device=None: torch.set_rng_state(state),
    "synchronize": _waited,
    **dict.fromkeys(
        ("_lazy_init", "init", "set_device", "empty_cache", "reset_peak_memory_stats",
         "manual_seed", "manual_seed_all"), _nothing,
    ),
}  # fmt: skip


@contextmanager
def _patched() -> Iterator[None]:
    """Let `torch.cuda` speak of the simulated device."""
    before = {name: getattr(torch.cuda, name) for name in REPLACED}
    for name, function in REPLACED.items():
        setattr(torch.cuda, name, function)
    optimizers._foreach_supported_types.append(GPUTensor)
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    torch._C._set_only_lift_cpu_tensors(True)  # so that `torch.tensor` copies where it is seen
    try:
        yield
    finally:
        for name, function in before.items():
            setattr(torch.cuda, name, function)
        optimizers._foreach_supported_types.remove(GPUTensor)
        torch.__future__.set_overwrite_module_params_on_conversion(False)
        torch._C._set_only_lift_cpu_tensors(False)
