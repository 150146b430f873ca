"""A transformer that reads a sequence from its beginning, at once or step by step."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass
class KeyValueCache:
    """Keys and values of the steps that a layer has read, so that none is computed twice.

    Attributes:
        keys: (B, heads, most steps, width of a head); what lies behind ``length`` means nothing.
        values: likewise.
        length: steps that were read.
    """

    keys: Tensor
    values: Tensor
    length: int = 0

    def extended(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Add those of new steps, (B, heads, steps, width of a head), and return those of all."""
        end = self.length + keys.shape[2]
        self.keys[:, :, self.length : end] = keys
        self.values[:, :, self.length : end] = values
        self.length = end
        return self.keys[:, :, :end], self.values[:, :, :end]


class CausalTransformer(nn.Module):
    """Layers of attention to what came before, each with two dense layers behind it.

    MONAI's `DecoderOnlyTransformer` has no cache: to draw a sequence of n it reads n²/2 steps.

    Args:
        width: of a step.
        depth: layers.
        heads: of the attention; they divide the width.

    Source:
        Vaswani et al. 2017 (arXiv:1706.03762); norms first, as Radford et al. 2019.
    """

    def __init__(self, width: int, depth: int, heads: int) -> None:
        super().__init__()
        if depth < 1 or width % heads:
            raise ValueError(
                f"transformer: expected a layer or more and a width that {heads} heads divide, got "
                f"{depth} and {width}"
            )
        self.width, self.heads = width, heads
        self.layers = nn.ModuleList(_Layer(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width)

    def forward(
        self,
        x: Tensor,
        caches: list[KeyValueCache] | None = None,
        told: Tensor | None = None,
    ) -> Tensor:
        """(B, steps, width) → likewise; each step has seen itself and those before it.

        Args:
            x: the whole sequence; or with caches the steps that come next: many of them where
                nothing was read yet, else one.
            caches: of each layer, see `caches`.
            told: (B,) int64, the step from which on each sees itself and those before that step,
                but none of the others from there on; None: no such step.
        """
        mask = None if told is None else seen_by(x.shape[1], told)
        for n, layer in enumerate(self.layers):
            x = layer(x, None if caches is None else caches[n], mask)
        return self.norm(x)

    def caches(self, batch: int, steps: int) -> list[KeyValueCache]:
        """Make empty caches of all layers for sequences of so many steps."""
        like = self.norm.weight
        sides = (batch, self.heads, steps, self.width // self.heads)
        return [KeyValueCache(like.new_empty(sides), like.new_empty(sides)) for _ in self.layers]


class _Layer(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        self.to_qkv = nn.Linear(width, 3 * width, bias=False)
        self.to_out = nn.Linear(width, width)
        self.dense = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )

    def forward(self, x: Tensor, cache: KeyValueCache | None, mask: Tensor | None) -> Tensor:
        qkv = self.to_qkv(self.norms[0](x)).unflatten(2, (3, self.heads, -1))
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # (B, heads, steps, width of a head) each
        is_start = cache is None or not cache.length
        if cache is not None:
            if not is_start and x.shape[1] > 1:
                raise ValueError(f"after the first steps one at a time, got {x.shape[1]}")
            k, v = cache.extended(k, v)
        is_causal = is_start and mask is None
        seen = F.scaled_dot_product_attention(q, k, v, mask, is_causal=is_causal)
        x = x + self.to_out(seen.transpose(1, 2).flatten(2))
        return x + self.dense(self.norms[1](x))


def seen_by(steps: int, told: Tensor) -> Tensor:
    """Mark the steps that each step sees, (B, 1, steps, steps); ``told`` as of the transformer."""
    step = torch.arange(steps, device=told.device)
    before = step < torch.minimum(step, told[:, None])[..., None]
    return (before | (step == step[:, None])).unsqueeze(1)


def axial_waves(grid: tuple[int, ...], width: int) -> Tensor:
    """Sines and cosines of each place's coordinates, (places, width), of length about 1 each.

    Where learned positions start, so that places near each other are alike from the beginning.
    """
    axes = torch.meshgrid(*[torch.arange(side) / max(grid) for side in grid], indexing="ij")
    where = torch.stack(axes, dim=-1).flatten(0, -2)  # (places, dims)
    octaves = torch.arange(-(-width // (2 * len(grid))))
    angles = where[:, :, None] * torch.pi * 2.0 ** (octaves / 2)  # (places, dims, octaves)
    waves = torch.cat([angles.sin(), angles.cos()], dim=-1).flatten(1)[:, :width]
    return waves / width**0.5
