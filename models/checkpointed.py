"""Blocks that are computed twice, so that less of them is kept."""

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from foldnorm.models.small_maps import first_and_again


class Checkpointed(nn.Module):
    """A block that is computed again in the backward pass (Chen et al. 2016, arXiv:1604.06174).

    Between the passes only what goes into it is kept.

    Args:
        block: of a network.
    """

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.block = block

    def forward(self, *given: Tensor) -> Tensor:
        """As the block itself."""
        if not torch.is_grad_enabled():
            return self.block(*given)
        if torch.compiler.is_compiling():
            # What is compiled is computed again by the same kernels; of contexts the compiler would
            # have to be told what to keep in each.
            return checkpoint(self.block, *given, use_reentrant=False)
        return checkpoint(self.block, *given, use_reentrant=False, context_fn=first_and_again)
