"""Sulci of healthy hemispheres, and how far those of another depart from them."""

from collections.abc import Mapping
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from foldnorm.pipeline.artifacts import SULCUS_EVIDENCE
from foldnorm.pipeline.scoring.fitted import Fitted, State
from foldnorm.pipeline.scoring.normative import CLIP, NormativeMap
from foldnorm.pipeline.scoring.sulcus_measures import Measures
from foldnorm.preprocessing.core.errors import InputError

MIN_HEALTHY = 8  # brains to compare with
STABLE = 0.25  # coefficient of variation of a sulcus's size, below which it is one of the panel
# Floors of the spread of a sulcus's measures over brains (see `NormativeMap`): root of its voxels,
# confidence, pieces, and what is in standard deviations already.
SIZE_FLOOR, CONFIDENCE_FLOOR, PIECES_FLOOR, Z_FLOOR = 0.5, 0.02, 0.25, 0.1
UNSURE = 0.5  # weight of confidence beside size; settled on validation brains
# All three settled on one site (MMRR-21 of Mindboggle-101), and on no other.
VOID_FLOOR = 4.0  # root of z × mm³: most sulci of healthy brains hold no void at all
SHRINKAGE = 0.5  # of the correlations between sizes
LEAST_EFFECT = 4.0  # standard deviations: the absence of a sulcus that does less is hardly seen
PANEL = "missing_panel"
MAPS = ("size", "confidence", "absence", "distance", "pieces")
VOID_MAP = "void"  # of scores that look at voids
Departures = NDArray[np.float64]
Regressors = NDArray[np.float64] | None


class SulcusNorms(Fitted):
    """Usual measures of the sulci of healthy hemispheres, and the departures of others from them.

    Of each sulcus, in standard deviations of healthy brains: ``missing``; ``large``; ``displaced``,
    Mahalanobis distance of its centre; ``interrupted``, its pieces.

    ``missing`` is how small a sulcus is and how unsure its name is, together. Where it is known
    what goes with each sulcus (``lost``), it is the matched filter of its absence instead: with z
    the sizes of all sulci, C their correlations in healthy brains (shrunk, with the noise of a
    size), and d the mean change of z if all that is named after the sulcus were gone,

        d' C⁻¹ z / √(d' C⁻¹ d + e²)

    with e = `LEAST_EFFECT`. What is left of a missing sulcus is given to its neighbours, and folds
    of one region share their names: a pattern over all sizes tells that from a small sulcus, and
    what the sizes of healthy brains have in common is no evidence. The least effect keeps sulci of
    a few voxels, which no one would miss, from speaking as loud as the others.

    Where voids are known, too, that is ``unnamed``, ``void`` is how much more is void where the
    sulcus runs than in healthy brains, and ``missing`` is their sum over √2 (Stouffer): names see
    what neighbours have filled, voids what they have not.

    Args:
        n_sulci: how many sulci there are.

    Attributes:
        panel_: (n,) bool, sulci whose size varies so little among healthy brains that their
            absence would stand out (`LEAST_EFFECT`; `STABLE` where ``lost`` is not known).

    Source:
        Kay 1998, Fundamentals of statistical signal processing II, section 4.4; Stouffer et al.
        1949, The American soldier I.
    """

    def __init__(self, n_sulci: int) -> None:
        self.n_sulci = n_sulci
        self.size, self.confidence = NormativeMap(SIZE_FLOOR), NormativeMap(CONFIDENCE_FLOOR)
        self.absence, self.distance = NormativeMap(Z_FLOOR), NormativeMap(Z_FLOOR)
        self.pieces, self.void = NormativeMap(PIECES_FLOOR), NormativeMap(VOID_FLOOR)

    def fit(
        self,
        measures: Measures,
        regressors: Regressors = None,
        lost: NDArray[np.float64] | None = None,
        voids: NDArray[np.float64] | None = None,
    ) -> Self:
        """Learn what healthy brains are like.

        Args:
            measures: (N, n, `len(MEASURES)`), see `NamedBrain.measure`.
            regressors: (N, p), what the mean depends on.
            lost: (N, n, n), mm² of each sulcus that go if what is named after one is gone.
            voids: (N, n), see `void_by_sulcus`.

        Raises:
            InputError: there is none.
        """
        sizes = np.sqrt(measures[:, :, 0])
        self.size.fit(lambda: sizes, regressors)
        self.confidence.fit(lambda: measures[:, :, 1], regressors)
        self.pieces.fit(lambda: measures[:, :, 6], regressors)
        self.has_voids_ = voids is not None
        if voids is not None:
            roots = np.sqrt(voids)
            self.void.fit(lambda: roots, regressors)
        variation = measures[:, :, 0].std(axis=0) / np.maximum(measures[:, :, 0].mean(axis=0), 1e-9)
        self.filter_, self.panel_ = np.zeros((0, self.n_sulci)), variation < STABLE
        if lost is not None:
            self.filter_, strength = self._matched_filter(sizes, regressors, lost)
            self.panel_ = strength > LEAST_EFFECT
        absence = self._absence(measures, regressors)
        self.absence.fit(lambda: absence)
        places = [own[~np.isnan(own).any(axis=1)] for own in np.moveaxis(measures[:, :, 2:5], 1, 0)]
        self.centres_ = np.array([own.mean(axis=0) if len(own) else np.zeros(3) for own in places])
        self.inverses_ = np.linalg.inv([_covariance(own) for own in places])
        distances = self._distances(measures)
        self.distance.fit(lambda: distances)
        return self

    def state_dict(self) -> State:
        """Return sums over the healthy brains, sulcus by sulcus."""
        maps = (*MAPS, VOID_MAP) if self.has_voids_ else MAPS
        state: State = {name: getattr(self, name).state_dict() for name in maps}
        state |= {"centres": self.centres_, "inverses": self.inverses_}
        return {**state, "panel": self.panel_, "filter": self.filter_}

    def load_state_dict(self, state: Mapping[str, Any]) -> Self:
        """Take what `state_dict` gave."""
        self.has_voids_ = VOID_MAP in state
        for name in (*MAPS, VOID_MAP) if self.has_voids_ else MAPS:
            getattr(self, name).load_state_dict(state[name])
        self.panel_, self.filter_ = state["panel"], state["filter"]
        self.centres_, self.inverses_ = state["centres"], state["inverses"]
        return self

    def departures(
        self,
        measures: Measures,
        regressors: Regressors = None,
        voids: NDArray[np.float64] | None = None,
    ) -> dict[str, Departures]:
        """Compute departures of sulci from healthy ones by kind, (N, n) standard deviations.

        Args:
            measures: (N, n, `len(MEASURES)`).
            regressors: (N, p), as they were fitted.
            voids: (N, n), if they were fitted.
        """
        absence = self._absence(measures, regressors)
        found: dict[str, NDArray[np.floating]] = {
            "missing": absence if len(self.filter_) else self.absence.z(absence),
            "large": _z(self.size, np.sqrt(measures[:, :, 0]), regressors),
            "displaced": self.distance.z(self._distances(measures)),
            "interrupted": _z(self.pieces, measures[:, :, 6], regressors),
        }
        if voids is not None:
            parts = found["missing"], _z(self.void, np.sqrt(voids), regressors)
            found["missing"] = (parts[0] + parts[1]) / np.sqrt(2)
            found |= dict(zip(SULCUS_EVIDENCE, parts, strict=True))
        return {kind: np.nan_to_num(z).astype(np.float64) for kind, z in found.items()}

    def scores(self, departures: Mapping[str, Departures]) -> dict[str, NDArray[np.float64]]:
        """Scores of brains whose sulci depart so: the most unusual sulcus of each, (N,) by name."""
        found = {kind: own.max(axis=1) for kind, own in departures.items()}
        panel = departures["missing"][:, self.panel_]
        found[PANEL] = panel.max(axis=1) if self.panel_.any() else np.zeros(len(panel))
        return found

    def _absence(self, measures: Measures, regressors: Regressors) -> Departures:
        """Compute how far each sulcus is missing, (N, n)."""
        sizes = _z(self.size, np.sqrt(measures[:, :, 0]), regressors)
        if len(self.filter_):
            return sizes @ self.filter_.T
        return -sizes - UNSURE * _z(self.confidence, measures[:, :, 1], regressors)

    def _distances(self, measures: Measures) -> Departures:
        """Mahalanobis distance of the centre of each sulcus, (N, n); NaN where it has none."""
        apart = measures[:, :, 2:5] - self.centres_
        return np.sqrt(np.einsum("Nni,nij,Nnj->Nn", apart, self.inverses_, apart))

    def _matched_filter(
        self, sizes: NDArray[np.float64], regressors: Regressors, lost: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Compute the filter of each absence, and how far that would stand out.

        Returns:
            (n, n) weights of the z of all sizes; (n,) standard deviations.
        """
        z = np.clip(_z(self.size, sizes, regressors), -CLIP, CLIP)
        free = max(len(z) - 1 - (0 if regressors is None else regressors.shape[1]), 1)
        shared = z.T @ z / free
        own = np.diag(np.diag(shared))
        shared = (1 - SHRINKAGE) * shared + SHRINKAGE * own
        left = np.sqrt(np.maximum(np.square(sizes)[:, None] - lost, 0))
        effects = (left - sizes[:, None]).mean(axis=0) / self.size.spread_
        noise = np.diag(np.square(SIZE_FLOOR / self.size.spread_, dtype=np.float64))
        weights = np.linalg.solve(shared + noise, effects.T).T
        strength = np.sqrt(np.maximum((weights * effects).sum(axis=1), 0))
        found = weights / np.hypot(strength, LEAST_EFFECT)[:, None]
        return np.asarray(found, dtype=np.float64), strength


def check_enough(count: int, kind: str) -> None:
    """Refuse healthy brains that are too few to compare sulci with.

    Raises:
        InputError: there are fewer than `MIN_HEALTHY`.
    """
    if count < MIN_HEALTHY:
        raise InputError(
            f"sulci are compared with those of at least {MIN_HEALTHY} {kind} brains, got {count}"
        )


def _covariance(places: NDArray[np.float64]) -> NDArray[np.float64]:
    """Covariance of the places of a sulcus, (3, 3) mm²; half a millimetre at least."""
    own = np.cov(places.T) if len(places) > 3 else np.eye(3)
    return np.asarray(own + 0.25 * np.eye(3), dtype=np.float64)


def _z(norm: NormativeMap, values: NDArray[np.floating], regressors: Regressors) -> Departures:
    """Departures of brains from a normative map, (N, n)."""
    rows = [None] * len(values) if regressors is None else list(regressors)
    found = [norm.z(own, row) for own, row in zip(values, rows, strict=True)]
    return np.array(found, dtype=np.float64).reshape(values.shape)
