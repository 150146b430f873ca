"""Both sides of a hemisphere as a figure: sulci by name, evidence and differences by a scale."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap, Normalize
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox
from numpy.typing import NDArray

from foldnorm.pipeline.report.hemisphere import HALO, INK, Glow, Hemisphere, View
from foldnorm.preprocessing.cohort.colours import many_colours
from foldnorm.preprocessing.io.volumes import voxel_size_of
from foldnorm.preprocessing.spatial.crop import bounding_box

SIZE = (8.4, 3.2)  # inches
SIDES = ("left", "right")  # from which it is seen
PIXELS = 450  # along it
MARGIN = 2  # voxels around it
MIN_NAMED = 0.001  # of the pixels of a view, that a sulcus has whose name is written
LETTERS = 8.0  # points
LETTER, NAME_SIZE = 0.55, 0.75  # width of a letter by its size; size of a name by that of letters
EVIDENCE, DIFFERENCE = "YlOrRd", "PuOr_r"  # colours of values without and with negative ones
FAINT = 0.15  # of the largest value: what is less is not shown
Array = NDArray[Any]


def hemisphere_figure(
    classes: Array,
    affine: NDArray[np.float64],
    hemi: str = "",
    *,
    labels: Array | None = None,
    names: Mapping[int, str] | None = None,
    values: Array | None = None,
    title: str = "",
) -> Figure:
    """Draw a hemisphere, lateral before medial.

    Args:
        classes: (I, J, K): 0 outside, 1 between sulci, above it sulci; not empty.
        affine: (4, 4), voxel → mm, RAS+; the first axis may run from right to left.
        hemi: ``L``, ``R``, or empty where it is not known.
        labels: (I, J, K), number of each voxel's sulcus, 0 for none.
        names: of labels, written where they are seen.
        values: (I, J, K), evidence; or a difference, if some are negative.
        title: above it.
    """
    around = part_to_draw(classes)
    direction = -1 if affine[0, 0] < 0 else 1

    def cut(array: Array) -> Array:
        return np.asarray(array)[around][::direction]

    classes, voxel_size = cut(classes), voxel_size_of(affine)
    numbers = np.unique(labels)[np.unique(labels) > 0] if labels is not None else np.zeros(0, int)
    scale = None if values is None else ValueScale(values)
    hemisphere = Hemisphere(
        classes == 1,
        classes > 1,
        voxel_size,
        hemi,
        labels=None if labels is None else _ranked(cut(labels), numbers),
        colours=many_colours(len(numbers))[1:-1].astype(float) if len(numbers) else None,
        glows=[] if values is None or scale is None else scale.glows(cut(values)),
    )
    figure = Figure(figsize=SIZE, layout="constrained")
    cells = figure.subplots(1, len(SIDES))
    pixel = max(side * n for side, n in zip(voxel_size, classes.shape, strict=True)) / PIXELS
    for n, (axes, view) in enumerate(zip(cells, hemisphere.views(SIDES, pixel), strict=True)):
        view.show(axes, scale_bar=n == 0, size=LETTERS)
        write_names(axes, view, ["", *((names or {}).get(int(k), "") for k in numbers)])
    if scale is not None:
        bar = figure.colorbar(scale.shown, ax=cells, shrink=0.6, aspect=20, pad=0.01)
        bar.ax.tick_params(labelsize=LETTERS, length=2)
        bar.outline.set_linewidth(0.3)
    if title:
        figure.suptitle(title)
    return figure


def part_to_draw(classes: Array) -> tuple[slice, ...]:
    """Return the part of a volume that holds anything, and a margin."""
    box = bounding_box(classes > 0)
    assert box is not None
    return tuple(slice(max(s.start - MARGIN, 0), s.stop + MARGIN) for s in box.slices)


def _ranked(labels: Array, numbers: Array) -> Array:
    """Labels as their places in a sorted list, from 1 on; 0 stays 0."""
    return np.where(labels > 0, np.searchsorted(numbers, labels) + 1, 0)


def write_names(axes: Axes, view: View, names: list[str]) -> None:
    """Write the names of sulci that are seen where they are, large ones first, none over another.

    Args:
        axes: that show the view.
        view: of a hemisphere.
        names: by label; empty ones are not written.
    """
    height, width = view.picture.shape[:2]
    points = axes.get_window_extent().transformed(axes.figure.dpi_scale_trans.inverted()).width * 72
    size = NAME_SIZE * LETTERS
    mm_a_point = width * view.pixel / points
    taken: list[Bbox] = []
    for label, seen in sorted(view.named.items(), key=lambda own: -own[1].pixels):
        name = names[label]
        if not name or seen.pixels < MIN_NAMED * height * width:
            continue
        half = 0.5 * LETTER * len(name) * size * mm_a_point, 0.8 * size * mm_a_point
        for row, column in seen.places:
            x, y = column * view.pixel, (height - row) * view.pixel
            own = Bbox.from_extents(x - half[0], y - half[1], x + half[0], y + half[1])
            if not any(own.overlaps(other) for other in taken):
                taken.append(own)
                axes.text(x, y, name, fontsize=size, ha="center", va="center", color=INK,
                          path_effects=[HALO])  # fmt: skip
                break


class ValueScale:
    """Colours of values: one direction from 0 on, or two.

    Args:
        values: all that are shown.
    """

    def __init__(self, values: Array) -> None:
        largest = max(float(np.abs(values).max()), 1e-9)
        self.is_signed = bool((values < 0).any())
        self.least = FAINT * largest
        self.colours: Colormap = matplotlib.colormaps[DIFFERENCE if self.is_signed else EVIDENCE]
        self.norm = Normalize(-largest if self.is_signed else 0, largest)

    @property
    def shown(self) -> ScalarMappable:
        """Scale that a colour bar is made of."""
        return ScalarMappable(self.norm, self.colours)

    def glows(self, values: Array) -> list[Glow]:
        """Return what shines through: what is above 0, and what is below."""
        signs = (-1.0, 1.0) if self.is_signed else (1.0,)
        return [
            Glow(np.maximum(sign * values, 0).astype(np.float32), self.least,
                 partial(self._colours_of, sign))
            for sign in signs
        ]  # fmt: skip

    def _colours_of(self, sign: float, found: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(255 * self.colours(self.norm(sign * found))[:, :3])
