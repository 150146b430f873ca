"""Addresses of models in configurations and runs, old ones included; loads no model."""

from typing import Any

from foldnorm import models


def current_class_path(class_path: str) -> str:
    """Translate a class path of an older configuration to today's.

    Each model has one address that stays, ``foldnorm.models.NAME``; files of release 0.1 named its
    module as well, which moves as modules do.
    """
    package, _, name = class_path.rpartition(".")
    if package.startswith(f"{models.__name__}.") and name in models.__all__:
        return f"{models.__name__}.{name}"
    return class_path


def current(content: Any) -> Any:
    """Give the model of a configuration, as read from a file, the class path it has today."""
    if not (isinstance(content, dict) and isinstance(content.get("model"), dict)):
        return content
    class_path = content["model"].get("class_path")
    if not isinstance(class_path, str):
        return content
    return {**content, "model": {**content["model"], "class_path": current_class_path(class_path)}}
