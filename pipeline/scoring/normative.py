"""Normative maps: what is usual at each place in healthy brains, and how far a brain departs.

This is the one place where foldnorm turns a map into standard deviations of healthy brains.
"""

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from foldnorm.pipeline.scoring.fitted import Fitted, State
from foldnorm.preprocessing.core.errors import InputError

Map = NDArray[np.float32]
Maps = Callable[[], Iterable[NDArray[np.floating]]]  # gives the maps anew at each call
CLIP = 2.5  # standard deviations beyond which a healthy value is pulled in
RIDGE = 1.0  # brains


@dataclass
class NormativeMap(Fitted):
    """Mean and spread of a map over healthy brains, and z of other brains against them.

    With x the smoothed map of a brain, c its covariates, and n healthy brains,

        z = (x − μ(c)) / √(s² + f²)

    where μ is a linear regression of the healthy maps on the covariates (their mean, if there are
    none), s the standard deviation of the residuals, and f the floor. Statistics are those of
    values clipped to μ ± `clip` standard deviations (one step of Huber's M-estimator), so that a
    few odd healthy brains do not hide others.

    **The floor is the measurement noise of one voxel, not a guard against division by zero.**
    Where healthy brains agree, the spread of a sample is close to 0 and the noise of the next
    brain is not. An example in round numbers, not measured ones: distance to the nearest fold, in
    mm, of three voxels of a brain from which a fold was erased::

        voxel                      μ      s     x     z, f = .01 mm   z, f = 1 mm
        on the hull's inner rim   2.0   0.00   2.2        20.0            0.2
        deep white matter         6.0   0.50   7.0         2.0            0.9
        where the fold was        1.5   0.80   6.5         6.2            3.9

    ``docs/pictures/floor.png`` shows the same of a phantom, measured (`benchmarks/pictures.py`).
    With a floor of .01 the largest z of the whole brain lies on the rim, in every brain, and a
    score that looks at the maximum or at the heaviest region finds nothing; with the floor at the
    size of the noise (half a voxel, or the blur of the network) the fold wins. Smoothing at the
    scale of what is sought lowers noise that is independent between voxels further, and turns
    the many small maxima of shifted sheets into the one large maximum of a missing one.

    Maps are streamed: two passes, one map in memory at a time. A brain that is itself among the
    healthy ones must be left out when it is scored: `without` gives the statistics of the others.

    Args:
        floor: f, in the units of the map.
        smoothing: sd of a Gaussian along each of the last three axes, voxels; 0 for none.
        clip: standard deviations at which healthy values are clipped; None for plain moments.
        ridge: prior on the slope of each covariate (of variance 1), in brains that say it is 0: the
            map of a site with few controls stays near that of all others.

    Attributes:
        count_: maps it was fitted on.
        mean_: μ without covariates' deviations, the shape of a map, float32.
        spread_: √(s² + f²), likewise.
        centre_: (p,) mean of the covariates, float64.
        slopes_: (1 + p, …) μ and how it changes with each covariate, float64.

    Source:
        Marquand et al. 2016, "Understanding heterogeneity in clinical cohorts using normative
        models", Biological Psychiatry 80(7); Huber 1964 for the clipping.
    """

    floor: float
    smoothing: float | Sequence[float] = 0.0
    clip: float | None = CLIP
    ridge: float = RIDGE

    def fit(
        self,
        maps: Maps,
        covariates: NDArray[np.floating] | None = None,
        families: Sequence[str] = (),
    ) -> Self:
        """Fit on healthy brains.

        Args:
            maps: gives the maps anew at each call, all of one shape. NaN is *not known*.
            covariates: (N, p), one row a map: age in decades, indicators of sex and site.
            families: of each map, ``""`` for none; of use to `ConditionalNormativeMap` only.

        Raises:
            InputError: there is no map, or their number is not that of the covariates.
        """
        del families
        design = None if covariates is None else np.asarray(covariates, dtype=np.float64)
        self.centre_ = np.zeros(0) if design is None else np.nanmean(design, axis=0)
        self._accumulate(maps, design, None)
        if self.clip is not None:
            first = copy.copy(self)
            self._accumulate(maps, design, first)
        return self

    def state_dict(self) -> State:
        """Return sums over the healthy brains: enough for `z` and `expected`, not for `without`."""
        state: State = {"count": self.count_, "mean": self.mean_, "spread": self.spread_}
        if len(self.centre_):
            state |= {"centre": self.centre_, "slopes": self.slopes_}
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> Self:
        """Take what `state_dict` gave."""
        self.count_, self.mean_, self.spread_ = state["count"], state["mean"], state["spread"]
        self.centre_ = state.get("centre", np.zeros(0))
        if len(self.centre_):
            self.slopes_ = state["slopes"]
        return self

    def smooth(self, values: NDArray[np.floating]) -> Map:
        """Smooth a map as the healthy ones were, float32."""
        values = values.astype(np.float32, copy=False)
        if not np.any(self.smoothing):
            return values
        sd = [0.0] * (values.ndim - 3) + list(np.broadcast_to(self.smoothing, 3))
        return np.asarray(ndimage.gaussian_filter(values, sd, mode="nearest", truncate=3.0))

    def z(
        self, values: NDArray[np.floating], covariates: NDArray[np.floating] | None = None
    ) -> Map:
        """Departure of one brain from the healthy ones, in standard deviations, float32.

        Args:
            values: its map, not smoothed yet.
            covariates: (p,) its covariates; NaN is taken as the healthy mean.
        """
        expected = self.expected(covariates)
        return np.asarray((self.smooth(values) - expected) / self.spread_, dtype=np.float32)

    def expected(self, covariates: NDArray[np.floating] | None = None) -> Map:
        """μ(c): the map that a healthy brain with these covariates has on average, float32."""
        if not len(self.centre_) or covariates is None:
            return self.mean_
        row = self._row(np.asarray(covariates, dtype=np.float64))
        return np.tensordot(row, self.slopes_, axes=1).astype(np.float32)

    def without(
        self,
        maps: Iterable[NDArray[np.floating]],
        covariates: NDArray[np.floating] | None = None,
        family: str = "",
    ) -> Self:
        """Statistics of the healthy brains but these, without a new pass over the others.

        Args:
            maps: of some of the brains that were fitted, as they were then.
            covariates: theirs, (n, p).
            family: theirs; of use to `ConditionalNormativeMap` only.
        """
        del family
        left = copy.copy(self)
        left._gram, left._moment, left._square = (
            self._gram.copy(),
            self._moment.copy(),
            self._square.copy(),
        )
        left.count_ = self.count_
        for n, values in enumerate(maps):
            row = self._row(None if covariates is None else np.asarray(covariates)[n])
            left._add(self._clipped(self.smooth(values), row, self._clipper), row, -1)
        left._solve()
        return left

    def _accumulate(
        self, maps: Maps, design: NDArray[np.float64] | None, clipper: "NormativeMap | None"
    ) -> None:
        """Sum up the normal equations of the regression and the squares, in one pass."""
        self.count_ = 0
        self._clipper = clipper
        for n, values in enumerate(maps()):
            if design is not None and n >= len(design):
                raise InputError(f"a normative map got more maps than the {len(design)} covariates")
            row = self._row(None if design is None else design[n])
            x = self.smooth(values)
            if not n:
                size = len(row)
                self._gram = np.zeros((size, size, *([1] * x.ndim)))
                self._moment = np.zeros((size, *x.shape))
                self._square = np.zeros(x.shape)
            self._add(self._clipped(x, row, clipper), row, 1)
        if not self.count_:
            raise InputError("a normative map needs healthy brains, got none")
        if design is not None and self.count_ < len(design):
            raise InputError(
                f"a normative map got {self.count_} maps, expected one for each of {len(design)} "
                "covariates"
            )
        self._solve()

    def _row(self, covariates: NDArray[np.float64] | None) -> NDArray[np.float64]:
        """Row of the design: 1, and the covariates as deviations from their healthy mean."""
        if covariates is None:
            return np.concatenate([[1.0], np.zeros(len(self.centre_))])
        return np.concatenate([[1.0], np.nan_to_num(covariates - self.centre_)])

    def _clipped(
        self, x: Map, row: NDArray[np.float64], clipper: "NormativeMap | None"
    ) -> NDArray[np.floating]:
        if clipper is None or clipper.clip is None:
            return x
        expected = np.tensordot(row, clipper.slopes_, axes=1)
        reach = clipper.clip * clipper.spread_
        return np.clip(x, expected - reach, expected + reach)

    def _add(self, x: NDArray[np.floating], row: NDArray[np.float64], sign: int) -> None:
        """Add a brain to the sums, or take it away."""
        known = np.isfinite(x)
        outer = np.multiply.outer(row, row).reshape(len(row), len(row), *([1] * x.ndim))
        if known.all():
            self._gram = self._gram + sign * outer
        else:
            self._gram = self._gram + sign * outer * known
            x = np.where(known, x, 0)
        self._moment += sign * np.multiply.outer(row, x)
        self._square += sign * np.square(x, dtype=np.float64)
        self.count_ += sign

    def _solve(self) -> None:
        size = len(self._moment)
        if size == 1:
            count = np.maximum(self._gram[0, 0], 1)
            self.slopes_ = self._moment / count
        else:
            prior = np.diag([0.0, *[self.ridge] * (size - 1)])
            gram = np.moveaxis(self._gram, (0, 1), (-2, -1)) + prior
            moment = np.moveaxis(self._moment, 0, -1)[..., None]
            slopes = np.moveaxis(np.linalg.solve(gram, moment)[..., 0], -1, 0)
            self.slopes_ = np.ascontiguousarray(slopes)
            count = np.maximum(self._gram[0, 0], 1)
        explained = (self.slopes_ * self._moment).sum(axis=0)
        left = np.maximum(count - size, 1)
        variance = np.maximum(self._square - explained, 0) / left
        self.mean_ = self.slopes_[0].astype(np.float32)
        self.spread_ = np.sqrt(variance + self.floor**2).astype(np.float32)
