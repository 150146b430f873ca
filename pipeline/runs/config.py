"""Configurations: YAML files that name a model's class and say how it is trained."""

import argparse
import importlib
import importlib.resources
import json
import logging
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ArgumentParser, Namespace
from torch import nn

from foldnorm.models.class_paths import ClassPath, ClassPathError, first_line, takes
from foldnorm.models.grids import ShapeError
from foldnorm.models.weight_limit import limited_weights
from foldnorm.pipeline.data.augmentation import AugmentationOptions
from foldnorm.pipeline.data.conditions import Conditions
from foldnorm.pipeline.data.sulcus_labels import common_sulci
from foldnorm.pipeline.runs.class_paths import current_class_path, gathered
from foldnorm.pipeline.runs.old_names import CONFIGS, current_config, current_word
from foldnorm.pipeline.runs.options import TrainingOptions
from foldnorm.pipeline.runs.permitted import check_model, check_permitted
from foldnorm.preprocessing.cohort.cohort import Cohort
from foldnorm.preprocessing.core.errors import InputError
from foldnorm.preprocessing.core.resources import available_memory
from foldnorm.preprocessing.core.yaml_files import read_yaml

LOG = logging.getLogger(__name__)
OF_TRAINING = ("training_steps", "condition_size")  # arguments of models that it says
TRAINING_KEYS = {
    "training": [own.name for own in fields(TrainingOptions)],
    "training.augmentation": [own.name for own in fields(AugmentationOptions)],
}
# What the parser says of a word that names nothing, of an argument, and of a value.
UNKNOWN_WORD = re.compile(r"unrecognized arguments: --([\w.]+)")
UNKNOWN_ARGUMENT = re.compile(r"Option '(\w+)' is not accepted")
TYPE = re.compile(r"an? <class '(?:\w+\.)*(\w+)'>")
WRONG_VALUE = re.compile(r'Parser key "([\w.]+)": (.+)')
OLD_FORM = "%s is now %s; the old form goes with release 0.3"


class ConfigurationParser(ArgumentParser):
    """Raises `InputError` with one line instead of printing usage and leaving."""

    def error(self, message: str, ex: Exception | None = None) -> None:  # type: ignore[override]
        """Say what is wrong with the configuration, as the innermost parser did."""
        cause: BaseException | None = ex
        while cause is not None:
            if isinstance(cause, InputError):
                raise cause
            cause = cause.__cause__ or cause.__context__
        text = " ".join(line.strip() for line in message.splitlines() if line.strip())
        raise InputError(f"configuration: {text}")


def shipped_configs() -> list[str]:
    """Names of the configurations that come with foldnorm."""
    folder = importlib.resources.files("foldnorm.configs")
    return sorted(
        p.name.removesuffix(".yaml") for p in folder.iterdir() if p.name.endswith(".yaml")
    )


def config_path(name_or_path: str) -> Path:
    """Path of a configuration, given a path or the name of a shipped one; an old name warns."""
    if Path(name_or_path).is_file():
        return Path(name_or_path)
    name = CONFIGS.get(name_or_path, name_or_path)
    if name != name_or_path:
        LOG.warning(OLD_FORM, name_or_path, name)
    if name in shipped_configs():
        return Path(str(importlib.resources.files("foldnorm.configs") / f"{name}.yaml"))
    raise InputError(
        f"configuration {name_or_path!r} is neither a file nor one of "
        f"{', '.join(shipped_configs())}"
    )


def resolve(
    name_or_path: str,
    overrides: Sequence[str],
    *,
    shape: Sequence[int],
    n_classes: int | None,
    n_pair_classes: int | None = None,
    void: int | None = None,
    is_skeleton: bool = True,
    training_rows: Sequence[Mapping[str, str]] = (),
    sulci: Callable[[], Sequence[str]] = tuple,
    trained: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Read a configuration, apply ``--key value`` overrides, fill in what the cohort says.

    A model that has arguments named ``shape``, ``n_classes``, ``n_pair_classes``, ``void``,
    ``n_channels`` (1 of images, the number of classes otherwise), ``training_steps`` or
    ``condition_size`` is given these, and ``sulci`` where the configuration names none. Unless an
    override tells it, ``sheet_margin`` is 0 where volumes are no skeletons: they are not thinned.

    Names of earlier releases are understood, in overrides with a warning.

    Args:
        name_or_path: a YAML file, or the name of a shipped one.
        overrides: of single keys.
        shape: of the cohort's volumes.
        n_classes: of the volumes; None for images.
        n_pair_classes: of their pairs; None if there are none.
        void: class that an erased voxel takes; None for images.
        is_skeleton: whether the highest class is of sheets that are one voxel thick.
        training_rows: of ``participants.tsv``, from which a conditioned model learns its columns.
        sulci: gives those that nearly all training brains have; asked only if the model names any.
        trained: ``{"class_path", "init_args"}`` of a model from whose weights training starts. If
            it is no model of the same kind but one that can be the first stage of one, it is that,
            with its arguments, and no more of the training is for it.

    Returns:
        ``{"model": {"class_path", "init_args"}, "training": {…}}``, every default spelt out, but
        for those of networks and losses by class path.

    Raises:
        InputError: unknown key, wrong type, unknown class, or one that may not be imported.
    """
    path = config_path(name_or_path)
    content = _content(path)
    class_path, overrides = _with_current_names(content, overrides)
    accepted = _arguments_of_model(class_path)
    of_cohort = {
        "shape": list(shape),
        "n_classes": n_classes,
        "n_pair_classes": n_pair_classes,
        "void": void,
        "n_channels": n_classes or 1,
    }
    of_kind = {} if is_skeleton else {"sheet_margin": 0.0}
    is_own = class_path == _class_path(content, ())  # and not one of the command line
    if trained is not None and is_own and trained["class_path"] != class_path:
        content = _on_first_stage(content, trained, accepted, {*of_cohort, *OF_TRAINING})
    overrides = gathered(overrides, content)
    text = yaml.safe_dump(content)
    namespace = _parsed(path, text, of_cohort | of_kind, accepted, overrides)
    of_training: dict[str, Any] = {"training_steps": namespace.training.steps}
    target = namespace.get("model.init_args.target")  # what a classifier is told in training
    if condition := namespace.get("model.init_args.condition") or (
        target and [f"{target}:category"]
    ):
        of_training["condition_size"] = Conditions.fit(condition, training_rows).size
    if "sulci" in accepted and not namespace.get("model.init_args.sulci"):
        of_training["sulci"] = json.dumps(list(sulci()))
    if "shape" not in accepted:
        sides = namespace.training.patch or shape
        overrides += _sides_of_network(namespace.get("model.init_args.network"), sides)
    namespace = _parsed(path, text, of_cohort | of_kind | of_training, accepted, overrides)
    return dict(yaml.safe_load(_parser().dump(namespace, skip_unset=False)))


def resolve_for(
    cohort: Cohort,
    name_or_path: str,
    overrides: Sequence[str],
    trained: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """`resolve` with all that a cohort says."""
    pair = None if cohort.holds_images else cohort.pair_scheme
    n_classes = None if cohort.holds_images else cohort.scheme.n_classes
    return resolve(
        name_or_path,
        overrides,
        shape=cohort.shape,
        n_classes=n_classes,
        n_pair_classes=None if pair is None else pair.n_classes,
        void=None if cohort.holds_images else cohort.scheme.void,
        is_skeleton=not cohort.holds_images and cohort.scheme.is_skeleton,
        training_rows=[cohort.rows[i] for i in cohort.indices("train")],
        sulci=lambda: common_sulci(cohort),
        trained=trained,
    )


def _on_first_stage(
    content: Mapping[str, Any],
    trained: Mapping[str, Any],
    accepted: set[str],
    filled: Collection[str],
) -> dict[str, Any]:
    """Put a trained model into a configuration as its first stage, if that has one.

    Args:
        content: the configuration.
        trained: see `resolve`.
        accepted: names of the arguments of the configuration's model.
        filled: names of those that cohort and training say.
    """
    given = {k: v for k, v in trained["init_args"].items() if k not in filled}
    if "first_stage" in accepted:
        of_both = {"condition": given.pop("condition", [])}
        stage = {"class_path": trained["class_path"], "init_args": given}
        given = {"first_stage": stage, **of_both}
    elif "autoencoder_share" not in accepted or not accepted.issuperset(given):
        return dict(content)  # what weights do not suit, `set_up` says
    model = content["model"]
    named: dict[str, Any] = {"class_path": model} if isinstance(model, str) else dict(model)
    own = {**(named.get("init_args") or {}), **given, "autoencoder_share": 0.0}
    return {**content, "model": {**named, "init_args": own}}


def _parsed(
    path: Path,
    text: str,
    filled: Mapping[str, Any],
    accepted: set[str],
    overrides: Sequence[str],
) -> Namespace:
    """Parse a configuration, with overrides, and the filled-in arguments its model accepts."""
    words = [
        f"--model.init_args.{name}={value}"
        for name, value in filled.items()
        if name in accepted and value is not None
    ]
    try:
        namespace = _parser().parse_args(["--config", text, *words, *overrides])
    except InputError as error:
        raise InputError(_of_word(str(error), overrides, accepted, path)) from None
    namespace.pop("config", None)
    return namespace


def _of_word(error: str, overrides: Sequence[str], accepted: set[str], path: Path) -> str:
    """Say which word of the command line is wrong, if it is one; else that the file is.

    Args:
        error: of the parser.
        overrides: words of the command line.
        accepted: names of the arguments of the configuration's model.
        path: of the file.
    """
    given = [w.removeprefix("--").partition("=")[0] for w in overrides if w.startswith("--")]
    text = error.removeprefix("configuration: ")
    if unknown := UNKNOWN_WORD.match(text):
        head, _, name = unknown[1].rpartition(".")
        near = get_close_matches(name, TRAINING_KEYS.get(head, ()), n=1)
        hint = f"; did you mean --{head}.{near[0]}" if near else ""
        return f"--{unknown[1]}: no such key{hint} (those of the model are in {path})"
    if unknown := UNKNOWN_ARGUMENT.match(text):
        near = get_close_matches(unknown[1], accepted, n=1)
        hint = f"; did you mean {near[0]}" if near else ""
        return f"{_named(unknown[1], given)}: the model has no such argument{hint}: {path}"
    if wrong := WRONG_VALUE.match(text):
        expected = TYPE.sub(r"\1", wrong[2]).replace(". Got value:", ", got")
        return f"{_named(wrong[1], given)}: {expected[0].lower()}{expected[1:]}: {path}"
    return f"{error}: {path}"


def _named(key: str, given: Sequence[str]) -> str:
    """Return a key as the command line has it, or as it is."""
    words = [word for word in given if word == key or word.endswith(f".{key}")]
    return f"--{words[0]}" if words else key


def _sides_of_network(named: ClassPath | None, sides: Sequence[int]) -> list[str]:
    """Word that tells a network by class path the sides of volumes; none if it does not ask.

    Models that have a ``shape`` do that themselves.
    """
    if not named:
        return []
    try:
        asks = takes(named, "img_size")
    except ClassPathError as error:
        raise InputError(f"network: {error}") from None
    init_args = named.get("init_args") or {}
    if not asks or "img_size" in init_args:
        return []
    told = {**named, "init_args": {**init_args, "img_size": list(sides)}}
    return [f"--model.init_args.network={json.dumps(told)}"]


def _with_current_names(content: Mapping[str, Any], words: Sequence[str]) -> tuple[str, list[str]]:
    """Return the class path of the model, and overrides with the names of today; warn of others."""
    current = [_with_current_class_path(word) for word in words]
    class_path = _class_path(content, current)
    current = [current_word(word, class_path) for word in current]
    for old, new in zip(words, current, strict=True):
        if old != new:
            LOG.warning(OLD_FORM, old, new)
    return class_path, current


def _with_current_class_path(word: str) -> str:
    """Translate a word of a command line where it is, or sets, an older class path."""
    head, equals, value = word.rpartition("=")
    return f"{head}{equals}{current_class_path(value)}"


def _content(path: Path) -> dict[str, Any]:
    """Read a configuration, under the names of today.

    Raises:
        InputError: it is no YAML, or names what may not be imported.
    """
    content = current_config(read_yaml(path))
    try:
        check_permitted(content)
    except InputError as error:
        raise InputError(f"{error}: {path}") from None
    return dict(content)


def _class_path(content: Mapping[str, Any], overrides: Sequence[str]) -> str:
    """Return the class path of the model that a configuration names; empty if it names none."""
    parser = argparse.ArgumentParser(add_help=False, exit_on_error=False, allow_abbrev=False)
    parser.add_argument("--model.class_path", "--model", dest="class_path")
    class_path = parser.parse_known_args(list(overrides))[0].class_path
    try:
        if class_path is None:
            model = content["model"]
            class_path = model if isinstance(model, str) else model["class_path"]
        return current_class_path(class_path)
    except (LookupError, TypeError, AttributeError):
        return ""  # what is wrong with it, the parser says


def _arguments_of_model(class_path: str) -> set[str]:
    """Names of the arguments of the model's class; none if there is no such class."""
    if not class_path:
        return set()
    check_model(class_path)
    module, _, name = class_path.rpartition(".")
    try:
        model = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError):
        return set()  # what is wrong with it, the parser says
    added = ConfigurationParser(exit_on_error=False).add_class_arguments(model, "model")
    return {name.removeprefix("model.") for name in added}


def build_model(model: Mapping[str, Any]) -> nn.Module:
    """Build the model that ``{"class_path", "init_args"}`` describes.

    Raises:
        InputError: the class or an argument is wrong, may not be imported, or volumes do not suit
            the network.
    """
    check_permitted({"model": {"class_path": None, **model}})
    parser = ConfigurationParser(exit_on_error=False)
    parser.add_argument("--model", type=nn.Module)
    try:
        with limited_weights(available_memory()):
            built: Namespace = parser.instantiate(parser.parse_object({"model": dict(model)}))
    except (ShapeError, ValueError) as error:
        raise InputError(str(error)) from None
    except Exception as error:  # whatever torch raises about sizes
        raise InputError(f"model: {first_line(error)}") from error
    return built.model


def spelt_out(model: Mapping[str, Any]) -> dict[str, Any]:
    """Add every default to ``{"class_path", "init_args"}`` of a model.

    Raises:
        InputError: unknown argument, or wrong type.
    """
    parser = ConfigurationParser(exit_on_error=False)
    parser.add_argument("--model", type=nn.Module)
    namespace = parser.parse_object({"model": dict(model)})
    return dict(yaml.safe_load(parser.dump(namespace, skip_unset=False))["model"])


def training_options(config: Mapping[str, Any]) -> TrainingOptions:
    """Return the ``training`` section of a resolved configuration.

    Raises:
        InputError: a value is out of range; with its key.
    """
    content = dict(config["training"])
    content["betas"] = tuple(content["betas"])
    if content.get("patch") is not None:
        content["patch"] = tuple(content["patch"])
    try:
        content["augmentation"] = AugmentationOptions(**content["augmentation"])
    except InputError as error:
        raise InputError(f"training.augmentation.{error}") from None
    return TrainingOptions(**content)


def _parser() -> ConfigurationParser:
    parser = ConfigurationParser(exit_on_error=False)
    parser.add_argument("--config", action="config")
    parser.add_argument("--model", type=nn.Module, required=True)
    parser.add_argument("--training", type=TrainingOptions, default=TrainingOptions())
    return parser
