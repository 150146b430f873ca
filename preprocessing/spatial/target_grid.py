"""The grid that a volume is brought to; that of MNI space, beside its own at another voxel size.

Either resamples the classes and the fold labels of a subject the same way.
"""

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from foldnorm.preprocessing.core.choices import Resampling
from foldnorm.preprocessing.core.errors import InputError
from foldnorm.preprocessing.spatial.crop import Box, Index, shifted_affine
from foldnorm.preprocessing.spatial.space import (
    Matrix,
    mni_grid,
    resample_linear,
    resample_nearest,
    resample_priority,
)

Labels = NDArray[np.integer]
FAR = 1e6  # voxels: farther than any grid reaches, and no trouble for integers


class TargetGrid(Protocol):
    """Grid that volumes are resampled onto."""

    @property
    def affine(self) -> Matrix:
        """Affine of the whole grid."""

    @property
    def shape(self) -> Index:
        """Shape of the whole grid."""

    def resample(
        self,
        labels: Labels,
        *,
        method: Resampling = "sulcus-priority",
        canonical_values: NDArray[np.int64] | None = None,
        fill: int = 0,
    ) -> tuple[Labels, Index]:
        """Labels on the grid, same dtype, and the index of their first voxel in it."""


@dataclass(frozen=True)
class MniTarget:
    """The ICBM2009c grid.

    Attributes:
        voxel_to_mni: (4, 4), voxel index of the crop that is resampled → MNI mm.
        voxel_size: mm.
        mirrored: reverse the voxel order of the first axis; in the world nothing moves.
        path: named in errors.
    """

    voxel_to_mni: Matrix
    voxel_size: float
    mirrored: bool
    path: Any

    @property
    def shape(self) -> Index:
        """Shape of the whole grid."""
        return mni_grid(self.voxel_size)[0]

    @property
    def affine(self) -> Matrix:
        """Affine of the whole grid."""
        shape, affine = mni_grid(self.voxel_size)
        if not self.mirrored:
            return affine
        flip = np.diag([-1.0, 1.0, 1.0, 1.0])
        flip[0, 3] = shape[0] - 1
        return affine @ flip

    def resample(
        self,
        labels: Labels,
        *,
        method: Resampling = "sulcus-priority",
        canonical_values: NDArray[np.int64] | None = None,
        fill: int = 0,
    ) -> tuple[Labels, Index]:
        """Resample onto the part of the grid that the crop reaches.

        Raises:
            InputError: the crop lies outside MNI space, or ``max``, which is for whole blocks.
        """
        matrix = np.linalg.inv(self.affine) @ self.voxel_to_mni
        box = self._reached(labels.shape, matrix)
        matrix = np.linalg.inv(shifted_affine(np.eye(4), box.start)) @ matrix
        if method == "sulcus-priority":
            return resample_priority(labels, matrix, box.shape, fill), box.start
        if method == "nearest":
            return resample_nearest(labels, matrix, box.shape, fill), box.start
        if method == "max":
            raise InputError("--resampling max is for blocks of whole voxels; not with --space mni")
        values = np.arange(int(labels.max()) + 1) if canonical_values is None else canonical_values
        found = resample_linear(values[labels], matrix, box.shape, int(values[fill]))
        order = np.argsort(values)
        middles = (values[order][1:] + values[order][:-1]) / 2
        return order[np.searchsorted(middles, found)].astype(labels.dtype), box.start

    def _reached(self, shape: tuple[int, ...], matrix: Matrix) -> Box:
        corners = np.array([[*corner, 1] for corner in np.ndindex(2, 2, 2)], dtype=np.float64)
        corners[:, :3] *= np.array(shape) - 1
        places = np.clip((matrix @ corners.T)[:3], -FAR, FAR)
        start = np.maximum(np.floor(places.min(axis=1)).astype(int), 0)
        stop = np.minimum(np.ceil(places.max(axis=1)).astype(int) + 1, self.shape)
        if (stop <= start).any():
            raise InputError(f"lies outside MNI space; is that its transform?: {self.path}")
        i, j, k = (int(n) for n in start)
        a, b, c = (int(n) for n in stop)
        return Box((i, j, k), (a, b, c))
