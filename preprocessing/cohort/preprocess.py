"""A source becomes a cohort folder: prepare every volume, then pack them in one box.

Preparing is the long part. It runs in parallel, and in shards on a cluster, and every input is
read once. What is finished (same input bytes, same parameters) is skipped; what fails is
reported, and the others are finished.
"""

import logging
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, TypeVar

from tqdm import tqdm

from foldnorm.preprocessing.cohort.cohort import DESCRIPTION, RUN_REPORT, Cohort, same_preparation
from foldnorm.preprocessing.cohort.layout import Layout, layout_in
from foldnorm.preprocessing.cohort.pack import Packed, PackOptions, pack, refuse_mixed
from foldnorm.preprocessing.cohort.pictures import montage
from foldnorm.preprocessing.cohort.preparation import Preparation
from foldnorm.preprocessing.cohort.prepare_volume import PreparedArrays, prepare_volume
from foldnorm.preprocessing.cohort.prepared_index import prepared_volumes, source_record
from foldnorm.preprocessing.cohort.split import DEFAULT_FRACTIONS, check_fractions
from foldnorm.preprocessing.core.errors import InputError
from foldnorm.preprocessing.core.files import (
    json_or_nothing,
    read_json,
    sha256_of,
    write_bytes,
    write_json,
)
from foldnorm.preprocessing.core.isolation import isolated_map
from foldnorm.preprocessing.io.schemes import LabelScheme, Rule, load_scheme
from foldnorm.preprocessing.io.sources import (
    Problem,
    Source,
    SourceVolume,
    bids_label,
    find_volumes,
    origin_of,
    read_excluded,
    read_fold_names,
    source_warnings,
)
from foldnorm.preprocessing.io.volumes import write_labels
from foldnorm.preprocessing.spatial.crop import pad_shape
from foldnorm.preprocessing.spatial.crop_spec import CropSpec
from foldnorm.preprocessing.spatial.regions import read_regions

LOG = logging.getLogger(__name__)
Options = TypeVar("Options")
TUPLES = {"hemis", "participants", "prefer", "fractions"}  # options that may be given as lists
REPORT_OF_SHARD = "run_report_shard-{}.json"


@dataclass(frozen=True)
class PreprocessOptions:
    """Options of `preprocess`.

    Attributes:
        preparation: what is done to each volume.
        crop: which box is packed.
        pad: shape of the box: ``none``, ``cubic``, ``multiple:N`` or ``I,J,K``.
        off_mask: name of the class that what lies off a region's mask becomes.
        mix_origins: volumes of different makers may be in one cohort.
        frozen: layout of another cohort, to be laid out like it; `crop` and `pad` are then its own.
        hemis: sides to keep; all if empty.
        participants: ids to keep; all if empty.
        excluded: ids to leave out.
        prefer: acquisitions, analyses or fold sessions that are taken before others.
        fractions: shares of training, validation and test.
        split_seed: of the hash that splits.
        shard: (number, of how many), from 1: prepare only this part, and do not pack.
        gather: prepare nothing: pack what shards have prepared, and name what they have not.
        drop_duplicates: of scans that are there under several ids, keep the first.
        n_procs: processes.
        overwrite: redo what is finished, and fit the box anew.
        quiet: no progress bar.
    """

    preparation: Preparation
    crop: CropSpec = field(default_factory=CropSpec)
    pad: str = "none"
    off_mask: str | None = None
    mix_origins: bool = False
    frozen: Layout | None = None
    hemis: tuple[str, ...] = ()
    participants: tuple[str, ...] = ()
    excluded: frozenset[str] = frozenset()
    prefer: tuple[str, ...] = ()
    fractions: tuple[float, ...] = DEFAULT_FRACTIONS
    split_seed: int = 0
    shard: tuple[int, int] | None = None
    gather: bool = False
    drop_duplicates: bool = False
    n_procs: int = 1
    overwrite: bool = False
    quiet: bool = False

    def __post_init__(self) -> None:
        names = self.preparation.scheme.names
        if self.off_mask is not None and self.off_mask not in names:
            raise InputError(
                f"--outside-class: expected one of {', '.join(names)}, got {self.off_mask!r}"
            )
        if self.off_mask is not None and self.crop.kind not in ("region", "mask"):
            raise InputError("--outside-class needs a region: --crop region:NAME or mask:FILE")
        if self.gather and self.shard is not None:
            raise InputError("--finalize packs all shards; leave --shard out")


def options_like(
    folder: Path, *, folds: Literal["auto", "none"] = "auto", **others: Any
) -> PreprocessOptions:
    """Options that prepare volumes as those of a cohort, or of an exported model, were.

    Args:
        folder: of the cohort or model.
        folds: whether folds are labelled; that is no part of what volumes look like.
        others: the options that a cohort does not fix.
    """
    folder = layout_in(folder)
    described = Cohort.describe(folder)["Cohort"]["preparation"]
    return PreprocessOptions(
        preparation=replace(Preparation.from_dict(described), folds=folds),
        crop=CropSpec.from_record(described),
        pad=described["pad"],
        off_mask=described["off_mask"],
        frozen=Layout.from_cohort(folder),
        **others,
    )


def read_options(
    *,
    like: str | Path | None = None,
    scheme: LabelScheme | str | Path = "skeleton",
    rule: Rule | None = None,
    pair: LabelScheme | str | Path | None = None,
    crop: CropSpec | str = "cohort",
    regions: str | Path | None = None,
    qc: str | Path | None = None,
    **others: Any,
) -> PreprocessOptions:
    """Options as a command line or a notebook gives them: names of files instead of what they hold.

    Args:
        like: cohort, or exported model, whose volumes and box these are to be like; then only
            options that it does not fix may be given.
        scheme: label scheme, its name, or a YAML file.
        rule: of the scheme, instead of its own.
        pair: scheme of a second volume of each hemisphere, likewise.
        crop: which box is packed, as ``--crop`` takes it.
        regions: YAML file of regions that it may name.
        qc: table of who is left out.
        others: attributes of `Preparation` and of `PreprocessOptions`.

    Raises:
        InputError: there is no such option, or it does not suit.
    """
    unknown = set(others) - {
        f.name for kind in (Preparation, PreprocessOptions) for f in fields(kind)
    }
    if unknown:
        raise InputError(f"preprocess has no option {sorted(unknown)[0]!r}")
    if qc is not None:
        others["excluded"] = frozenset(read_excluded(Path(qc)))
    for name in TUPLES & set(others):
        value = others[name]
        others[name] = (value,) if isinstance(value, str) else tuple(value)
    of_volumes = {f.name: others.pop(f.name) for f in fields(Preparation) if f.name in others}
    if like is not None:
        folds = of_volumes.pop("folds", "auto")
        if of_volumes:
            raise InputError(f"{sorted(of_volumes)[0]} is that of the cohort to be like: {like}")
        return options_like(Path(like), folds=folds, **others)
    if of_volumes.get("factor") is not None:
        of_volumes.setdefault("voxel_size", None)
    if "voxel_size" in of_volumes:
        of_volumes["voxel_size"] = _voxel_size(of_volumes["voxel_size"])
    own, other = (
        given if given is None or isinstance(given, LabelScheme) else load_scheme(str(given))
        for given in (scheme, pair)
    )
    assert own is not None
    own_regions = read_regions(None if regions is None else Path(regions))
    return PreprocessOptions(
        preparation=Preparation(own.with_rule(rule) if rule else own, pair=other, **of_volumes),
        crop=CropSpec.parse(crop, own_regions) if isinstance(crop, str) else crop,
        **others,
    )


def _voxel_size(value: float | str | None) -> float | None:
    """Millimetres, or None for ``native``."""
    try:
        return None if value in (None, "native") else float(value)
    except ValueError:
        raise InputError(f"--voxel-size: expected mm or native, got {value!r}") from None


def preprocess(sources: Sequence[Source], out: Path, options: PreprocessOptions) -> dict[str, Any]:
    """Turn sources into a cohort folder.

    Returns:
        The run report, also written to ``run_report.json``: numbers of volumes done, skipped and
        failed, and why each of the latter did; scans that are there twice, and which participants
        were left out for that; warnings, which are logged too.

    Raises:
        InputError: nothing can be done at all (no volume, bad parameters).
    """
    begin = time.perf_counter()
    check_fractions(options.fractions)
    pad_shape((1, 1, 1), options.pad)  # refused before the long part, not after it
    _check_same_cohort(out, options)
    preparation = options.preparation
    volumes, problems = find_volumes(
        sources,
        preparation.scheme.stem,
        pair_stem=preparation.pair.stem if preparation.pair else "",
        hemis=options.hemis,
        participants=options.participants,
        excluded=options.excluded,
        prefer=options.prefer,
        whole_brain=preparation.whole_brain,
    )
    if not options.mix_origins:
        refuse_mixed([origin_of(volume) for volume in volumes])
    names = read_fold_names(sources)
    if names:
        options.crop.labels(names)  # a region that nothing is named after is refused here too
    if options.shard is not None:
        number, of = options.shard
        volumes = volumes[number - 1 :: of]
    if options.gather:
        skipped, failed = _prepared_by_shards(volumes, out)
    else:
        skipped, failed = _prepare_all(volumes, out, options)
    problems += failed
    packed = Packed()
    if options.shard is None:
        packed = pack(out, _pack_options(options, names))
        problems += packed.problems
    for line in packed.warnings:
        LOG.warning("%s", line)
    failed_keys = {problem.key for problem in problems}
    report = {
        "version": version("foldnorm"),
        "done": sum(volume.key not in failed_keys for volume in volumes),
        "skipped": skipped,
        "excluded": sorted(options.excluded),
        "failed": [{"volume": p.key, "reason": p.reason} for p in problems],
        "duplicates": [asdict(scan) for scan in packed.same_scans],
        "dropped": packed.dropped,
        "warnings": packed.warnings,
        "seconds": round(time.perf_counter() - begin, 2),
        "shard": None if options.shard is None else list(options.shard),
    }
    write_report(out, report)
    return report


def write_report(out: Path, report: Mapping[str, Any]) -> None:
    """Write the report of a run, or of a shard, into the cohort folder."""
    shard = report["shard"]
    write_json(out / (REPORT_OF_SHARD.format(shard[0]) if shard else RUN_REPORT), report)


def prepare_to_folder(volume: SourceVolume, out: Path, options: PreprocessOptions) -> bool:
    """Prepare one volume and write it with its sidecar; True if it was finished already."""
    preparation = options.preparation
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
    if not options.overwrite and sidecar.is_file():
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
    labelled = preparation.folds == "auto"
    paths = [
        volume.path,
        beside.folds if labelled else None,
        beside.graph if labelled or preparation.hull == "remove" else None,
        beside.transform if preparation.space == "mni" else None,
        beside.pair if preparation.pair is not None else None,
    ]
    read = list(dict.fromkeys(path for path in paths if path is not None))
    return read if volume.right is None else read + _read_by(preparation, volume.right)


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
    names = preparation.scheme.names
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
        "FoldSizes": {str(label): round(size, 3) for label, size in prepared.fold_sizes.items()},
    }


def _prepare_all(
    volumes: Sequence[SourceVolume], out: Path, options: PreprocessOptions
) -> tuple[int, list[Problem]]:
    """Prepare in parallel; return how many were finished already, and the failures."""
    skipped, problems = 0, []
    hidden = options.quiet or not sys.stderr.isatty()
    work = partial(prepare_to_folder, out=out, options=options)
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
        off_mask=options.off_mask,
        mix_origins=options.mix_origins,
        frozen=options.frozen,
        fractions=options.fractions,
        split_seed=options.split_seed,
        fold_names=names,
        refit=options.overwrite,
        drop_duplicates=options.drop_duplicates,
        n_procs=max(options.n_procs, 1),
        excluded=frozenset(bids_label(p.removeprefix("sub-")) for p in options.excluded),
    )
