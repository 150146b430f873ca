"""Layout of the volumes of a cohort: the box that is packed, and the region in it.

Fitted once over the prepared volumes, and frozen in the cohort folder.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foldnorm.preprocessing.cohort.cohort import DESCRIPTION, REGION_MASK
from foldnorm.preprocessing.cohort.prepared_index import PreparedVolume
from foldnorm.preprocessing.core.errors import InputError
from foldnorm.preprocessing.core.files import read_json
from foldnorm.preprocessing.io.schemes import LabelScheme
from foldnorm.preprocessing.io.volumes import read_labels, write_labels
from foldnorm.preprocessing.spatial.crop import Box, paste, shifted_affine, union_box
from foldnorm.preprocessing.spatial.crop_spec import CropSpec
from foldnorm.preprocessing.spatial.regions import Region, region_of_mask, region_of_voxels

LAYOUT_FOLDER = "cohort"  # of an exported model: the layout of its training cohort


@dataclass(frozen=True)
class Layout:
    """Box, and region if any, that all volumes of a cohort share.

    Attributes:
        box: on the lattice; for ``--crop box``, in each volume's own field of view.
        region: (I, J, K) bool, of the box; None if the crop is of no region.
    """

    box: Box
    region: NDArray[np.bool_] | None = None

    @classmethod
    def from_cohort(cls, folder: Path) -> "Layout":
        """Read the layout of a cohort folder."""
        box = Box.parse(read_json(folder / DESCRIPTION)["Cohort"]["box"])
        path = folder / REGION_MASK
        return cls(box, read_labels(path).data.astype(np.bool_) if path.is_file() else None)

    def target(self, volume: PreparedVolume, crop: CropSpec) -> Box:
        """Return the box that is kept of a volume, on the lattice."""
        return self.target_of(volume.field_of_view, crop)

    def target_of(self, field_of_view: Box, crop: CropSpec) -> Box:
        """Return the box that is kept of a volume with such a field of view, on the lattice."""
        return self.box.shifted(field_of_view.start) if crop.kind == "box" else self.box

    def packed(
        self,
        classes: NDArray[np.uint8],
        bounds: Box,
        target: Box,
        scheme: LabelScheme,
        off_mask: str | None,
    ) -> NDArray[np.uint8]:
        """Cut or pad a volume to the box that a cohort keeps.

        Args:
            classes: (I, J, K) class numbers.
            bounds: the box that they occupy on the lattice.
            target: the box that is kept, of the shape of ``box``.
            scheme: of the volume.
            off_mask: name of the class that what lies off the region becomes, if any.
        """
        kept = paste(classes, bounds, target, fill=scheme.fill)
        if off_mask is not None and self.region is not None:
            kept[~self.region] = scheme.names.index(off_mask)
        return np.asarray(kept, dtype=np.uint8)

    def write_region(self, out: Path, voxel_size: Sequence[float]) -> None:
        """Write the mask of the region, if there is one, in the space of the cohort."""
        if self.region is None:
            (out / REGION_MASK).unlink(missing_ok=True)
            return
        affine = shifted_affine(np.diag([*voxel_size, 1.0]), self.box.start)
        mask = self.region.astype(np.uint8)
        write_labels(out / REGION_MASK, mask, affine, description="foldnorm region of the cohort")


def fit_layout(
    volumes: Sequence[PreparedVolume],
    crop: CropSpec,
    pad: str,
    fold_names: Mapping[int, str],
    preparation: Mapping[str, Any],
) -> Layout:
    """Fit the box, and the region, over prepared volumes.

    Args:
        volumes: at least one.
        crop: what is asked for.
        pad: see `Box.padded`.
        fold_names: label → name of the source.
        preparation: parameters of the volumes.

    Raises:
        InputError: no volume has a fold of the region.
    """
    voxel_size = volumes[0].sidecar["VoxelSize"]
    if crop.kind in ("box", "mm"):
        return Layout(crop.fixed_box(voxel_size).padded(pad))
    if crop.kind in ("region", "mask"):
        if crop.mask is not None:
            mirrored = bool(preparation["mirror_right"])
            mask = read_labels(crop.mask)
            region = region_of_mask(mask, crop.margin, voxel_size[0], mirrored=mirrored)
        else:
            region = _region_of_folds(volumes, crop, fold_names, voxel_size[0])
        box = region.box.padded(pad)
        return Layout(box, region.within(box))
    boxes = [v.bounds if crop.kind == "cohort" else v.field_of_view for v in volumes]
    margin = math.ceil(crop.margin / voxel_size[0]) if crop.kind == "cohort" else 0
    return Layout(union_box(boxes).grown(margin).padded(pad))


def _region_of_folds(
    volumes: Sequence[PreparedVolume], crop: CropSpec, fold_names: Mapping[int, str], size: float
) -> Region:
    places = []
    for volume in volumes:
        if volume.has_folds():
            labels = crop.labels(volume.fold_names(fold_names), must_exist=False)
            folds = volume.read("_desc-folds_dseg").data
            places.append(np.argwhere(np.isin(folds, sorted(labels))) + volume.bounds.start)
    if not sum(map(len, places)):
        raise InputError(f"--crop: no volume has any fold of {crop.text}")
    return region_of_voxels(places, crop.margin, size)


def layout_in(folder: Path) -> Path:
    """Return the folder in which a cohort folder, or an exported model, holds its layout."""
    bundled = folder / LAYOUT_FOLDER
    return bundled if bundled.is_dir() else folder
