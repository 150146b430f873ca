"""Compare models fairly: the same cohort, split and budget, several seeds, one table.

CONFIG are YAML files or shipped names. Each trains for --minutes of steps (a short trial finds how
many steps that is) or for --steps, in a process of its own; what is finished is not made again.
OUT/comparison.tsv: reconstruction panel or Dice of translations and validation loss, latent
dimensions and the share in use, silhouette, deletion AUROC by size, parameters, memory, seconds a
step; means over seeds, and their range. Any key of the YAML can be set for all models:
--training.batch_size 8.
"""

import argparse
from pathlib import Path

from foldnorm.pipeline.commands.arguments import add_device, add_kind, positive

HELP = "train several models in the same budget, and put their figures into one table"
SHOWN = ("dice", "volume_ratio", "opening_excess", "mean_dice", "loss", "active_share",
         "silhouette", "parameters", "seconds_per_step")  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("config", nargs="+", metavar="CONFIG")
    parser.add_argument("--cohort", type=Path, required=True, help="cohort folder")
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")
    parser.add_argument("--minutes", type=float, help="of training steps, each model and seed")
    parser.add_argument("--steps", type=positive, help="instead of minutes")
    parser.add_argument("--seeds", type=positive, default=1, help="trainings of each (default 1)")
    parser.add_argument("--sizes", nargs="*", default=[], help="of deleted folds (default none)")
    add_kind(parser)
    add_device(parser)
    parser.set_defaults(takes_overrides=True)


def run(arguments: argparse.Namespace) -> int:
    """Run the command."""
    from foldnorm.pipeline.studies.compare import CompareOptions, compare
    from foldnorm.preprocessing.alteration.deletion import Refilling, SizeRange
    from foldnorm.preprocessing.cohort.cohort import Cohort

    options = CompareOptions(
        minutes=arguments.minutes,
        steps=arguments.steps,
        seeds=arguments.seeds,
        sizes=tuple(SizeRange.parse(size) for size in arguments.sizes),
        kind=arguments.kind,
        refilling=Refilling(arguments.reach, arguments.share),
        overrides=tuple(arguments.overrides),
        device=arguments.device,
    )
    cohort = Cohort.open(arguments.cohort)
    result = compare(arguments.config, cohort, arguments.out, options)
    result.save(arguments.out)
    if not arguments.quiet:
        print(f"{'':<26}", *[f"{name:>14}" for name in SHOWN])
        for row in result.table:
            cells = [f"{row[name]:>14.4g}" if name in row else f"{'':>14}" for name in SHOWN]
            print(f"{row['model']:<26}", *cells)
    return 0
