"""Brains as they may be given to a model: a cohort, some of one, one brain, or an array."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from foldnorm.preprocessing.cohort.cohort import Brain, Cohort, CohortView, prepared_otherwise
from foldnorm.preprocessing.core.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

BrainsLike: TypeAlias = "Cohort | CohortView | Brain | Iterable[Brain] | NDArray[Any] | Tensor"
VOLUME_AXES = 3


def brains_of(
    given: BrainsLike,
    shape: Sequence[int] | None,
    row: Mapping[str, str],
    *,
    any_shape: bool = False,
) -> Iterable[Brain]:
    """Brains one by one.

    Args:
        given: as `BrainsLike` says.
        shape: of the volumes that a model was trained on; None if that is not known.
        row: what is known of whose a volume of an array is.
        any_shape: arrays may be of another shape, with as many axes.

    Raises:
        InputError: an array does not hold such volumes.
    """
    if isinstance(given, Brain):
        return [given]
    if hasattr(given, "__array__"):
        sides = None if shape is None else tuple(shape)
        return [Brain(v, row) for v in _volumes(np.asarray(given), sides, any_shape=any_shape)]
    return given


def cohorts_of(given: BrainsLike) -> list[Cohort]:
    """Cohorts that brains are known to come from."""
    if isinstance(given, Cohort):
        return [given]
    if isinstance(given, CohortView):
        return list({id(cohort): cohort for cohort, _ in given.places}.values())
    return []


def _volumes(
    array: NDArray[Any], sides: tuple[int, ...] | None, *, any_shape: bool
) -> NDArray[Any]:
    """(N, *sides) of one volume or several."""
    axes = VOLUME_AXES if sides is None else len(sides)
    batch = array[None] if array.ndim == axes else array
    fits = any_shape or sides is None or batch.shape[1:] == sides
    if batch.ndim != axes + 1 or not fits:
        expected = "(N, I, J, K)" if sides is None or any_shape else f"(N, {str(sides)[1:]}"
        raise InputError(f"expected volumes of shape {expected}, as in training, got {array.shape}")
    if array.dtype.kind in "iub":
        if array.size and not 0 <= array.min() <= array.max() <= np.iinfo(np.uint8).max:
            raise InputError("expected class numbers, uint8, which `fn.preprocess` makes of labels")
        return batch.astype(np.uint8)
    return batch.astype(np.float32)


def check_cohort(data: Mapping[str, Any], cohort: Cohort) -> None:
    """Refuse a cohort that was not prepared as a training cohort was.

    Args:
        data: what the run records of the latter.
        cohort: to be looked at.

    Raises:
        InputError: with what differs.
    """
    detail = prepared_otherwise(data["preparation"], data["shape"], cohort)
    if detail:
        raise InputError(
            f"cohort preprocessing differs from that of the training cohort ({detail}); "
            f"preprocess it with --layout-from the training cohort: {cohort.folder}"
        )
