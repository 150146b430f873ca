"""Calibrated anomaly scores: fitted on healthy brains, kept in a folder, applied anywhere."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeAlias

from foldnorm.pipeline.artifacts import (
    BRAIN,
    MISSING_SULCUS,
    SCORER,
)
from foldnorm.pipeline.data.sulcus_labels import NamesPlaces, SulciByPlace
from foldnorm.pipeline.runs.provenance import describe_supervision
from foldnorm.pipeline.scoring.alike import check_alike
from foldnorm.pipeline.scoring.brain_scores import ASYMMETRY, VOID, BrainScores
from foldnorm.pipeline.scoring.calibration import Calibration
from foldnorm.pipeline.scoring.compared_sulci import ComparedSulci, sulcus_columns
from foldnorm.pipeline.scoring.evidence_maps import EvidenceMaps, MapWriter, remove_map_tables
from foldnorm.pipeline.scoring.fitted import read_state, write_state
from foldnorm.pipeline.scoring.healthy_folds import HealthyFolds
from foldnorm.pipeline.scoring.map_scores import MIN_HEALTHY, Map, OnMap
from foldnorm.pipeline.scoring.out_of_distribution import OutOfDistributionDetector
from foldnorm.pipeline.scoring.participants import Participants
from foldnorm.pipeline.scoring.score_cohort import ScoreResult, add_p_values, is_judged
from foldnorm.pipeline.scoring.scorer_files import (
    CALIBRATION,
    DETECTOR,
    FAMILIES,
    FOLDS,
    FORMAT,
    MODEL,
    PERSONAL_DATA,
    SULCI,
    copy_layout,
    digests_of,
    read_about,
)
from foldnorm.pipeline.scoring.sulcus_counts import SulcusCounts
from foldnorm.preprocessing.cohort.cohort import Brain, Cohort, row_key
from foldnorm.preprocessing.cohort.each_volume import each_volume
from foldnorm.preprocessing.cohort.layout import LAYOUT_FOLDER
from foldnorm.preprocessing.cohort.quality import read_warnings
from foldnorm.preprocessing.core.errors import InputError, making_sense_of
from foldnorm.preprocessing.core.files import write_json
from foldnorm.preprocessing.core.locks import held
from foldnorm.preprocessing.core.problems import Problem
from foldnorm.preprocessing.naming.atlas import SulcusAtlas

if TYPE_CHECKING:  # torch takes seconds, and scores without a model do without it
    import torch

    from foldnorm.pipeline.runs.forward_pass import AskedPrecision, Precision
    from foldnorm.pipeline.runs.trained_model import TrainedModel

Row: TypeAlias = dict[str, Any]


class Scorer:
    """Scores brains, says which can be judged, and turns scores into p-values.

    A scorer that was saved is a folder that can be sent to another lab, and scores a brain there
    without the healthy brains: it holds the weights of the model, what was fitted on healthy
    brains, the scores of those that calibrate, and how brains must be prepared (``foldnorm
    preprocess --layout-from FOLDER``). Of persons it holds what `PERSONAL_DATA` says, no more. It
    differs in three ways from one with the healthy brains at hand: it gives no p-value to a brain
    whose family is among the healthy ones that maps are compared with, because these cannot be left
    out of sums; pages show no healthy brains; and sulci of regions are named by how often each
    voxel is part of them.

    Example::

        scorer = Scorer(model).fit(cohort, controls=our_healthy)
        result = scorer.score(patients)
        result.save(out, maps=True)

    Args:
        model: that was trained; None for scores that need none.
        precision: in which the model computes; ``auto``: as it was trained, where that is faster.
        method: what results call it; by default the class of the model, or ``void``.
        asymmetry: also compare each hemisphere with the other one of its brain, see
            `AsymmetryScores`.
        atlas: of sulci, to compare those that it names, see `SulcusScores`.

    Attributes:
        scores_: fitted scores of all families.
        calibration_: healthy brains that p-values are counted in.
        detector_: tells which brains cannot be judged.
        participants_: who took part.
        prepared_: how brains must be prepared: a cohort, of which nothing else is needed.
        shape_: of each volume.
        fitted_on_: number of training brains; without a model, of healthy brains.
    """

    def __init__(
        self,
        model: "TrainedModel | None" = None,
        *,
        precision: "AskedPrecision" = "auto",
        method: str = "",
        asymmetry: bool = False,
        atlas: SulcusAtlas | None = None,
    ) -> None:
        self.model, self.precision, self.asymmetry = model, precision, asymmetry
        self.atlas = atlas
        self.method = method or (VOID if model is None else type(model.model).__name__)

    def fit(
        self,
        cohort: Cohort,
        *,
        controls: Cohort | None = None,
        covariates: Sequence[str] = (),
    ) -> Self:
        """Fit all scores on healthy brains, and calibrate them.

        Args:
            cohort: that the model was trained on; without a model, healthy brains.
            controls: healthy brains of the site or scanner of those that will be scored. Normative
                maps are moved towards them, and they calibrate.
            covariates: columns of ``participants.tsv`` that the healthy mean of a map depends on.

        Raises:
            InputError: there are too few healthy brains, or controls were prepared otherwise; or
                asymmetry is asked for where hemispheres are not in one layout.
        """
        self._source: Cohort | Path = cohort
        self.prepared_, self.shape_ = cohort, cohort.shape
        self._folds: HealthyFolds | None = None
        if controls is not None:
            self.check_prepared(controls)
        model = None if self.model is None else self.model.for_scoring(self.precision)
        self.scores_ = BrainScores(model, asymmetry=self.asymmetry, atlas=self.atlas)
        self.scores_.fit(cohort, controls=controls, covariates=covariates)
        self.calibration_ = Calibration.from_scores(self.scores_, cohort, controls)
        self.detector_ = OutOfDistributionDetector(cohort.scheme).fit(cohort, controls)
        self.participants_ = Participants.from_cohorts(
            cohort, self.calibration_.rows, self.scores_.compared_families
        )
        of_fit = cohort.indices(*(() if self.model is None else ("train",)))
        self.fitted_on_ = len(of_fit)
        return self

    def score(
        self,
        cohort: Cohort,
        *,
        splits: tuple[str, ...] = (),
        across_sites: bool = False,
        on_map: OnMap | None = None,
    ) -> ScoreResult:
        """Score the brains of a cohort; each goes through the model once.

        One that its source warns of keeps its p-value, with the warning beside it. One that cannot
        be read is named in the result, and the others are scored.

        Args:
            cohort: prepared as the healthy brains were.
            splits: of the cohort to score; all if empty.
            across_sites: judge brains of sites (column ``site``) that no calibration brain is of.
            on_map: called with the map of each brain when it has been made; see `ScoreResult.maps`.

        Raises:
            InputError: the cohort was prepared otherwise, or has no such brain, or none of them
                can be scored.
        """
        rows, failed = self._to_be_scored(cohort, splits, across_sites=across_sites)
        told = None if on_map is None else (lambda _, z: on_map(z))
        return self._scored(cohort, rows, failed, told)

    def _to_be_scored(
        self, cohort: Cohort, splits: tuple[str, ...], *, across_sites: bool
    ) -> tuple[dict[int, Row], list[Problem]]:
        """Return a row for each brain to score by its index, and the brains that cannot be read."""
        self.check_prepared(cohort)
        warnings, failed = read_warnings(cohort.folder), list[Problem]()

        def rows_of(few: Sequence[int]) -> Iterator[Row]:
            for brain in cohort.brains(few):
                yield self._row(brain, warnings, across_sites=across_sites)

        indices = cohort.some_indices(*splits).tolist()
        return dict(each_volume(cohort, indices, rows_of, failed)), failed

    def _scored(
        self,
        cohort: Cohort,
        rows: dict[int, Row],
        failed: list[Problem],
        on_map: Callable[[int, Map], None] | None,
    ) -> ScoreResult:
        """Score brains.

        Args:
            cohort: of the brains.
            rows: of each by its index.
            failed: brains that could not be read; those that cannot be scored are added.
            on_map: called with the index of each brain and its map.
        """
        sulci: list[Row] = []
        scored, scores = self.scores_.score_each(
            cohort,
            list(rows),
            failed,
            on_map,
            lambda index, compared: sulci.extend(self._sulcus_rows(rows[index], compared)),
        )
        table = [rows[index] for index in scored]
        add_p_values(table, scores, self.calibration_)
        has_maps = bool(self.scores_.map_scores)
        return ScoreResult(
            table=table,
            names=tuple(scores),
            calibration=self.calibration_,
            about=self._about(cohort),
            fitted_on=self.fitted_on_,
            evidence=self.evidence_maps(cohort, scored, table) if has_maps else None,
            failed=failed,
            sulci=sulci,
        )

    def _sulcus_rows(self, row: Row, compared: ComparedSulci) -> list[Row]:
        """Rows of the sulci of a brain; its own row gets the name of the most missing one."""
        assert self.scores_.named_sulci is not None
        names = self.scores_.named_sulci.sulci
        row[MISSING_SULCUS] = names[int(compared.z["missing"].argmax())]
        known = {key: row[key] for key in (*BRAIN, "used_for", "flag")}
        found = sulcus_columns(compared, is_judged=is_judged(row))
        return [{**known, "sulcus": name, **own} for name, own in zip(names, found, strict=True)]

    def check_prepared(self, cohort: Cohort) -> None:
        """Refuse brains that were not prepared as the healthy ones were.

        Raises:
            InputError: with what differs.
        """
        like = self._source if isinstance(self._source, Path) else self._source.folder
        check_alike(self.prepared_, self.shape_, like, cohort)

    def evidence_maps(
        self, cohort: Cohort, indices: Sequence[int], rows: Sequence[Mapping[str, Any]]
    ) -> EvidenceMaps:
        """Return the maps of brains, and what is needed to write them.

        Args:
            cohort: the brains.
            indices: which of them.
            rows: of each, with ``flag`` and ``used_for``: what has either gets no p-value.

        Raises:
            InputError: there are too few healthy brains for maps.
        """
        if not self.scores_.map_scores:
            raise InputError(f"maps need at least {MIN_HEALTHY} healthy brains: {self._source}")
        return EvidenceMaps(
            scores=self.scores_.map_scores[0],
            calibration=self.calibration_,
            folds=self.healthy_folds,
            sulci=self.sulci_by_place,
            cohort=cohort,
            indices=indices,
            judged=[is_judged(row) for row in rows],
            method=self.method,
        )

    def healthy_folds(self) -> HealthyFolds:
        """Return the counts of folds in the healthy brains that maps are compared with."""
        if self._folds is None:
            folds = HealthyFolds(self.prepared_.scheme)
            if isinstance(self._source, Path):
                self._folds = folds.load(self._source / FOLDS)
            else:
                self._folds = folds.fit(self.scores_.map_scores[0])
        return self._folds

    def sulci_by_place(self) -> NamesPlaces:
        """Return the look-up of the sulcus that training brains have at a place."""
        if isinstance(self._source, Path):
            return SulcusCounts().load(self._source / SULCI)
        return SulciByPlace(self._source)

    def save(self, folder: Path) -> None:
        """Write a folder that `load` reads; see the class for what it holds.

        Raises:
            InputError: the model was not loaded from a run, or the scorer from such a folder; or
                another process writes to the folder.
        """
        if isinstance(self._source, Path):
            raise InputError(f"a saved scorer is copied as a folder: {self._source}")
        with held(folder):
            self._write(folder, self._source)

    def _write(self, folder: Path, source: Cohort) -> None:
        """Write the files of `save`; ``source`` is the cohort that was fitted on."""
        (folder / SCORER).unlink(missing_ok=True)  # it says that the rest is whole
        if self.model is not None:
            from foldnorm.pipeline.scoring.model_files import save_model

            save_model(self.model, folder / MODEL)
        copy_layout(source.folder, folder / LAYOUT_FOLDER)
        who = self.participants_.without_names()
        self.scores_.save(folder / FAMILIES)
        self.detector_.save(folder / DETECTOR)
        write_state(folder / CALIBRATION, self.calibration_.state_dict(who.salt))
        if self.scores_.map_scores:
            self.healthy_folds().save(folder / FOLDS)
            SulcusCounts().fit(source).save(folder / SULCI)
        about = {
            "format": FORMAT,
            "foldnorm": version("foldnorm"),
            "method": Path(self.method).name,  # folders above it are nobody else's business
            "precision": self._computes_in,
            "scores": list(self.scores_.families_),
            "shape": list(self.shape_),
            "fitted_on": self.fitted_on_,
            "personal_data": PERSONAL_DATA,
            "participants": who.as_dict(),
        }
        write_json(folder / SCORER, {**about, "sha256": digests_of(folder, about)})

    @classmethod
    def load(cls, folder: Path, device: "torch.device | str" = "cpu") -> Self:
        """Read what `save` has written.

        Args:
            folder: that it was written to.
            device: where the model runs.

        Raises:
            InputError: it is none, of another version of foldnorm, or damaged.
        """
        with making_sense_of(folder):
            return cls._load(folder, device)

    @classmethod
    def _load(cls, folder: Path, device: "torch.device | str") -> Self:
        about = read_about(folder)
        precision = about["precision"]  # None without a model
        model = None
        if precision:
            from foldnorm.pipeline.scoring.model_files import load_model

            model = load_model(folder / MODEL, device)
        scorer = cls(
            model,
            precision=precision or "auto",
            method=about["method"],
            asymmetry=ASYMMETRY in about["scores"],
        )
        scorer._source, scorer._folds = folder, None
        layout = folder / LAYOUT_FOLDER
        scorer.prepared_ = Cohort(layout, Cohort.describe(layout), [])
        scorer.shape_, scorer.fitted_on_ = tuple(about["shape"]), about["fitted_on"]
        trained = None if model is None else model.for_scoring(precision)
        scores = BrainScores(trained, asymmetry=scorer.asymmetry)
        scorer.scores_ = scores.load(folder / FAMILIES, scorer.prepared_, about["scores"])
        scorer.detector_ = OutOfDistributionDetector(scorer.prepared_.scheme).load(
            folder / DETECTOR
        )
        scorer.calibration_ = Calibration.from_state(read_state(folder / CALIBRATION))
        scorer.participants_ = Participants.from_dict(about["participants"])
        return scorer

    @property
    def _computes_in(self) -> "Precision | None":
        """Precision of the model, if there is one."""
        trained = self.scores_.trained
        return None if trained is None else trained.precision

    def _row(self, brain: Brain, warnings: Mapping[str, str], *, across_sites: bool) -> Row:
        """Build the row of a brain: whose it is, and why it may have no p-value."""
        row = brain.row
        flag = self.participants_.flag(row) or self.detector_.flag(brain)
        if not flag and not across_sites:
            flag = self.calibration_.without_site(row)
        return {
            "participant_id": row["participant_id"],
            "hemi": row["hemi"],
            "used_for": self.participants_.role(row),
            "flag": flag,
            "warning": warnings.get(row_key(row), ""),
        }

    def _about(self, cohort: Cohort) -> dict[str, Any]:
        """Describe the scorer and the cohort, for ``scores.json``."""
        source: dict[str, Any] = {}
        if isinstance(self._source, Path):
            source["scorer"] = str(self._source)
        else:
            source["reference"] = str(self._source.folder)
            if self._source.splits:
                source["reference_splits"] = self._source.splits
        return {
            "cohort": str(cohort.folder),
            **source,
            "phantom": cohort.is_phantom,
            "precision": self._computes_in,
            "knows_unlike_brains": self.detector_.knows_,
            "learned_from": describe_supervision(self.scores_.edits, self.scores_.sulci),
        }


def score_into(
    out: Path,
    scorer: Scorer,
    cohort: Cohort,
    *,
    splits: tuple[str, ...] = (),
    across_sites: bool = False,
    maps: bool = False,
) -> tuple[ScoreResult, dict[str, str | None]]:
    """Score a cohort and write the result, maps of each brain as soon as it is scored.

    Args:
        out: folder.
        scorer: fitted.
        cohort: the brains.
        splits: see `Scorer.score`.
        across_sites: likewise.
        maps: write them; see `MapWriter`.

    Returns:
        The result, and `MapWriter.inputs`.
    """
    remove_map_tables(out)
    rows, failed = scorer._to_be_scored(cohort, splits, across_sites=across_sites)
    writer = None
    if maps:
        writer = MapWriter(scorer.evidence_maps(cohort, list(rows), list(rows.values())), out)
    result = scorer._scored(cohort, rows, failed, None if writer is None else writer.add)
    result.save(out)
    if writer is None:
        return result, {}
    writer.close()
    return result, writer.inputs
