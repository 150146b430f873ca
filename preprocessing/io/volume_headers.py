"""Headers of volumes, NIfTI-1, NIfTI-2 and FreeSurfer's, as FSL, ITK and nibabel read them.

What a header says oddly is read the way the format's own library does, and said in a warning.
What it does not say is not guessed: a volume that does not tell left from right is refused, unless
the user says how its voxels run.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import get_args

import nibabel
import numpy as np
from numpy.typing import NDArray

from foldnorm.preprocessing.core.choices import Orientation
from foldnorm.preprocessing.core.errors import InputError

Matrix = NDArray[np.float64]

SINGLE_FILE_MAGIC = {b"n+1\0": nibabel.Nifti1Header, b"n+2\0": nibabel.Nifti2Header}
PAIR_MAGIC = (b"ni1\0", b"ni2\0")  # header and voxels in two files
MAGIC_AT = (344, 4)  # NIfTI-1, NIfTI-2
EXTENDER_BYTES = 4  # after a header, before extensions or voxels
MAX_AXES = 7
FORM_CODES = 5  # the standard names so many; a greater one is still a form
MGH_RAS_FLAG = slice(28, 30)  # bytes of goodRASFlag
UNITS = {1: ("metres", 1000.0), 2: ("mm", 1.0), 3: ("microns", 0.001)}  # xyzt_units → mm
USUAL_MM = 0.02, 20.0  # sides of a voxel: outside, an unnamed unit is hardly mm
SAME_SIZE = 0.01  # of voxels: two statements closer than this agree
SAME_PLACE = 1.0  # mm, of the corners of a volume
TEMPLATE_CODES = (3, 4, 5)  # forms that lead to another space than the scanner's, so may differ
MIN_VOLUME = 1e-3  # of the parallelepiped of the three axes' directions; below, it is flat


@dataclass(frozen=True)
class VolumeHeader:
    """Header of a volume, as it is used.

    Attributes:
        n_axes: that the file has, 1 to 7; those above the third have one side each.
        shape: (I, J, K) of space.
        dtype: of a voxel as it is stored, with its byte order.
        offset: byte of the first voxel.
        slope: of stored values.
        intercept: of stored values.
        affine: (4, 4), voxel index → world mm.
        warnings: what is unusual and what was made of it, a line each.
    """

    n_axes: int
    shape: tuple[int, int, int]
    dtype: np.dtype
    offset: int
    affine: Matrix
    warnings: tuple[str, ...]
    slope: float = 1.0
    intercept: float = 0.0

    @property
    def n_bytes(self) -> int:
        """Size of the file that this header accounts for."""
        return self.offset + prod(self.shape) * self.dtype.itemsize


def read_nifti_header(head: bytes, path: Path, assume: Orientation | None = None) -> VolumeHeader:
    """Read the header of a single-file NIfTI.

    Args:
        head: first bytes of the file.
        path: named in errors.
        assume: directions that the voxels run in, if neither sform nor qform says.

    Raises:
        InputError: no such header; no volume of at most three axes; left and right are not known.
    """
    fields = _nifti_fields(head, path)
    n_axes, shape = _shape([int(n) for n in fields["dim"]], path)
    code = int(fields["datatype"])
    try:
        dtype = fields.get_data_dtype()
    except Exception as error:  # nibabel raises several kinds
        raise InputError(f"unknown NIfTI data type, code {code}: {path}") from error
    if not dtype.itemsize:
        raise InputError(f"unsupported NIfTI data type, code {code}: {path}")
    affine, warnings = _nifti_affine(fields, shape, assume, path)
    slope, intercept = float(fields["scl_slope"]), float(fields["scl_inter"])
    if not np.isfinite(slope) or slope == 0:  # by the standard: values are as stored
        slope, intercept = 1.0, 0.0
    return VolumeHeader(
        n_axes,
        shape,
        dtype,
        _offset(fields, path),
        affine,
        tuple(warnings),
        slope,
        intercept if np.isfinite(intercept) else 0.0,
    )


def read_mgh_header(head: bytes, path: Path, assume: Orientation | None = None) -> VolumeHeader:
    """Read the header of a FreeSurfer volume; the arguments are those of `read_nifti_header`.

    Raises:
        InputError: no such header; no volume of three axes; left and right are not known.
    """
    try:
        fields = nibabel.MGHImage.header_class(head, check=True)
        dtype = fields.get_data_dtype().newbyteorder(">")
        affine = np.asarray(fields.get_affine(), dtype=np.float64)
    except Exception as error:  # nibabel raises many kinds on foreign bytes
        raise InputError(f"not a FreeSurfer volume ({error}): {path}") from error
    n_axes, shape = _shape([4, *(int(n) for n in fields["dims"])], path)
    warnings: tuple[str, ...] = ()
    has_directions = any(head[MGH_RAS_FLAG])
    if not has_directions or _is_flat(affine):
        reason = "its directions are singular" if has_directions else "goodRASFlag is 0"
        sizes = [abs(float(size)) for size in fields["delta"]]
        affine = _assumed(sizes, shape, assume, reason, path)
        warnings = (_assumption(assume),)
    return VolumeHeader(n_axes, shape, dtype, fields.get_data_offset(), affine, warnings)


def _nifti_fields(head: bytes, path: Path) -> nibabel.Nifti1Header:
    """Fields of a header in the byte order that makes sense of them."""
    magics = [head[at : at + 4] for at in MAGIC_AT]
    kind = next((SINGLE_FILE_MAGIC[m] for m in magics if m in SINGLE_FILE_MAGIC), None)
    if kind is None:
        reason = "no NIfTI magic number in its header"
        if any(magic in PAIR_MAGIC for magic in magics):
            reason = "the header of a pair of files, .hdr and .img; expected both in one .nii"
        raise InputError(f"not a NIfTI file ({reason}): {path}")
    n_bytes = kind.template_dtype.itemsize
    if len(head) < n_bytes:
        raise InputError(f"truncated: {n_bytes} bytes expected, got {len(head)}: {path}")
    orders = [kind(head[:n_bytes], endianness=order, check=False) for order in "<>"]
    by_size = [fields for fields in orders if fields["sizeof_hdr"] == n_bytes]
    by_axes = [fields for fields in orders if 0 <= fields["dim"][0] <= MAX_AXES]
    found = by_size or by_axes
    if not found:
        raise InputError(f"not a NIfTI file (sizeof_hdr and dim[0] make no sense): {path}")
    return found[0]


def _shape(dim: Sequence[int], path: Path) -> tuple[int, tuple[int, int, int]]:
    """Return the number of axes, and the sides of space."""
    n_axes, sides = dim[0], list(dim[1 : dim[0] + 1])
    if not 0 <= n_axes <= MAX_AXES:
        raise InputError(f"expected 3 axes, got {n_axes}: {path}")
    # The standard's own library reads a count below 1 as 1 where it is not of space.
    later = [max(side, 1) for side in sides[3:]]
    if any(side != 1 for side in later) or not n_axes:
        raise InputError(
            f"expected a 3-D volume, got shape {tuple(sides)}; keep one volume of it: {path}"
        )
    space = (*sides[:3], 1, 1)[:3]
    if min(space) < 1:
        raise InputError(f"volume has an empty side, shape {tuple(sides)}: {path}")
    return n_axes, (space[0], space[1], space[2])


def _offset(fields: nibabel.Nifti1Header, path: Path) -> int:
    """Byte of the first voxel; 0 stands for the first that may be."""
    offset, header_bytes = float(fields["vox_offset"]), fields.template_dtype.itemsize
    if offset == 0:
        return int(header_bytes) + EXTENDER_BYTES
    if not header_bytes <= offset < 2**62:  # nor is NaN
        raise InputError(
            f"vox_offset is {offset:g}, expected at least {header_bytes}, the header's own size: "
            f"{path}"
        )
    return int(offset)


def _nifti_affine(
    fields: nibabel.Nifti1Header,
    shape: tuple[int, int, int],
    assume: Orientation | None,
    path: Path,
) -> tuple[Matrix, list[str]]:
    """Affine in mm by sform, else qform, else what is assumed; and what is unusual about it."""
    unit, to_mm, warnings = _unit(fields)
    sizes = [abs(float(size)) * to_mm for size in fields["pixdim"][1:4]]
    forms = {"sform": _sform(fields), "qform": _qform(fields)}
    codes = {name: int(fields[f"{name}_code"]) for name in forms}
    usable: dict[str, Matrix] = {}
    for name, form in forms.items():
        if codes[name] <= 0:
            continue
        if to_mm != 1:  # to what the file's precision says: 0.001 m is 1 mm, not 1.0000000475
            form[:3] = (form[:3] * to_mm).astype(np.float32)
        if _is_flat(form):
            warnings.append(f"{name} is singular")
        else:
            usable[name] = form
        if codes[name] > FORM_CODES:
            warnings.append(f"{name}_code {codes[name]} is unknown, taken as any {name}")
    if not usable:
        reason = "; ".join(w for w in warnings if "singular" in w) or "no sform and no qform"
        affine = _assumed(sizes, shape, assume, reason, path)
        return affine, [*warnings, _assumption(assume)]
    name, affine = next(iter(usable.items()))
    warnings = [f"{w}; {name} is used" if w.endswith("singular") else w for w in warnings]
    warnings += _contradictions(usable, codes, sizes, shape)
    return affine, warnings + _unusual_unit(unit, affine)


def _unit(fields: nibabel.Nifti1Header) -> tuple[str, float, list[str]]:
    """Name of the unit of lengths, its size in mm, and a warning if it is another than mm."""
    name, to_mm = UNITS.get(int(fields["xyzt_units"]) & 7, ("", 1.0))
    said = f"lengths are in {name} (xyzt_units), brought to mm"
    return name, to_mm, [said] if to_mm != 1 else []


def _unusual_unit(unit: str, affine: Matrix) -> list[str]:
    """Warn of an unnamed unit that is hardly mm."""
    sizes = np.linalg.norm(affine[:3, :3], axis=0)
    if unit or (sizes.min() >= USUAL_MM[0] and sizes.max() <= USUAL_MM[1]):
        return []
    return [f"its unit of lengths is not named, and voxels of {_mm(sizes)} are unusual"]


def _sform(fields: nibabel.Nifti1Header) -> Matrix:
    rows = [np.asarray(fields[f"srow_{axis}"], dtype=np.float64) for axis in "xyz"]
    return np.array([*rows, [0.0, 0.0, 0.0, 1.0]])


def _qform(fields: nibabel.Nifti1Header) -> Matrix:
    """Matrix of the quaternion, in the unit of the file; one that is too long is cut to length 1.

    As the standard's ``nifti_quatern_to_mat44``, but that voxels of size 0 and NaN stay, to be
    found singular.
    """
    vector = np.array([float(fields[f"quatern_{part}"]) for part in "bcd"])
    length = float(np.linalg.norm(vector))
    with np.errstate(invalid="ignore"):  # it may be infinite
        b, c, d = vector if length < 1 else vector / length
    a = np.sqrt(max(1.0 - length**2, 0.0))
    turn = np.array(
        [
            [a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)],
            [2 * (b * c + a * d), a * a + c * c - b * b - d * d, 2 * (c * d - a * b)],
            [2 * (b * d - a * c), 2 * (c * d + a * b), a * a + d * d - c * c - b * b],
        ]
    )
    sizes = np.abs(np.asarray(fields["pixdim"][1:4], dtype=np.float64))
    if fields["pixdim"][0] < 0:  # qfac
        sizes[2] = -sizes[2]
    matrix = np.eye(4)
    with np.errstate(invalid="ignore"):  # sizes may be infinite
        matrix[:3, :3] = turn * sizes
    matrix[:3, 3] = [float(fields[f"qoffset_{axis}"]) for axis in "xyz"]
    return matrix


def _is_flat(affine: Matrix) -> bool:
    """Return whether an affine does not tell three directions."""
    with np.errstate(all="ignore"):
        directions = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
        volume = abs(np.linalg.det(directions)) if np.isfinite(directions).all() else 0.0
    return bool(not np.isfinite(affine).all() or volume < MIN_VOLUME)


def _contradictions(
    usable: dict[str, Matrix],
    codes: dict[str, int],
    sizes: Sequence[float],
    shape: tuple[int, int, int],
) -> list[str]:
    """Say where sform and qform, or sform and the voxel sizes, do not agree."""
    if "sform" not in usable:
        return []
    sform, used = usable["sform"], "sform is used"
    own_sizes = np.linalg.norm(sform[:3, :3], axis=0)
    if min(sizes) > 0 and not np.allclose(own_sizes, sizes, rtol=SAME_SIZE, atol=0):
        return [f"voxels of {_mm(own_sizes)} by sform, of {_mm(sizes)} by pixdim; {used}"]
    if "qform" not in usable:
        return []
    qform = usable["qform"]
    axes = ["".join(nibabel.orientations.aff2axcodes(form)) for form in (sform, qform)]
    if axes[0] != axes[1]:
        which = "left and right" if _left(axes[0]) != _left(axes[1]) else "directions"
        return [f"sform ({axes[0]}) and qform ({axes[1]}) contradict each other on {which}; {used}"]
    corners = np.array([*np.ndindex(2, 2, 2)]) * (np.array(shape) - 1)
    apart = np.abs((sform - qform) @ np.c_[corners, np.ones(8)].T).max()
    other_space = codes["sform"] in TEMPLATE_CODES and codes["sform"] != codes["qform"]
    if apart > SAME_PLACE and not other_space:
        return [f"sform and qform put it {apart:.1f} mm apart; {used}"]
    return []


def _left(axes: str) -> tuple[int, str]:
    """Voxel axis that runs between left and right, and where it leads."""
    return next((n, letter) for n, letter in enumerate(axes) if letter in "LR")


def _assumed(
    sizes: Sequence[float],
    shape: tuple[int, int, int],
    assume: Orientation | None,
    reason: str,
    path: Path,
) -> Matrix:
    """Affine of voxels that run right or left, anterior and superior about the world's origin.

    Raises:
        InputError: nothing is assumed, or the voxel sizes are not known either.
    """
    if assume is not None and assume not in get_args(Orientation):
        expected = " or ".join(get_args(Orientation))
        raise InputError(f"assume: expected {expected}, got {assume!r}: {path}")
    if assume is None:
        raise InputError(
            f"left and right cannot be known ({reason}); expected an orientation in the header, or "
            f"--assume ras or las, the directions that its voxels run in: {path}"
        )
    if not all(0 < size < np.inf for size in sizes):
        raise InputError(f"voxel sizes are {_mm(sizes)}; expected three above 0: {path}")
    affine = np.diag([*sizes, 1.0])
    affine[0] *= 1 if assume == "ras" else -1
    affine[:3, 3] = -affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    return affine


def _assumption(assume: Orientation | None) -> str:
    return f"its header does not tell left from right; voxels are assumed to run {assume}"


def _mm(sizes: Sequence[float] | NDArray[np.floating]) -> str:
    return " × ".join(f"{size:.4g}" for size in sizes) + " mm"
