"""Arrays out of ``.npy`` and ``.npz`` files, which may come from anyone: never a pickled object."""

import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from foldnorm.preprocessing.core.errors import InputError
from foldnorm.preprocessing.core.files import unreadable
from foldnorm.preprocessing.core.memory import check_fits


class VolumeArray(Protocol):
    """Volumes by number: an array in memory or in a file, or what is read like one."""

    def __getitem__(self, index: int, /) -> Any:
        """(I, J, K) of one volume, or a number."""


def read_npz(path: Path) -> dict[str, NDArray[Any]]:
    """Read the arrays of an archive by name, never a pickled object.

    Raises:
        InputError: there is no such file, it is none, or it unpacks to more than the free memory.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(member.file_size for member in archive.infolist())
        check_fits(size, str(path))
        with np.load(path, allow_pickle=False) as held:
            found = {name: held[name] for name in held.files}
        if not all(isinstance(own, np.ndarray) for own in found.values()):
            raise InputError(f"expected arrays, and nothing else: {path}")
        return found
    except InputError:
        raise
    except FileNotFoundError:
        raise InputError(f"no such file: {path}") from None
    except Exception as error:  # numpy and zipfile raise many kinds on foreign bytes
        raise unreadable(path, "arrays", error) from error


def read_array(path: Path) -> NDArray[Any]:
    """Open an array of a ``.npy`` file as a read-only memory map.

    Raises:
        InputError: there is none, or it is damaged.
    """
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise InputError(f"no such file: {path}") from None
    except Exception as error:  # numpy reads the header by Python's own parser
        raise unreadable(path, "an array", error) from error


class LabelArray(Sequence[NDArray[np.uint8]]):
    """Volumes of class numbers in a ``.npy`` file, which are checked as they are read.

    A file of gigabytes is not read to see whether all of it is good: each volume is looked at when
    it is taken out, so that no class number reaches a network or a table that has no such class.

    Args:
        path: of the array, (N, I, J, K) or (N, I, J) uint8.
        n_classes: of its label scheme: 0 to ``n_classes`` − 1 are allowed.
        names: of the volumes, for what is said of one; none: their numbers.

    Raises:
        InputError: there is no such file, or it is no array of that kind.
    """

    def __init__(self, path: Path, n_classes: int, names: Sequence[str] = ()) -> None:
        self.path, self.n_classes, self.names = path, n_classes, names
        self._stored = read_array(path)
        if self.dtype != np.uint8:
            raise InputError(f"expected class numbers (uint8), got {self.dtype}: {path}")

    @property
    def shape(self) -> tuple[int, ...]:
        """Number of volumes, then their sides."""
        return self._stored.shape

    @property
    def ndim(self) -> int:
        """Number of axes, that of the volumes included."""
        return self._stored.ndim

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of a class number."""
        return self._stored.dtype

    def __len__(self) -> int:
        return len(self._stored)

    def __getitem__(self, index: Any) -> NDArray[np.uint8]:  # type: ignore[override]
        """Read one volume, or several, into memory.

        Raises:
            InputError: a class number is none of the scheme's.
        """
        found: NDArray[np.uint8] = np.array(self._stored[index])
        if found.size and found.max() >= self.n_classes:
            raise InputError(
                f"class number {found.max()}, expected 0 to {self.n_classes - 1} as the label "
                f"scheme of the cohort says; run preprocess again: {self.path} "
                f"({self._name_of_first(found, index)})"
            )
        return found

    def _name_of_first(self, found: NDArray[np.uint8], index: Any) -> str:
        """Name of the first of the volumes that were taken out which has an unknown class."""
        taken = np.atleast_1d(np.arange(len(self))[index[0] if isinstance(index, tuple) else index])
        highest = found.reshape(len(taken), -1).max(axis=1)
        number = int(taken[int(np.argmax(highest >= self.n_classes))])
        return self.names[number] if number < len(self.names) else f"volume {number}"

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return self[:].astype(dtype or self.dtype, copy=False)

    def __reduce__(self) -> tuple[Any, ...]:
        # Other processes open the file anew, rather than being sent what is in it.
        return LabelArray, (self.path, self.n_classes, self.names)
