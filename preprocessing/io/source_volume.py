"""A volume of a source: whose it is, what goes with it, and what is said of it beside it."""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from foldnorm.preprocessing.core.choices import Orientation
from foldnorm.preprocessing.core.files import read_json
from foldnorm.preprocessing.io.fold_graph import BRAINVISA
from foldnorm.preprocessing.io.fold_sidecar import FoldSidecar
from foldnorm.preprocessing.io.names import MORPHOLOGIST, bids_label
from foldnorm.preprocessing.io.volumes import NIFTI_SUFFIXES, sidecar_path, volume_stem

FOLDS_STEM = "folds"  # fold labels lie beside the skeleton: Lfolds_<subject>.nii.gz
SEGMENTATION_FOLDER = Path("t1mri/default_acquisition/default_analysis/segmentation")
REGISTRATION_FOLDER = Path("t1mri/default_acquisition/registration")
# Of a side alone, which has a grid of its own, or of the brain (empty): side, participant.
TRANSFORM_NAME = "{0}RawT1-{1}_default_acquisition_TO_Talairach-MNI.trm"
COMPANIONS = ("folds", "graph", "transform", "pair")
RIGHT_LABELS = 10_000  # what fold labels of the right are moved up by in a whole brain


@dataclass(frozen=True)
class Companions:
    """Files that go with a volume.

    Attributes:
        folds: fold labels on the same grid.
        graph: fold graph.
        transform: to MNI space, see `foldnorm.preprocessing.spatial.space.voxel_to_mni`.
        pair: another volume of the same hemisphere on the same voxel grid.
    """

    folds: Path | None = None
    graph: Path | None = None
    transform: Path | None = None
    pair: Path | None = None

    def as_dict(self) -> dict[str, str]:
        """Return the paths of the companions that exist, by kind."""
        paths = {kind: getattr(self, kind) for kind in COMPANIONS}
        return {kind: str(path) for kind, path in paths.items() if path is not None}


@dataclass(frozen=True)
class SourceVolume:
    """One volume to preprocess.

    Attributes:
        participant: id, always a string, without the ``sub-`` of BIDS.
        hemi: ``L``, ``R``, or empty where the source does not say.
        path: the label volume.
        companions: what goes with it.
        known: what the source's table says of the participant (family, sex, age, …).
        alternatives: volumes of the same hemisphere that were not chosen.
        right: of a whole brain, the right hemisphere; this is then the left one, and ``hemi``
            is empty.
        assume: directions that voxels run in, where the header of a file does not say.
    """

    participant: str
    hemi: str
    path: Path
    companions: Companions = field(default_factory=Companions)
    known: dict[str, str] = field(default_factory=dict)
    alternatives: tuple[Path, ...] = ()
    right: "SourceVolume | None" = None
    assume: Orientation | None = None

    @property
    def key(self) -> str:
        """Name of the volume in a cohort: ``sub-100206_hemi-L``."""
        return f"sub-{bids_label(self.participant)}" + (f"_hemi-{self.hemi}" if self.hemi else "")


def companions_beside(path: Path, hemi: str, pair_stem: str, prefer: Sequence[str]) -> Companions:
    """Find what Morphologist wrote for a volume of ``<acquisition>/<analysis>/segmentation``.

    Of several fold graphs the newest version of the format, and there a session by hand before
    automatic ones, then the first by name. The transform is that of the registration; without
    it, the graph's own.
    """
    match = MORPHOLOGIST.fullmatch(volume_stem(path))
    participant = match["participant"] if match else volume_stem(path).partition("_")[2]
    folds = path.with_name(f"{hemi}{FOLDS_STEM}_{participant}.nii.gz")
    analysis = path.parent.parent
    graphs = [
        graph
        for graph in analysis.glob(f"folds/*/*/{hemi}{participant}_*.arg")
        if graph.stem == f"{hemi}{participant}_{graph.parent.name}"
    ]
    graphs.sort(key=lambda graph: ("manual" not in graph.parent.name, graph.parent.name))
    graphs.sort(key=lambda graph: _version(graph.parent.parent.name), reverse=True)
    graphs.sort(key=lambda graph: graph.parent.name not in prefer)
    graph = graphs[0] if graphs else None
    registered = [  # of the brain, or of this side alone, which has a grid of its own
        *sorted(analysis.parent.glob("registration/RawT1-*_TO_Talairach-MNI.trm")),
        *sorted(analysis.parent.glob(f"registration/{hemi}RawT1-*_TO_Talairach-MNI.trm")),
    ]
    pairs = [path.with_name(f"{hemi}{pair_stem}_{participant}{s}") for s in NIFTI_SUFFIXES]
    return Companions(
        folds if os.path.lexists(folds) else None,  # a dangling link is said when it is read
        graph,
        registered[0] if registered else graph,
        next((pair for pair in pairs if pair_stem and os.path.lexists(pair)), None),
    )


def _version(name: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", name)]


def origin_of(volume: SourceVolume) -> str:
    """Return who made a volume: ``phantom``, its sidecar's ``Origin``, Morphologist or unknown.

    Skeletons of different makers differ in their counts, so they must not be mixed unnoticed.
    """
    if is_phantom(volume.known):
        return "phantom"
    said = _sidecar_of(volume).get("Origin")
    if isinstance(said, str):
        return said
    in_tree = volume.path.parent.name == SEGMENTATION_FOLDER.name
    return "Morphologist" if in_tree else "unknown"


def is_phantom(known: Mapping[str, Any]) -> bool:
    """Return whether a table says of a volume that a program drew it, as `foldnorm phantom` does.

    Tables of people may have such a column too, of what was scanned: ``0``, ``no``.
    """
    return str(known.get("phantom", "")).lower() == "true"


def vocabulary_of(volume: SourceVolume) -> str:
    """Return whose names the folds of a volume have; empty if nothing beside it names them."""
    beside = volume.companions
    if beside.folds is not None:
        sidecar = FoldSidecar.beside(beside.folds)
        return "" if sidecar is None else sidecar.vocabulary
    return "" if beside.graph is None else BRAINVISA


def source_warnings(volume: SourceVolume) -> list[str]:
    """Warnings that a volume's own sidecar holds, as `skeletonise` writes them."""
    said = _sidecar_of(volume).get("Warnings")
    warnings = [str(line) for line in said] if isinstance(said, list) else []
    if volume.right is None:
        return warnings
    right = source_warnings(volume.right)
    return [f"left: {line}" for line in warnings] + [f"right: {line}" for line in right]


def _sidecar_of(volume: SourceVolume) -> dict[str, Any]:
    path = sidecar_path(volume.path)
    return read_json(path) if path.is_file() else {}
