"""Translations: what a model makes of volumes, as label volumes in the space of the input."""

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from foldnorm.models.protocols import Translates
from foldnorm.pipeline.artifacts import TRANSLATED, TRANSLATIONS, TRANSLATIONS_SIDECAR
from foldnorm.pipeline.inference.inputs import ModelInput
from foldnorm.pipeline.inference.results import Row, VolumeResult
from foldnorm.pipeline.metrics.classes import class_dice, class_distances
from foldnorm.pipeline.runs.predict import target_scheme
from foldnorm.pipeline.runs.run_folder import RunFolder
from foldnorm.pipeline.runs.trained_model import TrainedModel
from foldnorm.preprocessing.cohort.cohort import Cohort, row_key
from foldnorm.preprocessing.cohort.each_volume import each_volume
from foldnorm.preprocessing.cohort.input_space import InputSpace
from foldnorm.preprocessing.cohort.layout import Layout
from foldnorm.preprocessing.cohort.preparation import Preparation
from foldnorm.preprocessing.cohort.prepared_index import prepared_volume
from foldnorm.preprocessing.core.arrays import VolumeArray
from foldnorm.preprocessing.core.errors import InputError
from foldnorm.preprocessing.core.files import write_json, write_tsv
from foldnorm.preprocessing.io.schemes import LabelScheme
from foldnorm.preprocessing.io.volumes import label_dtype, write_labels
from foldnorm.preprocessing.spatial.crop import shifted_affine
from foldnorm.preprocessing.spatial.space import Matrix, resample_nearest

Labels = NDArray[np.uint8]


@dataclass(frozen=True)
class Translator:
    """A trained model that translates, and what it was trained on.

    Attributes:
        run: its folder.
        trained: the model.
    """

    run: RunFolder
    trained: TrainedModel

    @classmethod
    def open(cls, folder: Path, device: torch.device) -> "Translator":
        """Load a run.

        Raises:
            InputError: its model does not translate.
        """
        run = RunFolder.open(folder)
        trained = run.load(device)
        if not isinstance(trained.model, Translates):
            raise InputError(f"{type(trained.model).__name__} does not translate: {folder}")
        return cls(run, trained)

    @property
    def model(self) -> Translates:
        """The model, in evaluation mode."""
        return self.trained.translates

    @property
    def preparation(self) -> Preparation:
        """Preparation of its training cohort."""
        return self.trained.preparation

    @property
    def source_preparation(self) -> Preparation:
        """Preparation of the volumes to translate, which come without the other of their pair."""
        own = self.preparation.for_second_volume() if self.model.reverse else self.preparation
        return replace(own, pair=None, fold_labels="none")

    @property
    def source_scheme(self) -> LabelScheme:
        """Classes of the volumes to translate."""
        assert self.preparation.pair is not None
        return self.preparation.pair if self.model.reverse else self.preparation.scheme

    @property
    def target_scheme(self) -> LabelScheme:
        """Classes of the translations."""
        assert self.preparation.pair is not None
        return self.preparation.scheme if self.model.reverse else self.preparation.pair

    def translate(
        self, given: ModelInput | Cohort, splits: Sequence[str] = ()
    ) -> "TranslationResult":
        """Translate the volumes of a cohort, or of files.

        Args:
            given: a cohort, or what `open_input` opened, files prepared by `source_preparation`.
            splits: of a cohort; all if empty.

        Raises:
            InputError: the cohort was prepared otherwise than the run's, has no pair to start from,
                or no brain of these splits.
        """
        if isinstance(given, ModelInput) and given.from_files:
            return FileTranslations(self, given.cohort, given.cohort.some_indices())
        cohort = given.cohort if isinstance(given, ModelInput) else given
        self.run.check_cohort(cohort)
        if self.model.reverse and cohort.pairs is None:
            raise InputError(f"the cohort has no pairs to translate from: {cohort.folder}")
        return CohortTranslations(self, cohort, cohort.some_indices(*splits))


@dataclass(frozen=True)
class TranslatedVolume:
    """Translation of one volume.

    Attributes:
        key: of the brain, ``sub-…_hemi-…``.
        classes: (I, J, K) uint8 class numbers of the target scheme.
        affine: (4, 4) of them.
        row: of ``translations.tsv``.
    """

    key: str
    classes: Labels
    affine: Matrix
    row: Row

    @property
    def rows(self) -> list[Row]:
        """Row of the table about this volume."""
        return [self.row]


@dataclass
class TranslationResult(VolumeResult[TranslatedVolume]):
    """Translations of volumes, made one at a time.

    Attributes:
        translator: that makes them.
        cohort: the volumes.
        indices: which of them.
    """

    translator: Translator
    cohort: Cohort
    indices: NDArray[np.int64]

    @abstractmethod
    def _translate(self, index: int) -> TranslatedVolume:
        """Translate one volume of the cohort."""

    def _make(self) -> Iterator[TranslatedVolume]:
        indices = self.indices.tolist()
        for _, made in each_volume(
            self.cohort, indices, partial(map, self._translate), self.failed
        ):
            yield made

    @property
    def metrics(self) -> dict[str, float]:
        """Means of the figures of the table, leaving out what is NaN."""
        rows = self.table
        names = [name for name in rows[0] if isinstance(rows[0][name], float)] if rows else []
        return {name: float(np.nanmean([row[name] for row in rows])) for name in names}

    @property
    def sidecar(self) -> dict[str, Any]:
        """Content of ``translations.json``."""
        return {
            "run": str(self.translator.run.folder.resolve()),
            "phantom": self.translator.run.data["phantom"],
            "from": self.translator.source_scheme.name,
            "to": self.translator.target_scheme.as_dict(),
            "volumes": len(self.table),
            "cohort": str(self.cohort.folder.resolve()),
        }

    def _write(self, out: Path) -> None:
        """Write a label volume each, ``translations.tsv`` and ``translations.json``."""
        for made in self:
            path = out / TRANSLATED.of(brain=made.key)
            _write(path, made.classes, self.translator.target_scheme, made.affine)
        write_tsv(out / TRANSLATIONS, self.table, list(self.table[0]))
        write_json(out / TRANSLATIONS_SIDECAR, self.sidecar)


class CohortTranslations(TranslationResult):
    """Translations in the grid of a cohort, measured where it has the true ones."""

    def _translate(self, index: int) -> TranslatedVolume:
        translator, cohort = self.translator, self.cohort
        sources: VolumeArray | None = cohort.volumes
        targets: VolumeArray | None = cohort.pairs
        if translator.model.reverse:
            sources, targets = targets, sources
        assert sources is not None
        row = cohort.rows[index]
        made = translator.trained.translate_volume(sources[index])
        known: Row = {name: row.get(name, "") for name in ("participant_id", "hemi", "split")}
        if targets is not None:
            true, scheme = targets[index], target_scheme(translator.model, cohort)
            known |= class_dice(made, true, scheme)
            known |= class_distances(made, true, scheme, cohort.voxel_size)
        return TranslatedVolume(row_key(row), made, cohort.affine_of(row), known)


class FileTranslations(TranslationResult):
    """Translations of files, each in the grid of its file.

    A prepared volume is translated with all that it holds, whatever the other files are, and
    brought back to its own grid (nearest neighbour).
    """

    def _translate(self, index: int) -> TranslatedVolume:
        box, fill = Layout.from_cohort(self.cohort.folder).box, self.translator.target_scheme.fill
        row = self.cohort.rows[index]
        prepared = prepared_volume(self.cohort.folder, row)
        classes = prepared.read("_dseg").data.astype(np.uint8)
        made = self.translator.trained.translate_volume(classes)
        space = InputSpace.from_row(self.cohort, row)
        offset = np.subtract(prepared.bounds.start, box.start).tolist()
        matrix = shifted_affine(space.matrix, offset)  # of the volume itself, not of the box
        own = resample_nearest(made, matrix, space.shape, fill).astype(np.uint8)
        known = {name: row.get(name, "") for name in ("participant_id", "hemi")}
        return TranslatedVolume(row_key(row), own, space.affine, known)


def _write(path: Path, classes: Labels, scheme: LabelScheme, affine: Matrix) -> None:
    """Write class numbers as the values that other tools of the family read."""
    values = scheme.canonical_values
    values = values.astype(label_dtype(values))
    write_labels(path, values[classes], affine, description="foldnorm TRANSLATED")
