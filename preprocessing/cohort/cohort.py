"""The cohort folder: what preprocessing writes and everything else reads.

A BIDS derivative (``dataset_description.json``, ``participants.tsv``, ``sub-*/anat``) whose
volumes are also packed once as ``volumes.npy``, (N, I, J, K) uint8, opened as a memory map. Row n
of ``participants.tsv`` is volume n. ``folds.npy`` holds the fold labels, where they are known, and
``pairs.npy`` a second volume of each hemisphere, where one was asked for.
"""

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from foldnorm.preprocessing.cohort.split import SPLITS
from foldnorm.preprocessing.core.arrays import LabelArray, read_array, read_row
from foldnorm.preprocessing.core.counts import counted
from foldnorm.preprocessing.core.errors import InputError
from foldnorm.preprocessing.core.file_names import checked_name
from foldnorm.preprocessing.core.files import (
    UNKNOWN_CELLS,
    content_fault,
    read_json,
    read_tsv,
    refuse_missing,
)
from foldnorm.preprocessing.io.schemes import LabelScheme, scheme_from_dict

if TYPE_CHECKING:
    from foldnorm.pipeline.data.cohort_dataset import CohortDataset

DESCRIPTION = "dataset_description.json"
PARTICIPANTS = "participants.tsv"
VOLUMES = "volumes.npy"
FOLDS = "folds.npy"
PAIRS = "pairs.npy"
REGION_MASK = "region_mask.nii.gz"
FOLD_TABLE = "folds.tsv"
FOLD_COLUMNS = ("participant_id", "hemi", "label", "name", "inside", "size", "voxels")
KEY_COLUMNS = ("participant_id", "hemi", "image")  # what `row_key` makes a name of
FIRST_COLUMNS = ("participant_id", "hemi", "split")
FEW = 8  # volumes that are looked at together
FEW_VOXELS = 1 << 22  # of these volumes in sum; one hemisphere at 1 mm, more than 8 at 2 mm


@dataclass(frozen=True)
class Cohort:
    """An opened cohort folder.

    Attributes:
        folder: where it lies.
        description: of ``dataset_description.json``.
        rows: of ``participants.tsv``, all strings; row n is volume n.
        splits: that `indices` knows; all if empty.

    Example:
        >>> len(cohort), len(cohort.select("train", "validation", "test"))
        (8, 8)
        >>> cohort[0].volume.shape == cohort.volumes.shape[1:]
        True
    """

    folder: Path
    description: Mapping[str, Any]
    rows: list[dict[str, str]] = field(repr=False)
    splits: tuple[str, ...] = ()

    @classmethod
    def open(cls, folder: str | Path) -> "Cohort":
        """Open a cohort folder.

        Raises:
            InputError: it is none, or preprocessing did not finish.
        """
        folder = Path(folder)
        description = cls.describe(folder)
        if not (folder / VOLUMES).is_file():
            raise InputError(f"cohort is not packed yet; run preprocess again: {folder}")
        cohort = cls(folder, description, read_tsv(folder / PARTICIPANTS))
        known = set(cohort.rows[0]) if cohort.rows else set()
        lacking = [name for name in FIRST_COLUMNS if name not in known]
        if lacking:
            path = folder / PARTICIPANTS
            reason = content_fault(path) or f"no column {lacking[0]}"
            raise InputError(f"not the table of a cohort ({reason}): {path}")
        if cohort.volumes.ndim not in (3, 4):
            raise InputError(
                f"expected volumes along a first axis, got an array of {cohort.volumes.shape}: "
                f"{folder / VOLUMES}"
            )
        if len(cohort.rows) != len(cohort.volumes):
            raise InputError(
                f"{PARTICIPANTS} has {counted(len(cohort.rows), 'row')} and {VOLUMES} "
                f"{counted(len(cohort.volumes), 'volume')}; run preprocess again: {folder}"
            )
        for row in cohort.rows:  # commands write files of these names
            for name in KEY_COLUMNS:
                if row.get(name) or name == "participant_id":
                    checked_name(row.get(name, ""), f"{folder / PARTICIPANTS}: {name}")
        return cohort

    @staticmethod
    def describe(folder: Path) -> dict[str, Any]:
        """Read the description of a cohort folder, or of the layout in an exported model.

        Raises:
            InputError: there is none.
        """
        if not (folder / DESCRIPTION).is_file():
            refuse_missing(folder)
            raise InputError(f"not a cohort folder (no {DESCRIPTION}): {folder}")
        description = read_json(folder / DESCRIPTION)
        if "Cohort" not in description:
            raise InputError(f"not a foldnorm cohort (no key Cohort): {folder / DESCRIPTION}")
        return description

    @staticmethod
    def is_in(folder: Path) -> bool:
        """Return whether a folder is a cohort; BIDS derivatives have a description, too."""
        return (folder / DESCRIPTION).is_file() and "Cohort" in read_json(folder / DESCRIPTION)

    @cached_property
    def volumes(self) -> LabelArray | NDArray[Any]:
        """Class numbers, (N, I, J, K) uint8, each volume read and checked on access.

        Of images, (N, I, J) or (N, I, J, K) uint8 or uint16, a read-only memory map; `intensities`
        says what they mean.
        """
        path = self.folder / VOLUMES
        if self.holds_images:
            return read_array(path)
        return LabelArray(path, self.scheme.n_classes, self.keys())

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, number: Any) -> Any:
        return self.view(range(len(self)))[number]

    def __iter__(self) -> Iterator["Brain"]:
        return self.brains(range(len(self)))

    def select(self, *splits: str) -> "CohortView":
        """Select the volumes of these splits, all if none is named; each is read on access."""
        return self.view(self.indices(*splits))

    def dataset(
        self, *splits: str, transform: Callable[[dict[str, Any]], Any] | None = None
    ) -> "CohortDataset":
        """Return the volumes of these splits as a PyTorch ``Dataset`` for MONAI transforms.

        Args:
            splits: ``train``, ``validation``, ``test``; all if none is named.
            transform: of each dictionary, such as a MONAI ``Compose``.

        Example:
            >>> from torch.utils.data import DataLoader
            >>> loader = DataLoader(cohort.dataset("train"), batch_size=2)
            >>> next(iter(loader))["image"].shape[:2]
            torch.Size([2, 1])
        """
        # The one step upwards of this package, and only when it is asked for: what reads cohorts
        # without torch goes on to do so.
        from foldnorm.pipeline.data.cohort_dataset import CohortDataset

        return CohortDataset(self, self.indices(*splits), transform)

    def brains(self, indices: Iterable[int]) -> Iterator["Brain"]:
        """Volumes in memory, one at a time, with their rows."""
        for index in indices:
            yield self.brain(int(index), self._volume(int(index)))

    def brain(self, index: int, volume: NDArray[Any]) -> "Brain":
        """Brain of a volume: one of the cohort's, or what it has become by an alteration."""
        other = self.other_side(index)
        read = None if other is None else partial(self._volume, other)
        folds = partial(self._fold_labels, index) if (self.folder / FOLDS).is_file() else None
        row = self.rows[index]
        return Brain(
            self.to_model_input(volume),
            row,
            read,
            folds,
            partial(self.to_mni, row),
            None if self.holds_images else self.affine_of(row),
        )

    def other_side(self, index: int) -> int | None:
        """Index of the other hemisphere of a brain, if it is there and in the same layout."""
        if not self.preparation.get("mirror_right"):
            return None
        row = self.rows[index]
        other = row_key({**row, "hemi": {"L": "R", "R": "L"}.get(row["hemi"], "")})
        return self._index_of.get(other) if other != row_key(row) else None

    @cached_property
    def _index_of(self) -> dict[str, int]:
        return {key: index for index, key in enumerate(self.keys())}

    def _fold_labels(self, index: int) -> NDArray[np.uint16]:
        assert self.folds is not None
        return read_row(self.folds, index)

    def _volume(self, index: int) -> NDArray[np.uint8]:
        return read_row(self.volumes, index)

    def view(self, indices: Iterable[int]) -> "CohortView":
        """Return some of the volumes as a sequence of brains, each read on access."""
        return CohortView([(self, int(index)) for index in indices])

    @property
    def holds_images(self) -> bool:
        """True if the volumes are intensities, not classes."""
        return "intensities" in self.preparation

    def to_model_input(self, volumes: NDArray[Any]) -> NDArray[Any]:
        """Convert stored volumes: classes stay as they are, images become float32 from −1 to 1."""
        if not self.holds_images:
            return volumes
        return intensities_of(volumes)

    @cached_property
    def folds(self) -> NDArray[np.uint16] | None:
        """Fold labels, (N, I, J, K) uint16, 0 where there is no fold; None if unknown."""
        path = self.folder / FOLDS
        return self._beside_volumes(read_array(path), path) if path.is_file() else None

    @cached_property
    def pairs(self) -> LabelArray | None:
        """Classes of the second volume of each pair, (N, I, J, K) uint8; None if there are none."""
        path, scheme = self.folder / PAIRS, self.pair_scheme
        if scheme is None or not path.is_file():
            return None
        return self._beside_volumes(LabelArray(path, scheme.n_classes, self.keys()), path)

    def _beside_volumes(self, array: Any, path: Path) -> Any:
        """Return an array of which row n belongs to volume n, if it has the volumes' shape."""
        if array.shape == self.volumes.shape:
            return array
        raise InputError(
            f"expected an array of {self.volumes.shape} as {VOLUMES} is, got one of "
            f"{array.shape}; run preprocess again: {path}"
        )

    @cached_property
    def fold_table(self) -> list[dict[str, str]]:
        """Table of folds: label, name, the gyrus that one without a name lies inside, if known.

        And size in mm² of sheet, voxels in the packed volume.
        """
        path = self.folder / FOLD_TABLE
        return read_tsv(path) if path.is_file() else []

    @cached_property
    def fold_gyri(self) -> dict[str, dict[int, str]]:
        """Fold label → gyrus that the fold lies inside, of each volume, by its key."""
        found: dict[str, dict[int, str]] = {}
        for row in self.fold_table:
            if row.keys() >= {"inside"} and row["inside"]:  # no column in cohorts of release 0.2
                found.setdefault(row_key(row), {})[int(row["label"])] = row["inside"]
        return found

    @cached_property
    def scheme(self) -> LabelScheme:
        """The label scheme of the volumes.

        Raises:
            InputError: they are images.
        """
        if self.holds_images:
            raise InputError(
                f"expected label volumes, got a cohort of images, which has no classes: "
                f"{self.folder}"
            )
        return scheme_from_dict(dict(self.preparation["scheme"]))

    @cached_property
    def pair_scheme(self) -> LabelScheme | None:
        """The label scheme of the second volumes of pairs."""
        pair = self.preparation.get("pair")
        return None if pair is None else scheme_from_dict(dict(pair))

    @property
    def preparation(self) -> Mapping[str, Any]:
        """The preprocessing parameters: two cohorts can be compared only if these are equal."""
        return self.description["Cohort"]["preparation"]

    @property
    def has_hull(self) -> bool:
        """True if the sheet between brain and outside was kept."""
        return self.preparation.get("hull") != "remove"

    @property
    def is_phantom(self) -> bool:
        """True if the volumes are synthetic: phantoms, or drawn by a model."""
        return bool(self.description["Cohort"].get("phantom", False))

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of each volume."""
        return self.volumes.shape[1:]

    @property
    def n_together(self) -> int:
        """Number of volumes that are looked at together, see `n_together`."""
        return n_together(math.prod(self.shape))

    @property
    def voxel_size(self) -> tuple[float, ...]:
        """Sides of a voxel in mm; of images, 1 each."""
        return tuple(self.description["Cohort"]["voxel_size"])

    @property
    def affine(self) -> NDArray[np.float64]:
        """Affine of the packed grid, (4, 4): exact to half a voxel for any one subject."""
        return np.array(self.description["Cohort"]["affine"], dtype=np.float64)

    def affine_of(self, row: Mapping[str, str]) -> NDArray[np.float64]:
        """Affine of one packed volume, (4, 4): a mirrored right hemisphere lies on the right."""
        is_mirrored = self.preparation.get("mirror_right") and row.get("hemi") == "R"
        return np.diag([-1.0 if is_mirrored else 1.0, 1, 1, 1]) @ self.affine

    def to_mni(self, row: Mapping[str, str]) -> NDArray[np.float64] | None:
        """Return (4, 4), packed voxel → MNI mm; None if no transform leads there."""
        if self.preparation["space"] == "mni":
            return self.affine_of(row)
        from foldnorm.preprocessing.cohort.input_space import InputSpace  # it reads cohorts

        return InputSpace.from_row(self, row).to_mni

    def indices(self, *splits: str) -> NDArray[np.int64]:
        """Return the indices of the volumes of these splits, all if none is named."""
        unknown = set(splits) - set(SPLITS)
        if unknown:
            raise InputError(f"split is one of {', '.join(SPLITS)}, got {sorted(unknown)}")
        asked = [set(names) for names in (splits, self.splits) if names]
        return np.array(
            [n for n, row in enumerate(self.rows) if all(row["split"] in names for names in asked)],
            dtype=np.int64,
        )

    def restricted(self, splits: Sequence[str]) -> "Cohort":
        """Return this cohort with `indices` of these splits only; all if none is named.

        Raises:
            InputError: it has none of these.
        """
        self.some_indices(*splits)
        return replace(self, splits=tuple(splits))

    def some_indices(self, *splits: str) -> NDArray[np.int64]:
        """Return `indices` of these splits, all if none is named; at least one.

        Raises:
            InputError: there is no such volume.
        """
        indices = self.indices(*splits)
        if not len(indices):
            what = "image" if self.holds_images else "brain"
            raise InputError(f"no {what} of split {'+'.join(splits)}: {self.folder}")
        return indices

    def keys(self) -> list[str]:
        """Name of each volume, ``sub-…_hemi-…``."""
        return [row_key(row) for row in self.rows]


def intensities_of(pixels: NDArray[Any]) -> NDArray[np.float32]:
    """Grey values of 8 or 16 bits as models see them, from −1 to 1."""
    highest = np.iinfo(pixels.dtype).max
    return pixels.astype(np.float32) * np.float32(2 / highest) - np.float32(1)


def row_key(row: Mapping[str, str]) -> str:
    """Name of a row of ``participants.tsv``: ``sub-…_hemi-…``, or ``sub-…_image-…`` of an image."""
    more = "".join(f"_{name}-{row[name]}" for name in ("hemi", "image") if row.get(name))
    return row["participant_id"] + more


def family_of(row: Mapping[str, str]) -> str:
    """Family of a participant, who is one alone where no family is known; may be empty."""
    family = row.get("family", "")
    return row.get("participant_id", "") if family in UNKNOWN_CELLS else f"family {family}"


def same_preparation(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[str]:
    """Names of the preprocessing parameters in which two cohorts differ."""
    return sorted(
        key
        for key in set(first) | set(second)
        if json.dumps(first.get(key), sort_keys=True) != json.dumps(second.get(key), sort_keys=True)
    )


def prepared_otherwise(
    preparation: Mapping[str, Any], shape: Sequence[int], cohort: "Cohort"
) -> str:
    """Return how a cohort was prepared otherwise, in a few words; empty if it was not.

    Fold labels change no volume, so volumes with and without them compare. Second volumes of pairs
    need not be there: what needs them says so.

    Args:
        preparation: of the brains that it is compared with.
        shape: of each of these.
        cohort: to compare.
    """
    without = {"folds": None} | ({"pair": None} if cohort.pair_scheme is None else {})
    differing = same_preparation({**preparation, **without}, {**cohort.preparation, **without})
    if differing:
        return ", ".join(differing)
    return "" if cohort.shape == tuple(shape) else f"shape, {cohort.shape} not {tuple(shape)}"


class Brain(NamedTuple):
    """A volume and what is known of whose it is.

    Attributes:
        volume: (I, J, K) uint8 class numbers; of an image, float32 intensities from −1 to 1.
        row: of ``participants.tsv``.
        other_side: reads the volume of the other hemisphere of the same brain, if there is one in
            the same layout.
        folds: reads the fold labels, (I, J, K) uint16, if they are known: of the volume as it is in
            the cohort.
        to_mni: reads the way to MNI mm, (4, 4) of its voxels, if a transform leads there.
        affine: (4, 4), voxel → mm of its own space, if it is known; of a mirrored right hemisphere
            the first axis runs from right to left.
    """

    volume: NDArray[Any]
    row: Mapping[str, str]
    other_side: Callable[[], NDArray[np.uint8]] | None = None
    folds: Callable[[], NDArray[np.uint16]] | None = None
    to_mni: Callable[[], NDArray[np.float64] | None] | None = None
    affine: NDArray[np.float64] | None = None


class CohortView(Sequence[Brain]):
    """Brains of one cohort or several, read from the memory maps each time they are asked for.

    Args:
        places: cohort and index of each.
    """

    def __init__(self, places: Sequence[tuple[Cohort, int]]) -> None:
        self.places = list(places)

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, number: Any) -> Any:
        if isinstance(number, slice):
            return CohortView(self.places[number])
        cohort, index = self.places[number]
        (brain,) = cohort.brains([index])
        return brain

    @property
    def rows(self) -> list[dict[str, str]]:
        """Rows of ``participants.tsv``, without reading a volume."""
        return [cohort.rows[index] for cohort, index in self.places]

    def __add__(self, other: "CohortView") -> "CohortView":
        return CohortView([*self.places, *other.places])


def n_together(n_voxels: int) -> int:
    """Return how many volumes of a size are looked at together: `FEW`, or `FEW_VOXELS` in sum."""
    return min(FEW, max(FEW_VOXELS // max(n_voxels, 1), 1))


def few_at_a_time(brains: Iterable[Brain]) -> Iterator[list[Brain]]:
    """Brains in lists of `n_together`; the last perhaps shorter."""
    waiting = iter(brains)
    for first in waiting:
        yield [first, *islice(waiting, n_together(first.volume.size) - 1)]
