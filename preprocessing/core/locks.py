"""One writer at a time in a folder: who comes second is told who is there.

The lock is the kernel's (``flock``), so that it ends with the process that holds it, however that
ends; the file says for whom it is. Where the file system, or the platform, knows no such locks,
nothing is locked.
"""

import errno
import logging
import os
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from foldnorm.preprocessing.core.errors import InputError
from foldnorm.preprocessing.core.files import is_alive

try:
    import fcntl
except ModuleNotFoundError:  # Windows has none
    fcntl = None  # type: ignore[assignment]

LOG = logging.getLogger(__name__)
LOCK = ".foldnorm.lock"
BUSY = (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES)
PATIENCE = 30.0  # seconds that the children of a dead process may take to end
PAUSE = 0.2  # seconds between two tries
_HELD: set[tuple[Path, str]] = set()  # by this process


@contextmanager
def held(folder: Path, name: str = LOCK) -> Iterator[None]:
    """Hold a folder while something is written there; again within that, it is no matter.

    The folder is made if need be, and taken away again if it is empty in the end.

    Args:
        folder: that is written to.
        name: of the lock, if a folder has several.

    Raises:
        InputError: another process holds it.
    """
    if folder.exists() and not folder.is_dir():
        yield
        return
    with _held(folder.absolute(), name, folder):
        yield


@contextmanager
def held_file(path: Path) -> Iterator[None]:
    """Hold a file while it is written, as `held` does a folder.

    Raises:
        InputError: another process holds it.
    """
    with _held(path.absolute().parent, f"{LOCK}.{path.name}", path):
        yield


@contextmanager
def _held(folder: Path, name: str, output: Path) -> Iterator[None]:
    """Hold what is written by a lock in a folder.

    Args:
        folder: that the lock lies in.
        name: of the lock.
        output: that is held, for the message.
    """
    key = folder, name
    if key in _HELD:
        yield
        return
    missing = [place for place in (folder, *folder.parents) if not place.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    handle = _locked(path, output)
    _HELD.add(key)
    try:
        yield
    finally:
        _HELD.discard(key)
        path.unlink(missing_ok=True)
        os.close(handle)
        with suppress(OSError):  # something was written there
            for place in missing:
                place.rmdir()


def flock(handle: int) -> None:
    """Lock an open file for this process alone, until it is closed.

    Raises:
        OSError: one of `BUSY` if another process has locked it; any other if there are no locks.
    """
    if fcntl is None:
        raise OSError(errno.ENOSYS, "no locks of the kernel on this platform")
    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _locked(path: Path, output: Path) -> int:
    """Open and lock a file, and say in it for whom.

    Raises:
        InputError: another process has locked it.
    """
    begin, said = time.monotonic(), False
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            flock(handle)
        except OSError as error:
            if error.errno not in BUSY:  # no locks here
                os.close(handle)
                return os.open(os.devnull, os.O_RDONLY)
            holder = os.pread(handle, 4096, 0).decode("utf-8", "replace").split("\t")
            os.close(handle)
            if time.monotonic() - begin > PATIENCE or not _has_died(holder):
                raise InputError(_refusal(output, holder)) from None
            if not said:
                LOG.warning("process %s has died; waiting for what it left: %s", holder[1], path)
                said = True
            time.sleep(PAUSE)
            continue
        if _is_still_at(handle, path):
            os.ftruncate(handle, 0)
            os.pwrite(handle, "\t".join(_own_record()).encode("utf-8", "replace"), 0)
            return handle
        os.close(handle)  # its holder took it away meanwhile


def _own_record() -> list[str]:
    command = Path(sys.argv[0]).name if sys.argv else ""
    words = " ".join([command, *sys.argv[1:2]]).strip()
    since = time.strftime("%Y-%m-%d %H:%M:%S")
    return [socket.gethostname(), str(os.getpid()), since, words]


def _has_died(holder: list[str]) -> bool:
    """Say if the process that a lock names has ended; a lock that names none is being taken."""
    is_here = len(holder) == 4 and holder[0] == socket.gethostname() and holder[1].isdigit()
    return is_here and not is_alive(int(holder[1]))


def _refusal(output: Path, holder: list[str]) -> str:
    who = "another process"
    if len(holder) == 4:
        host, process, since, words = holder
        who = f"process {process} on {host} ({words}, since {since})"
    what = "folder" if output.is_dir() else "file"
    return f"{who} is writing there; wait until it has ended, or choose another {what}: {output}"


def _is_still_at(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False
