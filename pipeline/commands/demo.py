"""Everything on a cohort, from volumes to OUT/report.html: of phantoms in about ten minutes.

Hemispheres are prepared, sulci of some are named, and in each test brain one fold is erased; three
ways look for it: void (no network), a network that restores folds, and the distance of the code of
a WGAN-GP from healthy ones. The commands are printed as they run, so that they can be typed again
on other data. With --data, segmentations of FreeSurfer, FastSurfer or SynthSeg take the place of
phantoms. Running the demo again continues where it stopped.
"""

import argparse
import shlex
import time
from collections.abc import Iterator
from pathlib import Path

from foldnorm.pipeline.commands.arguments import add_device, add_n_procs, add_out, positive
from foldnorm.pipeline.commands.outcome import say

HELP = "everything on a phantom cohort, ends with OUT/report.html"
# Whole hemispheres in MNI space; right ones are mirrored.
LAYOUT = ("--space", "mni", "--voxel-size", "2", "--thin", "--mirror-right", "--pad", "multiple:8")
SPLIT = ("0.5", "0.15", "0.35")
SIZES = ("200", "500", "800")  # mm² of the folds that are erased
ERASED = "500"
DRAWS = "3"  # of the halves that are altered
# A WGAN-GP that minutes suffice for: thin, fewer phases a round, and it learns from erased folds.
SMALL = (
    "--model.init_args.edits", "[folds]", "--model.init_args.channels", "[24,48]",
    "--model.init_args.critic_channels", "[16,32]", "--model.init_args.critic_steps", "2",
    "--model.init_args.reconstruction_steps", "3", "--model.init_args.sampling_rounds", "1",
    "--training.batch_size", "2",
)  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add_out(parser)
    source = parser.add_mutually_exclusive_group()
    source.add_argument(
        "--subjects", type=positive, default=160, help="number of phantoms (default: 160)"
    )
    source.add_argument(
        "--data", type=Path, help="folder of segmentations (see foldnorm skeletonise), instead"
    )
    parser.add_argument(
        "--steps",
        type=positive,
        nargs=2,
        default=(600, 250),
        metavar=("RESTORER", "WGAN_GP"),
        help="number of training steps of both networks (default: 600 250)",
    )
    add_n_procs(parser)
    add_device(parser)


def run(arguments: argparse.Namespace) -> int:
    """Run the command."""
    begin, ends = time.perf_counter(), 0
    for number, command in enumerate(commands(arguments), start=1):
        if not arguments.quiet:
            elapsed = time.perf_counter() - begin
            print(f"\n[{elapsed:4.0f} s] {number}. foldnorm {shlex.join(command)}", flush=True)
        code = arguments.main([*command, *(["--quiet"] if arguments.quiet else [])])
        if code not in (0, 1):  # 1: some brains were left out or not judged, and named
            say(f"demo stopped at step {number}")
            return code
        ends = max(ends, code)
    if not arguments.quiet:
        out = arguments.out
        print(
            f"\nDone in {time.perf_counter() - begin:.0f} s. Open {out / 'report.html'}, "
            f"and walk through the brains: foldnorm view {out}/cohort {out}/patients "
            f"{out}/restorer {out}/wgan_gp {out}/scores_restorer"
        )
    return ends


def commands(arguments: argparse.Namespace) -> Iterator[list[str]]:
    """Commands of the demo, in order, each when those before it are done."""
    out = arguments.out
    healthy = out / "healthy"
    source, cohort, patients = out / "source", out / "cohort", out / "patients"
    procs = ["--n-procs", str(arguments.n_procs)]
    device = ["--device", arguments.device]
    fresh = ["--overwrite"]
    restorer, wgan_gp = out / "restorer", out / "wgan_gp"
    steps, rounds = map(str, arguments.steps)
    folders: list[Path] = [cohort]

    def line(*words: str | Path) -> list[str]:
        return [str(word) for word in words]

    if arguments.data is None:
        yield line("phantom", "-o", source, "--subjects", str(arguments.subjects), *procs)
    given = [source] if arguments.data is None else [arguments.data, "--from", "segmentation"]
    yield line("preprocess", *given, "-o", cohort, *LAYOUT, "--split-fractions", *SPLIT, *procs)
    if has_names(cohort):
        atlas, names = out / "sulcus_atlas.npz", out / "names"
        yield line("atlas", cohort, "-o", atlas, "--split", "train", *fresh)
        yield line("label-sulci", atlas, cohort, "-o", names, "--split", "validation",
                   *fresh)  # fmt: skip
        folders.append(names)
    yield line("alter", cohort, "-o", patients, "--size", ERASED, "--split", "test", *fresh)
    folders.append(patients)
    # Without a model, those that others are compared with are all brains of a cohort: not the test
    # brains, which are to be scored.
    yield line("alter", cohort, "-o", healthy, "--size", "0", "--split", "train", "validation",
               *fresh)  # fmt: skip
    yield line("train", "restorer", cohort, "-o", restorer, "--resume", "auto", *device,
               "--training.steps", steps)  # fmt: skip
    yield line("train", "wgan_gp", cohort, "-o", wgan_gp, "--resume", "auto", *device,
               *SMALL, "--training.steps", rounds)  # fmt: skip
    folders += [restorer, wgan_gp]
    for name, model in (("void", "void"), ("restorer", restorer), ("wgan_gp", wgan_gp)):
        reference: list[str | Path] = ["--reference", healthy] if model == "void" else []
        scores, benchmark = out / f"scores_{name}", out / f"benchmark_{name}"
        yield line("score", model, patients, "-o", scores, "--maps", *reference, *device, *fresh)
        yield line("benchmark", model, cohort, "-o", benchmark, "--size", *SIZES, "--draws", DRAWS,
                   *reference, *device, *fresh)  # fmt: skip
        folders += [scores, benchmark]
    latent = out / "latent"
    yield line("latent", "projection", wgan_gp, cohort, "-o", latent, "--project", patients,
               "--colour-by", out / "scores_wgan_gp", *device, *fresh)  # fmt: skip
    folders.append(latent)
    yield line("report", *folders, "-o", out / "report.html", "--pages", "3")


def has_names(cohort: Path) -> bool:
    """Say if the folds of a cohort have names."""
    from foldnorm.preprocessing.cohort.cohort import Cohort
    from foldnorm.preprocessing.naming.named_folds import names_by_label

    return any(names_by_label(Cohort.open(cohort)).values())
