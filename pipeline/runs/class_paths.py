"""Addresses of models in configurations and runs, old ones included; loads no model."""

from foldnorm import models

RENAMED = {"Recogniser": "SulcusSegmenter"}


def current_class_path(class_path: str) -> str:
    """Translate a class path of an older configuration to today's.

    Each model has one address that stays, ``foldnorm.models.NAME``; files of release 0.1 named its
    module as well, which moves as modules do.
    """
    package, _, name = class_path.rpartition(".")
    name = RENAMED.get(name, name)
    is_own = f"{package}.".startswith(f"{models.__name__}.")
    return f"{models.__name__}.{name}" if is_own and name in models.__all__ else class_path
