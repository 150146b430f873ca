"""Make an atlas of sulci: one file that says how often each of them runs through each place.

SOURCE is a folder of maps in MNI space, L/NAME_left.nii.gz and R/NAME_right.nii.gz, each with the
number of brains, or the probability, at each voxel; or a cohort of hemispheres in MNI space whose
folds have names (fold graphs, gyri). label-sulci names the folds of any hemisphere by it.

With --learn, the names of the cohort's folds are learned as well, from place, shape and the folds
around, which takes some minutes; label-sulci then names by what was learned, and leaves folds
without a name that are like those which have none in the cohort.
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from foldnorm.pipeline.commands.arguments import add_out, add_overwrite, add_selected_splits
from foldnorm.preprocessing.core.counts import counted

if TYPE_CHECKING:
    from foldnorm.preprocessing.naming.atlas import SulcusAtlas

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
        help="participants of the cohort to leave out, with all of their families",
    )
    add_selected_splits(parser)
    parser.add_argument(
        "--vocabulary",
        default="brainvisa",
        help="nomenclature that the names of maps are of (default: brainvisa)",
    )
    parser.add_argument(
        "--learn",
        action="store_true",
        help="learn to name folds, from at least 8 people of a cohort",
    )
    add_overwrite(parser)


def run(arguments: argparse.Namespace) -> int:
    """Run the command."""
    from foldnorm.pipeline.commands.arguments import refuse_existing
    from foldnorm.pipeline.commands.outcome import conclude
    from foldnorm.preprocessing.core.errors import InputError

    if arguments.out.suffix != ".npz":
        raise InputError(f"expected a name that ends in .npz, got: {arguments.out}")
    if not arguments.source.is_dir():
        raise InputError(f"no such folder: {arguments.source}")
    refuse_existing(arguments.out, arguments.overwrite)
    atlas = _atlas_of(arguments)
    atlas.save(arguments.out)
    brains = atlas.about["brains"]
    of_brains = f" of {counted(brains, 'participant')}" if brains else ""
    left_out = len(atlas.about.get("left_out", ()))
    right = atlas.about.get("learned", {}).get("right_share_of_people_left_out")
    learned = "" if right is None else f", {right:.0%} of folds named right in people left out"
    summary = (
        f"{counted(len(atlas.names), 'sulcus', 'sulci')} on {counted(len(atlas.sides), 'side')}"
        f"{of_brains}{f', {left_out} maps left out' if left_out else ''}{learned}: {arguments.out}"
    )
    return conclude(arguments, [], summary)


def _atlas_of(arguments: argparse.Namespace) -> "SulcusAtlas":
    from foldnorm.preprocessing.cohort.cohort import Cohort
    from foldnorm.preprocessing.core.errors import InputError
    from foldnorm.preprocessing.naming.atlas import SulcusAtlas

    if Cohort.is_in(arguments.source):
        cohort = Cohort.open(arguments.source)
        used = {cohort.rows[n]["participant_id"] for n in cohort.indices(*arguments.split)}
        others = {row["participant_id"] for row in cohort.rows} - used
        without = [*arguments.without, *sorted(others)]
        if not arguments.learn:
            return SulcusAtlas.from_cohort(cohort, without)
        from foldnorm.pipeline.training.learn_names import learned_atlas

        return learned_atlas(cohort, without)
    for option in ("without", "split", "learn"):
        if getattr(arguments, option):
            raise InputError(f"--{option} requires a cohort, got maps: {arguments.source}")
    return SulcusAtlas.from_masks(arguments.source, arguments.vocabulary)
