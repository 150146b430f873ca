"""Train a model on a cohort and write a run folder.

CONFIG is a YAML file or a shipped configuration (`foldnorm models` lists them).
Any key can be set on the command line: --training.steps 500 --model.init_args.kl_weight 0.01.
Ctrl-C, SIGTERM and SIGUSR1 save the state before leaving (exit 130 and 75); --resume auto
continues, and gives the same weights as an unbroken run. --weights RUN starts from what was learned
elsewhere, as where there are few brains. A model of codes so takes a trained autoencoder, whatever
its class and arguments, as its first stage, and trains the second only.

Many GPUs: torchrun --nproc-per-node 4 -m foldnorm.pipeline.cli train … or srun foldnorm train …
(torchrun ends with 1 whatever its processes end with; srun passes 75 on).
"""

import argparse
from pathlib import Path

from foldnorm.pipeline.commands.arguments import add_cohort, add_config, add_device, add_out

HELP = "train a model on a cohort"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add_config(parser)
    add_cohort(parser)
    # The first of several processes holds it.
    add_out(parser, "run folder to write", "RUN", holds="")
    parser.add_argument(
        "--resume",
        choices=("auto", "never"),
        default="never",
        help="continue an earlier run (auto) or not (never, the default)",
    )
    parser.add_argument(
        "--weights",
        type=Path,
        metavar="RUN",
        help="run, or exported model, of the same model or of its first stage, from whose weights "
        "training starts",
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="start anew in an existing run folder"
    )
    parser.add_argument("--seed", type=int, help="random seed, as --training.seed")
    add_device(parser)
    parser.set_defaults(takes_overrides=True)


def run(arguments: argparse.Namespace) -> int:
    """Run the command."""
    from foldnorm.pipeline.runs.config import resolve_for
    from foldnorm.pipeline.runs.run_folder import RunFolder
    from foldnorm.pipeline.training.distributed import Group
    from foldnorm.pipeline.training.train import refuse_existing_run, train
    from foldnorm.preprocessing.cohort.cohort import Cohort

    resume = arguments.resume == "auto"
    refuse_existing_run(arguments.out, resume=resume, overwrite=arguments.overwrite)
    cohort = Cohort.open(arguments.cohort)
    overrides = list(arguments.overrides)
    if arguments.seed is not None:
        overrides.append(f"--training.seed={arguments.seed}")
    weights = arguments.weights
    trained = None if weights is None else RunFolder.open(weights).config["model"]
    return train(
        resolve_for(cohort, arguments.config, overrides, trained),
        cohort,
        arguments.out,
        device=arguments.device,
        resume=resume,
        weights=weights,
        quiet=arguments.quiet,
        group=Group.of_launcher(),
    )
