"""Scores of brains by sulci that an atlas names: which is missing, without training or network."""

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from itertools import repeat
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from foldnorm.pipeline.artifacts import SCORER_ATLAS, SULCUS_DEPARTURES, SULCUS_EVIDENCE
from foldnorm.pipeline.scoring.atlas_labeller import AtlasLabeller
from foldnorm.pipeline.scoring.compared_sulci import ComparedSulci, Measured, OnSulci, Row
from foldnorm.pipeline.scoring.design import Design
from foldnorm.pipeline.scoring.fitted import Fitted, State
from foldnorm.pipeline.scoring.healthy import Group
from foldnorm.pipeline.scoring.latent_distance import conformal_p
from foldnorm.pipeline.scoring.map_scores import Map, ScoreTable
from foldnorm.pipeline.scoring.sulcus_norms import (
    PANEL,
    Departures,
    SulcusNorms,
    check_enough,
)
from foldnorm.pipeline.scoring.sulcus_voids import void_by_sulcus
from foldnorm.pipeline.scoring.void import VoidScores
from foldnorm.preprocessing.cohort.cohort import (
    Brain,
    Cohort,
    CohortView,
    family_of,
    row_key,
    same_preparation,
)
from foldnorm.preprocessing.core.errors import InputError
from foldnorm.preprocessing.core.files import sha256
from foldnorm.preprocessing.naming.alignment import Alignment
from foldnorm.preprocessing.naming.atlas import SulcusAtlas

MIN_OF_SITE = 16  # healthy hemispheres of a site, for brains to be compared with those of their own
SIZES = ("scheme", "voxel_size", "factor", "method", "thin")  # preparation that sizes depend on
PREFIX = "sulcus"


class SulcusScores(Fitted):
    """Scores of hemispheres by their sulci, each compared with the same one of healthy people.

    An atlas names the folds, and sizes are as they are in its space, so that a large brain is none
    with large sulci. Each side is compared with its own side, each brain without its own family
    (`family_of`); where healthy brains are of several sites, with the mean of its own, if that has
    `MIN_OF_SITE` of them. See `SulcusNorms` for what is compared. Folds are named by
    their place alone: shifts of sulci to their folds name more of these right, but move a sulcus
    that is missing to the folds of another (AUROC .96 without and .92 with, 191 deletions of
    MMRR-21).

    Given scores by voids, ``sulcus_missing`` is what names and voids say together; each alone is
    ``sulcus_unnamed`` and ``sulcus_void``. Without them it is what names say.

    Args:
        cohort: says how brains were prepared.
        atlas: of sulci; None before `load`.
        covariates: columns that the healthy mean of sizes depends on.
        void: fitted, or loaded, before these on the same brains.

    Attributes:
        design_: what that mean depends on, as numbers.
        norms_: of each side.
        people: participants who were fitted on.
        calibration_: departures of healthy hemispheres by side and kind, (M, n), each compared
            with the others.
    """

    FITTED_ON: ClassVar[Group] = "all_known"

    def __init__(
        self,
        cohort: Cohort,
        atlas: SulcusAtlas | None = None,
        covariates: Sequence[str] = (),
        void: VoidScores | None = None,
    ) -> None:
        self.cohort, self.covariates, self.void = cohort, tuple(covariates), void
        self._owners = np.zeros(0, dtype=np.str_)
        self._known: dict[str, Measured] = {}
        if atlas is not None:
            self._use(atlas)

    @property
    def sulci(self) -> tuple[str, ...]:
        """Names of the sulci."""
        return self.atlas.names

    @property
    def kinds(self) -> tuple[str, ...]:
        """Kinds of departures."""
        joined = () if self.void is None else SULCUS_EVIDENCE
        return (*SULCUS_DEPARTURES, *joined)

    @property
    def names(self) -> list[str]:
        """Names of the scores."""
        return [f"{PREFIX}_{kind}" for kind in (*self.kinds, PANEL)]

    @property
    def families(self) -> list[str]:
        """Family of each healthy hemisphere; none of scores that were loaded."""
        return [str(family) for family in self._owners]

    def fit(self, healthy: Sequence[Brain], n_local: int = 0) -> Self:
        """Learn what sulci of healthy hemispheres are like.

        Args:
            healthy: hemispheres; see `MapScores.fit`.
            n_local: so many of them, the last ones, are of the site of the brains that will be
                scored: they move the mean towards theirs, and calibrate.

        Raises:
            InputError: there are too few of a side.
        """
        rows = healthy.rows if isinstance(healthy, CohortView) else [b.row for b in healthy]
        measured = []
        voids: Iterable[Map | None] = repeat(None) if self.void is None else self.void.maps(healthy)
        for brain, z in zip(healthy, voids, strict=False):
            measured.append(self.measured(brain, z=z))
            self._known[_digest(brain)] = measured[-1]
        return self.fit_measured(measured, rows, n_local)

    def fit_measured(
        self, measured: Sequence[Measured], rows: Sequence[Row], n_local: int = 0
    ) -> Self:
        """Learn what sulci of healthy hemispheres are like by their measures; see `fit`."""
        is_local = np.arange(len(rows)) >= len(rows) - n_local
        self.design_ = Design.fit(self.covariates, rows, n_local, MIN_OF_SITE)
        self.people = {row["participant_id"] for row in rows}
        self._healthy = list(measured)
        self._owners = np.array([family_of(row) for row in rows])
        self._sides = np.array([row["hemi"] for row in rows])
        self._regressors = self.design_.encode(rows, is_local)
        self._without = lru_cache(maxsize=1)(self._left_out)
        self.norms_, self.calibration_ = {}, {}
        calibrates = is_local if n_local else np.ones(len(rows), dtype=np.bool_)
        for hemi in map(str, np.unique(self._sides)):
            own = np.flatnonzero(self._sides == hemi)
            check_enough(len(own), f"healthy {hemi}")
            self.norms_[hemi] = self._fitted(own)
            by_family = own[np.argsort(self._owners[own], kind="stable")]  # which is left out once
            found = [self._departures(measured[n], rows[n]) for n in by_family if calibrates[n]]
            self.calibration_[hemi] = {
                kind: np.array([z[kind][0] for z in found]).reshape(-1, len(self.sulci))
                for kind in self.kinds
            }
        return self

    def state_dict(self) -> State:
        """Return sums over the healthy hemispheres, and departures of each, without names."""
        return {
            "design": self.design_.as_dict(),
            "norms": {hemi: own.state_dict() for hemi, own in self.norms_.items()},
            "calibration": self.calibration_,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> Self:
        """Take what `state_dict` gave."""
        self.design_ = Design.from_dict(state["design"])
        self.norms_ = {
            hemi: SulcusNorms(len(self.sulci)).load_state_dict(own)
            for hemi, own in state["norms"].items()
        }
        self.calibration_ = state["calibration"]
        return self

    def save(self, folder: Path) -> None:
        """Write what was learned, and the atlas."""
        super().save(folder)
        self.atlas.save(folder / SCORER_ATLAS)

    def load(self, folder: Path) -> Self:
        """Read what `save` has written."""
        self._use(SulcusAtlas.open(folder / SCORER_ATLAS))
        return super().load(folder)

    def score(
        self,
        brains: Iterable[Brain],
        on_sulci: OnSulci | None = None,
        voids: Iterable[Map] | None = None,
    ) -> ScoreTable:
        """Scores of each brain by name, (N,) each: of its most unusual sulcus.

        Args:
            brains: hemispheres.
            on_sulci: called with the sulci of each brain.
            voids: map of each brain by `VoidScores`, if it is known already.

        Raises:
            InputError: a brain is none, or of a side that no healthy one is of.
        """
        found = []
        for brain, z in zip(brains, repeat(None) if voids is None else voids, strict=False):
            own = self.compared(self.measured(brain, z=z), brain.row)
            found.append([own.scores[name] for name in self.names])
            if on_sulci is not None:
                on_sulci(own)
        values = np.array(found, dtype=np.float64).reshape(-1, len(self.names))
        return dict(zip(self.names, values.T, strict=True))

    def measured(
        self, brain: Brain, alignment: Alignment | None = None, z: Map | None = None
    ) -> Measured:
        """Name a brain and measure its sulci; one that was fitted is not aligned again.

        Args:
            brain: a hemisphere.
            alignment: of its folds with the atlas, if it is known already.
            z: (1, I, J, K), its map by `VoidScores`, if it is known already.

        Raises:
            InputError: it is no hemisphere.
        """
        digest = _digest(brain)
        if digest in self._known:
            return self._known[digest]
        named = self.labeller.name(brain, alignment)
        if self.void is None:
            return Measured.of(named)
        z = next(self.void.maps([brain])) if z is None else z
        side = self.labeller.side(brain.row)
        return Measured.of(named, void_by_sulcus(z[0], side, named.to_atlas, self.sulci))

    @property
    def calibrated_on(self) -> int:
        """Number of hemispheres that p-values of a side are counted in, the least of the sides."""
        return min((len(own["missing"]) for own in self.calibration_.values()), default=0)

    def check(self, cohort: Cohort) -> None:
        """Refuse brains whose sheets were made otherwise: their sizes would be others.

        Raises:
            InputError: what is unlike.
        """
        unlike = same_preparation(
            *({key: own.preparation.get(key) for key in SIZES} for own in (self.cohort, cohort))
        )
        if unlike:
            raise InputError(
                f"prepared otherwise ({', '.join(unlike)}) than {self.cohort.folder}: "
                f"{cohort.folder}"
            )

    def compared(self, measured: Measured, row: Row) -> ComparedSulci:
        """Compare the sulci of a hemisphere with those of healthy ones of other families.

        Raises:
            InputError: it is of a side that no healthy one is of.
        """
        departures = self._departures(measured, row)
        known = self.calibration_.get(row["hemi"], {})
        p = {
            kind: np.array([conformal_p(z[:, n], known[kind][:, n])[0] for n in range(z.shape[1])])
            for kind, z in departures.items()
            if len(known.get(kind, ()))
        }
        scores = self.norms_[row["hemi"]].scores(departures)
        return ComparedSulci(
            row,
            measured.measures,
            {kind: z[0] for kind, z in departures.items()},
            p,
            {f"{PREFIX}_{kind}": float(own[0]) for kind, own in scores.items()},
        )

    def _use(self, atlas: SulcusAtlas) -> None:
        self.atlas = atlas
        self.labeller = AtlasLabeller(atlas, self.cohort, by_place=True)  # see the class

    def norms_of(self, row: Row) -> SulcusNorms:
        """Return what a hemisphere is compared with: the healthy of its side, without its family.

        Raises:
            InputError: no healthy one is of that side.
        """
        hemi, family = row.get("hemi", ""), family_of(row)
        if hemi not in self.norms_:
            raise InputError(
                f"is of side {hemi or 'unknown'}, the healthy brains of "
                f"{', '.join(self.norms_)}: {row_key(row)}"
            )
        is_known = bool(family) and family in self._owners
        return self._without(hemi, family) if is_known else self.norms_[hemi]

    def _departures(self, measured: Measured, row: Row) -> dict[str, Departures]:
        """Departures of a hemisphere from those of its side, (1, n) by kind."""
        regressors = self.design_.encode([row], np.array([True]))
        voids = None if measured.voids is None else measured.voids[None]
        return self.norms_of(row).departures(measured.measures[None], regressors, voids)

    def _left_out(self, hemi: str, family: str) -> SulcusNorms:
        """Norms of a side without a family."""
        return self._fitted(np.flatnonzero((self._sides == hemi) & (self._owners != family)))

    def _fitted(self, indices: NDArray[np.int64]) -> SulcusNorms:
        own = [self._healthy[n] for n in indices]
        rows = None if self._regressors is None else self._regressors[indices]
        return SulcusNorms(len(self.sulci)).fit(
            np.array([one.measures for one in own]),
            rows,
            np.array([one.lost for one in own]),
            None if self.void is None else np.array([one.voids for one in own]),
        )


def _digest(brain: Brain) -> str:
    """Digest of all that a brain is named by."""
    folds = b"" if brain.folds is None else brain.folds().tobytes()
    return sha256(brain.volume.tobytes() + folds + row_key(brain.row).encode())
