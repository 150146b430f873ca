"""Normative maps that know the rest of a brain: what is unusual here, given its other folds."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from foldnorm.pipeline.scoring.fitted import State
from foldnorm.pipeline.scoring.normative import Map, Maps, NormativeMap

MAX_HEALTHY = 400  # healthy brains at most whose patterns are learned; mean and spread are of all
BOUND = 2.0  # standard deviations beyond which a place says no more of the rest of the brain
LEVELS = 127  # to each side of 0, to which components are rounded (int8)
Matrix = NDArray[np.float64]


@dataclass
class _Prediction:
    """Prediction of every place of a brain from all of its places, as a weighted sum of maps.

    Attributes:
        basis: (k, V) float32, those maps: bounded ones of healthy brains, or principal components.
        regression: (1 + p, k) weights of the sum that covariates alone lead to expect.
        shared: (1 + p, k) products of these sums with the basis.
        mixing: (k, k) products of what is left with the basis → weights.
        spread: (V,) float32 of what the prediction leaves, floor included.
    """

    basis: NDArray[np.float32]
    regression: Matrix
    shared: Matrix
    mixing: Matrix
    spread: NDArray[np.float32]

    def rest(self, z: NDArray[np.float32], row: Matrix) -> NDArray[np.float32]:
        """Take the prediction away from (V,) z, and divide by the spread of what is left."""
        products = self.basis @ _bounded(z)
        weights = row @ self.regression + (products - row @ self.shared) @ self.mixing
        predicted = weights.astype(np.float32) @ self.basis
        return np.asarray((z - predicted) / self.spread, dtype=np.float32)


@dataclass
class ConditionalNormativeMap(NormativeMap):
    """Departure of a brain from healthy ones, given how the rest of it is folded.

    Brains differ at each place by more than noise: one has wide sulci everywhere, another a second
    branch of a sulcus and its neighbours moved with it. All of that is spread to `NormativeMap`.
    Here the map of a brain, in standard deviations of healthy ones and bounded to ± `BOUND`, is
    predicted from itself by what healthy maps have in common,

        ẑ = m(c) + Σₖ ⟨vₖ, z − m(c)⟩ vₖ

    with m(c) their regression on the covariates, and vₖ the half of their principal components that
    has the larger variances. What is local, such as one missing fold, lies outside of these
    components; what healthy brains do together lies within. The other half says more of single
    brains than of what they have in common, and a map that knew it would find no more: with 16, 50
    and 134 healthy hemispheres of other sites, AUROC of erased folds of MMRR-21 is the same.

    The result is z − ẑ, in standard deviations of the same difference of healthy brains, **each
    predicted by the others without its family**. Predicted with itself among them, a healthy brain
    would leave too little, and every other brain would stand out: even of brains whose mean was
    taken away, one is minus the sum of the others.

    `expected` and `spread_` are those of `NormativeMap`, without the pattern.

    Attributes:
        where_: (…) bool, where healthy brains differ at all; elsewhere z is that of `NormativeMap`.
        prediction_: of a brain by healthy ones.

    Source:
        Robust principal components of brains with lesions: Liu et al. 2015, "Low-rank atlas image
        analyses in the presence of pathologies", IEEE TMI 34(12). Regression on principal
        components: Hastie, Tibshirani & Friedman 2009, section 3.5.1.
    """

    def fit(
        self,
        maps: Maps,
        covariates: NDArray[np.floating] | None = None,
        families: Sequence[str] = (),
    ) -> Self:
        """Fit on healthy brains; see `NormativeMap.fit`.

        Args:
            maps: see there; one more pass is made.
            covariates: see there.
            families: of each map, those that must not predict each other; ``""`` has none.
        """
        super().fit(maps, covariates)
        self._keep_moments()
        kept = np.unique(np.linspace(0, self.count_ - 1, min(self.count_, MAX_HEALTHY)).astype(int))
        names = families or [""] * self.count_
        self._owners = np.array([names[n] or f"healthy brain {n}" for n in kept])
        design = None if covariates is None else np.asarray(covariates, dtype=np.float64)
        rows = [None if design is None else design[n] for n in range(self.count_)]
        self._rows = np.stack([self._row(rows[n]) for n in kept])
        self._healthy = np.empty((len(kept), int(self.where_.sum())), dtype=np.float16)
        position_of = {int(n): place for place, n in enumerate(kept)}
        for n, values in enumerate(maps()):
            if n in position_of:
                self._healthy[position_of[n]] = self._moments.z(values, rows[n])[self.where_]
        self._basis = _bounded(self._healthy.astype(np.float32))
        self._products = (self._basis @ self._basis.T).astype(np.float64)
        self._by_others = self._coefficients().astype(np.float32)
        everyone = np.ones(len(kept), dtype=np.bool_)
        self._squares = self._sum_of_squares(everyone)
        self._round_components(everyone)
        self.prediction_ = self._predict_by_components(self._spread(everyone))
        return self

    def z(
        self, values: NDArray[np.floating], covariates: NDArray[np.floating] | None = None
    ) -> Map:
        """Departure from what healthy brains and the rest of this one lead to expect, float32.

        Args:
            values: its map, not smoothed yet.
            covariates: (p,) its covariates; NaN is taken as the healthy mean.
        """
        z = self._moments.z(values, covariates)
        own = None if covariates is None else np.asarray(covariates, dtype=np.float64)
        z[self.where_] = self.prediction_.rest(z[self.where_], self._row(own))
        return z

    def without(
        self,
        maps: Iterable[NDArray[np.floating]],
        covariates: NDArray[np.floating] | None = None,
        family: str = "",
    ) -> Self:
        """Return this normative map without a family: predictions by the other healthy brains.

        Args:
            maps: of all brains of a family, as they were fitted.
            covariates: theirs, (n, p).
            family: theirs, as `fit` was told.
        """
        left = super().without(maps, covariates)
        left.prediction_ = self._predict_by(self._owners != family)
        return left

    def state_dict(self) -> State:
        """Moments, regression and principal components of the healthy maps, and none of these."""
        return {
            **super().state_dict(),
            "components": self._rounded,
            "scales": self._scales,
            "rest": self.prediction_.spread,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> Self:
        """Take what `state_dict` gave."""
        super().load_state_dict(state)
        self._keep_moments()
        self._rounded, self._scales = state["components"], state["scales"]
        self.prediction_ = self._predict_by_components(state["rest"])
        return self

    def _keep_moments(self) -> None:
        """Keep what `z` begins with, of all healthy brains: `without` changes its own copy."""
        self._moments = NormativeMap(self.floor, self.smoothing, self.clip, self.ridge)
        self._moments.load_state_dict(super().state_dict())
        self.where_ = self.spread_ > self.floor * (1 + 1e-6)

    def _regression(self, among: NDArray[np.bool_]) -> Matrix:
        """Weights of healthy brains in the regression on the covariates, (1 + p, n)."""
        rows = self._rows[among]
        prior = np.diag([0.0, *[self.ridge] * (rows.shape[1] - 1)])
        return np.asarray(np.linalg.solve(rows.T @ rows + prior, rows.T), dtype=np.float64)

    def _components(self, among: NDArray[np.bool_]) -> Matrix:
        """Weights of healthy maps in the larger half of their principal components, (n, k)."""
        left = np.eye(int(among.sum())) - self._rows[among] @ self._regression(among)
        kernel = left @ self._products[np.ix_(among, among)] @ left.T
        variances, axes = np.linalg.eigh(kernel)  # ascending
        large = np.arange(len(kernel)) >= -(-len(kernel) // 2)
        large &= variances > max(1e-6 * float(variances[-1]), 1e-12)  # none of brains all alike
        return np.asarray(left.T @ (axes[:, large] / np.sqrt(variances[large])), dtype=np.float64)

    def _coefficients(self) -> Matrix:
        """Weights by which each healthy map is predicted from those of other families, (n, n)."""
        found = np.zeros_like(self._products)
        for family in np.unique(self._owners):
            own, others = self._owners == family, self._owners != family
            if not others.any():
                continue
            components = self._components(others)
            mean = self._rows[own] @ self._regression(others)
            shared = mean @ self._products[np.ix_(others, others)]
            pattern = (self._products[np.ix_(own, others)] - shared) @ components
            found[np.ix_(own, others)] = mean + pattern @ components.T
        return found

    def _sum_of_squares(self, among: NDArray[np.bool_]) -> NDArray[np.float32]:
        """Sum over healthy brains of squares of what their prediction by others leaves, (V,)."""
        total = np.zeros(self._basis.shape[1], dtype=np.float32)
        for n in np.flatnonzero(among):
            rest = self._healthy[n].astype(np.float32) - self._by_others[n] @ self._basis
            total += np.square(rest if self.clip is None else np.clip(rest, -self.clip, self.clip))
        return total

    def _predict_by(self, among: NDArray[np.bool_]) -> _Prediction:
        """Prediction by some of the healthy brains."""
        regression = np.zeros((self._rows.shape[1], len(among)))
        regression[:, among] = self._regression(among)
        components = self._components(among)
        mixing = np.zeros_like(self._products)
        mixing[np.ix_(among, among)] = components @ components.T
        shared = regression @ self._products
        return _Prediction(self._basis, regression, shared, mixing, self._spread(among))

    def _spread(self, among: NDArray[np.bool_]) -> NDArray[np.float32]:
        """Spread of what predictions of some of the healthy brains leave, floor included, (V,)."""
        squares = self._squares if among.all() else self._squares - self._sum_of_squares(~among)
        floor = self.floor / self._moments.spread_[self.where_]
        return np.sqrt(np.maximum(squares, 0) / among.sum() + floor**2).astype(np.float32)

    def _round_components(self, everyone: NDArray[np.bool_]) -> None:
        """Keep the regression and the components by all, rounded: the maps of no one, int8."""
        weights = np.concatenate([self._regression(everyone), self._components(everyone).T])
        basis = weights.astype(np.float32) @ self._basis
        largest = np.abs(basis).max(axis=1, initial=np.finfo(np.float32).tiny, keepdims=True)
        self._scales = largest / LEVELS
        self._rounded = np.rint(basis / self._scales).astype(np.int8)

    def _predict_by_components(self, spread: NDArray[np.float32]) -> _Prediction:
        """Prediction by all, from what is saved, so that a saved scorer gives the very same."""
        basis = self._rounded * self._scales
        size = 1 + len(self.centre_)
        shared = (basis[:size] @ basis.T).astype(np.float64)
        mixing = np.diag([0.0] * size + [1.0] * (len(basis) - size))
        return _Prediction(basis, np.eye(size, len(basis)), shared, mixing, spread)


def _bounded(z: NDArray[np.float32]) -> NDArray[np.float32]:
    """Clip standard deviations to ± `BOUND`; what is not known (NaN) is taken as usual."""
    return np.nan_to_num(np.clip(z, -BOUND, BOUND))
