"""Draw new volumes or images from a trained model: a file each and a contact sheet.

Label volumes are NIfTI, images PNG (in 3-D, NIfTI from −1 to 1); the same for a seed.
"""

import argparse
import sys
from pathlib import Path

from foldnorm.pipeline.commands.arguments import add_device, add_overwrite, add_seed, positive

HELP = "draw new volumes or images from a trained model"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("run_folder", type=Path, metavar="RUN")
    parser.add_argument("out", type=Path, metavar="OUT", help="folder to write to")
    parser.add_argument(
        "--given",
        nargs="+",
        default=[],
        metavar="COLUMN=VALUE",
        help="what a conditioned model is told; other columns are drawn as in training",
    )
    parser.add_argument(
        "--sampler", choices=("ddpm", "ddim"), help="of a diffusion model (default: the run's)"
    )
    parser.add_argument("--steps", type=positive, help="of ddim (default: the run's)")
    parser.add_argument("--number", type=positive, default=16, help="how many (default 16)")
    parser.add_argument(
        "--keep-if",
        metavar="CONDITION",
        help="only volumes of which this is true, such as 'components < 20 and thick < 0.05' (of "
        "sheets: voxels, components, euler_number, thick, depth, depth_90; of images: "
        "volume_fraction, correlation, chord, circles, circle_radius)",
    )
    add_seed(parser)
    add_device(parser)
    add_overwrite(parser)


def run(arguments: argparse.Namespace) -> int:
    """Run the command."""
    from foldnorm.pipeline.artifacts import SYNTHETIC_SHEET
    from foldnorm.pipeline.commands.arguments import refuse_existing
    from foldnorm.pipeline.inference.filters import VolumeFilter
    from foldnorm.pipeline.inference.generate import GenerateOptions, generate
    from foldnorm.pipeline.runs.devices import choose_device
    from foldnorm.pipeline.runs.run_folder import RunFolder
    from foldnorm.preprocessing.core.errors import InputError

    refuse_existing(arguments.out / SYNTHETIC_SHEET, arguments.overwrite)
    run_folder = RunFolder.open(arguments.run_folder)
    trained = run_folder.load(choose_device(arguments.device))
    given = {}
    for words in arguments.given:
        column, equals, value = words.partition("=")
        if not equals:
            raise InputError(f"--given: expected COLUMN=VALUE, got {words!r}")
        given[column] = value
    options = GenerateOptions(
        arguments.number,
        arguments.seed,
        given,
        arguments.sampler,
        arguments.steps,
        None if arguments.keep_if is None else VolumeFilter.parse(arguments.keep_if),
    )
    result = generate(run_folder, trained, options)
    result.save(arguments.out)
    kept, rejected = result.kept, result.rejected
    if kept < arguments.number:
        print(
            f"foldnorm: only {kept} of {kept + rejected} drawn volumes keep {arguments.keep_if!r}",
            file=sys.stderr,
        )
    if not arguments.quiet:
        others = f" ({rejected} others were not kept)" if rejected else ""
        print(f"{kept} volumes{others}: {arguments.out}")
    return 1 if kept < arguments.number else 0
