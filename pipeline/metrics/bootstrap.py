"""Bootstrap over families: intervals of figures, where volumes of one are not independent."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

INTERVAL = (2.5, 97.5)  # percentiles
Weights = NDArray[np.float64]


def drawn_weights(
    owners: Sequence[str] | NDArray[np.generic], draws: int, *, seed: int = 0
) -> Iterator[Weights]:
    """Yield how often each row is in a bootstrap sample, (N,) float64 a draw.

    Participants are drawn with replacement, as many as there are, each with all that is theirs.

    Args:
        owners: participant of each row, (N,); names or numbers.
        draws: bootstrap samples.
        seed: random seed; the same participants are drawn alike, whatever the rows are.

    Example:
        >>> weights = next(drawn_weights(["ann", "ann", "bob"], 1))
        >>> bool(weights[0] == weights[1]), float(weights[1] + weights[2])
        (True, 2.0)
    """
    names, owner = np.unique(np.asarray(owners), return_inverse=True)
    rng, shares = np.random.default_rng(seed), np.full(len(names), 1 / len(names))
    for _ in range(draws):
        yield rng.multinomial(len(names), shares)[owner].astype(np.float64)


def bootstrap_interval(
    statistic: Callable[[Weights], ArrayLike],
    owners: Sequence[str] | NDArray[np.generic],
    draws: int,
    *,
    seed: int = 0,
) -> NDArray[np.float64]:
    """Compute the ends of the 95 % percentile interval of a statistic, (2,) or (2, k).

    Args:
        statistic: of the rows with these weights, see `drawn_weights`; a number, or k of them. NaN
            where it is not defined: such a draw is left out.
        owners: participant of each row, (N,).
        draws: bootstrap samples.
        seed: random seed.

    Example:
        >>> values = np.arange(20.0)
        >>> mean = lambda weights: np.average(values, weights=weights)
        >>> low, high = bootstrap_interval(mean, np.arange(20), 200)
        >>> bool(low < values.mean() < high)
        True
    """
    found = [statistic(weights) for weights in drawn_weights(owners, draws, seed=seed)]
    return np.asarray(np.nanpercentile(np.array(found, dtype=np.float64), INTERVAL, axis=0))
