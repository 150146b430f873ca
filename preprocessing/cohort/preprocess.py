"""A source becomes a cohort folder: prepare every volume, then pack them in one box.

Preparing is the long part. It runs in parallel, and in shards on a cluster, and every input is
read once. What is finished (same input bytes, same parameters) is skipped; what fails is
reported, and the others are finished.
"""

import logging
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

from tqdm import tqdm

from foldnorm.preprocessing.cohort.cohort import DESCRIPTION, same_preparation
from foldnorm.preprocessing.cohort.mixtures import refuse_mixed, refuse_mixed_names
from foldnorm.preprocessing.cohort.pack import Packed, pack
from foldnorm.preprocessing.cohort.pictures import montage
from foldnorm.preprocessing.cohort.plan import CohortPlan
from foldnorm.preprocessing.cohort.preparation import Preparation
from foldnorm.preprocessing.cohort.prepare_volume import PreparedArrays, prepare_volume
from foldnorm.preprocessing.cohort.prepared_index import prepared_volumes, source_record
from foldnorm.preprocessing.core.errors import InputError
from foldnorm.preprocessing.core.file_names import RUN_REPORT
from foldnorm.preprocessing.core.files import (
    json_or_nothing,
    read_json,
    sha256_of,
    write_bytes,
    write_json,
)
from foldnorm.preprocessing.core.isolation import isolated_map
from foldnorm.preprocessing.core.problems import Problem
from foldnorm.preprocessing.io.fold_sidecar import FoldSidecar, read_fold_names
from foldnorm.preprocessing.io.names import bids_label
from foldnorm.preprocessing.io.schemes import LabelScheme
from foldnorm.preprocessing.io.source_volume import (
    SourceVolume,
    origin_of,
    source_warnings,
    vocabulary_of,
)
from foldnorm.preprocessing.io.sources import Source, find_volumes, refuse_own_source
from foldnorm.preprocessing.io.volumes import write_labels

LOG = logging.getLogger(__name__)
Options = TypeVar("Options")
REPORT_OF_SHARD = "run_report_shard-{}.json"


def preprocess(sources: Sequence[Source], out: Path, plan: CohortPlan) -> dict[str, Any]:
    """Turn sources into a cohort folder.

    Returns:
        The run report, also written to ``run_report.json``: numbers of volumes done, skipped and
        failed, and why each of the latter did; scans that are there twice, and which participants
        were left out for that; warnings, which are logged too; files of the sources that are not
        used, and why.

    Raises:
        InputError: nothing can be done at all (no volume, bad parameters).
    """
    begin = time.perf_counter()
    refuse_own_source((source.path for source in sources), out)
    _check_same_cohort(out, plan)
    options, preparation = plan.options, plan.preparation
    found = find_volumes(
        sources,
        preparation.scheme.stem,
        pair_stem=preparation.pair.stem if preparation.pair else "",
        hemis=options.hemi,
        participants=options.participant_label,
        excluded=plan.excluded,
        prefer=options.prefer,
        whole_brain=preparation.whole_brain,
        assume=options.assume,
    )
    found.log()
    volumes, problems = found.items, found.problems
    if not options.mix_origins:
        refuse_mixed([origin_of(volume) for volume in volumes])
        if preparation.fold_labels == "auto":
            refuse_mixed_names([vocabulary_of(volume) for volume in volumes])
    names = read_fold_names(source.path for source in sources)
    if names:
        plan.crop.labels(names)  # a region that nothing is named after is refused here too
    if options.part is not None:
        number, of = options.part
        volumes = volumes[number - 1 :: of]
    if options.finalize:
        skipped, failed = _prepared_by_shards(volumes, out)
    else:
        skipped, failed = _prepare_all(volumes, out, plan)
    problems += failed
    packed = Packed()
    if options.part is None:
        packed = pack(out, plan, names)
        problems += packed.problems
    for line in packed.warnings:
        LOG.warning("%s", line)
    failed_keys = {problem.key for problem in problems}
    report = {
        "version": version("foldnorm"),
        "done": sum(volume.key not in failed_keys for volume in volumes),
        "skipped": skipped,
        "excluded": sorted(plan.excluded),
        "failed": [{"volume": p.key, "reason": p.reason} for p in problems],
        "duplicates": [asdict(scan) for scan in packed.same_scans],
        "dropped": packed.dropped,
        "warnings": packed.warnings,
        **found.record(),
        "seconds": round(time.perf_counter() - begin, 2),
        "shard": None if options.part is None else list(options.part),
    }
    write_report(out, report)
    return report


def write_report(out: Path, report: Mapping[str, Any]) -> None:
    """Write the report of a run, or of a shard, into the cohort folder."""
    shard = report["shard"]
    write_json(out / (REPORT_OF_SHARD.format(shard[0]) if shard else RUN_REPORT), report)


def prepare_to_folder(volume: SourceVolume, out: Path, plan: CohortPlan) -> bool:
    """Prepare one volume and write it with its sidecar; True if it was finished already."""
    preparation = plan.preparation
    stem = out / f"sub-{bids_label(volume.participant)}" / "anat" / volume.key
    sidecar = stem.with_name(f"{stem.name}_dseg.json")
    paths = _read_by(preparation, volume)
    made_from = {
        "Sources": [str(path) for path in paths],
        "InputSHA256": [sha256_of(path) for path in paths],
        **source_record(volume),
        "Origin": origin_of(volume),
        "Parameters": preparation.as_dict(),
        "Version": version("foldnorm"),
    }
    warnings = source_warnings(volume)
    if not plan.options.overwrite and sidecar.is_file():
        old = json_or_nothing(sidecar)
        if all(old.get(key) == value for key, value in made_from.items()):
            if old.get("Warnings", []) != warnings:  # said since; the volume is the same
                write_json(sidecar, {**old, "Warnings": warnings})
            return True
    sidecar.unlink(missing_ok=True)  # what it says may end with the next line
    prepared = prepare_volume(volume, preparation)
    _write_prepared(prepared, stem, preparation.scheme)
    measured = _measured(prepared, preparation)
    write_json(sidecar, {**made_from, "Warnings": warnings, **measured})
    return False


def _read_by(preparation: Preparation, volume: SourceVolume) -> list[Path]:
    """Files that preparing a volume reads."""
    beside = volume.companions
    labelled = preparation.fold_labels == "auto"
    paths = [
        volume.path,
        beside.folds if labelled else None,
        _naming_sidecar(beside.folds) if labelled else None,
        beside.graph if labelled or preparation.hull == "remove" else None,
        beside.transform if preparation.space == "mni" else None,
        beside.pair if preparation.pair is not None else None,
    ]
    read = list(dict.fromkeys(path for path in paths if path is not None))
    return read if volume.right is None else read + _read_by(preparation, volume.right)


def _naming_sidecar(folds: Path | None) -> Path | None:
    """Sidecar of fold labels, if it names any fold."""
    sidecar = None if folds is None else FoldSidecar.beside(folds)
    return sidecar.path if sidecar is not None and sidecar.names else None


def _write_prepared(prepared: PreparedArrays, stem: Path, scheme: LabelScheme) -> None:
    volumes = {
        "": (prepared.classes, scheme.name),
        "_desc-pair": (prepared.pair, "second volume of a pair"),
        "_desc-folds": (prepared.folds, "fold labels"),
    }
    for suffix, (data, what) in volumes.items():
        path = stem.with_name(f"{stem.name}{suffix}_dseg.nii.gz")
        if data is None:  # an earlier preparation may have had it
            path.unlink(missing_ok=True)
        else:
            write_labels(path, data, prepared.affine, description=f"foldnorm {what}")
    picture = stem.parents[1] / "figures" / f"{stem.name}_qc.png"
    write_bytes(picture, montage(prepared.source.classes, prepared.classes, scheme))


def _measured(prepared: PreparedArrays, preparation: Preparation) -> dict[str, Any]:
    names, gyri = preparation.scheme.names, prepared.source.fold_gyri
    return {
        "VoxelSize": list(prepared.voxel_size),
        "LatticeBox": str(prepared.bounds),
        "FieldOfView": str(prepared.field_of_view),
        "Hull": prepared.source.hull,
        "Quality": prepared.quality,
        "Signature": prepared.signature,
        "VoxelCounts": {name: int((prepared.classes == n).sum()) for n, name in enumerate(names)},
        "PairShiftMm": prepared.source.pair_shift,
        "FoldLabels": prepared.source.folds_from,
        "FoldNames": {str(label): name for label, name in prepared.source.fold_names.items()},
        **({"FoldGyri": {str(n): gyrus for n, gyrus in gyri.items()}} if gyri else {}),
        **({"FoldVocabulary": said} if (said := prepared.source.fold_vocabulary) else {}),
        "FoldSizes": {str(label): round(size, 3) for label, size in prepared.fold_sizes.items()},
        **({"FileWarnings": list(lines)} if (lines := prepared.source.warnings) else {}),
    }


def _prepare_all(
    volumes: Sequence[SourceVolume], out: Path, plan: CohortPlan
) -> tuple[int, list[Problem]]:
    """Prepare in parallel; return how many were finished already, and the failures."""
    skipped, problems, options = 0, [], plan.options
    hidden = options.quiet or not sys.stderr.isatty()
    work = partial(prepare_to_folder, out=out, plan=plan)
    outcomes = isolated_map(work, volumes, options.n_procs)
    for outcome in tqdm(
        outcomes, desc="prepare", total=len(volumes), unit="volume", disable=hidden
    ):
        if outcome.reason:
            problems.append(Problem(outcome.item.key, outcome.reason))
        else:
            skipped += outcome.result
    return skipped, sorted(problems, key=lambda problem: problem.key)


def _prepared_by_shards(volumes: Sequence[SourceVolume], out: Path) -> tuple[int, list[Problem]]:
    """Count the volumes that shards found finished; list those that none finished, and why."""
    reports = [json_or_nothing(path) for path in sorted(out.glob(REPORT_OF_SHARD.format("*")))]
    reasons = {f["volume"]: f["reason"] for report in reports for f in report.get("failed", [])}
    finished = {volume.key for volume in prepared_volumes(out)}
    problems = [
        Problem(volume.key, reasons.get(volume.key, f"no shard has prepared it: {volume.path}"))
        for volume in volumes
        if volume.key not in finished
    ]
    return sum(report.get("skipped", 0) for report in reports), problems


def _check_same_cohort(out: Path, plan: CohortPlan) -> None:
    """Refuse to mix two preparations in one cohort folder."""
    path = out / DESCRIPTION
    if plan.options.overwrite or not path.is_file():
        return
    recorded = read_json(path).get("Cohort")
    if recorded is None:
        raise InputError(f"not a cohort folder; choose another one to write to: {out}")
    differing = same_preparation(recorded["preparation"], plan.record())
    if differing:
        raise InputError(
            f"prepared before with another {', '.join(differing)}; choose another folder, or "
            f"--overwrite: {out}"
        )
