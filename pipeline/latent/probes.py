"""Linear probes: what of a brain can be read off its code by a straight line.

Cross-validated by family: hemispheres of one person, and relatives, are on one side. Probes see
the first principal axes of all codes, which know nothing of the column. The interval is a bootstrap
over families of their held-out predictions; it leaves out what other training brains would have
changed, so it is the p-value, a permutation of the column, that tests.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit
from scipy.stats import rankdata
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import GroupKFold, StratifiedGroupKFold
from sklearn.preprocessing import StandardScaler

from foldnorm.pipeline.latent.space import Codes, principal_axes
from foldnorm.pipeline.metrics.bootstrap import Weights, bootstrap_interval
from foldnorm.preprocessing.cohort.cohort import family_of
from foldnorm.preprocessing.core.counts import counted
from foldnorm.preprocessing.core.errors import InputError
from foldnorm.preprocessing.core.files import UNKNOWN_CELLS

N_FOLDS = 5
N_PERMUTATIONS = 200
N_BOOTSTRAPS = 1000
MAX_AXES = 100  # principal axes that a probe sees: fewer than brains, or anything can be fitted
AXES_SHARE = 0.2  # of the number of brains
RIDGE = 1.0  # weight of the penalty, a brain
INVERSE_PENALTY = 0.1  # C of the logistic regression
TWO = 2  # categories
MIN_CLASS = N_FOLDS  # brains of each category


@dataclass(frozen=True)
class Probe:
    """Result of a probe: how well a column can be predicted from codes.

    Attributes:
        column: that was predicted.
        measure: ``auc`` of two categories, ``balanced accuracy`` of several, or ``r``, the
            correlation of a quantity with its prediction.
        value: of held-out brains.
        low: end of its 95 % interval.
        high: end of its 95 % interval.
        chance: what guessing gives.
        p: share of permutations, 1 added above and below, that do as well.
        brains: with a value in the column.
        predictions: (brains,) of held-out brains, probability of the second category or quantity;
            of several categories the number of the predicted one.
        indices: (brains,) which codes they are.
    """

    column: str
    measure: str
    value: float
    low: float
    high: float
    chance: float
    p: float
    brains: int
    predictions: NDArray[np.float64]
    indices: NDArray[np.int64]

    @property
    def sentence(self) -> str:
        """Sentence with the probe's figure, its interval, chance level and p-value."""
        return (
            f"{self.column}: {self.measure} {self.value:.2f} [{self.low:.2f}, {self.high:.2f}], "
            f"chance {self.chance:.2f}, p = {self.p:.2g}, {counted(self.brains, 'brain')}"
        )


def probe(codes: Codes, rows: Sequence[Mapping[str, str]], column: str, *, seed: int = 0) -> Probe:
    """Predict a column from codes.

    Args:
        codes: (N, d).
        rows: of ``participants.tsv``, one a code.
        column: numbers are a quantity, anything else categories; with ``:category`` behind its
            name, numbers are categories too.
        seed: of permutations and bootstrap.

    Raises:
        InputError: there is no such column, or it has too few brains or values.
    """
    name, as_category = column.removesuffix(":category"), column.endswith(":category")
    if name not in rows[0]:
        raise InputError(f"no column {name!r} in participants.tsv, which has {', '.join(rows[0])}")
    known = np.array([n for n, row in enumerate(rows) if row[name] not in UNKNOWN_CELLS], np.int64)
    people = np.unique([rows[n]["participant_id"] for n in known], return_inverse=True)[1]
    groups = np.unique([family_of(rows[n]) for n in known], return_inverse=True)[1]
    if groups.max(initial=-1) + 1 < 2 * N_FOLDS:
        raise InputError(
            f"column {name!r}: expected at least {2 * N_FOLDS} participants (families, where they "
            f"are known), got {groups.max(initial=-1) + 1}"
        )
    target, n_classes = _target([rows[n][name] for n in known], name, as_category)
    axes = min(MAX_AXES, max(int(AXES_SHARE * len(known)), 1))
    points = principal_axes(codes[known])[:, :axes]
    rng = np.random.default_rng(seed)
    predicted = _predictions(points, target, groups, n_classes)
    measure, chance = {0: ("r", 0.0), TWO: ("auc", 0.5)}.get(
        n_classes, ("balanced accuracy", 1 / max(n_classes, 1))
    )
    value = _figure(target, predicted, n_classes)
    low, high = _interval(target, predicted, groups, n_classes, seed)
    as_good = 0
    for _ in range(N_PERMUTATIONS):
        shuffled = _permuted(target, people, rng)
        guess = _predictions(points, shuffled, groups, n_classes)
        as_good += _figure(shuffled, guess, n_classes) >= value
    p = (1 + as_good) / (1 + N_PERMUTATIONS)
    return Probe(column, measure, value, low, high, chance, p, len(known), predicted, known)


def _target(values: Sequence[str], name: str, as_category: bool) -> tuple[NDArray[np.float64], int]:
    """Numbers to predict, and how many categories they are; 0 for a quantity."""
    if not as_category:
        try:
            quantity = np.array([float(value) for value in values])
        except ValueError:
            quantity = None
        if quantity is not None:
            if len(np.unique(quantity)) < TWO:
                raise InputError(f"column {name!r} is the same for all brains")
            return quantity, 0
    levels, numbers = np.unique(list(values), return_inverse=True)
    counts = np.bincount(numbers)
    if len(levels) < TWO or counts.min() < MIN_CLASS:
        found = ", ".join(f"{level} ({n})" for level, n in zip(levels, counts, strict=True))
        raise InputError(
            f"column {name!r}: expected at least two categories of {MIN_CLASS} brains each, got "
            f"{found or 'none'}"
        )
    return numbers.astype(np.float64), len(levels)


def _predictions(
    points: Codes, target: NDArray[np.float64], groups: NDArray[np.int64], n_classes: int
) -> NDArray[np.float64]:
    """Predict the target of each brain by a probe that never saw its family.

    What brains are left to train on has a mean of its own, high where those left out are low. It is
    taken out of each prediction, and that of all put in: or else predictions of nothing would fall
    below chance.
    """
    splitter = GroupKFold(N_FOLDS) if n_classes == 0 else StratifiedGroupKFold(N_FOLDS)
    predicted = np.full(len(target), np.nan)
    for train, test in splitter.split(points, target, groups):
        scaler = StandardScaler().fit(points[train])
        seen, held_out = scaler.transform(points[train]), scaler.transform(points[test])
        if n_classes == 0:
            ridge = Ridge(RIDGE * len(train)).fit(seen, target[train])
            predicted[test] = ridge.predict(held_out) - target[train].mean() + target.mean()
            continue
        if len(np.unique(target[train])) < n_classes:
            predicted[test] = target[train][0] if n_classes > TWO else target.mean()
            continue
        model = LogisticRegression(C=INVERSE_PENALTY, max_iter=500).fit(seen, target[train])
        if n_classes == TWO:
            log_odds = model.decision_function(held_out)
            predicted[test] = expit(log_odds - logit(target[train].mean()) + logit(target.mean()))
        else:
            predicted[test] = model.predict(held_out)
    return predicted


def _figure(target: NDArray[np.float64], predicted: NDArray[np.float64], n_classes: int) -> float:
    if n_classes == 0:
        if predicted.std() < 1e-12 or target.std() < 1e-12:
            return 0.0
        return float(np.corrcoef(target, predicted)[0, 1])
    if n_classes == TWO:
        ranks, n = rankdata(predicted), target.sum()
        m = len(target) - n
        if not n or not m:
            return float("nan")
        return float((ranks[target == 1].sum() - n * (n + 1) / 2) / (n * m))
    hits = [(predicted[target == c] == c).mean() for c in range(n_classes) if (target == c).any()]
    return float(np.mean(hits))


def _interval(
    target: NDArray[np.float64],
    predicted: NDArray[np.float64],
    groups: NDArray[np.int64],
    n_classes: int,
    seed: int,
) -> tuple[float, float]:
    def figure(weights: Weights) -> float:
        drawn = np.repeat(np.arange(len(target)), weights.astype(np.int64))
        return _figure(target[drawn], predicted[drawn], n_classes)

    low, high = bootstrap_interval(figure, groups, N_BOOTSTRAPS, seed=seed)
    return float(low), float(high)


def _permuted(
    target: NDArray[np.float64], groups: NDArray[np.int64], rng: np.random.Generator
) -> NDArray[np.float64]:
    """Values dealt out anew: whole participants where they have one value, brains otherwise."""
    per_group = [np.unique(target[groups == g]) for g in range(groups.max() + 1)]
    if all(len(values) == 1 for values in per_group):
        dealt = rng.permutation(np.array([values[0] for values in per_group]))
        return dealt[groups]
    return rng.permutation(target)
