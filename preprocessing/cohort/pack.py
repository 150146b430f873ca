"""The last step of preprocessing: fit the box, or keep the frozen one, and pack all volumes.

The volumes of ``sub-*/anat`` are cut to what they hold; here each is placed in the cohort's box.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foldnorm.preprocessing.cohort.cohort import (
    DESCRIPTION,
    FOLD_COLUMNS,
    FOLD_TABLE,
    FOLDS,
    PAIRS,
    PARTICIPANTS,
    VOLUMES,
)
from foldnorm.preprocessing.cohort.cohort_files import (
    write_description,
    write_packed,
    write_participants,
)
from foldnorm.preprocessing.cohort.duplicates import SameScan, same_scans
from foldnorm.preprocessing.cohort.layout import Layout, fit_layout
from foldnorm.preprocessing.cohort.options import PreprocessOptions
from foldnorm.preprocessing.cohort.plan import CohortPlan
from foldnorm.preprocessing.cohort.preparation import Preparation
from foldnorm.preprocessing.cohort.prepared_index import PreparedVolume, prepared_volumes
from foldnorm.preprocessing.cohort.quality import COLUMNS as QC_COLUMNS
from foldnorm.preprocessing.cohort.quality import QC_TABLE, quality_rows
from foldnorm.preprocessing.cohort.split import assign_split
from foldnorm.preprocessing.core.counts import counted, listed
from foldnorm.preprocessing.core.errors import InputError
from foldnorm.preprocessing.core.files import read_json, threaded_map, tsv_writer, write_tsv
from foldnorm.preprocessing.core.problems import Problem
from foldnorm.preprocessing.io.names import bids_label
from foldnorm.preprocessing.io.schemes import LabelScheme
from foldnorm.preprocessing.io.source_contents import FOLD_NAMES
from foldnorm.preprocessing.io.source_volume import is_phantom
from foldnorm.preprocessing.spatial.crop import missing_sides, paste, shifted_affine
from foldnorm.preprocessing.spatial.downsample import SAME_SIZE


@dataclass(frozen=True)
class Packed:
    """Result of `pack`.

    Attributes:
        problems: volumes that do not fit the frozen box or have other voxels; they are left out.
        same_scans: scans that are there under two ids.
        dropped: participants that were left out for that.
        warnings: a line each.
    """

    problems: list[Problem] = field(default_factory=list)
    same_scans: list[SameScan] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def pack(out: Path, plan: CohortPlan, fold_names: Mapping[int, str]) -> Packed:
    """Pack every finished volume of the cohort folder ``out``.

    Args:
        out: cohort folder.
        plan: of the cohort.
        fold_names: label → name of the source.

    Raises:
        InputError: volumes of different makers, or folds with names of different vocabularies,
            and they may not be mixed.
    """
    excluded = {bids_label(name) for name in plan.excluded}
    every = [
        volume
        for volume in prepared_volumes(out)
        if bids_label(volume.sidecar["Participant"]) not in excluded
    ]
    if not plan.options.mix_origins:
        refuse_mixed([volume.sidecar["Origin"] for volume in every])
        refuse_mixed_names(_vocabularies(every, fold_names))
    finished, problems = _same_voxels(every, out, refit=plan.options.overwrite)
    scans = same_scans(finished)
    finished, dropped = _first_of_each_scan(finished, scans, plan.options)
    said = _mixed_names_warnings(_vocabularies(finished, fold_names))
    said += _source_warnings(finished) + _scan_warnings(finished, scans, plan.options)
    packed = Packed(problems, scans, dropped, said)
    if not finished:
        return packed
    layout = _layout(finished, out, plan, fold_names)
    fitting = []
    for volume in finished:
        outside = "" if plan.crop.may_cut else missing_sides(volume.bounds, layout.box)
        if outside:
            problems.append(
                Problem(
                    volume.key,
                    f"does not fit the cohort's box, {outside} too far ({_more_room(plan)}): "
                    f"{volume.sidecar['Sources'][0]}",
                )
            )
        else:
            fitting.append(volume)
    if not fitting:
        return packed
    description = _description(fitting, layout, plan, fold_names)
    if not plan.options.overwrite and _is_packed(out, description):
        return packed
    _begin_packing(out)
    layout.write_region(out, fitting[0].sidecar["VoxelSize"])
    _write_volumes(out, fitting, layout, plan)
    _write_pairs(out, fitting, layout, plan)
    _write_folds(out, fitting, layout, plan, fold_names)
    write_participants(out, [_row(volume, plan.options) for volume in fitting])
    write_tsv(out / QC_TABLE, _quality(fitting, scans, plan.preparation), QC_COLUMNS)
    write_description(out, "foldnorm cohort", description)  # last: what it says is then there
    return packed


def refuse_mixed(origins: Sequence[str]) -> None:
    """Refuse volumes of different makers.

    Raises:
        InputError: there are several; it says how many of each.
    """
    counts = Counter(origins)
    if len(counts) > 1:
        shown = ", ".join(f"{number} {origin}" for origin, number in sorted(counts.items()))
        raise InputError(
            f"volumes of different origin ({shown}): their counts differ systematically; "
            "--mix-origins takes them all the same"
        )


def refuse_mixed_names(vocabularies: Iterable[str]) -> None:
    """Refuse volumes whose folds have names of different vocabularies.

    Args:
        vocabularies: of each volume; empty where its folds have no names.

    Raises:
        InputError: there are several; it says how many of each.
    """
    if said := _mixed_names_warnings(vocabularies):
        raise InputError(
            f"{said[0]}; --fold-labels none takes them without folds, --mix-origins all the same"
        )


def _mixed_names_warnings(vocabularies: Iterable[str]) -> list[str]:
    counts = Counter(vocabulary for vocabulary in vocabularies if vocabulary)
    if len(counts) < 2:
        return []
    shown = ", ".join(f"{number} {name}" for name, number in sorted(counts.items()))
    return [f"volumes whose folds have names of different vocabularies ({shown})"]


def _vocabularies(volumes: Sequence[PreparedVolume], of_source: Mapping[int, str]) -> list[str]:
    """Vocabulary of each volume; what names labels for the whole source is one of its own."""
    return [volume.fold_vocabulary or (FOLD_NAMES if of_source else "") for volume in volumes]


def fold_rows(
    volume: PreparedVolume,
    labels: NDArray[np.uint16],
    inside: NDArray[np.uint16],
    names: Mapping[int, str],
) -> list[dict[str, Any]]:
    """Rows of the fold table: size within the box, in mm² of sheet (its voxel count at 1 mm).

    The size at full resolution is shared out by the downsampled voxels that the box holds.
    """
    total = np.bincount(labels.ravel())
    held = np.bincount(inside.ravel(), minlength=len(total))
    sizes, gyri = volume.sidecar["FoldSizes"], volume.fold_gyri
    return [
        {
            "participant_id": f"sub-{bids_label(volume.sidecar['Participant'])}",
            "hemi": volume.sidecar["Hemisphere"],
            "label": int(label),
            "name": names.get(int(label), ""),
            "inside": gyri.get(int(label), ""),
            "size": sizes[str(label)] * held[label] / total[label],
            "voxels": int(held[label]),
        }
        for label in np.flatnonzero(held)
        if label
    ]


def _layout(
    volumes: list[PreparedVolume], out: Path, plan: CohortPlan, fold_names: Mapping[int, str]
) -> Layout:
    """Return the layout of another cohort, or the one frozen in ``out``, or fit a new one."""
    if plan.frozen is not None:
        return plan.frozen
    if (out / DESCRIPTION).is_file() and not plan.options.overwrite:
        return Layout.from_cohort(out)
    return fit_layout(volumes, plan.crop, plan.pad, fold_names, plan.record())


def _more_room(plan: CohortPlan) -> str:
    """Say what makes the box of a cohort larger."""
    if plan.frozen is None:
        return "--overwrite fits the box anew; --crop cohort@6 leaves 6 mm of room for others"
    return f"prepare {plan.options.layout_from} with room for others, as by --crop cohort@6"


def _same_voxels(
    volumes: list[PreparedVolume], out: Path, *, refit: bool
) -> tuple[list[PreparedVolume], list[Problem]]:
    """Keep the volumes whose voxels have the cohort's size: the frozen one, or the first's."""
    if not volumes:
        return [], []
    expected = volumes[0].sidecar["VoxelSize"]
    if (out / DESCRIPTION).is_file() and not refit:
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


def _write_volumes(
    out: Path, volumes: list[PreparedVolume], layout: Layout, plan: CohortPlan
) -> None:
    scheme = plan.preparation.scheme

    def placed(volume: PreparedVolume) -> NDArray[np.integer]:
        target = layout.target(volume, plan.crop)
        classes = volume.read("_dseg").data.astype(np.uint8, copy=False)
        return layout.packed(classes, volume.bounds, target, scheme, plan.outside_class)

    shape = (len(volumes), *layout.box.shape)
    ahead = threaded_map(placed, volumes, max(plan.options.n_procs, 1))
    write_packed(out, VOLUMES, ahead, shape=shape, dtype=np.dtype(np.uint8))


def _write_pairs(
    out: Path, volumes: list[PreparedVolume], layout: Layout, plan: CohortPlan
) -> None:
    """Pack the second volume of each pair, in the order and on the grid of the first."""
    scheme = plan.preparation.pair
    if scheme is None:
        (out / PAIRS).unlink(missing_ok=True)
        return
    outside = None if plan.outside_class is None else scheme.names[scheme.fill]

    def placed(volume: PreparedVolume) -> NDArray[np.integer]:
        target = layout.target(volume, plan.crop)
        classes = volume.read("_desc-pair_dseg").data.astype(np.uint8, copy=False)
        return layout.packed(classes, volume.bounds, target, scheme, outside)

    shape = (len(volumes), *layout.box.shape)
    ahead = threaded_map(placed, volumes, max(plan.options.n_procs, 1))
    write_packed(out, PAIRS, ahead, shape=shape, dtype=np.dtype(np.uint8))


def _write_folds(
    out: Path,
    volumes: list[PreparedVolume],
    layout: Layout,
    plan: CohortPlan,
    fold_names: Mapping[int, str],
) -> None:
    """Pack the fold labels and their table, if every volume has them."""
    if not all(volume.has_folds() for volume in volumes):
        for name in (FOLDS, FOLD_TABLE):
            (out / name).unlink(missing_ok=True)
        return
    shape = (len(volumes), *layout.box.shape)

    def labels(write_row: Callable[[Mapping[str, Any]], None]) -> Iterator[NDArray[np.uint16]]:
        for volume in volumes:
            whole = volume.read("_desc-folds_dseg").data.astype(np.uint16)
            target = layout.target(volume, plan.crop)
            inside = paste(whole, volume.bounds, target, fill=0).astype(np.uint16)
            if plan.outside_class is not None and layout.region is not None:
                inside[~layout.region] = 0
            for row in fold_rows(volume, whole, inside, volume.fold_names(fold_names)):
                write_row(row)
            yield inside

    with tsv_writer(out / FOLD_TABLE, FOLD_COLUMNS) as write_row:
        write_packed(out, FOLDS, labels(write_row), shape=shape, dtype=np.dtype(np.uint16))


def _first_of_each_scan(
    volumes: list[PreparedVolume], scans: Sequence[SameScan], options: PreprocessOptions
) -> tuple[list[PreparedVolume], list[str]]:
    """Leave out whoever is of the scan of somebody before, if that is asked for."""
    dropped: list[str] = []
    for scan in scans if options.drop_duplicates else ():
        if scan.first not in dropped and scan.second not in dropped:
            dropped.append(scan.second)
    kept = [v for v in volumes if bids_label(v.sidecar["Participant"]) not in dropped]
    return kept, dropped


def _scan_warnings(
    volumes: list[PreparedVolume], scans: Sequence[SameScan], options: PreprocessOptions
) -> list[str]:
    """Say which scans are there twice, and how they are kept out of two splits."""
    by_id = {bids_label(volume.sidecar["Participant"]): volume for volume in volumes}
    warnings = []
    for scan in scans:
        sides = "".join(f"{hemi}, " for hemi in scan.hemis if hemi)
        what = f"sub-{scan.first} and sub-{scan.second} are of the same scan ({sides}Dice "
        what += f"{scan.overlap:.2f})"
        left_out = [f"sub-{name}" for name in (scan.first, scan.second) if name not in by_id]
        if left_out:
            warnings.append(f"{what}; left out: {', '.join(left_out)}")
            continue
        first, second = by_id[scan.first], by_id[scan.second]
        if _split_unit(first) == _split_unit(second):
            continue
        splits = [_row(volume, options)["split"] for volume in (first, second)]
        where = " and ".join(splits) if splits[0] != splits[1] else f"{splits[0]}, by chance"
        warnings.append(
            f"{what}, in {where}: they leak through a split; "
            f"{_remedy(first, second)}, or --drop-duplicates"
        )
    return warnings


def _remedy(first: PreparedVolume, second: PreparedVolume) -> str:
    """Say which line of a table would put two participants into one family."""
    family, other = (volume.sidecar["Known"].get("family") for volume in (first, second))
    if other and not family:
        first, second, family = second, first, other
    name = second.sidecar["Participant"]
    return (
        f"give sub-{bids_label(name)} the family {family or _split_unit(first)} in the source's "
        "participants.tsv or table"
    )


def _source_warnings(volumes: list[PreparedVolume]) -> list[str]:
    """Say what files say oddly, once for all that do, and how many volumes have any warning."""
    keys: dict[str, list[str]] = {}
    for volume in volumes:
        for line in volume.sidecar.get("FileWarnings", []):
            keys.setdefault(line, []).append(volume.key)
    said = [f"{listed(found)}: {line}" for line, found in keys.items()]
    number = sum(bool(volume.warnings) for volume in volumes)
    if number:
        said.append(f"{counted(number, 'volume')} with warnings of the source, see {QC_TABLE}")
    return said


def _quality(
    volumes: list[PreparedVolume], scans: Sequence[SameScan], preparation: Preparation
) -> list[dict[str, Any]]:
    same: dict[tuple[str, str], list[str]] = {}
    for scan in scans:
        for one, other in ((scan.first, scan.second), (scan.second, scan.first)):
            for hemi in scan.hemis:
                same.setdefault((f"sub-{one}", hemi), []).append(f"sub-{other}")
    there = {f"sub-{bids_label(volume.sidecar['Participant'])}" for volume in volumes}
    measured = []
    for volume in volumes:
        participant = f"sub-{bids_label(volume.sidecar['Participant'])}"
        others = same.get((participant, volume.sidecar["Hemisphere"]), [])
        measured.append(
            {
                **volume.sidecar["Quality"],
                "participant_id": participant,
                "hemi": volume.sidecar["Hemisphere"],
                "warnings": volume.warnings,
                "same_as": [other for other in others if other in there],
            }
        )
    return quality_rows(measured, in_mni_space=preparation.space == "mni")


def _split_unit(volume: PreparedVolume) -> str:
    """Family of a participant, or the participant; who shares it is in one split."""
    return str(volume.sidecar["Known"].get("family") or volume.sidecar["Participant"])


def _row(volume: PreparedVolume, options: PreprocessOptions) -> dict[str, str]:
    known = {k: str(v) for k, v in volume.sidecar["Known"].items() if k != "split"}
    participant = volume.sidecar["Participant"]
    unit, fractions = _split_unit(volume), options.split_fractions
    split = assign_split(unit, seed=options.split_seed, fractions=fractions)
    label = f"sub-{bids_label(participant)}"
    return {
        **known,
        "participant_id": label,
        "hemi": volume.sidecar["Hemisphere"],
        "split": split,
    }


def _description(
    volumes: list[PreparedVolume],
    layout: Layout,
    plan: CohortPlan,
    fold_names: Mapping[int, str],
) -> dict[str, Any]:
    size = np.array(volumes[0].sidecar["VoxelSize"])
    first = layout.target(volumes[0], plan.crop)
    affine = shifted_affine(np.diag([*size, 1.0]), first.start)
    sidecars = hashlib.sha256()
    for volume in volumes:
        sidecars.update(json.dumps([volume.key, volume.sidecar], sort_keys=True).encode())
    options = plan.options
    named = dict(sorted(Counter(v.fold_vocabulary for v in volumes if v.fold_vocabulary).items()))
    return {
        "preparation": plan.record(),
        "box": str(layout.box),
        "voxel_size": [float(s) for s in size],
        "affine": affine.tolist(),
        "split": {"fractions": list(options.split_fractions), "seed": options.split_seed},
        "phantom": all(is_phantom(v.sidecar["Known"]) for v in volumes),
        "fold_names": {str(n): name for n, name in sorted(fold_names.items())},
        "pairs": _pairs(volumes, plan.preparation.pair),
        **({"fold_vocabularies": named} if named else {}),
        "origins": dict(sorted(Counter(v.sidecar["Origin"] for v in volumes).items())),
        "sidecars_sha256": sidecars.hexdigest(),
    }


def _pairs(volumes: list[PreparedVolume], scheme: LabelScheme | None) -> dict[str, Any] | None:
    """Describe the pairs: their scheme, how many have two affines, and the largest shift, mm."""
    if scheme is None:
        return None
    shifts = np.abs([volume.sidecar["PairShiftMm"] for volume in volumes]).max(axis=1)
    return {
        "scheme": scheme.as_dict(),
        "shifted": int((shifts > 0).sum()),
        "largest_shift_mm": float(shifts.max()),
    }


def _begin_packing(out: Path) -> None:
    """Take back what the description says is packed: a kill must not leave it said."""
    if (out / DESCRIPTION).is_file():
        cohort = read_json(out / DESCRIPTION)["Cohort"]
        write_description(out, "foldnorm cohort", {**cohort, "sidecars_sha256": ""})


def _is_packed(out: Path, description: Mapping[str, Any]) -> bool:
    """Return whether the very same volumes were packed the very same way."""
    if not all((out / name).is_file() for name in (DESCRIPTION, VOLUMES, PARTICIPANTS, QC_TABLE)):
        return False
    written: bool = read_json(out / DESCRIPTION).get("Cohort") == json.loads(
        json.dumps(description)
    )
    return written
