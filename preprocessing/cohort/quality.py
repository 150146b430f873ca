"""Quality control of a cohort: quantities of each volume, and which of them deserve a look."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from foldnorm.preprocessing.cohort.cohort import row_key
from foldnorm.preprocessing.core.counts import counted
from foldnorm.preprocessing.core.files import read_tsv
from foldnorm.preprocessing.io.schemes import LabelScheme
from foldnorm.preprocessing.io.volumes import voxel_size_of
from foldnorm.preprocessing.spatial.crop import Box

QC_TABLE = "qc.tsv"
QUANTITIES = ("brain_cm3", "structure_voxels", "components", "sheet_kept")
COLUMNS = ("participant_id", "hemi", *QUANTITIES, "centre_x", "touches", "warnings", "flags")
OUTLIER = 3.5  # robust z (Iglewicz & Hoaglin 1993)
MIN_VOLUMES = 8  # of one side; fewer say nothing of what is usual
NORMAL_MAD = 0.6745  # median absolute deviation of a normal distribution, in its sd
RARE = 0.1  # share of a cohort below which touching the border of the field of view is unusual
SIDES = (("left", "right"), ("posterior", "anterior"), ("inferior", "superior"))


def measure(
    native: NDArray[np.uint8],
    native_affine: NDArray[np.float64],
    prepared: NDArray[np.uint8],
    affine: NDArray[np.float64],
    scheme: LabelScheme,
) -> dict[str, Any]:
    """Quantities of one volume.

    ``brain_cm3``: what is not fill, before downsampling. ``structure_voxels`` and ``components``
    (26-connected) of the highest class, after it. ``sheet_kept``: area of that class after ÷
    before, in mm² of voxel faces; thickening raises it. ``centre_x``: of the brain, world mm.
    """
    before, after = voxel_size_of(native_affine), voxel_size_of(affine)
    structure = prepared == scheme.top
    area = [
        np.count_nonzero(classes == scheme.top) * float(np.prod(size)) ** (2 / 3)
        for classes, size in ((native, before), (prepared, after))
    ]
    brain = prepared != scheme.fill
    along = np.array([np.count_nonzero(plane) for plane in brain])
    centre = float((along * np.arange(len(along))).sum() / max(along.sum(), 1))
    return {
        "brain_cm3": round(
            np.count_nonzero(native != scheme.fill) * float(np.prod(before)) / 1000, 3
        ),
        "structure_voxels": int(np.count_nonzero(structure)),
        "components": int(ndimage.label(structure, np.ones((3, 3, 3)))[1]),
        "sheet_kept": round(area[1] / area[0], 4),
        "centre_x": round(float(affine[0, 0] * centre + affine[0, 3]), 2),
    }


def touched_sides(box: Box, shape: Sequence[int]) -> list[str]:
    """Sides of a RAS+ field of view that a box touches: what lies there may be cut."""
    sides = []
    for axis, (low, high) in enumerate(SIDES):
        if box.start[axis] == 0:
            sides.append(low)
        if box.stop[axis] == shape[axis]:
            sides.append(high)
    return sides


def quality_rows(
    measured: Sequence[Mapping[str, Any]], *, in_mni_space: bool
) -> list[dict[str, Any]]:
    """Rows of ``qc.tsv``: the quantities and, under ``flags``, what deserves a look.

    Args:
        measured: of each volume: `measure`, ``touches``, ``participant_id`` and ``hemi``; where
            there are any, ``warnings`` of its source, and as ``same_as`` who else is of this scan.
        in_mni_space: left is then where x is below 0, and needs no comparison.
    """
    rows = [dict(row) for row in measured]
    flags = [_single_volume_flags(row) for row in rows]
    for hemi in sorted({row["hemi"] for row in rows}):
        side = [n for n, row in enumerate(rows) if row["hemi"] == hemi]
        for quantity in QUANTITIES:
            z = robust_z(np.array([float(rows[n][quantity]) for n in side]))
            for n, value in zip(side, z, strict=True):
                if abs(value) > OUTLIER:
                    flags[n].append(f"{quantity} {'high' if value > 0 else 'low'} (z {value:.1f})")
    for n in _swapped(rows, in_mni_space):
        flags[n].append(f"lies on the other side than {rows[n]['hemi']}")
    touching = [n for n, row in enumerate(rows) if row["touches"]]
    if len(touching) <= RARE * len(rows):
        for n in touching:
            flags[n].append(f"touches the {', '.join(rows[n]['touches'])} of its field of view")
    for row, found in zip(rows, flags, strict=True):
        row["touches"], row["flags"] = ", ".join(row["touches"]), "; ".join(found)
        row["warnings"] = "; ".join(row.get("warnings", []))
    return rows


def read_warnings(folder: Path) -> dict[str, str]:
    """Warnings of the sources of a cohort's volumes, by ``sub-…_hemi-…``; only where there are any.

    Args:
        folder: of the cohort; one of images has no table of quality control.
    """
    if not (folder / QC_TABLE).is_file():
        return {}
    rows = read_tsv(folder / QC_TABLE)
    return {row_key(row): row["warnings"] for row in rows if row.get("warnings")}


def _single_volume_flags(row: Mapping[str, Any]) -> list[str]:
    """List the flags that need no comparison with other volumes."""
    number = len(row.get("warnings", []))
    flags = [f"same scan as {other}" for other in row.get("same_as", [])]
    if number:
        flags.append(f"{counted(number, 'warning')} of its source")
    return flags


def robust_z(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """(x − median) ÷ (MAD / 0.6745); 0 where there are too few values, or most are equal."""
    middle = np.median(values)
    spread = np.median(np.abs(values - middle)) / NORMAL_MAD
    if len(values) < MIN_VOLUMES or not spread:
        return np.zeros(len(values))
    return np.asarray((values - middle) / spread)


def _swapped(rows: Sequence[Mapping[str, Any]], in_mni_space: bool) -> list[int]:
    """Hemispheres that lie nearer to the usual place of the other side than to their own."""
    x = {side: [r["centre_x"] for r in rows if r["hemi"] == side] for side in "LR"}
    if in_mni_space:
        middle = 0.0
    elif min(map(len, x.values())) >= MIN_VOLUMES:
        middle = (float(np.median(x["L"])) + float(np.median(x["R"]))) / 2
    else:
        return []
    return [
        n
        for n, row in enumerate(rows)
        if (row["hemi"] == "L" and row["centre_x"] > middle)
        or (row["hemi"] == "R" and row["centre_x"] < middle)
    ]
