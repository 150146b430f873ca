"""Translate volumes with a trained model, such as skeletons into grey and white matter.

INPUT is a cohort folder, a source tree or folder of label volumes, a table, or one file. Of a
cohort, results lie in its grid, and translations.tsv holds Dice, surface Dice (1 mm), HD95 and
ASSD (mm) of each class where the cohort has true pairs. Of anything else, each volume is prepared
as the run's cohort was, and the result lies in the grid of its input. Results hold the values that
the target scheme reads (grey-white: 100 and 200).
"""

import argparse
from pathlib import Path

from foldnorm.pipeline.commands.arguments import add_device, add_overwrite, add_run_and_input

HELP = "translate label volumes, such as skeletons into grey and white matter"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add_run_and_input(parser)
    add_device(parser)
    add_overwrite(parser)


def run(arguments: argparse.Namespace) -> int:
    """Run the command."""
    from foldnorm.pipeline.artifacts import TRANSLATIONS_SIDECAR
    from foldnorm.pipeline.commands.arguments import refuse_existing, say_problems
    from foldnorm.pipeline.inference.translate import (
        Translation,
        mean_figures,
        translate_cohort,
        translate_files,
    )
    from foldnorm.pipeline.runs.devices import choose_device
    from foldnorm.preprocessing.cohort.cohort import DESCRIPTION, Cohort
    from foldnorm.preprocessing.core.errors import InputError
    from foldnorm.preprocessing.io.sources import Problem, Source

    refuse_existing(arguments.out / TRANSLATIONS_SIDECAR, arguments.overwrite)
    translation = Translation.open(arguments.run_folder, choose_device(arguments.device))
    problems: list[Problem] = []
    if (Path(arguments.input) / DESCRIPTION).is_file():
        cohort = Cohort.open(Path(arguments.input))
        rows = translate_cohort(translation, cohort, arguments.out, arguments.split)
    elif arguments.split:
        raise InputError(f"--split is for a cohort, which this is not: {arguments.input}")
    else:
        rows, problems = translate_files(translation, Source.parse(arguments.input), arguments.out)
    code = say_problems(problems)
    if not arguments.quiet:
        for name, value in mean_figures(rows).items():
            print(f"{name:<28} {value:.3f}")
        print(f"{len(rows)} volumes translated, {len(problems)} failed: {arguments.out}")
    return code
