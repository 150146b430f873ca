"""YAML of the user or of somebody else: plain values, of a size and depth that can be walked."""

from pathlib import Path
from typing import Any

import yaml

from foldnorm.preprocessing.core.errors import InputError

MAX_CHARACTERS = 4 << 20
MAX_VALUES = 100_000  # with every alias written out


def read_yaml(path: Path) -> Any:
    """Read a YAML file as plain values.

    Raises:
        InputError: it is not there, is no YAML, or holds more than `parse_yaml` takes.
    """
    try:
        with path.open(encoding="utf-8") as stream:
            text = stream.read(MAX_CHARACTERS + 1)
    except FileNotFoundError:
        raise InputError(f"no such file: {path}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"not readable as YAML ({error}): {path}") from error
    try:
        return parse_yaml(text)
    except ValueError as error:
        raise InputError(f"not readable as YAML ({error}): {path}") from None


def parse_yaml(text: str) -> Any:
    """Parse YAML into plain values.

    Raises:
        ValueError: with one line; it is no YAML, is longer than `MAX_CHARACTERS`, nested too
            deeply, holds itself, or holds more than `MAX_VALUES` values where aliases stand for
            what they name (a billion laughs).

    Example:
        >>> parse_yaml("{a: [1, 2.5, on]}")
        {'a': [1, 2.5, True]}
    """
    if len(text) > MAX_CHARACTERS:
        raise ValueError(f"more than {MAX_CHARACTERS} characters")
    try:
        content = yaml.safe_load(text)
        count = _count(content, {}, set())
    except RecursionError:
        raise ValueError("nested too deeply") from None
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from None
    except (LookupError, AttributeError, TypeError) as error:  # PyYAML, of values with a wrong tag
        raise ValueError(f"a value is not of its tag, {error}") from None
    if count > MAX_VALUES:
        raise ValueError(f"more than {MAX_VALUES} values, with every alias written out")
    return content


def _count(value: Any, known: dict[int, int], above: set[int]) -> int:
    """Count the values in a value, itself included; what is known is not walked again."""
    if not isinstance(value, (dict, list)):
        return 1
    place = id(value)
    if place in above:
        raise ValueError("a value holds itself")
    if place not in known:
        inner = value.values() if isinstance(value, dict) else value
        known[place] = 1 + sum(_count(own, known, above | {place}) for own in inner)
    return known[place]
