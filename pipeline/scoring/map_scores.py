"""Scores of brains by a map of each, compared place by place with healthy brains."""

from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import chain, tee
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from foldnorm.pipeline.scoring.design import Design
from foldnorm.pipeline.scoring.fitted import Fitted, State
from foldnorm.pipeline.scoring.healthy import Group
from foldnorm.pipeline.scoring.normative import NormativeMap
from foldnorm.preprocessing.cohort.cohort import Brain, CohortView, family_of
from foldnorm.preprocessing.core.errors import InputError
from foldnorm.preprocessing.io.schemes import LabelScheme

MIN_HEALTHY = 8  # brains; fewer say nothing of what is usual
KEPT_BYTES = 1 << 29  # of raw maps of healthy brains, which are needed several times
TOP_SHARE = 0.002  # of a map that a local score looks at
NEIGHBOURS = np.ones((3, 3, 3), dtype=np.bool_)  # 26-connected: a diagonal sheet is one component
Map = NDArray[np.float32]
OnMap = Callable[[Map], None]
ScoreTable = dict[str, NDArray[np.float64]]


class MapScores(Fitted):
    """Scores of brains by maps, each in standard deviations of healthy brains.

    ``…_component``: mass of the heaviest component: of what is connected and reaches a threshold.
    ``…_top``: mean of the largest 0.2 % of z.

    No fold can be missing outside of a brain, so z is 0 there: a place of a latent map is a block
    that reaches beyond the hull, and a network draws the hull of a larger brain. Healthy maps are
    not cut: their outlines differ, and where most of them are outside their mean would be 0.

    A brain that is among the healthy ones is compared with the others of them: without itself, the
    other hemisphere, and relatives (`family_of`). Scores that were saved and loaded hold sums over
    the healthy brains and none of them: any brain is compared with all of them, and who uses such
    scores must know that it is not one of these.

    Args:
        covariates: columns that the healthy mean depends on linearly, such as age.

    Attributes:
        directions: what the maps are of, the first axis of each: ``missing``, and perhaps
            ``unexpected`` folds.
        normative: what healthy brains have at each place.
        design_: what the healthy mean depends on, as numbers.
    """

    FITTED_ON: ClassVar[Group] = "unseen"  # and on controls
    PREFIX: ClassVar[dict[str, str]]  # direction → beginning of the names of its scores
    THRESHOLD: ClassVar[float]  # z that the voxels of a component reach
    KINDS: ClassVar[tuple[str, ...]] = ("component", "top")
    QUANTITY: ClassVar[str]  # what a map says at each place, as a reader would call it
    UNIT: ClassVar[str]  # of it; may be empty

    scheme: LabelScheme  # of the volumes; says what is outside
    directions: tuple[str, ...] = ("missing",)
    normative: NormativeMap

    def __init__(self, covariates: Sequence[str] = ()) -> None:
        self.covariates = tuple(covariates)

    @abstractmethod
    def raw_maps(self, brains: Iterable[Brain]) -> Iterator[Map]:
        """Map of each brain before it is compared, (directions, I, J, K) float32."""

    def fit(self, healthy: Sequence[Brain], n_local: int = 0) -> Self:
        """Learn what healthy brains have at each place.

        Args:
            healthy: that the model, if there is any, was not trained on; read several times, one
                at a time, so it may be a view of a cohort.
            n_local: so many of them, the last ones, are of the site of the brains that will be
                scored; among brains of other sites, they move the healthy mean towards theirs.

        Raises:
            InputError: there are fewer than `MIN_HEALTHY`.
        """
        if len(healthy) < MIN_HEALTHY:
            raise InputError(
                f"brains are compared with at least {MIN_HEALTHY} healthy ones, got {len(healthy)} "
                "(more by --controls, or by a larger share for validation, preprocess "
                "--split-fractions)"
            )
        self._healthy: Sequence[Brain] = healthy
        self._kept: list[Map] = []
        rows = healthy.rows if isinstance(healthy, CohortView) else [b.row for b in healthy]
        self.design_ = Design.fit(self.covariates, rows, n_local)
        self._regressors = self.design_.encode(rows, np.arange(len(rows)) >= len(rows) - n_local)
        self._owners = [family_of(row) for row in rows]
        self._known = frozenset(self._owners) - {""}
        self.normative.fit(self._healthy_maps, self._regressors, self._owners)
        self._without = lru_cache(maxsize=1)(self._left_out)
        return self

    def state_dict(self) -> State:
        """Return sums over the healthy brains, and the rule by which covariates become numbers."""
        return {"normative": self.normative.state_dict(), **self.design_.as_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> Self:
        """Take what `state_dict` gave."""
        self.normative.load_state_dict(state["normative"])
        self.design_ = Design.from_dict(state)
        self._healthy, self._owners, self._known = (), [], frozenset()
        return self

    def maps(self, brains: Iterable[Brain]) -> Iterator[Map]:
        """Yield maps in standard deviations of healthy brains, (directions, I, J, K) float32."""
        for _, z, _ in self._compared(brains):
            yield z

    def healthy_statistics(self, row: Mapping[str, str]) -> tuple[Map, Map]:
        """Mean and spread of the healthy brains that a brain is compared with.

        Args:
            row: of ``participants.tsv``; its family is left out.

        Returns:
            Two arrays of (directions, I, J, K) float32, in `UNIT`, after smoothing.
        """
        normative, covariates = self._normative_for(row)
        return normative.expected(covariates), normative.spread_

    @property
    def healthy(self) -> Sequence[Brain]:
        """Healthy brains that others are compared with; none of scores that were loaded."""
        return self._healthy

    @property
    def families(self) -> list[str]:
        """Family of each of the healthy brains, see `family_of`."""
        return list(self._owners)

    def score(self, brains: Iterable[Brain], on_map: OnMap | None = None) -> ScoreTable:
        """Scores of each brain by name, (N,) each; a high score means unusual.

        Args:
            brains: in any number, one at a time.
            on_map: called with the map of each brain, see `maps`, in their order.
        """
        found = []
        for family, z, raw in self._compared(brains):
            scores = [self._scores(z[n], raw[n], n, family) for n in range(len(z))]
            found.append([value for own in scores for value in own])
            if on_map is not None:
                on_map(z)
        values = np.array(found, dtype=np.float64).reshape(-1, len(self.names))
        return dict(zip(self.names, values.T, strict=True))

    @property
    def names(self) -> list[str]:
        """Names of the scores."""
        return [f"{self.PREFIX[d]}_{kind}" for d in self.directions for kind in self.KINDS]

    def _scores(self, z: Map, raw: Map, direction: int, family: str) -> list[float]:
        """Scores of one direction of a brain, one for each of `KINDS`."""
        del raw, direction, family
        return [largest_mass(z, self.THRESHOLD), top_share_mean(z)]

    def _compared(self, brains: Iterable[Brain]) -> Iterator[tuple[str, Map, Map]]:
        """Family of each brain, its map in standard deviations, and as it was; 0 outside."""
        first, second = tee(brains)
        for brain, raw in zip(second, self.raw_maps(first), strict=True):
            normative, covariates = self._normative_for(brain.row)
            z = normative.z(raw, covariates)
            yield family_of(brain.row), self._inside(z, brain), self._inside(raw, brain)

    def _inside(self, values: Map, brain: Brain) -> Map:
        """Return a map of a brain, (directions, I, J, K), with 0 outside the brain."""
        return np.where(self.scheme.outside(brain.volume), np.float32(0), values)

    def _normative_for(
        self, row: Mapping[str, str]
    ) -> tuple[NormativeMap, NDArray[np.float64] | None]:
        """Normative map without a brain's family, and the brain's covariates (p,)."""
        family = family_of(row)
        known = family in self._known
        covariates = self.design_.encode([row], np.array([True]))
        normative = self._without(family) if known else self.normative
        return normative, None if covariates is None else covariates[0]

    def _healthy_maps(self) -> Iterator[Map]:
        """Raw map of each healthy brain; the first ones are kept, and not made again."""
        yield from self._kept
        for raw in self.raw_maps(
            self._healthy[n] for n in range(len(self._kept), len(self._healthy))
        ):
            if (len(self._kept) + 1) * raw.nbytes <= KEPT_BYTES:
                self._kept.append(raw)
            yield raw

    def _left_out(self, family: str) -> NormativeMap:
        """Normative map of all healthy brains but those of a family."""
        own = [n for n, owner in enumerate(self._owners) if owner == family]
        if len(own) == len(self._owners):
            raise InputError(f"no healthy brain but those of {family} to compare it with")
        design = None if self._regressors is None else self._regressors[own]
        kept = [self._kept[n] for n in own if n < len(self._kept)]
        rest = self.raw_maps(self._healthy[n] for n in own if n >= len(self._kept))
        maps = chain(kept, rest)
        return self.normative.without(maps, design, family)


def label_components(z: NDArray[np.floating], threshold: float) -> tuple[NDArray[np.int32], int]:
    """Label the 26-connected components of voxels that reach a threshold.

    Returns:
        (I, J, K) number of each voxel's component, 0 for none; and how many there are.
    """
    labels, count = ndimage.label(z >= threshold, NEIGHBOURS)
    return labels, int(count)


def component_masses(
    z: NDArray[np.floating], labels: NDArray[np.int32], count: int, threshold: float
) -> NDArray[np.float64]:
    """Mass of each component: the sum of what its voxels have above the threshold, (count,).

    The cluster mass of Bullmore et al. 1999 (doi:10.1109/42.750253): a large component just above
    the threshold weighs as little as a small one far above it.
    """
    if not count:
        return np.zeros(0)
    numbers = np.arange(1, count + 1)
    return np.asarray(ndimage.sum_labels(z - threshold, labels, numbers), dtype=np.float64)


def largest_mass(z: NDArray[np.floating], threshold: float) -> float:
    """Mass of the heaviest component, 0 where there is none."""
    return float(component_masses(z, *label_components(z, threshold), threshold).max(initial=0.0))


def top_share_mean(z: NDArray[np.floating]) -> float:
    """Mean of the largest `TOP_SHARE` of a map: local evidence that a sum would hide."""
    count = max(round(TOP_SHARE * z.size), 1)
    return float(np.partition(z, -count, axis=None)[-count:].mean())
