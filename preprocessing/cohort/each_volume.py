"""Work on the volumes of a cohort, each on its own: one that fails does not end the others."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from foldnorm.preprocessing.cohort.cohort import Cohort, row_key
from foldnorm.preprocessing.core.arrays import read_row
from foldnorm.preprocessing.core.errors import InputError
from foldnorm.preprocessing.core.isolation import isolated_batches
from foldnorm.preprocessing.core.problems import Problem

Made = TypeVar("Made")


def each_volume(
    cohort: Cohort,
    indices: Sequence[int],
    work: Callable[[Sequence[int]], Iterable[Made]],
    failed: list[Problem],
    *,
    together: int = 1,
) -> Iterator[tuple[int, Made]]:
    """Yield the index of each volume, and what was made of it.

    If all fail, the last one's error is raised.

    Args:
        cohort: of the volumes.
        indices: of those to work on.
        work: makes one thing of each volume whose index it is given, in their order.
        failed: to which those are added that cannot be read or worked on, and why.
        together: number of volumes that are worked on together.
    """
    outcome, done = None, 0
    for outcome in isolated_batches(work, indices, together):
        if outcome.reason:
            failed.append(Problem(row_key(cohort.rows[outcome.item]), outcome.reason))
            continue
        done += 1
        yield outcome.item, outcome.result
    if outcome is not None and not done:
        _ = outcome.result


def readable(
    cohort: Cohort, indices: NDArray[np.int64], failed: list[Problem]
) -> NDArray[np.int64]:
    """Return those of the indices whose volumes can be read, with their pairs.

    If none can, the last one's error is raised.

    Args:
        cohort: of the volumes.
        indices: to look at.
        failed: to which the others are added, and why.
    """
    kept = [index for index, _ in each_read(cohort, indices.tolist(), lambda _: None, failed)]
    return np.array(kept, dtype=np.int64)


def each_read(
    cohort: Cohort,
    indices: Sequence[int],
    look: Callable[[NDArray[Any]], Made],
    failed: list[Problem],
) -> Iterator[tuple[int, Made]]:
    """Yield the index of each volume that can be read, with its pair, and what a look at it made.

    If none can, the last one's error is raised.

    Args:
        cohort: of the volumes.
        indices: to read.
        look: at a volume.
        failed: to which those are added that cannot be read, and why.
    """

    def read(few: Sequence[int]) -> Iterator[Made]:
        for index in few:
            volume = read_row(cohort.volumes, index)
            if cohort.pairs is not None:
                read_row(cohort.pairs, index)
            yield look(volume)

    return each_volume(cohort, indices, read, failed)


def refuse_unreadable(cohort: Cohort, *splits: str) -> None:
    """Read the volumes of some splits, and refuse the cohort if one of them cannot be read.

    Raises:
        InputError: with the first of them, and why.
    """
    if fault := fault_of_volumes(cohort, *splits):
        raise InputError(fault)


def fault_of_volumes(cohort: Cohort, *splits: str) -> str:
    """Read the volumes of some splits; the first that cannot be read, and why, or empty text.

    A file that is cut is told by its size, when the cohort is opened. A disk that fails, and a
    class number that no scheme has, only by reading all of it: one process of several does so.
    """
    failed: list[Problem] = []
    try:
        readable(cohort, cohort.indices(*splits), failed)
    except InputError:
        assert failed  # of all, which are then no use: the first is said
    if not failed:
        return ""
    others = f" (and {len(failed) - 1} more like it)" if len(failed) > 1 else ""
    return f"{failed[0].key}{others}: {failed[0].reason}"
