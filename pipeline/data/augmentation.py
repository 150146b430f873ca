"""Training volumes turned, stretched and moved a little, so that few brains teach more.

What is keyed by the number of a draw is the same in a resumed run, and on one process or many.
Thin sheets stay whole: plain nearest neighbour tears about 50 holes into the sheets of a 60 mm
crop turned by 5°, so sheets that were thinned are pushed onto the new grid and thinned again.
"""

import math
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial.transform import Rotation

from foldnorm.models.noise import seed_of
from foldnorm.pipeline.data.patches import Window
from foldnorm.preprocessing.cohort.preparation import Preparation
from foldnorm.preprocessing.core.errors import InputError
from foldnorm.preprocessing.io.schemes import LabelScheme
from foldnorm.preprocessing.spatial.space import Matrix, resample_nearest, resample_sheets
from foldnorm.preprocessing.spatial.warp import (
    Displacement,
    smooth_displacement,
    warp_nearest,
    warp_sheets,
)
from foldnorm.preprocessing.topology.thinning import thin

LABEL_BITS, LABELS = 16, 2**16 - 1  # of a fold label below the class number; the highest label
MIRRORED = 0.5  # share of the draws in which an axis is
MAX_ROTATION, MAX_STRETCH = 45.0, 0.5  # beyond, what is learned is no brain's
ELASTIC_SPACING = 16.0  # voxels between control points; above a quarter of it, space could fold


@dataclass
class AugmentationOptions:
    """Limits of random alterations of training volumes; 0 leaves a kind out.

    Attributes:
        rotation: degrees at most, about any axis.
        stretch: of each axis at most, as a share.
        shift: voxels at most along each axis, whole ones.
        elastic: voxels at most along each axis that control points move, which lie
            `ELASTIC_SPACING` voxels apart.
        dropout: cubes of the volume that is translated that become void; only for models that read
            pairs: any other would learn that holes are healthy.
        dropout_side: of these cubes, voxels.
        mirror: whether images are mirrored along each axis, every second time; not for label
            volumes, whose mirror image is the other hemisphere.
    """

    rotation: float = 0.0
    stretch: float = 0.0
    shift: int = 0
    elastic: float = 0.0
    dropout: int = 0
    dropout_side: int = 6
    mirror: bool = False

    def __post_init__(self) -> None:
        limits = {
            "rotation": MAX_ROTATION,
            "stretch": MAX_STRETCH,
            "shift": math.inf,
            "elastic": ELASTIC_SPACING / 4,
            "dropout": math.inf,
            "dropout_side": math.inf,
        }
        for name, limit in limits.items():
            value = getattr(self, name)
            if not 0 <= value <= limit:
                raise InputError(
                    f"training.augmentation.{name}: expected 0 to {limit:g}, got {value:g}"
                )

    def __bool__(self) -> bool:
        return bool(self.moves or self.dropout or self.mirror)

    @property
    def moves(self) -> bool:
        """True if volumes are rotated, stretched, shifted or deformed."""
        return bool(self.rotation or self.stretch or self.shift or self.elastic)


@dataclass(frozen=True)
class Augmentation:
    """Alters label volumes, or both volumes of a pair alike.

    Attributes:
        options: how much.
        preparation: of the cohort: whether its sheets are thin, and which classes they are.
        seed: of the draws.
        source: number of the volume that is translated, in which cubes are dropped.
        second_fill: class of what lies beyond the second volumes.
    """

    options: AugmentationOptions
    preparation: Preparation
    seed: int
    source: int = 0
    second_fill: int = 0

    def __post_init__(self) -> None:
        if self.options.mirror:
            raise InputError(
                "training.augmentation.mirror: only of images; the mirror image of a hemisphere is "
                "the other one"
            )

    def __call__(self, volumes: NDArray[np.uint8], draw: int) -> NDArray[np.uint8]:
        """Alter (1 or 2, I, J, K) volumes of draw ``draw``; the same shape comes back."""
        rng = np.random.default_rng(seed_of(self.seed, "augment", draw))
        if self.options.moves:
            motion = self._draw(rng, _whole(volumes), volumes.shape[1:])
            volumes = np.stack([self._moved(v, n, motion) for n, v in enumerate(volumes)])
        if self.options.dropout:
            volumes = volumes.copy()
            self._drop(volumes[self.source], rng)
        return volumes

    def with_folds(
        self, volumes: NDArray[np.integer], draw: int, window: Window | None = None
    ) -> NDArray[np.integer]:
        """Move a volume, and its fold labels along with it.

        Args:
            volumes: (1, I, J, K) class numbers, or with fold labels (2, I, J, K).
            draw: its number.
            window: the part of the moved volume that is wanted, without making the rest; None: all.

        Returns:
            The shape of the window, or the same; uint16 with labels. A voxel where two folds meet
            has no label, as in a prepared cohort.
        """
        window = window or _whole(volumes)
        if not self.options.moves:
            return window.of(volumes)
        rng = np.random.default_rng(seed_of(self.seed, "augment", draw))
        motion = self._draw(rng, window, volumes.shape[1:])
        if len(volumes) == 1:
            return self._moved(volumes[0].astype(np.uint8), 0, motion)[None]
        classes, labels = volumes[0].astype(np.uint32), volumes[1].astype(np.uint32)
        # The class counts first, so that sheets stay whole; then the label, once the highest and
        # once the lowest that lands on a voxel: where these differ, several folds meet.
        highest, lowest = (
            self._gridded(classes << LABEL_BITS | own, 0, motion, LABEL_BITS)
            for own in (
                labels,
                np.where(classes == self.preparation.scheme.top, LABELS - labels, 0),
            )
        )
        moved = self._thinned((highest >> LABEL_BITS).astype(np.uint8), 0)
        label, other = highest & LABELS, LABELS - (lowest & LABELS)
        is_fold = (moved == self.preparation.scheme.top) & (label == other)
        return np.stack([moved, np.where(is_fold, label, 0)]).astype(np.uint16)

    def _draw(self, rng: np.random.Generator, window: Window, shape: tuple[int, ...]) -> "_Motion":
        """Draw how a volume is moved: an affine matrix, and an elastic displacement if any."""
        matrix = draw_affine(rng, self.options, shape)
        if not self.options.elastic:
            return _Motion(window, matrix)
        most = self.options.elastic
        elastic = smooth_displacement(rng, window.shape, most, ELASTIC_SPACING)
        return _Motion(window, matrix, elastic)

    def _scheme(self, number: int) -> LabelScheme:
        scheme = self.preparation.pair if number == 1 else self.preparation.scheme
        assert scheme is not None
        return scheme

    def _drop(self, volume: NDArray[np.uint8], rng: np.random.Generator) -> None:
        """Make cubes void, in place."""
        side = self.options.dropout_side
        for _ in range(self.options.dropout):
            corner = [int(rng.integers(1 - side, length)) for length in volume.shape]
            cube = tuple(slice(max(start, 0), start + side) for start in corner)
            volume[cube] = self._scheme(self.source).void

    def _moved(
        self, volume: NDArray[np.uint8], number: int, motion: "_Motion"
    ) -> NDArray[np.uint8]:
        """Move one of the volumes, (I, J, K) uint8."""
        return self._thinned(self._gridded(volume, number, motion).astype(np.uint8), number)

    def _gridded(
        self, volume: NDArray[np.integer], number: int, motion: "_Motion", bits: int = 0
    ) -> NDArray[np.integer]:
        """Move one of the volumes; below its class numbers there may be ``bits`` of labels."""
        scheme = self.preparation.scheme
        fill = self.second_fill if number == 1 else scheme.fill << bits
        source, elastic = motion.source, motion.elastic
        part, matrix = source.of(volume), motion.from_part(source)
        if number == 1 or not self.preparation.thin:
            if elastic is not None:
                return warp_nearest(part, matrix, elastic, fill)
            return resample_nearest(part, matrix, motion.window.shape, fill)
        if elastic is not None:
            return warp_sheets(part, matrix, elastic, fill, scheme.top << bits)
        return resample_sheets(part, matrix, motion.window.shape, fill)

    def _thinned(self, volume: NDArray[np.uint8], number: int) -> NDArray[np.uint8]:
        """Thin the sheets again, if the cohort's are thin and this is no second volume."""
        if number == 1 or not self.preparation.thin:
            return volume
        scheme = self.preparation.scheme
        return thin(volume, scheme.top, scheme.fill)


@dataclass(frozen=True)
class _Motion:
    """Motion of a volume, and the part of it that is wanted afterwards.

    Attributes:
        window: that part, of the moved volume.
        matrix: (4, 4), voxel index before → after, of the whole volume.
        elastic: (3, *sides of the window), what is added to it, if anything.
    """

    window: Window
    matrix: Matrix
    elastic: Displacement | None = None

    @property
    def source(self) -> Window:
        """Part of the volume that the motion brings into the window, and two voxels around it."""
        beside = 2 if self.elastic is None else 2 + math.ceil(np.abs(self.elastic).max())
        first, last = np.array(self.window.first), np.add(self.window.first, self.window.shape) - 1
        corners = np.array(list(product(*zip(first - beside, last + beside, strict=True))))
        back = np.linalg.inv(self.matrix)
        before = corners @ back[:3, :3].T + back[:3, 3]
        a, b, c = map(int, np.floor(before.min(axis=0)))
        i, j, k = map(int, np.ceil(before.max(axis=0)))
        return Window((a, b, c), (i - a + 1, j - b + 1, k - c + 1))

    def from_part(self, part: Window) -> Matrix:
        """(4, 4), voxel index of a part of the volume → of the window."""
        enter, leave = np.eye(4), np.eye(4)
        enter[:3, 3], leave[:3, 3] = part.first, -np.array(self.window.first)
        return leave @ self.matrix @ enter


def _whole(volumes: NDArray[np.integer]) -> Window:
    """All of (…, I, J, K) volumes."""
    i, j, k = volumes.shape[-3:]
    return Window((0, 0, 0), (i, j, k))


def draw_affine(
    rng: np.random.Generator, options: AugmentationOptions, shape: tuple[int, ...]
) -> Matrix:
    """Draw (d + 1, d + 1) from voxel index to voxel index, about the middle of a volume.

    Rotation about an axis of any direction, in a plane if it is one; stretch of each axis; whole
    voxels of shift, so that a shift alone alters no sheet.
    """
    dims = len(shape)
    axis = rng.standard_normal(3) if dims == 3 else np.array([0.0, 0.0, 1.0])
    angle = np.radians(options.rotation) * rng.uniform(-1, 1)
    turn = Rotation.from_rotvec(angle * axis / np.linalg.norm(axis)).as_matrix()[:dims, :dims]
    linear = turn @ np.diag(1 + options.stretch * rng.uniform(-1, 1, dims))
    shift = np.rint(options.shift * rng.uniform(-1, 1, dims))
    middle = (np.array(shape) - 1) / 2
    matrix = np.eye(dims + 1)
    matrix[:dims, :dims], matrix[:dims, dims] = linear, middle - linear @ middle + shift
    return matrix


@dataclass(frozen=True)
class ImageAugmentation:
    """Turns, stretches, moves and mirrors images; edges go on beyond the border.

    Cubic splines: linear interpolation would teach that images are blurred.

    Attributes:
        options: how much; elastic and dropout are of label volumes.
        seed: of the draws.
    """

    options: AugmentationOptions
    seed: int

    def __post_init__(self) -> None:
        if self.options.elastic or self.options.dropout:
            raise InputError(
                "training.augmentation: images are turned, stretched and shifted; elastic and "
                "dropout are for label volumes"
            )

    def __call__(self, images: NDArray[np.float32], draw: int) -> NDArray[np.float32]:
        """Move (N, *sides) images alike; the same shape comes back."""
        rng = np.random.default_rng(seed_of(self.seed, "augment", draw))
        matrix = draw_affine(rng, self.options, images.shape[1:])
        if self.options.mirror:
            drawn = rng.random(images.ndim - 1) < MIRRORED
            images = np.flip(images, tuple(n + 1 for n in range(len(drawn)) if drawn[n]))
        order = 3 if self.options.rotation or self.options.stretch else 1  # whole pixels: exact
        moved = [
            ndimage.affine_transform(image, matrix[:-1, :-1], matrix[:-1, -1], order=order,
                                     mode="nearest").clip(image.min(), image.max())
            for image in images
        ]  # fmt: skip
        return np.stack(moved)
