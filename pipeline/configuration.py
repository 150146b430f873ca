"""Configurations: YAML files that name a model's class and say how it is trained."""

import importlib.resources
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ArgumentParser, Namespace
from torch import nn

from foldnorm.models.volume_networks import ShapeError
from foldnorm.pipeline.training_options import TrainingOptions
from foldnorm.preprocessing.errors import InputError


class ConfigurationParser(ArgumentParser):
    """Raises `InputError` with one line instead of printing usage and leaving."""

    def error(self, message: str, ex: Exception | None = None) -> None:  # type: ignore[override]
        """Say what is wrong with the configuration."""
        del ex
        text = " ".join(line.strip() for line in message.splitlines() if line.strip())
        raise InputError(f"configuration: {text}")


def shipped_configs() -> list[str]:
    """Names of the configurations that come with foldnorm."""
    folder = importlib.resources.files("foldnorm.configs")
    return sorted(
        p.name.removesuffix(".yaml") for p in folder.iterdir() if p.name.endswith(".yaml")
    )


def config_path(name_or_path: str) -> Path:
    """Path of a configuration, given a path or the name of a shipped one."""
    if Path(name_or_path).is_file():
        return Path(name_or_path)
    if name_or_path in shipped_configs():
        return Path(str(importlib.resources.files("foldnorm.configs") / f"{name_or_path}.yaml"))
    raise InputError(
        f"configuration {name_or_path!r} is neither a file nor one of "
        f"{', '.join(shipped_configs())}"
    )


def resolve(
    name_or_path: str, overrides: Sequence[str], *, shape: Sequence[int], n_classes: int
) -> dict[str, Any]:
    """Read a configuration, apply ``--key value`` overrides, fill in what the cohort says.

    Returns:
        ``{"model": {"class_path", "init_args"}, "training": {…}}``, every default spelt out.

    Raises:
        InputError: unknown key, wrong type, unknown class.
    """
    namespace = _parser().parse_args(
        [
            "--config",
            str(config_path(name_or_path)),
            f"--model.init_args.shape={list(shape)}",
            f"--model.init_args.n_classes={n_classes}",
            *overrides,
        ]
    )
    namespace.pop("config", None)
    return dict(yaml.safe_load(_parser().dump(namespace, skip_unset=False)))


def build_model(model: Mapping[str, Any]) -> nn.Module:
    """Build the model that ``{"class_path", "init_args"}`` describes.

    Raises:
        InputError: the class or an argument is wrong, or volumes do not suit the network.
    """
    parser = ConfigurationParser(exit_on_error=False)
    parser.add_argument("--model", type=nn.Module)
    try:
        built: Namespace = parser.instantiate(parser.parse_object({"model": dict(model)}))
    except ShapeError as error:
        raise InputError(str(error)) from None
    return built.model


def training_options(config: Mapping[str, Any]) -> TrainingOptions:
    """Return the ``training`` section of a resolved configuration."""
    content = dict(config["training"])
    content["betas"] = tuple(content["betas"])
    return TrainingOptions(**content)


def _parser() -> ConfigurationParser:
    parser = ConfigurationParser(exit_on_error=False)
    parser.add_argument("--config", action="config")
    parser.add_argument("--model", type=nn.Module, required=True)
    parser.add_argument("--training", type=TrainingOptions, default=TrainingOptions())
    return parser
