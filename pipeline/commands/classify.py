"""Predict the class of images or volumes with a trained classifier.

INPUT is a cohort folder; or images or label volumes, which are first prepared as the run's cohort
was, in OUT/prepared. classes.tsv has a row an image, with the probability of each class;
classes.json the accuracy on those that were not trained on, its interval over families, and
the confusion matrix, where classes are known.
"""

import argparse

from foldnorm.pipeline.commands.arguments import add_device, add_overwrite, add_run_and_input
from foldnorm.preprocessing.core.counts import counted

HELP = "predict the class of images or volumes"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add_run_and_input(parser)
    add_device(parser)
    add_overwrite(parser)


def run(arguments: argparse.Namespace) -> int:
    """Run the command."""
    from foldnorm.pipeline.artifacts import CLASSES
    from foldnorm.pipeline.commands.arguments import open_run_and_input, refuse_existing
    from foldnorm.pipeline.commands.outcome import conclude_batch
    from foldnorm.pipeline.inference.classify import classify

    refuse_existing(arguments.out / CLASSES, arguments.overwrite)
    run_folder, trained, given = open_run_and_input(arguments)
    result = classify(run_folder, trained, given.cohort, arguments.split)
    result.save(arguments.out)
    found, known = result.metrics, ""
    if found["tested"]:
        known = (
            f", accuracy {found['accuracy']:.3f} [{found['accuracy_low']:.3f}, "
            f"{found['accuracy_high']:.3f}] on {found['tested']} not trained on (commonest class "
            f"{found['commonest_class']:.3f})"
        )
    number, failed = len(result.table), [*given.failed, *result.failed]
    volumes = counted(number, "volume")
    summary = f"{volumes} classified, {len(failed)} failed{known}: {arguments.out}"
    return conclude_batch(arguments, number, failed, summary)
