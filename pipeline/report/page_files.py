"""Files of what a page about one brain shows, written when it is scored and read by the report.

``pages/<key>.npz`` holds arrays, ``pages.json`` who the brains are and what the arrays mean. The
report reads them without a model, without a cohort, and without pickle.
"""

import io
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foldnorm.preprocessing.core.arrays import read_npz
from foldnorm.preprocessing.core.errors import InputError
from foldnorm.preprocessing.core.files import write_bytes

AXES = ("sagittal", "coronal", "axial")  # planes across the first, second and third axis
Volume = NDArray[np.uint8]


@dataclass(frozen=True)
class PageArrays:
    """Arrays of a page; right hemispheres as the cohort stores them, perhaps mirrored.

    Planes go through the largest z of the strongest region: ``…_sagittal`` (J, K), ``…_coronal``
    (I, K), ``…_axial`` (I, J).

    Attributes:
        volume: (I, J, K) uint8 class numbers of the brain.
        z: (I, J, K) uint8, departure towards fewer folds, 255 for the largest; 0 also below 0.
        regions: (I, J, K) uint8, rank of each voxel's region, 0 for none.
        share_sagittal: of the healthy brains that have a fold there, 255 for all of them.
        expected_sagittal: float16, healthy mean of the map that z is of.
        healthy_sagittal: (n, J, K) class numbers of some healthy brains.
    """

    volume: Volume
    z: Volume
    regions: Volume
    share_sagittal: Volume
    share_coronal: Volume
    share_axial: Volume
    expected_sagittal: NDArray[np.float16]
    expected_coronal: NDArray[np.float16]
    expected_axial: NDArray[np.float16]
    healthy_sagittal: Volume
    healthy_coronal: Volume
    healthy_axial: Volume

    def planes(self, what: str) -> list[NDArray[Any]]:
        """Sagittal, coronal and axial plane of ``share``, ``expected`` or ``healthy``."""
        return [getattr(self, f"{what}_{axis}") for axis in AXES]

    def mirrored(self) -> "PageArrays":
        """Return the arrays with left and right exchanged: the first axis runs the other way."""
        turned = {}
        for own in fields(self):
            array = getattr(self, own.name)
            has_axis = not own.name.endswith("_sagittal")
            axis = 1 if own.name.startswith("healthy") else 0  # after the number of the brain
            turned[own.name] = np.flip(array, axis) if has_axis else array
        return PageArrays(**turned)

    def write(self, path: Path) -> None:
        """Write a compressed ``.npz``, atomically."""
        stream = io.BytesIO()
        np.savez_compressed(stream, **{own.name: getattr(self, own.name) for own in fields(self)})
        write_bytes(path, stream.getvalue())

    @classmethod
    def read(cls, path: Path) -> "PageArrays":
        """Read what `write` has written.

        Raises:
            InputError: there is no such file, or something else in it.
        """
        try:
            held = read_npz(path)
            return cls(**{own.name: held[own.name] for own in fields(cls)})
        except (InputError, KeyError) as error:
            raise InputError(
                f"not the arrays of a page ({error}), score again with --maps: {path}"
            ) from error


def planes_at(volume: NDArray[Any], at: tuple[int, int, int]) -> list[NDArray[Any]]:
    """Sagittal, coronal and axial plane of (I, J, K) through a voxel."""
    i, j, k = at
    return [volume[i], volume[:, j], volume[:, :, k]]
