"""Look at this machine: packages, GPU, processors, memory, disk, caches, rights to write.

Prints a line for each, and what to do where something is missing. Exit code 1 if there is a
problem.
`foldnorm --version --debug` prints the same, for a report of an error.
"""

import argparse
import json
from dataclasses import asdict
from pathlib import Path

HELP = "look at this machine, and say in plain words what it lacks"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "folder",
        nargs="?",
        type=Path,
        default=Path(),
        metavar="FOLDER",
        help="folder for results, which need not exist (default: the current one)",
    )
    parser.add_argument("--json", action="store_true", help="print JSON, for programs")


def run(arguments: argparse.Namespace) -> int:
    """Run the command."""
    from foldnorm.pipeline.runs.machine import examine

    found = examine(arguments.folder)
    if arguments.json:
        print(json.dumps([asdict(finding) for finding in found], indent=2))
    else:
        for finding in found:
            print(finding)
    return int(any(finding.state == "problem" for finding in found))
