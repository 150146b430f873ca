"""Colours that tell many sulci apart, for eyes of all kinds.

Hues alone do not: where red and green look alike, 60 hues are some fifteen. Colours are taken one
by one from all that a screen shows, each as far as can be from those before, seen by the kind of
eye to which it is nearest to one of them. So the first ones differ most.
"""

from functools import cache

import numpy as np
from numpy.typing import NDArray
from skimage.color import rgb2lab

# Linear RGB as eyes without one kind of cone see it: Machado et al. 2009,
# doi:10.1109/TVCG.2009.113, severity 1, after usual sight.
SIGHTS = np.array(
    [
        np.eye(3),
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216],
         [-0.003882, -0.048116, 1.051998]],
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413],
         [-0.011820, 0.042940, 0.968881]],
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602],
         [0.004733, 0.691367, 0.303900]],
    ]
)  # fmt: skip
LEVELS = 12  # of each channel among the colours to choose from
LIGHTNESS = (35.0, 83.0)  # of them, CIELAB: to be seen on white and on black
LEAST_CHROMA = 15.0  # of them: greys are for what has no name
WHITE, GREY = (1.0, 1.0, 1.0), (0.75, 0.75, 0.75)


def seen(colours: NDArray[np.float64]) -> NDArray[np.float64]:
    """(N, 3) sRGB from 0 to 1 → (4, N, 3) CIELAB, as each of `SIGHTS` sees them."""
    linear = np.where(colours <= 0.04045, colours / 12.92, ((colours + 0.055) / 1.055) ** 2.4)
    light = np.clip(linear @ SIGHTS.transpose(0, 2, 1), 0, 1)
    shown = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    return np.asarray(rgb2lab(shown), dtype=np.float64)


@cache
def _distinct(count: int) -> NDArray[np.float64]:
    """``count`` colours, sRGB from 0 to 1, those that differ most first."""
    level = np.linspace(0, 1, LEVELS)
    offered = np.stack(np.meshgrid(level, level, level, indexing="ij"), axis=-1).reshape(-1, 3)
    places = seen(offered)
    usable = (LIGHTNESS[0] < places[0, :, 0]) & (places[0, :, 0] < LIGHTNESS[1])
    usable &= np.linalg.norm(places[0, :, 1:], axis=1) > LEAST_CHROMA
    offered, places = offered[usable], places[:, usable]
    others = seen(np.array([WHITE, GREY]))
    nearest = np.linalg.norm(places[:, None] - others[:, :, None], axis=-1).min(axis=(0, 1))
    chosen = []
    for _ in range(count):
        chosen.append(int(nearest.argmax()))
        away = np.linalg.norm(places - places[:, chosen[-1:]], axis=-1).min(axis=0)
        nearest = np.minimum(nearest, away)
    return offered[chosen]


def many_colours(count: int) -> NDArray[np.uint8]:
    """Colours (count + 2, 3): white, ``count`` that tell sulci apart, and grey."""
    return np.rint(255 * np.vstack([WHITE, _distinct(count), GREY])).astype(np.uint8)
