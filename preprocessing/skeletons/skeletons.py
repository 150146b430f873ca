"""Segmentations become a source of skeletons, laid out as Morphologist lays out its own.

For each hemisphere: the skeleton with Morphologist's values, the grey-white volume on the same
grid, hull, fold labels, depth, bottom lines, and a sidecar that says what it was made of and what
it holds. Everything that reads a Morphologist tree reads this one.
"""

import logging
import sys
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from foldnorm.preprocessing.core.choices import Orientation
from foldnorm.preprocessing.core.counts import counted
from foldnorm.preprocessing.core.errors import InputError
from foldnorm.preprocessing.core.file_names import RUN_REPORT
from foldnorm.preprocessing.core.files import json_or_nothing, sha256_of, write_json
from foldnorm.preprocessing.core.isolation import isolated_map
from foldnorm.preprocessing.core.problems import Problem
from foldnorm.preprocessing.io.fold_sidecar import FoldSidecar
from foldnorm.preprocessing.io.layouts import SEGMENTATION
from foldnorm.preprocessing.io.names import bids_label
from foldnorm.preprocessing.io.source_volume import (
    FOLDS_STEM,
    REGISTRATION_FOLDER,
    SEGMENTATION_FOLDER,
    TRANSFORM_NAME,
    SourceVolume,
)
from foldnorm.preprocessing.io.sources import Source, find_volumes, refuse_own_source
from foldnorm.preprocessing.io.volumes import (
    LabelVolume,
    read_labels,
    voxel_size_of,
    write_labels,
    write_map,
)
from foldnorm.preprocessing.naming.gyri import (
    Gyri,
    find_gyri,
    name_folds,
    parcellations,
)
from foldnorm.preprocessing.skeletons.alignment import (
    Alignment,
    Template,
    align_to_structures,
    align_to_template,
)
from foldnorm.preprocessing.skeletons.fold_measures import fold_measures, named_measures
from foldnorm.preprocessing.skeletons.quality import skeleton_warnings, tissue_warnings
from foldnorm.preprocessing.skeletons.segmentation import (
    FREESURFER,
    SegmentationScheme,
    SegmentedHemisphere,
    guess_scheme,
    hemispheres,
)
from foldnorm.preprocessing.skeletons.skeletonise import Recipe, Skeleton, skeletonise
from foldnorm.preprocessing.spatial.crop import Box, bounding_box, shape_of, shifted_affine
from foldnorm.preprocessing.spatial.space import voxel_to_mni, write_world_to_mni
from foldnorm.preprocessing.topology.simple_surfaces import geodesic_depth, simple_surfaces
from foldnorm.preprocessing.topology.topology import BORDER

MARGIN = 12  # voxels around the brain: the hull is no more than a few away
GREY, WHITE = 100, 200
ORIGIN = "foldnorm skeletonise"
GYRI = (
    "Gyri"  # key of a sidecar: whose gyri name the folds, if any; not there before folds had names
)
Made = Literal["now", "before", "before names"]
LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class SkeletoniseOptions:
    """Options of `skeletonise_sources`.

    Attributes:
        scheme: what labels mean; found by the labels if None.
        recipe: of the skeleton.
        align: how a segmentation without a transform finds its way to MNI space: by its deep
            structures if labels name them (``auto``), by a template, or not at all.
        hemis: sides to make; both if empty.
        participants: ids to keep; all if empty.
        assume: directions that voxels run in, where a header does not say.
        n_procs: processes.
        overwrite: redo what is finished.
        quiet: no progress bar.
    """

    scheme: SegmentationScheme | None = None
    recipe: Recipe = field(default_factory=Recipe)
    align: Literal["auto", "none"] | Template = "auto"
    hemis: tuple[str, ...] = ()
    participants: tuple[str, ...] = ()
    assume: Orientation | None = None
    n_procs: int = 1
    overwrite: bool = False
    quiet: bool = False


def skeletonise_sources(
    sources: Sequence[Source], out: Path, options: SkeletoniseOptions
) -> dict[str, Any]:
    """Make the skeletons of every segmentation of ``sources``.

    Returns:
        The run report, also written to ``run_report.json``.

    Raises:
        InputError: there is no segmentation at all.
    """
    begin = time.perf_counter()
    refuse_own_source((source.path for source in sources), out)
    sought = find_volumes(
        sources,
        SEGMENTATION,
        hemis=options.hemis,
        participants=options.participants,
        assume=options.assume,
    )
    sought.log()
    volumes, problems = sought.items, sought.problems
    work = partial(skeletonise_to_folder, out=out, options=options)
    outcomes = isolated_map(work, volumes, options.n_procs)
    hidden = options.quiet or not sys.stderr.isatty()
    made: Counter[Made] = Counter()
    for outcome in tqdm(
        outcomes, desc="skeletonise", total=len(volumes), unit="brain", disable=hidden
    ):
        if outcome.reason:
            problems.append(Problem(outcome.item.key, outcome.reason))
        else:
            made[outcome.result] += 1
    if made["before names"]:
        LOG.warning(
            "%s made when folds got no names, though gyri are there: --overwrite names them",
            counted(made["before names"], "brain was", "brains were"),
        )
    failed = sorted(problems, key=lambda problem: problem.key)
    warned = {
        path.stem: found
        for path in sorted(out.glob(f"*/{SEGMENTATION_FOLDER}/?skeleton_*.json"))
        if (found := json_or_nothing(path).get("Warnings"))
    }
    report = {
        "version": version("foldnorm"),
        "done": len(volumes) - sum(v.key in {p.key for p in failed} for v in volumes),
        "skipped": made["before"] + made["before names"],
        "failed": [{"volume": p.key, "reason": p.reason} for p in failed],
        "warnings": warned,
        **sought.record(),
        "seconds": round(time.perf_counter() - begin, 2),
    }
    write_json(out / RUN_REPORT, report)
    return report


def skeletonise_to_folder(source: SourceVolume, out: Path, options: SkeletoniseOptions) -> Made:
    """Make both hemispheres of one segmentation, or one, and say if all was finished before.

    Then also if that was before folds got names, and its gyri could name them.

    Raises:
        InputError: the segmentation cannot be used.
    """
    name = bids_label(source.participant)
    folder = out / name / SEGMENTATION_FOLDER
    wanted = [source.hemi] if source.hemi else list(options.hemis or "LR")
    transform = source.companions.transform
    paths = [source.path] if transform is None else [source.path, transform]
    made_from = {
        "Origin": ORIGIN,
        "Sources": [str(path) for path in paths],
        "InputSHA256": [sha256_of(path) for path in paths],
        "Recipe": asdict(options.recipe),
        "Labels": None if options.scheme is None else options.scheme.as_dict(),
        "Align": options.align if isinstance(options.align, str) else options.align.sha256,
        **({"Assumed": source.assume} if source.assume else {}),
        "Version": version("foldnorm"),
    }
    sidecars = {side: folder / f"{side}skeleton_{name}.json" for side in wanted}
    if not options.overwrite and all(_is_finished(path, made_from) for path in sidecars.values()):
        is_nameable = _could_be_named(source, sidecars.values(), options.scheme)
        return "before names" if is_nameable else "before"
    volume = read_labels(source.path, assume=source.assume)
    found = hemispheres(volume, options.scheme, side=source.hemi, wanted=wanted)
    alignment, unaligned = _alignment(source, volume, found, options)
    # Both sides of a brain lie on one grid; a hemisphere's own file keeps its own.
    box = _box(found, volume) if not source.hemi else Box((0, 0, 0), shape_of(volume.data))
    affine = shifted_affine(volume.affine, box.start)
    for sidecar in sidecars.values():
        sidecar.unlink(missing_ok=True)
    # A hemisphere's own file has its own transform: the other side may lie on another grid.
    path = out / name / REGISTRATION_FOLDER / TRANSFORM_NAME.format(source.hemi, name)
    path.unlink(missing_ok=True)
    if alignment is not None:
        write_world_to_mni(path, alignment.world_to_mni, affine, box.shape)
    gyri = _gyri(volume, found, box, options.scheme)
    for hemisphere in found:
        sidecar = sidecars[hemisphere.side]
        own_gyri, said = gyri.get(hemisphere.side, (None, []))
        measured = _make(hemisphere, box, affine, sidecar, own_gyri, options.recipe)
        measured["Alignment"] = None if alignment is None else alignment.record
        measured["Warnings"] += [*said, *volume.warnings, *unaligned]
        measured[GYRI] = None if own_gyri is None else own_gyri.correspondence.vocabulary
        write_json(sidecar, {**made_from, **measured})
    return "now"


def _could_be_named(
    source: SourceVolume, sidecars: Iterable[Path], scheme: SegmentationScheme | None
) -> bool:
    """Return whether gyri could name folds that were made before folds got names."""
    if scheme not in (None, FREESURFER) or all(map(_was_to_be_named, sidecars)):
        return False
    return any(parcellations(read_labels(source.path, assume=source.assume).data).values())


def _was_to_be_named(sidecar: Path) -> bool:
    """Return whether a skeleton was made when folds got names, if there were gyri."""
    if GYRI in json_or_nothing(sidecar):
        return True
    folds = sidecar.name.replace("skeleton", FOLDS_STEM, 1).replace(".json", ".nii.gz")
    known = FoldSidecar.beside(sidecar.with_name(folds))
    return known is not None and bool(known.vocabulary)


def _gyri(
    volume: LabelVolume,
    found: Sequence[SegmentedHemisphere],
    box: Box,
    scheme: SegmentationScheme | None,
) -> dict[str, tuple[Gyri | None, list[str]]]:
    """Return the gyri of each side, if the labels are FreeSurfer's and there are any."""
    if scheme not in (None, FREESURFER):
        return {}
    whites = {hemisphere.side: hemisphere.white[box.slices] for hemisphere in found}
    return find_gyri(volume.data[box.slices], whites)


def _alignment(
    source: SourceVolume,
    volume: LabelVolume,
    found: Sequence[SegmentedHemisphere],
    options: SkeletoniseOptions,
) -> tuple[Alignment | None, list[str]]:
    """Return the alignment to MNI space, None if there is none, and a warning if it failed."""
    transform = source.companions.transform
    if transform is not None:
        to_mni = voxel_to_mni(transform, shape_of(volume.data), volume.affine, volume.voxel_size)
        return Alignment(to_mni @ np.linalg.inv(volume.affine), {"Method": "given"}), []
    try:
        if isinstance(options.align, Template):
            return align_to_template(found, volume.affine, options.align, volume.path), []
        named = (options.scheme or guess_scheme(volume)).name == FREESURFER.name
        return (align_to_structures(volume) if named and options.align == "auto" else None), []
    except InputError as error:
        return None, [f"no way to MNI space: {error}"]


def _make(
    hemisphere: SegmentedHemisphere,
    box: Box,
    affine: NDArray[np.float64],
    sidecar: Path,
    gyri: Gyri | None,
    recipe: Recipe,
) -> dict[str, Any]:
    """Write the volumes of one hemisphere; return what its sidecar says of them."""
    side, name = hemisphere.side, sidecar.stem.partition("_")[2]
    grey, white = hemisphere.grey[box.slices], hemisphere.white[box.slices]
    size = voxel_size_of(affine)
    skeleton = skeletonise(grey, white, size, recipe)
    voxels = skeleton.mask
    labels = simple_surfaces(voxels, skeleton.hull)
    depth = geodesic_depth(voxels, skeleton.hull, size)
    bottom = (skeleton.values == BORDER) & (labels > 0)
    tissue = np.where(grey, GREY, np.where(white, WHITE, 0)).astype(np.uint8)
    # Islands of white matter are errors that the recipe leaves out, so a sheet may pass through
    # one. The pair says the same: a skeleton never lies on white matter.
    tissue[voxels & (tissue == WHITE)] = GREY
    volumes = {
        "skeleton": skeleton.values,
        "grey_white": tissue,
        "hull": skeleton.hull.astype(np.uint8),
        FOLDS_STEM: labels,
        "bottom": bottom.astype(np.uint8),
    }
    for stem, data in volumes.items():
        path = sidecar.with_name(f"{side}{stem}_{name}.nii.gz")
        write_labels(path, data, affine, description=f"foldnorm {stem}")
    path = sidecar.with_name(f"{side}depth_{name}.nii.gz")
    write_map(path, depth, affine, description="foldnorm geodesic depth, mm")
    warnings = [
        *hemisphere.warnings,
        *tissue_warnings(grey, white, size),
        *skeleton_warnings(skeleton, labels, grey, white, size),
    ]
    # In a file of its own: the skeleton's sidecar is looked at for every volume of a run.
    folds = fold_measures(labels, skeleton.values, depth, affine)
    vocabulary = ""
    if gyri is not None:
        vocabulary = gyri.correspondence.vocabulary
        folds = named_measures(folds, name_folds(gyri, labels, size), side)
    FoldSidecar(sidecar.with_name(f"{side}{FOLDS_STEM}_{name}.json"), folds, vocabulary).write()
    return {"Topology": _topology(skeleton), "Warnings": warnings}


def _topology(skeleton: Skeleton) -> dict[str, int]:
    return {
        "Components": skeleton.components,
        "EulerNumber": skeleton.euler,
        "Blocks": skeleton.blocks,
        "Voxels": int(np.count_nonzero(skeleton.mask)),
        "HullVoxels": int(np.count_nonzero(skeleton.hull & skeleton.mask)),
    }


def _box(found: Sequence[SegmentedHemisphere], volume: LabelVolume) -> Box:
    """Box of all hemispheres with room for the hull, within the volume."""
    held = [bounding_box(h.grey | h.white) for h in found]
    whole = held[0]
    assert whole is not None
    for box in held[1:]:
        assert box is not None
        whole = whole.union(box)
    grown = whole.grown(MARGIN)
    low = tuple(max(a, 0) for a in grown.start)
    high = tuple(min(b, side) for b, side in zip(grown.stop, volume.data.shape, strict=True))
    return Box((low[0], low[1], low[2]), (high[0], high[1], high[2]))


def _is_finished(sidecar: Path, made_from: dict[str, Any]) -> bool:
    old = json_or_nothing(sidecar)
    return all(old.get(key) == value for key, value in made_from.items())
