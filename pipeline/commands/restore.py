"""Repair images with a trained model: noise taken out, strokes and spots found and replaced.

INPUT is a cohort folder; or a folder of images or one, which is first prepared as the run's cohort
was, in OUT/prepared. --degrade degrades the images first, as in training, so that what comes out
can be compared with what they were: restored.tsv then has PSNR and SSIM, inside the damage too, and
IoU of the damage that was found. contact_sheet.png has an image a column.
"""

import argparse
from pathlib import Path

from foldnorm.pipeline.commands.arguments import (
    add_device,
    add_overwrite,
    add_run_and_input,
    add_seed,
    positive,
)
from foldnorm.preprocessing.core.counts import counted

HELP = "repair images"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add_run_and_input(parser)
    parser.add_argument(
        "--degrade", action="store_true", help="degrade the images first, as in training"
    )
    parser.add_argument(
        "--damage",
        nargs="+",
        choices=("straight", "broken", "curved", "blobs", "noise"),
        default=[],
        help="kinds of damage, with --degrade (default: those that the model learned from)",
    )
    parser.add_argument(
        "--widths",
        type=float,
        nargs=2,
        metavar=("LOW", "HIGH"),
        help="widths of strokes, pixels, with --degrade (default: those that the model learned "
        "from)",
    )
    parser.add_argument(
        "--method",
        choices=("model", "biharmonic", "true-mask", "diffusion"),
        default="model",
        help="method of repair: the model (default); or biharmonic inpainting, where the model "
        "finds damage, or (true-mask, with --degrade) where there is damage; or what a diffusion "
        "model (--prior) draws where the model finds damage, given the rest",
    )
    parser.add_argument(
        "--prior", type=Path, metavar="RUN", help="run of ddpm or rectified_flow on such images"
    )
    parser.add_argument(
        "--draws",
        type=positive,
        default=4,
        help="number of times that --prior draws what is damaged; restored is the mean (default: "
        "4)",
    )
    add_seed(parser)
    add_device(parser)
    add_overwrite(parser)


def run(arguments: argparse.Namespace) -> int:
    """Run the command."""
    from foldnorm.pipeline.artifacts import RESTORED
    from foldnorm.pipeline.commands.arguments import open_run_and_input, refuse_existing
    from foldnorm.pipeline.commands.outcome import conclude_batch
    from foldnorm.pipeline.inference.restore import RestoreOptions, restore

    refuse_existing(arguments.out / RESTORED, arguments.overwrite)
    run_folder, trained, given = open_run_and_input(arguments)
    options = RestoreOptions(
        tuple(arguments.split),
        arguments.degrade,
        tuple(arguments.damage),
        arguments.widths and tuple(arguments.widths),
        arguments.method,
        arguments.prior,
        arguments.draws,
        arguments.seed,
    )
    result = restore(run_folder, trained, given.cohort, options)
    result.save(arguments.out)
    found, figures = result.metrics, ""
    if arguments.degrade:
        gain = "" if found["psnr_gain"] is None else f" ({found['psnr_gain']:+.2f} dB)"
        psnr = "n/a" if found["psnr"] is None else f"{found['psnr']:.2f} dB{gain}"
        ssim = "n/a" if found["ssim"] is None else f"{found['ssim']:.3f}"
        figures = f", PSNR {psnr}, SSIM {ssim}"
        if found["mask_iou"] is not None:
            figures += f", IoU of damage {found['mask_iou']:.3f}"
    number, failed = len(result.table), [*given.failed, *result.failed]
    summary = f"{counted(number, 'image')}, {len(failed)} failed{figures}: {arguments.out}"
    return conclude_batch(arguments, number, failed, summary)
