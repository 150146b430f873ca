"""Slices of a volume as a matplotlib figure."""

from typing import Any

import matplotlib.pyplot  # noqa: F401  # so that a notebook shows figures
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from foldnorm.preprocessing.cohort.cohort import Brain
from foldnorm.preprocessing.cohort.pictures import PALETTE, image_slices, middle_slices
from foldnorm.preprocessing.core.errors import InputError

VIEWS = ("sagittal", "coronal", "axial")
HEIGHT = 3.0  # inches


def plot(volume: Brain | NDArray[Any] | Tensor, title: str = "") -> Figure:
    """Sagittal, coronal and axial slice through the middle of a volume.

    Args:
        volume: (I, J, K) or (1, I, J, K): class numbers, or intensities from −1 to 1 (then also
            (I, J)); or a brain of a cohort.
        title: over the slices.

    Raises:
        InputError: it is no such volume.

    Example:
        >>> fn.plot(cohort[0], "a phantom").savefig("phantom.png")
    """
    data = np.asarray(volume.volume if isinstance(volume, Brain) else volume)
    if data.ndim == 4 and len(data) == 1:
        data = data[0]
    of_classes = data.dtype.kind in "iub"
    if data.ndim != 3 and (of_classes or data.ndim != 2):
        raise InputError(f"expected a volume (I, J, K) or (1, I, J, K), got {data.shape}")
    if of_classes:
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
