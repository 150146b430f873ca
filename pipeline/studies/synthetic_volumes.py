"""Sets of volumes that are compared: synthetic ones of a folder, and some of a cohort."""

import logging
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foldnorm.pipeline.artifacts import SYNTHETIC_SHEET
from foldnorm.preprocessing.cohort.cohort import DESCRIPTION, Cohort, family_of, intensities_of
from foldnorm.preprocessing.cohort.each_volume import readable
from foldnorm.preprocessing.cohort.images import ImageFile, read_image
from foldnorm.preprocessing.core.errors import InputError
from foldnorm.preprocessing.core.isolation import isolated_batches
from foldnorm.preprocessing.core.problems import Problem
from foldnorm.preprocessing.io.scan import (
    NIFTI,
    PICTURES,
    STACKS,
    Scan,
    not_used,
    scan,
    unused_line,
)
from foldnorm.preprocessing.io.volumes import read_labels

LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class VolumeSet:
    """Volumes of one kind, and whose each is.

    Attributes:
        volumes: (N, *sides) as models see them: class numbers, or intensities from −1 to 1.
        groups: family of each.
    """

    volumes: NDArray[Any]
    groups: list[str]


@dataclass(frozen=True)
class SyntheticVolumes:
    """Synthetic volumes: files of a folder, or a cohort; read when they are asked for."""

    cohort: Cohort
    paths: list[Path]
    other: Cohort | None = None

    @classmethod
    def from_folder(cls, folder: Path, cohort: Cohort) -> "SyntheticVolumes":
        """Open the synthetic volumes of a folder.

        Raises:
            InputError: there are none, or they are of another shape.
        """
        if (folder / DESCRIPTION).is_file():
            other = Cohort.open(folder)
            if other.holds_images != cohort.holds_images or other.shape != cohort.shape:
                raise InputError(f"expected volumes of {cohort.shape} like the cohort's: {folder}")
            return cls(cohort, [], other)
        suffixes = (*PICTURES, *STACKS, *NIFTI) if cohort.holds_images else NIFTI
        scanned = scan(folder) if folder.is_dir() else Scan()
        paths = [
            path
            for path in scanned.files
            if path.name.lower().endswith(suffixes)
            and path.parent == folder
            and path.name != SYNTHETIC_SHEET.name
        ]
        line = unused_line(
            not_used(scanned, {*paths, folder / SYNTHETIC_SHEET.name}, []), str(folder)
        )
        if not paths:
            raise InputError(line or f"no synthetic volume found: {folder}")
        if line:
            LOG.warning("%s", line)
        return cls(cohort, paths)

    @property
    def count(self) -> int:
        """Number of volumes."""
        return len(self.paths) if self.other is None else len(self.other.rows)

    def some(self, order: NDArray[np.int64], count: int, failed: list[Problem]) -> VolumeSet:
        """Read volumes by their numbers, in this order, until there are enough that can be read."""
        if self.other is not None:
            return set_of(self.other, readable(self.other, order, failed)[:count])
        volumes: dict[str, NDArray[Any]] = {}
        for outcome in isolated_batches(partial(map, self._read), order.tolist(), 1):
            name = self.paths[outcome.item].name
            if outcome.reason:
                failed.append(Problem(name, outcome.reason))
                continue
            volumes[name] = outcome.result
            if len(volumes) == count:
                break
        return VolumeSet(_stacked([*volumes.values()], self.cohort), [*volumes])

    def _read(self, number: int) -> NDArray[Any]:
        volume = _read(self.paths[number], self.cohort)
        if volume.shape != self.cohort.shape:
            raise InputError(
                f"expected {self.cohort.shape}, got {volume.shape}: {self.paths[number]}"
            )
        return volume


def _read(path: Path, cohort: Cohort) -> NDArray[Any]:
    """One volume, as models see it."""
    if not cohort.holds_images:
        classes = read_labels(path).data
        if classes.min() < 0 or classes.max() >= cohort.scheme.n_classes:
            raise InputError(
                f"expected class numbers 0 to {cohort.scheme.n_classes - 1}, got {classes.min()} "
                f"to {classes.max()}: {path}"
            )
        return classes.astype(np.uint8)
    pixels, _ = read_image(ImageFile("synthetic", "0", path))
    if pixels.dtype.kind == "f":
        return np.clip(pixels, -1, 1).astype(np.float32)
    return intensities_of(pixels)


def set_of(cohort: Cohort, chosen: NDArray[np.int64]) -> VolumeSet:
    """Take some volumes of a cohort, all of which can be read."""
    volumes = _stacked([brain.volume for brain in cohort.brains(chosen)], cohort)
    return VolumeSet(volumes, [family_of(cohort.rows[n]) for n in chosen])


def _stacked(volumes: list[NDArray[Any]], cohort: Cohort) -> NDArray[Any]:
    return np.stack(volumes) if volumes else np.empty((0, *cohort.shape))
