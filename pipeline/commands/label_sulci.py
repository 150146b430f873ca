"""Label the sulci of brains: which voxel belongs to which, what each is like, and which is missing.

INPUT is a cohort folder, a source tree or folder of label volumes, a table, or one file; what is no
cohort is first prepared as the run's cohort was, in OUT/prepared. Label volumes lie in the grid of
each brain's input, sulcus_names.tsv says what their numbers mean. sulci.tsv has a row a brain and
sulcus: size, confidence, place, depth, pieces, and how far each departs from healthy brains that
the model was not trained on (half of the validation split; the other half gives the p-values).
"""

import argparse
from pathlib import Path

from foldnorm.pipeline.commands.arguments import add_device, add_overwrite, add_run_and_input
from foldnorm.preprocessing.core.counts import counted

HELP = "label the sulci of brains, and say which are missing"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add_run_and_input(parser)
    parser.add_argument(
        "--reference", type=Path, metavar="COHORT", help="training cohort, if it has moved"
    )
    add_device(parser)
    add_overwrite(parser)


def run(arguments: argparse.Namespace) -> int:
    """Run the command."""
    from foldnorm.pipeline.artifacts import SULCI
    from foldnorm.pipeline.commands.arguments import refuse_existing, warn_of_lost_inputs
    from foldnorm.pipeline.commands.outcome import conclude_batch
    from foldnorm.pipeline.inference.inputs import open_input
    from foldnorm.pipeline.inference.recognise import SulcusLabeller
    from foldnorm.pipeline.runs.devices import choose_device

    refuse_existing(arguments.out / SULCI, arguments.overwrite)
    device = choose_device(arguments.device)
    labeller = SulcusLabeller.open(arguments.run_folder, arguments.reference, device)
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
    result = labeller.label(given.cohort, arguments.split)
    result.save(arguments.out)
    warn_of_lost_inputs(result.inputs)
    problems = [*given.failed, *result.problems]
    sulci = counted(len(labeller.network.sulci), "sulcus", "sulci")
    brains = counted(len(result.inputs), "brain")
    summary = f"{sulci} of {brains}, {len(problems)} failed: {arguments.out}"
    return conclude_batch(arguments, len(result.inputs), problems, summary)
