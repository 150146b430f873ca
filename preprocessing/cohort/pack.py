"""The last step of preprocessing: fit the box, or keep the frozen one, and pack all volumes.

The volumes of ``sub-*/anat`` are cut to what they hold; here each is placed in the cohort's box.
"""

from collections.abc import Callable, Iterator, Mapping
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
from foldnorm.preprocessing.cohort.cohort_files import write_description, write_participants
from foldnorm.preprocessing.cohort.duplicates import SameScan, same_scans
from foldnorm.preprocessing.cohort.layout import Layout, fit_layout
from foldnorm.preprocessing.cohort.mixtures import (
    first_of_each_scan,
    mixed_names_warnings,
    refuse_mixed,
    refuse_mixed_names,
    scan_warnings,
    source_file_warnings,
    vocabularies_of,
)
from foldnorm.preprocessing.cohort.plan import CohortPlan
from foldnorm.preprocessing.cohort.prepared_index import PreparedVolume, prepared_volumes
from foldnorm.preprocessing.cohort.quality import COLUMNS as QC_COLUMNS
from foldnorm.preprocessing.cohort.quality import QC_TABLE
from foldnorm.preprocessing.cohort.records import (
    describe,
    fold_rows,
    participant_row,
    quality_of,
)
from foldnorm.preprocessing.core.arrays import write_array
from foldnorm.preprocessing.core.files import (
    json_content,
    read_json,
    threaded_map,
    tsv_writer,
    write_tsv,
)
from foldnorm.preprocessing.core.problems import Problem
from foldnorm.preprocessing.io.names import bids_label
from foldnorm.preprocessing.io.schemes import LabelScheme
from foldnorm.preprocessing.spatial.crop import missing_sides, paste
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
        refuse_mixed_names(vocabularies_of(every, fold_names))
    finished, problems = _same_voxels(every, out, refit=plan.options.overwrite)
    scans = same_scans(finished)
    finished, dropped = first_of_each_scan(finished, scans, plan.options)
    said = mixed_names_warnings(vocabularies_of(finished, fold_names))
    said += source_file_warnings(finished) + scan_warnings(finished, scans, plan.options)
    packed = Packed(problems, scans, dropped, said)
    if not finished:
        return packed
    layout = _layout(finished, out, plan, fold_names)
    fitting, outside = _fitting(finished, layout, plan)
    problems += outside
    if not fitting:
        return packed
    description = describe(fitting, layout, plan, fold_names)
    if not plan.options.overwrite and _is_packed(out, description):
        return packed
    _begin_packing(out)
    layout.write_region(out, fitting[0].sidecar["VoxelSize"])
    _write_volumes(out, fitting, layout, plan)
    _write_folds(out, fitting, layout, plan, fold_names)
    write_participants(out, [participant_row(volume, plan.options) for volume in fitting])
    write_tsv(out / QC_TABLE, quality_of(fitting, scans, plan.preparation), QC_COLUMNS)
    write_description(out, "foldnorm cohort", description)  # last: what it says is then there
    return packed


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


def _fitting(
    volumes: list[PreparedVolume], layout: Layout, plan: CohortPlan
) -> tuple[list[PreparedVolume], list[Problem]]:
    """Keep the volumes of which the box of the layout cuts nothing off, unless it may."""
    kept, problems = [], []
    for volume in volumes:
        outside = "" if plan.crop.may_cut else missing_sides(volume.bounds, layout.box)
        if not outside:
            kept.append(volume)
            continue
        reason = f"does not fit the cohort's box, {outside} too far ({_more_room(plan)})"
        problems.append(Problem(volume.key, f"{reason}: {volume.sidecar['Sources'][0]}"))
    return kept, problems


def _write_volumes(
    out: Path, volumes: list[PreparedVolume], layout: Layout, plan: CohortPlan
) -> None:
    """Pack the volumes, and the second volume of each pair on the grid of the first."""
    scheme, pair = plan.preparation.scheme, plan.preparation.pair
    _write_placed(out / VOLUMES, "_dseg", scheme, plan.outside_class, volumes, layout, plan)
    if pair is None:
        (out / PAIRS).unlink(missing_ok=True)
        return
    outside = None if plan.outside_class is None else pair.names[pair.fill]
    _write_placed(out / PAIRS, "_desc-pair_dseg", pair, outside, volumes, layout, plan)


def _write_placed(
    path: Path,
    suffix: str,
    scheme: LabelScheme,
    off_mask: str | None,
    volumes: list[PreparedVolume],
    layout: Layout,
    plan: CohortPlan,
) -> None:
    def placed(volume: PreparedVolume) -> NDArray[np.integer]:
        target = layout.target(volume, plan.crop)
        classes = volume.read(suffix).data.astype(np.uint8, copy=False)
        return layout.packed(classes, volume.bounds, target, scheme, off_mask)

    ahead = threaded_map(placed, volumes, max(plan.options.n_procs, 1))
    shape = (len(volumes), *layout.box.shape)
    write_array(path, ahead, shape=shape, dtype=np.dtype(np.uint8))


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
        write_array(out / FOLDS, labels(write_row), shape=shape, dtype=np.dtype(np.uint16))


def _begin_packing(out: Path) -> None:
    """Take back what the description says is packed: a kill must not leave it said."""
    if (out / DESCRIPTION).is_file():
        cohort = read_json(out / DESCRIPTION)["Cohort"]
        write_description(out, "foldnorm cohort", {**cohort, "sidecars_sha256": ""})


def _is_packed(out: Path, description: Mapping[str, Any]) -> bool:
    """Return whether the very same volumes were packed the very same way."""
    if not all((out / name).is_file() for name in (DESCRIPTION, VOLUMES, PARTICIPANTS, QC_TABLE)):
        return False
    written: bool = read_json(out / DESCRIPTION).get("Cohort") == json_content(description)
    return written
