"""A limit on the weights of a network, kept while it is built.

A network's sizes may come from anyone: memory that is only asked for costs nothing, so what is
counted is counted before a weight is written.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn
from torch.nn.modules.module import (
    register_module_buffer_registration_hook,
    register_module_parameter_registration_hook,
)

from foldnorm.models.grids import ShapeError

GIB = 2**30


@contextmanager
def limited_weights(limit: int | None) -> Iterator[None]:
    """Refuse a network whose weights and buffers take more bytes than the limit, if there is one.

    Raises:
        ShapeError: inside the block, with both.
    """
    held = 0

    def count(module: nn.Module, name: str, tensor: Tensor | None) -> None:
        nonlocal held
        if tensor is not None and not tensor.is_meta:  # those have sizes, and no memory
            held += tensor.numel() * tensor.element_size()
        if limit is not None and held > limit:
            raise ShapeError(
                f"the network has more weights than memory: {held / GIB:.1f} GiB up to {name} of "
                f"{type(module).__name__}, and {limit / GIB:.1f} GiB are free"
            )

    hooks = (
        register_module_parameter_registration_hook(count),
        register_module_buffer_registration_hook(count),
    )
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
