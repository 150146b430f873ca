"""Classes that a configuration names: which may be named, and how one is built.

A run folder or a bundle may come from anyone, so its ``config.yaml`` is data. A class path is
imported only from packages that hold nothing but networks or losses, or from those that the user
named: ``foldnorm --trust PACKAGE``, which sets the environment variable ``FOLDNORM_TRUST``. What is
built must be a ``torch.nn.Module``, its arguments plain values, and it loads no weights.
"""

import importlib
import inspect
import os
from collections.abc import Mapping, Sequence
from typing import Any, NotRequired, TypedDict

from torch import nn

TRUST = "FOLDNORM_TRUST"  # environment variable: packages, with commas between them
NETWORKS = ("monai.networks.nets", "foldnorm.models")
LOSSES = ("monai.losses",)
# Classes of MONAI that download or read weights whatever they are given, or call others by name.
REFUSED = ("CellSamWrapper", "MILModel", "MultiModal", "TorchVisionFCModel", "Transchex")


class ClassPath(TypedDict):
    """A class and its arguments, as configurations have them.

    Attributes:
        class_path: such as ``monai.networks.nets.SegResNet``.
        init_args: arguments of its constructor; those that follow from the cohort may be left out.
    """

    class_path: str
    init_args: NotRequired[dict[str, Any]]


class ClassPathError(ValueError):
    """A class path that may not be imported, leads nowhere, or cannot be built."""


def trusted() -> tuple[str, ...]:
    """List the packages that the user named."""
    return tuple(name for name in os.environ.get(TRUST, "").split(",") if name)


def is_of(class_path: str, packages: Sequence[str]) -> bool:
    """Say if a class path lies in one of these packages."""
    return any(class_path.startswith(f"{package}.") for package in packages)


def class_of(class_path: str, packages: Sequence[str]) -> type[nn.Module]:
    """Import a class.

    Args:
        class_path: see `ClassPath`.
        packages: that may be imported from, beside those that the user named.

    Raises:
        ClassPathError: it lies in none of them, does not exist, or is no ``torch.nn.Module``.
    """
    if not is_of(class_path, (*packages, *trusted())):
        raise ClassPathError(
            f"expected a class of {' or '.join(packages)}, got {class_path}; if you trust its "
            "package, name it: foldnorm --trust PACKAGE"
        )
    module, _, name = class_path.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ClassPathError(f"no such class: {class_path} ({error})") from None
    if not (isinstance(found, type) and issubclass(found, nn.Module)):
        raise ClassPathError(f"expected a class of torch.nn.Module, got {class_path}")
    if name in REFUSED and is_of(class_path, NETWORKS):
        raise ClassPathError(f"{class_path} is refused: it loads weights of others")
    return found


def build(
    named: ClassPath, packages: Sequence[str], filled: Mapping[str, Any] | None = None
) -> nn.Module:
    """Build what a configuration names.

    Args:
        named: class and arguments.
        packages: see `class_of`.
        filled: arguments that follow from elsewhere; those that the class has and the
            configuration does not name are given to it.

    Raises:
        ClassPathError: see `class_of`; or an argument is wrong, missing, or loads weights.
    """
    class_path, given = named["class_path"], dict(named.get("init_args") or {})
    kind = class_of(class_path, packages)
    known = arguments_of(kind)
    for name in given:
        if is_loading(name) and given[name]:
            raise ClassPathError(f"{class_path}: {name} is refused, no weights are loaded")
    arguments = {name: value for name, value in (filled or {}).items() if name in known}
    arguments |= {name: False for name in known if name == "pretrained"}  # some default to True
    try:
        return kind(**{**arguments, **given})
    except Exception as error:  # whatever a class of others raises about its arguments
        raise ClassPathError(f"{class_path}: {first_line(error)}") from error


def is_loading(argument: str) -> bool:
    """Say if an argument of this name makes a network or a loss load weights."""
    return "pretrained" in argument or argument in ("checkpoint", "weights")


def takes(named: ClassPath, argument: str) -> bool:
    """Say if a network's class has an argument.

    Raises:
        ClassPathError: see `class_of`.
    """
    return argument in arguments_of(class_of(named["class_path"], NETWORKS))


def arguments_of(kind: type[nn.Module]) -> list[str]:
    """List the arguments of a class, those included that it hands on to its base classes."""
    found: list[str] = []
    for base in kind.__mro__:
        parameters = inspect.signature(base).parameters
        found += [name for name in parameters if name not in found]
        if not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
            break
    return found


def first_line(error: BaseException) -> str:
    """First line of an error's text, or its name if it has none."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
