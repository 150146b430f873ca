"""A source becomes a cohort folder: prepare every volume, then pack them in one box.

Preparing is the long part. It runs in parallel, and in shards on a cluster, and every input is
read once. What is finished (same input bytes, same parameters) is skipped; what fails is
reported, and the others are finished.
"""

import sys
import time
import traceback
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import joblib
from tqdm import tqdm

from foldnorm.preprocessing.cohort import DESCRIPTION, same_preparation
from foldnorm.preprocessing.crop import Box, pad_shape
from foldnorm.preprocessing.crop_spec import CropSpec
from foldnorm.preprocessing.errors import InputError
from foldnorm.preprocessing.files import read_json, sha256, write_json
from foldnorm.preprocessing.pack import PackOptions, pack
from foldnorm.preprocessing.prepare import Preparation, Prepared, prepare_volume
from foldnorm.preprocessing.sources import (
    Companions,
    Problem,
    SourceVolume,
    bids_label,
    find_volumes,
    read_fold_names,
)
from foldnorm.preprocessing.split import DEFAULT_FRACTIONS, check_fractions
from foldnorm.preprocessing.volumes import write_labels

RUN_REPORT = "run_report.json"


@dataclass(frozen=True)
class PreprocessOptions:
    """Everything that `preprocess` can be told.

    Attributes:
        preparation: what is done to each volume.
        crop: which box is packed.
        pad: shape of the box: ``none``, ``cubic``, ``multiple:N`` or ``I,J,K``.
        frozen_box: of another cohort, to be laid out like it; `crop` and `pad` are then its own.
        hemis: sides to keep; all if empty.
        participants: ids to keep; all if empty.
        excluded: ids to leave out.
        prefer: acquisitions, analyses or fold sessions that are taken before others.
        fractions: shares of training, validation and test.
        split_seed: of the hash that splits.
        shard: (number, of how many), from 1: prepare only this part, and do not pack.
        n_procs: processes.
        overwrite: redo what is finished, and fit the box anew.
        quiet: no progress bar.
    """

    preparation: Preparation
    crop: CropSpec = field(default_factory=CropSpec)
    pad: str = "none"
    frozen_box: Box | None = None
    hemis: tuple[str, ...] = ()
    participants: tuple[str, ...] = ()
    excluded: frozenset[str] = frozenset()
    prefer: tuple[str, ...] = ()
    fractions: tuple[float, ...] = DEFAULT_FRACTIONS
    split_seed: int = 0
    shard: tuple[int, int] | None = None
    n_procs: int = 1
    overwrite: bool = False
    quiet: bool = False


def preprocess(source: Path, out: Path, options: PreprocessOptions) -> dict[str, Any]:
    """Turn a source into a cohort folder.

    Returns:
        The run report, also written to ``run_report.json``: numbers of volumes done, skipped and
        failed, and why each of the latter did.

    Raises:
        InputError: nothing can be done at all (no volume, bad parameters).
    """
    begin = time.perf_counter()
    check_fractions(options.fractions)
    pad_shape((1, 1, 1), options.pad)  # refused before the long part, not after it
    _check_same_cohort(out, options)
    stem = options.preparation.scheme.stem
    volumes, problems = find_volumes(
        source,
        stem,
        hemis=options.hemis,
        participants=options.participants,
        excluded=options.excluded,
        prefer=options.prefer,
    )
    names = read_fold_names(source)
    if names:
        options.crop.labels(names)  # a region that nothing is named after is refused here too
    if options.shard is not None:
        number, of = options.shard
        volumes = volumes[number - 1 :: of]
    skipped, failed = _prepare_all(volumes, out, options)
    problems += failed
    if options.shard is None:
        problems += pack(out, _pack_options(options, names))
    failed_keys = {problem.key for problem in problems}
    report = {
        "version": version("foldnorm"),
        "done": sum(volume.key not in failed_keys for volume in volumes),
        "skipped": skipped,
        "excluded": sorted(options.excluded),
        "failed": [{"volume": p.key, "reason": p.reason} for p in problems],
        "seconds": round(time.perf_counter() - begin, 2),
        "shard": None if options.shard is None else list(options.shard),
    }
    name = RUN_REPORT if options.shard is None else f"run_report_shard-{options.shard[0]}.json"
    write_json(out / name, report)
    return report


def prepare_to_folder(volume: SourceVolume, out: Path, options: PreprocessOptions) -> bool:
    """Prepare one volume and write it with its sidecar; True if it was finished already."""
    stem = out / f"sub-{bids_label(volume.participant)}" / "anat" / volume.key
    sidecar = stem.with_name(f"{stem.name}_dseg.json")
    paths = [volume.path, *_used(volume, options.preparation).paths]
    made_from = {
        "Sources": [str(path) for path in paths],
        "InputSHA256": [_hash(path) for path in paths],
        "Alternatives": [str(path) for path in volume.alternatives],
        "Participant": volume.participant,
        "Hemisphere": volume.hemi,
        "Known": volume.known,
        "Parameters": options.preparation.as_dict(),
        "Version": version("foldnorm"),
    }
    if not options.overwrite and sidecar.is_file():
        old = read_json(sidecar)
        if all(old.get(key) == value for key, value in made_from.items()):
            return True
    prepared = prepare_volume(
        volume.path,
        options.preparation,
        hemi=volume.hemi,
        companions=_used(volume, options.preparation),
    )
    _write_prepared(prepared, stem, options.preparation.scheme.name)
    write_json(sidecar, {**made_from, **_measured(prepared, options.preparation)})
    return False


def _used(volume: SourceVolume, preparation: Preparation) -> Companions:
    """Companions that this preparation may read."""
    beside = volume.companions
    labelled = preparation.folds == "auto"
    return Companions(
        beside.folds if labelled else None,
        beside.graph if labelled or preparation.hull == "remove" else None,
        beside.transform if preparation.space == "mni" else None,
    )


def _write_prepared(prepared: Prepared, stem: Path, scheme: str) -> None:
    write_labels(
        stem.with_name(f"{stem.name}_dseg.nii.gz"),
        prepared.classes,
        prepared.affine,
        description=f"foldnorm {scheme}",
    )
    if prepared.folds is not None:
        write_labels(
            stem.with_name(f"{stem.name}_desc-folds_dseg.nii.gz"),
            prepared.folds,
            prepared.affine,
            description="foldnorm fold labels",
        )


def _measured(prepared: Prepared, preparation: Preparation) -> dict[str, Any]:
    names = preparation.scheme.names
    return {
        "VoxelSize": list(prepared.voxel_size),
        "LatticeBox": str(prepared.at),
        "FieldOfView": str(prepared.grid),
        "Hull": prepared.hull,
        "Quality": prepared.quality,
        "VoxelCounts": {name: int((prepared.classes == n).sum()) for n, name in enumerate(names)},
        "FoldLabels": prepared.folds_from,
        "FoldNames": {str(label): name for label, name in prepared.fold_names.items()},
        "FoldSizes": {str(label): round(size, 3) for label, size in prepared.fold_sizes.items()},
    }


def _prepare_all(
    volumes: Sequence[SourceVolume], out: Path, options: PreprocessOptions
) -> tuple[int, list[Problem]]:
    """Prepare in parallel; return how many were finished already, and the failures."""
    results: Iterable[tuple[SourceVolume, str, bool]] = joblib.Parallel(
        n_jobs=options.n_procs, return_as="generator_unordered"
    )(joblib.delayed(_isolated)(volume, out, options) for volume in volumes)
    skipped, problems = 0, []
    hidden = options.quiet or not sys.stderr.isatty()
    for volume, reason, was_finished in tqdm(
        results, desc="prepare", total=len(volumes), unit="volume", disable=hidden
    ):
        skipped += was_finished
        if reason:
            problems.append(Problem(volume.key, reason))
    return skipped, sorted(problems, key=lambda problem: problem.key)


def _isolated(
    volume: SourceVolume, out: Path, options: PreprocessOptions
) -> tuple[SourceVolume, str, bool]:
    """One subject's failure must not end the others: it becomes one line."""
    try:
        return volume, "", prepare_to_folder(volume, out, options)
    except InputError as error:
        return volume, str(error), False
    except OSError as error:
        return volume, f"{error.strerror or error}: {error.filename or out}", False
    except Exception as error:  # ours, not the input's: say where
        frame = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{Path(frame.filename).name}:{frame.lineno}"
        return volume, f"unexpected {type(error).__name__} at {where}: {error}", False


def _check_same_cohort(out: Path, options: PreprocessOptions) -> None:
    """Refuse to mix two preparations in one cohort folder."""
    path = out / DESCRIPTION
    if options.overwrite or not path.is_file():
        return
    recorded = read_json(path).get("Cohort")
    if recorded is None:
        raise InputError(f"not a cohort folder; choose another one to write to: {out}")
    wanted = _pack_options(options, {}).preparation_record()
    differing = same_preparation(recorded["preparation"], wanted)
    if differing:
        raise InputError(
            f"prepared before with another {', '.join(differing)}; choose another folder, or "
            f"--overwrite: {out}"
        )


def _pack_options(options: PreprocessOptions, names: dict[int, str]) -> PackOptions:
    return PackOptions(
        preparation=options.preparation,
        crop=options.crop,
        pad=options.pad,
        frozen_box=options.frozen_box,
        fractions=options.fractions,
        split_seed=options.split_seed,
        fold_names=names,
        refit=options.overwrite,
        n_procs=options.n_procs,
        excluded=frozenset(bids_label(p.removeprefix("sub-")) for p in options.excluded),
    )


def _hash(path: Path) -> str:
    try:
        return sha256(path.read_bytes())
    except FileNotFoundError:
        raise InputError(f"no such file: {path}") from None
