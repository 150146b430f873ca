"""Gyri name the sulci between them: any parcellation with FreeSurfer's numbers names folds.

A fold is a sheet between two banks. Each of its voxels looks along the normal of the sheet to both
sides, and the first gyrus that it meets there is a bank. Two banks name a sulcus, by tables of the
parcellation (`dkt_sulci.yaml`, `destrieux_sulci.yaml`), and the voxels of a fold vote. Most folds
that get no name lie inside one gyrus; none is invented for them.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files

import numpy as np
from numpy.typing import NDArray

from foldnorm.preprocessing.core.counts import listed
from foldnorm.preprocessing.core.kernels import compiled
from foldnorm.preprocessing.core.yaml_files import parse_yaml
from foldnorm.preprocessing.topology.homotopy import Mask

Labels = NDArray[np.integer]
Numbers = NDArray[np.uint8]
Size = tuple[float, float, float]  # mm

SIDES = ("L", "R")
# What a label of cortex, and of the white matter below it (wmparc), has more than its gyrus.
BASES = {
    "dkt": {"L": (1000, 3000), "R": (2000, 4000)},
    "destrieux": {"L": (11100, 13100), "R": (12100, 14100)},
}
VOCABULARIES = tuple(BASES)
CORTEX = {"L": 3, "R": 42}  # of aseg, which knows no gyri
MOST = 14176  # above the largest number of a parcel
NO_GYRUS, OTHER = 0, 255  # outside and cortex without a gyrus; any other structure
# Share of the surface of white matter upon which no gyrus lies: .03 at most in six hemispheres of
# three sites, .35 where their gyri are shifted by a voxel, .65 where they are of another brain.
MAX_BARE = 0.25
REACH_MM = 4.5  # of a bank from the middle of its sulcus: cortex is thinner
NORMAL_MM = 2.0  # around a voxel: the part of a fold that says where the sheet faces
NORMAL_VOXELS = (2, 4)  # of that, least and most
MIN_SHARE = 0.25  # of the voxels of a fold that must vote for its name


@dataclass(frozen=True)
class Correspondence:
    """Labels of a parcellation, and the sulci that they name.

    Attributes:
        vocabulary: of the names: ``dkt`` or ``destrieux``.
        labels: number → name; sides have their numbers from `BASES`.
        optional: names of labels that a healthy hemisphere may lack.
        sulci: names of sulci.
        table: (256, 256) uint8, symmetric: number of the sulcus, from 1, that two labels name; 0
            where they name none.
    """

    vocabulary: str
    labels: Mapping[int, str]
    optional: frozenset[str]
    sulci: tuple[str, ...]
    table: Numbers = field(repr=False)


@dataclass(frozen=True)
class Gyri:
    """Gyri of one hemisphere.

    Attributes:
        correspondence: of the parcellation.
        numbers: (I, J, K) uint8, a label of it, `NO_GYRUS` or `OTHER`.
    """

    correspondence: Correspondence
    numbers: Numbers = field(repr=False)


@dataclass(frozen=True)
class FoldName:
    """Result of the vote of a fold.

    Attributes:
        sulcus: its name without a side; empty if the fold has none.
        share: of the votes that are for it, or for what most voxels see instead.
        between: names of the two gyri that most of these voxels see, or of the one that they lie
            in; empty if no voxel sees two banks.
    """

    sulcus: str
    share: float
    between: tuple[str, ...]


@cache
def correspondence(vocabulary: str) -> Correspondence:
    """Read the table of a vocabulary that comes with the package.

    Example:
        >>> known = correspondence("dkt")
        >>> known.sulci[known.table[22, 24] - 1]  # postcentral and precentral gyrus
        'central'
    """
    path = files("foldnorm.preprocessing.naming") / f"{vocabulary}_sulci.yaml"
    content = parse_yaml(path.read_text(encoding="utf-8"), version="1.2")
    labels = {int(number): str(name) for number, name in content["labels"].items()}
    number_of = {name: number for number, name in labels.items()}
    table = np.zeros((256, 256), dtype=np.uint8)
    of_sulcus: dict[int, int] = {}
    for n, rule in enumerate(content["sulci"].values(), start=1):
        of_sulcus |= {number_of[name]: n for name in rule.get("labelled", [])}
        for one, other in rule.get("between", []):
            table[number_of[one], number_of[other]] = n
            table[number_of[other], number_of[one]] = n
    for label, n in of_sulcus.items():
        for other in labels:  # two labels of two sulci name neither
            table[label, other] = table[other, label] = n * (of_sulcus.get(other, n) == n)
    optional = frozenset(map(str, content["optional"]))
    return Correspondence(vocabulary, labels, optional, tuple(content["sulci"]), table)


def parcellations(labels: Labels) -> dict[str, list[str]]:
    """Return the vocabularies whose gyri each side of a segmentation has, (I, J, K) labels."""
    counts = np.bincount(np.clip(labels, 0, MOST).ravel(), minlength=MOST + 1)
    return {side: [v for v in VOCABULARIES if _held(counts, v, side)] for side in SIDES}


def find_gyri(
    labels: Labels, whites: Mapping[str, Mask]
) -> dict[str, tuple[Gyri | None, list[str]]]:
    """Find the gyri of hemispheres in a segmentation with FreeSurfer's numbers.

    Args:
        labels: (I, J, K) of the segmentation.
        whites: (I, J, K) bool, white matter of each side that is asked for, ``L`` or ``R``.

    Returns:
        Of each of these sides its gyri, None if they cannot be used, and warnings; empty if the
        segmentation has no gyri at all.
    """
    there = parcellations(labels)
    vocabularies = sorted({v for of_side in there.values() for v in of_side})
    if not vocabularies:
        return {}
    if len(vocabularies) > 1:
        said = f"gyri of two parcellations ({' and '.join(vocabularies)}): its folds get no names"
        return {side: (None, [said]) for side in whites}
    known, clipped = correspondence(vocabularies[0]), np.clip(labels, 0, MOST)
    return {
        side: _checked(Gyri(known, _numbers(clipped, known, side)), white, there[side])
        for side, white in whites.items()
    }


def name_folds(gyri: Gyri, folds: Labels, voxel_size: Size) -> dict[int, FoldName]:
    """Name the folds of a hemisphere by the gyri on both sides of each.

    Args:
        gyri: of the hemisphere.
        folds: (I, J, K) fold labels on the same grid, 0 where there is no fold.
        voxel_size: mm.

    Returns:
        Fold label → its name, of every fold.
    """
    places = np.argwhere(folds)
    fold = folds[tuple(places.T)].astype(np.int64)
    steps = _normals(folds, places, voxel_size) * (min(voxel_size) / 2) / np.array(voxel_size)
    n_steps = int(REACH_MM / (min(voxel_size) / 2))
    one, other = (_first_gyrus(gyri.numbers, places, way, n_steps) for way in (steps, -steps))
    banks = np.sort(np.stack([one, other]), axis=0)
    known = gyri.correspondence
    inside, nothing = len(known.sulci) + 1, len(known.sulci) + 2
    vote = known.table[banks[0], banks[1]].astype(np.int64)
    vote[vote == 0] = np.where(banks[0] == banks[1], inside, nothing)[vote == 0]
    votes = np.zeros((int(fold.max(initial=0)) + 1, nothing + 1), dtype=np.int64)
    two = banks[0] > 0
    np.add.at(votes, (fold[two], vote[two]), 1)
    winner, total = votes.argmax(axis=1), votes.sum(axis=1)
    between = _most_seen(fold, banks, two & (vote == winner[fold]))
    voxels = np.bincount(fold)
    found = {}
    for label in np.flatnonzero(voxels):
        won = votes[label, winner[label]]
        is_named = winner[label] < inside and won >= MIN_SHARE * voxels[label]
        found[int(label)] = FoldName(
            known.sulci[winner[label] - 1] if is_named else "",
            float(won / max(total[label], 1)),
            tuple(dict.fromkeys(known.labels[n] for n in between.get(int(label), ()))),
        )
    return found


def _held(counts: NDArray[np.int64], vocabulary: str, side: str) -> list[int]:
    """Labels of a vocabulary that the cortex of a side has."""
    cortex, _ = BASES[vocabulary][side]
    return [n for n in correspondence(vocabulary).labels if counts[cortex + n]]


def _numbers(clipped: Labels, known: Correspondence, side: str) -> Numbers:
    bases = BASES[known.vocabulary][side]
    table = np.full(MOST + 1, OTHER, dtype=np.uint8)
    table[[0, CORTEX[side], bases[0]]] = NO_GYRUS
    for base in bases:
        for number in known.labels:
            table[base + number] = number
    return table[clipped]


def _checked(gyri: Gyri, white: Mask, there: Iterable[str]) -> tuple[Gyri | None, list[str]]:
    """Gyri of a hemisphere if they are there and lie around its white matter, and warnings."""
    if not there:
        return None, ["gyri of the other hemisphere only: its folds get no names"]
    bare, covered = _surface(white, gyri.numbers)
    share = bare / max(bare + covered, 1)
    if share > MAX_BARE:
        return None, [
            f"no gyrus lies on {share:.0%} of its white matter, expected at most {MAX_BARE:.0%}: "
            "gyri of another brain, or shifted? its folds get no names"
        ]
    known = gyri.correspondence
    counts = np.bincount(gyri.numbers.ravel(), minlength=OTHER + 1)
    missing = [
        name for n, name in known.labels.items() if not counts[n] and name not in known.optional
    ]
    if missing:
        return gyri, [f"no gyrus {listed(missing)}: no sulcus between these gets a name"]
    return gyri, []


@compiled(nogil=True)
def _surface(white, numbers):  # type: ignore[no-untyped-def]  # numba infers
    """Faces of white matter upon which no gyrus lies, and upon which one does."""
    bare, covered = 0, 0
    sides = white.shape
    for i in range(1, sides[0] - 1):
        for j in range(1, sides[1] - 1):
            for k in range(1, sides[2] - 1):
                if not white[i, j, k]:
                    continue
                for a, b, c in (
                    (i - 1, j, k), (i + 1, j, k), (i, j - 1, k),
                    (i, j + 1, k), (i, j, k - 1), (i, j, k + 1),
                ):  # fmt: skip
                    if not white[a, b, c]:
                        bare += numbers[a, b, c] == NO_GYRUS
                        covered += NO_GYRUS < numbers[a, b, c] < OTHER
    return bare, covered


def _normals(folds: Labels, places: NDArray[np.int64], voxel_size: Size) -> NDArray[np.float64]:
    """Return the unit normal of the sheet at each of (n, 3) places, mm along the axes, (n, 3).

    That is the direction in which the voxels of the same fold around a place vary least.
    """
    size = np.array(voxel_size)
    reach = np.clip(np.ceil(NORMAL_MM / size), *NORMAL_VOXELS).astype(np.int64)
    spread = _spread(folds, places, size, reach)
    return np.asarray(np.linalg.eigh(spread)[1][:, :, 0])  # eigenvalues ascend


@compiled(nogil=True)
def _spread(folds, places, size, reach):  # type: ignore[no-untyped-def]
    """Covariance of the voxels of the same fold around each place, mm², (n, 3, 3)."""
    found = np.zeros((len(places), 3, 3))
    offset = np.zeros(3)
    for n in range(len(places)):
        i, j, k = places[n]
        mean, count = np.zeros(3), 0
        for a in range(max(i - reach[0], 0), min(i + reach[0] + 1, folds.shape[0])):
            for b in range(max(j - reach[1], 0), min(j + reach[1] + 1, folds.shape[1])):
                for c in range(max(k - reach[2], 0), min(k + reach[2] + 1, folds.shape[2])):
                    if folds[a, b, c] != folds[i, j, k]:
                        continue
                    offset[0], offset[1], offset[2] = a - i, b - j, c - k
                    count += 1
                    for x in range(3):
                        mean[x] += offset[x] * size[x]
                        for y in range(3):
                            found[n, x, y] += offset[x] * size[x] * offset[y] * size[y]
        mean /= count  # at least the place itself
        for x in range(3):
            for y in range(3):
                found[n, x, y] = found[n, x, y] / count - mean[x] * mean[y]
    return found


@compiled(nogil=True)
def _first_gyrus(numbers, places, steps, n_steps):  # type: ignore[no-untyped-def]
    """First gyrus along a ray from each place, its own voxel left out; `NO_GYRUS` if there is none.

    Steps are in voxels.
    """
    found = np.full(len(places), NO_GYRUS, np.uint8)
    shape = numbers.shape
    for n in range(len(places)):
        for t in range(1, n_steps + 1):
            i = int(np.floor(places[n, 0] + t * steps[n, 0] + 0.5))
            j = int(np.floor(places[n, 1] + t * steps[n, 1] + 0.5))
            k = int(np.floor(places[n, 2] + t * steps[n, 2] + 0.5))
            if not (0 <= i < shape[0] and 0 <= j < shape[1] and 0 <= k < shape[2]):
                break
            if i == places[n, 0] and j == places[n, 1] and k == places[n, 2]:
                continue
            if NO_GYRUS < numbers[i, j, k] < OTHER:
                found[n] = numbers[i, j, k]
                break
    return found


def _most_seen(
    fold: NDArray[np.int64], banks: Numbers, is_winner: Mask
) -> dict[int, tuple[int, int]]:
    """Fold → the pair of banks that most of its winning voxels have.

    Args:
        fold: (n,) of each voxel.
        banks: (2, n), the lower number first.
        is_winner: (n,) bool, voxels whose vote won.
    """
    rows = np.stack([fold, *banks.astype(np.int64)], axis=1)[is_winner]
    kinds, counts = np.unique(rows, axis=0, return_counts=True)
    best = kinds[np.argsort(counts, kind="stable")]  # a later one goes before an earlier one
    return {int(label): (int(one), int(other)) for label, one, other in best}
