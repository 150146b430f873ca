"""Label the sulci of brains: which voxel belongs to which, and what each is like.

MODEL is an atlas of sulci (see foldnorm atlas), which needs no training and names by what was
learned with it (--learn) if it was, or the run folder of a sulcus_segmenter.

INPUT is a cohort folder, a source tree or folder of label volumes, a table, or one file; what is no
cohort is first prepared in OUT/prepared, as the run's cohort was. Label volumes lie in the grid of
each brain's input, sulcus_names.tsv says what their numbers mean. sulci.tsv has a row a brain and
sulcus: size, confidence, place, depth, pieces; and how far each departs from healthy brains: those
that the run was not trained on (its validation split), or the cohort --reference beside an atlas,
each compared with the others for the p-values. An atlas also writes folds.tsv, the likeliest name
of each fold and the next one with their probabilities, why a fold has no name (no sulcus of the
atlas runs there, the atlas is unsure, it lies inside a gyrus), and a picture of each brain.
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from foldnorm.pipeline.commands.arguments import (
    add_device,
    add_input,
    add_overwrite,
)
from foldnorm.preprocessing.core.counts import counted

if TYPE_CHECKING:
    from foldnorm.pipeline.inference.atlas_labels import AtlasLabellingResult
    from foldnorm.pipeline.inference.inputs import ModelInput
    from foldnorm.pipeline.inference.recognise import SulcusLabellingResult

HELP = "label the sulci of brains, and say which are missing"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "model", type=Path, metavar="MODEL", help="atlas of sulci, or run folder of a model"
    )
    add_input(parser)
    parser.add_argument(
        "--reference",
        type=Path,
        metavar="COHORT",
        help="training cohort of a run, if it has moved; healthy hemispheres that the sulci of an "
        "atlas are compared with",
    )
    parser.add_argument(
        "--least-probability",
        type=float,
        metavar="P",
        help="probability below which an atlas gives a fold no name (default: 0.3)",
    )
    add_device(parser)
    add_overwrite(parser)


def run(arguments: argparse.Namespace) -> int:
    """Run the command."""
    from foldnorm.pipeline.artifacts import SULCI
    from foldnorm.pipeline.commands.arguments import refuse_existing, warn_of_lost_inputs
    from foldnorm.pipeline.commands.outcome import conclude_batch
    from foldnorm.preprocessing.core.errors import InputError

    refuse_existing(arguments.out / SULCI, arguments.overwrite)
    least = arguments.least_probability
    if least is not None and not arguments.model.is_file():
        raise InputError(f"--least-probability requires an atlas, got a run: {arguments.model}")
    if least is not None and not 0 <= least <= 1:
        raise InputError(f"--least-probability: expected a number from 0 to 1, got {least:g}")
    given, result = (_by_atlas if arguments.model.is_file() else _by_network)(arguments)
    result.save(arguments.out)
    warn_of_lost_inputs(result.inputs)
    problems = [*given.failed, *result.problems]
    sulci = counted(len(result.sidecar["sulci"]), "sulcus", "sulci")
    brains = counted(len(result.inputs), "brain")
    summary = f"{sulci} of {brains}, {len(problems)} failed: {arguments.out}"
    return conclude_batch(arguments, len(result.inputs), problems, summary)


def _by_network(
    arguments: argparse.Namespace,
) -> "tuple[ModelInput, SulcusLabellingResult]":
    from foldnorm.pipeline.inference.inputs import open_input
    from foldnorm.pipeline.inference.recognise import SulcusLabeller
    from foldnorm.pipeline.runs.devices import choose_device

    device = choose_device(arguments.device)
    labeller = SulcusLabeller.open(arguments.model, arguments.reference, device)
    given = open_input(
        labeller.run,
        arguments.input,
        arguments.out,
        splits=arguments.split,
        assume=arguments.assume,
        reference=arguments.reference,
        overwrite=arguments.overwrite,
        quiet=arguments.quiet,
    )
    return given, labeller.label(given.cohort, arguments.split)


def _by_atlas(arguments: argparse.Namespace) -> "tuple[ModelInput, AtlasLabellingResult]":
    from foldnorm.pipeline.inference.atlas_folds import LEAST_PROBABILITY
    from foldnorm.pipeline.inference.atlas_labels import AtlasLabellingResult
    from foldnorm.pipeline.inference.inputs import open_hemispheres
    from foldnorm.pipeline.scoring.sulcus_scores import SulcusScores
    from foldnorm.preprocessing.cohort.cohort import Cohort
    from foldnorm.preprocessing.naming.atlas import SulcusAtlas

    atlas = SulcusAtlas.open(arguments.model)
    healthy = None
    if arguments.reference is not None:
        reference = Cohort.open(arguments.reference)
        healthy = SulcusScores(reference, atlas).fit(reference.select())
    given = open_hemispheres(
        arguments.input,
        arguments.out,
        splits=arguments.split,
        assume=arguments.assume,
        overwrite=arguments.overwrite,
        quiet=arguments.quiet,
    )
    if healthy is not None:
        healthy.check(given.cohort)
    indices = given.cohort.some_indices(*arguments.split)
    least = arguments.least_probability
    return given, AtlasLabellingResult(
        arguments.model,
        atlas,
        given.cohort,
        indices,
        healthy,
        LEAST_PROBABILITY if least is None else least,
    )
