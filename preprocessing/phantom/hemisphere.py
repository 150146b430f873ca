"""Draw one phantom hemisphere as label volumes: skeleton, fold labels, grey-white."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from foldnorm.preprocessing.core.errors import InputError
from foldnorm.preprocessing.phantom.anatomy import FIELD_OF_VIEW, inward_normals
from foldnorm.preprocessing.phantom.folds import (
    PhantomFold,
    Variant,
    grow_folds,
    keyed_rng,
    sideways,
)
from foldnorm.preprocessing.phantom.kernels import draw_sheet, fill_hull, within
from foldnorm.preprocessing.phantom.shape import SubjectShape

SKELETON_INSIDE, SKELETON_OUTSIDE, SKELETON_SURFACE = 0, 11, 60
BACKGROUND, GREY, WHITE = 0, 100, 200
THICKNESS_MEAN, THICKNESS_SD = 2.6, 0.35  # mm of grey matter
CSF_DEPTH = 9.0  # mm below the hull down to which a sulcus is open
ABOVE_HULL = 1.5  # mm: sheets begin outside, so that they always reach the hull
MESH_STEP = 1.5  # mm between mesh points down a sheet


@dataclass(frozen=True)
class PhantomHemisphere:
    """The label volumes of one phantom, all of one shape (I, J, K), RAS+.

    Attributes:
        skeleton: int16, Morphologist's values: 0 inside, 11 outside, 60 skeleton.
        folds: int16 fold labels; 0 elsewhere, the hull included.
        grey_white: int16, 0 background, 100 grey, 200 white.
        affine: (4, 4).
    """

    skeleton: NDArray[np.int16]
    folds: NDArray[np.int16]
    grey_white: NDArray[np.int16]
    affine: NDArray[np.float64]


def draw_hemisphere(
    subject: int,
    *,
    seed: int = 0,
    voxel_size: float = 1.0,
    hemi: str = "L",
    variant: Variant | None = None,
) -> PhantomHemisphere:
    """Draw a hemisphere; the same arguments give the same voxels.

    Args:
        subject: number of the subject, from 0; with ``seed`` it fixes the geometry.
        seed: of the cohort.
        voxel_size: mm; the geometry does not depend on it.
        hemi: ``L``, or ``R``, which has folds of its own on the mirrored template.
        variant: a departure from healthy folding.
    """
    if not 0.3 <= voxel_size <= 4:
        raise InputError(f"phantom: expected a voxel size of 0.3 to 4 mm, got {voxel_size:g}")
    if hemi not in ("L", "R"):
        raise InputError(f"phantom: hemisphere is L or R, got {hemi!r}")
    number = 2 * subject + (hemi == "R")
    shape = SubjectShape.sample(seed, number)
    low, high = np.array(FIELD_OF_VIEW).T
    size = np.ceil((high - low) / voxel_size).astype(int)
    origin = low + voxel_size / 2
    inside = np.zeros(size, dtype=np.bool_)
    fill_hull(inside, origin, voxel_size, *_as_arguments(shape))
    folds, below = np.zeros(size, dtype=np.int32), np.zeros(size, dtype=np.float32)
    for fold in grow_folds(seed, number, variant):
        draw_fold(fold, shape, origin, voxel_size, folds, below)
    folds[~inside] = 0
    shell = inside & ~ndimage.binary_erosion(inside)
    skeleton = np.where(inside, SKELETON_INSIDE, SKELETON_OUTSIDE).astype(np.int16)
    skeleton[shell | (folds > 0)] = SKELETON_SURFACE
    folds[shell] = 0  # the hull belongs to no fold: without one, the brain stays closed
    thickness = max(keyed_rng(seed, number, 0, "cortex").normal(THICKNESS_MEAN, THICKNESS_SD), 1.2)
    grey_white = _grey_white(inside, shell, folds, below, thickness / voxel_size)
    affine = np.diag([voxel_size, voxel_size, voxel_size, 1.0])
    affine[:3, 3] = origin
    turn = slice(None, None, -1 if hemi == "R" else 1)
    if hemi == "R":
        affine[0, 3] = -(origin[0] + voxel_size * (size[0] - 1))
    return PhantomHemisphere(
        np.ascontiguousarray(skeleton[turn]),
        np.ascontiguousarray(folds.astype(np.int16)[turn]),
        np.ascontiguousarray(grey_white[turn]),
        affine,
    )


def draw_fold(
    fold: PhantomFold,
    shape: SubjectShape,
    origin: NDArray[np.float64],
    voxel_size: float,
    labels: NDArray[np.int32],
    below: NDArray[np.float32],
) -> None:
    """Sweep the fold's curve inwards and draw it, piece by piece where it is interrupted."""
    steps = max(int(np.ceil((fold.depth.max() + ABOVE_HULL) / MESH_STEP)), 2) + 1
    down = np.linspace(0, 1, steps)
    depth = down * (fold.depth[:, None] + ABOVE_HULL) - ABOVE_HULL
    across = sideways(fold.curve)
    normals = np.cos(fold.tilt) * inward_normals(fold.curve) + np.sin(fold.tilt) * across
    surface = fold.curve[:, None] + depth[..., None] * normals[:, None]
    surface += (fold.bend * down**2)[None, :, None] * across[:, None]
    mesh = (shape.to_world(surface) - origin) / voxel_size
    open_rows = np.flatnonzero(fold.depth > 0)
    for run in np.split(open_rows, np.flatnonzero(np.diff(open_rows) > 1) + 1):
        if len(run) > 1:
            rows = slice(run[0], run[-1] + 1)
            draw_sheet(mesh[rows], depth[rows], fold.label, labels, below)


def _grey_white(
    inside: NDArray[np.bool_],
    shell: NDArray[np.bool_],
    folds: NDArray[np.int32],
    below: NDArray[np.float32],
    thickness: float,
) -> NDArray[np.int16]:
    """Grey within ``thickness`` voxels of the outside or of a sheet; open sulci are CSF."""
    reach = int(np.ceil(thickness))
    offsets = np.argwhere(np.ones((2 * reach + 1,) * 3)) - reach
    offsets = offsets[(offsets**2).sum(axis=1) <= thickness**2]
    near = within(shell | (folds > 0), offsets)
    volume = np.where(near, GREY, WHITE).astype(np.int16)
    volume[~inside | ((folds > 0) & (below < CSF_DEPTH))] = BACKGROUND
    return volume


def _as_arguments(shape: SubjectShape) -> tuple[NDArray[np.float64], ...]:
    return shape.matrix, shape.shift, shape.waves, shape.phases, shape.amplitudes
