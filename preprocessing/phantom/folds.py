"""The folds of one phantom: curves on the hull with a depth, a tilt and a bend.

Every draw comes from a generator keyed by (seed, subject, fold, purpose): the geometry does not
depend on the resolution, and one fold can be left out without a trace in the others.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from foldnorm.preprocessing.core.errors import InputError
from foldnorm.preprocessing.phantom.anatomy import (
    DEPTH_SCALE,
    PRIMARY,
    SECONDARY_COUNT,
    SECONDARY_FIRST_LABEL,
    SHARES_END_OF,
    TEMPLATE_SEED,
    TERTIARY_FIRST_LABEL,
    PrimarySulcus,
    from_view,
    hull_samples,
    inward_normals,
    on_hull,
)
from foldnorm.preprocessing.phantom.kernels import cover, grow

VariantKind = Literal["erased", "absent", "added", "interrupted", "displaced"]
VARIANT_KINDS: tuple[VariantKind, ...] = ("erased", "absent", "added", "interrupted", "displaced")

CURVE_STEP = 1.5  # mm between points of a curve
WHOLE_SD, POINT_SD = 2.5, 1.25  # mm, place of a primary sulcus and of each control point
LENGTH_SD = 0.12
DEPTH_SD, DEPTH_ALONG_SD = 0.10, 0.12
WIGGLE = 2.0  # mm
TILT_SD = 8.0  # degrees
BEND_SD = 2.5  # mm at the bottom
GAP_HALF_WIDTH = (2.0, 5.0)  # mm of an interruption
BURIED_DEPTH = 0.3  # of a sulcus that an interruption does not reach the surface of
BRANCH_LENGTH, BRANCH_DEPTH = (8.0, 18.0), (0.5, 0.8)
SECONDARY_PRESENCE = (0.55, 0.95)
SECONDARY_LENGTH, SECONDARY_DEPTH = (22.0, 54.0), (9.0, 20.0)
SECONDARY_PLACE_SD, SECONDARY_ROTATION_SD = 4.0, 12.0
TERTIARY_LENGTH, TERTIARY_DEPTH = (12.0, 42.0), (4.0, 14.5)
MAX_UNFOLDED = 9.5  # mm: no point of the hull is farther from a fold
KEPT_GAP = (5.7, 7.1)  # mm that a new fold keeps from the others
MAX_TERTIARY = 2000  # tries; reached only if the hull cannot be filled
DISPLACEMENT = 12.0  # mm of a displaced fold
ADDED_LABEL = 99


@dataclass(frozen=True)
class Variant:
    """A departure from healthy folding.

    Attributes:
        kind: ``erased``: the fold leaves a void. ``absent``: it never grew, and its neighbours
            fill the place. ``added``: an extra deep fold beside it. ``interrupted``: a gap of
            10 mm. ``displaced``: moved by 12 mm.
        label: of the primary sulcus concerned.
    """

    kind: VariantKind
    label: int

    def __post_init__(self) -> None:
        if self.kind not in VARIANT_KINDS:
            raise InputError(f"variant is one of {', '.join(VARIANT_KINDS)}, got {self.kind!r}")
        if self.label not in range(1, len(PRIMARY) + 1):
            raise InputError(f"variant: no primary sulcus has label {self.label}")


@dataclass(frozen=True)
class PhantomFold:
    """A curve on the hull and the surface that hangs from it.

    Attributes:
        label: in the fold-label volume.
        curve: (n, 3) mm from the template's centre, `CURVE_STEP` apart.
        depth: (n,) mm; 0 where there is no sheet.
        tilt: radians from the hull's normal.
        bend: mm sideways at the bottom.
    """

    label: int
    curve: NDArray[np.float64]
    depth: NDArray[np.float64]
    tilt: float = 0.0
    bend: float = 0.0


@dataclass
class Growth:
    """The folds drawn so far, and how much of the hull they leave unfolded."""

    folds: list[PhantomFold] = field(default_factory=list)
    taken: NDArray[np.float64] = field(default_factory=lambda: np.empty((20_000, 3)))
    count: int = 0
    unfolded: NDArray[np.float64] = field(
        default_factory=lambda: np.full(len(hull_samples()), np.inf)
    )

    def add(self, fold: PhantomFold) -> None:
        """Keep a fold and mark its place as taken."""
        self.folds.append(fold)
        room = self.taken[self.count : self.count + len(fold.curve)]
        room[:] = fold.curve[: len(room)]
        self.count += len(room)
        cover(hull_samples(), self.unfolded, fold.curve)


def keyed_rng(seed: int, subject: int, fold: int, purpose: str) -> np.random.Generator:
    """Return the generator of one purpose of one fold of one subject."""
    return np.random.default_rng([seed, subject, fold, *purpose.encode()])


def grow_folds(seed: int, subject: int, variant: Variant | None = None) -> list[PhantomFold]:
    """Return all folds of a subject: primary, secondary, tertiary."""
    growth = Growth()
    ends: dict[int, NDArray[np.float64]] = {}
    for sulcus in PRIMARY:
        for fold in _primary(sulcus, seed, subject, ends, variant):
            if not (variant and variant.kind == "absent" and fold.label == variant.label):
                growth.add(fold)
    if variant and variant.kind == "added":
        growth.add(_added(growth, seed, subject, variant.label))
    _secondary(growth, seed, subject)
    _tertiary(growth, seed, subject)
    if variant and variant.kind == "erased":
        return [fold for fold in growth.folds if fold.label != variant.label]
    return growth.folds


def _primary(
    sulcus: PrimarySulcus,
    seed: int,
    subject: int,
    ends: dict[int, NDArray[np.float64]],
    variant: Variant | None,
) -> Iterator[PhantomFold]:
    """Yield a named sulcus, with its own place, length, wiggle, interruption and branch."""
    rng = keyed_rng(seed, subject, sulcus.label, "place")
    points = from_view(sulcus.points, sulcus.side)
    points = points + rng.normal(0, WHOLE_SD, 3) + rng.normal(0, POINT_SD, points.shape)
    points = points.mean(axis=0) + (points - points.mean(axis=0)) * rng.normal(1, LENGTH_SD)
    if sulcus.label in SHARES_END_OF:
        points[0] = ends[SHARES_END_OF[sulcus.label]]
    affected = variant is not None and variant.label == sulcus.label
    if variant and affected and variant.kind == "displaced":
        points = points + _sideways(points, rng) * DISPLACEMENT
    curve = _catmull_rom(on_hull(points))
    ends[sulcus.label] = curve[-1]
    curve = _wiggled(curve, rng)
    depth = sulcus.depth * DEPTH_SCALE * max(rng.normal(1, DEPTH_SD), 0.5)
    profile = depth * _profile(len(curve), keyed_rng(seed, subject, sulcus.label, "depth"))
    profile *= _interruption(sulcus, len(curve), keyed_rng(seed, subject, sulcus.label, "gap"))
    if variant and affected and variant.kind == "interrupted":
        middle = np.abs(np.arange(len(curve)) - len(curve) / 2) * CURVE_STEP
        profile[middle < 5.0] = 0
    lean = keyed_rng(seed, subject, sulcus.label, "lean")
    tilt, bend = np.radians(lean.normal(0, TILT_SD)), lean.normal(0, BEND_SD)
    yield PhantomFold(sulcus.label, curve, profile, tilt, bend)
    yield from _branch(sulcus, curve, depth, keyed_rng(seed, subject, sulcus.label, "branch"))


def _branch(
    sulcus: PrimarySulcus, curve: NDArray[np.float64], depth: float, rng: np.random.Generator
) -> Iterator[PhantomFold]:
    if rng.random() >= sulcus.branched:
        return
    at = int(rng.uniform(0.25, 0.75) * len(curve))
    length = rng.uniform(*BRANCH_LENGTH)
    side = _sideways(curve[max(at - 2, 0) : at + 3], rng)
    lean = rng.normal(0, 0.3) * (curve[min(at + 1, len(curve) - 1)] - curve[at]) / CURVE_STEP
    distance = np.arange(0, length, CURVE_STEP)[:, None]
    branch = on_hull(curve[at] + distance * (side + lean))
    profile = depth * rng.uniform(*BRANCH_DEPTH) * _profile(len(branch), rng)
    yield PhantomFold(sulcus.label, branch, profile, np.radians(rng.normal(0, TILT_SD)), 0.0)


def _added(growth: Growth, seed: int, subject: int, label: int) -> PhantomFold:
    """Draw an extra fold, 40 mm long and 16 mm deep, beside a named one."""
    rng = keyed_rng(seed, subject, label, "added")
    beside = next(fold for fold in growth.folds if fold.label == label)
    curve = on_hull(beside.curve + 9.0 * _sideways(beside.curve, rng))
    curve = curve[: int(40 / CURVE_STEP)]
    return PhantomFold(ADDED_LABEL, curve, 16.0 * _profile(len(curve), rng))


@cache
def _secondary_places() -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Places, (n, 3), directions and presence of the secondary folds: shared by all subjects."""
    rng = np.random.default_rng(TEMPLATE_SEED)
    samples = hull_samples()
    distance = np.full(len(samples), np.inf)
    for sulcus in PRIMARY:
        cover(samples, distance, _catmull_rom(from_view(sulcus.points, sulcus.side)))
    chosen = []
    for _ in range(SECONDARY_COUNT):
        farthest = samples[int(distance.argmax())]
        chosen.append(farthest)
        cover(samples, distance, farthest[None])
    return (
        np.array(chosen),
        rng.uniform(0, np.pi, SECONDARY_COUNT),
        rng.uniform(*SECONDARY_PRESENCE, SECONDARY_COUNT),
    )


def _secondary(growth: Growth, seed: int, subject: int) -> None:
    places, angles, presence = _secondary_places()
    for n in range(SECONDARY_COUNT):
        label = SECONDARY_FIRST_LABEL + n
        rng = keyed_rng(seed, subject, label, "place")
        present = rng.random() < presence[n]
        start = on_hull(places[n] + rng.normal(0, SECONDARY_PLACE_SD, 3))
        angle = angles[n] + np.radians(rng.normal(0, SECONDARY_ROTATION_SD))
        fold = _grown(
            growth, label, start, angle, rng, rng.uniform(*SECONDARY_LENGTH), SECONDARY_DEPTH
        )
        if present and fold is not None:
            growth.add(fold)


def _tertiary(growth: Growth, seed: int, subject: int) -> None:
    """Fill the hull with small folds until no point is far from one."""
    samples = hull_samples()
    rng = keyed_rng(seed, subject, TERTIARY_FIRST_LABEL, "fill")
    label = TERTIARY_FIRST_LABEL
    for _ in range(MAX_TERTIARY):
        bare = np.flatnonzero(growth.unfolded > MAX_UNFOLDED)
        if not len(bare):
            return
        start = samples[bare[rng.integers(len(bare))]]
        length = rng.uniform(*TERTIARY_LENGTH)
        fold = _grown(growth, label, start, rng.uniform(0, np.pi), rng, length, TERTIARY_DEPTH)
        if fold is not None:
            growth.add(fold)
            label += 1


def _grown(
    growth: Growth,
    label: int,
    start: NDArray[np.float64],
    angle: float,
    rng: np.random.Generator,
    length: float,
    depths: tuple[float, float],
) -> PhantomFold | None:
    """Return a fold grown in the free room around ``start``; None if there is none."""
    turns = rng.normal(0, 0.12, (2, 30))
    gap = rng.uniform(*KEPT_GAP)
    depth, tilt = rng.uniform(*depths), np.radians(rng.normal(0, TILT_SD))
    curve = grow(start, angle, turns, length / 2, CURVE_STEP, gap, growth.taken, growth.count)
    if len(curve) < 2:
        return None
    return PhantomFold(label, curve, depth * _profile(len(curve), rng), tilt, rng.normal(0, 1.0))


def _profile(count: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Depth along a fold, relative: smooth noise, shallower at both ends."""
    along = np.linspace(0, 1, count)
    phase = rng.uniform(0, 2 * np.pi, 3)
    waves = np.sin(2 * np.pi * along[:, None] * np.array([1, 2, 3]) + phase).sum(axis=1)
    ends = np.clip(np.minimum(along, 1 - along) * 6, 0.35, 1.0)
    return ends * (1 + DEPTH_ALONG_SD * waves / np.sqrt(1.5))


def _interruption(
    sulcus: PrimarySulcus, count: int, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Factor on the depth: 1, but 0 or `BURIED_DEPTH` over a short stretch in some subjects."""
    factor = np.ones(count)
    happens, is_buried = rng.random() < sulcus.interrupted, rng.random() < 0.5
    centre, half_width = rng.uniform(0.25, 0.75) * count, rng.uniform(*GAP_HALF_WIDTH)
    if happens:
        stretch = np.abs(np.arange(count) - centre) * CURVE_STEP < half_width
        factor[stretch] = BURIED_DEPTH if is_buried else 0.0
    return factor


def _wiggled(curve: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    along = np.arange(len(curve)) * CURVE_STEP
    wave = np.sin(2 * np.pi * along / rng.uniform(18, 35) + rng.uniform(0, 2 * np.pi))
    wave *= np.clip(np.minimum(along, along[::-1]) / 8, 0, 1)  # the ends stay where they are
    return on_hull(curve + WIGGLE * wave[:, None] * sideways(curve))


def _sideways(curve: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    """One unit vector across a curve, (3,), to a side drawn at random."""
    return sideways(curve).mean(axis=0) * rng.choice([-1.0, 1.0])


def sideways(curve: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return unit vectors that lie in the hull and point across a curve, (n, 3)."""
    across = np.cross(inward_normals(curve), np.gradient(curve, axis=0))
    return across / np.maximum(np.linalg.norm(across, axis=1, keepdims=True), 1e-9)


def _catmull_rom(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Smooth curve through control points (n, 3), on the hull, `CURVE_STEP` apart."""
    padded = np.vstack([2 * points[0] - points[1], points, 2 * points[-1] - points[-2]])
    pieces = []
    for p0, p1, p2, p3 in zip(padded, padded[1:], padded[2:], padded[3:], strict=False):
        u = np.linspace(0, 1, 20, endpoint=False)[:, None]
        pieces.append(
            0.5
            * (
                2 * p1
                + (p2 - p0) * u
                + (2 * p0 - 5 * p1 + 4 * p2 - p3) * u**2
                + (3 * p1 - p0 - 3 * p2 + p3) * u**3
            )
        )
    dense = on_hull(np.vstack([*pieces, points[-1:]]))
    length = np.concatenate([[0], np.linalg.norm(np.diff(dense, axis=0), axis=1).cumsum()])
    at = np.linspace(0, length[-1], max(int(length[-1] / CURVE_STEP) + 1, 3))
    return on_hull(np.column_stack([np.interp(at, length, dense[:, a]) for a in range(3)]))
