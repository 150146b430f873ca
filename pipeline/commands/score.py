"""Score the brains of a cohort by their distance from the healthy ones.

RUN is a trained model, or the word `void`: no model, only how far each place is from the nearest
fold, compared with --healthy brains. Scores are fitted on healthy brains and turned into conformal
p-values with brains that the weights were never fitted to: the validation split, or --controls of
the site of those that are scored, towards whom the healthy mean is moved too. OUT/scores.tsv has a
row a brain: scores, p, q (false discoveries over the cohort), and a flag with the reason where it
cannot be judged (another side, region or space; cut off; mirrored; empty; of a site without
controls), which then has no p. What its source warned of, as skeletonise does, stands beside it
under warning. OUT/scores.json says how it was made, and which p-value is the smallest that can be
reached.
"""

import argparse
import sys
from pathlib import Path

from foldnorm.pipeline.arguments import add_device, add_overwrite, add_reference

HELP = "anomaly scores and p-values of a cohort"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "run_folder", type=Path, metavar="RUN", help="trained model, or void for none"
    )
    parser.add_argument("cohort", type=Path, metavar="COHORT")
    parser.add_argument("out", type=Path, metavar="OUT", help="folder to write to")
    parser.add_argument(
        "--split", nargs="+", choices=("train", "validation", "test"), default=[], help="only these"
    )
    add_reference(parser)
    parser.add_argument(
        "--controls",
        type=Path,
        metavar="COHORT",
        help="healthy brains of this site or scanner; they give the p-values",
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
    parser.add_argument(
        "--maps", action="store_true", help="write where folds are missing, and regions.tsv"
    )
    add_device(parser)
    add_overwrite(parser)


def run(arguments: argparse.Namespace) -> int:
    """Run the command."""
    from foldnorm.pipeline.arguments import refuse_existing, warn_of_lost_inputs
    from foldnorm.pipeline.artifacts import (
        PAGES_SIDECAR,
        REGIONS,
        REGIONS_SIDECAR,
        SCORES,
        SCORES_SIDECAR,
    )
    from foldnorm.pipeline.score_cohort import score_cohort
    from foldnorm.pipeline.scoring.evidence_maps import write_evidence_maps
    from foldnorm.pipeline.scoring.setup import set_up_scoring
    from foldnorm.preprocessing.cohort import row_key
    from foldnorm.preprocessing.errors import InputError
    from foldnorm.preprocessing.files import read_json

    refuse_existing(arguments.out / SCORES, arguments.overwrite)
    setup = set_up_scoring(
        arguments.run_folder,
        arguments.cohort,
        arguments.reference,
        arguments.device,
        controls_folder=arguments.controls,
        covariates=arguments.covariates,
    )
    scorer = setup.scorer
    if arguments.maps and not scorer.map_scores:
        raise InputError(f"--maps needs at least 8 healthy brains: {setup.reference.folder}")
    for stale in (REGIONS, REGIONS_SIDECAR, PAGES_SIDECAR):  # of earlier scores, with maps
        (arguments.out / stale).unlink(missing_ok=True)
    rows, problems = score_cohort(
        setup,
        arguments.out,
        splits=tuple(arguments.split),
        across_sites=arguments.across_sites,
    )
    if arguments.maps:
        indices = setup.cohort.indices(*arguments.split).tolist()
        write_evidence_maps(
            scorer.map_scores[0],
            setup.reference,
            scorer.calibration,
            setup.cohort,
            indices,
            arguments.out,
            method=str(arguments.run_folder),
        )
        warn_of_lost_inputs(read_json(arguments.out / REGIONS_SIDECAR)["maps_in_grid_of"])
    for problem in problems:
        print(f"foldnorm: {problem.key}: {problem.reason}", file=sys.stderr)
    for row in rows:
        if row["warning"]:
            print(f"foldnorm: warning: {row_key(row)}: {row['warning']}", file=sys.stderr)
    if not arguments.quiet:
        print(read_json(arguments.out / SCORES_SIDECAR)["sentence"])
        print(f"{len(rows)} brains scored, {len(problems)} not judged: {arguments.out}")
    return 1 if problems else 0
