"""YAML of the user or of somebody else: plain values, of a size and depth that can be walked."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import yaml

from foldnorm.preprocessing.core.errors import InputError
from foldnorm.preprocessing.core.files import write_text

Version = Literal["1.1", "1.2"]
BOOLEAN = "tag:yaml.org,2002:bool"
MAX_CHARACTERS = 4 << 20
MAX_VALUES = 100_000  # with every alias written out
END = "..."  # of a YAML document
MARKED = f"# The last line of this file is {END}; without it, the file is cut off.\n"


def write_yaml(path: Path, content: Mapping[str, Any]) -> None:
    """Write plain values as YAML, keys in the order given; its end is marked, as its start says."""
    text = yaml.safe_dump(dict(content), sort_keys=False, explicit_end=True)
    write_text(path, MARKED + text)


def read_yaml(path: Path, *, version: Version = "1.1") -> Any:
    """Read a YAML file as plain values.

    Args:
        path: of the file.
        version: see `parse_yaml`.

    Raises:
        InputError: it is not there, is no YAML, is cut off though it says how it ends, or holds
            more than `parse_yaml` takes.
    """
    try:
        with path.open(encoding="utf-8") as stream:
            text = stream.read(MAX_CHARACTERS + 1)
    except FileNotFoundError:
        raise InputError(f"no such file: {path}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"not readable as YAML ({error}): {path}") from error
    if text.startswith(MARKED) and text.rstrip().rpartition("\n")[2] != END:
        raise InputError(f"cut off: expected {END!r} as the last line: {path}")
    try:
        return parse_yaml(text, version=version)
    except ValueError as error:
        raise InputError(f"not readable as YAML ({error}): {path}") from None


def parse_yaml(text: str, *, version: Version = "1.1") -> Any:
    """Parse YAML into plain values.

    Args:
        text: YAML.
        version: of YAML: in 1.1, which PyYAML and configurations speak, ``on``, ``yes``, ``off``
            and ``no`` are true and false; in 1.2 they are the words that they look like, as what
            names things needs it.

    Raises:
        ValueError: with one line; it is no YAML, gives a key twice, is longer than
            `MAX_CHARACTERS`, nested too deeply, holds itself, or holds more than `MAX_VALUES`
            values where aliases stand for what they name (a billion laughs).

    Example:
        >>> parse_yaml("{a: [1, 2.5, on]}")
        {'a': [1, 2.5, True]}
        >>> parse_yaml("{a: [on, no, true]}", version="1.2")
        {'a': ['on', 'no', True]}
    """
    if len(text) > MAX_CHARACTERS:
        raise ValueError(f"more than {MAX_CHARACTERS} characters")
    try:
        content = yaml.load(text, LOADERS[version])  # each of them a SafeLoader
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


class Loader(yaml.SafeLoader):
    """Loader of plain values that refuses a key given twice, where PyYAML takes the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Build a mapping."""
        given: set[tuple[str, str]] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue
            if (key.tag, key.value) in given:
                raise yaml.constructor.ConstructorError(
                    None, None, f"key {key.value!r} is given twice", key.start_mark
                )
            given.add((key.tag, key.value))
        return super().construct_mapping(node, deep)


class Loader12(Loader):
    """Loader whose only booleans are true and false."""

    yaml_implicit_resolvers = {  # noqa: RUF012  # as PyYAML declares it
        first: [(tag, pattern) for tag, pattern in resolvers if tag != BOOLEAN or first in "tTfF"]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


LOADERS: dict[Version, type[Loader]] = {"1.1": Loader, "1.2": Loader12}


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
