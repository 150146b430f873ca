"""Make a template for alignment to MNI space out of skeletons that lead there.

SOURCE is a tree that skeletonise or Morphologist wrote. OUT is a grey-white volume at 1 mm: the
tissue that most of its hemispheres have at each place. skeletonise --align OUT registers
segmentations to it that have neither a transform nor labels of deep structures.
"""

import argparse

from foldnorm.pipeline.commands.arguments import (
    add_assume,
    add_out,
    add_overwrite,
    add_sources,
)
from foldnorm.preprocessing.core.counts import counted

HELP = "make a template for alignment, from skeletons that lead to MNI space"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add_sources(parser)
    add_out(parser, "NIfTI file to write", holds="file")
    add_assume(parser)
    add_overwrite(parser)


def run(arguments: argparse.Namespace) -> int:
    """Run the command."""
    from foldnorm.pipeline.commands.arguments import refuse_existing
    from foldnorm.pipeline.commands.outcome import conclude
    from foldnorm.preprocessing.core.errors import InputError
    from foldnorm.preprocessing.io.sources import Source
    from foldnorm.preprocessing.io.volumes import is_volume
    from foldnorm.preprocessing.skeletons.template import make_template

    if not is_volume(arguments.out):
        raise InputError(f"expected a name that ends in .nii or .nii.gz, got: {arguments.out}")
    refuse_existing(arguments.out, arguments.overwrite)
    sources = [Source.parse(text) for text in arguments.source]
    done, problems = make_template(sources, arguments.out, assume=arguments.assume)
    summary = f"{counted(done, 'hemisphere')}, {len(problems)} left out: {arguments.out}"
    return conclude(arguments, problems, summary)
