"""What a latent space holds.

clusters: k-means for k = 2 … --most, silhouettes, gap statistic, stability, and a sentence on
whether there is more than one cluster. probe: what of --columns of participants.tsv can be read off
the codes by a straight line, cross-validated, with intervals and permutation p-values. OUT may hold
several analyses; `foldnorm report` shows them.
"""

import argparse
from pathlib import Path

from foldnorm.pipeline.arguments import add_device, add_overwrite, add_seed, positive

HELP = "what a latent space holds: clusters, probes"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("analysis", choices=("clusters", "probe"))
    parser.add_argument("run_folder", type=Path, metavar="RUN")
    parser.add_argument("cohort", type=Path, metavar="COHORT")
    parser.add_argument("out", type=Path, metavar="OUT", help="folder to write to")
    parser.add_argument(
        "--split", nargs="+", choices=("train", "validation", "test"), default=[], help="of COHORT"
    )
    parser.add_argument("--most", type=positive, default=5, help="clusters (default 5)")
    parser.add_argument(
        "--columns", nargs="+", default=["hemi"], help="to probe; NAME:category for numbers that "
        "are names (default hemi)"
    )  # fmt: skip
    add_seed(parser)
    add_device(parser)
    add_overwrite(parser)


def run(arguments: argparse.Namespace) -> int:
    """Run the command."""
    from foldnorm.pipeline.arguments import refuse_existing
    from foldnorm.pipeline.latent import tables
    from foldnorm.pipeline.latent.clusters import find_clusters
    from foldnorm.pipeline.latent.probes import probe
    from foldnorm.pipeline.latent.space import LatentSpace

    is_clusters = arguments.analysis == "clusters"
    written = tables.CLUSTERS if is_clusters else tables.PROBES
    refuse_existing(arguments.out / written, arguments.overwrite)
    space = LatentSpace.open(
        arguments.run_folder, arguments.cohort, arguments.split, arguments.device
    )
    if is_clusters:
        found = find_clusters(space.codes, arguments.most, seed=arguments.seed)
        tables.write_clusters(space, found, arguments.out)
        said = [found.sentence]
    else:
        probes = [
            probe(space.codes, space.rows, column, seed=arguments.seed)
            for column in arguments.columns
        ]
        tables.write_probes(space, probes, arguments.out)
        said = [probe.sentence for probe in probes]
    tables.write_sidecar(space, arguments.out, arguments.run_folder, arguments.split)
    if not arguments.quiet:
        print("\n".join(said))
    return 0
