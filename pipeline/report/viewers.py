"""Volumes and points of the report that can be turned, as data for NiiVue and Plotly.

Everything is in the page: no file beside it, no address outside.
"""

from collections.abc import Iterable, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import plotly.offline
from numpy.typing import NDArray

from foldnorm.pipeline.artifacts import (
    DIMENSION_MOVED,
    DIMENSION_SWEEP,
    DIMENSION_VALUES,
    DIMENSIONS,
    INTERPOLATION,
    INTERPOLATION_VOLUME,
    LATENT_SIDECAR,
    MEAN,
    MEAN_SHARE,
    NEIGHBOUR_VOLUME,
    NEIGHBOURS,
    PROJECTION,
    PROJECTION_SIDECAR,
    PROJECTION_SLICES,
    SULCUS_SIZE,
    SWEEP_STEPS,
    TILES,
)
from foldnorm.pipeline.report.figures import COLOURS, N_BRAINS
from foldnorm.pipeline.report.layers import (
    Layer,
    Step,
    in_script,
    labels_layer,
    share_layer,
    viewer,
)
from foldnorm.preprocessing.cohort.cohort import Cohort, row_key
from foldnorm.preprocessing.cohort.pictures import class_colours, inline_png
from foldnorm.preprocessing.core.errors import InputError
from foldnorm.preprocessing.core.files import number, read_json, read_tsv, whole_number
from foldnorm.preprocessing.io.volumes import nifti_bytes, read_map

# Of all volumes of a projection that the page holds, base64; brains beyond it show a slice only.
VOLUME_BUDGET = 8_000_000
SLICES_BUDGET = 8_000_000
METHOD_NAMES = {"pca": "principal component", "tsne": "t-SNE", "umap": "UMAP"}
NOT_TO_COLOUR_BY = ("brain", "index", "x", "y", "z")


def cohort_viewer(cohort: Cohort, indices: NDArray[np.int64]) -> dict[str, Any]:
    """Build the viewer of the first of these volumes of a cohort."""
    steps = [
        {"name": row_key(cohort.rows[n]), "layers": [_brain_layer(cohort, n)]}
        for n in indices[:N_BRAINS].tolist()
    ]
    return viewer({"": steps}, cohort.scheme.names)


def latent_viewers(path: Path) -> dict[str, dict[str, Any]]:
    """Figures of volumes of a folder of latent analyses, by analysis."""
    names = read_json(path / LATENT_SIDECAR)["classes"]
    found = {}
    if (path / MEAN).is_file():
        likely = share_layer(*read_map(path / MEAN_SHARE.of(label=names[-1])))
        layers = [labels_layer((path / MEAN).read_bytes()), likely]
        found["mean"] = viewer({"": [{"name": "mean", "layers": layers}]}, names)
    if (path / NEIGHBOURS).is_file():
        brains = ["the brain", *(row["brain"] for row in read_tsv(path / NEIGHBOURS))]
        found["neighbours"] = viewer({"": _steps(path, NEIGHBOUR_VOLUME.pattern, brains)}, names)
    if (path / INTERPOLATION).is_file():
        count = read_json(path / INTERPOLATION)["steps"]
        steps = _steps(
            path, INTERPOLATION_VOLUME.pattern, [f"step {n} of {count}" for n in range(count + 1)]
        )
        found["interpolation"] = viewer({"": steps}, names)
    if (path / DIMENSIONS).is_file():
        found["dimensions"] = viewer(*_sweeps(path, names))
    return found


def _sweeps(
    path: Path, names: Sequence[str]
) -> tuple[dict[str, list[Step]], Sequence[str], dict[str, list[int]]]:
    """Arguments of `viewer`: steps by dimension, in the order of the ranking."""
    values = read_tsv(path / DIMENSION_VALUES)
    groups, at = {}, {}
    for dimension in list(values[0])[1:]:
        own = [number(row, dimension) for row in values]
        places = np.linspace(min(own), max(own), SWEEP_STEPS)
        moved, affine = read_map(path / DIMENSION_MOVED.of(dimension=int(dimension)))
        layer = share_layer(moved, affine)
        titles = [f"z = {place:.2f}" for place in places]
        steps = _steps(path, DIMENSION_SWEEP.of(dimension=int(dimension), n="*"), titles)
        for step in steps:
            step["layers"].append(layer)
        name = f"dimension {dimension}"
        groups[name] = steps
        at[name] = [int(n) for n in np.unravel_index(int(moved.argmax()), moved.shape)]
    return groups, names, at


def _steps(path: Path, pattern: str, titles: Iterable[str]) -> list[Step]:
    found = sorted(path.glob(pattern))
    return [
        {"name": title, "layers": [labels_layer(file.read_bytes())]}
        for title, file in zip(titles, found, strict=False)
    ]


def projection_points(path: Path) -> dict[str, Any]:
    """Build the values of a figure of points: ``json``, ``volumes``, columns to colour by."""
    rows, sidecar = (
        read_tsv(path / PROJECTION),
        read_json(path / PROJECTION_SIDECAR),
    )
    columns = {name: _column([row[name] for row in rows]) for name in rows[0]}
    # A column that says the same of all, or of each something else, colours nothing.
    useful = [
        name
        for name, values in columns.items()
        if name not in NOT_TO_COLOUR_BY
        and len(set(values)) > 1
        and (_is_number(values) or len(set(values)) <= len(COLOURS))
    ]
    shown = list(dict.fromkeys(["role", *useful]))
    slices = (path / PROJECTION_SLICES).read_bytes()
    volumes, tile, classes = _volumes_of(rows, sidecar["cohorts"])
    method = METHOD_NAMES[sidecar["method"]]
    return {
        "colours": [name for name in shown if not name.startswith(SULCUS_SIZE)],
        "sulci": [name.removeprefix(SULCUS_SIZE) for name in shown if name.startswith(SULCUS_SIZE)],
        "brains": len(rows),
        "with_volume": len(volumes),
        "volumes": in_script(volumes),
        "json": in_script(
            {
                "columns": {
                    name: columns[name]
                    for name in dict.fromkeys(
                        [*shown, *(n for n in ("brain", "cohort", "x", "y", "z") if n in columns)]
                    )
                },
                "axes": [f"{method} {n}" for n in (1, 2, 3)],
                "colours": COLOURS,
                "slices": inline_png(slices) if tile and len(slices) < SLICES_BUDGET else None,
                "tile": tile,
                "palette": class_colours(classes).tolist(),
            }
        ),
    }


def _column(values: Sequence[str]) -> list[float | str | None]:
    """Numbers where all that is known are; None for what is not."""
    try:
        return [float(value) if value else None for value in values]
    except ValueError:
        return [value or None for value in values]


def _is_number(values: Sequence[float | str | None]) -> bool:
    return all(value is None or isinstance(value, float) for value in values)


def _volumes_of(
    rows: Sequence[Mapping[str, str]], folders: Mapping[str, str]
) -> tuple[dict[int, str], list[int], int]:
    """Volumes of as many brains as fit, evenly spread; sides of a slice; classes.

    Cohorts that are no longer where they were have none, nor do images: their slice is all.
    """
    cohorts = {}
    for name, folder in folders.items():
        try:
            cohorts[name] = Cohort.open(Path(folder))
        except InputError:
            continue
    if not cohorts:
        return {}, [], 3
    first = next(iter(cohorts.values()))
    if first.holds_images:  # rows go downwards
        return {}, [first.shape[-1], first.shape[0], TILES], 0
    at_hand = [n for n, row in enumerate(rows) if row["cohort"] in cohorts]
    count = min(len(at_hand), VOLUME_BUDGET // len(_brain_layer(first, 0)["data"]))
    volumes = {}
    for place in np.linspace(0, len(at_hand) - 1, count).round().astype(int).tolist():
        n = at_hand[place]
        cohort = cohorts[rows[n]["cohort"]]
        volumes[n] = _brain_layer(cohort, whole_number(rows[n], "index"))["data"]
    sides = [first.shape[0], first.shape[2], TILES]
    return volumes, sides, first.scheme.n_classes


def _brain_layer(cohort: Cohort, index: int) -> Layer:
    volume: NDArray[np.uint8] = cohort.volumes[index]
    return labels_layer(nifti_bytes(volume, cohort.affine))


def static(name: str) -> str:
    """Text of one of our scripts, or of NiiVue's."""
    return (files("foldnorm.pipeline") / "static" / name).read_text(encoding="utf-8")


def plotly_script() -> str:
    """Return Plotly's script."""
    return str(plotly.offline.get_plotlyjs())
