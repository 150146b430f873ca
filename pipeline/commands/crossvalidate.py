"""Test a classifier on every participant, each time by a model that was not shown them.

Participants are put into folds, relatives together (column family), as many of each class in each;
for every fold a classifier is trained on the others (OUT/fold-N, a run folder). classes.tsv has the
predicted class of every volume, classes.json the accuracy with its interval over families. Any
key of CONFIG can be set: --model.init_args.target sex --training.steps 500. Start it again to go
on.
"""

import argparse

from foldnorm.pipeline.commands.arguments import (
    add_cohort,
    add_config,
    add_device,
    add_out,
    add_overwrite,
    add_seed,
    positive,
)
from foldnorm.preprocessing.core.counts import counted

HELP = "test a classifier by cross-validation"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add_config(parser)
    add_cohort(parser)
    add_out(parser)
    parser.add_argument(
        "--cv-folds", type=positive, default=5, help="number of folds of participants (default: 5)"
    )
    add_seed(parser)
    add_device(parser)
    add_overwrite(parser)
    parser.set_defaults(takes_overrides=True)


def run(arguments: argparse.Namespace) -> int:
    """Run the command."""
    from foldnorm.pipeline.artifacts import CLASSES
    from foldnorm.pipeline.commands.arguments import refuse_existing
    from foldnorm.pipeline.commands.outcome import conclude_batch
    from foldnorm.pipeline.studies.cross_validation import CrossValidationOptions, cross_validate
    from foldnorm.pipeline.training.signals import ended_by_signals
    from foldnorm.preprocessing.cohort.cohort import Cohort

    refuse_existing(arguments.out / CLASSES, arguments.overwrite)
    options = CrossValidationOptions(
        arguments.cv_folds,
        arguments.seed,
        tuple(arguments.overrides),
        arguments.device,
        arguments.quiet,
    )
    cohort = Cohort.open(arguments.cohort)
    with ended_by_signals():
        result = cross_validate(arguments.config, cohort, arguments.out, options)
    result.save(arguments.out)
    found = result.metrics
    summary = (
        f"accuracy {found['accuracy']:.3f} [{found['accuracy_low']:.3f}, "
        f"{found['accuracy_high']:.3f}] on {counted(found['tested'], 'volume')} of "
        f"{counted(found['participants'], 'participant')} (commonest class "
        f"{found['commonest_class']:.3f}): {arguments.out}"
    )
    return conclude_batch(arguments, len(result.table), result.failed, summary)
