"""Write one self-contained HTML page about cohorts, runs, scores and benchmarks.

PATHs are the folders to report on, in the order to show them. A folder of `score --maps` gives one
page for each brain that stands out: where it has fewer folds than healthy brains, beside some of
them, to be printed for whoever looks at the images.
"""

import argparse
from pathlib import Path

from foldnorm.pipeline.commands.arguments import add_out, not_negative

HELP = "write one HTML page about any of these folders"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("paths", type=Path, nargs="+", metavar="PATH", help="folder to report on")
    add_out(parser, "HTML file to write", "OUT.html", holds="file")
    parser.add_argument(
        "--pages",
        type=not_negative,
        default=20,
        metavar="N",
        help="number of brains of a score folder that get a page, smallest p first (default: 20)",
    )
    parser.add_argument(
        "--brains",
        nargs="+",
        default=[],
        metavar="SUB",
        help="brains that get a page, instead: participants (sub-x) or hemispheres (sub-x_hemi-L)",
    )


def run(arguments: argparse.Namespace) -> int:
    """Run the command."""
    from foldnorm.pipeline.report.brain_page import PageChoice
    from foldnorm.pipeline.report.page import write_report
    from foldnorm.preprocessing.core.errors import InputError

    if arguments.out.suffix != ".html":
        raise InputError(f"expected the report's name to end in .html, got: {arguments.out}")
    choice = PageChoice(arguments.pages, tuple(arguments.brains))
    write_report(arguments.paths, arguments.out, choice)
    if not arguments.quiet:
        print(f"report: {arguments.out}")
    return 0
