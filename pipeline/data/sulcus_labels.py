"""Names of sulci: which ones a cohort knows, and which voxel belongs to which."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from foldnorm.preprocessing.cohort.cohort import FOLD_TABLE, Cohort, row_key
from foldnorm.preprocessing.cohort.split import Split
from foldnorm.preprocessing.core.errors import InputError
from foldnorm.preprocessing.core.files import whole_number
from foldnorm.preprocessing.naming.sulcus_names import NOT_NAMES, sulcus_name

LEAST_SHARE = 0.9  # of the training brains that have a sulcus for it to be learned by default
LEAST_VOXELS = 50  # that half of them have of it
MOST_SULCI = 254  # uint8, and one number for any other
ASKED = 100  # training brains at most that tell which sulcus lies at a place


def sulcus_voxels(cohort: Cohort) -> dict[str, dict[str, int]]:
    """Voxels of each sulcus in each volume: ``sub-…_hemi-…`` → name → count.

    Raises:
        InputError: the table of folds names a volume that the cohort has not.
    """
    both = bool(cohort.preparation["whole_brain"])
    found: dict[str, dict[str, int]] = {row_key(row): defaultdict(int) for row in cohort.rows}
    for row in cohort.fold_table:
        if row["name"] not in NOT_NAMES:
            name, key = sulcus_name(row["name"], both_sides=both), row_key(row)
            if key not in found:
                raise InputError(
                    f"{key!r} is no volume of the cohort: {cohort.folder / FOLD_TABLE}"
                )
            found[key][name] += whole_number(row, "voxels")
    return found


def named_indices(cohort: Cohort, split: Split) -> NDArray[np.int64]:
    """Return the indices of the volumes of a split that have at least one fold with a name.

    The others, such as those of a segmentation without gyri, say nothing of where sulci are.
    """
    voxels, keys, indices = sulcus_voxels(cohort), cohort.keys(), cohort.indices(split)
    return indices[[bool(voxels[keys[index]]) for index in indices]]


def common_sulci(cohort: Cohort) -> list[str]:
    """Sulci that nearly all training brains have whose folds have names, by name.

    That is `LEAST_SHARE` of them, with a median of at least `LEAST_VOXELS` voxels.
    """
    voxels, keys = sulcus_voxels(cohort), cohort.keys()
    training = [voxels[keys[index]] for index in named_indices(cohort, "train")]
    names = sorted({name for brain in training for name in brain})
    counts = np.array([[brain.get(name, 0) for name in names] for brain in training])
    if not counts.size:
        return []
    often = (counts > 0).mean(axis=0) >= LEAST_SHARE
    large = np.median(counts, axis=0) >= LEAST_VOXELS
    return [name for name, kept in zip(names, often & large, strict=True) if kept]


class SulcusLabels:
    """Number of the sulcus that each voxel of a cohort belongs to; 0: of none that is known.

    Args:
        cohort: with fold labels.
        sulci: names; the n-th of them, from 1 on, is number n.

    Raises:
        InputError: the cohort has no fold labels, or knows one of the sulci in no brain.
    """

    def __init__(self, cohort: Cohort, sulci: Sequence[str]) -> None:
        if cohort.folds is None:
            raise InputError(
                f"to learn names of sulci the cohort needs fold labels, and has none: "
                f"{cohort.folder}"
            )
        if not 0 < len(sulci) <= MOST_SULCI:
            raise InputError(
                f"expected 1 to {MOST_SULCI} sulci to recognise, got {len(sulci)}: {cohort.folder}"
            )
        self.folds, self.keys, self.path = cohort.folds, cohort.keys(), cohort.folder / FOLD_TABLE
        self.tables = _tables(cohort, {name: n for n, name in enumerate(sulci, start=1)})

    def __getitem__(self, index: int, /) -> NDArray[np.uint8]:
        """(I, J, K) of one volume.

        Raises:
            InputError: one of its folds is not in the table of folds.
        """
        table, labels = self.tables[index], np.asarray(self.folds[index])
        if labels.max() >= len(table):
            raise InputError(
                f"damaged: no row for fold {labels.max()} of {self.keys[index]}: {self.path}"
            )
        return table[labels]


def _tables(cohort: Cohort, numbers: Mapping[str, int]) -> list[NDArray[np.uint8]]:
    """Fold label → number of its sulcus, for each volume."""
    both = bool(cohort.preparation["whole_brain"])
    of_key = defaultdict(list)
    for row in cohort.fold_table:
        number = numbers.get(sulcus_name(row["name"], both_sides=both), 0)
        of_key[row_key(row)].append((whole_number(row, "label"), number))
    unknown = set(numbers.values()) - {n for rows in of_key.values() for _, n in rows}
    if unknown:
        names = [name for name, n in numbers.items() if n in unknown]
        raise InputError(f"no brain of the cohort has a sulcus {', '.join(names)}: {cohort.folder}")
    tables = []
    for volume in cohort.rows:
        rows = of_key[row_key(volume)]
        table = np.zeros(max((label for label, _ in rows), default=0) + 1, np.uint8)
        for label, number in rows:
            table[label] = number
        tables.append(table)
    return tables


class NamesPlaces(Protocol):
    """Says which sulcus lies at a place."""

    def likeliest(self, places: NDArray[np.int64]) -> tuple[str, float]:
        """Name of a sulcus, perhaps empty, and the share of training brains that have it there."""


class SulciByPlace:
    """Names of sulci at places of the box, by the fold labels of training brains.

    Args:
        cohort: whose training split is looked at, `ASKED` brains of it at most; without fold
            labels it knows none.
    """

    def __init__(self, cohort: Cohort) -> None:
        self.folds = cohort.folds
        self.indices: list[int] = []
        if self.folds is None:
            return
        names = sorted({name for brain in sulcus_voxels(cohort).values() for name in brain})
        self.sulci = names[:MOST_SULCI]
        training = named_indices(cohort, "train")
        self.indices = training[:: -(-len(training) // ASKED)].tolist() if len(training) else []
        numbers = {name: n for n, name in enumerate(self.sulci, start=1)}
        self.tables = _tables(cohort, numbers) if self.sulci else []

    def likeliest(self, places: NDArray[np.int64]) -> tuple[str, float]:
        """Sulcus that most training brains have there, and the share of them that do.

        Args:
            places: (n, 3) voxels.

        Returns:
            An empty name if none of them has any.
        """
        if self.folds is None or not self.indices:
            return "", float("nan")
        low, high = places.min(axis=0), places.max(axis=0) + 1
        box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
        inside = tuple((places - low).T)
        brains = np.zeros(len(self.sulci) + 1, dtype=np.int64)
        for index in self.indices:
            labels = np.asarray(self.folds[index][box])[inside]
            brains[np.unique(self.tables[index][labels])] += 1
        brains[0] = 0
        best = int(brains.argmax())
        if not brains[best]:
            return "", 0.0
        return self.sulci[best - 1], float(brains[best] / len(self.indices))
