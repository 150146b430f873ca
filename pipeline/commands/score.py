"""Score the brains of a cohort by their distance from the healthy ones.

RUN is a trained model, or the word `void`: no model, only how far each place is from the nearest
fold, compared with the healthy brains of --reference; or the word `sulci`: also which sulcus is
missing, large, displaced or interrupted, by the names that --atlas gives and the voids where it has
each sulcus (sulcus_scores.tsv); or a folder that --save-scorer has written, which needs no healthy
brains any more and can be sent to others (scorer.json says what it holds of persons). Scores are
fitted on healthy brains and turned into conformal p-values with brains that the weights were never
fitted to: the validation split, or --controls of the site of those that are scored, towards whom
the healthy mean is moved too. OUT/scores.tsv has a row a brain: scores, p, q (false discoveries
over the cohort), and a flag with the reason where it cannot be judged (another side, region or
space; cut off; mirrored; empty; of a site without controls), which then has no p. What its source
warned of, as skeletonise does, stands beside it under warning. OUT/scores.json says how it was
made, and which p-value is the smallest that can be reached.
"""

import argparse
from pathlib import Path

from foldnorm.pipeline.commands.arguments import (
    add_asymmetry,
    add_cohort,
    add_device,
    add_out,
    add_overwrite,
    add_reference,
    add_selected_splits,
)
from foldnorm.pipeline.commands.outcome import say
from foldnorm.preprocessing.core.counts import counted

HELP = "anomaly scores and p-values of a cohort"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "run_folder",
        type=Path,
        metavar="RUN",
        help="run folder, exported model, saved scorer, or the word void or sulci",
    )
    add_cohort(parser)
    add_out(parser)
    add_selected_splits(parser)
    add_reference(parser)
    parser.add_argument(
        "--controls",
        type=Path,
        metavar="COHORT",
        help="cohort of healthy brains of this site or scanner, which give the p-values",
    )
    parser.add_argument(
        "--across-sites",
        action="store_true",
        help="give p-values to brains of a site without controls too",
    )
    parser.add_argument(
        "--covariates",
        nargs="+",
        default=[],
        metavar="COLUMN",
        help="columns that maps of healthy brains depend on, such as age; sex:category",
    )
    add_asymmetry(parser)
    parser.add_argument(
        "--atlas",
        type=Path,
        metavar="ATLAS",
        help="atlas of sulci (see foldnorm atlas) that names them, with the word sulci",
    )
    parser.add_argument(
        "--maps", action="store_true", help="write where folds are missing, and regions.tsv"
    )
    parser.add_argument(
        "--save-scorer",
        type=Path,
        metavar="FOLDER",
        help="folder to keep what was fitted in; it then takes the place of RUN, without the "
        "healthy brains",
    )
    parser.add_argument(
        "--precision",
        choices=("auto", "32", "bf16"),
        default="auto",
        help="precision of the model; auto (default): as it was trained where this CPU is faster "
        "so, else 32",
    )
    add_device(parser)
    add_overwrite(parser)


def run(arguments: argparse.Namespace) -> int:
    """Run the command."""
    from foldnorm.pipeline.artifacts import SCORER, SCORES
    from foldnorm.pipeline.commands.arguments import refuse_existing, warn_of_lost_inputs
    from foldnorm.pipeline.commands.outcome import conclude_batch
    from foldnorm.pipeline.scoring.scorer import score_into
    from foldnorm.pipeline.scoring.setup import open_scorer
    from foldnorm.preprocessing.cohort.cohort import row_key

    refuse_existing(arguments.out / SCORES, arguments.overwrite)
    if arguments.save_scorer is not None:
        refuse_existing(arguments.save_scorer / SCORER, arguments.overwrite)
    scorer, cohort = open_scorer(
        arguments.run_folder,
        arguments.cohort,
        arguments.reference,
        arguments.device,
        controls_folder=arguments.controls,
        covariates=arguments.covariates,
        precision=arguments.precision,
        asymmetry=arguments.asymmetry,
        atlas=arguments.atlas,
        reference_splits=arguments.reference_split,
    )
    if arguments.save_scorer is not None:
        scorer.save(arguments.save_scorer)
    result, inputs = score_into(
        arguments.out,
        scorer,
        cohort,
        splits=tuple(arguments.split),
        across_sites=arguments.across_sites,
        maps=arguments.maps,
    )
    warn_of_lost_inputs(inputs)
    for row in result.table:
        if row["warning"]:
            say(f"warning: {row_key(row)}: {row['warning']}")
    brains = counted(len(result.table), "brain")
    used = [row for row in result.table if row["used_for"] and not row["flag"]]
    if used:
        say(
            f"warning: no p-value of {len(used)} of {brains}, which took part in training or "
            f"calibration (such as {row_key(used[0])}, {used[0]['used_for']})"
        )
    flagged = sum(bool(row["flag"]) for row in result.table)
    failed = f"{len(result.failed)} failed, " if result.failed else ""
    summary = f"{brains} scored, {failed}{flagged} not judged: {arguments.out}"
    return conclude_batch(arguments, len(result.table), result.problems, result.sentence, summary)
