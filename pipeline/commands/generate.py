"""Draw new volumes or images from a trained model: a file each and a contact sheet.

Label volumes are NIfTI, images PNG (in 3-D, NIfTI from −1 to 1); the same for a seed. With --cohort
they also become a cohort folder, marked as drawn, that every command takes.
"""

import argparse
from pathlib import Path

from foldnorm.pipeline.commands.arguments import (
    add_device,
    add_num,
    add_out,
    add_overwrite,
    add_run,
    add_seed,
    positive,
)
from foldnorm.pipeline.commands.outcome import say
from foldnorm.preprocessing.core.counts import counted

HELP = "draw new volumes or images from a trained model"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add_run(parser)
    add_out(parser)
    parser.add_argument(
        "--condition",
        nargs="+",
        default=[],
        metavar="COLUMN=VALUE",
        help="condition of a conditional model; other columns are drawn as in training",
    )
    parser.add_argument(
        "--scheduler",
        choices=("ddpm", "ddim", "euler", "heun"),
        help="scheduler of a diffusion model; euler and heun are those of a flow (default: the "
        "run's)",
    )
    parser.add_argument(
        "--sampling-steps",
        type=positive,
        help="number of steps of any scheduler but ddpm (default: the run's)",
    )
    parser.add_argument(
        "--guidance",
        type=float,
        metavar="WEIGHT",
        help="weight of the condition of a conditional diffusion model: 1 as its network has it, "
        "above 1 beyond (default: the run's)",
    )
    parser.add_argument(
        "--cohort",
        type=Path,
        metavar="COHORT",
        help="cohort that the model was trained on; makes OUT a cohort folder of the same layout",
    )
    add_num(parser, 16, "number of volumes")
    parser.add_argument(
        "--keep-if",
        metavar="CRITERION",
        help="keep only volumes of which this is true, such as 'components < 20 and thick < 0.05' "
        "(of sheets: voxels, components, euler_number, thick, depth, depth_90; of images: "
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
    from foldnorm.preprocessing.cohort.cohort import Cohort
    from foldnorm.preprocessing.core.errors import InputError

    refuse_existing(arguments.out / SYNTHETIC_SHEET, arguments.overwrite)
    run_folder = RunFolder.open(arguments.run_folder)
    trained = run_folder.load(choose_device(arguments.device))
    given = {}
    for words in arguments.condition:
        column, equals, value = words.partition("=")
        if not equals:
            raise InputError(f"--condition: expected COLUMN=VALUE, got {words!r}")
        given[column] = value
    options = GenerateOptions(
        arguments.num,
        arguments.seed,
        given,
        arguments.scheduler,
        arguments.sampling_steps,
        arguments.guidance,
        None if arguments.keep_if is None else VolumeFilter.parse(arguments.keep_if),
        None if arguments.cohort is None else Cohort.open(arguments.cohort),
    )
    result = generate(run_folder, trained, options)
    result.save(arguments.out)
    kept, rejected = result.kept, result.rejected
    if kept < arguments.num:
        say(f"only {kept} of {counted(kept + rejected, 'drawn volume')} keep {arguments.keep_if!r}")
    if not arguments.quiet:
        others = f" ({counted(rejected, 'other')} not kept)" if rejected else ""
        print(f"{counted(kept, 'volume')}{others}: {arguments.out}")
    return 1 if kept < arguments.num else 0
