"""Options of the random augmentation of training volumes, and the affine that all kinds draw."""

import math
from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation

from foldnorm.preprocessing.core.errors import InputError
from foldnorm.preprocessing.spatial.space import Matrix

STREAM = "augment"  # of random numbers, shared by all kinds of augmentation
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
                expected = "0 or more" if limit == math.inf else f"0 to {limit:g}"
                raise InputError(f"{name}: expected {expected}, got {value:g}")

    @property
    def moves(self) -> bool:
        """True if volumes are rotated, stretched, shifted or deformed."""
        return bool(self.rotation or self.stretch or self.shift or self.elastic)


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
