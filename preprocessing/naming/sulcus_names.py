"""Names of sulci as tables of folds hold them."""

NOT_NAMES = {"", "unknown", "ventricle_left", "ventricle_right"}


def sulcus_name(name: str, *, both_sides: bool) -> str:
    """Name of a sulcus without its side, unless both sides are in one volume."""
    return name if both_sides else name.removesuffix("_left").removesuffix("_right")
