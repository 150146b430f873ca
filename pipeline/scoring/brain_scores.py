"""All families of scores of brains together: those of the model, and the baselines."""

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Self

import numpy as np

from foldnorm.pipeline.scoring.asymmetry import AsymmetryScores
from foldnorm.pipeline.scoring.baselines import Baselines
from foldnorm.pipeline.scoring.compared_sulci import ComparedSulci, OnSulci
from foldnorm.pipeline.scoring.families import LATENT_MAP, SHORTFALL, ScoreFamily
from foldnorm.pipeline.scoring.healthy import HealthyBrains
from foldnorm.pipeline.scoring.map_scores import (
    MIN_HEALTHY,
    Map,
    MapScores,
    OnMap,
    ScoreTable,
)
from foldnorm.pipeline.scoring.old_names import current_family
from foldnorm.pipeline.scoring.sulcus_scores import SulcusScores
from foldnorm.pipeline.scoring.void import VoidScores
from foldnorm.preprocessing.cohort.cohort import Brain, Cohort, CohortView, few_at_a_time
from foldnorm.preprocessing.cohort.each_volume import each_volume
from foldnorm.preprocessing.core.errors import InputError
from foldnorm.preprocessing.core.problems import Problem
from foldnorm.preprocessing.naming.atlas import SulcusAtlas

if TYPE_CHECKING:  # torch and MONAI take seconds, and scores without a model do without them
    from foldnorm.pipeline.runs.trained_model import TrainedModel

LOG = logging.getLogger(__name__)
VOID = "void"  # name of a family, and how brains are scored without a model
ASYMMETRY = "asymmetry"
BY_SULCI = "sulci"  # the other way: by sulci that an atlas names
NAMED_SULCI = "named_sulci"  # name of the family of these


def unfitted_families(
    trained: "TrainedModel | None",
    cohort: Cohort,
    covariates: Sequence[str] = (),
    *,
    asymmetry: bool = False,
    by_sulci: bool = False,
    atlas: SulcusAtlas | None = None,
) -> dict[str, ScoreFamily]:
    """Every family of scores that suits a model: name of its folder → family.

    A new family is one entry here, or in `unfitted_model_families` if it looks at a model. The
    order is that of the columns of ``scores.tsv``; scores by maps come first, and maps are written
    of the first of these.

    Args:
        trained: the model; None for scores that need none.
        cohort: says how brains were prepared; no brain of it is read.
        covariates: columns that the healthy mean of a map depends on.
        asymmetry: with `AsymmetryScores`.
        by_sulci: with `SulcusScores`.
        atlas: for these; None before they are loaded.
    """
    of_model: dict[str, ScoreFamily] = {}
    if trained is not None:
        from foldnorm.pipeline.scoring.model_families import unfitted_model_families

        of_model = unfitted_model_families(trained, cohort, covariates)
    maps = {name: own for name, own in of_model.items() if isinstance(own, MapScores)}
    void = maps[VOID] = VoidScores(cohort.scheme, cohort.voxel_size, covariates)
    if asymmetry:
        maps[ASYMMETRY] = AsymmetryScores(cohort.scheme, cohort.voxel_size, covariates)
    others = {name: own for name, own in of_model.items() if name not in maps}
    if by_sulci:
        others[NAMED_SULCI] = SulcusScores(cohort, atlas, covariates, void)
    return {**maps, **others, "baselines": Baselines(cohort.scheme)}


class _Scored(NamedTuple):
    """Scores of a brain, its map, and its sulci."""

    scores: dict[str, float]
    z: Map | None
    sulci: ComparedSulci | None


class BrainScores:
    """Scores of brains by all families, fitted on healthy ones.

    Latent scores and baselines are fitted on the training split of a cohort. Maps (evidence of
    missing folds, distance to the nearest fold) are compared with healthy brains that the model has
    not seen, the brain's own participant left out: all of the validation split, and the controls.
    Sulci are compared with every other brain of the validation split, the rest of which calibrate.

    Args:
        trained: the model; None scores brains without any, by `VoidScores` and the baselines.
        asymmetry: also by `AsymmetryScores`.
        atlas: also by `SulcusScores`, whose sulci it names.

    Attributes:
        edits: kinds that the model learned from.
        sulci: that it names.
        families_: fitted, by name.
        healthy_: brains that they were fitted on, and that calibrate.

    Raises:
        InputError: the model neither encodes nor restores nor recognises.
    """

    def __init__(
        self,
        trained: "TrainedModel | None",
        *,
        asymmetry: bool = False,
        atlas: SulcusAtlas | None = None,
    ) -> None:
        self.trained, self.asymmetry, self.atlas = trained, asymmetry, atlas
        self.edits: tuple[str, ...] = ()
        self.sulci: tuple[str, ...] = ()
        if trained is not None:
            from foldnorm.pipeline.scoring.model_families import check_scores, edits_of, sulci_of

            check_scores(trained)
            self.edits, self.sulci = edits_of(trained), sulci_of(trained)

    def fit(
        self,
        reference: Cohort,
        *,
        controls: Cohort | None = None,
        covariates: Sequence[str] = (),
    ) -> Self:
        """Fit all families.

        Args:
            reference: the training cohort; without a model, healthy brains.
            controls: healthy brains of the site or scanner of those that will be scored. The
                normative maps are moved towards them, and they calibrate.
            covariates: columns of ``participants.tsv`` that the healthy mean of a map depends on.

        Raises:
            InputError: there are too few healthy brains; or asymmetry is asked for where
                hemispheres are not in one layout.
        """
        if self.asymmetry and not reference.preparation["mirror_right"]:
            raise InputError(
                "asymmetry compares hemispheres in one layout, and these were prepared without "
                f"--mirror-right: {reference.folder}"
            )
        self.healthy_ = HealthyBrains.from_cohorts(
            reference,
            controls,
            has_model=self.trained is not None,
            names_sulci=bool(self.sulci),
        )
        self.families_ = unfitted_families(
            self.trained,
            reference,
            covariates,
            asymmetry=self.asymmetry,
            by_sulci=self.atlas is not None,
            atlas=self.atlas,
        )
        self._drop_families_with_too_few(reference)
        for family in self.families_.values():
            brains, local = self.healthy_.group(family.FITTED_ON), self.healthy_.local
            if isinstance(family, MapScores | SulcusScores):
                family.fit(brains + local, len(local))
                continue
            family.fit(brains)
        if _mixes_sides(reference):
            LOG.warning(
                "left and right hemispheres lie in different parts of the box, and each place is "
                "compared with healthy brains of both sides: prepare with --mirror-right, or one "
                "side alone (--hemi): %s",
                reference.folder,
            )
        return self

    def _drop_families_with_too_few(self, reference: Cohort) -> None:
        """Leave out distances to folds where there are fewer than `MIN_HEALTHY` brains.

        Maps of codes, and of what is expected by them, need as many that the model was not trained
        on. A model with codes can do without all.
        """
        if len(self.healthy_.unseen + self.healthy_.local) < MIN_HEALTHY:
            for name in (LATENT_MAP, SHORTFALL):
                self.families_.pop(name, None)
        count = len(self.healthy_.all_known + self.healthy_.local)
        if count >= MIN_HEALTHY:
            return
        if self.trained is None:
            raise InputError(
                f"brains are compared with at least {MIN_HEALTHY} healthy ones, got {count} "
                f"(more by --controls): {reference.folder}"
            )
        del self.families_[VOID]

    @property
    def map_scores(self) -> list[MapScores]:
        """Scores by maps; that of the model first."""
        return [own for own in self.families_.values() if isinstance(own, MapScores)]

    @property
    def calibration(self) -> CohortView:
        """Healthy brains that p-values are counted in."""
        return self.healthy_.calibration

    @property
    def named_sulci(self) -> SulcusScores | None:
        """Scores by sulci that an atlas names, if there are any."""
        family = self.families_.get(NAMED_SULCI)
        return family if isinstance(family, SulcusScores) else None

    @property
    def compared_families(self) -> set[str]:
        """Families of the healthy brains that maps and sulci are compared with."""
        found = {family for own in self.map_scores for family in own.families}
        return found if self.named_sulci is None else found | set(self.named_sulci.families)

    def score(
        self,
        brains: Iterable[Brain],
        on_map: OnMap | None = None,
        on_sulci: OnSulci | None = None,
    ) -> ScoreTable:
        """Scores by name, (N,) each.

        Args:
            brains: in any number, read once, a few at a time; all families look at these before
                the next are read, so that what they need of the model is computed once.
            on_map: called with each brain's map of `map_scores[0]`, if there is any.
            on_sulci: called with each brain's sulci, if an atlas names them.
        """
        parts = [self._score_few(few, on_map, on_sulci) for few in few_at_a_time(brains)]
        parts = parts or [self._score_few([], None, None)]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def score_each(
        self,
        cohort: Cohort,
        indices: Sequence[int],
        failed: list[Problem],
        on_map: Callable[[int, Map], None] | None = None,
        on_sulci: Callable[[int, ComparedSulci], None] | None = None,
    ) -> tuple[list[int], ScoreTable]:
        """Score volumes of a cohort; one that cannot be read or scored does not end the others.

        Args:
            cohort: of the brains.
            indices: of them.
            failed: to which those are added that cannot be scored, and why.
            on_map: called with the index of each brain and its map of `map_scores[0]`.
            on_sulci: called with the index of each brain and its sulci, if an atlas names them.

        Returns:
            Indices of the brains that are scored, and their scores by name, (N,) each.

        Raises:
            InputError: none of them can be scored.
        """

        def score(few: Sequence[int]) -> Iterator[_Scored]:
            maps: list[Map] = []
            sulci: list[ComparedSulci] = []
            on_maps = None if on_map is None else maps.append
            found = self.score(cohort.brains(few), on_maps, sulci.append)
            for n in range(len(few)):
                own = {name: values[n] for name, values in found.items()}
                yield _Scored(own, maps[n] if maps else None, sulci[n] if sulci else None)

        scored: dict[int, dict[str, float]] = {}
        for index, (own, z, sulci) in each_volume(
            cohort, indices, score, failed, together=cohort.n_together
        ):
            scored[index] = own
            if on_map is not None and z is not None:
                on_map(index, z)
            if on_sulci is not None and sulci is not None:
                on_sulci(index, sulci)
        names = tuple(next(iter(scored.values()), ()))
        scores = {name: np.array([own[name] for own in scored.values()]) for name in names}
        return list(scored), scores

    def _score_few(
        self, brains: Sequence[Brain], on_map: OnMap | None, on_sulci: OnSulci | None
    ) -> ScoreTable:
        found: ScoreTable = {}
        voids: list[Map] = []  # of the brains, for their sulci: maps come first
        for name, family in self.families_.items():
            if isinstance(family, MapScores):
                told: list[OnMap] = [voids.append] if name == VOID else []
                told += [on_map] if on_map is not None and family is self.map_scores[0] else []
                found |= family.score(brains, partial(_tell, told))
            elif isinstance(family, SulcusScores):
                found |= family.score(brains, on_sulci, voids)
            else:
                found |= family.score(brains)
        return found

    def save(self, folder: Path) -> None:
        """Write each family to a folder of its own."""
        for name, family in self.families_.items():
            family.save(folder / name)

    def load(self, folder: Path, cohort: Cohort, names: Sequence[str]) -> Self:
        """Read what `save` has written.

        Args:
            folder: that it was written to.
            cohort: says how brains were prepared.
            names: of the families.

        Raises:
            InputError: a family is not there, or does not suit the model.
        """
        found = unfitted_families(
            self.trained, cohort, asymmetry=self.asymmetry, by_sulci=NAMED_SULCI in names
        )
        unknown = [name for name in names if current_family(name) not in found]
        if unknown:
            raise InputError(
                f"scores that this model does not give ({', '.join(unknown)}): {folder}"
            )
        self.families_ = {current_family(name): found[current_family(name)] for name in names}
        for name, family in zip(names, self.families_.values(), strict=True):
            family.load(folder / name)
        return self


def _tell(those: Sequence[OnMap], z: Map) -> None:
    """Call each of several with a map."""
    for one in those:
        one(z)


def _mixes_sides(cohort: Cohort) -> bool:
    """Say if hemispheres of both sides are in a cohort, and not in one layout."""
    sides = {row.get("hemi", "") for row in cohort.rows}
    return {"L", "R"} <= sides and not cohort.preparation["mirror_right"]
