"""Make an atlas of sulci: one file that says how often each of them runs through each place.

SOURCE is a folder of maps in MNI space, L/NAME_left.nii.gz and R/NAME_right.nii.gz, each with the
number of brains, or the probability, at each voxel; or a cohort of hemispheres in MNI space whose
folds have names (fold graphs, gyri). label-sulci names the folds of any hemisphere by it.
"""

import argparse
from pathlib import Path

from foldnorm.pipeline.commands.arguments import add_out, add_overwrite
from foldnorm.preprocessing.core.counts import counted

HELP = "make an atlas of sulci, of maps or of brains whose folds have names"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("source", type=Path, metavar="SOURCE", help="folder of maps, or cohort")
    add_out(parser, "file to write, .npz", "ATLAS", holds="file")
    parser.add_argument(
        "--without",
        nargs="+",
        default=[],
        metavar="PARTICIPANT",
        help="participants of the cohort to leave out",
    )
    parser.add_argument(
        "--vocabulary",
        default="brainvisa",
        help="nomenclature that the names of maps are of (default: brainvisa)",
    )
    add_overwrite(parser)


def run(arguments: argparse.Namespace) -> int:
    """Run the command."""
    from foldnorm.pipeline.commands.arguments import refuse_existing
    from foldnorm.pipeline.commands.outcome import conclude
    from foldnorm.preprocessing.cohort.cohort import Cohort
    from foldnorm.preprocessing.core.errors import InputError
    from foldnorm.preprocessing.naming.atlas import SulcusAtlas

    if arguments.out.suffix != ".npz":
        raise InputError(f"expected a name that ends in .npz, got: {arguments.out}")
    if not arguments.source.is_dir():
        raise InputError(f"no such folder: {arguments.source}")
    refuse_existing(arguments.out, arguments.overwrite)
    if Cohort.is_in(arguments.source):
        atlas = SulcusAtlas.from_cohort(Cohort.open(arguments.source), arguments.without)
    elif arguments.without:
        raise InputError(f"--without requires a cohort, got maps: {arguments.source}")
    else:
        atlas = SulcusAtlas.from_masks(arguments.source, arguments.vocabulary)
    atlas.save(arguments.out)
    brains = atlas.about["brains"]
    of_brains = f" of {counted(brains, 'participant')}" if brains else ""
    left_out = len(atlas.about.get("left_out", ()))
    summary = (
        f"{counted(len(atlas.names), 'sulcus', 'sulci')} on {counted(len(atlas.sides), 'side')}"
        f"{of_brains}{f', {left_out} maps left out' if left_out else ''}: {arguments.out}"
    )
    return conclude(arguments, [], summary)
