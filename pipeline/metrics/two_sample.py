"""Comparison of the distributions of two sets of volumes, by figures in a space of features.

Maximum mean discrepancy: Gretton et al. 2012. Precision and recall: Kynkäänniemi et al. 2019
(arXiv:1904.06991). Coverage: Naeem et al. 2020 (arXiv:2002.09797).
"""

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from monai.metrics import MultiScaleSSIMMetric
from numpy.typing import NDArray
from scipy.spatial.distance import cdist, pdist
from torch import Tensor

from foldnorm.models.image_classifier import ImageClassifier
from foldnorm.models.noise import StepNoise, seed_of
from foldnorm.pipeline.metrics.detection import detection

N_NEIGHBOURS = 5  # that a volume's ball reaches to
SSIM_SCALES = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # weights, Wang et al. 2003
SSIM_WINDOW = 7  # pixels
N_FOLDS = 2  # of the two-sample classifier
STEPS, BATCH = 200, 32  # of its training
Features = NDArray[np.float64]
Volumes = NDArray[np.float32]


def mmd(first: Features, second: Features) -> float:
    """Squared maximum mean discrepancy, unbiased: around 0 where both are drawn alike.

    Gaussian kernel, its width the median distance within the second.

    Args:
        first: (N, d).
        second: (M, d), what is compared with.

    Example:
        >>> codes = np.random.default_rng(0).normal(size=(100, 4))
        >>> bool(mmd(codes[:50], codes[50:]) < 0.1 < mmd(codes[:50], codes[50:] + 2))
        True
    """
    width = float(np.median(pdist(second))) or 1.0

    def kernel(a: Features, b: Features) -> NDArray[np.float64]:
        return np.exp(-cdist(a, b, "sqeuclidean") / (2 * width**2))

    def within(a: Features) -> float:
        n = len(a)
        return float((kernel(a, a).sum() - n) / (n * (n - 1)))

    return within(first) + within(second) - 2 * float(kernel(first, second).mean())


def precision_recall_coverage(
    made: Features, real: Features, neighbours: int = N_NEIGHBOURS
) -> dict[str, float]:
    """Measure the fidelity and diversity of generated volumes; all from 0 to 1.

    Args:
        made: (N, d).
        real: (M, d).
        neighbours: k; a volume's ball reaches to the k-th nearest of its own set.

    Returns:
        ``precision``: share of the made that lie in a ball of a real one. ``recall``: share of the
        real that lie in a ball of a made one. ``coverage``: share of the real in whose ball a made
        one lies.

    Example:
        >>> real = np.random.default_rng(0).normal(size=(50, 2))
        >>> copies = np.repeat(real[:1], 10, axis=0)
        >>> precision_recall_coverage(copies, real)["precision"]
        1.0
    """
    between = cdist(made, real)
    of_real, of_made = radii(real, neighbours), radii(made, neighbours)
    return {
        "precision": float((between <= of_real[None]).any(axis=1).mean()),
        "recall": float((between <= of_made[:, None]).any(axis=0).mean()),
        "coverage": float((between <= of_real[None]).any(axis=0).mean()),
    }


def radii(points: Features, neighbours: int) -> NDArray[np.float64]:
    """Distance of each point to its k-th nearest other, (N,).

    Example:
        >>> radii(np.array([[0.0], [1.0], [3.0]]), 1).tolist()
        [1.0, 1.0, 2.0]
    """
    apart = cdist(points, points)
    np.fill_diagonal(apart, np.inf)
    return np.sort(apart, axis=1)[:, min(neighbours, len(points) - 1) - 1]


def diversity(volumes: Volumes, groups: Sequence[str], pairs: int, seed: int = 0) -> float:
    """Mean MS-SSIM of pairs drawn at random: the higher, the more alike the volumes are.

    Args:
        volumes: (N, *sides) from −1 to 1.
        groups: whose each is; pairs are of two.
        pairs: how many.
        seed: of the draw.
    """
    rng = np.random.default_rng(seed)
    found: list[tuple[int, int]] = []
    for _ in range(100 * pairs):
        a, b = (int(x) for x in rng.choice(len(volumes), 2, replace=False))
        if groups[a] != groups[b]:
            found.append((a, b))
        if len(found) == pairs:
            break
    if not found:
        return float("nan")
    sides = volumes.shape[1:]
    scales = 1
    while scales < len(SSIM_SCALES) and min(sides) // 2**scales >= SSIM_WINDOW:
        scales += 1
    weights = np.array(SSIM_SCALES[:scales])
    metric = MultiScaleSSIMMetric(
        len(sides),
        data_range=2.0,
        kernel_size=SSIM_WINDOW,
        weights=tuple(weights / weights.sum()),
    )
    values = []
    for a, b in found:
        two = torch.from_numpy(volumes[[a, b]]).unsqueeze(1)
        values.append(float(torch.as_tensor(metric(two[:1], two[1:])).mean()))
    return float(np.mean(values))


def nearest(
    volumes: Volumes, known: Iterable[Volumes]
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Root mean square difference to the nearest known volume, and which that is, (N,) each.

    Args:
        volumes: (N, *sides).
        known: (*sides) each; never more than one in memory.

    Example:
        >>> distances, places = nearest(np.zeros((1, 2)), [np.ones(2), np.zeros(2)])
        >>> distances.tolist(), places.tolist()
        ([0.0], [1])
    """
    flat = volumes.reshape(len(volumes), -1)
    distances = np.full(len(flat), np.inf)
    places = np.zeros(len(flat), dtype=np.int64)
    for n, volume in enumerate(known):
        apart = np.sqrt(((flat - volume.ravel()) ** 2).mean(axis=1))
        nearer = apart < distances
        distances[nearer], places[nearer] = apart[nearer], n
    return distances, places


def memorised(
    made: NDArray[np.float64], held_out: NDArray[np.float64], share: float = 0.01
) -> float:
    """Share of the generated volumes nearer to a training volume than any held-out one is.

    Args:
        made: distance of each to the nearest training volume, (N,).
        held_out: likewise of volumes that were not trained on, (M,).
        share: of the held-out ones that may be as near.

    Example:
        >>> memorised(np.array([0.0, 2.0]), held_out=np.array([1.0, 3.0]))
        0.5
    """
    return float((made < np.quantile(held_out, share)).mean())


def two_sample_auroc(
    first: Volumes, second: Volumes, groups: tuple[Sequence[str], Sequence[str]], seed: int = 0
) -> float:
    """AUROC of a small CNN that learns to tell two sets apart, on volumes that it was not shown.

    0.5 where nothing tells them apart (Lopez-Paz & Oquab 2017, arXiv:1610.06545). Cross-validated;
    what is one person's is in one fold.

    Args:
        first: (N, *sides) from −1 to 1.
        second: (M, *sides).
        groups: whose each is.
        seed: of folds, weights and batches.
    """
    volumes = torch.from_numpy(np.concatenate([first, second]))
    labels = torch.cat([torch.ones(len(first)), torch.zeros(len(second))]).long()
    fold = np.array([seed_of(seed, "fold", name) % N_FOLDS for part in groups for name in part])
    scores = np.full(len(volumes), np.nan)
    for number in range(N_FOLDS):
        held_out = fold == number
        shown = torch.from_numpy(~held_out)
        if not held_out.any() or len(labels[shown].unique()) < 2:
            continue
        with torch.random.fork_rng(devices=[]):  # the caller's draws stay as they are
            log_odds = _classifier_log_odds(volumes[shown], labels[shown], volumes[~shown], seed)
        scores[held_out] = (log_odds - log_odds.mean()) / (log_odds.std() + 1e-12)
    known = ~np.isnan(scores)
    positive, negative = (
        scores[known & (labels == 1).numpy()],
        scores[known & (labels == 0).numpy()],
    )
    if not len(positive) or not len(negative):
        return float("nan")
    weights = {"w_pos": np.ones(len(positive)), "w_neg": np.ones(len(negative))}
    return detection(positive, negative, **weights).auroc


def _classifier_log_odds(
    volumes: Tensor, labels: Tensor, others: Tensor, seed: int
) -> NDArray[np.float64]:
    """Train a network on labelled volumes; return its log-odds of label 1 for others, (M,)."""
    torch.default_generator.manual_seed(seed_of(seed, "two-sample"))  # of the CPU, which is used
    model = ImageClassifier(volumes.shape[1:], widths=(16, 32), hidden=32)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    device, levels = torch.device("cpu"), torch.eye(2)
    rng = np.random.default_rng(seed)
    sides = [torch.from_numpy(np.flatnonzero(labels.numpy() == label)) for label in (0, 1)]
    model.train()
    for step in range(STEPS):
        chosen = torch.cat(
            [own[rng.integers(len(own), size=BATCH // 2)] for own in sides]  # as many of either
        )
        noise = StepNoise((seed, step), len(chosen), device)
        terms = model.loss("classification", volumes[chosen], noise, levels[labels[chosen]])
        optimizer.zero_grad()
        terms["loss"].backward()
        optimizer.step()
    model.eval()
    with torch.no_grad():
        parts = [model.classify(part) for part in others.split(BATCH)]
    logits = torch.cat(parts)
    return (logits[:, 1] - logits[:, 0]).double().numpy()
