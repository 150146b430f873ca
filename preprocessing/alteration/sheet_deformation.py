"""Smooth deformations around one fold, under which the sheets of a volume stay whole.

A deformation takes each point x of a sheet to x + u(x). `pull_towards` draws everything near a fold
towards it; `shift_along` moves a fold and lets its neighbours make way. Both fall off with the
distance from the fold by a triweight, which is nearly a Gaussian and ends at `SUPPORT` reaches.

*Nothing folds.* For a pull, x + u(x) is the gradient of ½|x|² − A(d(x)), where d is the distance to
the fold and A' = a its pull. ½|x|² − ½d² is convex, whatever the fold, and a(d)/d falls; so the
Jacobian is symmetric and at least 1 − a/d, and an average over nearby places, which is what
smoothing is, keeps that bound. Sliding along the hull leaves it, so `without_overlap` checks.

*Nothing tears.* `push_sheets` takes the sheet for what it is between voxel centres too: segments
and triangles between voxels that touch. Points on them, a quarter of a voxel apart, are moved and
then put onto the grid. No place of a triangle is farther than .217 voxels from such a point; while
nothing is stretched more than 2.3-fold, each step across the sheet, from one voxel centre to the
next, passes within half a voxel of a moved point, and one of its two voxels is sheet. What became
thick is taken away by simple points alone, so the topology stays.
"""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from foldnorm.preprocessing.core.kernels import compiled
from foldnorm.preprocessing.topology.homotopy import Mask, shrink
from foldnorm.preprocessing.topology.thinning import thin

Displacement = NDArray[np.float64]  # (3, I, J, K) mm, from where a point lies to where it goes
Size = tuple[float, float, float]  # mm of a voxel

SUPPORT = 2.75  # reaches r; (1 − (d/2.75r)²)³ is exp(−d²/2r²) within .05
SMOOTHING = 0.3  # reaches: sd, where the nearest point of the fold jumps
STILL = 0.1  # voxels: what moves less stays as it is
MIN_JACOBIAN = 0.005  # of a volume, left of it where it is squeezed: .2³ at the tip of a fold
MAX_STRETCH = 2.3  # .5 voxels / .217, see above
GENTLER = 0.8  # factor on a displacement that overlaps
HULL_DEPTH = 1.5  # voxels under the outside where everything slides along the hull
POCKET = 8  # voxels of the rest, enclosed by sheet, that are no part of a brain
FACE_NEIGHBOURS = ndimage.generate_binary_structure(3, 1)
MOVES, STAYS = 1, 2  # states of sheet points


def pull_towards(
    fold: Mask, outside: Mask, voxel_size: Size, *, reach: float, share: float
) -> Displacement:
    """Displacement that draws what lies around a fold towards it.

    A point at distance d is drawn by ``share`` · d · exp(−d²/2 ``reach``²) towards the nearest
    point of the fold; near the outside only along the hull.

    Args:
        fold: (I, J, K) bool; an empty one draws nothing.
        outside: (I, J, K) bool.
        voxel_size: mm.
        reach: mm, sd of the fall-off.
        share: of the distance, below 1; .5 draws half-way.

    Returns:
        (3, I, J, K) mm; 0 on most of the fold and beyond `SUPPORT` reaches.
    """
    if not fold.any():
        return np.zeros((3, *fold.shape))
    away, nearest = ndimage.distance_transform_edt(~fold, sampling=voxel_size, return_indices=True)
    towards = (nearest - np.indices(fold.shape)) * _column(voxel_size)
    # x exp(−x²/2σ²) smoothed by a Gaussian of sd s is x (σ/τ)³ exp(−x²/2τ²), τ² = σ² + s².
    narrower = np.sqrt(1 - SMOOTHING**2)
    pulled = share / narrower**3 * fall_off(away, narrower * reach) * towards
    smoothed = _smoothed(pulled, SMOOTHING * reach, voxel_size) * (away < SUPPORT * reach)
    return without_overlap(along_hull(smoothed, outside, voxel_size, reach), outside, voxel_size)


def shift_along(
    fold: Mask, outside: Mask, voxel_size: Size, *, vector: Size, reach: float
) -> Displacement:
    """Displacement that is ``vector`` on a fold and falls off around it.

    Args:
        fold: (I, J, K) bool; an empty one moves nothing.
        outside: (I, J, K) bool.
        voxel_size: mm.
        vector: mm.
        reach: mm, sd of the fall-off; at least the length of the vector, so that neighbours are
            squeezed to a third at most.

    Returns:
        (3, I, J, K) mm.
    """
    if not fold.any():
        return np.zeros((3, *fold.shape))
    away = ndimage.distance_transform_edt(~fold, sampling=voxel_size)
    shifted = fall_off(away, reach) * _column(vector)
    slid = along_hull(shifted, outside, voxel_size, 2 * reach)
    return without_overlap(slid, outside, voxel_size)


def fall_off(distance: NDArray[np.float64], reach: float) -> NDArray[np.float64]:
    """Weight by distance (mm): 1 at 0, about exp(−d²/2 reach²), 0 from `SUPPORT` reaches on."""
    return np.clip(1 - (distance / (SUPPORT * reach)) ** 2, 0, None) ** 3


def along_hull(
    displacement: Displacement, outside: Mask, voxel_size: Size, free_from: float
) -> Displacement:
    """Displacement without its part across the hull, near the outside.

    Sheets slide along the hull, attached to it; from ``free_from`` mm deep on they move freely.
    """
    if not outside.any():
        return displacement
    depth = ndimage.distance_transform_edt(~outside, sampling=voxel_size)
    above = ndimage.distance_transform_edt(outside, sampling=voxel_size)
    half = min(voxel_size) / 2  # so that it grows evenly through the border, between voxel centres
    signed = np.where(outside, half - above, depth - half)
    normal = np.stack(np.gradient(ndimage.gaussian_filter(signed, 1.0), *voxel_size))
    under = HULL_DEPTH * max(voxel_size)
    free = np.clip((depth - under) / max(free_from - under, under), 0, 1)
    across = (displacement * normal).sum(axis=0)
    return displacement - (1 - free) * across * normal


def without_overlap(displacement: Displacement, outside: Mask, voxel_size: Size) -> Displacement:
    """Displacement made gentler as a whole until it neither overlaps nor tears the brain.

    Volume shrinks to no less than `MIN_JACOBIAN`, and nothing is stretched more than `MAX_STRETCH`.
    """
    gradient = np.stack([np.stack(np.gradient(u, *voxel_size)) for u in displacement])
    brain = gradient[:, :, ~outside & (displacement != 0).any(axis=0)]  # (3, 3, n)
    factor = 1.0
    while brain.size and not _is_gentle(factor * brain):
        factor *= GENTLER
    return factor * displacement


def push_sheets(
    classes: NDArray[np.uint8],
    displacement: Displacement,
    voxel_size: Size,
    *,
    void: int,
    fixed: Mask,
) -> NDArray[np.uint8]:
    """Move the sheets of a volume.

    Args:
        classes: (I, J, K) uint8; sheets are of the class above ``void``.
        displacement: (3, I, J, K) mm.
        voxel_size: mm.
        void: class that surrounds sheets, and that they leave behind.
        fixed: (I, J, K) bool, sheet voxels that stay (the hull).

    Returns:
        (I, J, K) uint8: moved sheets one voxel thick; every other voxel as it was.
    """
    top = void + 1
    sheet = classes == top
    step = displacement / _column(voxel_size)
    moving = sheet & ~fixed & ((step**2).sum(axis=0) > STILL**2)
    moved = classes.copy()
    if not moving.any():
        return moved
    moved[moving] = void
    points, are_centres = sheet_points(moving, sheet & ~moving)
    # Not rint, which sends halves to even voxels, so that two neighbours become one.
    voxels = np.floor(points + _sampled(step, points) + 0.5).astype(np.intp)
    within = ((voxels >= 0) & (voxels < classes.shape)).all(axis=1)
    hits = np.zeros(classes.shape, dtype=np.int64)
    np.add.at(hits, tuple(voxels[within].T), 1)
    centres = np.zeros(classes.shape, dtype=np.bool_)
    centres[tuple(voxels[within & are_centres].T)] = True
    landed = (hits > 0) & (moved == void)
    beside = landed & ~centres
    # The sheet is closed now, and thick at its steps: that goes, so that sheets do not grow.
    landed &= shrink((moved == top) | landed, beside, hits, surface=beside)
    moved[landed] = top
    moved = thin(moved, top, within=landed)
    moved[landed & (moved != top)] = void
    moved[pocket_walls(moved == top, landed)] = void
    return moved


def pocket_walls(sheet: Mask, removable: Mask) -> Mask:
    """Find one voxel of the wall of each small pocket that opens it without tearing a sheet.

    Sheets that are squeezed together enclose pockets of a few voxels, more than brains have.

    Args:
        sheet: (I, J, K) bool.
        removable: (I, J, K) bool, voxels that may go.

    Returns:
        (I, J, K) bool. Beside each lie its pocket and one other part of the rest, no more, and its
        neighbours in the sheet hang together without it.
    """
    walls = np.zeros_like(sheet)
    rest, _ = ndimage.label(~np.pad(sheet, 1))
    is_pocket = np.bincount(rest.ravel()) <= POCKET
    opened: set[int] = set()
    inside = is_pocket[rest][1:-1, 1:-1, 1:-1] & ~sheet
    beside = ndimage.binary_dilation(inside) & sheet & removable
    for i, j, k in np.argwhere(beside):
        around = rest[i : i + 3, j : j + 3, k : k + 3]
        parts = set(around[FACE_NEIGHBOURS].tolist()) - {0}
        pockets = {part for part in parts if is_pocket[part]}
        solid = around == 0
        solid[1, 1, 1] = False
        hangs_together = ndimage.label(solid, np.ones((3, 3, 3)))[1] == 1
        if len(parts) == 2 and len(pockets) == 1 and not pockets & opened and hangs_together:
            walls[i, j, k] = True
            opened |= pockets
    return walls


def sheet_points(moving: Mask, still: Mask) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Points of a sheet a quarter of a voxel apart, (n, 3) voxels, and which are centres.

    Halving the segments between voxels that touch, twice, gives the points of all triangles between
    them. Segments between two voxels that stay are left out.

    Args:
        moving: (I, J, K) bool, voxels that move.
        still: (I, J, K) bool, voxels that stay, to which the others are attached.
    """
    around = ndimage.binary_dilation(moving, np.ones((3, 3, 3)))
    state = np.where(moving, MOVES, np.where(still & around, STAYS, 0)).astype(np.uint8)
    places = np.argwhere(state > 0)
    for _ in range(2):
        state, places = _halved(state, places)
    points = places[state[tuple(places.T)] == MOVES]
    return points / 4, (points % 4 == 0).all(axis=1)


@compiled()
def _halved(state, places):  # type: ignore[no-untyped-def]  # numba infers
    """Sheet on a grid of half the spacing: its points, and those between two that touch."""
    sides = state.shape
    fine = np.zeros((2 * sides[0] - 1, 2 * sides[1] - 1, 2 * sides[2] - 1), np.uint8)
    found = np.empty((len(places) * 14, 3), np.int64)
    count = 0
    for n in range(len(places)):
        i, j, k = places[n]
        for bit in range(13, 27):
            a, b, c = i + bit // 9 - 1, j + bit // 3 % 3 - 1, k + bit % 3 - 1
            if not (0 <= a < sides[0] and 0 <= b < sides[1] and 0 <= c < sides[2]):
                continue
            both_stay = state[i, j, k] == STAYS and state[a, b, c] == STAYS
            if state[a, b, c] == 0 or (both_stay and bit != 13):
                continue
            value = STAYS if both_stay else MOVES
            if fine[i + a, j + b, k + c] == 0:
                found[count, 0], found[count, 1], found[count, 2] = i + a, j + b, k + c
                count += 1
                fine[i + a, j + b, k + c] = value
    return fine, found[:count].copy()


def _sampled(field: NDArray[np.float64], points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Values of a field (3, I, J, K) at points (n, 3) voxels, trilinear, (n, 3)."""
    return np.stack(
        [ndimage.map_coordinates(part, points.T, order=1, mode="nearest") for part in field], axis=1
    )


def _smoothed(field: Displacement, sd: float, voxel_size: Size) -> Displacement:
    sds = [sd / side for side in voxel_size]
    return np.stack([ndimage.gaussian_filter(part, sds) for part in field])


def _is_gentle(gradient: NDArray[np.float64]) -> bool:
    """Return whether 1 + gradient, (3, 3, n), neither folds nor stretches too much."""
    jacobian = gradient + np.eye(3)[:, :, None]
    (a, b, c), (d, e, f), (g, h, i) = jacobian
    volume = a * (e * i - f * h) - b * (d * i - f * g) + c * (d * h - e * g)
    # No singular value exceeds the Frobenius norm, so few need the eigenvalues.
    doubtful = jacobian[:, :, (jacobian**2).sum(axis=(0, 1)) > MAX_STRETCH**2]
    squared = np.linalg.eigvalsh(np.einsum("kin,kjn->nij", doubtful, doubtful))
    return bool(volume.min() >= MIN_JACOBIAN and squared.max(initial=0) <= MAX_STRETCH**2)


def _column(size: Size) -> NDArray[np.float64]:
    return np.array(size).reshape(3, 1, 1, 1)
