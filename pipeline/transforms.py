"""The preprocessing steps as MONAI transforms, for people with chains of their own.

Thin shells over the kernels of `foldnorm.preprocessing`. Array transforms take and return
channel-first volumes, (1, I, J, K), and keep the affine of a ``MetaTensor`` true; the dictionary
transforms (``…d``) do so for each key.
"""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform, Transform
from numpy.typing import NDArray

from foldnorm.preprocessing.core.errors import InputError
from foldnorm.preprocessing.io.schemes import LabelScheme, discretise, load_scheme
from foldnorm.preprocessing.spatial.crop import (
    Box,
    lattice_start,
    missing_sides,
    paste,
    shifted_affine,
)
from foldnorm.preprocessing.spatial.downsample import Method, ResamplingPlan, downsample


class Discretise(Transform):
    """Raw label values → class numbers.

    Args:
        scheme: a label scheme, its name, or a YAML file.

    Example:
        >>> Discretise("skeleton")(np.int16([[[[11, 0, 60]]]])).tolist()
        [[[[0, 1, 2]]]]
    """

    def __init__(self, scheme: LabelScheme | str = "skeleton") -> None:
        self.scheme = load_scheme(scheme) if isinstance(scheme, str) else scheme

    def __call__(self, volume: Any) -> MetaTensor:
        """(1, I, J, K) raw values → (1, I, J, K) uint8."""
        data, affine = _unpack(volume)
        return _pack(volume, discretise(_as_labels(data), self.scheme), affine)


class SulcusPriorityDownsample(Transform):
    """Class numbers → the same at a larger voxel size; the highest class wins.

    Args:
        voxel_size: mm.
        method: of downsampling.

    Example:
        >>> SulcusPriorityDownsample(2)(np.uint8([0, 2, 0, 1]).reshape(1, 4, 1, 1)).ravel().tolist()
        [2, 1]
    """

    def __init__(self, voxel_size: float, method: Method = "sulcus-priority") -> None:
        self.voxel_size, self.method = voxel_size, method

    def __call__(self, volume: Any) -> MetaTensor:
        """(1, I, J, K) class numbers of an axis-aligned grid → fewer of them."""
        data, affine = _unpack(volume)
        plan = ResamplingPlan.to_voxel_size(affine, self.voxel_size)
        small, _ = downsample(_as_labels(data), plan, method=self.method)
        return _pack(volume, small, plan.target_affine(affine))


class CropToCohortBox(Transform):
    """Class numbers → the box of a cohort, filled where the volume does not reach.

    Args:
        box: on the lattice, as ``dataset_description.json`` holds it (``i0,i1,j0,j1,k0,k1``).
        fill: class number.
        may_cut: leave out what lies outside the box, instead of raising.

    Example:
        >>> CropToCohortBox("0,1,0,1,0,3")(np.uint8([[[[1, 2]]]])).tolist()
        [[[[1, 2, 0]]]]
    """

    def __init__(self, box: Box | str, *, fill: int = 0, may_cut: bool = False) -> None:
        self.box = Box.parse(box) if isinstance(box, str) else box
        self.fill, self.may_cut = fill, may_cut

    def __call__(self, volume: Any) -> MetaTensor:
        """(1, I, J, K) RAS+ class numbers → (1, *box.shape).

        Raises:
            InputError: a voxel above ``fill`` lies outside the box, and ``may_cut`` is false.
        """
        data, affine = _unpack(volume)
        i, j, k = data.shape
        bounds = Box((0, 0, 0), (i, j, k)).shifted(lattice_start(affine))
        if not self.may_cut:
            self._check(data, bounds)
        placed = paste(data, bounds, self.box, fill=self.fill)
        offset = [b - a for a, b in zip(bounds.start, self.box.start, strict=True)]
        return _pack(volume, placed, shifted_affine(affine, offset))

    def _check(self, data: NDArray[Any], bounds: Box) -> None:
        held = np.argwhere(data != self.fill)
        if len(held):
            (a, b, c), (d, e, f) = held.min(axis=0).tolist(), (held.max(axis=0) + 1).tolist()
            outside = missing_sides(Box((a, b, c), (d, e, f)).shifted(bounds.start), self.box)
            if outside:
                raise InputError(f"volume does not fit the cohort's box: {outside} too far")


class _Dictionary(MapTransform):
    """Applies an array transform to each key."""

    def __init__(self, keys: KeysCollection, transform: Transform) -> None:
        super().__init__(keys)
        self.transform = transform

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the dictionary with the transformed volumes."""
        changed = dict(data)
        for key in self.key_iterator(changed):
            changed[key] = self.transform(changed[key])
        return changed


class Discretised(_Dictionary):
    """Dictionary version of `Discretise`."""

    def __init__(self, keys: KeysCollection, scheme: LabelScheme | str = "skeleton") -> None:
        super().__init__(keys, Discretise(scheme))


class SulcusPriorityDownsampled(_Dictionary):
    """Dictionary version of `SulcusPriorityDownsample`."""

    def __init__(
        self, keys: KeysCollection, voxel_size: float, method: Method = "sulcus-priority"
    ) -> None:
        super().__init__(keys, SulcusPriorityDownsample(voxel_size, method))


class CropToCohortBoxd(_Dictionary):
    """Dictionary version of `CropToCohortBox`."""

    def __init__(
        self, keys: KeysCollection, box: Box | str, *, fill: int = 0, may_cut: bool = False
    ) -> None:
        super().__init__(keys, CropToCohortBox(box, fill=fill, may_cut=may_cut))


def _unpack(volume: Any) -> tuple[NDArray[Any], NDArray[np.float64]]:
    """Voxels (I, J, K) and affine (4, 4) of a channel-first volume; identity if it has none."""
    shape: Sequence[int] = volume.shape
    if len(shape) != 4 or shape[0] != 1:
        raise InputError(f"expected a channel-first volume (1, I, J, K), got {tuple(shape)}")
    affine = volume.affine if isinstance(volume, MetaTensor) else np.eye(4)
    return np.asarray(volume)[0], np.asarray(affine, dtype=np.float64)


def _as_labels(data: NDArray[Any]) -> NDArray[np.integer]:
    if data.dtype.kind in "iu":
        return data
    labels = np.rint(data)
    if not np.isfinite(data).all() or (labels != data).any():
        raise InputError("expected integer labels")
    return labels.astype(np.int32)


def _pack(volume: Any, data: NDArray[Any], affine: NDArray[np.float64]) -> MetaTensor:
    meta = dict(volume.meta) if isinstance(volume, MetaTensor) else {}
    meta.pop("affine", None)
    tensor = torch.from_numpy(np.ascontiguousarray(data)[None])
    return MetaTensor(tensor, affine=torch.from_numpy(affine), meta=meta)
