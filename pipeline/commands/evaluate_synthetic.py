"""Compare synthetic volumes with real ones: one table for any generator, with floors.

REAL is the cohort that the generator was trained on, SYNTHETIC a folder that `foldnorm generate`
wrote, or a cohort. Synthetic and held-out real volumes are both compared with training ones, as
many of each: MMD, precision, recall and coverage in the codes of --encoder (without it, in
principal components), MS-SSIM of pairs (the higher, the less varied), whether training volumes
were memorised, and the AUROC of a classifier that learns to tell sets apart. Label volumes are
compared in their structure as well, micrographs with --microstructure.
"""

import argparse
from pathlib import Path

from foldnorm.pipeline.commands.arguments import (
    add_device,
    add_num,
    add_out,
    add_overwrite,
    add_seed,
    positive,
)

HELP = "compare synthetic volumes with real ones"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("real", type=Path, metavar="REAL", help="cohort folder")
    parser.add_argument(
        "synthetic", type=Path, metavar="SYNTHETIC", help="folder of generated volumes, or cohort"
    )
    add_out(parser)
    parser.add_argument(
        "--encoder", type=Path, metavar="RUN", help="trained model whose codes are compared"
    )
    add_num(parser, 200, "largest number of volumes of each set")
    parser.add_argument(
        "--microstructure",
        action="store_true",
        help="also compare volume fraction, two-point correlation, chords and circles of images",
    )
    parser.add_argument(
        "--blind-sheet",
        type=positive,
        default=0,
        metavar="N",
        help="also lay out so many synthetic and as many held-out volumes in random order, as a "
        "picture for a reader; which is which stands in a table beside it",
    )
    add_seed(parser)
    add_device(parser)
    add_overwrite(parser)


def run(arguments: argparse.Namespace) -> int:
    """Run the command."""
    from foldnorm.pipeline.artifacts import QUALITY
    from foldnorm.pipeline.commands.arguments import refuse_existing
    from foldnorm.pipeline.commands.outcome import conclude_batch
    from foldnorm.pipeline.runs.devices import choose_device
    from foldnorm.pipeline.runs.run_folder import RunFolder
    from foldnorm.pipeline.studies.synthetic_quality import QualityOptions, measure_quality
    from foldnorm.preprocessing.cohort.cohort import Cohort

    refuse_existing(arguments.out / QUALITY, arguments.overwrite)
    cohort = Cohort.open(arguments.real)
    encoder = None
    if arguments.encoder is not None:
        encoder_run = RunFolder.open(arguments.encoder)
        encoder_run.check_cohort(cohort)
        encoder = encoder_run.load(choose_device(arguments.device))
    options = QualityOptions(
        arguments.num, arguments.seed, arguments.microstructure, arguments.blind_sheet
    )
    result = measure_quality(cohort, arguments.synthetic, options, encoder)
    result.save(arguments.out)
    summary = [f"{'':<24} synthetic  held out"]
    for row in result.table:
        values = (row["synthetic"], row["held_out"])
        summary.append(" ".join([f"{row['figure']:<24}", *(f"{value:9.4g}" for value in values)]))
    done = result.about["volumes_of_each_set"]
    return conclude_batch(arguments, done, result.failed, *summary)
