"""Training volumes turned, stretched and moved a little, so that few brains teach more.

What is keyed by the number of a draw is the same in a resumed run, and on one process or many.
Thin sheets stay whole: plain nearest neighbour tears about 50 holes into the sheets of a 60 mm
crop turned by 5°, so sheets that were thinned are pushed onto the new grid and thinned again.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial.transform import Rotation

from foldnorm.models.noise import seed_of
from foldnorm.pipeline.training_options import ELASTIC_SPACING, AugmentationOptions
from foldnorm.preprocessing.errors import InputError
from foldnorm.preprocessing.preparation import Preparation
from foldnorm.preprocessing.schemes import LabelScheme
from foldnorm.preprocessing.space import Matrix, resample_nearest, resample_sheets
from foldnorm.preprocessing.thinning import thin
from foldnorm.preprocessing.warp import (
    Displacement,
    smooth_displacement,
    warp_nearest,
    warp_sheets,
)

MIRRORED = 0.5  # share of the draws in which an axis is


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
        i, j, k = volumes.shape[1:]
        if self.options.moves:
            matrix = draw_affine(rng, self.options, (i, j, k))
            elastic = None
            if self.options.elastic:
                most = self.options.elastic
                elastic = smooth_displacement(rng, (i, j, k), most, ELASTIC_SPACING)
            volumes = np.stack([self._moved(v, n, matrix, elastic) for n, v in enumerate(volumes)])
        if self.options.dropout:
            volumes = volumes.copy()
            self._drop(volumes[self.source], rng)
        return volumes

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
        self,
        volume: NDArray[np.uint8],
        number: int,
        matrix: Matrix,
        elastic: Displacement | None,
    ) -> NDArray[np.uint8]:
        i, j, k = volume.shape
        scheme = self.preparation.scheme
        fill = self.second_fill if number == 1 else scheme.fill
        margin = self.options.margin((i, j, k))
        # Beyond the box, what lies at its border goes on.
        wide = np.pad(volume, margin, mode="edge")
        around = np.eye(4)
        around[:3, 3] = margin
        within = matrix @ np.linalg.inv(around)
        if number == 1 or not self.preparation.thin:
            if elastic is not None:
                return warp_nearest(wide, within, elastic, fill).astype(np.uint8)
            return resample_nearest(wide, within, (i, j, k), fill).astype(np.uint8)
        if elastic is None:
            sheets = resample_sheets(wide, within, (i, j, k), fill)
        else:
            sheets = warp_sheets(wide, within, elastic, fill)
        return thin(sheets.astype(np.uint8), scheme.top, fill)


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
