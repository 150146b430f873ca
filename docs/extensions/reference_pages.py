"""Reference pages that are made of the code: commands, configurations, files and columns."""

import argparse
import json
from collections.abc import Iterator
from dataclasses import MISSING, fields, is_dataclass
from itertools import groupby
from pathlib import Path

import yaml
from docstring_parser import parse
from figures import markdown
from sphinx.application import Sphinx

from foldnorm.pipeline import artifacts
from foldnorm.pipeline.artifacts import Artifact
from foldnorm.pipeline.cli import COMMANDS, build_parser
from foldnorm.pipeline.data.augmentation import AugmentationOptions
from foldnorm.pipeline.runs.options import TrainingOptions

ROOT = Path(__file__).parents[2]
OUT = Path(__file__).parents[1] / "reference/_made"  # not kept in the repository


def commands() -> Iterator[tuple[str, str]]:
    """Yield a page for each command."""
    _, parsers = build_parser()
    for name in COMMANDS:
        parser = parsers[name]
        lines = [f"# foldnorm {name}", "", parser.description or "", "", *_usage(parser)]
        yield f"command-{name}", "\n".join([*lines, *_options(parser), *_subcommands(parser)])


def _usage(parser: argparse.ArgumentParser) -> list[str]:
    usage = parser.format_usage().removeprefix("usage: ").strip()
    return ["```text", usage, "```", ""]


def _options(parser: argparse.ArgumentParser) -> list[str]:
    """List arguments, by the groups of the help."""
    lines = []
    for group in parser._action_groups:
        actions = [
            a
            for a in group._group_actions
            if a.help != argparse.SUPPRESS and not isinstance(a, argparse._SubParsersAction)
        ]
        if not actions:
            continue
        lines += [f"**{(group.title or '').capitalize()}**", ""]
        for action in actions:
            formatter = parser._get_formatter()
            words = formatter._format_action_invocation(action)
            about = formatter._expand_help(action) if action.help else ""
            lines += [f"`{words}`", f": {' '.join(about.split()) or '–'}", ""]
    return lines


def _subcommands(parser: argparse.ArgumentParser) -> list[str]:
    lines: list[str] = []
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, sub in action.choices.items():
                lines += [f"## {parser.prog.split()[-1]} {name}", "", sub.description or "", ""]
                lines += [*_usage(sub), *_options(sub)]
    return lines


def configurations() -> str:
    """Make the page of all configurations."""
    lines = [
        "# Configurations", "",
        "Every key of these files can be set on the command line of `foldnorm train`, as in "
        "`--training.steps 100`; `foldnorm train` takes a name, or the path of your own file.", "",
    ]  # fmt: skip
    for path in sorted((ROOT / "configs").glob("*.yaml")):
        model = yaml.safe_load(path.read_text(encoding="utf-8"))["model"]["class_path"]
        lines += [f"## {path.stem}", "", f"Model: `{model}`", ""]
        lines += ["```{literalinclude} ../../../configs/" + path.name, ":language: yaml", "```", ""]
    return "\n".join(lines)


def training() -> str:
    """Make the page of the keys that all configurations share."""
    lines = [
        "# Keys of training", "",
        "The section `training` of every configuration has these keys; those that a YAML leaves "
        "out have their default.", "",
    ]  # fmt: skip
    sections = {"training": TrainingOptions, "training.augmentation": AugmentationOptions}
    for head, options in sections.items():
        about = {own.arg_name: own.description for own in parse(options.__doc__ or "").params}
        rows = []
        for own in fields(options):
            made = own.default if own.default is not MISSING else own.default_factory()
            default = "" if is_dataclass(made) else f"`{json.dumps(made)}`"
            text = " ".join((about[own.name] or "").split()).replace("``", "`")
            rows.append([f"`{head}.{own.name}`", default, text])
        lines += [markdown(["key", "default", "meaning"], rows), ""]
    return "\n".join(lines)


def files() -> str:
    """Make the page of all result files and their columns."""
    listed = [value for value in vars(artifacts).values() if isinstance(value, Artifact)]
    lines = ["# Files and columns", "", "What each command writes into its output folder.", ""]
    for command, group in groupby(listed, key=lambda artifact: artifact.command):
        lines += [f"## foldnorm {command}", ""]
        for artifact in group:
            lines += [f"`{artifact.name}`", f": {artifact.about}", ""]
            if artifact.columns:
                rows = [[f"`{name}`", about] for name, about in artifact.columns.items()]
                lines += [markdown(["column", "meaning"], rows), ""]
    return "\n".join(lines)


def make(app: Sphinx) -> None:
    """Write the pages; those that did not change are left alone, so that Sphinx need not read."""
    del app
    OUT.mkdir(parents=True, exist_ok=True)
    pages = {**dict(commands()), "configurations": configurations()}
    pages |= {"training": training(), "files": files()}
    for name, text in pages.items():
        path = OUT / f"{name}.md"
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
    for path in OUT.glob("*.md"):
        if path.stem not in pages:
            path.unlink()


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the pages."""
    app.connect("builder-inited", make)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
