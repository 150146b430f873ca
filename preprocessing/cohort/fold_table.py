"""The morphometry table: one row a fold, from the fold graphs of a source."""

from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foldnorm.preprocessing.core.errors import InputError
from foldnorm.preprocessing.core.files import write_json, write_tsv
from foldnorm.preprocessing.core.isolation import isolated_map
from foldnorm.preprocessing.core.problems import Problem
from foldnorm.preprocessing.io.fold_graph import GraphFold, Points, read_fold_graph
from foldnorm.preprocessing.io.fold_sidecar import FoldSidecar
from foldnorm.preprocessing.io.source_volume import SourceVolume, vocabulary_of
from foldnorm.preprocessing.io.sources import Findings
from foldnorm.preprocessing.io.volumes import read_labels
from foldnorm.preprocessing.spatial.space import Matrix, graph_to_mni, voxel_to_mni

TABLE, SIDECAR = "folds.tsv", "folds.json"
COLUMNS = {
    "participant_id": "",
    "hemi": "L or R",
    "fold": "number within the graph, from 1",
    "name": "sulcus: by hand where the graph has such a name, else by automatic recognition",
    "name_automatic": "sulcus by automatic recognition",
    "voxels": "simple surface, bottom and other voxels, on the grid of the T1",
    "surface_mm2": "area in native mm²: of the fold's mesh where Morphologist measured it, of its "
    "voxels (times their mean face) where foldnorm made the skeleton",
    "depth_mm": "geodesic depth below the hull at its deepest, native mm",
    "bottom_mm": "length of the bottom line, native mm: its voxels times their mean side",
    **{
        f"{axis}_{which}": f"{what}, MNI mm"
        for which, what in (
            ("min", "lower corner of the box that holds its voxel centres"),
            ("max", "upper corner of that box"),
            ("centre", "mean of its simple surface"),
        )
        for axis in "xyz"
    },
}
GYRI_COLUMNS = {
    "name": "sulcus: by gyri; where there is a graph, by hand or else by automatic recognition",
    "name_automatic": "sulcus by gyri, or by automatic recognition",
    "confidence": "share of the votes of its voxels that are for its name, or for what most see "
    "if it has none",
    "between": "the two gyri on its sides, or the one that it lies in",
}


def write_fold_table(
    found: Findings[SourceVolume], out: Path, *, n_procs: int = 1
) -> tuple[int, list[Problem]]:
    """Write ``folds.tsv`` and ``folds.json``.

    Args:
        found: volumes whose companions name a graph, and perhaps a ``.trm`` to MNI space.
        out: folder to write to.
        n_procs: processes.

    Returns:
        Number of folds, and the hemispheres that could not be read.
    """
    volumes = found.items
    outcomes = list(isolated_map(fold_rows, volumes, n_procs, in_order=True))
    rows = [row for outcome in outcomes if not outcome.reason for row in outcome.result]
    problems = [Problem(o.item.key, o.reason) for o in outcomes if o.reason]
    by_gyri = any("between" in row for row in rows)
    columns = COLUMNS | (GYRI_COLUMNS if by_gyri else {})
    write_tsv(out / TABLE, rows, tuple(columns))
    vocabularies = {v.key: name for v in volumes if (name := vocabulary_of(v))}
    graphs = {v.key: str(v.companions.graph) for v in volumes if v.companions.graph}
    write_json(
        out / SIDECAR,
        {
            "Columns": columns,
            "Graphs": graphs,
            **({"Vocabularies": vocabularies} if vocabularies else {}),
            "Sources": found.record(),
            "Version": version("foldnorm"),
        },
    )
    return len(rows), problems


def fold_rows(volume: SourceVolume) -> list[dict[str, Any]]:
    """Rows of one hemisphere.

    Raises:
        InputError: no graph, or one that cannot be read.
    """
    graph_path, transform = volume.companions.graph, volume.companions.transform
    if graph_path is None:
        return _rows_of_sidecar(volume)
    graph = read_fold_graph(graph_path)
    to_mni = graph_to_mni(graph, transform, volume.path, assume=volume.assume)
    return [
        {
            "participant_id": volume.participant,
            "hemi": volume.hemi,
            "fold": fold.number,
            "name": fold.sulcus,
            "name_automatic": fold.label,
            "voxels": sum(map(len, (fold.surface, fold.bottom, fold.other))),
            "surface_mm2": fold.attributes.get("surface_area"),
            "depth_mm": fold.attributes.get("maxdepth"),
            "bottom_mm": len(fold.bottom) * float(np.prod(graph.voxel_size)) ** (1 / 3),
            **_place(fold, to_mni),
        }
        for fold in graph.folds
    ]


def _rows_of_sidecar(volume: SourceVolume) -> list[dict[str, Any]]:
    """Rows of a skeleton that foldnorm made: beside its fold labels, in native millimetres."""
    labelled = volume.companions.folds
    sidecar = None if labelled is None else FoldSidecar.beside(labelled)
    if sidecar is None:
        raise InputError(f"no fold graph beside it: {volume.path}")
    to_mni, transform = None, volume.companions.transform
    if transform is not None:
        labels = read_labels(volume.path, assume=volume.assume)
        i, j, k = labels.data.shape
        to_mni = voxel_to_mni(transform, (i, j, k), labels.affine, labels.voxel_size)
        to_mni = to_mni @ np.linalg.inv(labels.affine)
    rows = []
    for fold in sidecar.folds:
        row = {"participant_id": volume.participant, "hemi": volume.hemi, "fold": fold["fold"]}
        row |= {key: fold[key] for key in ("voxels", "surface_mm2", "depth_mm", "bottom_mm")}
        if sidecar.vocabulary:
            row |= {"name": fold["name"], "name_automatic": fold["name"]}
            row |= {"confidence": fold["confidence"], "between": ", ".join(fold["between"])}
        if to_mni is not None:
            corners = np.array([fold["min"], fold["max"]])
            eight = np.where(np.array(list(np.ndindex(2, 2, 2))), corners[1], corners[0])
            ends = np.concatenate([eight, [fold["centre"]]]) @ to_mni[:3, :3].T + to_mni[:3, 3]
            named = {"min": ends[:8].min(axis=0), "max": ends[:8].max(axis=0), "centre": ends[8]}
            row |= {
                f"{axis}_{which}": round(float(value[n]), 2)
                for which, value in named.items()
                for n, axis in enumerate("xyz")
            }
        rows.append(row)
    return rows


def _place(fold: GraphFold, to_mni: Matrix) -> dict[str, float]:
    """Box and centre in MNI mm; empty for a fold without voxels."""
    points = _in_mni(np.concatenate([fold.surface, fold.bottom, fold.other]), to_mni)
    if not len(points):
        return {}
    surface = _in_mni(fold.surface, to_mni) if len(fold.surface) else points
    corners = {"min": points.min(axis=0), "max": points.max(axis=0), "centre": surface.mean(axis=0)}
    return {
        f"{axis}_{which}": round(float(corner[n]), 2)
        for which, corner in corners.items()
        for n, axis in enumerate("xyz")
    }


def _in_mni(points: Points, to_mni: Matrix) -> NDArray[np.float64]:
    """MNI mm of voxels in AIMS order, (n, 3)."""
    return points @ to_mni[:3, :3].T + to_mni[:3, 3]
