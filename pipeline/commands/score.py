"""Score the brains of a cohort by their distance from the healthy ones.

Scores are fitted on the training brains of the run's cohort and turned into conformal p-values
with its validation brains, which the weights were never fitted to, or with --controls of another
site or scanner. OUT/scores.tsv has a row a brain: scores, p, q (false discoveries over the cohort),
and a flag with the reason where the model cannot judge it (another side, region or space; cut off;
mirrored; empty), which then has no p. What its source warned of, as skeletonise does, stands
beside it under warning. OUT/scores.json says how it was made, and which p-value is
the smallest that can be reached.
"""

import argparse
import sys
from pathlib import Path

from foldnorm.pipeline.arguments import add_device, add_overwrite

HELP = "anomaly scores and p-values of a cohort"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("run_folder", type=Path, metavar="RUN")
    parser.add_argument("cohort", type=Path, metavar="COHORT")
    parser.add_argument("out", type=Path, metavar="OUT", help="folder to write to")
    parser.add_argument(
        "--split", nargs="+", choices=("train", "validation", "test"), default=[], help="only these"
    )
    parser.add_argument(
        "--reference", type=Path, metavar="COHORT", help="training cohort, if it has moved"
    )
    parser.add_argument(
        "--controls",
        type=Path,
        metavar="COHORT",
        help="healthy brains of this site or scanner; they give the p-values",
    )
    parser.add_argument(
        "--maps", action="store_true", help="where folds are missing, by a model that restores"
    )
    add_device(parser)
    add_overwrite(parser)


def run(arguments: argparse.Namespace) -> int:
    """Run the command."""
    from foldnorm.pipeline.arguments import refuse_existing, warn_of_lost_inputs
    from foldnorm.pipeline.evidence_maps import SIDECAR as REGIONS_SIDECAR
    from foldnorm.pipeline.evidence_maps import write_evidence_maps
    from foldnorm.pipeline.score_cohort import SCORES, SIDECAR, score_cohort
    from foldnorm.pipeline.scoring_setup import set_up_scoring
    from foldnorm.preprocessing.cohort import Cohort, row_key
    from foldnorm.preprocessing.errors import InputError
    from foldnorm.preprocessing.files import read_json

    refuse_existing(arguments.out / SCORES, arguments.overwrite)
    setup = set_up_scoring(
        arguments.run_folder, arguments.cohort, arguments.reference, arguments.device
    )
    if arguments.maps and setup.scorer.evidence is None:
        raise InputError(f"--maps needs a model that restores: {arguments.run_folder}")
    controls = None
    if arguments.controls is not None:
        controls = Cohort.open(arguments.controls)
        setup.run.check_cohort(controls)
    rows, problems = score_cohort(
        setup.scorer,
        setup.reference,
        setup.cohort,
        arguments.out,
        splits=tuple(arguments.split),
        controls=controls,
    )
    if arguments.maps and setup.scorer.evidence is not None:
        indices = setup.cohort.indices(*arguments.split).tolist()
        write_evidence_maps(
            setup.scorer.evidence,
            setup.reference,
            setup.scorer.calibration.tolist(),
            setup.cohort,
            indices,
            arguments.out,
        )
        warn_of_lost_inputs(read_json(arguments.out / REGIONS_SIDECAR)["maps_in_grid_of"])
    for problem in problems:
        print(f"foldnorm: {problem.key}: {problem.reason}", file=sys.stderr)
    for row in rows:
        if row["warning"]:
            print(f"foldnorm: warning: {row_key(row)}: {row['warning']}", file=sys.stderr)
    if not arguments.quiet:
        print(read_json(arguments.out / SIDECAR)["sentence"])
        print(f"{len(rows)} brains scored, {len(problems)} not judged: {arguments.out}")
    return 1 if problems else 0
