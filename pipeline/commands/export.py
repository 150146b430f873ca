"""Write a trained model as a MONAI bundle: a folder that others can use, without the cohort.

OUT holds what MONAI wants (metadata, configs of inference and training, weights, README), the
weights also as safetensors, and the layout of the training cohort. Every command that takes a RUN
takes it too, and `foldnorm preprocess --layout-from OUT` prepares volumes for it. Participants are
named by salted hashes.
"""

import argparse
from pathlib import Path

from foldnorm.pipeline.commands.arguments import add_out, add_overwrite, add_run

HELP = "write a trained model as a MONAI bundle"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add_run(parser)
    add_out(parser)
    parser.add_argument(
        "--reference", type=Path, metavar="COHORT", help="training cohort, if it has moved"
    )
    parser.add_argument(
        "--licence", default="", metavar="NAME", help="licence of the weights, such as CC-BY-4.0"
    )
    parser.add_argument(
        "--data-terms",
        default="",
        metavar="NAME",
        help="terms of the data that they were fitted to",
    )
    add_overwrite(parser)


def run(arguments: argparse.Namespace) -> int:
    """Run the command."""
    from foldnorm.pipeline.artifacts import BUNDLE_METADATA
    from foldnorm.pipeline.bundle.export import export
    from foldnorm.pipeline.commands.arguments import refuse_existing
    from foldnorm.pipeline.runs.run_folder import RunFolder

    refuse_existing(arguments.out / BUNDLE_METADATA, arguments.overwrite)
    run_folder = RunFolder.open(arguments.run_folder)
    export(
        run_folder,
        run_folder.training_cohort(arguments.reference),
        arguments.out,
        licence=arguments.licence,
        data_terms=arguments.data_terms,
    )
    if not arguments.quiet:
        print(f"bundle: {arguments.out}")
    return 0
