"""Only brains that were prepared alike are compared."""

from collections.abc import Sequence
from pathlib import Path

from foldnorm.preprocessing.cohort.cohort import Cohort, prepared_otherwise
from foldnorm.preprocessing.core.errors import InputError


def check_alike(healthy: Cohort, shape: Sequence[int], like: Path, cohort: Cohort) -> None:
    """Refuse brains that were not prepared as the healthy ones were.

    Args:
        healthy: how these were prepared; no brain of it is needed.
        shape: of each of them.
        like: folder that others can be prepared like.
        cohort: to compare.

    Raises:
        InputError: with what differs.
    """
    detail = prepared_otherwise(healthy.preparation, shape, cohort)
    if detail:
        raise InputError(
            f"cohort was prepared otherwise than the healthy one ({detail}); preprocess it with "
            f"--layout-from {like}: {cohort.folder}"
        )
