"""Turn images into a cohort folder: slices, digits, micrographs, intensity volumes.

SOURCE is a folder of images (PNG, JPEG, BMP, TIFF of 8 or 16 bit; TIFF stacks and NIfTI in 3-D), in
subfolders by class if there are any, or an idx archive with its labels. It is only read. Colour
becomes luminance, and pictures are what a viewer shows: turned as their orientation tag says, what
is transparent on black. Where participants.tsv (or --table) has the columns file and
participant_id, splits never separate the images of one person; without, each image is a participant
of its own.
"""

import argparse
from pathlib import Path

from foldnorm.pipeline.commands.arguments import (
    add_n_procs,
    add_options,
    add_out,
    add_overwrite,
)
from foldnorm.preprocessing.cohort.options import PreprocessOptions
from foldnorm.preprocessing.core.counts import counted

HELP = "turn images into a cohort folder"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "source", type=Path, metavar="SOURCE", help="folder of images, or idx archive"
    )
    add_out(parser, "cohort folder to write")
    parser.add_argument(
        "--table", type=Path, help="table of the images: file, participant_id, … (default: "
        "SOURCE/participants.tsv)",
    )  # fmt: skip
    parser.add_argument(
        "--classes", nargs="+", type=str, default=[], help="restrict to these classes"
    )
    parser.add_argument(
        "--shape",
        default="native",
        help="pixels of each side, N, I,J or I,J,K, or native (default: native)",
    )
    parser.add_argument(
        "--intensities",
        default="auto",
        metavar="RULE",
        help="intensities that become −1 and 1: full (of 8 or 16 bits), percentiles (0.5 and 99.5 "
        "of each image) or LOW,HIGH (default: auto, which is full for integers of 8 or 16 bits, "
        "else percentiles)",
    )
    parser.add_argument(
        "--layout-from",
        type=Path,
        metavar="COHORT",
        help="cohort, or exported model, as whose images these are prepared",
    )
    add_options(parser, PreprocessOptions, "assume", "split_fractions", "split_seed")
    add_n_procs(parser)
    add_overwrite(parser)


def run(arguments: argparse.Namespace) -> int:
    """Run the command."""
    from foldnorm.pipeline.commands.outcome import conclude, problems_of
    from foldnorm.preprocessing.cohort.image_cohort import write_image_cohort
    from foldnorm.preprocessing.cohort.image_preparation import ImagePreparation
    from foldnorm.preprocessing.cohort.images import find_images
    from foldnorm.preprocessing.io.sources import refuse_own_source

    if arguments.layout_from is None:
        preparation = ImagePreparation.parse(arguments.shape, arguments.intensities)
    else:
        preparation = ImagePreparation.from_cohort(arguments.layout_from)
    tables = [] if arguments.table is None else [arguments.table]
    refuse_own_source([arguments.source, *tables], arguments.out)
    found = find_images(
        arguments.source.absolute(),
        table=arguments.table,
        classes=arguments.classes,
        assume=arguments.assume,
    )
    report = write_image_cohort(
        found,
        arguments.out,
        preparation,
        fractions=tuple(arguments.split_fractions),
        split_seed=arguments.split_seed,
        n_threads=arguments.n_procs,
        overwrite=arguments.overwrite,
    )
    return conclude(
        arguments,
        problems_of(report),
        f"{counted(report['done'], 'image')} done ({report['skipped']} of them before), "
        f"{len(report['failed'])} failed, {report['seconds']} s: {arguments.out}",
    )
