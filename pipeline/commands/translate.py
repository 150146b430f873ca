"""Translate volumes with a trained model, such as skeletons into grey and white matter.

INPUT is a cohort folder, a source tree or folder of label volumes, a table, or one file. Of a
cohort, results lie in its grid, and translations.tsv holds Dice, surface Dice (1 mm), HD95 and
ASSD (mm) of each class where the cohort has true pairs. Of anything else, each volume is first
prepared as the run's cohort was, in OUT/prepared, and the result lies in the grid of its input.
Results hold the values that the target scheme reads (grey-white: 100 and 200).
"""

import argparse

from foldnorm.pipeline.commands.arguments import add_device, add_overwrite, add_run_and_input
from foldnorm.preprocessing.core.counts import counted

HELP = "translate label volumes, such as skeletons into grey and white matter"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add_run_and_input(parser)
    add_device(parser)
    add_overwrite(parser)


def run(arguments: argparse.Namespace) -> int:
    """Run the command."""
    from foldnorm.pipeline.artifacts import TRANSLATIONS_SIDECAR
    from foldnorm.pipeline.commands.arguments import refuse_existing
    from foldnorm.pipeline.commands.outcome import conclude_batch
    from foldnorm.pipeline.inference.inputs import open_input
    from foldnorm.pipeline.inference.translate import Translator
    from foldnorm.pipeline.runs.devices import choose_device

    refuse_existing(arguments.out / TRANSLATIONS_SIDECAR, arguments.overwrite)
    translator = Translator.open(arguments.run_folder, choose_device(arguments.device))
    given = open_input(
        translator.run,
        arguments.input,
        arguments.out,
        splits=arguments.split,
        assume=arguments.assume,
        uncropped=translator.source_preparation,
        overwrite=arguments.overwrite,
        quiet=arguments.quiet,
    )
    result = translator.translate(given, arguments.split)
    result.save(arguments.out)
    failed = [*given.failed, *result.failed]
    return conclude_batch(
        arguments,
        len(result.table),
        failed,
        *(f"{name:<28} {value:.3f}" for name, value in result.metrics.items()),
        f"{counted(len(result.table), 'volume')} translated, {len(failed)} failed: {arguments.out}",
    )
