"""Everything on a phantom cohort, from volumes to OUT/report.html, in about ten minutes.

The commands are printed as they run, so that they can be typed again on other data. Running the
demo again continues where it stopped.
"""

import argparse
import shlex
import sys
import time
from pathlib import Path

from foldnorm.pipeline.commands.arguments import add_device, add_n_procs, add_out, positive

HELP = "everything on a phantom cohort, ends with OUT/report.html"
# 60 mm around the end of the superior temporal sulcus of the phantom, at 1.5 mm: 40³ voxels.
REGION = "mm:-66,-6,-60,0,-30,30"
VOXEL_SIZE = "1.5"
SPLIT = ("0.6", "0.15", "0.25")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add_out(parser)
    parser.add_argument(
        "--subjects", type=positive, default=300, help="number of phantoms (default: 300)"
    )
    parser.add_argument(
        "--steps", type=positive, default=500, help="number of training steps (default: 500)"
    )
    add_n_procs(parser)
    add_device(parser)


def run(arguments: argparse.Namespace) -> int:
    """Run the command."""
    begin = time.perf_counter()
    for number, command in enumerate(commands(arguments), start=1):
        if not arguments.quiet:
            elapsed = time.perf_counter() - begin
            print(f"\n[{elapsed:4.0f} s] {number}. foldnorm {shlex.join(command)}", flush=True)
        code = arguments.main([*command, *(["--quiet"] if arguments.quiet else [])])
        if code:
            print(f"foldnorm: demo stopped at step {number}", file=sys.stderr)
            return code
    if not arguments.quiet:
        print(
            f"\nDone in {time.perf_counter() - begin:.0f} s. Open {arguments.out / 'report.html'}, "
            f"and walk through the brains: foldnorm view {arguments.out}/cohort "
            f"{arguments.out}/cohort_deleted {arguments.out}/wgan_gp {arguments.out}/scores"
        )
    return 0


def commands(arguments: argparse.Namespace) -> list[list[str]]:
    """Return the commands of the demo, in order."""
    out = arguments.out
    source, cohort, altered = out / "source", out / "cohort", out / "cohort_deleted"
    model, scores, scores_altered = out / "wgan_gp", out / "scores", out / "scores_deleted"
    benchmark, latent, report = out / "benchmark", out / "latent", out / "report.html"
    procs = ["--n-procs", str(arguments.n_procs)]
    device = ["--device", arguments.device]
    steps = str(arguments.steps)
    fresh = ["--overwrite"]
    lines: list[list[str | Path]] = [
        ["phantom", "-o", source, "--subjects", str(arguments.subjects), *procs],
        ["preprocess", source, "-o", cohort, "--voxel-size", VOXEL_SIZE, "--crop", REGION,
         "--split-fractions", *SPLIT, *procs],
        ["train", "wgan_gp", cohort, "-o", model, "--resume", "auto",
         *device, "--training.steps", steps, "--training.validate_every", "100"],
        ["score", model, cohort, "-o", scores, "--split", "test", *device, *fresh],
        ["alter", cohort, "-o", altered, "--size", "500", "--split", "test", *fresh],
        ["score", model, altered, "-o", scores_altered, *device, *fresh],
        ["benchmark", model, cohort, "-o", benchmark, "--size", "200", "500", "800",
         *device, *fresh],
        ["latent", "projection", model, cohort, "-o", latent, "--project", altered,
         "--colour-by", scores, scores_altered, *device, *fresh],
        ["latent", "clusters", model, cohort, "-o", latent, *device, *fresh],
        ["latent", "mean", model, cohort, "-o", latent, *device, *fresh],
        ["report", cohort, model, scores, altered, scores_altered, benchmark, latent,
         "-o", report],
    ]  # fmt: skip
    return [[str(word) for word in line] for line in lines]
