"""The first hemispheres of a cohort in 3-D, lateral beside medial."""

import io
from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from foldnorm.pipeline.report.figures import STYLE
from foldnorm.pipeline.report.hemisphere import Hemisphere
from foldnorm.pipeline.report.hemisphere_figure import SIDES, part_to_draw
from foldnorm.preprocessing.cohort.cohort import Cohort
from foldnorm.preprocessing.cohort.pictures import inline_png

N_HEMISPHERES = 6
A_ROW = 2
PIXEL = 1.2  # mm
WIDTH, HEIGHT = 7.6, 1.5  # inches, of a row
DOTS = 160  # an inch
COLOURS = 64  # of the picture, which is then a quarter as large and looks the same


def shows_sheets(cohort: Cohort) -> bool:
    """Say if its volumes are sheets inside of a hemisphere: outside, inside, sulcus."""
    return cohort.scheme.n_classes == 3 and cohort.scheme.void == 1


def hemisphere_gallery(cohort: Cohort, indices: Sequence[int]) -> str:
    """Draw the first `N_HEMISPHERES` of these volumes, two a row, as a PNG for a page.

    Args:
        cohort: see `shows_sheets`.
        indices: of volumes, none of which is empty.
    """
    shown = indices[:N_HEMISPHERES]
    rows = -(-len(shown) // A_ROW)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, HEIGHT * rows), layout="constrained")
        cells = figure.subplots(rows, A_ROW * len(SIDES), squeeze=False).ravel()
        for axes in cells:
            axes.set_axis_off()
        for n, index in enumerate(shown):
            volume = np.array(cohort.volumes[index])
            row = cohort.rows[index]
            direction = (
                -1 if cohort.affine_of(row)[0, 0] < 0 else 1
            )  # mirrored ones are turned back
            own = volume[part_to_draw(volume)][::direction]
            hemisphere = Hemisphere(own == 1, own > 1, cohort.voxel_size, row.get("hemi", ""))
            views = hemisphere.views(SIDES, PIXEL)
            for m, view in enumerate(views):
                view.show(cells[n * len(SIDES) + m], scale_bar=not (n or m))
    whole, small = io.BytesIO(), io.BytesIO()
    figure.savefig(whole, format="png", dpi=DOTS)
    Image.open(whole).convert("RGB").quantize(COLOURS).save(small, "png", optimize=True)
    return inline_png(small.getvalue())
