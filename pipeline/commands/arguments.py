"""Arguments that several commands share, so that they are spelt and explained alike."""

import argparse
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from types import NoneType
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin, get_type_hints

import docstring_parser

from foldnorm.pipeline.commands.outcome import say
from foldnorm.preprocessing.cohort.options import PreprocessOptions, flag
from foldnorm.preprocessing.core.choices import choices_of
from foldnorm.preprocessing.core.counts import counted
from foldnorm.preprocessing.core.errors import InputError
from foldnorm.preprocessing.core.resources import available_cores

if TYPE_CHECKING:
    from foldnorm.pipeline.inference.inputs import ModelInput
    from foldnorm.pipeline.runs.run_folder import RunFolder
    from foldnorm.pipeline.runs.trained_model import TrainedModel


def add_seed(parser: argparse.ArgumentParser) -> None:
    """Add ``--seed``."""
    parser.add_argument("--seed", type=int, default=0, help="random seed (default: 0)")


def add_segmentation(parser: argparse._ActionsContainer) -> None:
    """Add ``--labels`` and ``--align``, for segmentations."""
    parser.add_argument(
        "--labels",
        default="auto",
        help="label scheme of segmentations: freesurfer, grey-white, or a YAML file (default: "
        "recognised by the labels)",
    )
    parser.add_argument(
        "--align",
        default="auto",
        metavar="auto|none|FILE",
        help="alignment of segmentations without a transform to MNI space: by the deep structures "
        "that their labels name (auto), none, or to a segmentation that lies there (see foldnorm "
        "template)",
    )


def add_kind(parser: argparse.ArgumentParser) -> None:
    """Add ``--kind`` of an alteration, and ``--reach`` and ``--share`` of a refilled fold."""
    parser.add_argument(
        "--kind",
        choices=(
            "fold", "ball", "fold-raw", "fold-graph", "add", "random", "asymmetry",
            "refill", "deform", "interrupt", "displace", "scar", "rim",
        ),
        default="fold",
        help="kind of alteration (default: fold); refill closes the gap of an erased fold, deform "
        "is its control, and so are scar and rim of any erasure (see foldnorm alter)",
    )  # fmt: skip
    parser.add_argument(
        "--reach",
        type=float,
        default=8.0,
        metavar="MM",
        help="distance over which refill and deform draw neighbours (default: 8)",
    )
    parser.add_argument(
        "--share",
        type=float,
        default=0.5,
        help="share of their distance by which refill and deform draw neighbours: .5 is half-way "
        "(default), .8 with --reach 12 closes the gap",
    )


def add_run(parser: argparse.ArgumentParser) -> None:
    """Add RUN."""
    parser.add_argument(
        "run_folder", type=Path, metavar="RUN", help="run folder, or exported model"
    )


def add_config(parser: argparse.ArgumentParser) -> None:
    """Add CONFIG."""
    parser.add_argument("config", metavar="CONFIG", help="YAML file, or a shipped configuration")


def add_cohort(parser: argparse.ArgumentParser) -> None:
    """Add COHORT."""
    parser.add_argument("cohort", type=Path, metavar="COHORT", help="cohort folder")


def add_out(
    parser: argparse.ArgumentParser,
    what: str = "folder to write to",
    metavar: str = "OUT",
    *,
    holds: Literal["folder", "file", ""] = "folder",
) -> None:
    """Add ``-o``, ``--out``, which every command that writes has.

    Args:
        parser: of the command.
        what: help.
        metavar: its name there.
        holds: what no other process may write to meanwhile; empty if the command sees to that.
    """
    parser.set_defaults(holds_out=holds)
    parser.add_argument("-o", "--out", type=Path, required=True, metavar=metavar, help=what)


def add_num(parser: argparse.ArgumentParser, default: int, what: str) -> None:
    """Add ``-n``, ``--num``."""
    parser.add_argument(
        "-n", "--num", type=positive, default=default, help=f"{what} (default: {default})"
    )


def add_selected_splits(parser: argparse.ArgumentParser) -> None:
    """Add ``--split``, the splits of a cohort to take; all where none is named."""
    parser.add_argument(
        "--split",
        nargs="+",
        choices=("train", "validation", "test"),
        default=[],
        help="restrict to these splits of a cohort (default: all)",
    )


def add_sources(parser: argparse.ArgumentParser) -> None:
    """Add one SOURCE or several."""
    parser.add_argument(
        "source", nargs="+", metavar="SOURCE", help="source to read: PATH, or NAME=PATH"
    )


def add_options(
    parser: argparse.ArgumentParser, options: type, *names: str
) -> dict[str, argparse._ArgumentGroup]:
    """Add flags for the fields of a dataclass: those named, or all that say a group of the help.

    The docstring of the dataclass says what each is for, its default what is taken where it is not
    given, and its annotation which words and how many are taken; of several types, the last.

    Returns:
        The groups by their titles.
    """
    attributes = docstring_parser.parse(options.__doc__ or "").params
    texts = {one.args[1]: " ".join((one.description or "").split()) for one in attributes}
    kinds = get_type_hints(options)
    groups: dict[str, argparse._ArgumentGroup] = {}
    for option in fields(options):
        title = option.metadata.get("group")
        if title is None or (names and option.name not in names):
            continue
        if title not in groups:
            groups[title] = parser.add_argument_group(title)
        text, default = texts[option.name], option.default
        if default not in (None, ()) and default is not False:
            shown = " ".join(map(str, default)) if isinstance(default, tuple) else default
            text += f" (default: {shown})"
        keywords = _keywords(kinds[option.name], option.metadata.get("metavar"))
        groups[title].add_argument(flag(option.name), default=default, help=text, **keywords)
    return groups


def _keywords(kind: Any, metavar: Any) -> dict[str, Any]:
    """Return what argparse is told of an annotation: how many words there are, and of what kind."""
    if kind is bool:
        return {"action": "store_true"}
    several = get_args(kind) if get_origin(kind) is tuple else ()
    number = {"nargs": "+" if ... in several else len(several)} if several else {}
    if choices_of(kind):
        return {**number, "choices": choices_of(kind), "metavar": metavar}
    kinds = [one for one in get_args(kind) or (kind,) if one not in (NoneType, ...)]
    return {**number, "type": kinds[-1], "metavar": metavar}


def add_selection(parser: argparse.ArgumentParser) -> None:
    """Add ``--participant-label``, ``--hemi`` and ``--prefer``."""
    add_options(parser, PreprocessOptions, "participant_label", "hemi", "prefer")


def add_assume(parser: argparse.ArgumentParser) -> None:
    """Add ``--assume``, for every command that reads files whose headers may lack directions."""
    add_options(parser, PreprocessOptions, "assume")


def add_n_procs(parser: argparse.ArgumentParser) -> None:
    """Add ``--n-procs``."""
    parser.add_argument(
        "--n-procs",
        type=positive,
        default=available_cores(),
        help="number of processes (default: one a core that this process may use)",
    )


def add_reference(parser: argparse.ArgumentParser) -> None:
    """Declare ``--reference``, the cohort that brains are compared with, and its splits."""
    parser.add_argument(
        "--reference",
        type=Path,
        metavar="COHORT",
        help="cohort that brains are compared with: the training cohort, if it has moved; with "
        "void, healthy brains",
    )
    parser.add_argument(
        "--reference-split",
        nargs="+",
        choices=("train", "validation", "test"),
        default=[],
        help="splits of the reference that void and sulci compare with (default: all)",
    )


def add_asymmetry(parser: argparse.ArgumentParser) -> None:
    """Declare ``--asymmetry``."""
    parser.add_argument(
        "--asymmetry",
        action="store_true",
        help="also compare each hemisphere with the other one of its brain (cohorts with "
        "--mirror-right)",
    )


def add_overwrite(parser: argparse.ArgumentParser) -> None:
    """Add ``--overwrite``."""
    parser.add_argument("--overwrite", action="store_true", help="replace what is there already")


def add_device(parser: argparse.ArgumentParser) -> None:
    """Add ``--device``."""
    parser.add_argument(
        "--device",
        default="auto",
        help="device to compute on: auto, cpu, cuda or cuda:N (default: auto)",
    )


def positive(text: str) -> int:
    """Parse an integer of at least 1."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"expected at least 1, got {number}")
    return number


def not_negative(text: str) -> int:
    """Parse an integer of at least 0."""
    number = int(text)
    if number < 0:
        raise argparse.ArgumentTypeError(f"expected at least 0, got {number}")
    return number


def refuse_existing(out: Path, overwrite: bool) -> None:
    """Refuse to write over a result unless asked to."""
    if out.exists() and not overwrite:
        raise InputError(f"exists already (--overwrite replaces it): {out}")


def add_run_and_input(parser: argparse.ArgumentParser) -> None:
    """Add ``RUN INPUT -o OUT`` and ``--split``, for what a model makes of any volumes."""
    add_run(parser)
    add_input(parser)


def add_input(parser: argparse.ArgumentParser) -> None:
    """Add ``INPUT -o OUT``, ``--split`` and ``--assume``."""
    parser.add_argument("input", metavar="INPUT", help="cohort, folder, table or file")
    add_out(parser)
    add_selected_splits(parser)
    add_assume(parser)


def open_run_and_input(
    arguments: argparse.Namespace,
) -> "tuple[RunFolder, TrainedModel, ModelInput]":
    """Open what `add_run_and_input` declares: the run, its model, and the input as a cohort."""
    from foldnorm.pipeline.inference.inputs import open_input
    from foldnorm.pipeline.runs.devices import choose_device
    from foldnorm.pipeline.runs.run_folder import RunFolder

    run_folder = RunFolder.open(arguments.run_folder)
    trained = run_folder.load(choose_device(arguments.device))
    given = open_input(
        run_folder,
        arguments.input,
        arguments.out,
        splits=arguments.split,
        assume=arguments.assume,
        overwrite=arguments.overwrite,
        quiet=arguments.quiet,
    )
    return run_folder, trained, given


def warn_of_lost_inputs(inputs: Mapping[str, str | None]) -> None:
    """Say whose results stay in the grid of the cohort, because their input is not there."""
    lost = [key for key, path in inputs.items() if path is None]
    if lost:
        say(
            f"warning: the inputs of {counted(len(lost), 'brain')} are not where they were (such "
            f"as {lost[0]}); what is written of them lies in the grid of the cohort"
        )
