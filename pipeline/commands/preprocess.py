"""Turn sources of label volumes into a cohort folder.

SOURCE is a Morphologist tree, a folder of NIfTI files, one file, or a table (.tsv, .csv) with
participant_id, path and optionally hemi, folds, graph, transform, pair, family and anything else.
It is only read. Several may be given; NAME=PATH puts NAME before the ids of one. Of several
acquisitions of a subject the default one is taken, else the first by name; of several fold graphs
the newest version, by hand before automatic. Sidecars record the choice. Scans that are there under
two ids are warned of: they leak through a split unless their participants share a family.
"""

import argparse
import sys
from pathlib import Path

from foldnorm.pipeline.commands.arguments import (
    add_n_procs,
    add_overwrite,
    add_segmentation,
    add_selection,
    add_sources,
    add_split,
    positive,
    shard,
)

HELP = "turn label volumes into a cohort folder"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add_sources(parser)
    parser.add_argument("out", type=Path, metavar="OUT", help="cohort folder to write")
    add_selection(parser)
    parser.add_argument(
        "--qc", type=Path, metavar="TABLE", help="leave out who has qc 0 or fail in this table"
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
        help="segmentation: make the skeletons first, in OUT/skeletons (see foldnorm skeletonise)",
    )
    add_segmentation(group)
    group.add_argument(
        "--scheme",
        default="skeleton",
        help="skeleton, binary-skeleton, grey-white, or a YAML file (default skeleton)",
    )
    group.add_argument(
        "--rule", choices=("exact", "topological", "nearest"), help="instead of the scheme's own"
    )
    group.add_argument("--voxel-size", default="1.0", help="mm, or native (default 1.0)")
    group.add_argument(
        "--factor",
        type=positive,
        help="blocks of so many voxels a side become one, instead of --voxel-size",
    )
    group.add_argument(
        "--method",
        default="sulcus-priority",
        choices=("sulcus-priority", "nearest", "max", "linear"),
        help="of downsampling (default sulcus-priority)",
    )
    group.add_argument(
        "--space",
        default="native",
        choices=("native", "mni"),
        help="mni: the ICBM2009c grid, by the transform that lies beside each volume",
    )
    group.add_argument(
        "--hull",
        default="keep",
        choices=("keep", "remove"),
        help="of raw skeletons: exactly where a fold graph tells, else what touches the outside",
    )
    group.add_argument(
        "--thin", action="store_true", help="thin sheets to one voxel after downsampling"
    )
    group.add_argument(
        "--folds",
        default="auto",
        choices=("auto", "none"),
        help="auto: label folds by label volume or fold graph, where one goes with the skeleton",
    )
    group.add_argument(
        "--mirror-right", action="store_true", help="store right hemispheres in left-side order"
    )
    group.add_argument(
        "--whole-brain", action="store_true", help="both hemispheres of a subject in one volume"
    )
    group.add_argument(
        "--pair",
        metavar="SCHEME",
        help="another volume of each hemisphere on the very same grid (grey-white for skeletons)",
    )


def _add_layout(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--crop",
        default="cohort",
        help="cohort, none, region:NAME[+NAME…][@MM], mask:FILE[@MM], box:i0,i1,j0,j1,k0,k1 or "
        "mm:x0,x1,y0,y1,z0,z1 (default cohort: the smallest box that holds every volume)",
    )
    group.add_argument(
        "--regions", type=Path, metavar="FILE", help="YAML: names of regions, lists of sulci"
    )
    group.add_argument(
        "--mix-origins",
        action="store_true",
        help="volumes of different makers (Morphologist, foldnorm) in one cohort",
    )
    group.add_argument(
        "--off-mask", metavar="CLASS", help="what lies off the region's mask becomes this class"
    )
    group.add_argument("--pad", default="none", help="cubic, multiple:N or I,J,K (default none)")
    group.add_argument(
        "--like",
        type=Path,
        metavar="COHORT",
        help="prepare exactly as that cohort (or exported model's) was, same box",
    )
    add_split(group)
    group.add_argument(
        "--drop-duplicates",
        action="store_true",
        help="of a scan that is there under several ids keep the first (default: warn)",
    )


def _add_cluster(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--shard", type=shard, metavar="I/N", help="prepare part I of N only; --gather finishes"
    )
    group.add_argument(
        "--gather", action="store_true", help="prepare nothing: pack what shards have prepared"
    )
    group.add_argument(
        "--cluster",
        metavar="WHERE",
        help="slurm: in jobs of a SLURM cluster; local: the same here; dask:ADDRESS: by the "
        "workers of a Dask scheduler",
    )
    group.add_argument("--jobs", type=positive, default=10, help="of slurm (default 10)")
    group.add_argument(
        "--cluster-option",
        nargs="+",
        default=[],
        metavar="KEY=VALUE",
        help="of submitit: timeout_min=120 slurm_partition=cpu mem_gb=4 …",
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
    for line in report["warnings"]:
        print(f"foldnorm: warning: {line}", file=sys.stderr)
    if report["shard"] is None and (arguments.out / DESCRIPTION).is_file():
        cohort = Cohort.open(arguments.out)
        write_quality_page(cohort)
        pairs = cohort.description["Cohort"]["pairs"]
        if pairs and pairs["shifted"] and not arguments.quiet:
            print(
                f"{pairs['shifted']} pairs have two affines, up to {pairs['largest_shift_mm']:g} "
                "mm apart; they were paired voxel by voxel"
            )
    return conclude(
        arguments,
        [*unmade, *problems_of(report)],
        f"{report['done']} volumes done ({report['skipped']} of them before), "
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
        "fractions": arguments.split,
        "shard": arguments.shard,
    }
    names = ["qc", "folds", "mix_origins", "prefer", "split_seed", "gather", "drop_duplicates",
             "n_procs", "overwrite", "quiet"]  # fmt: skip
    if arguments.like is None:
        names += ["scheme", "rule", "pair", "method", "mirror_right", "factor", "space", "hull",
                  "thin", "whole_brain", "crop", "regions", "pad", "off_mask"]  # fmt: skip
        names += ["voxel_size"] if arguments.factor is None else []
    chosen = {name: getattr(arguments, name) for name in names}
    return read_options(like=arguments.like, **renamed, **chosen)
