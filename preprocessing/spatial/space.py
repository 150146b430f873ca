"""From a subject's own space to MNI (ICBM2009c): transforms, and resampling that keeps sulci whole.

Morphologist's transforms start from AIMS millimetres: voxel index in AIMS order (RAS+ reversed on
all three axes) × voxel size; the NIfTI affine plays no part. `voxel_to_aims` is the only place
that knows.
"""

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from foldnorm.preprocessing.core.choices import Orientation
from foldnorm.preprocessing.core.errors import InputError
from foldnorm.preprocessing.core.files import write_text
from foldnorm.preprocessing.core.kernels import compiled
from foldnorm.preprocessing.io.fold_graph import FoldGraph, read_graph_header
from foldnorm.preprocessing.io.volumes import read_labels, voxel_size_of

Matrix = NDArray[np.float64]  # (4, 4), acts on columns (x, y, z, 1)
Shape = tuple[int, int, int]

# MNI mm of the first voxel of the ICBM2009c grid in AIMS order, and the grid's extent in mm.
MNI_ORIGIN = np.array([96.0, 96.0, 114.0])
MNI_EXTENT = np.array([193.0, 229.0, 193.0])
# AC-PC mm → MNI mm: constant, the same in every Morphologist.
ACPC_TO_MNI: Matrix = np.array(
    [
        [-0.972862, 0.00556476, 0.017676, -0.100502],
        [-0.0114288, -0.962047, -0.077296, 0.183998],
        [-0.0106487, 0.0716488, -0.951515, -2.9084],
        [0.0, 0.0, 0.0, 1.0],
    ]
)
LPS_TO_RAS: Matrix = np.diag([-1.0, -1.0, 1.0, 1.0])
ITK_SUFFIXES = (".tfm", ".mat", ".txt", ".h5")
WORLD_SUFFIXES = (".xfm", *ITK_SUFFIXES)
BESIDE = 0.07  # voxels: further out, sheets grow at their rims; nearer, holes come back
MAX_SCALE = 3.0  # a transform between two heads stretches no axis more
TRANSFORM_LINES = 4  # of a .trm file


def mni_grid(voxel_size: float) -> tuple[Shape, Matrix]:
    """Shape and affine (voxel index → MNI mm) of the ICBM2009c grid at a voxel size, RAS+.

    193×229×193 at 1 mm, 96×114×96 at 2 mm, as Morphologist's tools lay it out: the last voxel
    of each axis (the first in AIMS order) stays where it is, whatever the voxel size.

    Example:
        >>> mni_grid(2.0)[0]
        (96, 114, 96)
    """
    if not 0 < voxel_size < MNI_EXTENT.min():
        raise InputError(f"expected a voxel size above 0 mm, got {voxel_size:g}")
    i, j, k = (int(n) for n in np.floor(MNI_EXTENT / voxel_size + 1e-9))
    affine = np.diag([voxel_size, voxel_size, voxel_size, 1.0])
    affine[:3, 3] = MNI_ORIGIN - voxel_size * (np.array([i, j, k]) - 1)
    return (i, j, k), affine


def read_trm(path: Path) -> Matrix:
    """Read a ``.trm``: four lines of three numbers, the translation, then the matrix rows.

    Raises:
        InputError: unreadable, or not such a transform.
    """
    try:
        rows = [line.split() for line in path.read_text(encoding="latin-1").splitlines()]
        numbers = np.array([[float(n) for n in row] for row in rows if row])
    except OSError as error:
        raise InputError(f"not readable ({error.strerror}): {path}") from error
    except ValueError:
        raise InputError(f"expected four lines of three numbers: {path}") from None
    if numbers.shape != (TRANSFORM_LINES, 3):
        raise InputError(f"expected four lines of three numbers, got {numbers.size}: {path}")
    matrix = np.eye(4)
    matrix[:3, 3], matrix[:3, :3] = numbers[0], numbers[1:]
    return _checked(matrix, path)


def voxel_to_mni(
    transform: Path, shape: Shape, affine: Matrix, voxel_size: tuple[float, float, float]
) -> Matrix:
    """Matrix from a RAS+ voxel index of a volume to MNI mm.

    Args:
        transform: a ``.trm`` from native to MNI, a fold graph (``.arg``), whose way leads over
            AC-PC, a ``.xfm`` as MINC and FreeSurfer write it, or an affine that SimpleITK reads.
        shape: of the volume.
        affine: of the volume; only the latter kinds make use of it.
        voxel_size: mm.
    """
    if transform.suffix == ".trm":
        return read_trm(transform) @ voxel_to_aims(shape, voxel_size)
    if transform.suffix == ".arg":
        header = read_graph_header(transform)
        acpc = acpc_of_graph(header, transform)
        return ACPC_TO_MNI @ acpc @ voxel_to_aims(shape, voxel_size)
    if transform.suffix in WORLD_SUFFIXES:
        return _read_world(transform) @ affine
    raise InputError(f"expected a .trm, .arg or {', '.join(WORLD_SUFFIXES)} file, got: {transform}")


def _read_world(path: Path) -> Matrix:
    """Native RAS mm → MNI RAS mm, from a file that speaks of the world and not of voxels."""
    return read_xfm(path) if path.suffix == ".xfm" else read_itk(path)


def read_xfm(path: Path) -> Matrix:
    """Read a MINC ``.xfm`` of one linear transform: matrix native RAS mm → MNI RAS mm.

    FreeSurfer's ``talairach.xfm`` is one; it leads to MNI305, which differs from ICBM2009c by a
    few millimetres.

    Raises:
        InputError: unreadable, or not one linear transform.
    """
    try:
        text = path.read_text(encoding="latin-1")
    except OSError as error:
        raise InputError(f"not readable ({error.strerror}): {path}") from error
    parts = re.findall(r"Linear_Transform\s*=([^;]*);", text)
    try:
        (numbers,) = ([float(n) for n in part.split()] for part in parts)
        matrix = np.eye(4)
        matrix[:3] = np.array(numbers).reshape(3, 4)
    except ValueError:
        raise InputError(f"expected one Linear_Transform of twelve numbers: {path}") from None
    return _checked(matrix, path)


def write_trm(path: Path, matrix: Matrix) -> None:
    """Write a ``.trm``: inverse of `read_trm`."""
    rows = [matrix[:3, 3], *matrix[:3, :3]]
    write_text(path, "\n".join(" ".join(f"{n:.9g}" for n in row) for row in rows) + "\n")


def write_world_to_mni(path: Path, world_to_mni: Matrix, affine: Matrix, shape: Shape) -> None:
    """Write the ``.trm`` of volumes in the grid of ``affine``: from their world mm to MNI mm."""
    aims = voxel_to_aims(shape, voxel_size_of(affine))
    write_trm(path, world_to_mni @ affine @ np.linalg.inv(aims))


def graph_to_mni(
    graph: FoldGraph,
    transform: Path | None,
    volume: Path,
    *,
    assume: Orientation | None = None,
) -> Matrix:
    """Matrix from a voxel of a fold graph, in AIMS order, to MNI mm.

    Args:
        graph: of a hemisphere.
        transform: see `voxel_to_mni`; the graph's own way over AC-PC if None.
        volume: the skeleton, read only for transforms that start from its affine.
        assume: directions that its voxels run in, if its header does not say.
    """
    if transform is None or transform.suffix not in WORLD_SUFFIXES:
        to_mni = (
            read_trm(transform)
            if transform is not None and transform.suffix == ".trm"
            else ACPC_TO_MNI @ acpc_of_graph(graph.attributes, graph.path)
        )
        return to_mni @ np.diag([*graph.voxel_size, 1.0])
    labels = read_labels(volume, assume=assume)
    i, j, k = labels.data.shape
    to_ras = np.diag([-1.0, -1.0, -1.0, 1.0])
    to_ras[:3, 3] = (i - 1, j - 1, k - 1)
    return _read_world(transform) @ labels.affine @ to_ras


def voxel_to_aims(shape: Shape, voxel_size: tuple[float, float, float]) -> Matrix:
    """Matrix from a RAS+ voxel index to AIMS millimetres in a grid of ``shape``.

    Example:
        >>> (voxel_to_aims((10, 10, 10), (2.0, 2.0, 2.0)) @ [0, 0, 9, 1]).tolist()
        [18.0, 18.0, 0.0, 1.0]
    """
    matrix = np.diag([*(-np.array(voxel_size)), 1.0])
    matrix[:3, 3] = (np.array(shape) - 1) * np.array(voxel_size)
    return matrix


def acpc_of_graph(attributes: Mapping[str, str], path: Path) -> Matrix:
    """Native AIMS mm → AC-PC mm, from the ``Talairach_…`` attributes of a fold graph.

    The translation is applied before rotation and scale.
    """
    try:
        rotation, scale, shift = (
            np.array([float(n) for n in attributes[f"Talairach_{name}"].split()])
            for name in ("rotation", "scale", "translation")
        )
        matrix = np.eye(4)
        matrix[:3, :3] = rotation.reshape(3, 3) * scale
        matrix[:3, 3] = matrix[:3, :3] @ shift
    except (KeyError, ValueError):
        raise InputError(f"the graph has no transform to AC-PC: {path}") from None
    return _checked(matrix, path)


def read_itk(path: Path) -> Matrix:
    """Read an affine transform as SimpleITK does: matrix native RAS mm → MNI RAS mm.

    As registration writes it, with MNI fixed and the subject moving: the file takes MNI points to
    native ones (LPS), and is inverted here.
    """
    import SimpleITK

    try:
        transform = SimpleITK.ReadTransform(str(path))
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]
        raise InputError(f"not readable as a transform ({reason}): {path}") from error
    if not transform.IsLinear():
        raise InputError(f"expected an affine transform, got {transform.GetName()}: {path}")
    origin = np.array(transform.TransformPoint((0.0, 0.0, 0.0)))
    matrix = np.eye(4)
    matrix[:3, 3] = origin
    for axis, point in enumerate(np.eye(3)):
        matrix[:3, axis] = np.array(transform.TransformPoint(tuple(point))) - origin
    turned = LPS_TO_RAS @ _checked(matrix, path) @ LPS_TO_RAS
    return np.asarray(np.linalg.inv(turned), dtype=np.float64)


def resample_priority(
    classes: NDArray[np.integer], matrix: Matrix, shape: Shape, fill: int
) -> NDArray[np.integer]:
    """Bring labels onto another grid; where a sulcus lands, there is sulcus.

    Each source voxel goes to the target voxel nearest to its centre, and the highest class that
    lands there stays. A target voxel in which none lands takes the source voxel nearest to its
    own centre; beyond the source lies ``fill``.

    Args:
        classes: (I, J, K) uint8 or uint16; the class number is the priority.
        matrix: (4, 4), source voxel index → target voxel index.
        shape: of the target.
        fill: class beyond the source.

    Returns:
        Labels of ``shape``, same dtype.

    Example:
        >>> matrix = np.eye(4)
        >>> matrix[2, 3] = 1  # one voxel up
        >>> resample_priority(np.uint8([[[1, 2, 0]]]), matrix, (1, 1, 4), fill=9).tolist()
        [[[9, 1, 2, 0]]]
    """
    target = np.full(shape, fill, dtype=classes.dtype)
    hit = np.zeros(shape, dtype=np.bool_)
    _push_affine(classes, matrix, target, hit)
    _pull_missed(classes, np.linalg.inv(matrix), target, hit)
    return target


def resample_sheets(
    classes: NDArray[np.integer], matrix: Matrix, shape: Shape, fill: int
) -> NDArray[np.integer]:
    """Bring labels onto a grid of about the same voxel size, without a hole in thin sheets.

    As `resample_priority`, with eight points around the centre of each source voxel: where its
    sheet passes between two target voxels, both are hit. A sheet of 26-connected voxels turned by
    5° loses some 50 holes to 3 that way, and grows by 7 % where it is thinned afterwards.

    The arguments are those of `resample_priority`.
    """
    target = np.full(shape, fill, dtype=classes.dtype)
    hit = np.zeros(shape, dtype=np.bool_)
    for corner in np.ndindex(2, 2, 2):
        beside = np.eye(4)
        beside[:3, 3] = BESIDE * (2 * np.array(corner) - 1)
        _push_affine(classes, matrix @ beside, target, hit)
    _pull_missed(classes, np.linalg.inv(matrix), target, hit)
    return target


def resample_nearest(
    classes: NDArray[np.integer], matrix: Matrix, shape: Shape, fill: int
) -> NDArray[np.integer]:
    """Bring labels onto another grid: each target voxel takes the source voxel nearest to it.

    The arguments are those of `resample_priority`. Half of thin sheets are lost at half the
    resolution; it is what the lab's plain crops do.
    """
    target = np.full(shape, fill, dtype=classes.dtype)
    _pull_missed(classes, np.linalg.inv(matrix), target, np.zeros(shape, dtype=np.bool_))
    return target


def resample_linear(
    values: NDArray[np.integer | np.floating], matrix: Matrix, shape: Shape, fill: int
) -> NDArray[np.float64]:
    """Bring raw values onto another grid by trilinear interpolation, float64.

    The arguments are those of `resample_priority`.
    """
    back = np.linalg.inv(matrix)
    return ndimage.affine_transform(
        values.astype(np.float64), back[:3, :3], back[:3, 3], shape, order=1, cval=fill
    )


@compiled(nogil=True)
def _between(start, slope, end, first, last):  # type: ignore[no-untyped-def]  # numba infers
    """Part of first … last − 1 whose k bring start + slope · k to −1 … end; rather too much."""
    if abs(slope) < 1e-6:
        return (first, last) if -2 < start < end + 1 else (first, first)
    one, other = (-1 - start) / slope, (end - start) / slope
    return max(first, int(min(one, other)) - 1), min(last, int(max(one, other)) + 2)


@compiled(nogil=True)
def _push_affine(classes, matrix, target, hit):  # type: ignore[no-untyped-def]
    sides, ends = classes.shape, target.shape
    for i in range(sides[0]):
        for j in range(sides[1]):
            x0 = matrix[0, 0] * i + matrix[0, 1] * j + matrix[0, 3]
            y0 = matrix[1, 0] * i + matrix[1, 1] * j + matrix[1, 3]
            z0 = matrix[2, 0] * i + matrix[2, 1] * j + matrix[2, 3]
            first, last = _between(x0, matrix[0, 2], ends[0], 0, sides[2])
            first, last = _between(y0, matrix[1, 2], ends[1], first, last)
            first, last = _between(z0, matrix[2, 2], ends[2], first, last)
            for k in range(first, last):
                a = int(np.rint(x0 + matrix[0, 2] * k))
                b = int(np.rint(y0 + matrix[1, 2] * k))
                c = int(np.rint(z0 + matrix[2, 2] * k))
                if 0 <= a < ends[0] and 0 <= b < ends[1] and 0 <= c < ends[2]:
                    value = classes[i, j, k]
                    if not hit[a, b, c] or value > target[a, b, c]:
                        target[a, b, c] = value
                        hit[a, b, c] = True


@compiled(nogil=True)
def _pull_missed(classes, matrix, target, hit):  # type: ignore[no-untyped-def]
    sides, ends = classes.shape, target.shape
    for a in range(ends[0]):
        for b in range(ends[1]):
            x0 = matrix[0, 0] * a + matrix[0, 1] * b + matrix[0, 3]
            y0 = matrix[1, 0] * a + matrix[1, 1] * b + matrix[1, 3]
            z0 = matrix[2, 0] * a + matrix[2, 1] * b + matrix[2, 3]
            for c in range(ends[2]):
                if not hit[a, b, c]:
                    i = int(np.rint(x0 + matrix[0, 2] * c))
                    j = int(np.rint(y0 + matrix[1, 2] * c))
                    k = int(np.rint(z0 + matrix[2, 2] * c))
                    if 0 <= i < sides[0] and 0 <= j < sides[1] and 0 <= k < sides[2]:
                        target[a, b, c] = classes[i, j, k]


def _checked(matrix: Matrix, path: Path) -> Matrix:
    """Refuse what cannot be a transform between two heads."""
    scales = np.linalg.svd(matrix[:3, :3], compute_uv=False) if np.isfinite(matrix).all() else None
    if scales is None or scales.max() > MAX_SCALE or scales.min() < 1 / MAX_SCALE:
        raise InputError(f"not an affine transform between two heads: {path}")
    return matrix
