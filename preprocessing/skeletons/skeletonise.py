"""A sulcal skeleton from a plain segmentation of grey and white matter.

The space between white matter and a smooth hull around the brain is thinned to sheets in the
middle of the sulci, homotopically, so that hull and folds are one sheet around one ball of white:
one component, Euler number 2. What decides is geometry alone:

1. *Ball*: the brain closed (Euclidean), and two layers more, homotopically a ball. The outermost
   layer is the hull.
2. *White*: the ball shrunk homotopically onto the white matter, so that its handles and cavities,
   errors of the segmentation, are closed.
3. *Thinning* of what lies between, in order of the distance to white matter. Cerebrospinal fluid
   goes later than grey matter beside it, and so does what lies in the middle, where the distances
   to both banks meet (their Laplacian; Siddiqi & Pizer's medial measure): sheets reach the fundus.
   A voxel that has become a surface point stays.
4. *Pruning* of stubs on the hull and of curves that end nowhere.

Distances are in millimetres, so anisotropic voxels are no matter.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.measure import euler_number

from foldnorm.preprocessing.core.errors import InputError
from foldnorm.preprocessing.core.kernels import compiled
from foldnorm.preprocessing.spatial.crop import bounding_box
from foldnorm.preprocessing.topology.homotopy import Mask, grow, in_block, shrink, take_simple
from foldnorm.preprocessing.topology.topology import (
    MORPHOLOGIST_INSIDE,
    MORPHOLOGIST_OUTSIDE,
    neighbours,
    topological_classes,
)

Size = tuple[float, float, float]
LEVELS_PER_MM = 20  # of priority; finer changes nothing
REACH, REARRANGEMENTS = 2, 50  # voxels around a block, and tries
FULL = np.ones((3, 3, 3), dtype=np.bool_)  # 26-neighbourhood


@dataclass(frozen=True)
class Recipe:
    """Settings of `skeletonise`, chosen on one hemisphere (Archi 001, left) and on no other.

    Attributes:
        dilation: mm of the closing of the brain.
        erosion: mm of it; a little more than the dilation.
        layers: of voxels around the closed brain; the outermost is the hull.
        fluid: mm by which fluid is thinned later than grey matter.
        medial: mm by which the middle of a sulcus is thinned later, at most.
        smoothing: sd in voxels of the distance whose Laplacian finds the middle.
        surface: mm from white matter from which on a surface point stays.
        stub: mm below the hull above which a sheet's free edge goes.
    """

    dilation: float = 9.0
    erosion: float = 9.1
    layers: int = 2
    fluid: float = 1.5
    medial: float = 2.0
    smoothing: float = 0.8
    surface: float = 1.5
    stub: float = 1.5


@dataclass(frozen=True)
class Skeleton:
    """The skeleton of one hemisphere.

    Attributes:
        values: (I, J, K) uint8 as Morphologist writes them: 0 inside, 11 outside, topological
            classes.
        hull: (I, J, K) bool, the sheet between brain and outside.
        ball: (I, J, K) bool, all but the outside.
        components: of the skeleton, 26-connected; 1 if it is right.
        euler: its Euler number; 2 if it is right.
        blocks: full 2×2×2 blocks in it; 0 if it is right.
    """

    values: NDArray[np.uint8]
    hull: Mask
    ball: Mask
    components: int
    euler: int
    blocks: int

    @property
    def mask(self) -> Mask:
        """(I, J, K) bool, all of the skeleton."""
        return (self.values != MORPHOLOGIST_INSIDE) & (self.values != MORPHOLOGIST_OUTSIDE)

    @property
    def is_right(self) -> bool:
        """True if the skeleton is one sheet around one ball, without full 2×2×2 blocks."""
        return (self.components, self.euler, self.blocks) == (1, 2, 0)


def skeletonise(
    grey: Mask,
    white: Mask,
    voxel_size: Size,
    recipe: Recipe = Recipe(),  # frozen
) -> Skeleton:
    """Find the sulcal skeleton of one hemisphere.

    Args:
        grey: (I, J, K) cortical grey matter.
        white: (I, J, K) white matter, and what lies inside of it.
        voxel_size: mm.
        recipe: its parameters.

    Raises:
        InputError: there is no grey or no white matter.
    """
    if not grey.any() or not white.any():
        raise InputError(f"no {'grey' if white.any() else 'white'} matter")
    margin = np.ceil(recipe.dilation / np.array(voxel_size)).astype(int) + 3
    held = bounding_box(grey | white)
    assert held is not None
    padded = [np.pad(mask[held.slices], [(m, m) for m in margin]) for mask in (grey, white)]
    small = _skeletonise(padded[0], padded[1], voxel_size, recipe)
    shape, start = grey.shape, np.array(held.start) - margin
    values = _placed(small.values, start, shape, MORPHOLOGIST_OUTSIDE)
    hull, ball = (_placed(mask, start, shape, 0) for mask in (small.hull, small.ball))
    return Skeleton(values, hull, ball, small.components, small.euler, small.blocks)


def _skeletonise(grey: Mask, white: Mask, size: Size, recipe: Recipe) -> Skeleton:
    ball = _ball(grey | white, size, recipe)
    hull = ball & ndimage.binary_dilation(~ball)
    core = _core(white & ~hull, ball & ~hull, size)
    between = ball & ~core
    fluid = between & ~grey
    sheets = _thinned(between, hull, core, fluid, size, recipe)
    skeleton = _pruned(sheets, hull, size, recipe)
    _break_blocks(skeleton, between)
    values = topological_classes(skeleton)
    values[~skeleton & ~ball] = MORPHOLOGIST_OUTSIDE
    values[~skeleton & ball] = MORPHOLOGIST_INSIDE
    return Skeleton(
        values,
        hull & skeleton,
        ball,
        int(ndimage.label(skeleton, FULL)[1]),
        int(euler_number(skeleton, connectivity=3)),
        int(np.count_nonzero(blocks(skeleton))),
    )


def _ball(brain: Mask, size: Size, recipe: Recipe) -> Mask:
    """Close the brain and add layers around it, the hull outermost, so that all is a ball."""
    labels, number = ndimage.label(brain, FULL)
    if number > 1:
        brain = labels == 1 + np.bincount(labels.ravel())[1:].argmax()
    wide = ndimage.distance_transform_edt(~brain, sampling=size) <= recipe.dilation
    closed = ndimage.distance_transform_edt(wide, sampling=size) > recipe.erosion
    thick = ndimage.binary_dilation(closed | brain, iterations=recipe.layers)
    thick = ndimage.binary_fill_holes(thick)
    if is_ball(thick):
        return np.asarray(thick)
    # Handles of the closing are plugged: all around it shrinks, the farthest first.
    around = np.zeros(thick.shape, dtype=np.bool_)
    around[1:-1, 1:-1, 1:-1] = True
    away = ndimage.distance_transform_edt(~thick, sampling=size)
    return shrink(around, ~thick, _levels(away.max() - away))


def is_ball(mask: Mask) -> bool:
    """Return whether a 26-connected object is one piece without cavities and handles."""
    one = ndimage.label(mask, FULL)[1] == 1 and ndimage.label(~mask)[1] == 1
    return bool(one and euler_number(mask, connectivity=3) == 1)


def _core(white: Mask, room: Mask, size: Size) -> Mask:
    """White matter in one piece without cavities and handles, 6-connected, within ``room``."""
    labels, number = ndimage.label(white)
    if number > 1:
        white = labels == 1 + np.bincount(labels.ravel())[1:].argmax()
    away = ndimage.distance_transform_edt(~white, sampling=size)
    return ~grow(~room, room & ~white, _levels(away.max() - away))


def _thinned(
    between: Mask, hull: Mask, core: Mask, fluid: Mask, size: Size, recipe: Recipe
) -> Mask:
    away = ndimage.distance_transform_edt(~core, sampling=size).astype(np.float32)
    smooth = ndimage.gaussian_filter(away, recipe.smoothing)
    laplacian = sum(
        np.gradient(np.gradient(smooth, step, axis=axis), step, axis=axis)
        for axis, step in enumerate(size)
    )
    order = away + recipe.fluid * fluid + recipe.medial * np.clip(-laplacian, 0, 1)
    return shrink(between, between & ~hull, _levels(order), away >= recipe.surface)


def _pruned(sheets: Mask, hull: Mask, size: Size, recipe: Recipe) -> Mask:
    """Take away stubs on the hull, curves that end nowhere, and simple points of full blocks.

    Of the hull, only the latter.
    """
    depth = ndimage.distance_transform_edt(~hull, sampling=size)
    shallow = (depth <= recipe.stub) & ~hull
    without_stubs = shrink(sheets, shallow, _levels(recipe.stub - np.minimum(depth, recipe.stub)))
    padded, kept = np.pad(without_stubs, 2), np.pad(hull, 2)
    _prune(padded, kept, np.argwhere(padded))
    return padded[2:-2, 2:-2, 2:-2].copy()


@compiled()
def _prune(skeleton, hull, places):  # type: ignore[no-untyped-def]  # numba infers
    """Remove simple points that end a curve, or lie in a full 2×2×2 block, until there is none."""
    found = True
    while found:
        found = False
        for n in range(len(places)):
            i, j, k = places[n]
            if not skeleton[i, j, k]:
                continue
            bits = neighbours(skeleton, i, j, k)
            ends_curve = bits & (bits - 1) == 0 and not hull[i, j, k]  # one neighbour, or none
            if ends_curve or in_block(skeleton, i, j, k):
                found = take_simple(skeleton, i, j, k) or found


def _break_blocks(skeleton: Mask, room: Mask) -> None:
    """Rearrange full blocks that have no simple point, in place: grown around, and thinned anew.

    Voxels move as simple points only, so topology stays. They are drawn, always alike, until no
    block is left there.
    """
    for corner in np.argwhere(blocks(skeleton)):
        low = np.maximum(corner - REACH - 2, 0)
        window = tuple(slice(a, b) for a, b in zip(low, corner + REACH + 4, strict=True))
        here = skeleton[window].copy()
        inner = np.zeros(here.shape, dtype=np.bool_)
        inner[2:-2, 2:-2, 2:-2] = True
        before = np.count_nonzero(blocks(here))
        for seed in range(REARRANGEMENTS):
            rng = np.random.default_rng(seed)
            grown = grow(here, inner & room[window] & (rng.random(here.shape) < 0.5), 0 * inner)
            order = rng.integers(0, 8, here.shape)
            thinned = shrink(grown, inner, order, np.ones(here.shape, dtype=np.bool_))
            _prune(thinned, ~inner, np.argwhere(inner))
            if np.count_nonzero(blocks(thinned)) < before:
                skeleton[window] = thinned
                break


def blocks(mask: Mask) -> Mask:
    """First corners of full 2×2×2 blocks, (I, J, K)."""
    full = np.zeros(mask.shape, dtype=np.bool_)
    full[:-1, :-1, :-1] = (
        mask[:-1, :-1, :-1] & mask[1:, :-1, :-1] & mask[:-1, 1:, :-1] & mask[:-1, :-1, 1:]
        & mask[1:, 1:, :-1] & mask[1:, :-1, 1:] & mask[:-1, 1:, 1:] & mask[1:, 1:, 1:]
    )  # fmt: skip
    return full


def _levels(order: NDArray[np.floating]) -> NDArray[np.int32]:
    return np.rint(LEVELS_PER_MM * np.maximum(order, 0)).astype(np.int32)


def _placed(part: NDArray, start: NDArray, shape: tuple[int, ...], fill: int) -> NDArray:
    """Put a part that begins at ``start``, which may lie outside, into a volume."""
    whole = np.full(shape, fill, dtype=part.dtype)
    low = np.maximum(start, 0)
    high = np.minimum(start + part.shape, shape)
    into = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    of = tuple(slice(a - s, b - s) for a, b, s in zip(low, high, start, strict=True))
    whole[into] = part[of]
    return whole
