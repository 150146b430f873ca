"""Turn sources of label volumes into a cohort folder.

SOURCE is a Morphologist tree, a folder of NIfTI files, one file, or a table (.tsv, .csv) with
participant_id, path and optionally hemi, folds, graph, transform, pair, family and anything else.
It is only read. Several may be given; NAME=PATH puts NAME before the ids of one. Of several
acquisitions of a subject the default one is taken, else the first by name; of several fold graphs
the newest version, by hand before automatic. Sidecars record the choice. Scans that are there under
two ids are warned of: they leak through a split unless their participants share a family.
"""

import argparse
from dataclasses import fields

from foldnorm.pipeline.commands.arguments import (
    add_n_procs,
    add_options,
    add_out,
    add_overwrite,
    add_segmentation,
    add_sources,
    positive,
)
from foldnorm.preprocessing.cohort.options import PreprocessOptions
from foldnorm.preprocessing.core.counts import counted

HELP = "turn label volumes into a cohort folder"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add_sources(parser)
    add_out(parser, "cohort folder to write")
    groups = add_options(parser, PreprocessOptions)
    each, machines = groups["each volume"], groups["many machines"]
    each.add_argument(
        "--from",
        dest="made_from",
        default="volumes",
        choices=("volumes", "segmentation"),
        help="kind of source (default: volumes); of segmentations, skeletons are made first, in "
        "OUT/skeletons (see foldnorm skeletonise)",
    )
    add_segmentation(each)
    machines.add_argument(
        "--cluster",
        metavar="WHERE",
        help="cluster to prepare on: slurm, in jobs of SLURM; local, the same here; dask:ADDRESS, "
        "by the workers of a Dask scheduler",
    )
    machines.add_argument(
        "--jobs", type=positive, default=10, help="number of SLURM jobs (default: 10)"
    )
    machines.add_argument(
        "--cluster-option",
        nargs="+",
        default=[],
        metavar="KEY=VALUE",
        help="options of submitit: timeout_min=120 slurm_partition=cpu mem_gb=4 …",
    )
    add_n_procs(parser)
    add_overwrite(parser)


def run(arguments: argparse.Namespace) -> int:
    """Run the command."""
    from foldnorm.pipeline.commands.outcome import conclude, problems_of
    from foldnorm.pipeline.report.qc_page import write_quality_page
    from foldnorm.preprocessing.cohort.cluster import Cluster, preprocess_on
    from foldnorm.preprocessing.cohort.cohort import DESCRIPTION, Cohort
    from foldnorm.preprocessing.cohort.plan import CohortPlan
    from foldnorm.preprocessing.cohort.preprocess import preprocess
    from foldnorm.preprocessing.core.problems import Problem
    from foldnorm.preprocessing.io.sources import Source

    sources = [Source.parse(text) for text in arguments.source]
    plan = CohortPlan.from_options(_options(arguments))
    unmade: list[Problem] = []
    if arguments.made_from == "segmentation":
        sources, unmade = _skeletons(arguments, sources)
    if arguments.cluster is None:
        report = preprocess(sources, arguments.out, plan)
    else:
        cluster = Cluster.parse(arguments.cluster, arguments.jobs, arguments.cluster_option)
        report = preprocess_on(cluster, sources, arguments.out, plan)
    if report["shard"] is None and (arguments.out / DESCRIPTION).is_file():
        cohort = Cohort.open(arguments.out)
        write_quality_page(cohort)
        pairs = cohort.description["Cohort"]["pairs"]
        if pairs and pairs["shifted"] and not arguments.quiet:
            print(
                f"two affines of {counted(pairs['shifted'], 'pair')}, up to "
                f"{pairs['largest_shift_mm']:g} mm apart; paired voxel by voxel"
            )
    return conclude(
        arguments,
        [*unmade, *problems_of(report)],
        f"{counted(report['done'], 'volume')} done ({report['skipped']} of them before), "
        f"{len(report['failed'])} failed, {report['seconds']} s: {arguments.out}",
    )


def _skeletons(arguments, sources):  # type: ignore[no-untyped-def]  # imported late
    """Skeletons of segmentations, as the source to prepare, and what could not be made."""
    from foldnorm.pipeline.commands.outcome import problems_of
    from foldnorm.pipeline.commands.skeletonise import make_skeletons
    from foldnorm.preprocessing.core.errors import InputError
    from foldnorm.preprocessing.io.sources import Source, refuse_own_source

    refuse_own_source((source.path for source in sources), arguments.out)
    if arguments.cluster or arguments.shard:
        raise InputError("--from segmentation runs on one machine; foldnorm skeletonise first")
    tree = arguments.out / "skeletons"
    report = make_skeletons(arguments, sources, tree)
    return [Source(tree.absolute())], problems_of(report)


def _options(arguments: argparse.Namespace) -> PreprocessOptions:
    names = [option.name for option in fields(PreprocessOptions)]
    return PreprocessOptions.from_words({name: getattr(arguments, name) for name in names})
