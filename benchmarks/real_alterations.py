"""Alterations of `anomaly_real.py`: who is left out, what is erased, drawn in or cut."""

import contextlib
import hashlib
import os
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

import numpy as np

from foldnorm.preprocessing.alteration.deletion import (
    CONTROL,
    HALF_WAY,
    Deletion,
    SizeRange,
    subject_rng,
)
from foldnorm.preprocessing.alteration.kinds import DEFORMING, KINDS, AlterationKind
from foldnorm.preprocessing.cohort.cohort import Cohort, row_key
from foldnorm.preprocessing.cohort.cohort_files import write_participants

SITES = ("HLN", "MMRR", "NKI", "SynthSeg")
COMPARED = 18  # of a hundred people of the other sites, who are not trained on
SIZES = {"100": SizeRange(100, 150), "150": SizeRange(150, 200), "200": SizeRange(200, 500),
         "500": SizeRange(500, 800), "800": SizeRange(800)}  # fmt: skip
LARGE = ("200", "500", "800")
SMALL = 3  # erased folds of 100 to 200 mm² of a hemisphere, where those above are all erased
HEALTHY, SHAM = "healthy", "sham"  # sham: erase nothing, by the code path that erases
OTHER_KINDS = ("refill", "deform", "interrupt", "displace", "add", "scar", "rim")  # one a size
MIN_SHARE = 0.5  # of a fold that lies in the box


def left_out(
    cohort: Cohort, site: str, folder: Path, hemispheres: int = 0, others: Collection[str] = ()
) -> Cohort:
    """Split the cohort anew: one site to test, the others to train on and to compare with.

    Args:
        cohort: of all sites.
        site: to be left out.
        folder: of the cohort that is returned; volumes are linked.
        hemispheres: to train on, the first ones of a fixed order; 0 for all.
        others: sites to train on; none for all but the one.
    """
    if (folder / "participants.tsv").is_file():  # perhaps of a process beside this one
        return Cohort.open(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for path in cohort.folder.iterdir():
        if path.is_file() and path.name != "participants.tsv":
            with contextlib.suppress(FileExistsError):
                os.link(path, folder / path.name)
    used = set(others or (row["site"] for row in cohort.rows)) - {site}
    splits = [
        "test" if row["site"] not in used else "validation" if _is_held_out(row) else "train"
        for row in cohort.rows
    ]
    trained = [n for n, split in enumerate(splits) if split == "train"]
    spare = np.random.default_rng(0).permutation(trained)[hemispheres:] if hemispheres else ()
    for n in spare:
        splits[n] = "test"
    rows = [{**row, "split": own} for row, own in zip(cohort.rows, splits, strict=True)]
    write_participants(folder, rows)
    return Cohort.open(folder)


def _is_held_out(row: Mapping[str, str]) -> bool:
    """Say if a brain of another site is compared with, and not trained on: about one in six."""
    person = row["participant_id"] if row["family"] in ("", "n/a") else row["family"]
    return int(hashlib.sha256(person.encode()).hexdigest()[:8], 16) % 100 < COMPARED


def ways_to_alter(cohort: Cohort) -> dict[str, AlterationKind]:
    """Kinds of alteration by name, made for a cohort."""
    return {
        kind: KINDS[kind](cohort, **({"refilling": HALF_WAY} if kind in DEFORMING else {}))
        for kind in ("fold", *OTHER_KINDS)
    }


def planned(
    cohort: Cohort, ways: Mapping[str, AlterationKind], index: int, per_size: int | None
) -> Iterator[tuple[str, str, Deletion]]:
    """Plan the alterations of one volume: kind, size, and the alteration.

    Args:
        cohort: with fold labels.
        ways: see `ways_to_alter`.
        index: of the volume.
        per_size: folds of each size that are erased; None for every one above 200 mm².
    """
    yield HEALTHY, "0", CONTROL
    yield SHAM, "0", CONTROL
    key = row_key(cohort.rows[index])
    face = float(np.prod(cohort.voxel_size)) ** (2 / 3)
    rows = [row for row in cohort.fold_table if row_key(row) == key]
    held = [r for r in rows if int(r["voxels"]) * face >= MIN_SHARE * float(r["size"])]
    rng = subject_rng(0, f"every fold/{key}")
    for size, limits in SIZES.items():
        found = [row for row in held if limits.holds(float(row["size"]))]
        most = per_size or (len(found) if size in LARGE else SMALL)
        for n in rng.permutation(len(found))[:most]:
            row = found[int(n)]
            yield "fold", size, Deletion("fold", int(row["label"]), "", float(row["size"]))
    for kind in OTHER_KINDS:
        for size in LARGE:
            deletion = ways[kind].draw(index, SIZES[size], subject_rng(0, f"{kind}/{key}"))
            if deletion is not None:
                yield kind, size, deletion


def altered(
    cohort: Cohort, ways: Mapping[str, AlterationKind], index: int, kind: str, deletion: Deletion
) -> np.ndarray:
    """Volume after an alteration, (I, J, K) class numbers."""
    if kind == HEALTHY:
        return np.array(cohort.volumes[index])
    return ways["fold" if kind == SHAM else kind].apply(index, deletion)
