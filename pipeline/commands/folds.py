"""One row a fold: its sulcus, size, depth and place in MNI space.

From Morphologist's fold graphs, or from skeletons that foldnorm made (folds of these have names
where the segmentation had gyri).
Writes OUT/folds.tsv, and OUT/folds.json, which says what each column is.
"""

import argparse

from foldnorm.pipeline.commands.arguments import (
    add_assume,
    add_n_procs,
    add_out,
    add_overwrite,
    add_selection,
    add_sources,
)
from foldnorm.preprocessing.core.counts import counted

HELP = "table of folds: name, size, depth, position"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add_sources(parser)
    add_out(parser)
    add_selection(parser)
    add_assume(parser)
    add_n_procs(parser)
    add_overwrite(parser)


def run(arguments: argparse.Namespace) -> int:
    """Run the command."""
    from foldnorm.pipeline.commands.arguments import refuse_existing
    from foldnorm.pipeline.commands.outcome import conclude_batch
    from foldnorm.preprocessing.cohort.fold_table import TABLE, write_fold_table
    from foldnorm.preprocessing.io.schemes import SKELETON
    from foldnorm.preprocessing.io.sources import Source, find_volumes

    refuse_existing(arguments.out / TABLE, arguments.overwrite)
    found = find_volumes(
        [Source.parse(text) for text in arguments.source],
        SKELETON.stem,
        hemis=arguments.hemi,
        participants=arguments.participant_label,
        prefer=arguments.prefer,
        assume=arguments.assume,
    )
    found.log()
    number, failed = write_fold_table(found, arguments.out, n_procs=arguments.n_procs)
    problems, done = found.problems + failed, len(found.items) - len(failed)
    return conclude_batch(
        arguments,
        done,
        problems,
        f"{counted(number, 'fold')} of {counted(done, 'hemisphere')}, {len(problems)} failed: "
        f"{arguments.out}",
    )
