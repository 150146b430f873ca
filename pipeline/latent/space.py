"""The codes of a cohort by a trained model."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from foldnorm.pipeline.devices import choose_device
from foldnorm.pipeline.run_folder import RunFolder
from foldnorm.pipeline.trained_model import TrainedModel
from foldnorm.preprocessing.cohort import Cohort
from foldnorm.preprocessing.errors import InputError

Codes = NDArray[np.float64]


@dataclass(frozen=True)
class LatentSpace:
    """A model, brains, and their codes.

    Attributes:
        trained: the model; it encodes.
        cohort: the brains.
        indices: those of its volumes that were encoded, (N,).
        codes: (N, d) float64.
    """

    trained: TrainedModel
    cohort: Cohort
    indices: NDArray[np.int64]
    codes: Codes

    @classmethod
    def open(
        cls, run_folder: Path, cohort_folder: Path, splits: Sequence[str], device: str
    ) -> "LatentSpace":
        """Encode the volumes of some splits, all if none is named.

        Raises:
            InputError: the model has no latent space, the cohort was prepared otherwise than the
                run's, or it has no such brain.
        """
        run, cohort = RunFolder.open(run_folder), Cohort.open(cohort_folder)
        run.check_cohort(cohort)
        indices = cohort.indices(*splits)
        if not len(indices):
            raise InputError(f"no brain of split {'+'.join(splits)}: {cohort.folder}")
        trained = run.load(choose_device(device))
        codes = trained.encode(cohort.brains(indices)).astype(np.float64)
        return cls(trained, cohort, indices, codes)

    @property
    def rows(self) -> list[Mapping[str, str]]:
        """Of ``participants.tsv``, one a code."""
        return [self.cohort.rows[i] for i in self.indices]

    @cached_property
    def reduced(self) -> Codes:
        """Codes turned into their principal axes, (N, at most N − 1): all distances stay."""
        return principal_axes(self.codes)


def principal_axes(codes: Codes) -> Codes:
    """(N, d) codes, centred and turned so that axes are in order of their variance."""
    centred = codes - codes.mean(axis=0)
    u, singular, _ = np.linalg.svd(centred, full_matrices=False)
    kept = singular > singular[0] * 1e-10 if singular[0] > 0 else singular >= 0
    return np.asarray(u[:, kept] * singular[kept], dtype=np.float64)
