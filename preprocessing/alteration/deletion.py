"""Synthetic deletion: a fold, or a ball, is taken out of a volume of class numbers.

What is drawn and what is applied are two things: `sample_fold` and `sample_ball` return a
`Deletion`, and `apply_deletion` does the same to the same volume every time. Size 0 is the
control: the same code path, and no voxel changes.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from foldnorm.preprocessing.alteration.fold_erasure import fold_and_junctions, hull_voxels
from foldnorm.preprocessing.core.errors import InputError
from foldnorm.preprocessing.core.files import number, whole_number
from foldnorm.preprocessing.io.schemes import LabelScheme

Kind = Literal[
    "none", "fold", "ball", "fold-raw", "fold-graph", "add", "random", "asymmetry",
    "refill", "deform", "interrupt", "displace", "scar", "rim",
]  # fmt: skip


@dataclass(frozen=True)
class SizeRange:
    """Sizes that are eligible: above ``low``, and at most ``high``.

    mm² of sheet for folds, which is their voxel count at 1 mm; mm³ for balls, of which ``low`` is
    the volume. 0 is the control.
    """

    low: float
    high: float = float("inf")

    @classmethod
    def parse(cls, text: str) -> "SizeRange":
        """Read ``500`` (more than 500) or ``200-500``."""
        low, dash, high = text.partition("-")
        try:
            sizes = cls(float(low), float(high) if dash else float("inf"))
        except ValueError:
            raise InputError(f"--size: expected a number or LOW-HIGH, got {text!r}") from None
        if not 0 <= sizes.low < sizes.high:
            raise InputError(f"--size: expected 0 ≤ LOW < HIGH, got {text!r}")
        return sizes

    def holds(self, size: float) -> bool:
        """Return whether a size is eligible."""
        return self.low < size <= self.high

    @property
    def is_control(self) -> bool:
        """True if nothing is to be deleted."""
        return self.low == 0 and self.high == float("inf")

    def __str__(self) -> str:
        if self == ANY_SIZE:
            return "any"
        return f"{self.low:g}" if self.high == float("inf") else f"{self.low:g}-{self.high:g}"


@dataclass(frozen=True)
class Refilling:
    """Options of refilling, which draws the neighbours of a missing fold to its place.

    Attributes:
        reach: mm over which they are drawn, sd of a Gaussian.
        share: of their distance from it; .5 is half-way.
    """

    reach: float = 8.0
    share: float = 0.5

    def __post_init__(self) -> None:
        if not 0 < self.reach < float("inf"):
            raise InputError(f"--reach: expected mm above 0, got {self.reach:g}")
        if not 0 < self.share < 1:
            raise InputError(f"--share: expected a share between 0 and 1, got {self.share:g}")


HALF_WAY = Refilling()


@dataclass(frozen=True)
class Deletion:
    """Alteration that was drawn for one volume.

    Attributes:
        kind: ``none`` for the control.
        label: of the fold, 0 where there is none.
        name: of the fold.
        size: mm² of the fold's sheet, or mm³ of the ball.
        centre: (3,) voxel, of the ball.
        radius: mm, of the ball.
        donor: ``sub-…_hemi-…`` of the volume that something is taken from.
        shift: (3,) voxels by which a crop was moved.
        reach: mm, sd of the fall-off of a deformation.
        share: of the distance to a fold by which its neighbours are drawn.
        mm: gap of an interruption, or way of a displaced fold.
        vector: (3,) direction of that gap along the fold, or that way in mm; along voxel axes.
    """

    kind: Kind
    label: int = 0
    name: str = ""
    size: float = 0.0
    centre: tuple[float, float, float] | None = None
    radius: float = 0.0
    donor: str = ""
    shift: tuple[int, int, int] = (0, 0, 0)
    reach: float = 0.0
    share: float = 0.0
    mm: float = 0.0
    vector: tuple[float, float, float] = (0.0, 0.0, 0.0)


CONTROL = Deletion("none")
ANY_SIZE = SizeRange(-1)  # not the control, and of no size: crops and sides have none


def subject_rng(seed: int, key: str) -> np.random.Generator:
    """Return the generator of one subject: others do not change its draws."""
    digest = hashlib.sha256(f"deletion/{seed}/{key}".encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:8], "big"))


def sample_fold(
    rng: np.random.Generator, folds: Sequence[Mapping[str, str]], sizes: SizeRange
) -> Deletion | None:
    """Draw one of a subject's eligible folds; None if it has none.

    Args:
        rng: of the subject.
        folds: rows of the cohort's fold table: ``label``, ``name``, ``size``, ``voxels``.
        sizes: eligible sizes.
    """
    if sizes.is_control:
        return CONTROL
    eligible = [
        row
        for row in sorted(folds, key=lambda row: whole_number(row, "label"))
        if sizes.holds(number(row, "size")) and whole_number(row, "voxels") > 0
    ]
    if not eligible:
        return None
    row = eligible[int(rng.integers(len(eligible)))]
    return Deletion("fold", whole_number(row, "label"), row["name"], number(row, "size"))


def sample_ball(
    rng: np.random.Generator, volume: NDArray[np.uint8], scheme: LabelScheme, sizes: SizeRange
) -> Deletion | None:
    """Draw a ball of ``sizes.low`` mm³ centred on a voxel of a class above ``void``.

    Args:
        rng: of the subject.
        volume: (I, J, K) class numbers.
        scheme: of the volume.
        sizes: volume of the ball.
    """
    if sizes.is_control:
        return CONTROL
    candidates = np.argwhere(scheme.foreground(volume))
    if not len(candidates):
        return None
    i, j, k = (float(n) for n in candidates[int(rng.integers(len(candidates)))])
    radius = (3 * sizes.low / (4 * np.pi)) ** (1 / 3)
    return Deletion("ball", size=sizes.low, centre=(i, j, k), radius=radius)


def apply_deletion(
    volume: NDArray[np.uint8],
    deletion: Deletion,
    scheme: LabelScheme,
    *,
    folds: NDArray[np.uint16] | None = None,
    has_hull: bool = True,
    voxel_size: Sequence[float] = (1.0, 1.0, 1.0),
) -> NDArray[np.uint8]:
    """Return a copy of ``volume`` in which the deleted voxels are of class ``void``.

    Args:
        volume: (I, J, K) class numbers.
        deletion: what to delete.
        scheme: of the volume; voxels at or below its void class stay as they are.
        folds: (I, J, K) fold labels, for a fold.
        has_hull: whether what touches the outside is the hull, which stays when a fold goes.
        voxel_size: mm, for a ball.
    """
    altered = volume.copy()
    gone = deleted_voxels(
        volume, deletion, scheme, folds=folds, has_hull=has_hull, voxel_size=voxel_size
    )
    altered[gone] = scheme.void
    return altered


def deleted_voxels(
    volume: NDArray[np.uint8],
    deletion: Deletion,
    scheme: LabelScheme,
    *,
    folds: NDArray[np.uint16] | None = None,
    has_hull: bool = True,
    voxel_size: Sequence[float] = (1.0, 1.0, 1.0),
) -> NDArray[np.bool_]:
    """Mask, (I, J, K), of the voxels that a deletion changes; the arguments of `apply_deletion`."""
    if deletion.kind == "none":
        return np.zeros(volume.shape, dtype=np.bool_)
    above = scheme.foreground(volume)
    if deletion.kind == "fold":
        if folds is None:
            raise InputError("a fold can be deleted only where the cohort has fold labels")
        hull = np.zeros_like(above)
        if has_hull:
            hull = hull_voxels(above, volume < scheme.void)
        return fold_and_junctions(above, folds, deletion.label, hull)
    assert deletion.centre is not None
    grids = np.ogrid[tuple(slice(side) for side in volume.shape)]
    distance = sum(
        ((grid - centre) * size) ** 2
        for grid, centre, size in zip(grids, deletion.centre, voxel_size, strict=True)
    )
    return above & (distance <= deletion.radius**2)
