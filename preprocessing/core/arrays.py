"""Arrays out of ``.npy`` and ``.npz`` files, which may come from anyone: never a pickled object."""

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foldnorm.preprocessing.core.errors import InputError
from foldnorm.preprocessing.core.files import unreadable
from foldnorm.preprocessing.core.memory import check_fits


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
    except (OSError, ValueError, EOFError) as error:
        raise unreadable(path, "an array", error) from error
