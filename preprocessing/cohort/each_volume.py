"""Work on the volumes of a cohort, each on its own: one that fails does not end the others."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

from foldnorm.preprocessing.cohort.cohort import Cohort, row_key
from foldnorm.preprocessing.core.isolation import isolated_batches
from foldnorm.preprocessing.io.sources import Problem

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
