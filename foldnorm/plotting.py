"""A volume as a matplotlib figure: slices, or a hemisphere in 3-D."""

from collections.abc import Mapping
from typing import Any

import matplotlib.pyplot  # noqa: F401  # so that a notebook shows figures
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from foldnorm.pipeline.report.hemisphere_figure import hemisphere_figure
from foldnorm.preprocessing.cohort.cohort import Brain
from foldnorm.preprocessing.cohort.pictures import PALETTE, image_slices, middle_slices
from foldnorm.preprocessing.core.errors import InputError

VIEWS = ("sagittal", "coronal", "axial")
HEIGHT = 3.0  # inches


def plot(
    volume: Brain | NDArray[Any] | Tensor,
    title: str = "",
    *,
    surface: bool = False,
    labels: NDArray[np.integer] | None = None,
    names: Mapping[int, str] | None = None,
    values: NDArray[Any] | None = None,
    affine: NDArray[np.floating] | None = None,
) -> Figure:
    """Draw the middle slices of a volume, or its hemisphere in 3-D, which needs no display.

    In 3-D gyri are pale, and the sheets of the sulci lie coloured between them. Evidence shines
    through from at most 25 mm below the surface, by its strongest value along the line of sight.

    Args:
        volume: (I, J, K) or (1, I, J, K): class numbers, or intensities from −1 to 1 (then also
            (I, J)); or a brain of a cohort.
        title: over the picture.
        surface: draw in 3-D: class 1 is what lies between sulci, those above it are sulci.
        labels: (I, J, K), in 3-D: number of each voxel's sulcus, 0 for none.
        names: of labels, written where they are seen.
        values: (I, J, K), in 3-D: evidence; or a difference, if some are negative.
        affine: (4, 4), voxel → mm, RAS+; None: that of the brain, or voxels of 1 mm.

    Raises:
        InputError: it is no such volume, or the arrays are not of its shape.

    Example:
        >>> fn.plot(cohort[0], "a phantom").savefig("phantom.png")
        >>> fn.plot(cohort[0], surface=True, labels=cohort.folds[0]).savefig("sulci.png")
    """
    data = np.asarray(volume.volume if isinstance(volume, Brain) else volume)
    if data.ndim == 4 and len(data) == 1:
        data = data[0]
    of_classes = data.dtype.kind in "iub"
    if data.ndim != 3 and (of_classes or surface or data.ndim != 2):
        raise InputError(f"expected a volume (I, J, K) or (1, I, J, K), got {data.shape}")
    if not surface:
        if labels is not None or values is not None:
            raise InputError("labels and values are drawn in 3-D: expected surface=True")
        return _slices(data, title)
    if not of_classes or not (data > 0).any():
        raise InputError("a surface is drawn of class numbers: expected some above 0, got none")
    for array in (labels, values):
        if array is not None and np.shape(array) != data.shape:
            raise InputError(
                f"expected labels and values of shape {data.shape}, got {np.shape(array)}"
            )
    hemi = ""
    if isinstance(volume, Brain):
        hemi = volume.row.get("hemi", "")
        affine = volume.affine if affine is None else affine
    return hemisphere_figure(
        data,
        np.eye(4) if affine is None else np.asarray(affine, dtype=np.float64),
        hemi,
        labels=labels,
        names=names,
        values=values,
        title=title,
    )


def _slices(data: NDArray[Any], title: str) -> Figure:
    if data.dtype.kind in "iub":
        shown = middle_slices(data.astype(np.intp), max(len(PALETTE), int(data.max()) + 1))
    else:
        shown = image_slices(data)
    figure = Figure(figsize=(HEIGHT * len(shown), HEIGHT), layout="constrained")
    for number, picture in enumerate(shown):
        axes = figure.add_subplot(1, len(shown), number + 1)
        axes.imshow(picture, interpolation="nearest")
        axes.set_axis_off()
        if len(shown) == len(VIEWS):
            axes.set_title(VIEWS[number])
    if title:
        figure.suptitle(title)
    return figure
