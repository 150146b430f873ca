"""The last step of preprocessing: fit the box, or keep the frozen one, and pack all volumes.

The volumes of ``sub-*/anat`` are cut to what they hold; here each is placed in the cohort's box.
"""

import json
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foldnorm.preprocessing.cohort import (
    DESCRIPTION,
    FOLD_COLUMNS,
    FOLD_TABLE,
    FOLDS,
    PARTICIPANTS,
    VOLUMES,
    write_description,
    write_packed,
    write_participants,
)
from foldnorm.preprocessing.crop import (
    Box,
    bounding_box,
    missing_sides,
    place,
    shifted_affine,
    union_box,
)
from foldnorm.preprocessing.crop_spec import CropSpec
from foldnorm.preprocessing.downsample import SAME_SIZE
from foldnorm.preprocessing.errors import InputError
from foldnorm.preprocessing.files import read_json, sha256, write_tsv
from foldnorm.preprocessing.prepare import Preparation
from foldnorm.preprocessing.quality import COLUMNS as QC_COLUMNS
from foldnorm.preprocessing.quality import QC_TABLE, quality_rows
from foldnorm.preprocessing.sources import Problem, bids_label
from foldnorm.preprocessing.split import DEFAULT_FRACTIONS, assign_split
from foldnorm.preprocessing.volumes import LabelVolume, mirror_left_right, read_labels


@dataclass(frozen=True)
class PackOptions:
    """How the prepared volumes are packed; the attributes are those of `PreprocessOptions`."""

    preparation: Preparation
    crop: CropSpec = field(default_factory=CropSpec)
    pad: str = "none"
    frozen_box: Box | None = None
    fractions: tuple[float, ...] = DEFAULT_FRACTIONS
    split_seed: int = 0
    fold_names: Mapping[int, str] = field(default_factory=dict)
    refit: bool = False
    excluded: frozenset[str] = frozenset()
    n_procs: int = 1

    def preparation_record(self) -> dict[str, Any]:
        """Everything that must be equal for the volumes of two cohorts to be comparable."""
        return {**self.preparation.as_dict(), "crop": self.crop.text, "pad": self.pad}


@dataclass(frozen=True)
class Finished:
    """A volume that preparation has finished, known by its sidecar."""

    key: str
    stem: Path
    sidecar: Mapping[str, Any]

    @property
    def at(self) -> Box:
        """Lattice box of the voxels that the volume holds."""
        return Box.parse(self.sidecar["LatticeBox"])

    @property
    def field_of_view(self) -> Box:
        """Lattice box of the whole field of view."""
        return Box.parse(self.sidecar["FieldOfView"])

    @property
    def is_mirrored(self) -> bool:
        """Whether the lattice of this volume runs from right to left."""
        return self.sidecar["Parameters"]["mirror_right"] and self.sidecar["Hemisphere"] == "R"

    def read(self, suffix: str) -> LabelVolume:
        """Read the volume in lattice order."""
        volume = read_labels(self.stem.with_name(f"{self.stem.name}{suffix}.nii.gz"))
        return mirror_left_right(volume) if self.is_mirrored else volume

    def fold_names(self, of_source: Mapping[int, str]) -> Mapping[int, str]:
        """Label → sulcus: from its own fold graph, or those of the source."""
        return {int(n): name for n, name in self.sidecar["FoldNames"].items()} or of_source

    def has_folds(self) -> bool:
        """Whether there are fold labels."""
        return self.stem.with_name(f"{self.stem.name}_desc-folds_dseg.nii.gz").is_file()


def pack(out: Path, options: PackOptions) -> list[Problem]:
    """Pack every finished volume of the cohort folder ``out``.

    Returns:
        The volumes that do not fit the frozen box or have other voxels; they are left out.

    Raises:
        InputError: no volume can be packed.
    """
    every = [
        volume
        for volume in _finished(out)
        if bids_label(volume.sidecar["Participant"]) not in options.excluded
    ]
    finished, problems = _same_voxels(every, out, options)
    if not finished:
        return problems
    box = _cohort_box(finished, out, options)
    fitting = []
    for volume in finished:
        outside = "" if options.crop.may_cut else missing_sides(volume.at, box)
        if outside:
            problems.append(
                Problem(
                    volume.key,
                    f"does not fit the cohort's box, {outside} too far (--overwrite fits the box "
                    f"anew): {volume.sidecar['Sources'][0]}",
                )
            )
        else:
            fitting.append(volume)
    if not fitting:
        return problems
    description = _description(fitting, box, options)
    if not options.refit and _is_packed(out, description):
        return problems
    _begin_packing(out)
    _write_volumes(out, fitting, box, options)
    _write_folds(out, fitting, box, options)
    write_participants(out, [_row(volume, options) for volume in fitting])
    write_tsv(out / QC_TABLE, _quality(fitting, options), QC_COLUMNS)
    write_description(out, "foldnorm cohort", description)  # last: what it says is then there
    return problems


def fold_rows(
    volume: Finished,
    labels: NDArray[np.uint16],
    inside: NDArray[np.uint16],
    names: Mapping[int, str],
) -> list[dict[str, Any]]:
    """One row a fold: its size within the box, in mm² of sheet (its voxel count at 1 mm).

    The size at full resolution is shared out by the downsampled voxels that the box holds.
    """
    total = np.bincount(labels.ravel())
    held = np.bincount(inside.ravel(), minlength=len(total))
    sizes = volume.sidecar["FoldSizes"]
    return [
        {
            "participant_id": f"sub-{bids_label(volume.sidecar['Participant'])}",
            "hemi": volume.sidecar["Hemisphere"],
            "label": int(label),
            "name": names.get(int(label), ""),
            "size": sizes[str(label)] * held[label] / total[label],
            "voxels": int(held[label]),
        }
        for label in np.flatnonzero(held)
        if label
    ]


def _finished(out: Path) -> list[Finished]:
    sidecars = sorted(out.glob("sub-*/anat/*_dseg.json"))
    volumes = []
    for path in sidecars:
        key = path.name.removesuffix("_dseg.json")
        volumes.append(Finished(key, path.with_name(key), read_json(path)))
    return volumes


def _same_voxels(
    volumes: list[Finished], out: Path, options: PackOptions
) -> tuple[list[Finished], list[Problem]]:
    """Keep the volumes whose voxels have the cohort's size: the frozen one, or the first's."""
    if not volumes:
        return [], []
    expected = volumes[0].sidecar["VoxelSize"]
    if (out / DESCRIPTION).is_file() and not options.refit:
        expected = read_json(out / DESCRIPTION)["Cohort"]["voxel_size"]
    kept, problems = [], []
    for volume in volumes:
        got = volume.sidecar["VoxelSize"]
        if np.allclose(got, expected, rtol=SAME_SIZE):
            kept.append(volume)
            continue
        sizes = [" × ".join(f"{s:.4g}" for s in size) for size in (got, expected)]
        reason = f"voxels of {sizes[0]} mm, the cohort's are {sizes[1]} mm"
        problems.append(Problem(volume.key, f"{reason}: {volume.sidecar['Sources'][0]}"))
    return kept, problems


def _cohort_box(volumes: list[Finished], out: Path, options: PackOptions) -> Box:
    """Box of the cohort on the lattice; for ``--crop box``, in each volume's own field of view."""
    if options.frozen_box is not None:
        return options.frozen_box
    if (out / DESCRIPTION).is_file() and not options.refit:
        return Box.parse(read_json(out / DESCRIPTION)["Cohort"]["box"])
    crop = options.crop
    voxel_size = volumes[0].sidecar["VoxelSize"]
    if crop.kind in ("box", "mm"):
        return crop.fixed_box(voxel_size).padded(options.pad)
    if crop.kind == "region":
        regions = [box for v in volumes if (box := _region(v, options)) is not None]
        if not regions:
            raise InputError(f"--crop: no volume has any fold of {crop.text}")
        margin = round(crop.margin / voxel_size[0])
        return union_box(regions).grown(margin).padded(options.pad)
    boxes = [v.at if crop.kind == "cohort" else v.field_of_view for v in volumes]
    return union_box(boxes).padded(options.pad)


def _region(volume: Finished, options: PackOptions) -> Box | None:
    if not volume.has_folds():
        return None
    labels = options.crop.labels(volume.fold_names(options.fold_names), must_exist=False)
    folds = volume.read("_desc-folds_dseg")
    box = bounding_box(np.isin(folds.data, sorted(labels)))
    return None if box is None else box.shifted(volume.at.start)


def _target(volume: Finished, box: Box, options: PackOptions) -> Box:
    """The cohort's box on this volume's lattice."""
    return box.shifted(volume.field_of_view.start) if options.crop.kind == "box" else box


def _write_volumes(out: Path, volumes: list[Finished], box: Box, options: PackOptions) -> None:
    fill = options.preparation.scheme.fill

    def placed(volume: Finished) -> NDArray[np.integer]:
        target = _target(volume, box, options)
        return place(volume.read("_dseg").data, volume.at, target, fill=fill)

    shape = (len(volumes), *box.shape)
    ahead = _in_order(placed, volumes, options.n_procs)
    write_packed(out, VOLUMES, ahead, shape=shape, dtype=np.dtype(np.uint8))


def _in_order(
    function: Callable[[Finished], NDArray[Any]], volumes: list[Finished], n_threads: int
) -> Iterator[NDArray[Any]]:
    """Yield ``function`` of each volume, read by threads, never more than a few ahead."""
    with ThreadPoolExecutor(n_threads) as pool:
        ahead: deque[Future[NDArray[Any]]] = deque()
        for volume in volumes:
            ahead.append(pool.submit(function, volume))
            if len(ahead) > n_threads:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()


def _write_folds(out: Path, volumes: list[Finished], box: Box, options: PackOptions) -> None:
    """Pack the fold labels and their table, if every volume has them."""
    if not all(volume.has_folds() for volume in volumes):
        return
    rows: list[dict[str, Any]] = []

    def labels() -> Iterator[NDArray[np.uint16]]:
        for volume in volumes:
            whole = volume.read("_desc-folds_dseg").data.astype(np.uint16)
            inside = place(whole, volume.at, _target(volume, box, options), fill=0).astype(
                np.uint16
            )
            rows.extend(fold_rows(volume, whole, inside, volume.fold_names(options.fold_names)))
            yield inside

    shape = (len(volumes), *box.shape)
    write_packed(out, FOLDS, labels(), shape=shape, dtype=np.dtype(np.uint16))
    write_tsv(out / FOLD_TABLE, rows, FOLD_COLUMNS)


def _quality(volumes: list[Finished], options: PackOptions) -> list[dict[str, Any]]:
    measured = [
        {
            **volume.sidecar["Quality"],
            "participant_id": f"sub-{bids_label(volume.sidecar['Participant'])}",
            "hemi": volume.sidecar["Hemisphere"],
        }
        for volume in volumes
    ]
    return quality_rows(measured, in_mni_space=options.preparation.space == "mni")


def _row(volume: Finished, options: PackOptions) -> dict[str, str]:
    known = {k: str(v) for k, v in volume.sidecar["Known"].items() if k != "split"}
    participant = volume.sidecar["Participant"]
    split = assign_split(
        known.get("family") or participant, seed=options.split_seed, fractions=options.fractions
    )
    label = f"sub-{bids_label(participant)}"
    return {
        **known,
        "participant_id": label,
        "hemi": volume.sidecar["Hemisphere"],
        "split": split,
    }


def _description(volumes: list[Finished], box: Box, options: PackOptions) -> dict[str, Any]:
    size = np.array(volumes[0].sidecar["VoxelSize"])
    first = _target(volumes[0], box, options)
    affine = shifted_affine(np.diag([*size, 1.0]), first.start)
    sidecars = json.dumps([[volume.key, volume.sidecar] for volume in volumes], sort_keys=True)
    return {
        "preparation": options.preparation_record(),
        "box": str(box),
        "voxel_size": [float(s) for s in size],
        "affine": affine.tolist(),
        "split": {"fractions": list(options.fractions), "seed": options.split_seed},
        "phantom": all(bool(v.sidecar["Known"].get("phantom")) for v in volumes),
        "fold_names": {str(n): name for n, name in sorted(options.fold_names.items())},
        "sidecars_sha256": sha256(sidecars.encode()),
    }


def _begin_packing(out: Path) -> None:
    """Take back what the description says is packed: a kill must not leave it said."""
    if (out / DESCRIPTION).is_file():
        cohort = read_json(out / DESCRIPTION)["Cohort"]
        write_description(out, "foldnorm cohort", {**cohort, "sidecars_sha256": ""})


def _is_packed(out: Path, description: Mapping[str, Any]) -> bool:
    """Whether the very same volumes were packed the very same way."""
    if not all((out / name).is_file() for name in (DESCRIPTION, VOLUMES, PARTICIPANTS, QC_TABLE)):
        return False
    written: bool = read_json(out / DESCRIPTION).get("Cohort") == json.loads(
        json.dumps(description)
    )
    return written
