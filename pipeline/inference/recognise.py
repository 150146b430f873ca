"""Sulci of brains by name: label volumes, and a table of what each sulcus is like."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from foldnorm.pipeline.artifacts import SULCI, SULCI_SIDECAR, SULCUS_LABELS, SULCUS_NAMES
from foldnorm.pipeline.inference.results import Row, VolumeResult
from foldnorm.pipeline.runs.run_folder import RunFolder
from foldnorm.pipeline.scoring.healthy import split_validation
from foldnorm.pipeline.scoring.latent_distance import conformal_p
from foldnorm.pipeline.scoring.out_of_distribution import OutOfDistributionDetector
from foldnorm.pipeline.scoring.participants import Participants
from foldnorm.pipeline.scoring.recognition import RecognitionScores
from foldnorm.pipeline.scoring.sulcus_measures import MEASURES, NamedBrain
from foldnorm.preprocessing.cohort.cohort import Brain, Cohort, row_key
from foldnorm.preprocessing.cohort.discretise import discretise
from foldnorm.preprocessing.cohort.each_volume import each_volume
from foldnorm.preprocessing.cohort.input_space import InputSpace
from foldnorm.preprocessing.core.files import write_json, write_tsv
from foldnorm.preprocessing.core.problems import Problem
from foldnorm.preprocessing.io.schemes import LabelScheme
from foldnorm.preprocessing.io.volumes import read_labels, write_labels
from foldnorm.preprocessing.spatial.space import Matrix

if TYPE_CHECKING:  # torch and MONAI take seconds and memory, and names by an atlas do without them
    import torch

    from foldnorm.pipeline.scoring.network_labeller import NetworkLabeller


@dataclass(frozen=True)
class LabelledBrain:
    """A brain whose sulci are named.

    Attributes:
        key: of the brain, ``sub-…_hemi-…``.
        labels: (I, J, K) uint8, number of the sulcus, 0 for any other voxel.
        affine: (4, 4) of them.
        input: file in whose grid they lie; None for the grid of the cohort.
        rows: of ``sulci.tsv``, one a sulcus.
    """

    key: str
    labels: NDArray[np.uint8]
    affine: Matrix
    input: Path | None
    rows: list[Row]


@dataclass(frozen=True)
class SulcusLabeller:
    """A trained model that names sulci, and healthy brains to compare with.

    Attributes:
        run: its folder.
        reference: its training cohort.
        network: the model, as it labels brains.
        scores: of sulci, fitted on half of the validation split.
        calibration: departures of the other half, (M, n) by kind.
        detector: tells which brains cannot be judged.
    """

    run: RunFolder
    reference: Cohort
    network: "NetworkLabeller"
    scores: RecognitionScores
    calibration: dict[str, NDArray[np.float64]]
    detector: OutOfDistributionDetector

    @classmethod
    def open(cls, folder: Path, reference: Path | None, device: "torch.device") -> "SulcusLabeller":
        """Load a run.

        Raises:
            InputError: its model names no sulci.
        """
        from foldnorm.pipeline.scoring.network_labeller import NetworkLabeller

        run = RunFolder.open(folder)
        trained = run.load(device)
        cohort = run.training_cohort(reference)
        network = NetworkLabeller(trained, cohort.scheme)
        compared, others = split_validation(cohort)
        scores = RecognitionScores(network, cohort.affine)
        scores.fit(cohort.view(compared))
        calibration = scores.norms.departures(scores.measures(cohort.brains(others)))
        detector = OutOfDistributionDetector(cohort.scheme).fit(cohort)
        return cls(run, cohort, network, scores, calibration, detector)

    def label(self, cohort: Cohort, splits: Sequence[str] = ()) -> "SulcusLabellingResult":
        """Name the sulci of the brains of a cohort, and measure each.

        Raises:
            InputError: the cohort was prepared otherwise than the run's, or has no brain of these
                splits.
        """
        self.run.check_cohort(cohort)
        return SulcusLabellingResult(self, cohort, cohort.some_indices(*splits))

    def labelled(self, cohort: Cohort, row: Mapping[str, str], brain: NamedBrain) -> LabelledBrain:
        """Bring the names of a brain of a cohort to the grid of its input, and measure each."""
        space = InputSpace.from_row(cohort, row)
        used, flag = self._roles.role(row), self.detector.flag(Brain(brain.volume, row))
        known = {"participant_id": row["participant_id"], "hemi": row["hemi"]}
        known |= {"used_for": used, "flag": flag}
        rows = []
        named = zip(self.network.sulci, self._measures(brain, space), strict=True)
        for sulcus, measures in named:
            if used or flag:
                measures = {k: v for k, v in measures.items() if not k.startswith("p_")}
            rows.append({**known, "sulcus": sulcus, **measures})
        labels = in_space(brain.labels, space, cohort.scheme)
        return LabelledBrain(row_key(row), labels, space.affine, space.path, rows)

    @cached_property
    def _roles(self) -> Participants:
        return Participants.from_cohorts(self.reference, (), ())

    def _measures(self, brain: NamedBrain, space: InputSpace) -> list[dict[str, float]]:
        """Compute the columns of each sulcus of a brain."""
        measures = brain.measure(self.reference.affine)
        departures = self.scores.norms.departures(measures[None])
        found = []
        for n, own in enumerate(measures):
            figures = dict(zip(MEASURES, map(float, own), strict=True))
            figures |= places_of(own[2:5], self.reference.affine, space)
            for kind, z in departures.items():
                figures[f"z_{kind}"] = float(z[0, n])
                p = conformal_p(z[:, n], self.calibration[kind][:, n])
                figures[f"p_{kind}"] = float(p[0])
            found.append(figures)
        return found


@dataclass
class SulcusLabellingResult(VolumeResult[LabelledBrain]):
    """Sulci of brains by name, made one brain at a time.

    Label volumes lie in the grid of each brain's input where that is still there, else in that of
    the cohort.

    Attributes:
        labeller: that names them.
        cohort: the brains.
        indices: which of them.
        inputs: ``sub-…_hemi-…`` → the file in whose grid its labels lie, or None; of those made so
            far.
    """

    labeller: SulcusLabeller
    cohort: Cohort
    indices: NDArray[np.int64]
    inputs: dict[str, str | None] = field(default_factory=dict, init=False)

    def _make(self) -> Iterator[LabelledBrain]:
        cohort, labeller = self.cohort, self.labeller

        def label(few: Sequence[int]) -> Iterator[LabelledBrain]:
            brains = labeller.network.named(cohort.brains(few))
            for index, brain in zip(few, brains, strict=True):
                yield labeller.labelled(cohort, cohort.rows[index], brain)

        for _, made in each_volume(
            cohort, self.indices.tolist(), label, self.failed, together=cohort.n_together
        ):
            self.inputs[made.key] = None if made.input is None else str(made.input)
            yield made

    @property
    def problems(self) -> list[Problem]:
        """Brains whose sulci could not be named, and those that cannot be judged."""
        flags = {row_key(row): row["flag"] for row in self.table if row["flag"]}
        unjudged = [Problem(key, f"{flag}; no p-value") for key, flag in flags.items()]
        return [*self.failed, *unjudged]

    @property
    def sidecar(self) -> dict[str, Any]:
        """Content of ``sulci.json``, when the volumes have been made."""
        m = len(self.labeller.calibration["missing"])
        return {
            "run": str(self.labeller.run.folder.resolve()),
            "cohort": str(self.cohort.folder.resolve()),
            "phantom": self.cohort.is_phantom,
            "brains": len(self.indices),
            "sulci": list(self.labeller.network.sulci),
            "calibrated_on": m,
            "smallest_p": 1 / (m + 1),
            "columns": dict(SULCI.columns),
            "labels_in_grid_of": self.inputs,
        }

    def _write(self, out: Path) -> None:
        """Write a label volume a brain, ``sulci.tsv``, ``sulcus_names.tsv`` and ``sulci.json``."""
        for made in self:
            path = out / SULCUS_LABELS.of(brain=made.key)
            write_labels(path, made.labels, made.affine, description="foldnorm RECOGNISED sulci")
        write_tsv(out / SULCI, self.table, tuple(SULCI.columns))
        sulci = self.labeller.network.sulci
        names = [{"label": n, "name": name} for n, name in enumerate(sulci, start=1)]
        write_tsv(out / SULCUS_NAMES, names, tuple(SULCUS_NAMES.columns))
        write_json(out / SULCI_SIDECAR, self.sidecar)


def places_of(centre: NDArray[np.float64], affine: Matrix, space: InputSpace) -> dict[str, float]:
    """Columns of the place of a sulcus: world mm of its input, and MNI mm where that is known.

    Args:
        centre: (3,), mm of the packed grid.
        affine: (4, 4) of that grid.
        space: of the input.
    """
    voxel = np.linalg.inv(affine) @ np.append(centre, 1)
    figures: dict[str, float] = {}
    for suffix, matrix in (("", space.to_world), ("_mni", space.to_mni)):
        if matrix is not None:
            place = zip("xyz", matrix @ voxel, strict=False)
            figures |= {f"{axis}{suffix}": float(value) for axis, value in place}
    return figures


def in_space(
    packed: NDArray[np.integer], space: InputSpace, scheme: LabelScheme
) -> NDArray[np.uint8]:
    """Labels of a brain in a space, (I, J, K) uint8, 0 where it has no structure there.

    Args:
        packed: (I, J, K) of them, in the grid of the cohort.
        space: of the input.
        scheme: of the input.
    """
    labels = space.labels_to_input_grid(packed).astype(np.uint8)
    if space.path is not None:
        own = read_labels(space.path, assume=space.assume)
        labels *= scheme.foreground(discretise(own.data, scheme, path=space.path))
    return labels
