"""Compare models fairly: the same cohort, split and budget, several seeds, one table.

CONFIGs are YAML files or shipped configurations. Each trains for --minutes of steps (a short trial
finds how many steps that is) or for --steps, in a process of its own; what is finished is not made
again.
OUT/comparison.tsv: reconstruction panel or Dice of translations and validation loss, latent
dimensions and the share in use, silhouette, deletion AUROC by size, parameters, memory, seconds a
step; means over seeds, and their range. Any key of the YAML can be set for all models:
--training.batch_size 8. A test brain that cannot be read takes no part, and is named.
"""

import argparse

from foldnorm.pipeline.commands.arguments import (
    add_cohort,
    add_device,
    add_kind,
    add_out,
    positive,
)

HELP = "train several models in the same budget, and put their figures into one table"
SHOWN = ("dice", "volume_ratio", "opening_excess", "mean_dice", "loss", "active_share",
         "silhouette", "parameters", "seconds_per_step")  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "config", nargs="+", metavar="CONFIG", help="YAML file, or a shipped configuration"
    )
    add_cohort(parser)
    add_out(parser)
    parser.add_argument(
        "--minutes", type=float, help="time of the training steps of each model and seed"
    )
    parser.add_argument(
        "--steps", type=positive, help="number of training steps, instead of --minutes"
    )
    parser.add_argument(
        "--seeds", type=positive, default=1, help="number of trainings of each model (default: 1)"
    )
    parser.add_argument(
        "--size",
        nargs="*",
        default=[],
        metavar="SIZE",
        help="sizes of alterations to benchmark with, N or LOW-HIGH (default: no benchmark)",
    )
    add_kind(parser)
    add_device(parser)
    parser.set_defaults(takes_overrides=True)


def run(arguments: argparse.Namespace) -> int:
    """Run the command."""
    from foldnorm.pipeline.commands.outcome import conclude_batch
    from foldnorm.pipeline.studies.compare import CompareOptions, compare
    from foldnorm.pipeline.training.signals import ended_by_signals
    from foldnorm.preprocessing.alteration.deletion import Refilling, SizeRange
    from foldnorm.preprocessing.cohort.cohort import Cohort

    options = CompareOptions(
        minutes=arguments.minutes,
        steps=arguments.steps,
        seeds=arguments.seeds,
        sizes=tuple(SizeRange.parse(size) for size in arguments.size),
        kind=arguments.kind,
        refilling=Refilling(arguments.reach, arguments.share),
        overrides=tuple(arguments.overrides),
        device=arguments.device,
    )
    cohort = Cohort.open(arguments.cohort)
    with ended_by_signals():
        result = compare(arguments.config, cohort, arguments.out, options)
    result.save(arguments.out)
    summary = [" ".join([f"{'':<26}", *(f"{name:>14}" for name in SHOWN)])]
    for row in result.table:
        cells = [f"{row[name]:>14.4g}" if name in row else f"{'':>14}" for name in SHOWN]
        summary.append(" ".join([f"{row['model']:<26}", *cells]))
    return conclude_batch(arguments, len(cohort) - len(result.failed), result.failed, *summary)
