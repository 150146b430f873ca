"""Sulci of brains by name, by an atlas: no training, no network."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foldnorm.pipeline.artifacts import (
    NAMED_FOLDS,
    SULCI,
    SULCI_SIDECAR,
    SULCUS_LABELS,
    SULCUS_NAMES,
    SULCUS_PICTURE,
)
from foldnorm.pipeline.inference.recognise import LabelledBrain, in_space, places_of
from foldnorm.pipeline.inference.results import Row, VolumeResult
from foldnorm.pipeline.scoring.atlas_labeller import AtlasLabeller, AtlasNamedBrain, HealthySulci
from foldnorm.pipeline.scoring.sulcus_measures import MEASURES
from foldnorm.preprocessing.cohort.cohort import Cohort, row_key
from foldnorm.preprocessing.cohort.colours import many_colours
from foldnorm.preprocessing.cohort.each_volume import each_volume
from foldnorm.preprocessing.cohort.input_space import InputSpace
from foldnorm.preprocessing.cohort.pictures import contact_sheet, png
from foldnorm.preprocessing.core.files import write_bytes, write_json, write_tsv
from foldnorm.preprocessing.io.sources import Problem
from foldnorm.preprocessing.io.volumes import write_labels
from foldnorm.preprocessing.naming.atlas import SulcusAtlas
from foldnorm.preprocessing.spatial.crop import bounding_box

# mm between where a transform to MNI space puts a brain and where the atlas fits it: more is said.
FAR_OFF = 4.5
# Mean log likelihood of a fold below what the atlas expects: sixteen hemispheres of three sites lie
# .1 to .5 above, turned around they lie .37 and more below. An atlas of few brains says nothing.
UNLIKELY, ENOUGH_BRAINS = 0.35, 20
LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class AtlasLabelledBrain(LabelledBrain):
    """A brain whose sulci are named by an atlas.

    Attributes:
        folds: rows of ``folds.tsv``, one a fold.
        moved: mm between the given position and that in the atlas.
        likelihood: see `Alignment`.
        is_placed: a transform to MNI space was known.
    """

    folds: list[Row] = field(default_factory=list)
    moved: float = 0.0
    likelihood: float = 0.0
    is_placed: bool = True


@dataclass
class AtlasLabellingResult(VolumeResult[AtlasLabelledBrain]):
    """Sulci of brains by name, by an atlas, made one brain at a time.

    Attributes:
        path: of the atlas.
        atlas: of sulci.
        cohort: the brains.
        indices: which of them.
        healthy: to compare with; None: no z and no p.
        inputs: ``sub-…_hemi-…`` → the file in whose grid its labels lie, or None; of those made so
            far.
        folds: rows of ``folds.tsv`` of those made so far.
        alignments: how each lies in the atlas, of those made so far.
    """

    path: Path
    atlas: SulcusAtlas
    cohort: Cohort
    indices: NDArray[np.int64]
    healthy: HealthySulci | None = None
    inputs: dict[str, str | None] = field(default_factory=dict, init=False)
    folds: list[Row] = field(default_factory=list, init=False)
    alignments: dict[str, dict[str, Any]] = field(default_factory=dict, init=False)

    def _make(self) -> Iterator[AtlasLabelledBrain]:
        self.folds.clear()
        names = AtlasLabeller(self.atlas, self.cohort)

        def label(indices: Sequence[int]) -> Iterator[AtlasLabelledBrain]:
            for index in indices:
                yield self._labelled(names, index)

        for _, brain in each_volume(self.cohort, self.indices.tolist(), label, self.failed):
            self.inputs[brain.key] = None if brain.input is None else str(brain.input)
            self.folds += brain.folds
            self.alignments[brain.key] = {
                "transform_known": brain.is_placed,
                "moved_mm": round(brain.moved, 2),
                "log_likelihood": round(brain.likelihood, 3),
            }
            if brain.is_placed and brain.moved > FAR_OFF:
                LOG.warning(
                    "%s: the atlas fits it %.1f mm from where its transform to MNI space puts it; "
                    "named where the atlas fits",
                    brain.key,
                    brain.moved,
                )
            yield brain

    def _labelled(self, names: AtlasLabeller, index: int) -> AtlasLabelledBrain:
        row = self.cohort.rows[index]
        (brain,) = self.cohort.brains([index])
        named = names.name(brain)
        space = InputSpace.from_row(self.cohort, row)
        known: Row = {"participant_id": row["participant_id"], "hemi": row["hemi"]}
        alignment = named.folds.alignment
        side = names.side(row)
        is_odd = alignment.likelihood < side.expected - UNLIKELY and side.peak >= ENOUGH_BRAINS
        flag = "lies in the atlas unlike a hemisphere of that side" if is_odd else ""
        measures = named.measure(self.cohort.affine)
        departures: list[dict[str, float]] = [{} for _ in measures]
        used = ""
        if self.healthy is not None:
            departures = self.healthy.compared(named, row["hemi"])
            used = "calibration" if row["participant_id"] in self.healthy.people else ""
        rows = []
        for sulcus, own, away in zip(self.atlas.names, measures, departures, strict=True):
            figures: Row = dict(zip(MEASURES, map(float, own), strict=True))
            figures |= places_of(own[2:5], self.cohort.affine, space)
            is_judged = not (flag or used)
            figures |= {k: v for k, v in away.items() if is_judged or not k.startswith("p_")}
            rows.append({**known, "used_for": used, "flag": flag, "sulcus": sulcus, **figures})
        return AtlasLabelledBrain(
            row_key(row),
            in_space(named, space, self.cohort.scheme),
            space.affine,
            space.path,
            rows,
            [known | own for own in _fold_rows(named)],
            alignment.moved,
            alignment.likelihood,
            named.is_placed,
        )

    @property
    def problems(self) -> list[Problem]:
        """Brains whose sulci could not be named, and those that lie in the atlas like none."""
        flags = {row_key(row): row["flag"] for row in self.table if row["flag"]}
        return [*self.failed, *(Problem(key, flag) for key, flag in flags.items())]

    @property
    def _calibration(self) -> dict[str, Any]:
        assert self.healthy is not None
        m = self.healthy.calibrated_on
        return {"calibrated_on": m, "smallest_p": 1 / (m + 1)}

    @property
    def sidecar(self) -> dict[str, Any]:
        """Content of ``sulci.json``, when the volumes have been made."""
        return {
            "atlas": {"path": str(self.path.resolve()), **self.atlas.about},
            "cohort": str(self.cohort.folder.resolve()),
            "phantom": self.cohort.is_phantom,
            "brains": len(self.indices),
            "sulci": list(self.atlas.names),
            **({} if self.healthy is None else self._calibration),
            "alignments": self.alignments,
            "columns": dict(SULCI.columns),
            "labels_in_grid_of": self.inputs,
        }

    def _write(self, out: Path) -> None:
        """Write label volumes, pictures, ``sulci.tsv``, ``folds.tsv`` and their sidecars."""
        colours = many_colours(len(self.atlas.names))
        for made in self:
            path = out / SULCUS_LABELS.of(brain=made.key)
            write_labels(path, made.labels, made.affine, description="foldnorm RECOGNISED sulci")
            picture = contact_sheet([seen_from_outside(made.labels, colours)])
            write_bytes(out / SULCUS_PICTURE.of(brain=made.key), png(picture))
        write_tsv(out / SULCI, self.table, tuple(SULCI.columns))
        write_tsv(out / NAMED_FOLDS, self.folds, tuple(NAMED_FOLDS.columns))
        names = [{"label": n, "name": name} for n, name in enumerate(self.atlas.names, start=1)]
        write_tsv(out / SULCUS_NAMES, names, tuple(SULCUS_NAMES.columns))
        write_json(out / SULCI_SIDECAR, self.sidecar)


def seen_from_outside(
    labels: NDArray[np.uint8], colours: NDArray[np.uint8]
) -> list[NDArray[np.uint8]]:
    """Labels as they are seen from left, right and above, three pictures (rows, columns, 3).

    Args:
        labels: (I, J, K), in RAS+ order; 0 is transparent.
        colours: (n + 1 or more, 3) of them.
    """
    held = bounding_box(labels > 0)
    labels = labels if held is None else labels[held.slices]
    views = []
    for axis, from_end in ((0, False), (0, True), (2, True)):
        rows = np.flip(labels, axis) if from_end else labels
        first = (rows > 0).argmax(axis=axis, keepdims=True)
        seen = np.take_along_axis(rows, first, axis).squeeze(axis)
        views.append(colours[seen].transpose(1, 0, 2)[::-1])
    return views


def _fold_rows(brain: AtlasNamedBrain) -> list[Row]:
    """Rows of ``folds.tsv``, largest fold first."""
    folds = brain.folds
    voxels = np.bincount(brain.fold_labels, minlength=int(folds.labels.max()) + 1)[folds.labels]
    columns = {
        "fold": folds.labels.tolist(),
        "voxels": voxels.tolist(),
        "sulcus": folds.names(),
        "probability": np.round(folds.probabilities(), 3).tolist(),
        "second": folds.names(1),
        "second_probability": np.round(folds.probabilities(1), 3).tolist(),
    }
    rows = [dict(zip(columns, cells, strict=True)) for cells in zip(*columns.values(), strict=True)]
    return sorted(rows, key=lambda row: -row["voxels"])
