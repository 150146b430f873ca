"""Volumes that preparation has finished, known by their sidecars."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from sys import intern
from typing import Any

from foldnorm.preprocessing.cohort.cohort import row_key
from foldnorm.preprocessing.core.files import Record, read_json
from foldnorm.preprocessing.io.fold_graph import BRAINVISA
from foldnorm.preprocessing.io.source_volume import RIGHT_LABELS, Companions, SourceVolume
from foldnorm.preprocessing.io.volumes import LabelVolume, mirror_left_right, read_labels
from foldnorm.preprocessing.spatial.crop import Box

OF_FOLDS = {"FoldNames", "FoldGyri", "FoldSizes"}  # tables of a sidecar: its bulk, the same words


@dataclass(frozen=True)
class PreparedVolume:
    """Volume that preparation has finished, known by its sidecar."""

    key: str
    stem: Path
    sidecar: Mapping[str, Any]

    @property
    def bounds(self) -> Box:
        """Lattice box of the voxels that the volume holds."""
        return Box.parse(self.sidecar["LatticeBox"])

    @property
    def field_of_view(self) -> Box:
        """Lattice box of the whole field of view."""
        return Box.parse(self.sidecar["FieldOfView"])

    @property
    def warnings(self) -> list[str]:
        """Warnings of its source: of who made that, then of the files as they were read."""
        return [*self.sidecar.get("Warnings", []), *self.sidecar.get("FileWarnings", [])]

    @property
    def is_mirrored(self) -> bool:
        """True if the lattice of this volume runs from right to left."""
        return self.sidecar["Parameters"]["mirror_right"] and self.sidecar["Hemisphere"] == "R"

    def read(self, suffix: str) -> LabelVolume:
        """Read the volume in lattice order."""
        volume = read_labels(self.stem.with_name(f"{self.stem.name}{suffix}.nii.gz"))
        return mirror_left_right(volume) if self.is_mirrored else volume

    def fold_names(self, of_source: Mapping[int, str]) -> Mapping[int, str]:
        """Label → sulcus: from its own fold graph, or those of the source."""
        own = {int(n): name for n, name in self.sidecar["FoldNames"].items()}
        if own or not self.sidecar["Parameters"]["whole_brain"]:
            return own or of_source
        right = {label + RIGHT_LABELS: f"{name}_right" for label, name in of_source.items()}
        return {**of_source, **right}

    @property
    def fold_gyri(self) -> Mapping[int, str]:
        """Label → gyrus, of folds without a name that lie inside one; empty where none is known."""
        return {int(n): gyrus for n, gyrus in self.sidecar.get("FoldGyri", {}).items()}

    @property
    def fold_vocabulary(self) -> str:
        """Whose names its own folds have; empty if they have none of their own."""
        # Sidecars of earlier versions, where only fold graphs gave names, do not say it.
        return str(
            self.sidecar.get("FoldVocabulary", BRAINVISA if self.sidecar["FoldNames"] else "")
        )

    @property
    def source(self) -> SourceVolume:
        """Source volume that this one was made of, as preprocessing found it."""
        return source_of(self.sidecar)

    def has_folds(self) -> bool:
        """Return whether the volume has fold labels."""
        return self.stem.with_name(f"{self.stem.name}_desc-folds_dseg.nii.gz").is_file()


def prepared_volumes(out: Path) -> list[PreparedVolume]:
    """List the prepared volumes of a cohort folder, sorted by participant and hemisphere."""
    volumes = []
    shared: dict[str, Any] = {}  # parameters, the bulk of a sidecar, are the same in all
    for path in sorted(out.glob("sub-*/anat/*_dseg.json")):
        key, sidecar = path.name.removesuffix("_dseg.json"), read_json(path)
        parameters = sidecar["Parameters"]
        sidecar["Parameters"] = shared.setdefault(json.dumps(parameters), parameters)
        for table in OF_FOLDS & sidecar.keys():
            words = {
                intern(label): intern(own) if isinstance(own, str) else own
                for label, own in sidecar[table].items()
            }
            sidecar[table] = Record(words, path)
        volumes.append(PreparedVolume(key, path.with_name(key), sidecar))
    return volumes


def prepared_volume(out: Path, row: Mapping[str, str]) -> PreparedVolume:
    """Return the prepared volume of a row of ``participants.tsv``.

    Raises:
        InputError: the cohort holds no file of this volume alone, as altered cohorts hold none.
    """
    stem = out / row["participant_id"] / "anat" / row_key(row)
    return PreparedVolume(stem.name, stem, read_json(stem.with_name(f"{stem.name}_dseg.json")))


def source_record(source: SourceVolume) -> dict[str, Any]:
    """Describe a source volume for a sidecar; inverse of `source_of`."""
    record = {
        "Participant": source.participant,
        "Hemisphere": source.hemi,
        "Volume": str(source.path),
        "Companions": source.companions.as_dict(),
        "Alternatives": [str(path) for path in source.alternatives],
        "Known": source.known,
    }
    if source.assume is not None:
        record["Assumed"] = source.assume
    if source.right is not None:
        record["Right"] = source_record(source.right)
    return record


def source_of(record: Mapping[str, Any]) -> SourceVolume:
    """Read the source volume from a sidecar; inverse of `source_record`."""
    companions = {kind: Path(path) for kind, path in record["Companions"].items()}
    return SourceVolume(
        record["Participant"],
        record["Hemisphere"],
        Path(record["Volume"]),
        Companions(**companions),
        dict(record["Known"]),
        tuple(Path(path) for path in record["Alternatives"]),
        source_of(record["Right"]) if "Right" in record else None,
        record.get("Assumed"),
    )
