"""Convolutions of small maps in float32, where a CPU's gradients in bfloat16 are wrong.

PyTorch's convolutions on CPUs are oneDNN's. Its weight gradients in bfloat16 (seen with oneDNN 3.12
and PyTorch 2.13 on a CPU with ``avx512_bf16``, whatever the layout and the number of threads) are
wrong where the padding before and behind a map meets under one place of the kernel, or nearly: what
is read lies beside the map. They hold what the memory held, differ from run to run and need not be
finite; with wide kernels memory beside the gradient is overwritten too. Values and gradients of the
input are right. So small maps go the way of float32, which costs next to nothing.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

TRANSPOSED = (F.conv_transpose2d, F.conv_transpose3d)
CONVOLUTIONS = (F.conv2d, F.conv3d, *TRANSPOSED)

IN_FORCE = ContextVar("small maps are computed in float32", default=False)


@contextmanager
def small_maps_in_float32(device: torch.device) -> Iterator[None]:
    """Compute convolutions of small maps in float32 where autocast asks for bfloat16, on a CPU.

    A map is small for a kernel if one of its sides is shorter than kernel + stride − 1; for a
    transposed convolution, what comes out is the map.
    """
    if device.type != "cpu":
        yield
        return
    token = IN_FORCE.set(True)
    try:
        with _SmallMapsInFloat32():
            yield
    finally:
        IN_FORCE.reset(token)


def first_and_again() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """Contexts in which a block is computed now, and again in the backward pass, which is outside.

    See ``context_fn`` of ``torch.utils.checkpoint.checkpoint``.
    """
    again = small_maps_in_float32(torch.device("cpu")) if IN_FORCE.get() else nullcontext()
    return nullcontext(), again


class _SmallMapsInFloat32(TorchFunctionMode):
    """Looks at each convolution before it is computed."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: Sequence[Any] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        del types
        kwargs = kwargs or {}
        is_asked = func in CONVOLUTIONS and torch.is_autocast_enabled("cpu")
        if not is_asked or not _is_small(func in TRANSPOSED, *args, **kwargs):
            return func(*args, **kwargs)
        with torch.autocast("cpu", enabled=False):
            return func(
                *[_in_float32(value) for value in args],
                **{name: _in_float32(value) for name, value in kwargs.items()},
            )


def _is_small(
    transposed: bool,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: str | int | Sequence[int] = 0,
    *_: Any,
    **__: Any,
) -> bool:
    """Say if a side of a map is too short; arguments as of ``torch.conv3d``."""
    del bias
    kernel = weight.shape[2:]
    sides = input.shape[-len(kernel) :]
    steps = _of_each_axis(stride, len(kernel))
    if transposed:
        assert not isinstance(padding, str)
        borders = _of_each_axis(padding, len(kernel))
        sides = torch.Size(
            (side - 1) * step - 2 * border + size
            for side, step, border, size in zip(sides, steps, borders, kernel, strict=True)
        )
    return any(
        side < size + step - 1 for side, size, step in zip(sides, kernel, steps, strict=True)
    )


def _of_each_axis(value: int | Sequence[int], dims: int) -> Sequence[int]:
    values = [value] if isinstance(value, int) else list(value)
    return values * dims if len(values) == 1 else values


def _in_float32(value: Any) -> Any:
    return value.float() if isinstance(value, Tensor) else value
