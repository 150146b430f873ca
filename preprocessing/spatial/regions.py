"""Regions: named sets of sulci, and the part of a cohort's space that they fill.

A region is fitted once, over the subjects whose folds have names, and frozen in the cohort: a
mask, dilated by so many millimetres, and the box around it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from foldnorm.preprocessing.core.errors import InputError
from foldnorm.preprocessing.core.yaml_files import parse_yaml, read_yaml
from foldnorm.preprocessing.io.volumes import LabelVolume
from foldnorm.preprocessing.spatial.crop import Box, Index, bounding_box, paste, shifted_affine
from foldnorm.preprocessing.spatial.space import resample_nearest

REGIONS = "regions.yaml"
# Chamfer weights of a step to a face, edge and corner neighbour, as the lab's tools dilate.
CHAMFER = (50, 71, 87)
Regions = Mapping[str, tuple[str, ...]]


@dataclass(frozen=True)
class Region:
    """Part of a cohort's lattice.

    Attributes:
        box: smallest one around the mask.
        mask: (I, J, K) bool, of the box.
    """

    box: Box
    mask: NDArray[np.bool_]

    def within(self, box: Box) -> NDArray[np.bool_]:
        """Return the mask in another box."""
        return paste(self.mask.view(np.uint8), self.box, box, fill=0).view(np.bool_)


def read_regions(path: Path | None = None) -> dict[str, tuple[str, ...]]:
    """Region name → sulci: those shipped, and those of a file of the user, which go before.

    Raises:
        InputError: the file is no mapping of names to lists of names.

    Example:
        >>> read_regions()["central"]
        ('S.C.',)
    """
    text = (files("foldnorm.preprocessing.spatial") / REGIONS).read_text(encoding="utf-8")
    regions = _regions(parse_yaml(text))
    if path is None:
        return regions
    content = read_yaml(path, version="1.2")
    try:
        return regions | _regions(content)
    except (ValueError, TypeError, AttributeError):
        raise InputError(f"expected lines such as 'central: [S.C.]': {path}") from None


def region_of_voxels(places: Sequence[NDArray[np.int64]], margin: float, size: float) -> Region:
    """Region of the voxels of many subjects.

    Args:
        places: one array a subject, (n, 3) lattice indices; at least one voxel in all.
        margin: mm by which the mask is dilated, in chamfer distance.
        size: mm of a voxel.
    """
    voxels = np.concatenate(places)
    low = voxels.min(axis=0) - _steps(margin, size)
    high = voxels.max(axis=0) + _steps(margin, size) + 1
    box = Box(_index(low), _index(high))
    mask = np.zeros(box.shape, dtype=np.bool_)
    mask[tuple((voxels - low).T)] = True
    return Region(box, dilated(mask, margin, size))


def region_of_mask(mask: LabelVolume, margin: float, size: float, *, mirrored: bool) -> Region:
    """Region of a mask in millimetres, as label volumes read it: what is not 0 is in it.

    Args:
        mask: RAS+, in the space of the cohort.
        margin: mm by which it is dilated, in chamfer distance.
        size: mm of a voxel of the lattice.
        mirrored: right hemispheres are stored in left-side order; a mask of the right side then
            stands for that of the left.

    Raises:
        InputError: it is empty.
    """
    held = bounding_box(mask.data != 0)
    if held is None:
        raise InputError(f"the mask is empty: {mask.path}")
    to_mm = shifted_affine(mask.affine, held.start)
    inside = (mask.data[held.slices] != 0).astype(np.uint8)
    ends = [to_mm[:3, 3] - size, to_mm[:3, :3] @ inside.shape + to_mm[:3, 3] + size]
    if mirrored and ends[0][0] + ends[1][0] > 0:
        to_mm = np.diag([-1.0, 1.0, 1.0, 1.0]) @ to_mm
        ends = [end * [-1, 1, 1] for end in ends]
    low = np.floor(np.min(ends, axis=0) / size).astype(np.int64)
    high = np.ceil(np.max(ends, axis=0) / size).astype(np.int64)
    from_mm = np.diag([*[1 / size] * 3, 1.0])
    from_mm[:3, 3] = -low
    on_lattice = resample_nearest(inside, from_mm @ to_mm, _index(high - low), 0)
    return region_of_voxels([np.argwhere(on_lattice) + low], margin, size)


def dilated(mask: NDArray[np.bool_], margin: float, size: float) -> NDArray[np.bool_]:
    """Dilate a mask by ``margin`` mm in chamfer distance (50, 71, 87), not in Euclid's.

    Args:
        mask: (I, J, K) bool.
        margin: mm.
        size: mm of a voxel.

    Example:
        >>> mask = np.zeros((3, 3, 3), bool)
        >>> mask[1, 1, 1] = True
        >>> int(dilated(mask, margin=1.0, size=1.0).sum())  # and six neighbours
        7
    """
    steps = _steps(margin, size)
    offsets = np.abs(np.indices((2 * steps + 1,) * 3) - steps).reshape(3, -1)
    least, middle, most = np.sort(offsets, axis=0)
    face, edge, corner = CHAMFER
    distance = corner * least + edge * (middle - least) + face * (most - middle)
    ball = (distance <= face * margin / size + 1e-6).reshape((2 * steps + 1,) * 3)
    return np.asarray(ndimage.binary_dilation(mask, ball))


def _steps(margin: float, size: float) -> int:
    return int(margin / size + 1e-6)


def _regions(content: Mapping[str, Sequence[str]]) -> dict[str, tuple[str, ...]]:
    regions = {}
    for name, sulci in content.items():
        if isinstance(sulci, str) or not sulci or not all(isinstance(s, str) for s in sulci):
            raise ValueError(name)
        regions[str(name)] = tuple(sulci)
    return regions


def _index(values: NDArray[np.int64]) -> Index:
    i, j, k = (int(n) for n in values)
    return i, j, k
