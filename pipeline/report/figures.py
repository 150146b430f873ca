"""Figures of the report, as text that an HTML page holds: SVG for curves, PNG for slices."""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from cycler import cycler
from matplotlib.figure import Figure
from numpy.typing import NDArray

from foldnorm.pipeline.metrics.detection import roc_curve
from foldnorm.pipeline.runs.metrics_log import MetricsLog
from foldnorm.preprocessing.cohort.cohort import Cohort
from foldnorm.preprocessing.cohort.images import CLASS
from foldnorm.preprocessing.cohort.pictures import (
    contact_sheet,
    inline_png,
    png,
    volume_slices,
)
from foldnorm.preprocessing.core.files import number, whole_number

INK = "#7a818c"  # reads on light and on dark ground
COLOURS = ("#2f6db5", "#d9772a", "#2b9a77", "#b4345a", "#7d5fb2", "#8a8f98", "#b39b2c", "#4aa3c7")
N_BRAINS = 6
N_IMAGES = 12  # of a class
LOG_RATIO = 30  # of the ends of an axis, above which it is logarithmic
OTHER_CURVES = ("validation/sulcus_dice", "validation/restored", "validation/invented",
                "validation/psnr", "validation/ssim")  # fmt: skip
RECONSTRUCTION_CURVES = ("dice", "precision", "recall", "volume_ratio", "opening_excess")
STYLE: Any = {  # Any: matplotlib types the keys as one literal of three hundred
    "svg.hashsalt": "foldnorm",  # the same figure, the same bytes
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "axes.prop_cycle": cycler(color=COLOURS),
}


def cohort_slices(cohort: Cohort, indices: NDArray[np.int64]) -> str:
    """Three slices of the first of these volumes, two volumes a row."""
    slices = [
        volume_slices(cohort, np.array(cohort.volumes[n])) for n in indices[:N_BRAINS].tolist()
    ]
    rows = [[*a, *b] for a, b in zip(slices[::2], [*slices[1::2], []], strict=False)]
    return inline_png(png(contact_sheet(rows, scale=_scale(cohort.shape))))


def first_images(cohort: Cohort, classes: Sequence[str]) -> str:
    """First images of a cohort of images, of each class in a row of its own."""
    rows = []
    for name in classes or [""]:
        own = [n for n, row in enumerate(cohort.rows) if row.get(CLASS, "") == name]
        images = [cohort.to_model_input(np.array(cohort.volumes[n])) for n in own[:N_IMAGES]]
        rows.append([picture for image in images for picture in volume_slices(cohort, image)])
    return inline_png(png(contact_sheet(rows, scale=_scale(cohort.shape))))


def class_counts(cohort: Cohort, shares: Mapping[int, float]) -> str:
    """Histogram of the share of the highest classes in these volumes, given by index, by split."""
    scheme = cohort.scheme
    with matplotlib.rc_context(STYLE):
        figure, axes = subplots(figsize=(5, 2.6))
        for split in ("train", "validation", "test"):
            own = [100 * s for i, s in shares.items() if cohort.rows[i]["split"] == split]
            if own:
                axes.hist(own, bins=20, alpha=0.6, label=f"{split} ({len(own)})")
        axes.set_xlabel(f"{' + '.join(scheme.names[scheme.void + 1 :])} voxels, % of the box")
        axes.set_ylabel("volumes")
        axes.legend()
        return _svg(figure)


def training_curves(metrics: MetricsLog) -> str:
    """Losses on the left, critic or accuracy in the middle if any, validation on the right."""
    names = metrics.columns
    losses = ("cross_entropy", "squared_error", "separation/separation", "validation/loss")
    entropies = [n for n in names if any(loss in n for loss in losses)]
    critic = [n for n in names if n.startswith("critic") and ("difference" in n or "penalty" in n)]
    translates = any(n.startswith("validation/dice_") for n in names)
    shown = [n for n in names if n.startswith("validation/") and "dice" in n]
    others = [n for n in OTHER_CURVES if n in names]
    if not translates:
        shown = others or [
            f"validation/{n}" for n in RECONSTRUCTION_CURVES if f"validation/{n}" in names
        ]
    accuracy = [n for n in names if n.endswith("/accuracy")]
    panels = [
        ("loss", entropies), ("critic", critic), ("accuracy", accuracy), ("validation", shown),
    ]  # fmt: skip
    panels = [(title, columns) for title, columns in panels if columns]
    with matplotlib.rc_context(STYLE):
        figure, grid = subplots(1, len(panels), figsize=(11, 2.8), squeeze=False)
        for axes, (title, columns) in zip(grid[0], panels, strict=True):
            for name in columns:
                axes.plot(*metrics.column(name), label=name)
            axes.set_title(title)
        if shown and not translates and not others:
            grid[0][-1].axhspan(0.8, 1.25, color=INK, alpha=0.12, lw=0)
        for axes in grid[0]:
            axes.set_xlabel("step")
            if axes.get_legend_handles_labels()[0]:
                axes.legend(fontsize=7)
        return _svg(figure)


def p_value_histograms(rows: Sequence[Mapping[str, str]]) -> str:
    """Histogram of the p-values of each score; flat where nothing is unusual."""
    names = [name for name in rows[0] if name.startswith("p_")]
    columns = 4
    lines = -(-len(names) // columns)
    with matplotlib.rc_context(STYLE):
        figure, grid = subplots(
            lines, columns, figsize=(11, 1.9 * lines), squeeze=False, sharex=True
        )
        for axes, name in zip(grid.flat, names, strict=False):
            axes.hist([number(r, name) for r in rows if r[name]], bins=10, range=(0, 1))
            axes.set_title(name.removeprefix("p_"), fontsize=8)
        for axes in grid.flat[len(names) :]:
            axes.set_axis_off()
        return _svg(figure)


def sulci_by_brain(z: NDArray[np.float64], brains: Sequence[str], sulci: Sequence[str]) -> str:
    """(N, n) departures of sulci as a picture, a row a brain."""
    with matplotlib.rc_context(STYLE):
        height = 1.8 + 0.16 * len(brains)
        figure, axes = subplots(figsize=(2.5 + 0.32 * len(sulci), height))
        image = axes.imshow(z, cmap="Oranges", vmin=0, vmax=6, aspect="auto")
        axes.set_xticks(range(len(sulci)), sulci, rotation=60, ha="right", fontsize=7)
        axes.set_yticks(range(len(brains)), brains, fontsize=6)
        axes.tick_params(length=0)
        figure.colorbar(image, ax=axes, label="z, missing", shrink=min(1.0, 2.5 / height))
        return _svg(figure)


def roc_by_size(rows: Sequence[Mapping[str, str]]) -> str:
    """One ROC panel a size, one curve a score, all draws pooled."""
    sizes = list(dict.fromkeys(row["size"] for row in rows))
    names = [n for n in rows[0] if n not in ("size", "draw", "volume", "altered")]
    with matplotlib.rc_context(STYLE):
        figure, grid = subplots(1, len(sizes), figsize=(2.9 * len(sizes), 3.1), squeeze=False)
        for axes, size in zip(grid[0], sizes, strict=True):
            chosen = [row for row in rows if row["size"] == size]
            altered = np.array([row["altered"] == "1" for row in chosen])
            for name in names:
                values = np.array([number(row, name) for row in chosen])
                style = "-" if name.startswith("latent") else "--"
                axes.plot(*roc_curve(values[altered], values[~altered]), style, lw=1.2, label=name)
            axes.plot([0, 1], [0, 1], color=INK, lw=0.6)
            axes.set_title("size 0 (control)" if size == "0" else f"size > {size}")
            axes.set_xlabel("false-positive rate")
            axes.set_aspect("equal")
        grid[0][0].set_ylabel("true-positive rate")
        handles, labels = grid[0][0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="lower center", ncols=4, fontsize=7)
        figure.tight_layout(rect=(0, 0.14, 1, 1))
        return _svg(figure, tight=False)


def dots_by_model(runs: Sequence[Mapping[str, str]], names: Sequence[str]) -> str:
    """One panel a figure, one line a model, one dot a training."""
    models = list(dict.fromkeys(run["model"] for run in runs))
    with matplotlib.rc_context(STYLE):
        size = (2.6 * len(names), 0.6 + 0.28 * len(models))
        figure, grid = subplots(1, len(names), figsize=size, squeeze=False, sharey=True)
        for axes, name in zip(grid[0], names, strict=True):
            shown = [run for run in runs if run[name]]
            positions = [models.index(run["model"]) for run in shown]
            axes.plot([number(run, name) for run in shown], positions, "o", ms=4, alpha=0.7)
            axes.set_title(name.replace("_", " "))
            axes.grid(axis="x", color=INK, alpha=0.2)
        grid[0][0].set_yticks(range(len(models)), models)
        grid[0][0].set_ylim(len(models) - 0.5, -0.5)
        return _svg(figure)


def silhouettes_by_k(rows: Sequence[Mapping[str, str]]) -> str:
    """One panel a number of clusters: the silhouette of each brain, sorted within its cluster."""
    ks = [int(name.rpartition("_")[2]) for name in rows[0] if name.startswith("cluster_")]
    with matplotlib.rc_context(STYLE):
        size = (2.4 * len(ks), 2.8)
        figure, grid = subplots(1, len(ks), figsize=size, squeeze=False, sharex=True)
        for axes, k in zip(grid[0], ks, strict=True):
            labels = np.array([whole_number(row, f"cluster_{k}") for row in rows])
            values = np.array([number(row, f"silhouette_{k}") for row in rows])
            first = 0
            for cluster in range(k):
                own = np.sort(values[labels == cluster])
                positions = np.arange(first, first + len(own))
                axes.fill_betweenx(positions, 0, own, step="mid", lw=0)
                first += len(own) + max(len(rows) // 50, 1)
            axes.axvline(values.mean(), color=INK, lw=0.8, ls="--")
            axes.set_title(f"k = {k}, mean {values.mean():.2f}")
            axes.set_xlim(min(values.min(), 0) - 0.05, 1)  # short bars should look short
            axes.set_yticks([])
            axes.set_xlabel("silhouette")
        return _svg(figure)


def spreads(rows: Sequence[Mapping[str, str]]) -> str:
    """Histogram and density over brains of each dimension that is a column (but ``brain``)."""
    from scipy.stats import gaussian_kde  # half a second that most reports need not spend

    names = [name for name in rows[0] if name != "brain"]
    with matplotlib.rc_context(STYLE):
        figure, grid = subplots(1, len(names), figsize=(11, 1.9), squeeze=False)
        for axes, name in zip(grid[0], names, strict=True):
            values = np.array([number(row, name) for row in rows])
            axes.hist(values, bins=20, density=True, alpha=0.5)
            if values.std() > 0 and len(values) > 2:
                positions = np.linspace(values.min(), values.max(), 100)
                axes.plot(positions, gaussian_kde(values)(positions))
            axes.set_title(f"dimension {name}", fontsize=8)
            axes.set_yticks([])
        return _svg(figure)


def parameter_slices(
    trials: Sequence[Mapping[str, str]], keys: Sequence[str], monitor: str, *, lowest: bool
) -> str:
    """One panel a parameter: the monitored figure of each trial over its value."""
    columns = 4
    lines = -(-len(keys) // columns)
    figures_of = np.array([number(trial, "value") for trial in trials])
    best = figures_of.argmin() if lowest else figures_of.argmax()
    with matplotlib.rc_context(STYLE):
        wide = min(len(keys), columns)
        figure, grid = subplots(
            lines, wide, figsize=(2.9 * wide, 2.5 * lines), squeeze=False, sharey=True
        )
        for axes, key in zip(grid.flat, keys, strict=False):
            values = [trial[key] for trial in trials]
            positions, ticks = _positions(values)
            for place in np.unique(positions):
                here = figures_of[positions == place]
                if len(here) > 1:  # what a value gives, whatever the others are
                    axes.plot(place, np.median(here), "_", ms=18, color=INK)
            axes.plot(positions, figures_of, "o", ms=4, alpha=0.6)
            axes.plot(positions[best], figures_of[best], "o", ms=8, mfc="none", color=COLOURS[1])
            if ticks is not None:
                axes.set_xticks(range(len(ticks)), ticks)
            elif positions.min() > 0 and positions.max() / positions.min() > LOG_RATIO:
                axes.set_xscale("log")
            axes.set_xlabel(key.rpartition(".")[2])
        for axes in grid.flat[len(keys) :]:
            axes.set_axis_off()
        for row in grid:
            row[0].set_ylabel(monitor)
        return _svg(figure)


def _positions(values: Sequence[str]) -> tuple[NDArray[np.float64], list[str] | None]:
    """Place values on an axis: numbers as they are, others in order of their names."""
    try:
        return np.array([float(value) for value in values]), None
    except ValueError:
        names = sorted(set(values))
        return np.array([names.index(value) for value in values], dtype=np.float64), names


def _scale(shape: Sequence[int]) -> int:
    return max(1, round(120 / max(shape)))


def subplots(
    rows: int = 1, columns: int = 1, *, figsize: tuple[float, float], **settings: Any
) -> tuple[Figure, Any]:
    """Return a figure and its axes, which `pyplot` knows nothing of: it would keep the figure.

    Args:
        rows: of axes.
        columns: of axes.
        figsize: inches.
        settings: of ``Figure.subplots``.
    """
    figure = Figure(figsize=figsize)
    return figure, figure.subplots(rows, columns, **settings)


def _svg(figure: Figure, *, tight: bool = True) -> str:
    if tight:
        figure.tight_layout()
    stream = io.StringIO()
    figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None})
    text = stream.getvalue()
    return text[text.index("<svg") :]
