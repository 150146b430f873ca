"""The loops of the phantom: growing curves on the hull, drawing sheets, measuring distances."""

import math

import numpy as np

from foldnorm.preprocessing.core.kernels import compiled
from foldnorm.preprocessing.phantom.anatomy import ANTERIOR, LATERAL, MEDIAL, SUPERIOR

# Distance between two samples of a sheet, voxels: finer than half a voxel, so none is missed.
SHEET_STEP = 0.42


@compiled()
def project(p):  # type: ignore[no-untyped-def]
    """Push one point (3,), mm from the centre, along its ray onto the hull."""
    a = LATERAL if p[0] < 0 else MEDIAL
    r = math.sqrt((p[0] / a) ** 2 + (p[1] / ANTERIOR) ** 2 + (p[2] / SUPERIOR) ** 2)
    return p / max(r, 1e-9)


@compiled()
def normal(p):  # type: ignore[no-untyped-def]
    """Outward unit normal of the hull at (3,)."""
    a = LATERAL if p[0] < 0 else MEDIAL
    n = np.empty(3)
    n[0] = p[0] / a**2
    n[1] = p[1] / ANTERIOR**2
    n[2] = p[2] / SUPERIOR**2
    return n / math.sqrt(n[0] ** 2 + n[1] ** 2 + n[2] ** 2)


@compiled()
def clearance(p, taken, count):  # type: ignore[no-untyped-def]
    """Distance in mm from ``p`` to the nearest of the first ``count`` rows of ``taken``."""
    best = 1e12
    for n in range(count):
        d = (p[0] - taken[n, 0]) ** 2 + (p[1] - taken[n, 1]) ** 2 + (p[2] - taken[n, 2]) ** 2
        best = min(best, d)
    return math.sqrt(best)


@compiled()
def grow(start, angle, turns, half_length, step, gap, taken, count):  # type: ignore[no-untyped-def]
    """Grow a curve both ways from ``start`` along the hull, stopping before other folds.

    Args:
        start: (3,) on the hull.
        angle: of the first direction in the tangent plane, radians.
        turns: (2, n) change of direction at each step, radians.
        half_length: mm, each way.
        step: mm.
        gap: mm to keep from the points ``taken[:count]``.
        taken: (n, 3) points of the folds that are there.
        count: how many of them count.

    Returns:
        (m, 3) points in order; m = 0 if there is no room at ``start``.
    """
    steps = int(half_length / step)
    both = np.empty((2 * steps + 1, 3))
    if clearance(start, taken, count) < gap:
        return both[:0]
    lengths = np.zeros(2, np.int64)
    for way in range(2):
        p = start.copy()
        heading = angle + way * math.pi
        for n in range(steps):
            heading += turns[way, n % turns.shape[1]]
            up = normal(p)
            helper = np.array([0.0, 1.0, 0.0]) if abs(up[1]) < 0.9 else np.array([0.0, 0.0, 1.0])
            u = np.cross(up, helper)
            u /= math.sqrt((u**2).sum())
            v = np.cross(up, u)
            p = project(p + step * (math.cos(heading) * u + math.sin(heading) * v))
            if clearance(p, taken, count) < gap:
                break
            both[steps + (n + 1 if way == 0 else -n - 1)] = p
            lengths[way] = n + 1
    both[steps] = start
    return both[steps - lengths[1] : steps + lengths[0] + 1]


@compiled()
def cover(samples, distance, curve):  # type: ignore[no-untyped-def]
    """Lower ``distance``, (n,) mm, of each hull sample to the nearest point of ``curve``."""
    for n in range(samples.shape[0]):
        distance[n] = min(distance[n], clearance(samples[n], curve, curve.shape[0]))


@compiled()
def draw_sheet(mesh, depth, label, labels, below):  # type: ignore[no-untyped-def]
    """Draw a swept surface as a sheet one voxel thick (a naive digital plane).

    A voxel v near a sample p with normal n belongs to the sheet where |n·(v − p)| ≤ max|nᵢ| / 2:
    26-connected, and no path of faces crosses it.

    Args:
        mesh: (S, T, 3) points in voxels; rows run along the fold, columns into the depth.
        depth: (S, T) mm below the hull of each.
        label: of the fold.
        labels: (I, J, K) int32 drawn into where it is 0.
        below: (I, J, K) float32, depth in mm of the drawn voxels.
    """
    for s in range(mesh.shape[0] - 1):
        for t in range(mesh.shape[1] - 1):
            n_s = (
                math.ceil(
                    _longest(mesh[s + 1, t] - mesh[s, t], mesh[s + 1, t + 1] - mesh[s, t + 1])
                    / SHEET_STEP
                )
            ) + 1
            n_t = (
                math.ceil(
                    _longest(mesh[s, t + 1] - mesh[s, t], mesh[s + 1, t + 1] - mesh[s + 1, t])
                    / SHEET_STEP
                )
            ) + 1
            for a in range(n_s):
                fa = a / (n_s - 1) if n_s > 1 else 0.0
                across = (1 - fa) * (mesh[s, t + 1] - mesh[s, t]) + fa * (
                    mesh[s + 1, t + 1] - mesh[s + 1, t]
                )
                left = (1 - fa) * mesh[s, t] + fa * mesh[s + 1, t]
                for b in range(n_t):
                    fb = b / (n_t - 1) if n_t > 1 else 0.0
                    along = (1 - fb) * (mesh[s + 1, t] - mesh[s, t]) + fb * (
                        mesh[s + 1, t + 1] - mesh[s, t + 1]
                    )
                    p = left + fb * across
                    d = (1 - fb) * depth[s, t] + fb * depth[s, t + 1]
                    _mark(p, np.cross(along, across), d, label, labels, below)


@compiled()
def _longest(first, second):  # type: ignore[no-untyped-def]
    return math.sqrt(max((first**2).sum(), (second**2).sum()))


@compiled()
def _mark(p, n, depth, label, labels, below):  # type: ignore[no-untyped-def]
    i = round(p[0])
    j = round(p[1])
    k = round(p[2])
    if not (0 <= i < labels.shape[0] and 0 <= j < labels.shape[1] and 0 <= k < labels.shape[2]):
        return
    if labels[i, j, k]:
        return
    largest = max(abs(n[0]), abs(n[1]), abs(n[2]))
    if abs(n[0] * (i - p[0]) + n[1] * (j - p[1]) + n[2] * (k - p[2])) <= 0.5 * largest:
        labels[i, j, k] = label
        below[i, j, k] = depth


@compiled(fastmath=True)
def fill_hull(inside, origin, step, matrix, shift, waves, phases, amplitudes):  # type: ignore[no-untyped-def]
    """Mark the voxels of the subject's warped ellipsoid in ``inside``, (I, J, K) bool.

    Template point of world p: matrix @ (p − shift) + Σ amplitudes[w] sin(waves[w]·p + phases[w]).
    """
    count = waves.shape[0]
    sines = np.empty((3, count, max(inside.shape)))
    cosines = np.empty_like(sines)
    for axis in range(3):
        for n in range(inside.shape[axis]):
            x = origin[axis] + step * n
            for w in range(count):
                angle = waves[w, axis] * x + (phases[w] if axis == 0 else 0.0)
                sines[axis, w, n] = math.sin(angle)
                cosines[axis, w, n] = math.cos(angle)
    q = np.empty(3)
    for i in range(inside.shape[0]):
        for j in range(inside.shape[1]):
            for k in range(inside.shape[2]):
                x = origin[0] + step * i - shift[0]
                y = origin[1] + step * j - shift[1]
                z = origin[2] + step * k - shift[2]
                for r in range(3):
                    q[r] = matrix[r, 0] * x + matrix[r, 1] * y + matrix[r, 2] * z
                for w in range(count):
                    s01 = sines[0, w, i] * cosines[1, w, j] + cosines[0, w, i] * sines[1, w, j]
                    c01 = cosines[0, w, i] * cosines[1, w, j] - sines[0, w, i] * sines[1, w, j]
                    wave = s01 * cosines[2, w, k] + c01 * sines[2, w, k]
                    for r in range(3):
                        q[r] += amplitudes[w, r] * wave
                a = LATERAL if q[0] < 0 else MEDIAL
                inside[i, j, k] = (q[0] / a) ** 2 + (q[1] / ANTERIOR) ** 2 + (
                    q[2] / SUPERIOR
                ) ** 2 <= 1


@compiled()
def within(sources, offsets):  # type: ignore[no-untyped-def]
    """Mark every voxel that is at one of ``offsets``, (n, 3), from a true voxel of ``sources``."""
    sides = sources.shape
    near = sources.copy()
    for i in range(sides[0]):
        for j in range(sides[1]):
            for k in range(sides[2]):
                if not sources[i, j, k]:
                    continue
                for n in range(offsets.shape[0]):
                    a, b, c = i + offsets[n, 0], j + offsets[n, 1], k + offsets[n, 2]
                    if 0 <= a < sides[0] and 0 <= b < sides[1] and 0 <= c < sides[2]:
                        near[a, b, c] = True
    return near
