"""Scans that are in a cohort twice, under two participant ids.

A copy that was renamed, or segmented anew, lies where the original lies: on the same grid of its
own space. Two people never do, nor do two scans of one person, whose heads lie a little
differently. So what is compared is the structure (the surface of the highest class, for skeletons
their sheets) as it came, voxel by voxel in the world, before anything is aligned.

The comparison is the Dice overlap of two sets of voxels, estimated from a signature of `BUCKETS`
numbers (MinHash, Broder 1997, with one permutation, Li, Owen & Zhang 2012) that each volume's
sidecar holds. Volumes are compared in full only where `ROWS` numbers in a row agree, which takes
time in proportion to their number.
"""

import base64
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from foldnorm.preprocessing.cohort.prepared_index import PreparedVolume
from foldnorm.preprocessing.io.names import bids_label

BUCKETS, ROWS = 256, 4
MAX_PAIRED = 16  # rows that one is paired with, at most
EMPTY = np.uint32(2**32 - 1)
# Dice of 1 mm skeletons of the left side: .86 and .84 of two scans that are in Mindboggle-101
# twice, 92 % of whose labels are equal; at most .18 of the 3,826 other pairs of 88 brains. Of 160
# hippocampi on grids that are cut close around them, at most .56. Half a voxel of movement leaves
# .24 of one brain with itself.
SAME_SCAN = 0.7
STEPS_PER_MM = 100  # world coordinates are rounded to this
MAX_COORDINATE = 1e9  # mm; a damaged header may say more, and that is no integer any more
MIN_BUCKETS = 32  # that hold something; less structure says nothing
Signature = NDArray[np.uint32]


@dataclass(frozen=True)
class SameScan:
    """One scan under two ids.

    Attributes:
        first: participant that comes first by id.
        second: the other.
        hemis: sides that agree; empty names where there are none.
        overlap: estimated Dice, the lowest of the sides.
    """

    first: str
    second: str
    hemis: tuple[str, ...]
    overlap: float


def signature_of(structure: NDArray[np.bool_], affine: NDArray[np.float64]) -> Signature:
    """Return the lowest hash of the surface voxels in each of `BUCKETS` buckets.

    Args:
        structure: (I, J, K).
        affine: (4, 4), voxel index → world mm.

    Returns:
        (`BUCKETS`,) uint32; `EMPTY` where no voxel falls into a bucket.
    """
    mm = _voxels(_surface(structure)) @ affine[:3, :3].T + affine[:3, 3]
    mm = np.clip(mm, -MAX_COORDINATE, MAX_COORDINATE)
    steps = np.rint(STEPS_PER_MM * mm).astype(np.int64).astype(np.uint64)
    hashes = np.zeros(len(steps), dtype=np.uint64)
    for axis in range(3):
        hashes = _mixed(hashes ^ steps[:, axis])
    lowest = np.full(BUCKETS, EMPTY)
    np.minimum.at(lowest, (hashes % np.uint64(BUCKETS)).astype(np.intp),
                  (hashes >> np.uint64(32)).astype(np.uint32))  # fmt: skip
    return lowest


def _surface(structure: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the voxels that have a face neighbour outside, which the border of the array is."""
    surface = structure.copy(order="K")  # one order for all: with two, it takes ten times as long
    inside = (slice(1, -1),) * 3
    core = structure[inside].copy(order="K")
    for axis in range(3):
        for step in (slice(None, -2), slice(2, None)):
            core &= structure[(*inside[:axis], step, *inside[axis + 1 :])]
    surface[inside] &= ~core  # a sixth of the time of SciPy's erosion
    return surface


def _voxels(mask: NDArray[np.bool_]) -> NDArray[np.intp]:
    """Return the indices of the voxels of a mask, (N, 3), in the order of its memory."""
    axes = np.argsort(mask.strides)[::-1]
    laid = mask.transpose(axes)
    found = np.empty((np.count_nonzero(mask), 3), dtype=np.intp)
    found[:, axes] = np.transpose(np.unravel_index(np.flatnonzero(laid), laid.shape))
    return found


def _mixed(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Scramble 64 bits (SplitMix64, Steele et al. 2014)."""
    values = values + np.uint64(0x9E3779B97F4A7C15)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def as_text(signature: Signature) -> str:
    """Return a signature as a sidecar holds it."""
    return base64.b64encode(signature.astype("<u4").tobytes()).decode()


def from_text(text: str) -> Signature:
    """Read a signature; one of an earlier version, which has none, resembles nothing."""
    if not text:
        return np.full(BUCKETS, EMPTY)
    return np.frombuffer(base64.b64decode(text), dtype="<u4").astype(np.uint32)


def overlap(first: Signature, second: Signature) -> NDArray[np.float64]:
    """Estimate the Dice overlap of the voxels behind two signatures, or two stacks (…, BUCKETS).

    Of n filled buckets, the share of equal ones estimates the Jaccard index J with a standard error
    of √(J(1 − J) / n), some 0.03 for a hemisphere; Dice is 2J / (1 + J).
    """
    filled = (first != EMPTY) | (second != EMPTY)
    number = np.count_nonzero(filled, axis=-1)
    equal = np.count_nonzero(filled & (first == second), axis=-1)
    jaccard = np.where(number >= MIN_BUCKETS, equal / np.maximum(number, 1), 0.0)
    return 2 * jaccard / (1 + jaccard)


def same_scans(volumes: Sequence[PreparedVolume]) -> list[SameScan]:
    """Find the scans that volumes of two participants are of.

    Args:
        volumes: prepared volumes, sorted by id; sides are compared with their like.
    """
    found: dict[tuple[str, str], list[tuple[str, float]]] = {}
    for hemi in sorted({volume.sidecar["Hemisphere"] for volume in volumes}):
        side = [volume for volume in volumes if volume.sidecar["Hemisphere"] == hemi]
        signatures = np.array([from_text(v.sidecar.get("Signature", "")) for v in side])
        for a, b in candidates(signatures):
            dice = float(overlap(signatures[a], signatures[b]))
            ids = [bids_label(side[n].sidecar["Participant"]) for n in (a, b)]
            if dice >= SAME_SCAN and ids[0] != ids[1]:
                found.setdefault((ids[0], ids[1]), []).append((hemi, dice))
    return [
        SameScan(*ids, tuple(hemi for hemi, _ in sides), min(value for _, value in sides))
        for ids, sides in sorted(found.items())
    ]


def candidates(signatures: NDArray[np.uint32]) -> NDArray[np.intp]:
    """Pairs of rows that agree in a run of `ROWS` buckets, (n, 2), the lower row first.

    Of many rows that agree in the same run each is paired with the next `MAX_PAIRED` only, so that
    time and memory stay in proportion to the rows. A pair with a Dice of `SAME_SCAN` is missed once
    in 250 times, one with .75 once in 7,000.
    """
    number = len(signatures)
    codes = [np.empty(0, dtype=np.int64)]  # row · number + other row
    for start in range(0, BUCKETS, ROWS):
        run = signatures[:, start : start + ROWS]
        filled = np.flatnonzero((run != EMPTY).any(axis=1))
        keys = np.zeros(len(filled), dtype=np.uint64)
        for column in run[filled].T:
            keys = _mixed(keys ^ column)
        order = np.argsort(keys, kind="stable")
        rows, keys = filled[order], keys[order]
        for step in range(1, min(MAX_PAIRED, len(rows) - 1) + 1):
            alike = np.flatnonzero(keys[step:] == keys[:-step])
            if not len(alike):
                break
            codes.append(rows[alike] * number + rows[alike + step])
    pairs = np.unique(np.concatenate(codes))
    return np.stack(np.divmod(pairs, max(number, 1)), axis=1).astype(np.intp)
