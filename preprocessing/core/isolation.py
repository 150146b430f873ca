"""Isolation of the items of a batch: one that fails is one line, and the others are finished."""

import logging
import os
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import BrokenExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import joblib

from foldnorm.preprocessing.core.errors import InputError
from foldnorm.preprocessing.core.files import is_alive

LOG = logging.getLogger(__name__)
Item = TypeVar("Item")
Made = TypeVar("Made")
KILLED = "its process was killed, most likely because memory ran out; fewer --n-procs need less"
KILLED_WORKER = (
    "its Dask worker was killed, most likely because memory ran out; give each worker more, or "
    "have fewer of them on a machine"
)
DASK = -1  # in place of a number of processes
POLL = 1.0  # seconds between two looks at whether another process is still there


@dataclass(frozen=True)
class Outcome(Generic[Item, Made]):
    """Result of one item.

    Attributes:
        item: that was worked on.
        made: what came of it; None if it failed.
        reason: of its failure, in one line; empty if there is a result.
        error: that it failed with.
    """

    item: Item
    made: Made | None
    reason: str = ""
    error: Exception | None = None

    @property
    def result(self) -> Made:
        """Result of an item; of one that failed, the error is raised."""
        if self.error is not None:
            raise self.error
        return self.made  # type: ignore[return-value]  # None may be a result


def isolated(work: Callable[[Item], Made], item: Item) -> Outcome[Item, Made]:
    """Work on one item; whatever is wrong with it becomes a line."""
    try:
        return Outcome(item, work(item))
    except (InputError, OSError, MemoryError) as error:
        return Outcome(item, None, reason_of(error), error)
    except Exception as error:  # it may be of a kind that cannot be sent between processes
        return Outcome(item, None, reason_of(error), RuntimeError(reason_of(error)))


def reason_of(error: Exception) -> str:
    """Return the line that says why an item failed; where in the code, if the fault is ours."""
    if isinstance(error, InputError):
        return str(error)
    if isinstance(error, MemoryError):
        return f"not enough memory ({error})".replace(" ()", "")
    if isinstance(error, OSError):
        place = f": {error.filename}" if error.filename else ""
        return f"{error.strerror or error}{place}"
    if type(error).__name__ == "OutOfMemoryError":  # PyTorch's, which is not imported here
        return f"not enough memory on the GPU ({str(error).split('. ')[0]})"
    frame = traceback.extract_tb(error.__traceback__)[-1]
    where = f"{Path(frame.filename).name}:{frame.lineno}"
    said = " ".join(str(error).split())
    return f"unexpected {type(error).__name__} at {where}: {said}"


def isolated_map(
    work: Callable[[Item], Made], items: Sequence[Item], n_procs: int, *, in_order: bool = False
) -> Iterator[Outcome[Item, Made]]:
    """Work on items in several processes, each on its own.

    A process that is killed takes its item along, but no other: what is left goes on in half as
    many processes, and in the end one item at a time, so that it is known whose the fault is.
    Processes end soon after the one that started them.

    Args:
        work: of one item; it and its result are sent between processes.
        items: to work on.
        n_procs: processes; 1: this one; `DASK`: the workers of the Dask cluster that is connected.
        in_order: outcomes come in the order of the items, not as they are finished.

    Raises:
        InputError: there are to be no processes, or the workers of a cluster that is not connected.
    """
    if n_procs == DASK:
        yield from _by_workers(work, items, in_order)
        return
    if n_procs < 1:
        raise InputError(f"n_procs: expected 1 or more processes, got {n_procs}")
    waiting = dict(enumerate(items))
    while waiting:
        try:
            for number, outcome in _outcomes(work, waiting, n_procs, in_order):
                del waiting[number]
                yield outcome
        except BrokenExecutor:
            if n_procs < 2:  # not ours
                raise
            n_procs = max(n_procs // 2, 1)
            LOG.warning(
                "a process was killed, most likely because memory ran out; the %d items that are "
                "left go on in %d (fewer --n-procs need less memory)", len(waiting), n_procs,
            )  # fmt: skip
            if n_procs == 1:
                break
    for number in list(waiting):
        yield _alone(work, waiting.pop(number))


def isolated_batches(
    work: Callable[[Sequence[Item]], Iterable[Made]], items: Sequence[Item], size: int
) -> Iterator[Outcome[Item, Made]]:
    """Work on items a few at a time; where that fails, on each of the few by itself.

    Args:
        work: of a few items; makes one thing of each, in their order.
        items: to work on.
        size: number of items that are worked on together.
    """
    for start in range(0, len(items), size):
        few = items[start : start + size]
        together = isolated(lambda given: list(work(given)), few)
        if not together.reason:
            pairs = zip(few, together.result, strict=True)
            yield from (Outcome(item, made) for item, made in pairs)
        elif len(few) == 1:
            yield Outcome(few[0], None, together.reason, together.error)
        else:
            yield from isolated_batches(work, few, 1)


def _outcomes(
    work: Callable[[Item], Made], waiting: Mapping[int, Item], n_procs: int, in_order: bool
) -> Iterator[tuple[int, Outcome[Item, Made]]]:
    how = "generator" if in_order else "generator_unordered"
    with _one_thread_each(n_procs):
        yield from joblib.Parallel(n_jobs=n_procs, return_as=how)(
            joblib.delayed(_of_worker)(os.getpid() if n_procs > 1 else 0, work, number, item)
            for number, item in list(waiting.items())
        )


def _by_workers(
    work: Callable[[Item], Made], items: Sequence[Item], in_order: bool
) -> Iterator[Outcome[Item, Made]]:
    """Work on items by the workers of the Dask cluster that is connected.

    An item is tried once more where its worker was killed, which another item may have caused.
    joblib's own way to Dask waits for ever for what a killed worker was to return.
    """
    try:
        from distributed import Client, KilledWorker, as_completed  # an extra

        client = Client.current()
    except (ImportError, ValueError) as error:
        raise InputError(
            f"n_procs: expected 1 or more processes, got {DASK}, which stands for the workers of a "
            "Dask cluster, and none is connected"
        ) from error
    item_of = {client.submit(isolated, work, item, pure=False): item for item in items}
    for future in item_of if in_order else as_completed(item_of):
        item = item_of[future]
        if isinstance(future.exception(), KilledWorker):
            LOG.warning("a Dask worker was killed; what it was working on is tried once more")
            future = client.submit(isolated, work, item, pure=False)
        if isinstance(future.exception(), KilledWorker):
            yield Outcome(item, None, KILLED_WORKER, MemoryError(KILLED_WORKER))
        else:
            yield future.result()


def _alone(work: Callable[[Item], Made], item: Item) -> Outcome[Item, Made]:
    """Work on one item in a process of its own, which may be killed."""
    try:
        ((_, outcome),) = joblib.Parallel(n_jobs=2, backend="loky")(
            [joblib.delayed(_of_worker)(os.getpid(), work, 0, item)]
        )
    except BrokenExecutor:
        return Outcome(item, None, KILLED, MemoryError(KILLED))
    return outcome


def _one_thread_each(n_procs: int) -> AbstractContextManager[Any]:
    """Limit libraries of local workers to one thread each; who runs a Dask cluster sets it up."""
    if n_procs > 1:
        return joblib.parallel_config(backend="loky", inner_max_num_threads=1)
    return nullcontext()


def _of_worker(
    parent: int, work: Callable[[Item], Made], number: int, item: Item
) -> tuple[int, Outcome[Item, Made]]:
    if parent and parent != os.getpid():
        end_with(parent)
    return number, isolated(work, item)


_WATCHED: set[int] = set()


def end_with(process: int, end: Callable[[], None] = lambda: os._exit(1)) -> None:
    """Have this process end soon after another of this machine has, however that ended.

    Args:
        process: number of the one that started this one, or of one further up.
        end: what is done then.
    """
    if process in _WATCHED:
        return
    _WATCHED.add(process)
    is_parent = os.getppid() == process  # whose number may be given to another when it has ended

    def watch() -> None:
        while os.getppid() == process if is_parent else is_alive(process):
            time.sleep(POLL)
        end()

    threading.Thread(target=watch, name="end with another", daemon=True).start()
