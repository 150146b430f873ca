"""The preprocessing steps as MONAI transforms, for people with chains of their own.

Thin shells over the kernels of `foldnorm.preprocessing`. Array transforms take and return
channel-first volumes, (1, I, J, K), and keep the affine of a ``MetaTensor`` true; the dictionary
transforms (``…d``) do so for each key. `MorphologistReader` reads what ``LoadImaged`` is given.
"""

import logging
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import ImageReader, MetaTensor
from monai.transforms import MapTransform, Transform
from monai.utils import MetaKeys, SpaceKeys, ensure_tuple
from numpy.typing import NDArray

from foldnorm.preprocessing.cohort.discretise import discretise
from foldnorm.preprocessing.core.choices import Orientation, Resampling
from foldnorm.preprocessing.core.errors import InputError
from foldnorm.preprocessing.io.schemes import LabelScheme, load_scheme
from foldnorm.preprocessing.io.sources import Source, find_volumes
from foldnorm.preprocessing.io.volumes import LabelVolume, as_integers, is_volume, read_labels
from foldnorm.preprocessing.spatial.crop import (
    Box,
    lattice_start,
    missing_sides,
    paste,
    shifted_affine,
)
from foldnorm.preprocessing.spatial.downsample import ResamplingPlan, downsample

LOG = logging.getLogger(__name__)


class MorphologistReader(ImageReader):
    """Reader of a skeleton, or another label volume of a Morphologist tree, for ``LoadImaged``.

    Axes are flipped and permuted to RAS+ and nothing is interpolated, so the affine is exact, also
    of volumes that AIMS wrote from right to left, front to back and top to bottom.

    Args:
        scheme: label scheme, its name, or a YAML file, by which raw values become class numbers,
            uint8; None: raw values.
        side: ``L`` or ``R``, where the folder of a subject is given instead of a file: the volume
            of the default acquisition and analysis is read.
        stem: name of that volume (``skeleton``, ``grey_white``).
        assume: directions that voxels run in, ``ras`` or ``las``, where the header of a volume does
            not say; without it such a volume is refused.

    Example:
        >>> from monai.transforms import LoadImaged
        >>> load = LoadImaged("image", reader=MorphologistReader("skeleton", side="L"))
        >>> load({"image": "morphologist/100206"})["image"].affine  # doctest: +SKIP
    """

    def __init__(
        self,
        scheme: LabelScheme | str | None = None,
        *,
        side: str | None = None,
        stem: str = "skeleton",
        assume: Orientation | None = None,
    ) -> None:
        self.scheme = load_scheme(scheme) if isinstance(scheme, str) else scheme
        self.side, self.stem, self.assume = side, stem, assume

    def verify_suffix(self, filename: Any) -> bool:
        """Return whether all of these are volumes that it reads, or folders."""
        return all(Path(f).is_dir() or is_volume(Path(f)) for f in ensure_tuple(filename))

    def read(self, data: Any, **kwargs: Any) -> LabelVolume:
        """Read one volume, in RAS+.

        Args:
            data: its path, or that of the folder of a subject; alone, or in a sequence.
            kwargs: none.

        Raises:
            InputError: more than one path; a folder without one such volume; a file that is no
                3-D volume of integers on an axis-aligned grid.
        """
        paths = [Path(path) for path in ensure_tuple(data)]
        if len(paths) != 1:
            raise InputError(f"expected one volume a key, got {len(paths)}: {paths}")
        (path,) = paths
        volume = read_labels(self._find(path) if path.is_dir() else path, assume=self.assume)
        for warning in volume.warnings:
            LOG.warning("%s: %s", volume.path, warning)
        return volume

    def get_data(self, img: LabelVolume) -> tuple[NDArray[np.integer], dict[str, Any]]:
        """(I, J, K) raw values or class numbers, and what MONAI wants to know of them.

        Raises:
            InputError: a value that the scheme does not know.
        """
        data: NDArray[np.integer] = img.data
        if self.scheme is not None:
            data = discretise(data, self.scheme, path=img.path)
        meta: dict[Any, Any] = {
            MetaKeys.AFFINE: img.affine,
            MetaKeys.ORIGINAL_AFFINE: img.affine.copy(),
            MetaKeys.SPATIAL_SHAPE: np.array(data.shape),
            MetaKeys.SPACE: SpaceKeys.RAS,
            MetaKeys.ORIGINAL_CHANNEL_DIM: float("nan"),  # no channel
        }
        return np.ascontiguousarray(data), meta

    def _find(self, folder: Path) -> Path:
        """Find the volume of a subject."""
        hemis = [self.side] if self.side else []
        found = find_volumes([Source(folder)], self.stem, hemis=hemis)
        if len(found.items) != 1:
            names = ", ".join([v.key for v in found.items] + [p.key for p in found.problems])
            raise InputError(
                f"expected one {self.stem} of side {self.side or 'L or R'}, got "
                f"{len(found.items)} ({names}): {folder}"
            )
        return found.items[0].path


class Discretise(Transform):
    """Raw label values → class numbers.

    Args:
        scheme: a label scheme, its name, or a YAML file.

    Example:
        >>> raw = np.array([11, 0, 60, 30], np.int16).reshape(1, 4, 1, 1)
        >>> Discretise("skeleton")(raw).flatten().tolist()  # outside, inside, sulcus, sulcus
        [0, 1, 2, 2]
    """

    def __init__(self, scheme: LabelScheme | str = "skeleton") -> None:
        self.scheme = load_scheme(scheme) if isinstance(scheme, str) else scheme

    def __call__(self, volume: Any) -> MetaTensor:
        """(1, I, J, K) raw values → (1, I, J, K) uint8."""
        data, affine = unpack(volume)
        return _pack(volume, discretise(as_integers(data), self.scheme), affine)


class SulcusPriorityDownsample(Transform):
    """Class numbers → the same at a larger voxel size; the highest class wins.

    Args:
        voxel_size: mm.
        method: of downsampling.

    Example:
        >>> volume = MetaTensor(torch.ones(1, 8, 8, 8, dtype=torch.uint8), affine=torch.eye(4))
        >>> small = SulcusPriorityDownsample(2.0)(volume)
        >>> tuple(small.shape), small.affine.diagonal().tolist()
        ((1, 4, 4, 4), [2.0, 2.0, 2.0, 1.0])
    """

    def __init__(self, voxel_size: float, method: Resampling = "sulcus-priority") -> None:
        self.voxel_size, self.method = voxel_size, method

    def __call__(self, volume: Any) -> MetaTensor:
        """(1, I, J, K) class numbers of an axis-aligned grid → fewer of them."""
        data, affine = unpack(volume)
        plan = ResamplingPlan.to_voxel_size(affine, self.voxel_size)
        small, _ = downsample(as_integers(data), plan, method=self.method)
        return _pack(volume, small, plan.target_affine(affine))


class CropToCohortBox(Transform):
    """Class numbers → the box of a cohort, filled where the volume does not reach.

    Args:
        box: on the lattice, as ``dataset_description.json`` holds it (``i0,i1,j0,j1,k0,k1``).
        fill: class number.
        may_cut: leave out what lies outside the box, instead of raising.

    Example:
        >>> volume = MetaTensor(torch.ones(1, 4, 4, 4, dtype=torch.uint8), affine=torch.eye(4))
        >>> tuple(CropToCohortBox("-2,6,0,4,0,4")(volume).shape)
        (1, 8, 4, 4)
    """

    def __init__(self, box: Box | str, *, fill: int = 0, may_cut: bool = False) -> None:
        self.box = Box.parse(box) if isinstance(box, str) else box
        self.fill, self.may_cut = fill, may_cut

    def __call__(self, volume: Any) -> MetaTensor:
        """(1, I, J, K) RAS+ class numbers → (1, *box.shape).

        Raises:
            InputError: a voxel above ``fill`` lies outside the box, and ``may_cut`` is false.
        """
        data, affine = unpack(volume)
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
    """Dictionary version of `Discretise`.

    Example:
        >>> item = {"image": np.full((1, 2, 2, 2), 60)}
        >>> tuple(Discretised("image")(item)["image"].shape)
        (1, 2, 2, 2)
    """

    def __init__(self, keys: KeysCollection, scheme: LabelScheme | str = "skeleton") -> None:
        super().__init__(keys, Discretise(scheme))


class SulcusPriorityDownsampled(_Dictionary):
    """Dictionary version of `SulcusPriorityDownsample`.

    Example:
        >>> item = {"image": np.ones((1, 4, 4, 4), np.uint8)}
        >>> tuple(SulcusPriorityDownsampled("image", 2.0)(item)["image"].shape)
        (1, 2, 2, 2)
    """

    def __init__(
        self, keys: KeysCollection, voxel_size: float, method: Resampling = "sulcus-priority"
    ) -> None:
        super().__init__(keys, SulcusPriorityDownsample(voxel_size, method))


class CropToCohortBoxd(_Dictionary):
    """Dictionary version of `CropToCohortBox`.

    Example:
        >>> item = {"image": np.zeros((1, 4, 4, 4), np.uint8)}
        >>> tuple(CropToCohortBoxd("image", "0,2,0,2,0,2")(item)["image"].shape)
        (1, 2, 2, 2)
    """

    def __init__(
        self, keys: KeysCollection, box: Box | str, *, fill: int = 0, may_cut: bool = False
    ) -> None:
        super().__init__(keys, CropToCohortBox(box, fill=fill, may_cut=may_cut))


def unpack(volume: Any) -> tuple[NDArray[Any], NDArray[np.float64]]:
    """Return voxels (I, J, K) and affine (4, 4), or identity, of a channel-first volume.

    Raises:
        InputError: it has not one channel and three sides.
    """
    shape: Sequence[int] = volume.shape
    if len(shape) != 4 or shape[0] != 1:
        raise InputError(f"expected a channel-first volume (1, I, J, K), got {tuple(shape)}")
    affine = volume.affine if isinstance(volume, MetaTensor) else np.eye(4)
    return np.asarray(volume)[0], np.asarray(affine, dtype=np.float64)


def _pack(volume: Any, data: NDArray[Any], affine: NDArray[np.float64]) -> MetaTensor:
    meta = dict(volume.meta) if isinstance(volume, MetaTensor) else {}
    meta.pop("affine", None)
    tensor = torch.from_numpy(np.ascontiguousarray(data)[None])
    return MetaTensor(tensor, affine=torch.from_numpy(affine), meta=meta)
