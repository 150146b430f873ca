"""Make sulcal skeletons from segmentations of grey and white matter, without BrainVISA.

SOURCE is a FreeSurfer or FastSurfer subjects folder or one subject of it, a folder of label
volumes (SynthSeg, aseg …), one file, a Morphologist tree (its grey_white volumes), or a table with
participant_id, path and optionally hemi. OUT is laid out as a Morphologist tree, so that preprocess
and folds read it: skeletons with Morphologist's values, grey-white volumes, hulls, fold labels,
depth, bottom lines, and sidecars. Where a segmentation has gyri (aparc+aseg, aparc.a2009s+aseg,
wmparc, SynthSeg --parc), folds get the names of the sulci between them.
"""

import argparse
from pathlib import Path

from foldnorm.pipeline.commands.arguments import (
    add_assume,
    add_n_procs,
    add_out,
    add_overwrite,
    add_segmentation,
    add_selection,
    add_sources,
)
from foldnorm.pipeline.commands.outcome import say
from foldnorm.preprocessing.core.counts import counted

HELP = "make sulcal skeletons from any grey-white segmentation"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add_sources(parser)
    add_out(parser, "tree to write")
    add_selection(parser)
    add_segmentation(parser)
    add_assume(parser)
    add_n_procs(parser)
    add_overwrite(parser)


def run(arguments: argparse.Namespace) -> int:
    """Run the command."""
    from foldnorm.pipeline.commands.outcome import conclude, problems_of
    from foldnorm.preprocessing.io.sources import Source

    sources = [Source.parse(text) for text in arguments.source]
    report = make_skeletons(arguments, sources, arguments.out)
    return conclude(
        arguments,
        problems_of(report),
        f"{counted(report['done'], 'segmentation')} done ({report['skipped']} of them before), "
        f"{len(report['failed'])} failed, {report['seconds']} s: {arguments.out}",
    )


def make_skeletons(arguments, sources, out):  # type: ignore[no-untyped-def]  # imported late
    """Make skeletons as the arguments say, print what deserves a look, and return the report."""
    from foldnorm.preprocessing.skeletons.alignment import read_template
    from foldnorm.preprocessing.skeletons.segmentation import load_segmentation_scheme
    from foldnorm.preprocessing.skeletons.skeletons import SkeletoniseOptions, skeletonise_sources

    options = SkeletoniseOptions(
        scheme=load_segmentation_scheme(arguments.labels),
        align=(
            arguments.align
            if arguments.align in ("auto", "none")
            else read_template(Path(arguments.align))
        ),
        hemis=tuple(arguments.hemi),
        participants=tuple(arguments.participant_label),
        assume=arguments.assume,
        n_procs=arguments.n_procs,
        overwrite=arguments.overwrite,
        quiet=arguments.quiet,
    )
    report = skeletonise_sources(sources, out, options)
    for name, warnings in report["warnings"].items():
        say(f"warning: {name}: {'; '.join(warnings)}")
    return report
