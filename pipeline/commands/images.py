"""Turn images into a cohort folder: slices, digits, micrographs, intensity volumes.

SOURCE is a folder of images (PNG, JPEG, BMP, TIFF of 8 or 16 bit; TIFF stacks and NIfTI in 3-D), in
subfolders by class if there are any, or an idx archive with its labels. It is only read. Colour
becomes luminance. Where participants.tsv (or --table) has the columns file and participant_id,
splits never separate the images of one person; without, each image is a participant of its own.
"""

import argparse
from pathlib import Path

from foldnorm.pipeline.commands.arguments import add_n_procs, add_overwrite, add_split

HELP = "turn images into a cohort folder"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("source", type=Path, metavar="SOURCE")
    parser.add_argument("out", type=Path, metavar="OUT", help="cohort folder to write")
    parser.add_argument("--table", type=Path, help="whose images are: file, participant_id, …")
    parser.add_argument("--classes", nargs="+", type=str, default=[], help="only these")
    parser.add_argument(
        "--size", default="native", help="N, I,J or I,J,K pixels, or native (default native)"
    )
    parser.add_argument(
        "--intensities",
        default="auto",
        metavar="RULE",
        help="what becomes −1 and 1: full (of 8 or 16 bits), percentiles (0.5 and 99.5 of each "
        "image) or LOW,HIGH (default auto: full for integers of 8 or 16 bits, else percentiles)",
    )
    parser.add_argument(
        "--like",
        type=Path,
        metavar="COHORT",
        help="prepare as that cohort (or exported model's) was",
    )
    add_split(parser)
    add_n_procs(parser)
    add_overwrite(parser)


def run(arguments: argparse.Namespace) -> int:
    """Run the command."""
    from foldnorm.pipeline.commands.outcome import conclude, problems_of
    from foldnorm.preprocessing.cohort.image_cohort import ImagePreparation, write_image_cohort
    from foldnorm.preprocessing.cohort.images import find_images

    if arguments.like is None:
        preparation = ImagePreparation.parse(arguments.size, arguments.intensities)
    else:
        preparation = ImagePreparation.from_cohort(arguments.like)
    images, problems = find_images(
        arguments.source.absolute(), table=arguments.table, classes=arguments.classes
    )
    report = write_image_cohort(
        images,
        problems,
        arguments.out,
        preparation,
        fractions=tuple(arguments.split),
        split_seed=arguments.split_seed,
        n_threads=arguments.n_procs,
        overwrite=arguments.overwrite,
    )
    return conclude(
        arguments,
        problems_of(report),
        f"{report['done']} images done ({report['skipped']} of them before), "
        f"{len(report['failed'])} failed, {report['seconds']} s: {arguments.out}",
    )
