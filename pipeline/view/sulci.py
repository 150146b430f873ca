"""Sulci of a cohort's brains by name: of its own table of folds, or as `label-sulci` found them."""

import logging
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from foldnorm.pipeline.artifacts import SULCI_SIDECAR, SULCUS_LABELS
from foldnorm.pipeline.data.sulcus_labels import MOST_SULCI, SulcusLabels, sulcus_voxels
from foldnorm.preprocessing.cohort.cohort import Cohort, row_key
from foldnorm.preprocessing.cohort.colours import many_colours
from foldnorm.preprocessing.cohort.input_space import InputSpace
from foldnorm.preprocessing.core.errors import InputError
from foldnorm.preprocessing.core.files import read_json
from foldnorm.preprocessing.io.schemes import LabelScheme
from foldnorm.preprocessing.io.volumes import read_labels

LOG = logging.getLogger(__name__)
MOST_COLOURS = 253  # the largest number that the page has a colour for
NEAR = 1.5  # voxels of the cohort: a name that lies further away in the label volume is another's


class NamesSulci(Protocol):
    """Says which voxel of a brain belongs to which sulcus.

    Attributes:
        title: where the names are from.
        sulci: names; the n-th of them, from 1 on, is number n.
    """

    title: str
    sulci: list[str]

    def files(self, index: int) -> Sequence[Path]:
        """Return the files that are read for a volume, beside those of the cohort."""

    def labels(self, index: int) -> NDArray[np.uint8]:
        """(I, J, K) of a volume of the cohort, 0: of no sulcus."""


class CohortSulci:
    """Names of the folds of a cohort.

    Args:
        cohort: with fold labels.
        sulci: names of them.
    """

    def __init__(self, cohort: Cohort, sulci: list[str]) -> None:
        known = cohort.description["Cohort"].get("fold_vocabularies", {})
        self.title = f"of the cohort ({', '.join(known)})" if known else "of the cohort"
        self.sulci = sulci
        self._labels = SulcusLabels(cohort, sulci)

    @classmethod
    def of(cls, cohort: Cohort) -> "CohortSulci | None":
        """Return the names of a cohort; None if its folds have none."""
        if cohort.holds_images or cohort.folds is None:
            return None
        found = sorted({name for brain in sulcus_voxels(cohort).values() for name in brain})
        return cls(cohort, found[:MOST_SULCI]) if found else None

    def files(self, index: int) -> Sequence[Path]:
        """See `NamesSulci`."""
        del index
        return ()

    def labels(self, index: int) -> NDArray[np.uint8]:
        """See `NamesSulci`."""
        return self._labels[index]


class LabelledSulci:
    """Names that `foldnorm label-sulci` gave.

    Its label volumes lie in the grid of each brain's input; a voxel of the cohort is named as the
    nearest one that has a name there.

    Args:
        folder: that it wrote.
        cohort: the brains that it named.
    """

    def __init__(self, folder: Path, cohort: Cohort) -> None:
        self.folder, self.cohort = folder, cohort
        self.title = folder.resolve().name
        self.sulci: list[str] = [str(name) for name in self._about["sulci"]]

    @cached_property
    def _about(self) -> Mapping[str, Any]:
        about: Mapping[str, Any] = read_json(self.folder / SULCI_SIDECAR)
        return about

    def files(self, index: int) -> Sequence[Path]:
        """See `NamesSulci`."""
        return (self.folder / SULCUS_LABELS.of(brain=row_key(self.cohort.rows[index])),)

    def labels(self, index: int) -> NDArray[np.uint8]:
        """See `NamesSulci`.

        Raises:
            InputError: it named no such brain.
        """
        row, (path,) = self.cohort.rows[index], self.files(index)
        if not path.is_file():
            raise InputError(f"{row_key(row)} is not among the brains that were named: {path}")
        named, space = read_labels(path), InputSpace.from_row(self.cohort, row)
        is_structure = self.cohort.scheme.foreground(np.array(self.cohort.volumes[index]))
        found = np.zeros(is_structure.shape, dtype=np.uint8)
        theirs, own = np.argwhere(named.data > 0), np.argwhere(is_structure)
        if len(theirs) and len(own):
            to_packed = np.linalg.inv(space.matrix)
            places = theirs @ to_packed[:3, :3].T + to_packed[:3, 3]
            away, nearest = cKDTree(places).query(own, distance_upper_bound=NEAR)
            near = np.isfinite(away)
            values = named.data[tuple(theirs[nearest[near]].T)]
            found[tuple(own[near].T)] = values
        return found


def namers(cohort: Cohort, folders: Sequence[Path]) -> list[NamesSulci]:
    """List what names the sulci of a cohort: folders that `label-sulci` wrote, then itself.

    Names that cannot be read are said, and its brains are shown without them.
    """
    try:
        own = CohortSulci.of(cohort)
    except InputError as error:
        LOG.warning("its sulci are shown without names: %s", error)
        own = None
    return [*(LabelledSulci(folder, cohort) for folder in folders), *([own] if own else [])]


def described(namer: NamesSulci) -> dict[str, Any]:
    """Title, names and colours of what names sulci."""
    colours = many_colours(len(namer.sulci))[1:-1]
    return {"title": namer.title, "names": namer.sulci, "palette": colours.tolist()}


def above_classes(
    volume: NDArray[np.uint8], sulci: NDArray[np.uint8], scheme: LabelScheme
) -> NDArray[np.uint8]:
    """(I, J, K) classes of a volume, and where it has the name of a sulcus, that, from 1 above."""
    above = np.minimum(sulci.astype(np.int64) + scheme.n_classes - 1, MOST_COLOURS)
    return np.where(sulci > 0, above, volume).astype(np.uint8)
