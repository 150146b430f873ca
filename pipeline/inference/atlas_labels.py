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
from foldnorm.pipeline.inference.atlas_folds import (
    LEAST_PROBABILITY,
    fold_rows,
    known_share,
    named_labels,
    why_unnamed,
)
from foldnorm.pipeline.inference.atlas_orientation import MirrorCheck, fits_as
from foldnorm.pipeline.inference.recognise import LabelledBrain, in_space, places_of
from foldnorm.pipeline.inference.results import Row, VolumeResult
from foldnorm.pipeline.scoring.atlas_labeller import AtlasLabeller, AtlasNamedBrain
from foldnorm.pipeline.scoring.compared_sulci import sulcus_columns
from foldnorm.pipeline.scoring.sulcus_measures import MEASURES
from foldnorm.pipeline.scoring.sulcus_scores import SulcusScores
from foldnorm.preprocessing.cohort.cohort import Cohort, row_key
from foldnorm.preprocessing.cohort.colours import many_colours
from foldnorm.preprocessing.cohort.each_volume import each_volume
from foldnorm.preprocessing.cohort.input_space import InputSpace
from foldnorm.preprocessing.cohort.pictures import contact_sheet, png
from foldnorm.preprocessing.core.counts import counted
from foldnorm.preprocessing.core.files import write_bytes, write_json, write_tsv
from foldnorm.preprocessing.core.problems import Problem
from foldnorm.preprocessing.io.volumes import write_labels
from foldnorm.preprocessing.naming.atlas import SIDES, SulcusAtlas
from foldnorm.preprocessing.naming.gyri import VOCABULARIES
from foldnorm.preprocessing.spatial.crop import bounding_box

# mm between where a transform to MNI space puts a brain and where the atlas fits it: more is said.
FAR_OFF = 4.5
# A fit from so many mm away is none, as of an atlas whose millimetres are voxels; nor is one that
# leaves nearly all folds where no sulcus of the atlas runs: by gyri that is every second voxel.
ELSEWHERE, LEAST_KNOWN = 60.0, 0.2
OTHER_SPACE = "does not lie where the sulci of the atlas do: is one of them in another space?"
# Mean log likelihood of a fold above what the atlas expects: 42 hemispheres of one site lie .25 to
# .52 above, turned around or taken for the other side .13 to .7 below. What an atlas of few brains
# expects says little: there a hemisphere is unlike its side only if it is like something else. So
# it is in an atlas by gyri: folds inside them, which it does not know, fit anywhere (right ones lie
# .38 to .49 above, turned ones .11 to .26, in eighteen hemispheres of two sites).
LEAST_ABOVE, LEAST_ABOVE_BY_GYRI, ENOUGH_BRAINS = 0.05, 0.4, 20
SOME_BRAINS = 5  # an atlas of fewer knows no side from another
UNLIKE = "lies in the atlas unlike a {} hemisphere"
EXCHANGED = (
    "the hemispheres fit the mirror image of the atlas better: are left and right exchanged? (%s)"
)
LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class AtlasLabelledBrain(LabelledBrain):
    """A brain whose sulci are named by an atlas.

    Attributes:
        folds: rows of ``folds.tsv``, one a fold.
        flag: why its names mean little; empty if they do not.
        moved: mm between the given position and that in the atlas.
        likelihood: see `Alignment`.
        is_placed: a transform to MNI space was known.
    """

    folds: list[Row] = field(default_factory=list)
    flag: str = ""
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
        least_probability: of a name that is given to a fold.
        inputs: ``sub-…_hemi-…`` → the file in whose grid its labels lie, or None; of those made so
            far.
        folds: rows of ``folds.tsv`` of those made so far.
        alignments: how each lies in the atlas, of those made so far.
        names: the atlas as the namer of the cohort's brains.
        mirror: comparison of the first of them with the mirror image of the atlas.
    """

    path: Path
    atlas: SulcusAtlas
    cohort: Cohort
    indices: NDArray[np.int64]
    healthy: SulcusScores | None = None
    least_probability: float = LEAST_PROBABILITY
    inputs: dict[str, str | None] = field(default_factory=dict, init=False)
    folds: list[Row] = field(default_factory=list, init=False)
    alignments: dict[str, dict[str, Any]] = field(default_factory=dict, init=False)
    names: AtlasLabeller = field(init=False, repr=False)
    mirror: MirrorCheck = field(init=False, repr=False)

    def _make(self) -> Iterator[AtlasLabelledBrain]:
        self.folds.clear()
        self.names = AtlasLabeller(self.atlas, self.cohort)
        self.mirror = MirrorCheck(self.names)
        self._warn_of_other_names()

        def label(indices: Sequence[int]) -> Iterator[AtlasLabelledBrain]:
            for index in indices:
                yield self._labelled(index)

        for _, brain in each_volume(self.cohort, self.indices.tolist(), label, self.failed):
            self.inputs[brain.key] = None if brain.input is None else str(brain.input)
            self.folds += brain.folds
            self.alignments[brain.key] = {
                "transform_known": brain.is_placed,
                "moved_mm": round(brain.moved, 2),
                "log_likelihood": round(brain.likelihood, 3),
                "flag": brain.flag,
            }
            if brain.is_placed and brain.moved > FAR_OFF:
                LOG.warning(
                    "%s: the atlas fits it %.1f mm from where its transform to MNI space puts it; "
                    "named where the atlas fits",
                    brain.key,
                    brain.moved,
                )
            yield brain
        if self.mirror.is_mirrored:
            LOG.warning(EXCHANGED, counted(len(self.mirror.losses), "hemisphere"))

    def _warn_of_other_names(self) -> None:
        own = self.atlas.about["vocabulary"]
        known = self.cohort.description["Cohort"].get("fold_vocabularies", {})
        others = [vocabulary for vocabulary in known if vocabulary != own]
        if others:
            LOG.warning(
                "the atlas names sulci as %s does, the cohort's own folds have names of %s: the "
                "same name is not the same sulcus in both",
                own,
                " and ".join(others),
            )

    def _flag(self, named: AtlasNamedBrain, row: Row) -> str:
        """Say if a hemisphere lies in the atlas unlike one of its side; empty if it does not."""
        side = self.names.side(row)
        above = LEAST_ABOVE_BY_GYRI if self._is_by_gyri else LEAST_ABOVE
        is_odd = named.folds.alignment.likelihood - side.expected < above
        is_odd = is_odd and side.peak >= SOME_BRAINS
        flag, like = (
            UNLIKE.format(SIDES[row["hemi"]]),
            fits_as(self.names, named, row) if is_odd else "",
        )
        if like:
            return f"{flag}; it fits better as {like}"
        if named.folds.alignment.moved > ELSEWHERE or known_share(named) < LEAST_KNOWN:
            return OTHER_SPACE
        if self._is_by_gyri:  # sulci between gyri are as likely in the mirror image
            return ""
        self.mirror.look(named, row)
        return flag if is_odd and side.peak >= ENOUGH_BRAINS else ""

    @property
    def _is_by_gyri(self) -> bool:
        """True if the sulci of the atlas are those between gyri."""
        return self.atlas.about["vocabulary"] in VOCABULARIES

    def _labelled(self, index: int) -> AtlasLabelledBrain:
        row = self.cohort.rows[index]
        (brain,) = self.cohort.brains([index])
        named = self.names.name(brain)
        space = InputSpace.from_row(self.cohort, row)
        known: Row = {"participant_id": row["participant_id"], "hemi": row["hemi"]}
        alignment = named.folds.alignment
        flag = self._flag(named, row)
        gyri = self.cohort.fold_gyri.get(row_key(row), {})
        unnamed = why_unnamed(named, self.least_probability, gyri, by_gyri=self._is_by_gyri)
        measures = named.measure(self.cohort.affine)
        departures: list[Row] = [{} for _ in measures]
        used = ""
        if self.healthy is not None:
            used = "calibration" if row["participant_id"] in self.healthy.people else ""
            if row["hemi"] in self.healthy.norms_:
                measured = self.healthy.measured(brain, alignment)
                compared = self.healthy.compared(measured, row)
                departures = sulcus_columns(compared, is_judged=not (flag or used))
        rows = []
        for sulcus, own, away in zip(self.atlas.names, measures, departures, strict=True):
            figures: Row = dict(zip(MEASURES, map(float, own), strict=True))
            figures |= places_of(own[2:5], self.cohort.affine, space)
            figures |= away
            rows.append({**known, "used_for": used, "flag": flag, "sulcus": sulcus, **figures})
        return AtlasLabelledBrain(
            row_key(row),
            in_space(named_labels(named, unnamed), space, self.cohort.scheme),
            space.affine,
            space.path,
            rows,
            [{**known, "flag": flag, **own} for own in fold_rows(named, unnamed)],
            flag,
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
            "atlas": {
                "path": str(self.path.resolve()),
                **self.atlas.about,
                "mirrored_for": self.names.mirrored,
            },
            "cohort": str(self.cohort.folder.resolve()),
            "phantom": self.cohort.is_phantom,
            "brains": len(self.indices),
            "sulci": list(self.atlas.names),
            "least_probability": self.least_probability,
            **({} if self.healthy is None else self._calibration),
            "alignments": self.alignments,
            "mirrored": self.mirror.is_mirrored,
            "columns": dict(SULCI.columns),
            "labels_in_grid_of": self.inputs,
        }

    def _write(self, out: Path) -> None:
        """Write label volumes, pictures, ``sulci.tsv``, ``folds.tsv`` and their sidecars."""
        colours = many_colours(len(self.atlas.names))
        for made in self:
            path = out / SULCUS_LABELS.of(brain=made.key)
            write_labels(path, made.labels, made.affine, description=described(made.flag))
            picture = contact_sheet([seen_from_outside(made.labels, colours)])
            write_bytes(out / SULCUS_PICTURE.of(brain=made.key), png(picture))
        write_tsv(out / SULCI, self.table, tuple(SULCI.columns))
        write_tsv(out / NAMED_FOLDS, self.folds, tuple(NAMED_FOLDS.columns))
        names = [{"label": n, "name": name} for n, name in enumerate(self.atlas.names, start=1)]
        write_tsv(out / SULCUS_NAMES, names, tuple(SULCUS_NAMES.columns))
        write_json(out / SULCI_SIDECAR, self.sidecar)


def described(flag: str) -> str:
    """Describe a label volume in its header, which travels without the tables."""
    return f"foldnorm RECOGNISED sulci{'; FLAGGED, see sulci.tsv' if flag else ''}"


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
