"""Search hyper-parameters of a model: grid, random or TPE, restartable, on one node or many.

--vary names what varies, by the keys of the YAML:
  --vary model.init_args.critic_steps=1,2,3,4 training.learning_rate=1e-4..5e-4:log
Every trial is a run folder under OUT/trials; OUT/trials.tsv lists all, OUT/best.yaml is the
configuration of the best. Call it again, or from several processes or nodes at once, to go on: they
share OUT/journal.log. Validation brains decide; test brains are not touched.
"""

import argparse

from foldnorm.pipeline.commands.arguments import (
    add_cohort,
    add_config,
    add_device,
    add_out,
    add_seed,
    positive,
)
from foldnorm.preprocessing.core.counts import counted

HELP = "search hyper-parameters of a model"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add_config(parser)
    add_cohort(parser)
    add_out(parser, holds="")  # several processes share it
    parser.add_argument(
        "--vary", nargs="+", required=True, metavar="KEY=…", help="keys to vary, and their values"
    )
    parser.add_argument(
        "--sampler",
        choices=("grid", "random", "tpe"),
        default="tpe",
        help="sampler of values (default: tpe)",
    )
    parser.add_argument(
        "--trials",
        type=positive,
        help="number of trials to make now (of a grid: all that are left)",
    )
    parser.add_argument("--prune", action="store_true", help="end trials early that fall behind")
    add_seed(parser)
    add_device(parser)
    parser.set_defaults(takes_overrides=True)


def run(arguments: argparse.Namespace) -> int:
    """Run the command."""
    from foldnorm.pipeline.commands.outcome import conclude
    from foldnorm.pipeline.training.signals import ended_by_signals
    from foldnorm.preprocessing.cohort.cohort import Cohort
    from foldnorm.preprocessing.core.errors import InputError
    from foldnorm.preprocessing.core.problems import Problem

    try:
        from foldnorm.pipeline.studies.search import search
        from foldnorm.pipeline.studies.search_space import Axis, SearchOptions
    except ModuleNotFoundError as error:
        if error.name != "optuna":
            raise
        raise InputError("optuna is not installed: pip install 'foldnorm[search]'") from None

    options = SearchOptions(
        tuple(Axis.parse(text) for text in arguments.vary),
        sampler=arguments.sampler,
        trials=arguments.trials,
        prune=arguments.prune,
        seed=arguments.seed,
        overrides=tuple(arguments.overrides),
        device=arguments.device,
    )
    with ended_by_signals():
        rows = search(arguments.config, Cohort.open(arguments.cohort), arguments.out, options)
    failed = [Problem(f"trial {row['number']}", row["reason"]) for row in rows if row["reason"]]
    done = [row for row in rows if row["value"] != ""]
    lines = []
    for row in sorted(done, key=lambda row: row["number"]):
        chosen = "  ".join(f"{axis.key}={row.get(axis.key)}" for axis in options.axes)
        lines.append(f"{row['number']:>4}  {row['value']:.5g}  {chosen}")
    return conclude(
        arguments,
        failed,
        *lines,
        f"{counted(len(done), 'trial')} finished, {len(failed)} failed: {arguments.out}",
    )
