"""The codes of a cohort by a trained model."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from foldnorm.pipeline.runs.devices import choose_device
from foldnorm.pipeline.runs.run_folder import RunFolder
from foldnorm.pipeline.runs.trained_model import TrainedModel
from foldnorm.preprocessing.cohort.cohort import Cohort, row_key
from foldnorm.preprocessing.cohort.each_volume import each_volume
from foldnorm.preprocessing.core.errors import InputError
from foldnorm.preprocessing.core.problems import Problem

Codes = NDArray[np.float64]


@dataclass(frozen=True)
class LatentSpace:
    """A model, brains, and their codes.

    Attributes:
        trained: the model; it encodes.
        cohort: the brains.
        indices: those of its volumes that were encoded, (N,).
        codes: (N, d) float64.
        failed: brains that cannot be read or encoded, and why.
        training: (N,) which of them the model was trained on, as they are here: none of an altered
            cohort.
    """

    trained: TrainedModel
    cohort: Cohort
    indices: NDArray[np.int64]
    codes: Codes
    training: NDArray[np.bool_]
    failed: Sequence[Problem] = ()

    @classmethod
    def open(
        cls, run_folder: Path, cohort_folder: Path, splits: Sequence[str], device: str
    ) -> "LatentSpace":
        """Encode the volumes of some splits, all if none is named; one that fails is left out.

        Raises:
            InputError: the model has no latent space, the cohort was prepared otherwise than the
                run's, or it has no such brain, or none that can be encoded.
        """
        run, cohort = RunFolder.open(run_folder), Cohort.open(cohort_folder)
        run.check_cohort(cohort)
        trained, failed = run.load(choose_device(device)), list[Problem]()
        indices, codes = encode_each(trained, cohort, cohort.some_indices(*splits), failed)
        participants = [cohort.rows[i]["participant_id"] for i in indices]
        altered = cohort.description["Cohort"].get("deletion") is not None
        own = set() if altered else set(run.trained_on(participants))
        training = np.array([participant in own for participant in participants])
        return cls(trained, cohort, indices, codes.astype(np.float64), training, failed)

    @property
    def rows(self) -> list[Mapping[str, str]]:
        """Rows of ``participants.tsv``, one a code."""
        return [self.cohort.rows[i] for i in self.indices]

    @property
    def keys(self) -> list[str]:
        """``participant`` or ``participant_hemi-L`` of each code."""
        return [row_key(row) for row in self.rows]

    def evenly_spaced(self, count: int) -> list[int]:
        """Return the indices of ``count`` brains, at most all, evenly spaced over all."""
        ends = np.linspace(0, len(self.codes) - 1, min(count, len(self.codes)))
        return np.unique(ends.round().astype(np.int64)).tolist()

    def index_of(self, key: str) -> int:
        """Return the index of the code of a brain.

        Args:
            key: its participant, where that has one brain here, or one of `keys`; with or without
                ``sub-``.

        Raises:
            InputError: none, or several.
        """
        wanted = key if key.startswith("sub-") else f"sub-{key}"
        for problem in self.failed:
            if wanted in (problem.key, problem.key.split("_")[0]):
                raise InputError(f"{problem.key}: {problem.reason}")
        found = [n for n, own in enumerate(self.keys) if own == wanted]
        found = found or [n for n, r in enumerate(self.rows) if r["participant_id"] == wanted]
        if not found:
            raise InputError(
                f"{key!r}: expected one of the {len(self.keys)} brains here, got no such brain"
            )
        if len(found) > 1:
            raise InputError(
                f"{key!r} has {len(found)} brains here; give one of them: "
                f"{', '.join(self.keys[n] for n in found)}"
            )
        return found[0]

    def decode(
        self, codes: Codes, condition_of: Mapping[str, str] | None = None
    ) -> Iterator[NDArray[np.float32]]:
        """Class probabilities of codes, (C, I, J, K) each, or (1, *sides) intensities of images.

        One at a time.

        Args:
            codes: (n, d).
            condition_of: row that a conditioned model is told; None: nothing is known.
        """
        trained = self.trained
        row = condition_of or {column.name: "" for column in trained.conditions.columns}
        condition = trained.condition([row])
        for code in codes:
            batch = torch.from_numpy(code[None].astype(np.float32)).to(trained.device)
            with trained.computing():
                made = trained.decodes.decode(batch, condition).float()
            if not self.cohort.holds_images:
                made = torch.softmax(made, dim=1)
            yield made[0].cpu().numpy()

    def volume_of(self, decoded: NDArray[np.float32]) -> NDArray[Any]:
        """Convert what `decode` yields to a volume: the likeliest classes, or intensities."""
        if self.cohort.holds_images:
            return decoded[0]
        return decoded.argmax(axis=0).astype(np.uint8)


def encode_each(
    trained: TrainedModel, cohort: Cohort, indices: NDArray[np.int64], failed: list[Problem]
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Encode volumes of a cohort; one that fails does not end the others.

    Args:
        trained: it encodes.
        cohort: of the volumes.
        indices: of them.
        failed: to which those are added that cannot be read or encoded, and why.

    Returns:
        Indices of the volumes that are encoded, (N,), and their codes, (N, d).

    Raises:
        InputError: none of them can be encoded.
    """

    def encode(few: Sequence[int]) -> NDArray[np.float32]:
        return trained.encode(cohort.brains(few))

    found = dict(each_volume(cohort, indices.tolist(), encode, failed, together=cohort.n_together))
    codes = np.stack(list(found.values())) if found else trained.encode([])
    return np.array(list(found), dtype=np.int64), codes


def principal_axes(codes: Codes) -> Codes:
    """Return codes along their principal axes, in order of variance, (N, d)."""
    centred = codes - codes.mean(axis=0)
    u, singular, _ = np.linalg.svd(centred, full_matrices=False)
    kept = singular > singular[0] * 1e-10 if singular[0] > 0 else singular >= 0
    return np.asarray(u[:, kept] * singular[kept], dtype=np.float64)
