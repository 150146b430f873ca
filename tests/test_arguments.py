"""Flags that are made of a dataclass of options."""

import argparse
import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest

from foldnorm.pipeline.commands.arguments import add_options

SHOWN = {"group": "shown"}


@dataclass(frozen=True)
class Drawing:
    """Options of a drawing.

    Attributes:
        colours: colours to draw
            in
        size: width and height in mm
        title: title, if any
        on: file to draw on
        seed: random seed
        dry: draw nothing
        threads: number of threads
    """

    colours: tuple[Literal["red", "blue"], ...] = field(default=(), metadata=SHOWN)
    size: tuple[float, float] = field(default=(1.0, 2.0), metadata=SHOWN | {"metavar": ("W", "H")})
    title: str | None = field(default=None, metadata=SHOWN)
    on: str | Path | None = field(default=None, metadata=SHOWN)
    seed: int = field(default=0, metadata=SHOWN)
    dry: bool = field(default=False, metadata=SHOWN)
    threads: int = 1


@pytest.fixture
def parser():
    return argparse.ArgumentParser()


def test_values_are_read_as_annotations_say(parser):
    add_options(parser, Drawing)
    assert vars(parser.parse_args([])) == {
        "colours": (), "size": (1.0, 2.0), "title": None, "on": None, "seed": 0,
        "dry": False,
    }  # fmt: skip
    words = shlex.split("--colours red blue --size 3 4 --title a --on b --seed 3 --dry")
    assert vars(parser.parse_args(words)) == {
        "colours": ["red", "blue"], "size": [3.0, 4.0], "title": "a", "on": Path("b"), "seed": 3,
        "dry": True,
    }  # fmt: skip
    for wrong in ("--colours green", "--size 3", "--threads 2"):
        with pytest.raises(SystemExit):
            parser.parse_args(wrong.split())


def test_help_is_what_the_docstring_says(parser):
    groups = add_options(parser, Drawing)
    texts = {action.dest: action.help for action in groups["shown"]._group_actions}
    assert texts == {
        "colours": "colours to draw in",
        "size": "width and height in mm (default: 1.0 2.0)",
        "title": "title, if any",
        "on": "file to draw on",
        "seed": "random seed (default: 0)",
        "dry": "draw nothing",
    }


def test_only_the_named_fields_become_flags(parser):
    add_options(parser, Drawing, "title", "threads")
    assert set(vars(parser.parse_args([]))) == {"title"}
