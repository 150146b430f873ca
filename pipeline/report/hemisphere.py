"""Pictures of a hemisphere in 3-D: gyri pale, sheets of sulci in colour, evidence lit up."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patheffects import withStroke
from numpy.typing import NDArray
from scipy import ndimage

from foldnorm.preprocessing.alteration.fold_erasure import hull_voxels
from foldnorm.preprocessing.cohort.pictures import PALETTE
from foldnorm.preprocessing.cohort.surface import Eye, Seen, Surface, value_at
from foldnorm.preprocessing.topology.thinning import thin

PIXEL = 1.0  # mm
OVERSAMPLING = 2  # rays along each side of a pixel
BENEATH = 2.0  # mm from the sheets and from outside: furrows open, as between grey and white matter
SMOOTHING = 0.7  # mm, sd, of both surfaces
SHEET_LEVEL = 0.3  # of a smoothed sheet, which is thin
SEEN_THROUGH = 25  # mm below the surface that evidence shines through: as deep as sulci are
STRENGTH = 0.75  # of its colour
TISSUE, SHEETS = np.array([233.0, 226, 215]), PALETTE[2].astype(float)
UNNAMED = np.array([150.0, 152, 158])  # sheets without a label, where others have one
REGION_COLOURS = np.array([[208.0, 2, 27], [243, 128, 32], [247, 190, 60]])  # by rank
# Azimuth and elevation of the eye, letters at the left and the right of what it sees.
EYES = {"left": (180, 0, "AP"), "right": (0, 0, "PA"), "above": (-90, 90, "LR")}
NAMES = {
    "L": {"left": "lateral", "right": "medial"},
    "R": {"right": "lateral", "left": "medial"},
}
PLACES = (0.5, 0.3, 0.7, 0.85)  # along a sulcus, where its name may stand, the best first
SCALE_BAR = 20.0  # mm
HALO = withStroke(linewidth=2.2, foreground="white")  # keeps letters legible on folds
INK = "#1d2430"
Colours = NDArray[np.floating]


@dataclass(frozen=True)
class Glow:
    """Evidence that shines through the surface: its strongest value along the line of sight.

    Attributes:
        values: (I, J, K), not negative.
        threshold: above which a value is shown.
        colours: of values (N,): (N, 3), from 0 to 255.
    """

    values: NDArray[Any]
    threshold: float
    colours: Callable[[NDArray[np.float64]], Colours]


def without_hull(classes: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Sheets (class 2) that do not lie between the brain and what is outside (class 0)."""
    padded = np.pad(classes, 1)
    sheets = padded == 2
    return (sheets & ~hull_voxels(sheets, padded == 0))[1:-1, 1:-1, 1:-1]


def glows_of_regions(ranks: NDArray[np.integer]) -> list[Glow]:
    """Light up regions, the strongest on top.

    Args:
        ranks: (I, J, K), rank of each voxel's region, 0 for none.
    """
    return [
        Glow((ranks == n + 1).astype(np.float32), 0.5, partial(_of_colour, REGION_COLOURS[n]))
        for n in range(len(REGION_COLOURS) - 1, -1, -1)
        if (ranks == n + 1).any()
    ]


def _of_colour(colour: Colours, values: NDArray[np.float64]) -> Colours:
    return np.broadcast_to(colour, (len(values), 3))


@dataclass(frozen=True)
class Named:
    """Places at which a view shows a label.

    Attributes:
        places: rows and columns, the middle one first.
        pixels: how many are of it.
    """

    places: list[tuple[float, float]]
    pixels: int


@dataclass(frozen=True)
class View:
    """Hemisphere from one side.

    Attributes:
        name: of the side.
        letters: at the left and at the right.
        picture: (H, W, 3) uint8; superior is up, or anterior where one looks from above.
        pixel: mm.
        named: where labels are seen, by label.
    """

    name: str
    letters: str
    picture: NDArray[np.uint8]
    pixel: float
    named: Mapping[int, Named] = field(default_factory=dict)

    def show(self, axes: Axes, *, scale_bar: bool, size: float = 6.5) -> None:
        """Draw it with letters at the margins, and a scale bar.

        Args:
            axes: to draw in.
            scale_bar: draw one.
            size: of letters, points.
        """
        height, width = (side * self.pixel for side in self.picture.shape[:2])
        axes.imshow(self.picture, extent=(0, width, 0, height), interpolation="antialiased")
        axes.set_axis_off()
        axes.set_title(self.name, fontsize=size, pad=1)
        for x, letter in zip((0.0, 1.0), self.letters, strict=True):
            side = "left" if not x else "right"
            axes.text(x, 0.5, letter, transform=axes.transAxes, fontsize=size, weight="bold",
                      ha=side, va="center", path_effects=[HALO])  # fmt: skip
        if scale_bar:
            axes.plot([0, SCALE_BAR], [1, 1], color=INK, lw=1.6, solid_capstyle="butt")
            axes.text(SCALE_BAR / 2, 2.5, f"{SCALE_BAR:.0f} mm", ha="center", va="bottom",
                      fontsize=0.85 * size, path_effects=[HALO])  # fmt: skip


class Hemisphere:
    """A hemisphere to be drawn.

    Args:
        inside: (I, J, K), RAS+, what lies between the sheets.
        sheets: (I, J, K), voxels of sulci, drawn one voxel thick; the hull is not drawn.
        voxel_size: mm.
        hemi: ``L``, ``R``, or empty where it is not known, or for a whole brain.
        labels: (I, J, K), number of the sulcus of each voxel, 0 for none.
        colours: (n, 3) from 0 to 255, of the labels from 1 on.
        glows: evidence, the uppermost last.
    """

    def __init__(
        self,
        inside: NDArray[np.bool_],
        sheets: NDArray[np.bool_],
        voxel_size: Sequence[float],
        hemi: str = "",
        *,
        labels: NDArray[np.integer] | None = None,
        colours: Colours | None = None,
        glows: Sequence[Glow] = (),
    ) -> None:
        self.voxel_size, self.hemi = np.array(voxel_size, dtype=np.float64), hemi
        self.size = self.voxel_size * inside.shape
        if sheets.any():
            classes = thin(np.where(sheets, 2, inside).astype(np.uint8), 2)
            inside, sheets = classes == 1, without_hull(classes)
        self.glows = glows
        self.sheets = None
        self.gyri = Surface(self._smooth(inside), voxel_size)
        if sheets.any():
            room = ndimage.distance_transform_edt(inside, self.voxel_size)
            self.gyri = Surface(self._smooth(np.minimum(room, 2 * BENEATH)), voxel_size, BENEATH)
            self.sheets = Surface(self._smooth(sheets), voxel_size, SHEET_LEVEL)
        self.labels = None
        self.colours = SHEETS[None] if colours is None else np.vstack([UNNAMED, colours])
        if labels is not None and labels.any():
            _, nearest = ndimage.distance_transform_edt(
                ~sheets if sheets.any() else labels == 0, self.voxel_size, return_indices=True
            )
            self.labels = labels[tuple(nearest)].astype(np.int32)

    def views(self, sides: Sequence[str] = tuple(EYES), pixel: float = PIXEL) -> list[View]:
        """Draw it, lateral before medial.

        Args:
            sides: of `EYES`.
            pixel: mm.
        """
        names = NAMES.get(self.hemi, {})
        order = sorted(sides, key=lambda side: (side == "above", names.get(side) == "medial"))
        return [self._view(side, names, pixel) for side in order]

    def _view(self, side: str, names: Mapping[str, str], pixel: float) -> View:
        azimuth, elevation, letters = EYES[side]
        name = names.get(side, f"from {'' if side == 'above' else 'the '}{side}")
        eye = Eye.from_angles(azimuth, elevation, self.size.tolist(), pixel / OVERSAMPLING)
        picture = np.full((*eye.origins.shape[:2], 3), 255.0)
        gyri = self.gyri.seen_by(eye)
        picture[gyri.hit] = TISSUE * gyri.light[:, None]
        numbers = np.zeros(gyri.hit.shape, dtype=np.int32)
        if self.sheets is not None:
            self._draw_sheets(self.sheets.seen_by(eye), gyri, picture, numbers)
        for glow in self.glows:
            self._light_up(glow, gyri, eye, picture)
        return View(name, letters, _coarser(picture), pixel, _named(numbers))

    def _draw_sheets(
        self,
        sheets: Seen,
        gyri: Seen,
        picture: NDArray[np.float64],
        numbers: NDArray[np.int32],
    ) -> None:
        """Draw sheets where they lie before the gyri, and note whose they are."""
        before = sheets.depth[sheets.hit] < gyri.depth[sheets.hit]
        pixels = np.argwhere(sheets.hit)[before]
        own = np.zeros(len(pixels), dtype=np.int32)
        if self.labels is not None:
            own = value_at(self.labels, sheets.places[before], self.voxel_size, order=0).astype(
                np.int32
            )
        light = 0.3 + 0.7 * sheets.light[before]  # colours stay apart in the depth of a furrow
        picture[tuple(pixels.T)] = self.colours[own] * light[:, None]
        numbers[tuple(pixels.T)] = own

    def _light_up(self, glow: Glow, gyri: Seen, eye: Eye, picture: NDArray[np.float64]) -> None:
        step = float(self.voxel_size.min())
        strongest = np.zeros(len(gyri.places))
        for depth in np.arange(-step, SEEN_THROUGH + step, step):
            found = value_at(glow.values, gyri.places - depth * eye.towards, self.voxel_size)
            strongest = np.maximum(strongest, found)
        lit = strongest > glow.threshold
        pixels = tuple(np.argwhere(gyri.hit)[lit].T)
        colour = glow.colours(strongest[lit]) * (0.5 + 0.5 * gyri.light[lit])[:, None]
        picture[pixels] = (1 - STRENGTH) * picture[pixels] + STRENGTH * colour

    def _smooth(self, mask: NDArray[Any]) -> NDArray[np.float32]:
        widened = np.asarray(mask, dtype=np.float32)
        return np.asarray(ndimage.gaussian_filter(widened, SMOOTHING / self.voxel_size))


def _coarser(picture: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Mean of the rays of each pixel."""
    height, width = (side // OVERSAMPLING for side in picture.shape[:2])
    rays = picture[: height * OVERSAMPLING, : width * OVERSAMPLING]
    rays = rays.reshape(height, OVERSAMPLING, width, OVERSAMPLING, 3)
    return np.asarray(np.clip(rays.mean(axis=(1, 3)), 0, 255).round(), dtype=np.uint8)


def _named(numbers: NDArray[np.int32]) -> dict[int, Named]:
    """Find where each label is seen."""
    found = {}
    for number in np.unique(numbers[numbers > 0]):
        pixels = np.argwhere(numbers == number) / OVERSAMPLING
        along = pixels[:, int(np.ptp(pixels, axis=0).argmax())].argsort()
        places = [pixels[along[int(share * (len(along) - 1))]] for share in PLACES]
        found[int(number)] = Named(
            [(float(row), float(column)) for row, column in places],
            len(pixels) // OVERSAMPLING**2,
        )
    return found
