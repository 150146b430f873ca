"""The split into training, validation and test, decided once and by participant.

A hash of the participant (or family) id draws its place in [0, 1): adding subjects moves nobody,
both hemispheres and all relatives stay together, and nothing ever redraws it.
"""

import hashlib
from typing import Literal

from foldnorm.preprocessing.core.errors import InputError

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")
DEFAULT_FRACTIONS = (0.75, 0.15, 0.10)


def assign_split(
    unit: str, *, seed: int = 0, fractions: tuple[float, ...] = DEFAULT_FRACTIONS
) -> Split:
    """Return the split of a participant, or of a family where families are known.

    Args:
        unit: participant or family id.
        seed: of the hash.
        fractions: shares of training, validation and test; they sum to 1.
    """
    check_fractions(fractions)
    digest = hashlib.sha256(f"{seed}:{unit}".encode()).digest()
    draw = int.from_bytes(digest[:8], "big") / 2**64
    if draw < fractions[0]:
        return "train"
    return "validation" if draw < fractions[0] + fractions[1] else "test"


def check_fractions(fractions: tuple[float, ...]) -> None:
    """Raise `InputError` unless ``fractions`` are three shares that sum to 1."""
    if len(fractions) != 3 or min(fractions) < 0 or abs(sum(fractions) - 1) > 1e-6:
        raise InputError(f"split: expected three shares that sum to 1, got {fractions}")
