"""Sulci of brains by name: label volumes, and a table of what each sulcus is like."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from foldnorm.pipeline.artifacts import SULCI, SULCI_SIDECAR, SULCUS_LABELS, SULCUS_NAMES
from foldnorm.pipeline.runs.run_folder import RunFolder
from foldnorm.pipeline.scoring.healthy import split_validation
from foldnorm.pipeline.scoring.latent_distance import conformal_p
from foldnorm.pipeline.scoring.out_of_distribution import OutOfDistributionDetector
from foldnorm.pipeline.scoring.recognition import RecognitionScores
from foldnorm.pipeline.scoring.sulcus_measures import MEASURES, NamedBrain, NetworkLabeller
from foldnorm.preprocessing.cohort.cohort import Brain, Cohort, row_key
from foldnorm.preprocessing.cohort.input_space import InputSpace
from foldnorm.preprocessing.cohort.preprocess import options_like, preprocess
from foldnorm.preprocessing.core.errors import InputError
from foldnorm.preprocessing.core.files import write_json, write_tsv
from foldnorm.preprocessing.io.schemes import LabelScheme, discretise
from foldnorm.preprocessing.io.sources import Problem, Source
from foldnorm.preprocessing.io.volumes import read_labels, write_labels

PREPARED = "prepared"  # in OUT: the cohort that an input which is none was made


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
    network: NetworkLabeller
    scores: RecognitionScores
    calibration: dict[str, NDArray[np.float64]]
    detector: OutOfDistributionDetector

    @classmethod
    def open(cls, folder: Path, reference: Path | None, device: torch.device) -> "SulcusLabeller":
        """Load a run.

        Raises:
            InputError: its model names no sulci.
        """
        run = RunFolder.open(folder)
        trained = run.load(device)
        cohort = run.training_cohort(reference)
        network = NetworkLabeller(trained, cohort.scheme)
        compared, others = split_validation(cohort)
        scores = RecognitionScores(network, cohort.affine)
        scores.fit(cohort.view(compared))
        calibration = scores.departures(scores.measures(cohort.brains(others)))
        detector = OutOfDistributionDetector(cohort.scheme).fit(cohort)
        return cls(run, cohort, network, scores, calibration, detector)

    def cohort_of(
        self, source: str, out: Path, *, overwrite: bool, quiet: bool
    ) -> tuple[Cohort, list[Problem]]:
        """Prepare a source as the training cohort was, in ``out``; return it and what failed."""
        options = options_like(
            self.reference.folder,
            folds="none",
            fractions=(0.0, 0.0, 1.0),
            overwrite=overwrite,
            quiet=quiet,
        )
        report = preprocess([Source.parse(source)], out / PREPARED, options)
        if not report["done"]:
            reasons = "; ".join(f"{f['volume']}: {f['reason']}" for f in report["failed"])
            raise InputError(f"no volume of {source} could be prepared: {reasons}")
        failed = [Problem(f["volume"], f["reason"]) for f in report["failed"]]
        return Cohort.open(out / PREPARED), failed

    def recognise(
        self, cohort: Cohort, out: Path, splits: Sequence[str] = ()
    ) -> tuple[list[dict[str, Any]], list[Problem]]:
        """Name the sulci of a cohort; see `SULCI`, `SULCUS_NAMES` and label volumes in ``out``.

        Label volumes lie in the grid of each brain's input where that is still there, else in that
        of the cohort.

        Returns:
            The rows of the table, one a brain and sulcus; and brains that cannot be judged.

        Raises:
            InputError: the cohort was prepared otherwise than the run's, or has no brain of these
                splits.
        """
        self.run.check_cohort(cohort)
        indices = cohort.some_indices(*splits)
        roles = {row["participant_id"]: row["split"] for row in self.reference.rows}
        sulci = self.network.sulci
        rows, inputs, problems = [], {}, list[Problem]()
        brains = self.network.named(cohort.brains(indices))
        for index, brain in zip(indices, brains, strict=True):
            row = cohort.rows[index]
            space = InputSpace.from_row(cohort, row)
            inputs[row_key(row)] = None if space.path is None else str(space.path)
            labels = in_space(brain, space, cohort.scheme)
            path = out / SULCUS_LABELS.of(brain=row_key(row))
            write_labels(path, labels, space.affine, description="foldnorm RECOGNISED sulci")
            used = {"train": "training", "validation": "calibration"}.get(
                roles.get(row["participant_id"], ""), ""
            )
            flag = self.detector.flag(Brain(brain.volume, row))
            if flag:
                problems.append(Problem(row_key(row), f"{flag}; no p-value"))
            known = {"participant_id": row["participant_id"], "hemi": row["hemi"]}
            known |= {"used_for": used, "flag": flag}
            for sulcus, figures in zip(sulci, self._figures(brain, space), strict=True):
                if used or flag:
                    figures = {k: v for k, v in figures.items() if not k.startswith("p_")}
                rows.append({**known, "sulcus": sulcus, **figures})
        write_tsv(out / SULCI, rows, tuple(SULCI.columns))
        names = [{"label": n, "name": name} for n, name in enumerate(sulci, start=1)]
        write_tsv(out / SULCUS_NAMES, names, tuple(SULCUS_NAMES.columns))
        write_json(out / SULCI_SIDECAR, self._sidecar(cohort, len(indices), inputs))
        return rows, problems

    def _figures(self, brain: NamedBrain, space: InputSpace) -> list[dict[str, float]]:
        """Compute the columns of each sulcus of a brain."""
        measures = brain.measure(self.reference.affine)
        departures = self.scores.departures(measures[None])
        to_voxel = np.linalg.inv(self.reference.affine)
        found = []
        for n, own in enumerate(measures):
            figures = dict(zip(MEASURES, map(float, own), strict=True))
            voxel = to_voxel @ np.append(own[2:5], 1)
            for suffix, matrix in (("", space.to_world), ("_mni", space.to_mni)):
                if matrix is not None:
                    place = zip("xyz", matrix @ voxel, strict=False)
                    figures |= {f"{axis}{suffix}": float(value) for axis, value in place}
            for kind, z in departures.items():
                figures[f"z_{kind}"] = float(z[0, n])
                p = conformal_p(z[:, n], self.calibration[kind][:, n])
                figures[f"p_{kind}"] = float(p[0])
            found.append(figures)
        return found

    def _sidecar(
        self, cohort: Cohort, brains: int, inputs: dict[str, str | None]
    ) -> dict[str, Any]:
        m = len(self.calibration["missing"])
        return {
            "run": str(self.run.folder.resolve()),
            "cohort": str(cohort.folder.resolve()),
            "phantom": cohort.is_phantom,
            "brains": brains,
            "sulci": list(self.network.sulci),
            "calibrated_on": m,
            "smallest_p": 1 / (m + 1),
            "columns": dict(SULCI.columns),
            "labels_in_grid_of": inputs,
        }


def in_space(brain: NamedBrain, space: InputSpace, scheme: LabelScheme) -> NDArray[np.uint8]:
    """Labels of a brain in a space, (I, J, K) uint8, 0 where it has no structure there."""
    labels = space.labels_to_input_grid(brain.labels).astype(np.uint8)
    if space.path is not None:
        own = read_labels(space.path)
        labels *= scheme.foreground(discretise(own.data, scheme, path=space.path))
    return labels
