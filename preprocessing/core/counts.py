"""Numbers with their nouns, as sentences have them."""


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
