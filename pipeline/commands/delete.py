"""Delete one fold (or a ball) a subject, and write the altered volumes as a cohort folder.

--size 500 draws among the folds of more than 500 mm² of sheet (their voxel count at 1 mm) within
the cohort's box, --size 200-500 among those of a range; for --kind ball it is the ball's mm³.
Size 0 is the control: the same code path, nothing deleted. deletions.tsv says what was deleted
where. The draw of a subject depends on --seed and on the subject alone.
"""

import argparse
from pathlib import Path

from foldnorm.pipeline.arguments import add_overwrite, add_seed

HELP = "delete one fold a subject: an altered cohort"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("cohort", type=Path, metavar="COHORT")
    parser.add_argument("out", type=Path, metavar="OUT", help="cohort folder to write")
    parser.add_argument("--size", required=True, help="N or LOW-HIGH; 0 is the control")
    parser.add_argument("--kind", choices=("fold", "ball"), default="fold")
    parser.add_argument(
        "--split", nargs="+", choices=("train", "validation", "test"), default=[], help="only these"
    )
    add_seed(parser)
    add_overwrite(parser)


def run(arguments: argparse.Namespace) -> int:
    """Run the command."""
    from foldnorm.pipeline.alteration import write_altered_cohort
    from foldnorm.pipeline.arguments import refuse_existing
    from foldnorm.preprocessing.cohort import DESCRIPTION, Cohort
    from foldnorm.preprocessing.deletion import SizeRange

    refuse_existing(arguments.out / DESCRIPTION, arguments.overwrite)
    cohort = Cohort.open(arguments.cohort)
    altered, left_out = write_altered_cohort(
        cohort,
        cohort.indices(*arguments.split),
        arguments.out,
        SizeRange.parse(arguments.size),
        kind=arguments.kind,
        seed=arguments.seed,
    )
    if not arguments.quiet:
        print(f"{altered} volumes altered, {left_out} had nothing to delete: {arguments.out}")
    return 0
