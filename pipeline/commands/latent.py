"""Analyse a latent space. OUT may hold several analyses; `foldnorm report` shows them.

ANALYSIS is one of:
  clusters     k-means for k = 2 … --max-clusters, silhouettes, gap statistic, stability, and a
               sentence on whether there is more than one cluster
  probe        linear probes: how well --columns of participants.tsv, or of a --fold-table, can be
               read off the codes, cross-validated, with intervals and permutation p-values
  mean         the decoded mean code, class probabilities of the decoded cohort, their surfaces
  neighbours   the brains nearest to --brain
  interpolate  --path-steps from --brain to --to
  dimensions   ranked by what half a standard deviation of the prior does to the loss of --n-brains
               brains, predicted for all and measured for the first --dimensions of them; and the
               voxels that the first --num of them move (of label volumes only)
  projection   one picture of the codes by --reduction, fitted on the training brains of COHORT; its
               other brains and those of the cohorts of --project are projected too, and how far
               they lie is said; --colour-by has brains coloured by scores, or by the size of a
               sulcus that is chosen in the report

Images are taken like brains. One that cannot be read takes no part, and is named.
"""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from foldnorm.pipeline.artifacts import (
    CLUSTERS,
    DIMENSIONS,
    INTERPOLATION,
    MEAN_PICTURE,
    NEIGHBOURS,
    PROBES,
    PROJECTION,
)
from foldnorm.pipeline.commands.arguments import (
    add_cohort,
    add_device,
    add_num,
    add_out,
    add_overwrite,
    add_run,
    add_seed,
    add_selected_splits,
    positive,
)
from foldnorm.preprocessing.core.counts import counted

if TYPE_CHECKING:
    from foldnorm.pipeline.latent.space import LatentSpace

HELP = "analyse a latent space: clusters, probes, mean brain, dimensions"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "analysis", choices=tuple(ANALYSES), metavar="ANALYSIS", help="analysis to make, see above"
    )
    add_run(parser)
    add_cohort(parser)
    add_out(parser)
    add_selected_splits(parser)
    parser.add_argument(
        "--max-clusters", type=positive, default=5, help="largest number of clusters (default: 5)"
    )
    parser.add_argument(
        "--columns",
        nargs="+",
        default=["hemi"],
        help="columns to probe; NAME:category for numbers that are names (default: hemi)",
    )
    parser.add_argument(
        "--fold-table",
        type=Path,
        metavar="FILE",
        help="folds.tsv of foldnorm folds, or of a cohort: surface_mm2, bottom_mm, depth_mm, "
        "voxels, size, each also as surface_mm2@SULCUS, can be probed then",
    )
    parser.add_argument("--brain", help="brain to begin from: a participant, or participant_hemi-L")
    parser.add_argument("--to", metavar="BRAIN", help="brain at which the path ends")
    parser.add_argument(
        "--path-steps",
        type=positive,
        default=8,
        help="number of steps from --brain to --to (default: 8)",
    )
    parser.add_argument(
        "--spherical",
        action="store_true",
        help="interpolate along the sphere, not the straight line",
    )
    add_num(parser, 5, "number of neighbours, or of dimensions shown")
    parser.add_argument(
        "--dimensions",
        type=positive,
        default=200,
        help="number of dimensions to measure (default: 200)",
    )
    parser.add_argument(
        "--n-brains",
        type=positive,
        default=20,
        help="number of brains to rank dimensions by (default: 20)",
    )
    parser.add_argument(
        "--reduction",
        choices=("pca", "tsne", "umap"),
        default="pca",
        help="method of the projection (default: pca)",
    )
    parser.add_argument(
        "--components",
        type=int,
        choices=(2, 3),
        default=2,
        help="number of components of the projection (default: 2)",
    )
    parser.add_argument(
        "--project",
        nargs="+",
        type=Path,
        default=[],
        metavar="COHORT",
        help="other cohorts to project",
    )
    parser.add_argument(
        "--colour-by",
        nargs="+",
        type=Path,
        default=[],
        metavar="FOLDER",
        help="colour brains by scores, of folders of these, or by sizes of sulci, of folders that "
        "label-sulci wrote or of a cohort whose folds have names",
    )
    add_seed(parser)
    add_device(parser)
    add_overwrite(parser)


def run(arguments: argparse.Namespace) -> int:
    """Run the command."""
    from foldnorm.pipeline.commands.arguments import refuse_existing
    from foldnorm.pipeline.commands.outcome import conclude_batch
    from foldnorm.pipeline.latent import outputs
    from foldnorm.pipeline.latent.space import LatentSpace

    analyse, written = ANALYSES[arguments.analysis]
    refuse_existing(arguments.out / written, arguments.overwrite)
    subject = arguments.run_folder, arguments.cohort, arguments.split
    outputs.check_same_subject(arguments.out, *subject)
    space = LatentSpace.open(*subject, arguments.device)
    others = [
        LatentSpace.open(arguments.run_folder, folder, [], arguments.device)
        for folder in (arguments.project if arguments.analysis == "projection" else [])
    ]
    said = analyse(space, arguments, *others)
    outputs.write_sidecar(space, arguments.out, arguments.run_folder, arguments.split)
    spaces = [space, *others]
    failed = [problem for own in spaces for problem in own.failed]
    return conclude_batch(arguments, sum(len(own.codes) for own in spaces), failed, said)


def _clusters(space: "LatentSpace", arguments: argparse.Namespace) -> str:
    from foldnorm.pipeline.latent.clusters import find_clusters
    from foldnorm.pipeline.latent.outputs import write_clusters

    found = find_clusters(space.codes, arguments.max_clusters, seed=arguments.seed)
    write_clusters(space, found, arguments.out)
    return found.sentence


def _probe(space: "LatentSpace", arguments: argparse.Namespace) -> str:
    from foldnorm.pipeline.latent.morphometry import with_morphometry
    from foldnorm.pipeline.latent.outputs import write_probes
    from foldnorm.pipeline.latent.probes import probe
    from foldnorm.preprocessing.core.files import read_tsv

    rows: Sequence[Mapping[str, str]] = space.rows
    if arguments.fold_table is not None:
        rows = with_morphometry(rows, read_tsv(arguments.fold_table), arguments.columns)
    probes = [probe(space.codes, rows, column, seed=arguments.seed) for column in arguments.columns]
    write_probes(space, probes, arguments.out)
    return "\n".join(found.sentence for found in probes)


def _mean(space: "LatentSpace", arguments: argparse.Namespace) -> str:
    from foldnorm.pipeline.latent.mean_brain import mean_brain
    from foldnorm.pipeline.latent.outputs import write_mean

    write_mean(space, mean_brain(space), arguments.out)
    return f"mean of {counted(len(space.codes), 'brain')}: {arguments.out}"


def _neighbours(space: "LatentSpace", arguments: argparse.Namespace) -> str:
    from foldnorm.pipeline.latent.neighbours import nearest
    from foldnorm.pipeline.latent.outputs import write_neighbours

    place = space.index_of(_given(arguments, "brain"))
    found = nearest(space, place, arguments.num)
    write_neighbours(space, place, found, arguments.out)
    return "\n".join(f"{row['key']}  {row['distance']:.4g}" for row in found)


def _interpolate(space: "LatentSpace", arguments: argparse.Namespace) -> str:
    from foldnorm.pipeline.latent.interpolation import interpolate
    from foldnorm.pipeline.latent.outputs import write_interpolation

    ends = space.index_of(_given(arguments, "brain")), space.index_of(_given(arguments, "to"))
    path: Literal["straight", "spherical"] = "spherical" if arguments.spherical else "straight"
    first, second = (space.codes[end] for end in ends)
    codes = interpolate(first, second, arguments.path_steps, path)
    write_interpolation(space, ends, codes, path, arguments.out)
    return f"{counted(arguments.path_steps, 'step')}: {arguments.out}"


def _given(arguments: argparse.Namespace, name: str) -> str:
    from foldnorm.preprocessing.core.errors import InputError

    value = getattr(arguments, name)
    if value is None:
        raise InputError(f"latent {arguments.analysis} needs --{name}")
    return str(value)


def _dimensions(space: "LatentSpace", arguments: argparse.Namespace) -> str:
    import numpy as np

    from foldnorm.pipeline.latent.dimensions import rank_dimensions, voxels_moved
    from foldnorm.pipeline.latent.outputs import write_dimensions
    from foldnorm.preprocessing.core.errors import InputError

    if space.cohort.holds_images:
        raise InputError(
            "latent dimensions: they are ranked by the nats of classes, which images have none of: "
            f"{space.cohort.folder}"
        )
    ranking = rank_dimensions(
        space, measured=arguments.dimensions, brains=arguments.n_brains, seed=arguments.seed
    )
    top = ranking.order[: arguments.num].tolist()
    moved = {n: voxels_moved(space, n, brains=arguments.n_brains).numpy() for n in top}
    write_dimensions(space, ranking, moved, arguments.out)
    return "\n".join(
        f"dimension {n}  {ranking.effect[n]:.3g} nats a voxel"
        for n in ranking.order[: arguments.num]
        if not np.isnan(ranking.effect[n])
    )


def _projection(space: "LatentSpace", arguments: argparse.Namespace, *others: "LatentSpace") -> str:
    import numpy as np

    from foldnorm.pipeline.latent.outputs import Placed, write_projection
    from foldnorm.pipeline.latent.projection import departures, fit_projection
    from foldnorm.preprocessing.core.errors import InputError

    spaces = [space, *others]
    figures = _figures_of([s.cohort.folder for s in spaces], arguments.colour_by)
    training = space.training
    if not training.any():
        raise InputError(
            "a projection is fitted on brains that the model was trained on, got none of them; "
            f"give its training cohort, and this one to --project: {space.cohort.folder}"
        )
    projection = fit_projection(
        space.codes[training],
        arguments.reduction,
        components=arguments.components,
        seed=arguments.seed,
    )
    points = np.empty((len(space.codes), arguments.components))
    points[training] = projection.fitted
    if not training.all():
        points[~training] = projection.place(space.codes[~training])
    groups = [Placed(space, points, training, figures[0])]
    for other, own in zip(others, figures[1:], strict=True):
        nobody = np.zeros(len(other.codes), dtype=bool)
        groups.append(Placed(other, projection.place(other.codes), nobody, own))
    apart = []
    if not training.all():
        named = [(other.cohort.folder.name, other.codes) for other in others]
        apart = departures(space.codes[training], space.codes[~training], named)
    write_projection(groups, projection, apart, arguments.out)
    brains = sum(len(s.codes) for s in spaces)
    placed = f"{counted(brains, 'brain')}, {training.sum()} of them fitted: {arguments.out}"
    return "\n".join([placed, *(d.sentence for d in apart)])


def _figures_of(cohorts: list[Path], folders: list[Path]) -> list[list[Path]]:
    """Sort folders of figures by the cohort whose brains they are of."""
    from foldnorm.pipeline.latent.figures_of_brains import cohort_of
    from foldnorm.preprocessing.core.errors import InputError

    places = [cohort.resolve() for cohort in cohorts]
    found: list[list[Path]] = [[] for _ in cohorts]
    for folder in folders:
        own = cohort_of(folder)
        if own not in places:
            raise InputError(f"figures of another cohort ({own}): {folder}")
        found[places.index(own)].append(folder)
    return found


# What each does, and which file tells that it was done.
ANALYSES = {
    "clusters": (_clusters, CLUSTERS),
    "probe": (_probe, PROBES),
    "mean": (_mean, MEAN_PICTURE),
    "neighbours": (_neighbours, NEIGHBOURS),
    "interpolate": (_interpolate, INTERPOLATION),
    "dimensions": (_dimensions, DIMENSIONS),
    "projection": (_projection, PROJECTION),
}
