"""The deletion benchmark: how well each score tells altered brains from healthy ones, by size.

Runs on brains never trained on. OUT/benchmark.tsv has a row a size and score: AUROC, average
precision and false-positive rate at 95 % sensitivity with bootstrap intervals (unpaired), the share
of altered brains whose own score rises (paired), and the share of healthy ones with p < 0.05.
Trivial baselines and the size-0 control stand in the same table; localisation.tsv says whether the
evidence of a model that restores points at what was deleted. --leave-one-fold-out SIZE also takes
every fold of that size out of every brain, one at a time (every_fold_summary.tsv, every_fold.tsv,
every_fold_places.tsv): where brains are few, their folds are many. A brain that cannot be read
takes no part, and is named.
"""

import argparse
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from foldnorm.pipeline.commands.arguments import (
    add_asymmetry,
    add_cohort,
    add_device,
    add_kind,
    add_out,
    add_overwrite,
    add_reference,
    add_seed,
    positive,
)
from foldnorm.preprocessing.core.counts import counted

if TYPE_CHECKING:
    from foldnorm.preprocessing.alteration.deletion import SizeRange

HELP = "deletion benchmark of a trained model, by size"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "run_folder", type=Path, metavar="RUN", help="run folder, exported model, or the word void"
    )
    add_cohort(parser)
    add_out(parser)
    parser.add_argument(
        "--size",
        nargs="+",
        default=["200", "500", "800"],
        metavar="SIZE",
        help="sizes of alterations, N or LOW-HIGH; the control, 0, is added (default: 200 500 800)",
    )
    add_kind(parser)
    parser.add_argument(
        "--split",
        nargs="+",
        choices=("validation", "test"),
        default=["test"],
        help="splits of COHORT to alter (default: test)",
    )
    parser.add_argument(
        "--draws",
        type=positive,
        default=5,
        help="number of draws of halves and alterations (default: 5)",
    )
    parser.add_argument(
        "--leave-one-fold-out",
        metavar="SIZE",
        help="also take out every fold of this size, one at a time, and compare before and after",
    )
    add_reference(parser)
    add_asymmetry(parser)
    add_seed(parser)
    add_device(parser)
    add_overwrite(parser)


def run(arguments: argparse.Namespace) -> int:
    """Run the command."""
    from foldnorm.pipeline.artifacts import BENCHMARK
    from foldnorm.pipeline.commands.arguments import refuse_existing
    from foldnorm.pipeline.commands.outcome import conclude_batch
    from foldnorm.pipeline.scoring.brain_scores import BrainScores
    from foldnorm.pipeline.scoring.setup import set_up_scoring
    from foldnorm.pipeline.studies.benchmark import BenchmarkOptions, benchmark
    from foldnorm.pipeline.studies.leave_one_fold_out import leave_one_fold_out
    from foldnorm.preprocessing.alteration.deletion import ANY_SIZE, Refilling, SizeRange

    refuse_existing(arguments.out / BENCHMARK, arguments.overwrite)
    setup = set_up_scoring(
        arguments.run_folder,
        arguments.cohort,
        arguments.reference,
        arguments.device,
        reference_splits=arguments.reference_split,
    )
    has_size = arguments.kind not in ("random", "asymmetry")
    sizes = [SizeRange.parse(size) for size in arguments.size] if has_size else [ANY_SIZE]
    options = BenchmarkOptions(
        tuple(sizes),
        kind=arguments.kind,
        splits=tuple(arguments.split),
        draws=arguments.draws,
        seed=arguments.seed,
        refilling=Refilling(arguments.reach, arguments.share),
    )
    scores = BrainScores(setup.trained, asymmetry=arguments.asymmetry).fit(setup.reference)
    result = benchmark(scores, setup.cohort, options)
    result.save(arguments.out)
    summary: list[str] = []
    if arguments.leave_one_fold_out:
        sizes_left_out = SizeRange.parse(arguments.leave_one_fold_out)
        by_fold = leave_one_fold_out(scores, setup.cohort, result.indices, sizes_left_out)
        by_fold.save(arguments.out, seed=arguments.seed)
        summary += _lines_of_folds(sizes_left_out, by_fold.summary(seed=arguments.seed))
    summary += [
        f"learned from {result.about['track']}",
        f"{'size':>8}  {'score':<26} {'AUROC':>18}  paired    n",
    ]
    for row in result.table:
        interval = f"{row['auroc']:.2f} [{row['auroc_low']:.2f}, {row['auroc_high']:.2f}]"
        summary.append(
            f"{row['size']:>8}  {row['score']:<26} {interval:>18}    "
            f"{row['paired']:.2f} {row['n']:>4}"
        )
    return conclude_batch(arguments, len(result.indices), result.failed, *summary)


def _lines_of_folds(sizes: "SizeRange", rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    count, brains = rows[0]["folds"], rows[0]["participants"]
    yield f"every fold of size {sizes}: {count} of {counted(brains, 'participant')}"
    for row in rows:
        interval = f"[{row['paired_low']:.2f}, {row['paired_high']:.2f}]"
        yield f"          {row['score']:<26} {row['paired']:.2f} {interval}"
