"""Turn sources of label volumes into a cohort folder.

SOURCE is a Morphologist tree, a folder of NIfTI files, one file, or a table (.tsv, .csv) with
participant_id, path and optionally hemi, folds, graph, transform, pair, family and anything else.
It is only read. Several may be given; NAME=PATH puts NAME before the ids of one. Of several
acquisitions of a subject the default one is taken, else the first by name; of several fold graphs
the newest version, by hand before automatic. Sidecars record the choice. Scans that are there under
two ids are warned of: they leak through a split unless their participants share a family.
"""

import argparse
from pathlib import Path

from foldnorm.pipeline.commands.arguments import (
    add_n_procs,
    add_out,
    add_overwrite,
    add_segmentation,
    add_selection,
    add_sources,
    add_split,
    positive,
    shard,
)
from foldnorm.preprocessing.core.counts import counted

HELP = "turn label volumes into a cohort folder"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add_sources(parser)
    add_out(parser, "cohort folder to write")
    add_selection(parser)
    parser.add_argument(
        "--qc",
        type=Path,
        metavar="TABLE",
        help="table of quality control: who has qc 0 or fail in it is left out",
    )
    _add_preparation(parser.add_argument_group("each volume"))
    _add_layout(parser.add_argument_group("the cohort"))
    _add_cluster(parser.add_argument_group("many machines"))
    add_n_procs(parser)
    add_overwrite(parser)


def _add_preparation(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--from",
        dest="made_from",
        default="volumes",
        choices=("volumes", "segmentation"),
        help="kind of source (default: volumes); of segmentations, skeletons are made first, in "
        "OUT/skeletons (see foldnorm skeletonise)",
    )
    add_segmentation(group)
    group.add_argument(
        "--scheme",
        default="skeleton",
        help="label scheme: skeleton, binary-skeleton, grey-white, or a YAML file (default: "
        "skeleton)",
    )
    group.add_argument(
        "--rule",
        choices=("exact", "topological", "nearest"),
        help="rule of discretisation (default: that of the scheme)",
    )
    group.add_argument(
        "--voxel-size", default="1.0", help="voxel size in mm, or native (default: 1.0)"
    )
    group.add_argument(
        "--factor",
        type=positive,
        help="number of voxels a side of blocks that become one, instead of --voxel-size",
    )
    group.add_argument(
        "--resampling",
        default="sulcus-priority",
        choices=("sulcus-priority", "nearest", "max", "linear"),
        help="method of downsampling (default: sulcus-priority)",
    )
    group.add_argument(
        "--space",
        default="native",
        choices=("native", "mni"),
        help="space of the grid: native (default), or mni, the ICBM2009c grid, by the transform "
        "that lies beside each volume",
    )
    group.add_argument(
        "--hull",
        default="keep",
        choices=("keep", "remove"),
        help="keep (default) or remove the hull of raw skeletons: exactly where a fold graph "
        "tells, else what touches the outside",
    )
    group.add_argument(
        "--thin", action="store_true", help="thin sheets to one voxel after downsampling"
    )
    group.add_argument(
        "--fold-labels",
        default="auto",
        choices=("auto", "none"),
        help="label folds by the label volume or fold graph that goes with the skeleton, if there "
        "is one (auto, the default), or not (none)",
    )
    group.add_argument(
        "--mirror-right", action="store_true", help="store right hemispheres in left-side order"
    )
    group.add_argument(
        "--whole-brain", action="store_true", help="put both hemispheres of a subject in one volume"
    )
    group.add_argument(
        "--pair",
        metavar="SCHEME",
        help="label scheme of a second volume of each hemisphere, on the very same grid "
        "(grey-white for skeletons)",
    )


def _add_layout(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--crop",
        default="cohort",
        help="box to cut out: cohort, none, region:NAME[+NAME…][@MM], mask:FILE[@MM], "
        "box:i0,i1,j0,j1,k0,k1 or mm:x0,x1,y0,y1,z0,z1 (default: cohort, the smallest box that "
        "holds every volume)",
    )
    group.add_argument(
        "--regions", type=Path, metavar="FILE", help="YAML file of regions: names, lists of sulci"
    )
    group.add_argument(
        "--mix-origins",
        action="store_true",
        help="allow volumes of different makers (Morphologist, foldnorm) in one cohort",
    )
    group.add_argument(
        "--outside-class", metavar="CLASS", help="class to give voxels outside the region's mask"
    )
    group.add_argument(
        "--pad", default="none", help="padding: none, cubic, multiple:N or I,J,K (default: none)"
    )
    group.add_argument(
        "--layout-from",
        type=Path,
        metavar="COHORT",
        help="cohort, or exported model, exactly as whose volumes these are prepared, in the same "
        "box",
    )
    add_split(group)
    group.add_argument(
        "--drop-duplicates",
        action="store_true",
        help="keep the first of a scan that is there under several ids (default: keep all, and "
        "warn)",
    )


def _add_cluster(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--shard", type=shard, metavar="I/N", help="prepare part I of N only; --finalize packs all"
    )
    group.add_argument(
        "--finalize", action="store_true", help="prepare nothing: pack what shards have prepared"
    )
    group.add_argument(
        "--cluster",
        metavar="WHERE",
        help="cluster to prepare on: slurm, in jobs of SLURM; local, the same here; dask:ADDRESS, "
        "by the workers of a Dask scheduler",
    )
    group.add_argument(
        "--jobs", type=positive, default=10, help="number of SLURM jobs (default: 10)"
    )
    group.add_argument(
        "--cluster-option",
        nargs="+",
        default=[],
        metavar="KEY=VALUE",
        help="options of submitit: timeout_min=120 slurm_partition=cpu mem_gb=4 …",
    )


def run(arguments: argparse.Namespace) -> int:
    """Run the command."""
    from foldnorm.pipeline.commands.outcome import conclude, problems_of
    from foldnorm.pipeline.report.qc_page import write_quality_page
    from foldnorm.preprocessing.cohort.cluster import Cluster, preprocess_on
    from foldnorm.preprocessing.cohort.cohort import DESCRIPTION, Cohort
    from foldnorm.preprocessing.cohort.preprocess import preprocess
    from foldnorm.preprocessing.io.sources import Problem, Source

    sources = [Source.parse(text) for text in arguments.source]
    options = _options(arguments)
    unmade: list[Problem] = []
    if arguments.made_from == "segmentation":
        sources, unmade = _skeletons(arguments, sources)
    if arguments.cluster is None:
        report = preprocess(sources, arguments.out, options)
    else:
        cluster = Cluster.parse(arguments.cluster, arguments.jobs, arguments.cluster_option)
        report = preprocess_on(cluster, sources, arguments.out, options)
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
    from foldnorm.preprocessing.io.sources import Source

    if arguments.cluster or arguments.shard:
        raise InputError("--from segmentation runs on one machine; foldnorm skeletonise first")
    tree = arguments.out / "skeletons"
    report = make_skeletons(arguments, sources, tree)
    return [Source(tree.absolute())], problems_of(report)


def _options(arguments: argparse.Namespace):  # type: ignore[no-untyped-def]  # imported late
    """Options of `foldnorm.preprocessing.cohort.preprocess` of the words of a command line."""
    from foldnorm.preprocessing.cohort.preprocess import read_options

    renamed = {
        "hemis": arguments.hemi,
        "participants": arguments.participant_label,
        "fractions": arguments.split_fractions,
        "folds": arguments.fold_labels,
        "gather": arguments.finalize,
    }
    names = ["qc", "mix_origins", "prefer", "split_seed", "shard", "drop_duplicates", "n_procs",
             "overwrite", "quiet"]  # fmt: skip
    if arguments.layout_from is None:
        renamed |= {"method": arguments.resampling, "off_mask": arguments.outside_class}
        names += ["scheme", "rule", "pair", "mirror_right", "factor", "space", "hull", "thin",
                  "whole_brain", "crop", "regions", "pad"]  # fmt: skip
        names += ["voxel_size"] if arguments.factor is None else []
    chosen = {name: getattr(arguments, name) for name in names}
    return read_options(like=arguments.layout_from, **renamed, **chosen)
