"""Label volumes read from and written to NIfTI, always in RAS+ voxel order.

Axes are only flipped and permuted, never interpolated, so a voxel keeps its value and its place
in the world. Volumes of one subject that agree voxel for voxel after this may still carry
different affines (FACTS of Morphologist: up to 24 mm), so pairs are made by grid, not by affine.
"""

import gzip
import logging
import re
import zlib
from dataclasses import dataclass
from pathlib import Path

import nibabel
import numpy as np
from isal import igzip, isal_zlib
from numpy.typing import NDArray

from foldnorm.preprocessing.core.errors import InputError
from foldnorm.preprocessing.core.files import sha256, write_bytes

NIFTI_SUFFIXES = (".nii", ".nii.gz")
MGH_SUFFIXES = (".mgh", ".mgz")  # FreeSurfer's
VOLUME_SUFFIX = re.compile(r"(\.nii)?(\.gz)?$|\.mg[hz]$", re.IGNORECASE)
# Cosine between a voxel axis and the nearest world axis below which a grid counts as rotated:
# at 1e-3 the far corner of a 256 mm volume moves by a quarter of a millimetre.
MAX_AXIS_TILT = 1e-3
GZIP_MAGIC = b"\x1f\x8b"
MAX_DEFLATE_RATIO = 1100  # deflate cannot expand further: guards against a lying size
GZIP_WINDOW_BITS = 31  # zlib's number for "expect a gzip header"
REPAIRS = logging.getLogger(__name__)  # of headers; below a warning they change nothing
REPAIRS.addHandler(logging.NullHandler())
REPAIRS.propagate = False
COMPRESSION_LEVEL = 1  # of ISA-L: on label volumes 30 times faster than zlib's 1, and smaller


@dataclass(frozen=True)
class LabelVolume:
    """A 3-D volume of integer labels in RAS+ order.

    Attributes:
        data: (I, J, K) integers, a view where possible.
        affine: (4, 4) float64, voxel index of ``data`` → world mm.
        sha256: of the file's bytes as they lie on disk; empty for a volume made in memory.
        path: where it was read.
    """

    data: NDArray[np.integer]
    affine: NDArray[np.float64]
    sha256: str = ""
    path: Path | None = None

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


def read_labels(path: Path) -> LabelVolume:
    """Read a 3-D label volume and bring it to RAS+ order.

    Raises:
        InputError: missing, empty, truncated or foreign file; not 3-D; a rotated affine; values
            that are not finite integers.
    """
    compressed = _read_file(path)
    packed = path.name.lower().endswith((".gz", ".mgz"))
    content = _decompress(compressed, path) if packed else compressed
    if path.name.lower().endswith(MGH_SUFFIXES):
        voxels, affine = _read_mgh(content, path)
    else:
        header, affine = _read_header(content, path)
        voxels = _voxels(content, header, path)
    data = _as_integers(voxels, path)
    data, affine = to_ras(data, affine, path)
    return LabelVolume(data, affine, sha256(compressed), path)


def read_map(path: Path) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Read a 3-D map of quantities, and its affine.

    Raises:
        InputError: missing, empty, truncated or foreign file; not 3-D.
    """
    content = _read_file(path)
    if path.name.lower().endswith(".gz"):
        content = _decompress(content, path)
    header, affine = _read_header(content, path)
    return np.asarray(_voxels(content, header, path), dtype=np.float64), affine


def write_labels(
    path: Path, data: NDArray[np.integer], affine: NDArray[np.float64], *, description: str = ""
) -> None:
    """Write labels as NIfTI-1: same input, same bytes; both form codes, mm, intent LABEL.

    Args:
        path: ends in ``.nii`` or ``.nii.gz``.
        data: (I, J, K) uint8 or uint16.
        affine: (4, 4), voxel index → world mm.
        description: at most 79 characters, kept in the header.
    """
    _write(path, data, affine, "label", description)


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
    return LabelVolume(volume.data[::-1], volume.affine @ flip, volume.sha256, volume.path)


def _read_file(path: Path) -> bytes:
    if not is_volume(path):
        raise InputError(
            f"expected a volume (.nii, .nii.gz, or FreeSurfer's .mgh, .mgz), got: {path}"
        )
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise InputError(f"no such file: {path}") from None
    except OSError as error:
        raise InputError(f"not readable ({error.strerror}): {path}") from error
    if not content:
        raise InputError(f"empty file (0 bytes): {path}")
    return content


def _decompress(compressed: bytes, path: Path) -> bytes:
    if not compressed.startswith(GZIP_MAGIC):
        raise InputError(f"named {path.suffix} but not a gzip file: {path}")
    # The last four bytes say the size: the buffer is taken once and never copied as it grows.
    size = int.from_bytes(compressed[-4:], "little")
    hint = min(max(size, zlib.DEF_BUF_SIZE), MAX_DEFLATE_RATIO * len(compressed))
    try:
        content = isal_zlib.decompress(compressed, wbits=GZIP_WINDOW_BITS, bufsize=hint)
        if len(content) == size:
            return content
    except isal_zlib.error:  # type: ignore[misc]  # the stub names an instance, not the class
        pass
    # Truncated, damaged, or of several members, of which only the first was read.
    try:
        return gzip.decompress(compressed)
    except (EOFError, OSError, zlib.error) as error:
        raise InputError(f"truncated or damaged gzip file ({error}): {path}") from error


def _read_header(content: bytes, path: Path) -> tuple[nibabel.Nifti1Header, NDArray[np.float64]]:
    is_nifti2 = int.from_bytes(content[:4], "little") == 540 or content[:4] == b"\0\0\x02\x1c"
    kind = nibabel.Nifti2Header if is_nifti2 else nibabel.Nifti1Header
    try:
        header = kind(content[: kind.template_dtype.itemsize], check=False)
        # What nibabel would repair by a guess, and say on stderr without the file's name.
        header.check_fix(logger=REPAIRS, error_level=logging.WARNING)
        affine = np.asarray(header.get_best_affine(), dtype=np.float64)
        shape = header.get_data_shape()
    except Exception as error:  # nibabel raises many kinds on foreign bytes
        raise InputError(f"not a NIfTI file ({error}): {path}") from error
    if len(shape) < 3 or any(side != 1 for side in shape[3:]):
        raise InputError(f"expected a 3-D volume, got shape {tuple(shape)}: {path}")
    if min(shape) < 1:
        raise InputError(f"volume has an empty side, shape {tuple(shape)}: {path}")
    return header, affine


def _read_mgh(content: bytes, path: Path) -> tuple[NDArray[np.generic], NDArray[np.float64]]:
    """Voxels (I, J, K) and affine of a FreeSurfer volume."""
    try:
        image = nibabel.MGHImage.from_bytes(content)
        affine = np.asarray(image.affine, dtype=np.float64)
        shape = image.shape
        expected = int(np.prod(shape, dtype=object)) * image.get_data_dtype().itemsize
    except Exception as error:  # nibabel raises many kinds on foreign bytes
        raise InputError(f"not a FreeSurfer volume ({error}): {path}") from error
    if len(shape) < 3 or any(side != 1 for side in shape[3:]):
        raise InputError(f"expected a 3-D volume, got shape {tuple(shape)}: {path}")
    if min(shape) < 1 or expected > len(content):
        raise InputError(f"truncated: {expected} bytes expected, got {len(content)}: {path}")
    return np.asarray(image.dataobj).reshape(shape[:3]), affine


def _voxels(content: bytes, header: nibabel.Nifti1Header, path: Path) -> NDArray[np.generic]:
    """View the voxels inside ``content``: (I, J, K) in Fortran order, scaled if the header says."""
    shape = header.get_data_shape()[:3]
    dtype = header.get_data_dtype()
    offset = int(header["vox_offset"])
    expected = offset + int(np.prod(shape)) * dtype.itemsize
    if len(content) < expected:
        raise InputError(f"truncated: {expected} bytes expected, got {len(content)}: {path}")
    data = np.frombuffer(content, dtype, count=int(np.prod(shape)), offset=offset)
    data = data.reshape(shape, order="F")
    slope, intercept = header.get_slope_inter()
    if slope in (None, 1.0) and intercept in (None, 0.0):
        return data
    return data * np.float64(slope or 1.0) + np.float64(intercept or 0.0)


def _as_integers(data: NDArray[np.generic], path: Path) -> NDArray[np.integer]:
    if data.dtype.names or np.iscomplexobj(data):
        raise InputError(f"expected integer labels, got voxels of type {data.dtype}: {path}")
    if data.dtype.kind in "iub":
        return data.astype(data.dtype.newbyteorder("="), copy=False)
    if not np.isfinite(data).all():
        count = int(np.size(data) - np.isfinite(data).sum())
        raise InputError(f"expected integer labels, got {count} NaN or infinite voxels: {path}")
    whole = np.rint(data)
    if (whole != data).any():
        value = float(data[whole != data].flat[0])
        count = int((whole != data).sum())
        raise InputError(f"expected integer labels, got {count} voxels such as {value:g}: {path}")
    if (np.abs(whole) > np.iinfo(np.int32).max).any():
        raise InputError(f"expected integer labels, got {float(np.abs(whole).max()):g}: {path}")
    return whole.astype(np.int32)
