"""Combine scores of several models of the same brains into one p-value.

Each SCORES is a folder that foldnorm score has written, of the same brains, perhaps prepared at
another resolution. A score named by --scores is taken of every folder that has it; where none is
named, one of each folder: evidence_component, sulci_missing, latent_map_component, latent_centre or
void_component, whichever of these comes first.
The combined score is calibrated anew on the brains that calibrated all of them, so the p-values
need not be independent. OUT/fused.tsv has a row a brain. Maps and regions are not combined: those
of each SCORES stand.
"""

import argparse
from pathlib import Path

from foldnorm.pipeline.commands.arguments import add_out, add_overwrite
from foldnorm.preprocessing.core.counts import counted

HELP = "combine scores of several models into one p-value"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("folders", type=Path, nargs="+", metavar="SCORES", help="folder of scores")
    add_out(parser)
    parser.add_argument(
        "--scores", nargs="+", default=[], metavar="NAME", help="names of the scores to combine"
    )
    parser.add_argument(
        "--combine",
        choices=("fisher", "harmonic"),
        default="fisher",
        help="combination of p-values: fisher, the sum of −log p (default), or harmonic, their "
        "harmonic mean",
    )
    add_overwrite(parser)


def run(arguments: argparse.Namespace) -> int:
    """Run the command."""
    from foldnorm.pipeline.artifacts import FUSED
    from foldnorm.pipeline.commands.arguments import refuse_existing
    from foldnorm.pipeline.scoring.fusion import fuse

    refuse_existing(arguments.out / FUSED, arguments.overwrite)
    fused = fuse(arguments.folders, arguments.scores, arguments.combine)
    fused.save(arguments.out)
    if not arguments.quiet:
        print(f"{counted(len(fused.table), 'brain')}: {arguments.out}")
    return 0
