"""Records of a cohort's volumes: rows of its tables, and its description."""

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foldnorm.preprocessing.cohort.duplicates import SameScan
from foldnorm.preprocessing.cohort.layout import Layout
from foldnorm.preprocessing.cohort.options import PreprocessOptions
from foldnorm.preprocessing.cohort.plan import CohortPlan
from foldnorm.preprocessing.cohort.preparation import Preparation
from foldnorm.preprocessing.cohort.prepared_index import PreparedVolume
from foldnorm.preprocessing.cohort.quality import quality_rows
from foldnorm.preprocessing.cohort.split import assign_split
from foldnorm.preprocessing.io.names import bids_label
from foldnorm.preprocessing.io.schemes import LabelScheme
from foldnorm.preprocessing.io.source_volume import is_phantom
from foldnorm.preprocessing.spatial.crop import shifted_affine


def participant_row(volume: PreparedVolume, options: PreprocessOptions) -> dict[str, str]:
    """Row of ``participants.tsv``: who it is, the split, and what the source's table knows."""
    known = {k: str(v) for k, v in volume.sidecar["Known"].items() if k != "split"}
    participant = volume.sidecar["Participant"]
    unit, fractions = split_unit(volume), options.split_fractions
    split = assign_split(unit, seed=options.split_seed, fractions=fractions)
    label = f"sub-{bids_label(participant)}"
    return {
        **known,
        "participant_id": label,
        "hemi": volume.sidecar["Hemisphere"],
        "split": split,
    }


def split_unit(volume: PreparedVolume) -> str:
    """Family of a participant, or the participant; who shares it is in one split."""
    return str(volume.sidecar["Known"].get("family") or volume.sidecar["Participant"])


def quality_of(
    volumes: list[PreparedVolume], scans: Sequence[SameScan], preparation: Preparation
) -> list[dict[str, Any]]:
    """Rows of ``qc.tsv``, one for each volume, with the participants of the same scan."""
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


def describe(
    volumes: list[PreparedVolume],
    layout: Layout,
    plan: CohortPlan,
    fold_names: Mapping[int, str],
) -> dict[str, Any]:
    """Describe a cohort as ``dataset_description.json`` does, under ``Cohort``.

    Args:
        volumes: in the order in which they are packed; at least one.
        layout: of the cohort.
        plan: of it.
        fold_names: label → name of the source.
    """
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
