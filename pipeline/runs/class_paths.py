"""Class paths in configurations and runs, old ones included; loads no model."""

import json
import re
from collections.abc import Sequence
from typing import Any

import yaml

from foldnorm import models

# Keys of a network or a loss by class path, and of its arguments: ``network.init_args.channels``.
NAMED = re.compile(r"--model\.init_args\.(\w+)(?:\.(class_path)|\.init_args\.(\w+))?")
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


def is_model(class_path: object) -> bool:
    """Say if a class path is the address of one of our models."""
    package, _, name = str(class_path).rpartition(".")
    return package == models.__name__ and name in models.__all__


def gathered(words: Sequence[str], content: Any) -> list[str]:
    """Join the words that set single arguments of a network or a loss by class path.

    ``--model.init_args.network.init_args.channels 8`` and its like become one word,
    ``--model.init_args.network={…}``, with what the configuration says of the rest.

    Args:
        words: of a command line.
        content: of the configuration.

    Returns:
        The words, the joined ones last.
    """
    kept: list[str] = []
    joined: dict[str, dict[str, Any]] = {}
    pending = list(words)
    while pending:
        word = pending.pop(0)
        key, equals, value = word.partition("=")
        match = NAMED.fullmatch(key)
        if match is None or not any(match.groups()[1:]):
            kept.append(word)
            continue
        if not equals:
            value = pending.pop(0) if pending else ""
        argument, is_path, name = match.groups()
        named = joined.setdefault(argument, _named_in(content, argument))
        if is_path and value != named.get("class_path"):
            named["class_path"], named["init_args"] = value, {}
        elif name:
            named["init_args"][name] = yaml.safe_load(value)
    return [*kept, *(f"--model.init_args.{name}={json.dumps(own)}" for name, own in joined.items())]


def _named_in(content: Any, argument: str) -> dict[str, Any]:
    """Copy what a configuration says of a network or a loss; empty if it says nothing."""
    try:
        named = content["model"]["init_args"][argument]
        return {**named, "init_args": dict(named.get("init_args") or {})}
    except (LookupError, TypeError, ValueError, AttributeError):
        return {"init_args": {}}
