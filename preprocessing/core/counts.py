"""Numbers with their nouns, as sentences have them."""

from collections.abc import Sequence


def counted(number: int, noun: str, plural: str = "") -> str:
    """Join a number and its noun: in the plural, unless it is 1.

    Args:
        number: how many.
        noun: in the singular, with what stands before it.
        plural: of the noun; by default with an ``s``.

    Example:
        >>> counted(1, "training volume"), counted(2, "training volume"), counted(0, "axis", "axes")
        ('1 training volume', '2 training volumes', '0 axes')
    """
    return f"{number} {noun if number == 1 else plural or f'{noun}s'}"


def listed(names: Sequence[str], most: int = 5) -> str:
    """Return names for a message, and how many there are beyond ``most``.

    Example:
        >>> listed(["sub-1", "sub-2", "sub-3"], most=2)
        'sub-1, sub-2 and 1 more'
    """
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")
