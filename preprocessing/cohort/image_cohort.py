"""A source of images becomes a cohort folder: grey values, all of one size, packed.

Stored as uint8 or uint16; a recorded rule says what lowest and highest mean, and models see them
from −1 to 1.
"""

import hashlib
import logging
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from foldnorm.preprocessing.cohort.cohort import DESCRIPTION, VOLUMES
from foldnorm.preprocessing.cohort.cohort_files import write_description, write_participants
from foldnorm.preprocessing.cohort.image_preparation import (
    ImagePreparation,
    PreparedImage,
    completed,
    prepare_image,
)
from foldnorm.preprocessing.cohort.images import ImageFile
from foldnorm.preprocessing.cohort.preprocess import write_report
from foldnorm.preprocessing.cohort.split import assign_split, check_fractions
from foldnorm.preprocessing.core.arrays import write_array
from foldnorm.preprocessing.core.counts import listed
from foldnorm.preprocessing.core.errors import InputError
from foldnorm.preprocessing.core.file_names import RUN_REPORT
from foldnorm.preprocessing.core.files import json_or_nothing, read_json, sha256_of, threaded_map
from foldnorm.preprocessing.core.isolation import isolated
from foldnorm.preprocessing.core.problems import Problem
from foldnorm.preprocessing.io.sources import Findings

LOG = logging.getLogger(__name__)


@dataclass
class _Packed:
    """Images of a cohort as they were packed.

    Attributes:
        done: number of them.
        problems: those that were left out, and why.
        warnings: what is unusual about files → keys of the images it is true of.
    """

    done: int = 0
    problems: list[Problem] = field(default_factory=list)
    warnings: dict[str, list[str]] = field(default_factory=dict)


def write_image_cohort(
    found: Findings[ImageFile],
    out: Path,
    preparation: ImagePreparation,
    *,
    fractions: tuple[float, ...],
    split_seed: int = 0,
    n_threads: int = 1,
    overwrite: bool = False,
    shape: tuple[int, ...] | None = None,
) -> dict[str, Any]:
    """Prepare images and pack them.

    Args:
        found: images of one source.
        out: cohort folder.
        preparation: what is left open is settled by what most images are like.
        fractions: shares of training, validation and test, by participant.
        split_seed: of the hash that splits.
        n_threads: that read.
        overwrite: replace a cohort of other images.
        shape: sides that every image must have in the end; None: those of most.

    Returns:
        The run report, as `foldnorm.preprocessing.cohort.preprocess.preprocess` returns it.

    Raises:
        InputError: nothing can be done at all.
    """
    begin = time.perf_counter()
    check_fractions(fractions)
    found.log()
    images = found.items
    preparation, usual = completed(images, preparation)
    record = {
        "preparation": preparation.as_dict(),
        "split": {"fractions": list(fractions), "seed": split_seed},
        "phantom": False,
        "origins": {"images": len(images)},
        "sources_sha256": _digest(images),
    }
    report = json_or_nothing(out / RUN_REPORT)  # written last
    if _is_finished(out, record, overwrite) and report:
        return {**report, "skipped": report["done"]}
    packed = _pack(images, out, preparation, record, n_threads, shape or usual)
    failed = [*found.problems, *packed.problems]
    warnings = [f"{listed(keys)}: {line}" for line, keys in packed.warnings.items()]
    for line in warnings:
        LOG.warning("%s", line)
    report = {
        "version": version("foldnorm"),
        "done": packed.done,
        "skipped": 0,
        "excluded": [],
        "failed": [{"volume": p.key, "reason": p.reason} for p in failed],
        **found.record(),
        "warnings": warnings,
        "seconds": round(time.perf_counter() - begin, 2),
        "shard": None,
    }
    write_report(out, report)
    return report


def _pack(
    images: Sequence[ImageFile],
    out: Path,
    preparation: ImagePreparation,
    record: Mapping[str, Any],
    n_threads: int,
    shape: tuple[int, ...] | None,
) -> _Packed:
    """Write the cohort of the images that have a shape; None: that of the first."""
    packed, rows = _Packed(), list[dict[str, str]]()
    dtype = np.dtype(np.uint8 if preparation.bits == 8 else np.uint16)
    out.mkdir(parents=True, exist_ok=True)
    (out / DESCRIPTION).unlink(missing_ok=True)  # what it says may end with the next line
    # How many are readable is known at the end only: they wait in a file that has no name.
    with tempfile.TemporaryFile(dir=out) as spool:
        prepare = partial(prepare_image, preparation=preparation)
        for outcome in threaded_map(partial(isolated, prepare), images, n_threads):
            image = outcome.item
            if outcome.reason:
                packed.problems.append(Problem(image.key, outcome.reason))
                continue
            prepared = outcome.result
            shape = shape or prepared.pixels.shape
            if prepared.pixels.shape != shape:
                reason = (
                    f"{prepared.pixels.shape} pixels, expected {shape} as the others or the model "
                    "have them; --shape resizes"
                )
                packed.problems.append(Problem(image.key, f"{reason}: {image.path}"))
                continue
            for line in prepared.warnings:
                packed.warnings.setdefault(line, []).append(image.known.get("file", image.key))
            spool.write(prepared.pixels.data)
            rows.append(_row(image, prepared, record))
        if shape is None or not rows:
            raise InputError(f"no image could be prepared, such as: {packed.problems[0].reason}")
        whole = (len(rows), *shape)
        spool.flush()
        waiting = np.memmap(spool, dtype=dtype, mode="r", shape=whole)
        write_array(out / VOLUMES, iter(waiting), shape=whole, dtype=dtype)
    write_participants(out, rows)
    sides = {"voxel_size": [1.0] * len(shape), "affine": np.eye(4).tolist()}
    write_description(out, "foldnorm cohort", {**record, **sides})
    packed.done = len(rows)
    return packed


def _row(image: ImageFile, prepared: PreparedImage, record: Mapping[str, Any]) -> dict[str, str]:
    known = {k: v for k, v in image.known.items() if k != "split"}
    split, rule = record["split"], record["preparation"]["intensities"]["rule"]
    ends = {"low": f"{prepared.low:g}", "high": f"{prepared.high:g}"}
    return {
        **known,
        **(ends if rule == "percentiles" else {}),
        "participant_id": f"sub-{image.participant}",
        "hemi": "",
        "image": image.image,
        "split": assign_split(
            known.get("family") or image.participant,
            seed=split["seed"],
            fractions=tuple(split["fractions"]),
        ),
    }


def _digest(images: Sequence[ImageFile]) -> str:
    """SHA-256 of the images and of what is known of them."""
    paths = {image.path for image in images}
    files = {path: isolated(sha256_of, path).made for path in paths}  # None: it will fail
    whole = hashlib.sha256()
    for image in images:
        said = (image.key, files[image.path], image.index, sorted(image.known.items()))
        whole.update(repr((*said, image.assume) if image.assume else said).encode())
    return whole.hexdigest()


def _is_finished(out: Path, record: Mapping[str, Any], overwrite: bool) -> bool:
    """Return whether the very same images were packed the very same way.

    Raises:
        InputError: the folder holds other images or another preparation, not to be overwritten.
    """
    if overwrite or not (out / DESCRIPTION).is_file():
        return False
    recorded = read_json(out / DESCRIPTION).get("Cohort", {})
    differing = [key for key, value in record.items() if recorded.get(key) != value]
    if differing:
        raise InputError(
            f"prepared before with another {', '.join(differing)}; choose another folder, or "
            f"--overwrite: {out}"
        )
    return True
