"""Label volumes read from and written to NIfTI, always in RAS+ voxel order.

Axes are only flipped and permuted, never interpolated, so a voxel keeps its value and its place
in the world. Volumes of one subject that agree voxel for voxel after this may still carry
different affines (FACTS of Morphologist: up to 24 mm), so pairs are made by grid, not by affine.
"""

import re
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path

import nibabel
import numpy as np
from isal import igzip
from numpy.typing import NDArray

from foldnorm.preprocessing.core.choices import Orientation
from foldnorm.preprocessing.core.counts import counted
from foldnorm.preprocessing.core.errors import InputError
from foldnorm.preprocessing.core.files import sha256, write_bytes
from foldnorm.preprocessing.io.file_pairs import pair_fault
from foldnorm.preprocessing.io.gzipped import expand, head_of
from foldnorm.preprocessing.io.volume_headers import (
    VolumeHeader,
    read_mgh_header,
    read_nifti_header,
)

NIFTI_SUFFIXES = (".nii", ".nii.gz")
MGH_SUFFIXES = (".mgh", ".mgz")  # FreeSurfer's
VOLUME_SUFFIX = re.compile(r"(\.nii)?(\.gz)?$|\.mg[hz]$", re.IGNORECASE)
# Cosine between a voxel axis and the nearest world axis below which a grid counts as rotated:
# at 1e-3 the far corner of a 256 mm volume moves by a quarter of a millimetre.
MAX_AXIS_TILT = 1e-3
# Labels come back as 0.9999999 from a slope that is stored in float32; up to 16,000 they are within
# this of their integer.
NEAR_INTEGER = 1e-3
COMPRESSION_LEVEL = 1  # of ISA-L: on label volumes 30 times faster than zlib's 1, and smaller


@dataclass(frozen=True)
class LabelVolume:
    """A 3-D volume of integer labels in RAS+ order.

    Attributes:
        data: (I, J, K) integers, a view where possible.
        affine: (4, 4) float64, voxel index of ``data`` → world mm.
        sha256: of the file's bytes as they lie on disk; empty for a volume made in memory.
        path: where it was read.
        warnings: what is unusual about its file and what was made of it, a line each.
    """

    data: NDArray[np.integer]
    affine: NDArray[np.float64]
    sha256: str = ""
    path: Path | None = None
    warnings: tuple[str, ...] = ()

    @property
    def voxel_size(self) -> tuple[float, float, float]:
        """Sides of a voxel in mm."""
        return voxel_size_of(self.affine)


def voxel_size_of(affine: NDArray[np.float64]) -> tuple[float, float, float]:
    """Sides of a voxel in mm, along the three voxel axes of ``affine``."""
    i, j, k = np.linalg.norm(affine[:3, :3], axis=0)
    return float(i), float(j), float(k)


def is_volume(path: Path) -> bool:
    """Return whether the name is that of a single-file NIfTI or of a FreeSurfer volume."""
    return path.name.lower().endswith(NIFTI_SUFFIXES + MGH_SUFFIXES)


def volume_stem(path: Path) -> str:
    """File name without ``.nii``, ``.nii.gz``, ``.mgh`` or ``.mgz``, in whatever case."""
    return VOLUME_SUFFIX.sub("", path.name)


def sidecar_path(path: Path) -> Path:
    """Path of the JSON file beside a volume that says what it is."""
    return path.with_name(f"{volume_stem(path)}.json")


def read_labels(path: Path, *, assume: Orientation | None = None) -> LabelVolume:
    """Read a 3-D label volume and bring it to RAS+ order, in mm.

    Args:
        path: of a NIfTI or a FreeSurfer volume, gzipped or not.
        assume: directions that its voxels run in, if its header does not say.

    Raises:
        InputError: missing, empty, truncated or foreign file; not 3-D; left and right are not
            known; a rotated affine; values that are not finite integers.
    """
    content = _read_file(path)
    voxels, header = _read_voxels(content, path, assume)
    if header.n_axes < 3:
        raise InputError(f"expected a 3-D volume, got {header.n_axes} axes: {path}")
    data, affine = to_ras(as_integers(voxels, path), header.affine, path)
    return LabelVolume(data, affine, sha256(content), path, header.warnings)


def read_intensities(
    path: Path, *, assume: Orientation | None = None
) -> tuple[NDArray[np.generic], tuple[str, ...]]:
    """Read grey values, axes in the order nearest to right, anterior, superior, and warnings.

    Args:
        path: of a NIfTI or a FreeSurfer volume, gzipped or not.
        assume: directions that its voxels run in, if its header does not say.

    Returns:
        (I, J, K) real numbers, a view where possible, and what is unusual about the file.

    Raises:
        InputError: missing, empty, truncated or foreign file; more than 3 axes; left and right
            are not known; colours or complex numbers.
    """
    voxels, header = _read_voxels(_read_file(path), path, assume)
    _refuse_unreal(voxels, "grey values", path)
    orientation = nibabel.orientations.io_orientation(header.affine)
    return nibabel.orientations.apply_orientation(voxels, orientation), header.warnings


def read_map(path: Path) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Read a 3-D map of quantities as it is stored, and its affine.

    Raises:
        InputError: missing, empty, truncated or foreign file; not 3-D.
    """
    voxels, header = _read_voxels(_read_file(path), path, None)
    _refuse_unreal(voxels, "a map of quantities", path)
    return np.asarray(voxels, dtype=np.float64), header.affine


def write_labels(
    path: Path, data: NDArray[np.integer], affine: NDArray[np.float64], *, description: str = ""
) -> None:
    """Write labels as NIfTI-1: same input, same bytes; both form codes, mm, intent LABEL.

    Args:
        path: ends in ``.nii`` or ``.nii.gz``.
        data: (I, J, K) integers, of the type that `label_dtype` says.
        affine: (4, 4), voxel index → world mm.
        description: at most 79 characters, kept in the header.
    """
    _write(path, data, affine, "label", description)


def label_dtype(values: NDArray[np.integer]) -> np.dtype[np.integer]:
    """Return the type that label volumes of these values are written in.

    Args:
        values: all that may occur, so that volumes of one kind have one type.

    Raises:
        InputError: a value is beyond 32 bits.

    Example:
        >>> label_dtype(np.array([0, 11, 60])), label_dtype(np.array([-1, 1]))
        (dtype('uint8'), dtype('int16'))
    """
    low, high = int(values.min()), int(values.max())
    for kind in (np.uint8, np.uint16, np.int16, np.int32):
        if np.iinfo(kind).min <= low and high <= np.iinfo(kind).max:
            return np.dtype(kind)
    raise InputError(f"expected label values of 32 bits, got {low} to {high}")


def nifti_bytes(
    data: NDArray[np.generic],
    affine: NDArray[np.float64],
    intent: str = "label",
    description: str = "",
    *,
    compressed: bool = True,
) -> bytes:
    """Return what a NIfTI-1 file of the volume holds; see `write_labels`."""
    image = nibabel.Nifti1Image(data, affine)
    image.header.set_intent(intent)
    image.header.set_xyzt_units("mm")
    image.header["descrip"] = description[:79].encode("ascii", "replace")
    image.set_sform(affine, code="scanner")
    image.set_qform(affine, code="scanner")
    content = image.to_bytes()
    if compressed:
        content = igzip.compress(content, compresslevel=COMPRESSION_LEVEL, mtime=0)
    return content


def _write(
    path: Path,
    data: NDArray[np.generic],
    affine: NDArray[np.float64],
    intent: str,
    description: str,
) -> None:
    compressed = path.name.endswith(".gz")
    write_bytes(path, nifti_bytes(data, affine, intent, description, compressed=compressed))


def write_map(
    path: Path, data: NDArray[np.floating], affine: NDArray[np.float64], *, description: str = ""
) -> None:
    """Write a map of quantities as NIfTI-1; the arguments are those of `write_labels`."""
    _write(path, data.astype(np.float32, copy=False), affine, "none", description)


def to_ras(
    data: NDArray[np.integer], affine: NDArray[np.float64], path: Path | None = None
) -> tuple[NDArray[np.integer], NDArray[np.float64]]:
    """Flip and permute axes (a view, no interpolation) so that they run right, anterior, superior.

    Raises:
        InputError: the axes of ``affine`` are not those of the world, or it is singular.
    """
    directions = affine[:3, :3]
    sizes = np.linalg.norm(directions, axis=0)
    if not np.isfinite(affine).all() or (sizes < 1e-6).any():
        raise InputError(f"affine is singular or not finite: {path}")
    cosines = np.abs(directions / sizes)
    tilt = np.sort(cosines, axis=0)[1].max()
    if tilt > MAX_AXIS_TILT or set(cosines.argmax(axis=0)) != {0, 1, 2}:
        degrees = float(np.degrees(np.arcsin(min(tilt, 1.0))))
        raise InputError(
            f"affine is rotated by {degrees:.1f}° from the axes; expected an axis-aligned grid "
            f"(resample the volume with nearest neighbour first): {path}"
        )
    orientation = nibabel.orientations.io_orientation(affine)
    turned = nibabel.orientations.apply_orientation(data, orientation)
    back = nibabel.orientations.inv_ornt_aff(orientation, data.shape)
    return turned, affine @ back


def mirror_left_right(volume: LabelVolume) -> LabelVolume:
    """Reverse the voxel order of the first axis and keep the affine true (RAS+ → LAS+).

    A right hemisphere then has the voxel layout of a left one; in the world nothing moves.
    """
    flip = np.diag([-1.0, 1.0, 1.0, 1.0])
    flip[0, 3] = volume.data.shape[0] - 1
    return replace(volume, data=volume.data[::-1], affine=volume.affine @ flip)


def _read_file(path: Path) -> bytes:
    if not is_volume(path):
        expected = "expected a volume (.nii, .nii.gz, or FreeSurfer's .mgh, .mgz), got"
        raise InputError(f"{pair_fault(path) or expected}: {path}")
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise InputError(f"no such file: {path}") from None
    except OSError as error:
        raise InputError(f"not readable ({error.strerror}): {path}") from error
    if not content:
        raise InputError(f"empty file (0 bytes): {path}")
    return content


def _read_voxels(
    content: bytes, path: Path, assume: Orientation | None
) -> tuple[NDArray[np.generic], VolumeHeader]:
    """Voxels (I, J, K) in the order of the file, and their header."""
    is_mgh = path.name.lower().endswith(MGH_SUFFIXES)
    read_header = read_mgh_header if is_mgh else read_nifti_header
    header = read_header(head_of(content, path), path, assume)
    try:
        whole = expand(content, header.n_bytes, path)
        voxels = _voxels(whole, header)
    except MemoryError:
        shape = " × ".join(map(str, header.shape))
        raise InputError(f"{shape} voxels do not fit into memory: {path}") from None
    trailing = len(whole) - header.n_bytes
    if trailing and not is_mgh:  # FreeSurfer keeps a footer there
        said = f"{trailing} bytes after its voxels are not accounted for by its header"
        header = replace(header, warnings=(*header.warnings, said))
    return voxels, header


def _voxels(content: bytes, header: VolumeHeader) -> NDArray[np.generic]:
    """View the voxels inside ``content``: (I, J, K) in Fortran order, scaled if the header says."""
    count = prod(header.shape)
    data = np.frombuffer(content, header.dtype, count=count, offset=header.offset)
    data = data.reshape(header.shape, order="F")
    if (header.slope, header.intercept) == (1.0, 0.0) or data.dtype.names:
        return data
    return data * np.float64(header.slope) + np.float64(header.intercept)


def _refuse_unreal(data: NDArray[np.generic], expected: str, path: Path | None) -> None:
    """Refuse colours and complex numbers."""
    if data.dtype.names or np.iscomplexobj(data):
        kind = "colours" if data.dtype.names else str(data.dtype)
        raise InputError(f"expected {expected}, got voxels of type {kind}{_of(path)}")


def as_integers(data: NDArray[np.generic], path: Path | None = None) -> NDArray[np.integer]:
    """Return labels, which may be stored as other numbers, as integers.

    Args:
        data: labels of any shape; numbers within `NEAR_INTEGER` of an integer are that integer.
        path: named in errors.

    Raises:
        InputError: a value is none.
    """
    _refuse_unreal(data, "integer labels", path)
    if data.dtype.kind in "iub":
        return data.astype(data.dtype.newbyteorder("="), copy=False)
    values = np.asarray(data, dtype=np.float64)
    if not np.isfinite(values).all():
        nan = counted(int(np.count_nonzero(~np.isfinite(values))), "NaN or infinite voxel")
        raise InputError(f"expected integer labels, got {nan}{_of(path)}")
    whole = np.rint(values)
    off = np.abs(values - whole)
    if (off > NEAR_INTEGER).any():
        voxels = counted(int(np.count_nonzero(off > NEAR_INTEGER)), "voxel")
        worst = float(values.flat[int(off.argmax())])
        raise InputError(
            f"expected integer labels, got {voxels} such as {worst:.9g} (resample labels "
            f"with nearest neighbour){_of(path)}"
        )
    if (np.abs(whole) > np.iinfo(np.int32).max).any():
        raise InputError(f"expected integer labels, got {np.abs(whole).max():g}{_of(path)}")
    return whole.astype(np.int32)


def _of(path: Path | None) -> str:
    return "" if path is None else f": {path}"
