"""Surfaces of volumes as meshes that other programs read: PLY and GIfTI."""

import io
from pathlib import Path

import nibabel
import numpy as np
from numpy.typing import NDArray
from skimage.measure import marching_cubes

from foldnorm.preprocessing.core.errors import InputError
from foldnorm.preprocessing.core.files import write_bytes

Vertices = NDArray[np.float32]  # (V, 3), mm
Faces = NDArray[np.int32]  # (F, 3), indices of vertices, counter-clockwise from outside


def surface(
    field: NDArray[np.floating], affine: NDArray[np.float64], level: float = 0.5
) -> tuple[Vertices, Faces]:
    """Surface where a field falls below a level, by marching cubes (Lorensen & Cline 1987).

    Args:
        field: (I, J, K), such as the probability of a class.
        affine: (4, 4), voxel index → world mm.
        level: of the surface.

    Raises:
        InputError: the field crosses the level nowhere.
    """
    padded = np.pad(field.astype(np.float32), 1, constant_values=float(field.min()))
    if not padded.min() < level < padded.max():
        raise InputError(f"no surface: the field lies between {field.min():.3g} and "
                         f"{field.max():.3g}, never at {level:g}")  # fmt: skip
    # Faces point towards lower values; an affine that mirrors turns them inside out.
    vertices, faces, _, _ = marching_cubes(padded, level, gradient_direction="ascent")
    world = (vertices - 1) @ affine[:3, :3].T + affine[:3, 3]
    if np.linalg.det(affine[:3, :3]) < 0:
        faces = faces[:, ::-1]
    return world.astype(np.float32), np.ascontiguousarray(faces, dtype=np.int32)


def write_surface(path: Path, vertices: Vertices, faces: Faces) -> None:
    """Write a mesh as ``.ply`` (binary, little endian) or ``.gii``, atomically.

    Raises:
        InputError: another suffix.
    """
    if path.suffix == ".ply":
        write_bytes(path, _ply(vertices, faces))
    elif path.suffix == ".gii":
        arrays = [
            nibabel.gifti.GiftiDataArray(vertices, "NIFTI_INTENT_POINTSET"),
            nibabel.gifti.GiftiDataArray(faces, "NIFTI_INTENT_TRIANGLE"),
        ]
        write_bytes(path, nibabel.gifti.GiftiImage(darrays=arrays).to_bytes())
    else:
        raise InputError(f"expected a mesh to end in .ply or .gii, got: {path}")


def _ply(vertices: Vertices, faces: Faces) -> bytes:
    header = (
        "ply\nformat binary_little_endian 1.0\n"
        f"element vertex {len(vertices)}\nproperty float x\nproperty float y\nproperty float z\n"
        f"element face {len(faces)}\nproperty list uchar int vertex_indices\nend_header\n"
    )
    record = np.zeros(len(faces), dtype=[("count", "u1"), ("corners", "<i4", 3)])
    record["count"], record["corners"] = 3, faces
    stream = io.BytesIO()
    stream.write(header.encode("ascii"))
    stream.write(vertices.astype("<f4").tobytes())
    stream.write(record.tobytes())
    return stream.getvalue()
