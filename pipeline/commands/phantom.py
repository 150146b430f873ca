"""Draw a cohort of phantom hemispheres as a source tree.

Skeletons, fold labels and grey-white volumes that vary from subject to subject, laid out as
Morphologist does. The same seed gives the same bytes.
"""

import argparse

from foldnorm.pipeline.commands.arguments import (
    add_n_procs,
    add_out,
    add_overwrite,
    add_seed,
    positive,
)

HELP = "draw a cohort of phantom hemispheres"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add_out(parser, "folder to write the tree to")
    parser.add_argument(
        "--subjects", type=positive, default=20, help="number of subjects (default: 20)"
    )
    parser.add_argument(
        "--first", type=int, default=0, help="number of the first subject (default: 0)"
    )
    parser.add_argument(
        "--voxel-size", type=float, default=1.0, help="voxel size in mm (default: 1.0)"
    )
    parser.add_argument(
        "--hemi", nargs="+", choices=("L", "R"), default=["L"], help="hemispheres (default: L)"
    )
    parser.add_argument(
        "--variant",
        help="variant of every subject, KIND:SULCUS; KIND is erased, absent, added, interrupted "
        "or displaced (as in absent:central)",
    )
    add_seed(parser)
    add_n_procs(parser)
    add_overwrite(parser)


def run(arguments: argparse.Namespace) -> int:
    """Run the command."""
    from foldnorm.preprocessing.phantom.tree import PhantomOptions, parse_variant, write_phantoms

    write_phantoms(
        arguments.out,
        PhantomOptions(
            subjects=arguments.subjects,
            seed=arguments.seed,
            first=arguments.first,
            voxel_size=arguments.voxel_size,
            hemis=tuple(arguments.hemi),
            variant=parse_variant(arguments.variant) if arguments.variant else None,
            n_procs=arguments.n_procs,
            overwrite=arguments.overwrite,
            quiet=arguments.quiet,
        ),
    )
    return 0
