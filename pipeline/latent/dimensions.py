"""What each dimension of a code is worth, and what it moves.

The study ranks dimensions by |loss(z ± step · e_i) − loss(z)|, averaged over brains. Here all
dimensions of a brain go through the decoder in batches, and the encoder once.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from foldnorm.models.losses import class_cross_entropy
from foldnorm.pipeline.latent.space import LatentSpace
from foldnorm.pipeline.latent_use import ACTIVE_VARIANCE

STEP = 0.5  # of the study; in standard deviations of the prior
BATCH = 16  # codes decoded at a time


@dataclass(frozen=True)
class Ranking:
    """The dimensions that were looked at, in the order of the code.

    Attributes:
        dimensions: (n,) which ones.
        effect: (n,) mean over brains and both signs of |loss(z ± step · e_i) − loss(z)|, nats a
            voxel.
        variance: (n,) of the codes over brains; above 0.01 a dimension is active.
    """

    dimensions: NDArray[np.int64]
    effect: NDArray[np.float64]
    variance: NDArray[np.float64]

    @property
    def order(self) -> NDArray[np.int64]:
        """Places in ``dimensions``, the largest effect first."""
        return np.argsort(-self.effect, kind="stable")

    @property
    def active_share(self) -> float:
        """Share of the dimensions that vary from brain to brain."""
        return float((self.variance > ACTIVE_VARIANCE).mean())


def rank_dimensions(
    space: LatentSpace,
    dimensions: NDArray[np.int64],
    *,
    brains: int,
    step: float = STEP,
    batch: int = BATCH,
) -> Ranking:
    """Rank dimensions by what a step along them does to the reconstruction loss.

    Args:
        space: the brains.
        dimensions: (n,) to look at.
        brains: how many of the space's, evenly spread.
        step: in both directions.
        batch: codes decoded at a time.
    """
    places = np.unique(np.linspace(0, len(space.codes) - 1, brains).round().astype(np.int64))
    effect = np.zeros(len(dimensions))
    for place in places:
        losses = np.concatenate(
            [part.cpu().numpy() for part in _losses(space, int(place), dimensions, step, batch)]
        )
        base, moved = losses[0], losses[1:].reshape(2, len(dimensions))
        effect += np.abs(moved - base).mean(axis=0) / len(places)
    return Ranking(dimensions, effect, space.codes[:, dimensions].var(axis=0))


def voxels_moved(space: LatentSpace, dimension: int, *, brains: int, step: float = STEP) -> Tensor:
    """Which voxels a dimension moves: mean over brains of how much class probabilities change.

    Returns:
        (I, J, K): half the sum over classes of |p(z + step · e_i) − p(z − step · e_i)|, between 0
        and 1: the share of the class that changes hands.
    """
    places = np.unique(np.linspace(0, len(space.codes) - 1, brains).round().astype(np.int64))
    total: Tensor | None = None
    for place in places:
        ends = np.repeat(space.codes[None, place], 2, axis=0)
        ends[:, dimension] += step * np.array([1, -1])
        up, down = (torch.from_numpy(p) for p in space.decode(ends, space.rows[place]))
        change = (up - down).abs().sum(dim=0) / 2
        total = change if total is None else total + change
    assert total is not None
    return total / len(places)


def sweep(space: LatentSpace, dimension: int, steps: int) -> NDArray[np.float64]:
    """Mean code with one dimension going between its observed extremes, (steps, d)."""
    codes = np.repeat(space.codes.mean(axis=0, keepdims=True), steps, axis=0)
    own = space.codes[:, dimension]
    codes[:, dimension] = np.linspace(own.min(), own.max(), steps)
    return codes


@torch.no_grad()
def _losses(
    space: LatentSpace, place: int, dimensions: NDArray[np.int64], step: float, batch: int
) -> Iterator[Tensor]:
    """Losses of one brain: its own code's, then those of steps up, then of steps down."""
    trained, model = space.trained, space.trained.encodes
    (brain,) = space.cohort.brains(space.indices[[place]])
    volume = torch.from_numpy(brain.volume)[None].to(trained.device)
    code = torch.from_numpy(space.codes[place].astype(np.float32)).to(trained.device)
    told = trained.condition([brain.row])

    def losses(codes: Tensor) -> Tensor:
        own = None if told is None else told.expand(len(codes), -1)
        logits = model.decode(codes, own).float()
        return class_cross_entropy(logits, volume.expand(len(codes), *volume.shape[1:]))

    yield losses(code[None])
    moved = torch.from_numpy(dimensions).to(trained.device)
    for sign in (1, -1):
        for chosen in moved.split(batch):
            codes = code.repeat(len(chosen), 1)
            codes[torch.arange(len(chosen)), chosen] += sign * step
            yield losses(codes)
