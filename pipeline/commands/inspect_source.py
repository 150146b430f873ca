"""Say what a source holds before anything is read: volumes, what goes with them, what is unclear.

Skeletons, grey-white volumes, segmentations and images are looked for. It is said which files are
not used and why, and which command reads the source. Exit code 1 if some volume could not be used.
"""

import argparse

from foldnorm.pipeline.commands.arguments import add_options, add_sources
from foldnorm.preprocessing.cohort.options import PreprocessOptions

HELP = "list what a source holds, lacks, and leaves unclear"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add_sources(parser)
    add_options(parser, PreprocessOptions, "prefer")
    parser.add_argument("--json", action="store_true", help="print JSON, for programs")


def run(arguments: argparse.Namespace) -> int:
    """Run the command."""
    from foldnorm.preprocessing.core.files import to_json
    from foldnorm.preprocessing.io.inspection import inspect_source, summary
    from foldnorm.preprocessing.io.sources import Source

    inspection = inspect_source([Source.parse(text) for text in arguments.source], arguments.prefer)
    if arguments.json:
        print(to_json(inspection.as_dict(), indent=2))
    else:
        print(summary(inspection))
    return 1 if any(inspection.problems.values()) else 0
