"""Alter each subject, as by deleting one fold, and write an altered cohort folder.

  fold        a labelled fold; --size is mm² of its sheet within the cohort's box (voxels at 1 mm)
  ball        a ball; --size is its mm³
  fold-raw    as the 2021 study: a simple surface of more than --size native voxels, wholly in the
              cohort's box, and its bottom line, erased from the raw skeleton
  fold-graph  as the same lab later: --size is 1 mm voxels of the simple surface in the cohort's
              region; the junctions of every incident relation go too
  add         a fold of another subject of the same side and split is written in; --size as fold
  random      the same brain, cropped elsewhere
  asymmetry   the subject's other hemisphere (cohorts with --mirror-right)
  refill      a fold is erased with its junctions, and its neighbours are drawn to its place: no
              hole is left; --reach says over how many mm, --share how far (.5 is half-way)
  deform      the control of refill: the same deformation around a fold that stays
  interrupt   a piece of 5 to 15 mm is cut out of a fold, through its whole depth
  displace    a fold is moved by 4 to 10 mm along the hull, and its neighbours make way
  scar        a control: what lies within 2 mm around a fold is erased, and the fold left
  rim         a control: the sheet voxels that touch a fold are erased, and the fold left

--size is mm² of the fold where nothing else is said; 500 is more than 500, 200-500 a range. Size 0
is the control: the same code path, nothing altered. fold-raw and fold-graph erase at full
resolution, from the sources that the cohort was prepared from, and prepare anew. deletions.tsv says
what was done where: mm is the gap of an interruption or the way of a displaced fold. The draw of a
subject depends on --seed and on the subject alone.
"""

import argparse

from foldnorm.pipeline.commands.arguments import (
    add_cohort,
    add_kind,
    add_n_procs,
    add_out,
    add_overwrite,
    add_seed,
    add_selected_splits,
)
from foldnorm.preprocessing.core.counts import counted

HELP = "alter each subject, as by deleting one fold"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add_cohort(parser)
    add_out(parser, "cohort folder to write")
    parser.add_argument(
        "--size",
        help="size of alterations, N or LOW-HIGH; 0 is the control; not needed by random and "
        "asymmetry",
    )
    add_kind(parser)
    add_selected_splits(parser)
    add_seed(parser)
    add_n_procs(parser)
    add_overwrite(parser)


def run(arguments: argparse.Namespace) -> int:
    """Run the command."""
    from foldnorm.pipeline.commands.arguments import refuse_existing
    from foldnorm.pipeline.commands.outcome import conclude_batch
    from foldnorm.preprocessing.alteration.alteration import write_altered_cohort
    from foldnorm.preprocessing.alteration.deletion import ANY_SIZE, Refilling, SizeRange
    from foldnorm.preprocessing.cohort.cohort import DESCRIPTION, Cohort
    from foldnorm.preprocessing.core.errors import InputError

    if arguments.size is None and arguments.kind not in ("random", "asymmetry"):
        raise InputError(f"--kind {arguments.kind} needs a --size")
    sizes = ANY_SIZE if arguments.size is None else SizeRange.parse(arguments.size)
    refuse_existing(arguments.out / DESCRIPTION, arguments.overwrite)
    cohort = Cohort.open(arguments.cohort)
    indices = cohort.indices(*arguments.split)
    left_out, problems = write_altered_cohort(
        cohort,
        indices,
        arguments.out,
        sizes,
        kind=arguments.kind,
        seed=arguments.seed,
        n_procs=arguments.n_procs,
        refilling=Refilling(arguments.reach, arguments.share),
    )
    altered = len(indices) - left_out - len(problems)
    return conclude_batch(
        arguments,
        altered,
        problems,
        f"{counted(altered, 'volume')} altered, {left_out} had nothing eligible, "
        f"{len(problems)} failed: {arguments.out}",
    )
