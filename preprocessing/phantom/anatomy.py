"""The template of the phantom: an ellipsoid hemisphere and its twenty named sulci.

The left hemisphere is the template, in world mm (RAS+). A sulcus is a curve on the hull, given by
control points in *view coordinates*: y (posterior −1 … anterior 1) and z (inferior −1 …
superior 1) of the unit sphere, seen from the lateral or the medial side.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

# Semi-axes in mm: lateral, medial (along x), anterior–posterior, superior–inferior.
LATERAL, MEDIAL, ANTERIOR, SUPERIOR = 60.0, 9.0, 86.0, 58.0
CENTRE = np.array([-10.0, -18.0, 10.0])
# The field of view leaves room for the largest subject: ±4 sd of size, place and warp.
FIELD_OF_VIEW = ((-84.0, 10.0), (-120.0, 86.0), (-64.0, 84.0))

# Phantoms lie between these planes on average, and a cerebrum in MNI space between those, mm: left,
# back, bottom; medial, front, top.
PLANES = np.array([[-68.0, -99.0, -44.0], [-1.0, 62.5, 63.5]])
MNI_PLANES = np.array([[-69.0, -105.0, -49.0], [0.0, 71.0, 79.0]])

DEPTH_SCALE = 1.3  # of the primary depths: sheets end above the depth that is aimed at
SECONDARY_FIRST_LABEL = 100
SECONDARY_COUNT = 90
TERTIARY_FIRST_LABEL = 1000
TEMPLATE_SEED = 20210927  # of what all subjects share: the places of the secondary folds

ControlPoints = tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class PrimarySulcus:
    """A named sulcus that every healthy phantom has.

    Attributes:
        label: in the fold-label volume.
        name: as in ``fold_names.tsv``.
        depth: mm, before `DEPTH_SCALE`.
        side: −1 lateral, 1 medial: the sign of x on the unit sphere.
        points: control points (y, z).
        interrupted: probability of an interruption in a subject.
        branched: probability of a side branch.
    """

    label: int
    name: str
    depth: float
    side: int
    points: ControlPoints
    interrupted: float
    branched: float


_FORK = (-0.36, -0.18)  # where the superior temporal sulcus divides
PRIMARY = tuple(
    PrimarySulcus(label, *row)
    for label, row in enumerate(
        (
            (
                "lateral_fissure",
                27,
                -1,
                ((0.42, -0.30), (0.2, -0.18), (-0.05, -0.08), (-0.3, 0.02)),
                0.0,
                0.5,
            ),
            (
                "superior_temporal",
                20,
                -1,
                ((0.38, -0.62), (0.12, -0.48), (-0.15, -0.34), _FORK),
                0.3,
                0.3,
            ),
            (
                "superior_temporal_anterior_branch",
                15,
                -1,
                (_FORK, (-0.40, 0.02), (-0.42, 0.2)),
                0.2,
                0.2,
            ),
            (
                "superior_temporal_posterior_branch",
                14,
                -1,
                (_FORK, (-0.5, -0.08), (-0.62, 0.08)),
                0.2,
                0.2,
            ),
            (
                "central",
                18,
                -1,
                ((-0.18, 0.90), (-0.06, 0.6), (0.06, 0.35), (0.14, 0.08)),
                0.05,
                0.1,
            ),
            ("precentral_superior", 14, -1, ((0.02, 0.92), (0.10, 0.72), (0.17, 0.52)), 0.3, 0.4),
            ("precentral_inferior", 15, -1, ((0.24, 0.42), (0.30, 0.22), (0.33, 0.0)), 0.2, 0.5),
            (
                "postcentral",
                14,
                -1,
                ((-0.36, 0.84), (-0.24, 0.58), (-0.14, 0.35), (-0.08, 0.12)),
                0.5,
                0.3,
            ),
            ("superior_frontal", 14, -1, ((0.22, 0.78), (0.45, 0.68), (0.65, 0.52)), 0.5, 0.3),
            ("inferior_frontal", 13, -1, ((0.42, 0.36), (0.58, 0.28), (0.72, 0.15)), 0.4, 0.3),
            (
                "intraparietal",
                20,
                -1,
                ((-0.26, 0.42), (-0.45, 0.5), (-0.65, 0.48), (-0.78, 0.35)),
                0.3,
                0.4,
            ),
            (
                "inferior_temporal",
                11,
                -1,
                ((0.22, -0.78), (-0.05, -0.68), (-0.32, -0.52), (-0.52, -0.36)),
                0.5,
                0.2,
            ),
            (
                "lateral_occipital",
                12,
                -1,
                ((-0.6, -0.22), (-0.75, -0.12), (-0.88, -0.02)),
                0.3,
                0.3,
            ),
            (
                "cingulate",
                13,
                1,
                ((0.7, 0.05), (0.6, 0.38), (0.3, 0.58), (0.0, 0.62), (-0.25, 0.66), (-0.33, 0.85)),
                0.4,
                0.2,
            ),
            (
                "calcarine",
                18,
                1,
                ((-0.3, -0.12), (-0.5, -0.2), (-0.7, -0.15), (-0.88, -0.12)),
                0.05,
                0.2,
            ),
            (
                "parieto_occipital",
                16,
                1,
                ((-0.5, -0.18), (-0.58, 0.15), (-0.62, 0.5), (-0.62, 0.72)),
                0.05,
                0.2,
            ),
            (
                "collateral",
                14,
                1,
                ((0.15, -0.72), (-0.15, -0.66), (-0.42, -0.52), (-0.6, -0.42)),
                0.3,
                0.2,
            ),
            ("subparietal", 11, 1, ((-0.3, 0.35), (-0.42, 0.4), (-0.5, 0.35)), 0.3, 0.4),
            ("orbital", 12, -1, ((0.45, -0.55), (0.6, -0.45), (0.76, -0.32)), 0.3, 0.4),
            (
                "callosal",
                8,
                1,
                ((0.38, 0.0), (0.3, 0.22), (0.05, 0.32), (-0.2, 0.25), (-0.28, 0.08)),
                0.0,
                0.0,
            ),
        ),
        start=1,
    )
)
BY_NAME = {sulcus.name: sulcus for sulcus in PRIMARY}
# The branches begin where the trunk ends, whatever the trunk's own variation.
SHARES_END_OF = {3: 2, 4: 2}


def fold_names() -> dict[int, str]:
    """Label → name of the sulci; secondary and tertiary folds have none, as in a brain."""
    return {sulcus.label: sulcus.name for sulcus in PRIMARY}


def phantom_to_mni(hemi: str) -> NDArray[np.float64]:
    """Matrix, (4, 4), from phantom mm to MNI mm: a stretch that gives it a brain's size."""
    scale = (MNI_PLANES[1] - MNI_PLANES[0]) / (PLANES[1] - PLANES[0])
    matrix = np.diag([*scale, 1.0])
    matrix[:3, 3] = MNI_PLANES[0] - scale * PLANES[0]
    if hemi == "R":
        matrix[0, 3] *= -1
    return matrix


def on_hull(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Push points, (n, 3) mm from the centre, along their ray onto the ellipsoid."""
    radius = np.linalg.norm(points / semi_axes(points), axis=-1, keepdims=True)
    return points / np.maximum(radius, 1e-9)


def semi_axes(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Semi-axes that hold at each point, (n, 3): x is shorter on the medial side."""
    axes = np.empty_like(points)
    axes[..., 0] = np.where(points[..., 0] < 0, LATERAL, MEDIAL)
    axes[..., 1] = ANTERIOR
    axes[..., 2] = SUPERIOR
    return axes


def inward_normals(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the unit normals of the ellipsoid at (n, 3) points, pointing inside."""
    gradient = -points / semi_axes(points) ** 2
    return gradient / np.linalg.norm(gradient, axis=-1, keepdims=True)


def from_view(points: ControlPoints, side: int) -> NDArray[np.float64]:
    """View coordinates → (n, 3) mm from the centre, on the hull."""
    yz = np.array(points)
    x = side * np.sqrt(np.maximum(1 - (yz**2).sum(axis=1), 0.01))
    direction = np.column_stack([x, yz])
    return on_hull(direction * semi_axes(direction))


@cache
def hull_samples(count: int = 9000) -> NDArray[np.float64]:
    """Points spread over the hull, (count, 3) mm from the centre, 1 to 3 mm apart."""
    n = np.arange(count) + 0.5
    z = 1 - 2 * n / count
    angle = np.pi * (1 + 5**0.5) * n
    ring = np.sqrt(1 - z**2)
    direction = np.column_stack([ring * np.cos(angle), ring * np.sin(angle), z])
    return on_hull(direction * semi_axes(direction))
