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
    from foldnorm.pipeline.artifacts import SULCI, SULCI_SIDECAR
    from foldnorm.pipeline.commands.arguments import (
        refuse_existing,
        say_problems,
        warn_of_lost_inputs,
    )
    from foldnorm.pipeline.inference.recognise import Recogniser
    from foldnorm.pipeline.runs.devices import choose_device
    from foldnorm.preprocessing.cohort.cohort import DESCRIPTION, Cohort
    from foldnorm.preprocessing.core.errors import InputError
    from foldnorm.preprocessing.core.files import read_json
    from foldnorm.preprocessing.io.sources import Problem

    refuse_existing(arguments.out / SULCI, arguments.overwrite)
    device = choose_device(arguments.device)
    recogniser = Recogniser.open(arguments.run_folder, arguments.reference, device)
    problems: list[Problem] = []
    if (Path(arguments.input) / DESCRIPTION).is_file():
        cohort = Cohort.open(Path(arguments.input))
    elif arguments.split:
        raise InputError(f"--split is for a cohort, which this is not: {arguments.input}")
    else:
        cohort, problems = recogniser.cohort_of(
            arguments.input, arguments.out, overwrite=arguments.overwrite, quiet=arguments.quiet
        )
    rows, unfit = recogniser.recognise(cohort, arguments.out, arguments.split)
    warn_of_lost_inputs(read_json(arguments.out / SULCI_SIDECAR)["labels_in_grid_of"])
    problems += unfit
    code = say_problems(problems)
    if not arguments.quiet:
        brains = len({(row["participant_id"], row["hemi"]) for row in rows})
        sulci = len(recogniser.recognition.sulci)
        print(f"{sulci} sulci of {brains} brains, {len(problems)} failed: {arguments.out}")
    return code
