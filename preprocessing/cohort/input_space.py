"""The way back: from the packed grid of a cohort to the file that a volume was made of."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from foldnorm.preprocessing.cohort.cohort import Cohort
from foldnorm.preprocessing.cohort.layout import Layout
from foldnorm.preprocessing.cohort.prepared_index import prepared_volume
from foldnorm.preprocessing.core.choices import Orientation
from foldnorm.preprocessing.core.errors import InputError
from foldnorm.preprocessing.io.volumes import read_labels
from foldnorm.preprocessing.spatial.crop import shape_of, shifted_affine
from foldnorm.preprocessing.spatial.crop_spec import CropSpec
from foldnorm.preprocessing.spatial.space import (
    Matrix,
    Shape,
    resample_linear,
    resample_nearest,
    voxel_to_mni,
)


@dataclass(frozen=True)
class InputSpace:
    """Grid of an input file, in which results on its packed volume are written.

    Attributes:
        path: of the file; None: it is not known or not there any more, so that results stay in the
            grid of the cohort.
        assume: directions that its voxels are taken to run in, if its header does not say.
        shape: of its grid, RAS+.
        affine: (4, 4) of its grid.
        matrix: (4, 4), packed voxel → voxel of its grid.
        to_world: (4, 4), packed voxel → mm of the space that the cohort lies in; a mirrored right
            hemisphere lies on the right there, though its voxels are in left-side order.
        to_mni: (4, 4), packed voxel → MNI mm; None if no transform leads there.
    """

    path: Path | None
    assume: Orientation | None
    shape: Shape
    affine: Matrix
    matrix: Matrix
    to_world: Matrix
    to_mni: Matrix | None

    @classmethod
    def from_row(cls, cohort: Cohort, row: Mapping[str, str]) -> "InputSpace":
        """Return the input space of a row of ``participants.tsv``."""
        is_mni = cohort.preparation["space"] == "mni"
        to_world = cohort.affine_of(row)
        i, j, k = cohort.shape
        to_mni = to_world if is_mni else None
        stays = cls(None, None, (i, j, k), to_world, np.eye(4), to_world, to_mni)
        try:
            finished = prepared_volume(cohort.folder, row)
            prepared = finished.read("_dseg")
            source = finished.source
            volume = read_labels(source.path, assume=source.assume)
        except (InputError, OSError):
            return stays
        layout = Layout.from_cohort(cohort.folder)
        box = layout.target(finished, CropSpec.from_record(cohort.preparation))
        offset = np.subtract(box.start, finished.bounds.start)
        packed_to_space = shifted_affine(prepared.affine, offset.tolist())
        transform, shape = source.companions.transform, shape_of(volume.data)
        own_to_mni = None
        if transform is not None:
            own_to_mni = voxel_to_mni(transform, shape, volume.affine, volume.voxel_size)
        own_to_space = volume.affine
        if is_mni:
            assert own_to_mni is not None  # or it could not have been prepared
            own_to_space = own_to_mni
        matrix = np.linalg.inv(own_to_space) @ packed_to_space
        to_mni = None if own_to_mni is None else own_to_mni @ matrix
        return cls(source.path, source.assume, shape, volume.affine, matrix, to_world, to_mni)

    def to_input_grid(
        self, values: NDArray[np.floating], fill: float = 0.0
    ) -> NDArray[np.floating]:
        """Resample (I, J, K) quantities of the packed grid onto the input file's, trilinearly."""
        if self.path is None:
            return values
        return resample_linear(values - fill, self.matrix, self.shape, 0) + fill

    def labels_to_input_grid(self, labels: NDArray[np.integer]) -> NDArray[np.integer]:
        """Resample (I, J, K) labels of the packed grid onto the input file's, nearest voxel."""
        if self.path is None:
            return labels
        return resample_nearest(labels, self.matrix, self.shape, 0)
