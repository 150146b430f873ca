"""Arrays in ``.npy`` and ``.npz`` files, which may come from anyone: never a pickled object."""

import os
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import numpy as np
from numpy.typing import NDArray

from foldnorm.preprocessing.core.errors import InputError
from foldnorm.preprocessing.core.files import atomic_path, unreadable
from foldnorm.preprocessing.core.resources import check_fits


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


class MappedArray(np.memmap[Any, Any]):
    """Memory map of a whole ``.npy`` file, which stays open, so that rows can be read from it.

    Attributes:
        stream: the file; None in what is made of the map, and where rows do not lie in one piece.
    """

    stream: BinaryIO | None = None

    @classmethod
    def of(cls, path: Path) -> "MappedArray":
        """Open a file."""
        stream = path.open("rb", buffering=0)
        array: MappedArray = np.load(path, mmap_mode="r", allow_pickle=False).view(cls)
        if array.ndim and array.size and array.flags.c_contiguous:
            array.stream = stream
        return array


def read_array(path: Path) -> MappedArray:
    """Open an array of a ``.npy`` file as a read-only memory map.

    Raises:
        InputError: there is none, or it is damaged.
    """
    try:
        return MappedArray.of(path)
    except FileNotFoundError:
        raise InputError(f"no such file: {path}") from None
    except Exception as error:  # numpy reads the header by Python's own parser
        raise unreadable(path, "an array", error) from error


def read_row(array: VolumeArray, index: int) -> NDArray[Any]:
    """Read one row of an array into memory; of a `MappedArray`, by one call to the system.

    A map fetches page by page what is not in memory, which takes twice the processor's time
    (`benchmarks/storage.py`), and ends the process by a signal where the file was cut meanwhile
    or the disk fails.

    Args:
        array: that `read_array` opened, or any other.
        index: of the row, from 0; below 0 from the end.

    Raises:
        InputError: the row cannot be read from its file.
    """
    stream = array.stream if isinstance(array, MappedArray) else None
    if stream is None or not hasattr(os, "preadv"):  # Windows
        return np.array(array[index])
    assert isinstance(array, MappedArray)
    row = range(len(array))[index]
    found: NDArray[Any] = np.empty(array.shape[1:], dtype=array.dtype)
    _fill(found, stream, array.offset + row * found.nbytes, row)
    return found


def _fill(found: NDArray[Any], stream: BinaryIO, offset: int, row: int) -> None:
    """Read an array from a place in a file; one call reads 2 GiB at most."""
    into, done = memoryview(found.reshape(-1).view(np.uint8)), 0
    while done < len(into):
        try:
            got = os.preadv(stream.fileno(), [into[done:]], offset + done)
        except OSError as error:
            raise InputError(
                f"row {row} is not readable ({error.strerror}): {stream.name}"
            ) from error
        if not got:
            raise InputError(f"the file ends within row {row}: {stream.name}")
        done += got


def write_array(
    path: Path,
    rows: Iterable[NDArray[Any]],
    *,
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
) -> None:
    """Write rows one after the other into one ``.npy``, never holding more than one.

    Args:
        path: of the file, which is whole or not there.
        rows: as many as ``shape[0]``.
        shape: of the array, (N, I, J, K) of volumes.
        dtype: of its numbers.
    """
    with atomic_path(path) as temporary, temporary.open("wb") as stream:
        header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False}
        np.lib.format.write_array_header_2_0(stream, {**header, "shape": shape})
        for row in rows:
            stream.write(np.ascontiguousarray(row, dtype=dtype).data)


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
        found: NDArray[np.uint8] = (
            read_row(self._stored, int(index))
            if isinstance(index, int | np.integer)
            else np.array(self._stored[index])
        )
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
