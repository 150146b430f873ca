"""Words that options choose from, as types."""

from typing import Any, Literal, get_args, get_origin

FoldLabels = Literal["auto", "none"]
Hemi = Literal["L", "R"]
Orientation = Literal["ras", "las"]
Hull = Literal["keep", "remove"]
Resampling = Literal["sulcus-priority", "nearest", "max", "linear"]
Rule = Literal["exact", "topological", "nearest"]
Space = Literal["native", "mni"]


def choices_of(kind: Any) -> tuple[Any, ...]:
    """Return the words that an annotation allows; none where it allows any.

    Example:
        >>> choices_of(Space | None), choices_of(tuple[Hemi, ...]), choices_of(str)
        (('native', 'mni'), ('L', 'R'), ())
    """
    found = (one for one in (kind, *get_args(kind)) if get_origin(one) is Literal)
    return next(map(get_args, found), ())
