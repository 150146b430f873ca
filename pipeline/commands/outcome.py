"""End of a command: what could not be done, what was, and the exit code."""

import argparse
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from foldnorm.preprocessing.core.problems import Problem

FAILED = 1


def say(message: str) -> None:
    """Print a line to stderr, as one piece: processes that train together print there, too.

    `print` writes the line and its end one after the other where Python does not buffer
    (``PYTHONUNBUFFERED``, which containers set), so that two lines would become one.
    """
    sys.stderr.write(f"foldnorm: {message}\n")


def conclude(arguments: argparse.Namespace, problems: Sequence["Problem"], *summary: str) -> int:
    """Print what could not be done and, unless ``--quiet``, a summary.

    Args:
        arguments: of the command.
        problems: volumes that could not be used.
        summary: lines.

    Returns:
        The exit code: 1 if there was any problem, else 0.
    """
    for problem in problems:
        say(f"{problem.key}: {problem.reason}")
    if not arguments.quiet:
        for line in summary:
            print(line)
    return FAILED if problems else 0


def conclude_batch(
    arguments: argparse.Namespace, done: int, problems: Sequence["Problem"], *summary: str
) -> int:
    """Write ``run_report.json``, print what could not be done and a summary; see `conclude`.

    Args:
        arguments: of the command, with the folder ``out``.
        done: number of volumes that something was made of.
        problems: volumes that could not be used.
        summary: lines.
    """
    from importlib.metadata import version

    from foldnorm.pipeline.artifacts import REPORT
    from foldnorm.preprocessing.core.files import write_json

    failed = [{"volume": problem.key, "reason": problem.reason} for problem in problems]
    report = {"version": version("foldnorm"), "done": done, "failed": failed}
    write_json(arguments.out / REPORT, report)
    return conclude(arguments, problems, *summary)


def problems_of(report: Mapping[str, Any]) -> list["Problem"]:
    """List the failures in the report of a batch of volumes."""
    from foldnorm.preprocessing.core.problems import Problem

    return [Problem(failure["volume"], failure["reason"]) for failure in report["failed"]]
