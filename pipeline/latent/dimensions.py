"""Effect of each dimension of a code on the reconstruction, and the voxels that it changes.

The study ranks dimensions by |loss(z ± step · e_i) − loss(z)|, averaged over brains, which takes
two passes through the decoder a brain and dimension. A code that is a map has ten thousand
dimensions and more: there, effects are first predicted from gradient and curvature of the loss,
which costs a few passes a brain, and the largest of them are then measured.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import spearmanr
from torch import Tensor

from foldnorm.models.losses import class_cross_entropy
from foldnorm.pipeline.latent.space import LatentSpace
from foldnorm.pipeline.metrics.latent import ACTIVE_VARIANCE

STEP = 0.5  # of the study; in standard deviations of the prior
BATCH = 4  # codes decoded at a time; more do not fit the caches of a CPU
BATCH_GPU = 64
N_DRAWS = 2  # of labels a brain, from which the curvature is estimated


@dataclass(frozen=True)
class Ranking:
    """Effects and variances of the dimensions of a code, (d,) each.

    Attributes:
        predicted_effect: effect that `predict_effects` expects, nats a voxel.
        effect: mean over brains and both signs of |loss(z ± step · e_i) − loss(z)|, nats a voxel;
            NaN where it was not measured.
        variance: of the codes over brains; above 0.01 a dimension is active.
    """

    predicted_effect: NDArray[np.float64]
    effect: NDArray[np.float64]
    variance: NDArray[np.float64]

    @property
    def order(self) -> NDArray[np.int64]:
        """Dimensions: those that were measured, the largest effect first, then as predicted."""
        measured = ~np.isnan(self.effect)
        worth = np.where(measured, self.effect, self.predicted_effect)
        return np.lexsort((-worth, ~measured))

    @property
    def active_share(self) -> float:
        """Share of the dimensions that vary from brain to brain."""
        return float((self.variance > ACTIVE_VARIANCE).mean())

    @property
    def agreement(self) -> float:
        """Spearman's correlation of predicted and measured effects; NaN for less than three."""
        measured = ~np.isnan(self.effect)
        if measured.sum() < 3:
            return float("nan")
        return float(spearmanr(self.predicted_effect[measured], self.effect[measured]).statistic)


def rank_dimensions(
    space: LatentSpace, *, measured: int, brains: int, step: float = STEP, seed: int = 0
) -> Ranking:
    """Rank all dimensions by what a step along them does to the reconstruction loss.

    Args:
        space: the brains.
        measured: number of dimensions to measure, those with the largest predicted effects.
        brains: how many of the space's to rank by, evenly spread.
        step: in both directions.
        seed: of the labels that are drawn.
    """
    predicted_effect = predict_effects(space, brains=brains, step=step, seed=seed)
    first = np.sort(np.argsort(-predicted_effect, kind="stable")[:measured])
    effect = np.full(len(predicted_effect), np.nan)
    effect[first] = measure_effects(space, first, brains=brains, step=step)
    return Ranking(predicted_effect, effect, space.codes.var(axis=0))


def measure_effects(
    space: LatentSpace, dimensions: NDArray[np.int64], *, brains: int, step: float = STEP
) -> NDArray[np.float64]:
    """Mean over brains and both signs of |loss(z ± step · e_i) − loss(z)|, nats a voxel.

    Args:
        space: the brains.
        dimensions: (n,) to look at.
        brains: how many of the space's, evenly spread.
        step: in both directions.

    Returns:
        (n,).
    """
    indices = space.evenly_spaced(brains)
    effect = np.zeros(len(dimensions))
    for index in indices:
        losses = np.concatenate(
            [part.cpu().numpy() for part in _losses(space, index, dimensions, step)]
        )
        base, moved = losses[0], losses[1:].reshape(2, len(dimensions))
        effect += np.abs(moved - base).mean(axis=0) / len(indices)
    return effect


def predict_effects(
    space: LatentSpace, *, brains: int, step: float = STEP, draws: int = N_DRAWS, seed: int = 0
) -> NDArray[np.float64]:
    """Estimate `measure_effects` from the gradient g and curvature h of the loss at each code.

    The mean over both signs of |± step · g + step² h / 2| is the larger of the two terms. Of the
    curvature, the diagonal of the Gauss–Newton matrix is taken, which for a cross entropy is the
    Fisher information: the mean square of the gradient for labels drawn from the model itself
    (Martens 2020, arXiv:1412.1193, sections 5 and 9), averaged over brains.

    Args:
        space: the brains.
        brains: how many of the space's, evenly spread.
        step: in both directions.
        draws: of labels a brain.
        seed: of these.

    Returns:
        (d,), nats a voxel.
    """
    indices = space.evenly_spaced(brains)
    generator = torch.Generator().manual_seed(seed)
    slopes = np.zeros((len(indices), space.codes.shape[1]))
    curvature = np.zeros(space.codes.shape[1])
    for b, index in enumerate(indices):
        volume, code, told = _brain(space, index)
        code = code[None].requires_grad_()
        with space.trained.computing(), torch.enable_grad():
            logits = space.trained.decodes.decode(code, told).float()
            voxels = volume[0].numel()
            (own,) = torch.autograd.grad(
                class_cross_entropy(logits, volume).sum(), code, retain_graph=True
            )
            slopes[b] = own[0].abs().double().cpu().numpy()
            for n in range(draws):
                drawn = _draw(logits.detach(), generator)
                (other,) = torch.autograd.grad(
                    class_cross_entropy(logits, drawn).sum() * voxels,
                    code,
                    retain_graph=n + 1 < draws,
                )
                squares = other[0].double().square().cpu().numpy()
                curvature += squares / voxels / (draws * len(indices))
    return np.maximum(step * slopes, step**2 / 2 * curvature).mean(axis=0)


def voxels_moved(space: LatentSpace, dimension: int, *, brains: int, step: float = STEP) -> Tensor:
    """Compute how much a dimension changes the class probabilities of voxels, mean over brains.

    Returns:
        (I, J, K): half the sum over classes of |p(z + step · e_i) − p(z − step · e_i)|, between 0
        and 1: the share of the class that changes hands.
    """
    indices = space.evenly_spaced(brains)
    total: Tensor | None = None
    for index in indices:
        ends = np.repeat(space.codes[None, index], 2, axis=0)
        ends[:, dimension] += step * np.array([1, -1])
        up, down = (torch.from_numpy(p) for p in space.decode(ends, space.rows[index]))
        change = (up - down).abs().sum(dim=0) / 2
        total = change if total is None else total + change
    assert total is not None
    return total / len(indices)


def sweep(space: LatentSpace, dimension: int, steps: int) -> NDArray[np.float64]:
    """Mean code with one dimension going between its observed extremes, (steps, d)."""
    codes = np.repeat(space.codes.mean(axis=0, keepdims=True), steps, axis=0)
    own = space.codes[:, dimension]
    codes[:, dimension] = np.linspace(own.min(), own.max(), steps)
    return codes


@torch.no_grad()
def _losses(
    space: LatentSpace, index: int, dimensions: NDArray[np.int64], step: float
) -> Iterator[Tensor]:
    """Losses of one brain: its own code's, then those of steps up, then of steps down."""
    volume, code, told = _brain(space, index)
    batch = BATCH_GPU if space.trained.device.type == "cuda" else BATCH

    def losses(codes: Tensor) -> Tensor:
        own = None if told is None else told.expand(len(codes), -1)
        with space.trained.computing():
            logits = space.trained.decodes.decode(codes, own).float().flatten(2)
        # The cross entropy of each volume in two thirds of the time of torch's, which counts beside
        # a decoder of 20 ms.
        likely = torch.log_softmax(logits, dim=1)
        wanted = volume.reshape(1, 1, -1).expand(len(codes), 1, -1)
        return -likely.gather(1, wanted).flatten(1).mean(dim=1)

    yield losses(code[None])
    moved = torch.from_numpy(dimensions).to(space.trained.device)
    for sign in (1, -1):
        for chosen in moved.split(batch):
            codes = code.repeat(len(chosen), 1)
            codes[torch.arange(len(chosen)), chosen] += sign * step
            yield losses(codes)


def _brain(space: LatentSpace, index: int) -> tuple[Tensor, Tensor, Tensor | None]:
    """Volume (1, I, J, K) int64, code (d,) and condition (1, size) of a brain, on the device."""
    trained = space.trained
    (brain,) = space.cohort.brains(space.indices[[index]])
    # The cross entropy wants int64: converted once, not at each pass.
    volume = torch.from_numpy(brain.volume)[None].long().to(trained.device)
    code = torch.from_numpy(space.codes[index].astype(np.float32)).to(trained.device)
    return volume, code, trained.condition([brain.row])


def _draw(logits: Tensor, generator: torch.Generator) -> Tensor:
    """Draw a class for each voxel from (1, C, *sides) logits (Gumbel's trick)."""
    uniform = torch.rand(logits.shape, generator=generator).to(logits.device).clamp(min=1e-20)
    return (logits - torch.log(-torch.log(uniform))).argmax(dim=1).to(torch.uint8)
