"""Translations: what a model makes of volumes, as label volumes in the space of the input."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from foldnorm.models.protocols import Translates
from foldnorm.pipeline.artifacts import TRANSLATED, TRANSLATIONS, TRANSLATIONS_SIDECAR
from foldnorm.pipeline.metrics.classes import class_dice, class_distances
from foldnorm.pipeline.runs.predict import target_scheme
from foldnorm.pipeline.runs.run_folder import RunFolder
from foldnorm.pipeline.runs.trained_model import TrainedModel
from foldnorm.preprocessing.cohort.cohort import Cohort, row_key
from foldnorm.preprocessing.cohort.preparation import Preparation
from foldnorm.preprocessing.cohort.prepare_volume import prepare_volume
from foldnorm.preprocessing.core.errors import InputError
from foldnorm.preprocessing.core.files import write_json, write_tsv
from foldnorm.preprocessing.io.schemes import LabelScheme
from foldnorm.preprocessing.io.sources import Problem, Source, SourceVolume, find_volumes
from foldnorm.preprocessing.io.volumes import read_labels, write_labels
from foldnorm.preprocessing.spatial.crop import shape_of
from foldnorm.preprocessing.spatial.space import Matrix, resample_nearest, voxel_to_mni

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
    def source_scheme(self) -> LabelScheme:
        """Classes of the volumes to translate."""
        assert self.preparation.pair is not None
        return self.preparation.pair if self.model.reverse else self.preparation.scheme

    @property
    def target_scheme(self) -> LabelScheme:
        """Classes of the translations."""
        assert self.preparation.pair is not None
        return self.preparation.scheme if self.model.reverse else self.preparation.pair


def translate_cohort(
    translator: Translator, cohort: Cohort, out: Path, splits: Sequence[str] = ()
) -> list[dict[str, Any]]:
    """Translate the volumes of a cohort, and measure where it has the true ones.

    Writes one label volume each in the cohort's grid, ``translations.tsv`` and its sidecar.

    Returns:
        The rows of the table.

    Raises:
        InputError: the cohort was prepared otherwise than the run's, has no pair to start from, or
            no brain of these splits.
    """
    translator.run.check_cohort(cohort)
    sources = cohort.pairs if translator.model.reverse else cohort.volumes
    targets = cohort.volumes if translator.model.reverse else cohort.pairs
    if sources is None:
        raise InputError(f"the cohort has no pairs to translate from: {cohort.folder}")
    rows = []
    for index in cohort.some_indices(*splits):
        made = translator.trained.translate_volume(np.array(sources[index]))
        row = cohort.rows[index]
        _write(
            out / TRANSLATED.of(brain=row_key(row)),
            made,
            translator.target_scheme,
            cohort.affine_of(row),
        )
        figures: dict[str, float] = {}
        if targets is not None:
            true = np.array(targets[index])
            scheme = target_scheme(translator.model, cohort)
            figures = class_dice(made, true, scheme)
            figures |= class_distances(made, true, scheme, cohort.voxel_size)
        known = {name: row.get(name, "") for name in ("participant_id", "hemi", "split")}
        rows.append({**known, **figures})
    _write_table(out, rows, translator, {"cohort": str(cohort.folder.resolve())})
    return rows


def translate_files(
    translator: Translator, source: Source, out: Path
) -> tuple[list[dict[str, Any]], list[Problem]]:
    """Translate label volumes as they lie on disk; each result is in the grid of its input.

    A volume is prepared as the run's cohort was, translated, and brought back to its own grid
    (nearest neighbour).

    Returns:
        The rows of the table, and what could not be translated.

    Raises:
        InputError: there is no volume at all.
    """
    scheme = translator.source_scheme
    volumes, problems = find_volumes([source], scheme.stem)
    rows = []
    for volume in volumes:
        name = f"sub-{volume.participant}" + (f"_hemi-{volume.hemi}" if volume.hemi else "")
        try:
            made, affine = _in_own_grid(translator, volume)
        except InputError as error:
            problems.append(Problem(volume.key, str(error)))
            continue
        _write(out / TRANSLATED.of(brain=name), made, translator.target_scheme, affine)
        rows.append({"participant_id": volume.participant, "hemi": volume.hemi})
    _write_table(out, rows, translator, {"source": str(source.path)})
    return rows, problems


def _in_own_grid(translator: Translator, source: SourceVolume) -> tuple[Labels, Matrix]:
    preparation = translator.preparation
    if translator.model.reverse:
        preparation = preparation.for_second_volume()
    preparation = replace(preparation, pair=None, folds="none")
    prepared = prepare_volume(source, preparation)
    made = translator.trained.translate_volume(prepared.classes)
    volume = read_labels(source.path)
    shape = shape_of(volume.data)
    to_world = volume.affine
    if preparation.space == "mni":
        transform = source.companions.transform
        assert transform is not None  # or it could not have been prepared
        to_world = voxel_to_mni(transform, shape, volume.affine, volume.voxel_size)
    matrix = np.linalg.inv(to_world) @ prepared.affine
    fill = translator.target_scheme.fill
    return resample_nearest(made, matrix, shape, fill).astype(np.uint8), volume.affine


def _write(path: Path, classes: Labels, scheme: LabelScheme, affine: Matrix) -> None:
    """Write class numbers as the values that other tools of the family read."""
    values = scheme.canonical_values[classes]
    dtype = np.uint8 if values.max() < 2**8 else np.uint16
    write_labels(path, values.astype(dtype), affine, description="foldnorm TRANSLATED")


def _write_table(
    out: Path, rows: list[dict[str, Any]], translator: Translator, extra: dict[str, Any]
) -> None:
    if rows:
        write_tsv(out / TRANSLATIONS, rows, list(rows[0]))
    write_json(
        out / TRANSLATIONS_SIDECAR,
        {
            "run": str(translator.run.folder.resolve()),
            "phantom": translator.run.data["phantom"],
            "from": translator.source_scheme.name,
            "to": translator.target_scheme.as_dict(),
            "volumes": len(rows),
            **extra,
        },
    )


def mean_figures(rows: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Means of the figures of translations, leaving out what is NaN."""
    names = [name for name in rows[0] if isinstance(rows[0][name], float)] if rows else []
    return {name: float(np.nanmean([row[name] for row in rows])) for name in names}
