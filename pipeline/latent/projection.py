"""One picture of a latent space: fitted on training brains, all others placed into it.

Axes of two fits mean different things, so there is one fit, and never two overlaid. t-SNE and UMAP
keep who is near to whom, not distances: far apart in the picture says nothing about how far. How
far brains lie from the training brains is therefore measured in the codes themselves.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.neighbors import NearestNeighbors

from foldnorm.pipeline.latent.space import Codes
from foldnorm.preprocessing.core.counts import counted
from foldnorm.preprocessing.core.errors import InputError

Method = Literal["pca", "tsne", "umap"]
METHODS: tuple[Method, ...] = get_args(Method)
Points = NDArray[np.float64]
N_COMPONENTS = 50  # principal components that t-SNE and UMAP see (Kobak & Berens 2019)
PERPLEXITY, NEIGHBOURS = 30, 15  # of t-SNE and of UMAP, fewer where there are few brains
N_NEAREST = 5  # training brains that a distance is the mean of
MIN_TRAINING = 10  # training brains to fit on


@dataclass(frozen=True)
class Projection:
    """A fitted map from codes to two or three numbers.

    Attributes:
        method: ``pca``, ``tsne`` or ``umap``.
        fitted: (N, 2 or 3) of the brains that it was fitted on.
        place: (M, d) codes of others → (M, 2 or 3), without moving those.
        settings: what it was fitted with.
    """

    method: Method
    fitted: Points
    place: Callable[[Codes], Points]
    settings: dict[str, Any]


def fit_projection(
    codes: Codes, method: Method, *, components: Literal[2, 3] = 2, seed: int = 0
) -> Projection:
    """Fit a projection.

    ``pca``: principal components. ``tsne``: van der Maaten & Hinton 2008, by openTSNE, which places
    others where their neighbours among the fitted ones are (Poličar et al. 2019,
    doi:10.1101/731877). ``umap``: McInnes et al. 2018, arXiv:1802.03426.

    Args:
        codes: (N, d) of training brains.
        method: see above.
        components: of the picture.
        seed: of t-SNE and UMAP.

    Raises:
        InputError: too few brains, or the package of the method is not installed.
    """
    if len(codes) < MIN_TRAINING:
        raise InputError(
            f"expected at least {MIN_TRAINING} training brains to fit a projection on, got "
            f"{len(codes)}"
        )
    if method == "pca":
        pca = PCA(components, svd_solver="full").fit(codes)
        shares = [float(share) for share in pca.explained_variance_ratio_]
        return Projection(method, pca.transform(codes), pca.transform, {"explained": shares})
    kept = min(N_COMPONENTS, len(codes) - 1, codes.shape[1])
    pca = PCA(kept, svd_solver="full").fit(codes)
    fit = _fit_tsne if method == "tsne" else _fit_umap
    fitted, place, settings = fit(pca.transform(codes), components, seed)
    return Projection(
        method,
        fitted,
        lambda others: place(pca.transform(others)),
        {**settings, "principal_components": kept},
    )


_Fitted = tuple[Points, Callable[[Codes], Points], dict[str, Any]]


def _fit_tsne(codes: Codes, components: int, seed: int) -> _Fitted:
    try:
        from openTSNE import TSNE
    except ImportError:
        raise _missing("openTSNE") from None
    perplexity = min(PERPLEXITY, (len(codes) - 1) / 3)
    embedding = TSNE(
        components,
        perplexity=perplexity,
        initialization="pca",
        negative_gradient_method="fft" if components == 2 and len(codes) > 10_000 else "bh",
        random_state=seed,
    ).fit(codes)
    # A brain is placed by fewer neighbours than a fit takes, as openTSNE's authors advise.
    near = min(5.0, perplexity)
    return (
        np.array(embedding, dtype=np.float64),  # a copy: placing others shifts the original
        lambda others: np.asarray(embedding.transform(others, perplexity=near), dtype=np.float64),
        {"perplexity": perplexity, "seed": seed},
    )


def _fit_umap(codes: Codes, components: int, seed: int) -> _Fitted:
    try:
        from umap import UMAP
    except ImportError:
        raise _missing("umap-learn") from None
    neighbours = min(NEIGHBOURS, len(codes) - 1)
    with _threads_kept():
        fitted = UMAP(
            n_components=components, n_neighbors=neighbours, random_state=seed, n_jobs=1
        ).fit(codes)

    def place(others: Codes) -> Points:
        with _threads_kept():
            return np.asarray(fitted.transform(others), dtype=np.float64)

    settings = {"n_neighbors": neighbours, "seed": seed}
    return np.asarray(fitted.embedding_, dtype=np.float64), place, settings


@contextmanager
def _threads_kept() -> Iterator[None]:
    """Leave torch as many threads as it had: numba's threads, which UMAP uses, change that."""
    before = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _missing(package: str) -> InputError:
    return InputError(f"{package} is not installed: pip install 'foldnorm[projection]'")


@dataclass(frozen=True)
class Departure:
    """Distance of a group of brains to the training brains, relative to that of held-out brains.

    Attributes:
        group: its name.
        brains: how many.
        ratio: median distance to the nearest training brains, over that of held-out brains.
        beyond: share of its brains that lie farther than 95 % of the held-out ones; 0.05 if they
            are alike.
    """

    group: str
    brains: int
    ratio: float
    beyond: float

    @property
    def sentence(self) -> str:
        """Sentence that states how far the group lies from the training brains."""
        lies = "lies" if self.brains == 1 else "lie"
        where = "outside" if self.beyond > 0.5 else "among"
        return (
            f"{self.group}: {counted(self.brains, 'brain')} {lies} {where} the brains of the "
            f"training cohort: {self.ratio:.2f} times as far from the {N_NEAREST} nearest training "
            f"brains as held-out brains (median); {100 * self.beyond:.0f} % of them farther than "
            "95 % of these."
        )


def departures(
    training: Codes, held_out: Codes, groups: Sequence[tuple[str, Codes]]
) -> list[Departure]:
    """Compute the distance of groups of brains to the training brains.

    Args:
        training: (N, d) codes.
        held_out: (M, d) codes of brains like them, at least one.
        groups: names and (K, d) codes.
    """
    neighbours = NearestNeighbors(n_neighbors=min(N_NEAREST, len(training))).fit(training)

    def distances(codes: Codes) -> NDArray[np.float64]:
        return np.asarray(neighbours.kneighbors(codes)[0].mean(axis=1), dtype=np.float64)

    usual = distances(held_out)
    limit, middle = np.quantile(usual, 0.95), np.median(usual)
    found = []
    for name, codes in groups:
        own = distances(codes)
        ratio = float(np.median(own) / middle)
        found.append(Departure(name, len(codes), ratio, float((own > limit).mean())))
    return found
