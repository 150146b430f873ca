"""Holes in images filled in smoothly, a whole batch at once."""

import torch
import torch.nn.functional as F
from torch import Tensor

N_ITERATIONS = 30  # of conjugate gradients: enough for strokes of some ten pixels


@torch.no_grad()
def biharmonic_fill(images: Tensor, holes: Tensor, iterations: int = N_ITERATIONS) -> Tensor:
    """Images whose holes hold what bends least: Δ²u = 0 there (Damelin & Hoang 2018).

    That is the least sum of squares of the Laplacian, found by conjugate gradients from a guess of
    means; wide holes keep something of that guess. It passes no gradient.

    Args:
        images: (B, *sides) float32, 2-D or 3-D.
        holes: (B, *sides) bool; what lies there is not looked at.
        iterations: of conjugate gradients.

    Returns:
        (B, *sides) float32, as given outside of holes.
    """
    inside = holes.unsqueeze(1).float()
    filled = _guess(images.unsqueeze(1) * (1 - inside), 1 - inside)
    residual = -inside * _laplacian(_laplacian(filled))
    direction, size = residual, _dot(residual, residual)
    for _ in range(iterations):
        bent = inside * _laplacian(_laplacian(direction))
        step = size / _dot(direction, bent).clamp(min=1e-12)
        filled = filled + step * direction
        residual = residual - step * bent
        before, size = size, _dot(residual, residual)
        direction = residual + size / before.clamp(min=1e-12) * direction
    return filled.squeeze(1)


def _guess(known: Tensor, weight: Tensor) -> Tensor:
    """Holes filled with means of ever larger blocks (Gortler et al. 1996, pull-push).

    Args:
        known: (B, 1, *sides), 0 in holes.
        weight: (B, 1, *sides), share of each pixel that is known.
    """
    if max(known.shape[2:]) == 1:
        return known / weight.clamp(min=1e-6)
    means = F.avg_pool2d if known.ndim == 4 else F.avg_pool3d
    block = [min(2, side) for side in known.shape[2:]]
    coarse = _guess(means(known, block, ceil_mode=True), means(weight, block, ceil_mode=True))
    wide = F.interpolate(coarse, size=known.shape[2:], mode="nearest")
    return torch.where(weight > 0, known / weight.clamp(min=1e-6), wide)


def _laplacian(u: Tensor) -> Tensor:
    """Sum of differences from the 2 · dims neighbours; beyond the border lies the border again."""
    dims = u.ndim - 2
    padded = F.pad(u, [1, 1] * dims, mode="replicate")
    found = -2 * dims * u
    for axis in range(2, 2 + dims):
        inner = padded
        for other in range(2, 2 + dims):
            if other != axis:
                inner = inner.narrow(other, 1, u.shape[other])
        found = found + inner.narrow(axis, 0, u.shape[axis])
        found = found + inner.narrow(axis, 2, u.shape[axis])
    return found


def _dot(a: Tensor, b: Tensor) -> Tensor:
    """Scalar product of each image, (B, 1, *1)."""
    return (a * b).flatten(1).sum(1).view(-1, *[1] * (a.ndim - 1))
