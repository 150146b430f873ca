"""Files of latent analyses: one folder holds those of any analysis, and the report reads it."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foldnorm.pipeline.artifacts import (
    CLUSTERED,
    CLUSTERS,
    CLUSTERS_SIDECAR,
    DIMENSION_MOVED,
    DIMENSION_SWEEP,
    DIMENSION_VALUES,
    DIMENSIONS,
    DIMENSIONS_PICTURE,
    INTERPOLATION,
    INTERPOLATION_ANIMATION,
    INTERPOLATION_PICTURE,
    INTERPOLATION_SURFACE,
    INTERPOLATION_VOLUME,
    LATENT_SIDECAR,
    MEAN,
    MEAN_PICTURE,
    MEAN_SHARE,
    MEAN_SURFACE,
    NEIGHBOUR_VOLUME,
    NEIGHBOURS,
    NEIGHBOURS_PICTURE,
    PROBED,
    PROBES,
    PROJECTION,
    PROJECTION_SIDECAR,
    PROJECTION_SLICES,
    SWEEP_STEPS,
    TILES,
)
from foldnorm.pipeline.latent.clusters import ClusterAnalysis
from foldnorm.pipeline.latent.dimensions import Ranking, sweep
from foldnorm.pipeline.latent.figures_of_brains import by_brain, figures_by_brain
from foldnorm.pipeline.latent.mean_brain import MeanBrain
from foldnorm.pipeline.latent.probes import Probe
from foldnorm.pipeline.latent.projection import Departure, Projection
from foldnorm.pipeline.latent.rendering import animation, shaded_surface
from foldnorm.pipeline.latent.space import Codes, LatentSpace
from foldnorm.pipeline.latent.surfaces import surface, write_surface
from foldnorm.preprocessing.alteration.alteration import DELETIONS
from foldnorm.preprocessing.cohort.cohort import Cohort
from foldnorm.preprocessing.cohort.images import write_image
from foldnorm.preprocessing.cohort.pictures import (
    colour_slice,
    contact_sheet,
    grey_slices,
    image_slices,
    middle_slices,
    png,
    volume_slices,
)
from foldnorm.preprocessing.core.errors import InputError
from foldnorm.preprocessing.core.files import (
    number,
    read_json,
    write_bytes,
    write_json,
    write_tsv,
)
from foldnorm.preprocessing.io.volumes import write_labels, write_map

NOT_A_BRAIN = "foldnorm DECODED, not a brain"


def write_sidecar(space: LatentSpace, out: Path, run_folder: Path, splits: Sequence[str]) -> None:
    """Write ``latent.json``: of which model and brains the analyses are."""
    write_json(
        out / LATENT_SIDECAR,
        {
            **_subject(run_folder, space.cohort.folder, splits),
            "phantom": space.cohort.is_phantom,
            "classes": [] if space.cohort.holds_images else list(space.cohort.scheme.names),
            "brains": len(space.codes),
            "latent_dim": space.codes.shape[1],
        },
    )


def check_same_subject(
    out: Path, run_folder: Path, cohort_folder: Path, splits: Sequence[str]
) -> None:
    """Refuse a folder that holds analyses of another model or of other brains.

    Raises:
        InputError: with what it holds.
    """
    if not (out / LATENT_SIDECAR).is_file():
        return
    known = read_json(out / LATENT_SIDECAR)
    differing = [
        f"{key} {known.get(key)}"
        for key, value in _subject(run_folder, cohort_folder, splits).items()
        if known.get(key) != value
    ]
    if differing:
        raise InputError(
            f"holds analyses of other brains or of another model ({', '.join(differing)}); give "
            f"another OUT: {out}"
        )


def _subject(run_folder: Path, cohort_folder: Path, splits: Sequence[str]) -> dict[str, Any]:
    return {
        "run": str(run_folder.resolve()),
        "cohort": str(cohort_folder.resolve()),
        "splits": list(splits) or ["train", "validation", "test"],
    }


def write_clusters(space: LatentSpace, found: ClusterAnalysis, out: Path) -> None:
    """Write ``clusters.tsv`` (a row a k), ``clusters_brains.tsv``, ``clusters.json``."""
    rows = [clustering.as_row() for clustering in found.clusterings]
    write_tsv(out / CLUSTERS, rows, tuple(CLUSTERS.columns))
    brains = []
    for n, row in enumerate(space.rows):
        figures: dict[str, float] = {}
        for c in found.clusterings[1:]:
            figures[f"cluster_{c.k}"] = int(c.labels[n])
            figures[f"silhouette_{c.k}"] = float(c.silhouettes[n])
        brains.append({**_named(row), **figures})
    write_tsv(out / CLUSTERED, brains, list(brains[0]))
    write_json(
        out / CLUSTERS_SIDECAR,
        {
            "sentence": found.sentence,
            "best_k": found.best.k,
            "gap_k": found.gap_k,
            "p_one_cloud": found.p_one_cloud,
        },
    )


def write_probes(space: LatentSpace, probes: Sequence[Probe], out: Path) -> None:
    """Write ``probes.tsv`` (a row a column) and ``probes_brains.tsv`` (held-out predictions)."""
    names = tuple(PROBES.columns)
    write_tsv(out / PROBES, [{n: getattr(p, n) for n in names} for p in probes], names)
    brains = [
        {
            "column": p.column,
            **_named(space.rows[index]),
            "predicted": float(value),
        }
        for p in probes
        for index, value in zip(p.indices, p.predictions, strict=True)
    ]
    write_tsv(out / PROBED, brains, list(brains[0]))


def _named(row: Mapping[str, str]) -> dict[str, str]:
    """Return the columns of a row that identify its brain or image."""
    return {name: row[name] for name in ("participant_id", "hemi", "image") if name in row}


def write_neighbours(
    space: LatentSpace, index: int, found: Sequence[Mapping[str, Any]], out: Path
) -> None:
    """Write ``neighbours.tsv``, and a picture: the brain, then its neighbours, a row each."""
    rows = [
        {"rank": n, "brain": f["key"], "distance": f["distance"], "percentile": f["percentile"]}
        for n, f in enumerate(found, start=1)
    ]
    write_tsv(out / NEIGHBOURS, rows, tuple(NEIGHBOURS.columns))
    indices = [index, *(f["index"] for f in found)]
    volumes = [brain.volume for brain in space.cohort.brains(space.indices[indices])]
    for n, volume in enumerate(volumes):
        row = space.rows[indices[n]]
        _write_volume(space.cohort, out / NEIGHBOUR_VOLUME.of(n=n), volume, row=row)
    _write_picture(space, volumes, out / NEIGHBOURS_PICTURE)


def write_interpolation(
    space: LatentSpace, ends: tuple[int, int], codes: Codes, path: str, out: Path
) -> None:
    """Write each step as a label volume and a surface, a picture, an animation of the surface.

    Of images, each is one, and they are what moves. A conditioned model is told what the first
    brain is, all the way.
    """
    told, cohort = space.rows[ends[0]], space.cohort
    volumes, frames = [], []
    for n, decoded in enumerate(space.decode(codes, told)):
        volumes.append(space.volume_of(decoded))
        path_of_step = out / INTERPOLATION_VOLUME.of(n=n)
        _write_volume(cohort, path_of_step, volumes[-1], description=NOT_A_BRAIN)
        if cohort.holds_images:
            frames.append(contact_sheet([image_slices(volumes[-1])]))
            continue
        if (decoded[-1] > 0.5).any():
            write_surface(out / INTERPOLATION_SURFACE.of(n=n), *surface(decoded[-1], cohort.affine))
        frames.append(shaded_surface(decoded[-1]))
    _write_picture(space, volumes, out / INTERPOLATION_PICTURE)
    write_bytes(out / INTERPOLATION_ANIMATION, animation(frames))
    first, second = (space.keys[n] for n in ends)
    write_json(
        out / INTERPOLATION, {"from": first, "to": second, "path": path, "steps": len(codes) - 1}
    )


def write_mean(space: LatentSpace, found: MeanBrain, out: Path) -> None:
    """Write the decoded mean code, class probabilities and their surfaces, and a picture.

    Of images, the image of the mean code, and the mean of all reconstructions.
    """
    cohort = space.cohort
    if cohort.holds_images:
        (average,) = found.average
        _write_volume(cohort, out / MEAN, found.of_mean_code, description=NOT_A_BRAIN)
        _write_volume(cohort, out / "mean", average, description=NOT_A_BRAIN)
        rows = [image_slices(found.of_mean_code), image_slices(average)]
        write_bytes(out / MEAN_PICTURE, png(contact_sheet(rows)))
        return
    affine, scheme = cohort.affine, cohort.scheme
    for name, field in zip(scheme.names, found.average, strict=True):
        write_map(out / MEAN_SHARE.of(label=name), field, affine, description=NOT_A_BRAIN)
        level = float(field.max()) / 2  # half of what the class reaches anywhere
        if field.min() < level:
            vertices, faces = surface(field, affine, level)
            for suffix in ("ply", "surf.gii"):
                path = out / MEAN_SURFACE.of(label=name, suffix=suffix)
                write_surface(path, vertices, faces)
    probability = grey_slices(found.average[-1])
    rows = [middle_slices(found.of_mean_code, scheme.n_classes), probability]
    _write_volume(cohort, out / MEAN, found.of_mean_code, description=NOT_A_BRAIN)
    write_bytes(out / MEAN_PICTURE, png(contact_sheet(rows)))


# What a projection says of each brain; a column of participants.tsv of that name is left out.
OF_PROJECTION = ("brain", "cohort", "index", "role", "x", "y", "z")


@dataclass(frozen=True)
class Placed:
    """Brains in a projection.

    Attributes:
        space: the brains.
        points: (N, 2 or 3) of them.
        fitted: (N,) whether the projection was fitted on each.
        figures: folders that have figures of that cohort's brains, see `figures_by_brain`.
    """

    space: LatentSpace
    points: NDArray[np.float64]
    fitted: NDArray[np.bool_]
    figures: Sequence[Path] = ()

    @property
    def rows(self) -> list[dict[str, Any]]:
        """A row a brain: where it lies, and all that is known of it."""
        cohort, names = self.space.cohort, ("x", "y", "z")
        deleted = by_brain(cohort.folder / DELETIONS, ("size",))
        figures = [figures_by_brain(folder) for folder in self.figures]
        rows = []
        for n, row in enumerate(self.space.rows):
            brain = (row["participant_id"], row["hemi"])
            rows.append(
                {
                    "brain": self.space.keys[n],
                    "cohort": cohort.folder.name,
                    "index": int(self.space.indices[n]),
                    "role": "fitted" if self.fitted[n] else "placed",
                    **{a: float(v) for a, v in zip(names, self.points[n], strict=False)},
                    **{k: v for k, v in row.items() if k not in OF_PROJECTION},
                    "deletion_size": number(deleted[brain], "size") if brain in deleted else 0.0,
                    **{k: v for table in figures for k, v in table.get(brain, {}).items()},
                }
            )
        return rows


def write_projection(
    groups: Sequence[Placed], projection: Projection, apart: Sequence[Departure], out: Path
) -> None:
    """Write ``projection.tsv``, its settings, and one slice of each brain.

    Args:
        groups: the brains, those of the training cohort first.
        projection: in which they lie.
        apart: how far groups lie from the training brains.
        out: folder.
    """
    rows = [row for group in groups for row in group.rows]
    write_tsv(out / PROJECTION, rows, list(dict.fromkeys(key for row in rows for key in row)))
    slices = []
    for group in groups:
        cohort = group.space.cohort
        for brain in cohort.brains(group.space.indices):
            views = volume_slices(cohort, brain.volume)
            slices.append(views[len(views) // 2])  # coronal, or the image itself
    tiles = [slices[n : n + TILES] for n in range(0, len(slices), TILES)]
    write_bytes(out / PROJECTION_SLICES, png(contact_sheet(tiles, scale=1)))
    write_json(
        out / PROJECTION_SIDECAR,
        {
            "method": projection.method,
            "fitted_on": len(projection.fitted),
            **projection.settings,
            "cohorts": {
                g.space.cohort.folder.name: str(g.space.cohort.folder.resolve()) for g in groups
            },
            "departures": [{**asdict(d), "sentence": d.sentence} for d in apart],
        },
    )


def write_dimensions(
    space: LatentSpace, ranking: Ranking, moved: Mapping[int, NDArray[np.float32]], out: Path
) -> None:
    """Write ``dimensions.tsv``, the voxels that some move, sweeps, and a picture of these.

    Args:
        space: the brains.
        ranking: of the dimensions that were looked at.
        moved: (I, J, K) by dimension, see `voxels_moved`; a row of the picture each: that map, and
            then the mean code with this dimension between its observed extremes. These and the
            brains' values of the dimension (``dimensions_brains.tsv``) are written too.
        out: folder.
    """
    rows = [
        {
            "rank": rank,
            "dimension": int(n),
            "effect": float(ranking.effect[n]),
            "predicted_effect": float(ranking.predicted_effect[n]),
            "variance": float(ranking.variance[n]),
        }
        for rank, n in enumerate(ranking.order, start=1)
    ]
    write_tsv(out / DIMENSIONS, rows, tuple(DIMENSIONS.columns))
    pictures = []
    for dimension, field in moved.items():
        path = out / DIMENSION_MOVED.of(dimension=dimension)
        write_map(path, field, space.cohort.affine, description=NOT_A_BRAIN)
        i, j, k = (int(n) for n in np.unravel_index(int(field.argmax()), field.shape))
        row = [grey_slices(field, (i, j, k))[1]]
        for n, probabilities in enumerate(space.decode(sweep(space, dimension, SWEEP_STEPS))):
            classes = probabilities.argmax(axis=0).astype(np.uint8)
            path = out / DIMENSION_SWEEP.of(dimension=dimension, n=n)
            write_labels(path, classes, space.cohort.affine, description=NOT_A_BRAIN)
            row.append(colour_slice(classes[:, j], space.cohort.scheme.n_classes))
        pictures.append(row)
    values = [
        {"brain": key, **{str(d): float(space.codes[n, d]) for d in moved}}
        for n, key in enumerate(space.keys)
    ]
    write_tsv(out / DIMENSION_VALUES, values, list(values[0]))
    write_bytes(out / DIMENSIONS_PICTURE, png(contact_sheet(pictures)))


def _write_picture(space: LatentSpace, volumes: Sequence[NDArray[Any]], path: Path) -> None:
    rows = [volume_slices(space.cohort, volume) for volume in volumes]
    if len(rows[0]) == 1:  # images side by side, slices of volumes below each other
        rows = [[picture for row in rows for picture in row]]
    write_bytes(path, png(contact_sheet(rows)))


def _write_volume(
    cohort: Cohort,
    path: Path,
    volume: NDArray[Any],
    description: str = "",
    row: Mapping[str, str] | None = None,
) -> None:
    """Write ``…_dseg.nii.gz``; of an image, what `write_image` does, without that ending.

    A brain of the cohort, of which a row tells, lies where it was.
    """
    if cohort.holds_images:
        stem = path.with_name(path.name.removesuffix("_dseg.nii.gz"))
        write_image(stem, volume, int(cohort.preparation["intensities"]["bits"]))
        return
    affine = cohort.affine if row is None else cohort.affine_of(row)
    write_labels(path, volume, affine, description=description)
