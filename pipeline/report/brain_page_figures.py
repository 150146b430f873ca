"""Pictures of a page about one brain: a hemisphere, planes through a place, healthy brains there.

Right is on the left of coronal and axial planes, anterior on the left of sagittal ones, as
radiologists look at them; letters at the margins say so.
"""

import io
from collections.abc import Mapping
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from numpy.typing import NDArray

from foldnorm.pipeline.report.figures import subplots
from foldnorm.pipeline.report.hemisphere import HALO, INK, SCALE_BAR, Hemisphere, glows_of_regions
from foldnorm.pipeline.report.page_files import AXES, PageArrays, planes_at
from foldnorm.preprocessing.cohort.pictures import class_colours, inline_png
from foldnorm.preprocessing.io.volumes import voxel_size_of

FIELD = 100.0  # mm, side of each plane shown
DPI = 170
MIN_TOP_Z = 6.0  # standard deviations that the strongest colour stands for, at least
MARK = "#d0021b"  # outline of the strongest region
STYLE: Any = {
    "font.family": "sans-serif",
    "font.size": 7,
    "text.color": INK,
    "axes.edgecolor": "#b8c0cc",
    "axes.linewidth": 0.5,
    "xtick.color": INK,
    "ytick.color": INK,
}
# Index of the axes to the right and up, and letters at left, right, bottom, top.
HORIZONTAL_VERTICAL = {"sagittal": (1, 2), "coronal": (0, 2), "axial": (0, 1)}
LETTERS = {"sagittal": "APIS", "coronal": "RLIS", "axial": "RLPA"}
Plane = NDArray[Any]


class PagePictures:
    """Pictures of one brain.

    Args:
        arrays: of the brain, in RAS+ order.
        about: content of ``pages.json``.
        own: what it says of this brain.
        at: voxel through which the planes go.
    """

    def __init__(
        self,
        arrays: PageArrays,
        about: Mapping[str, Any],
        own: Mapping[str, Any],
        at: tuple[int, int, int],
    ) -> None:
        self.arrays, self.about, self.own, self.at = arrays, about, own, at
        self.voxel_size = voxel_size_of(np.array(about["affine"]))
        self.classes = ListedColormap(class_colours(len(about["classes"])) / 255)

    def planes(self) -> str:
        """Three planes of the brain, its departure, and healthy brains; and the hemisphere."""
        arrays, unit, peak_z = self.arrays, self.about["unit"], float(self.own["largest_z"])
        brain, z = planes_at(arrays.volume, self.at), planes_at(arrays.z, self.at)
        regions = planes_at(arrays.regions, self.at)
        share = [own / 255 for own in arrays.planes("share")]
        expected = [own.astype(np.float32) for own in arrays.planes("expected")]
        most = max(float(max(own.max() for own in expected)), 1e-6)
        titles = (
            "This brain",
            "Departure from healthy\nbrains towards fewer folds",
            "Healthy brains:\nshare with a fold",
            f"Healthy brains: mean\n{self.about['quantity']}",
        )
        with matplotlib.rc_context(STYLE):
            figure = Figure(figsize=(7.3, 4.75))
            grid = figure.add_gridspec(
                4, 5, height_ratios=[1, 1, 1, 0.05], width_ratios=[1, 1, 1, 1, 1.12],
                left=0.025, right=0.995, top=0.925, bottom=0.055, wspace=0.1, hspace=0.09,
            )  # fmt: skip
            shown: list[Any] = [None] * 4
            for n, axis in enumerate(AXES):
                cells = [figure.add_subplot(grid[n, column]) for column in range(4)]
                for column, axes in enumerate(cells):
                    if not n:
                        axes.set_title(titles[column], fontsize=7, pad=3)
                    self._frame(axes, axis, first=column == 0)
                    if column < 2:
                        self._classes(axes, axis, brain[n])
                own_z = np.ma.masked_less(z[n] * (peak_z / 255), self._threshold)
                shown[1] = self._image(
                    cells[1],
                    axis,
                    own_z,
                    cmap="YlOrRd",
                    vmin=self._threshold,
                    vmax=max(MIN_TOP_Z, peak_z),
                )
                shown[2] = self._image(cells[2], axis, share[n], cmap="Blues", vmin=0, vmax=1)
                shown[3] = self._image(cells[3], axis, expected[n], cmap="Greys", vmin=0, vmax=most)
                for axes in cells[1:]:
                    self._outline(axes, axis, regions[n])
            for column, label in ((1, "standard deviations"), (2, ""), (3, unit)):
                bar = figure.colorbar(
                    shown[column], cax=figure.add_subplot(grid[3, column]), orientation="horizontal"
                )
                bar.outline.set_linewidth(0.3)
                bar.ax.tick_params(labelsize=6, length=2, pad=1)
                if column == 2:
                    bar.set_ticks([0, 0.25, 0.5, 0.75], labels=["0 %", "25", "50", "75 %"])
                elif label:
                    bar.set_label(label, fontsize=6, labelpad=1)
            self._hemisphere(figure, grid)
            return _inline(figure)

    def healthy(self) -> str:
        """Draw the plane of `best_axis` in this brain and in the healthy ones."""
        n = self.best_axis
        axis = AXES[n]
        own = planes_at(self.arrays.volume, self.at)[n]
        others = self.arrays.planes("healthy")[n]
        regions = planes_at(self.arrays.regions, self.at)[n]
        with matplotlib.rc_context(STYLE):
            figure, grid = subplots(1, 1 + len(others), figsize=(7.3, 1.42), squeeze=False)
            figure.subplots_adjust(left=0.025, right=0.995, top=0.87, bottom=0.02, wspace=0.06)
            titles = ["This brain", *(other["key"] for other in self.own["healthy"])]
            for number, (axes, plane) in enumerate(zip(grid[0], [own, *others], strict=True)):
                self._frame(axes, axis, first=number == 0)
                self._classes(axes, axis, plane)
                self._outline(axes, axis, regions)
                bold = "bold" if not number else "normal"
                axes.set_title(titles[number].removeprefix("sub-"), fontsize=6, pad=2, weight=bold)
            return _inline(figure)

    @property
    def best_axis(self) -> int:
        """Index of the axis whose plane shows most of the strongest region."""
        planes = planes_at(self.arrays.regions == 1, self.at)
        return int(np.argmax([plane.sum() for plane in planes]))

    @property
    def _threshold(self) -> float:
        return float(self.about["threshold"])

    def _hemisphere(self, figure: Figure, grid: Any) -> None:
        volume, void, fill = self.arrays.volume, self.about["void"], self.about["fill"]
        inside = volume == void if void != fill else volume > void
        sheets = (volume > void) & ~inside
        glows = glows_of_regions(self.arrays.regions)
        shown = Hemisphere(inside, sheets, self.voxel_size, self.own["hemi"], glows=glows)
        for n, view in enumerate(shown.views()):
            view.show(figure.add_subplot(grid[n, 4]), scale_bar=n == 0)

    def _oriented(self, axis: str, plane: Plane) -> tuple[Plane, tuple[float, float, float, float]]:
        """Plane (rows, columns) as shown, and left, right, bottom, top in mm from the place."""
        across, up = HORIZONTAL_VERTICAL[axis]
        size = self.voxel_size
        low, bottom = -(self.at[across] + 0.5) * size[across], -(self.at[up] + 0.5) * size[up]
        high, top = low + plane.shape[0] * size[across], bottom + plane.shape[1] * size[up]
        return plane[::-1].T, (-high, -low, bottom, top)  # right, or anterior, is on the left

    def _image(self, axes: Axes, axis: str, plane: Plane, **style: Any) -> Any:
        picture, extent = self._oriented(axis, plane)
        return axes.imshow(picture, origin="lower", extent=extent, interpolation="nearest", **style)

    def _classes(self, axes: Axes, axis: str, plane: Plane) -> None:
        self._image(axes, axis, plane, cmap=self.classes, vmin=-0.5, vmax=self.classes.N - 0.5)
        axes.set_xlim(-FIELD / 2, FIELD / 2)
        axes.set_ylim(-FIELD / 2, FIELD / 2)

    def _outline(self, axes: Axes, axis: str, regions: Plane) -> None:
        """Draw a line around the strongest region, and keep the field of view."""
        picture, extent = self._oriented(axis, (regions == 1).astype(np.float32))
        if picture.any():
            left, right, bottom, top = extent
            height, width = picture.shape
            x = left + (np.arange(width) + 0.5) * (right - left) / width
            y = bottom + (np.arange(height) + 0.5) * (top - bottom) / height
            axes.contour(x, y, picture, levels=[0.5], colors=MARK, linewidths=0.9)
        axes.set_xlim(-FIELD / 2, FIELD / 2)
        axes.set_ylim(-FIELD / 2, FIELD / 2)

    def _frame(self, axes: Axes, axis: str, *, first: bool) -> None:
        """Letters at the margins, and a scale bar in the first of a row."""
        axes.set_xticks([])
        axes.set_yticks([])
        axes.set_facecolor("white")
        axes.set_aspect("equal")
        style: Any = {"transform": axes.transAxes, "fontsize": 6.5, "weight": "bold", "zorder": 5,
                      "path_effects": [HALO]}  # fmt: skip
        left, right, bottom, top = tuple(LETTERS[axis])
        axes.text(0.02, 0.5, left, ha="left", va="center", **style)
        axes.text(0.98, 0.5, right, ha="right", va="center", **style)
        axes.text(0.5, 0.98, top, ha="center", va="top", **style)
        axes.text(0.5, 0.02, bottom, ha="center", va="bottom", **style)
        if first:
            axes.set_ylabel(axis, fontsize=7.5, labelpad=2)
            y, end = -FIELD / 2 + 4, -FIELD / 2 + 4 + SCALE_BAR
            axes.plot(
                [-FIELD / 2 + 4, end], [y, y], color=INK, lw=1.6, zorder=5,
                path_effects=[withStroke(linewidth=3.2, foreground="white")],
            )  # fmt: skip
            axes.text((-FIELD / 2 + 4 + end) / 2, y + 1.5, f"{SCALE_BAR:.0f} mm", ha="center",
                      va="bottom", fontsize=5.5, zorder=5, path_effects=[HALO])  # fmt: skip


def _inline(figure: Figure) -> str:
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=DPI, metadata={"Software": None})
    return inline_png(stream.getvalue())
