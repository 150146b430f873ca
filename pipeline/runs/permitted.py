"""Classes that a configuration may name, checked before anything that it names is imported.

A configuration may come from anyone, and the parser imports every ``class_path`` that it meets: in
any section, under keys with dots, in text that it takes for YAML, in files that a section names.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from foldnorm.models.class_paths import LOSSES, NETWORKS, TRUST, is_of, trusted
from foldnorm.pipeline.runs.class_paths import is_model
from foldnorm.preprocessing.core.errors import InputError
from foldnorm.preprocessing.core.yaml_files import parse_yaml

SECTIONS = ("model", "training")
HOW_TO_TRUST = f"if you trust its package, name it: foldnorm --trust PACKAGE (or {TRUST})"
CLASS_PATH = "class_path"


def check_permitted(content: Any) -> None:
    """Refuse a configuration that names a class which may not be imported.

    The model must be one of foldnorm; a network or a loss of it, one of the packages that hold
    nothing else; anything else is of a package that the user trusts.

    Args:
        content: of a configuration, or part of it: ``{"model": …, "training": …}``.

    Raises:
        InputError: with the class path, or the key that has no place.
    """
    if not isinstance(content, Mapping):
        raise InputError(f"expected the sections {' and '.join(SECTIONS)}, got {content!r:.60}")
    _check_keys(content, "configuration", SECTIONS)
    model, training = content.get("model"), content.get("training")
    if isinstance(model, Mapping):
        _check_keys(model, "model", (CLASS_PATH, "init_args"))
        if CLASS_PATH in model:  # else the command line names it
            check_model(model[CLASS_PATH])
        _check_arguments(model.get("init_args"))
    elif model is not None:
        check_model(model)
    if training is not None:
        _check_plain(training, "training")
        if training.get("augmentation") is not None:
            _check_plain(training["augmentation"], "training.augmentation")


def check_model(class_path: object) -> None:
    """Refuse a model that is neither one of ours nor of a package that the user named.

    Raises:
        InputError: with what is expected.
    """
    if not is_model(class_path) and not is_of(str(class_path), trusted()):
        raise InputError(
            f"model: expected foldnorm.models.NAME, such as those of `foldnorm models`, got "
            f"{class_path}; {HOW_TO_TRUST}"
        )


def _check_arguments(arguments: Any) -> None:
    if arguments is None:
        return
    _check_keys(arguments, "model.init_args", None)
    for name, value in arguments.items():
        found = value if isinstance(value, Mapping) else {}
        if CLASS_PATH in found:  # a network or a loss; what it is given names no class
            _check_class(found[CLASS_PATH], f"model.init_args.{name}", (*NETWORKS, *LOSSES))
            value = [own for key, own in found.items() if key != CLASS_PATH]
        for class_path in _class_paths(value):
            _check_class(class_path, f"model.init_args.{name}", ())


def _check_plain(section: Any, name: str) -> None:
    """Refuse a section that is no mapping, or that names a class."""
    _check_keys(section, name, None)
    for class_path in _class_paths(section):
        _check_class(class_path, name, ())


def _check_keys(section: Any, name: str, known: tuple[str, ...] | None) -> None:
    """Refuse what is no mapping of plain names, or has other keys than those known, if any are."""
    if not isinstance(section, Mapping):
        raise InputError(f"{name}: expected keys and values, got {section!r:.60}")
    for key in section:
        if not isinstance(key, str) or "." in key or (known is not None and key not in known):
            hint = f", one of {', '.join(known)}" if known else ""
            raise InputError(f"{name}: expected a plain key{hint}, got {key!r:.60}")


def _check_class(class_path: object, name: str, packages: tuple[str, ...]) -> None:
    if not is_of(str(class_path), (*packages, *trusted())):
        expected = f"a class of {' or '.join(packages)}" if packages else "plain values"
        raise InputError(f"{name}: expected {expected}, got {class_path}; {HOW_TO_TRUST}")


def _class_paths(value: Any) -> Iterator[object]:
    """Yield the class paths anywhere in a value, and in text that reads as YAML."""
    if isinstance(value, str):
        try:
            value = parse_yaml(value)
        except ValueError:
            return
        if isinstance(value, str):
            return
    if isinstance(value, Mapping):
        if CLASS_PATH in value:
            yield value[CLASS_PATH]
        value = value.values()
    elif not isinstance(value, (list, tuple)):
        return
    for own in value:
        yield from _class_paths(own)
