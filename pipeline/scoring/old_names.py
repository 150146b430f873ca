"""Names in scorers that earlier versions saved, and what they are called now."""

import re

FAMILIES = {"depths": "features"}


def current_family(name: str) -> str:
    """Return the name that a family of scores has today; its folder keeps the old one."""
    return FAMILIES.get(name, name)


def current_score(name: str) -> str:
    """Return the name that a score has today: ``depth1_mahalanobis`` is a score of features."""
    return re.sub(r"^depth(?=\d+_mahalanobis$)", "features", name)
