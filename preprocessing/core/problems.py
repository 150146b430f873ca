"""Problems of a batch: items that cannot be used, each with its reason; the rest goes on."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Problem:
    """A volume that cannot be used, and why, in one line."""

    key: str
    reason: str
