"""The journal that the processes of a search share, and which of them this one is."""

import errno
import itertools
import json
import logging
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import numpy as np
import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock
from optuna.storages.journal._file import BaseJournalFileLock

from foldnorm.preprocessing.core.errors import InputError
from foldnorm.preprocessing.core.files import unreadable
from foldnorm.preprocessing.core.locks import flock, held

LOG = logging.getLogger(__name__)
OPTUNAS_LOCK = ".lock"  # what Optuna adds to the name of a journal
KERNELS_LOCK = ".flock"
UNSUPPORTED = (errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK)
PAUSES = (0.001, 0.5)  # seconds between two tries, at first and at most
PATIENCE = 10.0  # seconds of waiting after which it is said


class KernelLock(BaseJournalFileLock):
    """Lock of a journal that the kernel takes back when the process that holds it ends.

    Args:
        journal: the file.
    """

    def __init__(self, journal: Path) -> None:
        self._path = journal.with_name(journal.name + KERNELS_LOCK)
        self._handle = -1

    def acquire(self) -> bool:
        """Wait until no other process holds it."""
        handle = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o666)
        begin, pause = time.monotonic(), PAUSES[0]
        while True:
            try:
                flock(handle)
            except BlockingIOError:
                if time.monotonic() - begin > PATIENCE:
                    LOG.warning("waiting for another process of this search: %s", self._path)
                    begin = time.monotonic()
                time.sleep(pause)
                pause = min(2 * pause, PAUSES[1])
                continue
            except BaseException:
                os.close(handle)
                raise
            self._handle = handle
            return True

    def release(self) -> None:
        """Let others have it."""
        os.close(self._handle)
        self._handle = -1


def journal_lock(journal: Path) -> BaseJournalFileLock:
    """Choose the lock of a journal, and take away what an ended process has left of another kind.

    Where the file system has no locks of the kernel, it is Optuna's, which breaks one that nobody
    has touched for half a minute.
    """
    lock = KernelLock(journal)
    try:
        lock.acquire()
    except OSError as error:
        if error.errno not in UNSUPPORTED:
            raise
        return JournalFileSymlinkLock(str(journal))
    left = journal.with_name(journal.name + OPTUNAS_LOCK)
    if os.path.lexists(left):  # it is a link, which may lead nowhere
        LOG.warning("took away the lock that an ended process has left: %s", left)
        with suppress(FileNotFoundError):
            left.unlink()
    lock.release()
    return lock


def open_journal(journal: Path) -> JournalStorage:
    """Open a journal, or begin one.

    Raises:
        InputError: it is no journal, or a damaged one.
    """
    journal = journal.absolute()  # Optuna's lock is a link to it
    journal.parent.mkdir(parents=True, exist_ok=True)
    lock = journal_lock(journal)
    try:
        _repair(journal, lock)
        return JournalStorage(JournalFileBackend(str(journal), lock))
    except (ValueError, LookupError, TypeError, AssertionError) as error:
        raise unreadable(journal, "the journal of a search", error) from error


def _repair(journal: Path, lock: BaseJournalFileLock) -> None:
    """Take away the half line that a process which was killed has left at the end.

    Raises:
        ValueError: the first line is none of a journal.
    """
    if not journal.is_file():
        return
    lock.acquire()
    try:
        with journal.open("r+b") as stream:
            content = stream.read()
            whole = content.rfind(b"\n") + 1
            if whole < len(content) and content[whole:].startswith(b"{"):
                LOG.warning("took away half a line at the end, of a killed process: %s", journal)
                stream.truncate(whole)
                content = content[:whole]
        if content and "op_code" not in json.loads(content.split(b"\n", 1)[0].decode()):
            raise ValueError("its first line is none")
    finally:
        lock.release()


@contextmanager
def worker_number(out: Path) -> Iterator[int]:
    """Yield a number that no other process that searches has at once, from 0."""
    with ExitStack() as stack:
        for number in itertools.count():
            try:
                stack.enter_context(held(out, f".foldnorm.worker-{number}.lock"))
            except InputError:  # taken
                continue
            yield number
            return


def sampler_of(kind: str, seed: int, worker: int, before: int) -> optuna.samplers.BaseSampler:
    """Create the sampler of one process; no two draw the same points, nor does one session again.

    A grid is enqueued: Optuna's grid sampler cannot begin a trial again.

    Args:
        kind: ``tpe``, or another, which draws at random.
        seed: of the search.
        worker: number of this process.
        before: number of trials that were begun before.
    """
    own = int(np.random.SeedSequence([seed, worker, before]).generate_state(1)[0])
    if kind == "tpe":
        return optuna.samplers.TPESampler(seed=own, constant_liar=True)
    return optuna.samplers.RandomSampler(seed=own)
