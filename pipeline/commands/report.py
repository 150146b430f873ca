"""Write one self-contained HTML page about cohorts, runs, scores and benchmarks.

PATHs are the folders to report on, in the order to show them; the last argument is the file.
"""

import argparse
from pathlib import Path

HELP = "one HTML page about any of these folders"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("paths", type=Path, nargs="+", metavar="PATH")
    parser.add_argument("out", type=Path, metavar="OUT.html")


def run(arguments: argparse.Namespace) -> int:
    """Run the command."""
    from foldnorm.pipeline.report import write_report
    from foldnorm.preprocessing.errors import InputError

    if arguments.out.suffix != ".html":
        raise InputError(f"expected the report's name to end in .html, got: {arguments.out}")
    write_report(arguments.paths, arguments.out)
    if not arguments.quiet:
        print(f"report: {arguments.out}")
    return 0
