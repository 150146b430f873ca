"""What a population takes: packing, a look at all volumes, and tables of many rows.

`rows`: a cohort of `--rows` hemispheres of 4³ voxels, a table of quality control and `--folds`
folds each: seconds to write and open it, and of what looks at all rows. `pack`: prepared volumes of
COHORT, those of each person under the names of as many as `--packed` takes, packed as --finalize
does: seconds, and by how much the peak memory of the process rises, for a quarter of them and for
all. `look`: what `train` reads before its first step, of `--looked-at` volumes of 80³, from a disk
cache that was given up and from memory (how they are read in training: `storage.py`). Seconds of
the clock and of the processor; ends with one line of JSON, which is also written to OUT.
"""

import argparse
import json
import os
import resource
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from figures import flattened, write_figures
from storage import forget

from foldnorm.pipeline.scoring.calibration import Calibration
from foldnorm.pipeline.scoring.participants import Participants
from foldnorm.pipeline.scoring.score_cohort import ScoreResult, add_p_values
from foldnorm.preprocessing.cohort.cohort import (
    DESCRIPTION,
    FOLD_COLUMNS,
    FOLD_TABLE,
    VOLUMES,
    Cohort,
)
from foldnorm.preprocessing.cohort.cohort_files import write_description, write_participants
from foldnorm.preprocessing.cohort.quality import COLUMNS, QC_TABLE, read_warnings
from foldnorm.preprocessing.core.arrays import read_array, read_row, write_array
from foldnorm.preprocessing.core.files import read_json, write_json, write_tsv

SIDE = 80  # voxels of a volume that is looked at
TINY = (4, 4, 4)
Figures = dict[str, Any]


@contextmanager
def timed(found: Figures, name: str) -> Iterator[None]:
    wall, cpu = time.perf_counter(), time.process_time()
    yield
    found[name] = {"clock_s": round(time.perf_counter() - wall, 3),
                   "cpu_s": round(time.process_time() - cpu, 3)}  # fmt: skip
    print(name, found[name], flush=True)


def peak() -> float:
    """Return the largest memory that the process has had so far, MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def rows_of(number: int) -> list[dict[str, str]]:
    splits = ("train", "train", "train", "validation", "test")
    return [
        {"participant_id": f"sub-{n // 2:06d}", "hemi": "LR"[n % 2], "site": f"S{n % 40}",
         "split": splits[n // 2 % len(splits)], "age": str(20 + n % 60), "family": ""}
        for n in range(number)
    ]  # fmt: skip


def tables(like: Cohort, out: Path, number: int, folds: int) -> Figures:
    """Seconds of what writes and reads tables of a population."""
    found: Figures = {"rows": number, "folds_a_row": folds}
    rows = rows_of(number)
    volumes = (np.zeros(TINY, np.uint8) for _ in range(number))
    with timed(found, "write volumes and participants"):
        write_array(out / VOLUMES, volumes, shape=(number, *TINY), dtype=np.dtype(np.uint8))
        write_participants(out, rows)
    write_description(out, "benchmark", like.description["Cohort"])
    quality = [{**dict.fromkeys(COLUMNS, "0"), "participant_id": row["participant_id"],
                "hemi": row["hemi"], "touches": "", "warnings": "", "flags": ""}
               for row in rows]  # fmt: skip
    write_tsv(out / QC_TABLE, quality, COLUMNS)
    with timed(found, "open"):
        cohort = Cohort.open(out)
    with timed(found, "splits, keys and warnings"):
        assert len(cohort.indices("train")) + len(cohort.indices("validation", "test")) == number
        assert len(set(cohort.keys())) == number
        read_warnings(out)
    with timed(found, "other side of each"):
        assert sum(cohort.other_side(n) is not None for n in range(number)) in (0, number)
    folds_of = ({"participant_id": row["participant_id"], "hemi": row["hemi"], "label": n,
                 "name": "", "inside": "", "size": 10.0, "voxels": 9}
                for row in rows for n in range(folds))  # fmt: skip
    with timed(found, "write folds"):
        write_tsv(out / FOLD_TABLE, folds_of, FOLD_COLUMNS)
    before = peak()
    with timed(found, "read folds"):
        assert len(cohort.fold_table) == number * folds
    found["read folds"]["peak_mib_more"] = round(peak() - before)
    scores(cohort, out / "scores", found)
    return found


def scores(cohort: Cohort, out: Path, found: Figures) -> None:
    """Time the tables of scores."""
    rng, names = np.random.default_rng(0), ("void_component", "void_top", "evidence_component")
    healthy = [cohort.rows[n] for n in cohort.indices("validation")]
    calibration = Calibration({n: rng.normal(size=len(healthy)) for n in names},
                              np.zeros((len(healthy), 1)), healthy, (), False)  # fmt: skip
    participants = Participants.from_cohorts(cohort, healthy, [])
    table = [{"participant_id": row["participant_id"], "hemi": row["hemi"], "flag": "",
              "warning": "", "used_for": participants.role(row)}
             for row in cohort.rows]  # fmt: skip
    with timed(found, "p-values"):
        add_p_values(table, {n: rng.normal(size=len(table)) for n in names}, calibration)
    about = {"precision": None, "knows_unlike_brains": True}
    result = ScoreResult(table, names, calibration, about, len(healthy), None)
    with timed(found, "write scores"):
        result.save(out)


def pack_many(source: Path, scratch: Path, number: int) -> Figures:
    """Seconds and memory of packing, in a process of its own for each number."""
    found: Figures = {}
    for count in (number // 4, number):
        out = scratch / f"pack{count}"
        copied = copies(source, out, count)
        read, write = os.pipe()
        if child := os.fork():
            os.close(write)
            with os.fdopen(read) as stream:
                found[str(copied)] = json.loads(stream.read())
            os.waitpid(child, 0)
            print("pack", copied, found[str(copied)], flush=True)
            shutil.rmtree(out)
            continue
        own = pack_one(source, out)
        os.write(write, json.dumps(own).encode())
        os._exit(0)
    return found


def copies(source: Path, out: Path, number: int) -> int:
    """Link prepared volumes of people under new names; returns how many."""
    people = sorted(source.glob("sub-*"))
    made = 0
    for n in range(number):
        if made >= number:
            break
        person = people[n % len(people)]
        old, new = person.name.removeprefix("sub-"), f"{n:06d}"
        anat = out / f"sub-{new}" / "anat"
        anat.mkdir(parents=True)
        for path in sorted((person / "anat").iterdir()):
            target = anat / path.name.replace(f"sub-{old}_", f"sub-{new}_")
            if path.suffix == ".json":
                sidecar = dict(read_json(path))
                write_json(target, {**sidecar, "Participant": new, "Signature": ""})
                made += 1
            else:
                target.symlink_to(path.resolve())
    return made


def pack_one(source: Path, out: Path) -> Figures:
    """Pack a folder as its cohort was; with its box, so that volumes fit."""
    from foldnorm.preprocessing.cohort.options import PreprocessOptions
    from foldnorm.preprocessing.cohort.pack import pack
    from foldnorm.preprocessing.cohort.plan import CohortPlan

    plan = CohortPlan.from_options(PreprocessOptions(layout_from=source, finalize=True))
    found: Figures = {}
    before = peak()
    with timed(found, "pack"):
        packed = pack(out, plan, {})
    volumes = len(read_array(out / VOLUMES))
    return {**found["pack"], "peak_mib_more": round(peak() - before), "volumes": volumes,
            "problems": len(packed.problems)}  # fmt: skip


def look(like: Cohort, volumes: np.ndarray, scratch: Path) -> Figures:
    """Seconds of the look at all volumes before training."""
    from foldnorm.preprocessing.cohort.each_volume import fault_of_volumes

    out, found = scratch / "look", {"volumes": len(volumes)}
    rows = [{**row, "split": "train"} for row in rows_of(len(volumes))]
    write_array(out / VOLUMES, volumes, shape=volumes.shape, dtype=volumes.dtype)
    write_participants(out, rows)
    write_description(out, "benchmark", like.description["Cohort"])
    cohort = Cohort.open(out)
    for state in ("cold", "warm"):
        if state == "cold":
            forget([path for path in out.iterdir() if path.is_file()])
        with timed(found, state):
            fault = fault_of_volumes(cohort, "train", "validation")
            assert not fault, fault
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("cohort", type=Path, metavar="COHORT", help="of label volumes with folds")
    parser.add_argument("out", type=Path, metavar="OUT", help="JSON")
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument("--folds", type=int, default=20)
    parser.add_argument("--packed", type=int, default=2000)
    parser.add_argument("--looked-at", type=int, default=400)
    parser.add_argument("--only", nargs="+", choices=("rows", "pack", "look"))
    arguments = parser.parse_args()
    like = Cohort.open(arguments.cohort)
    assert (arguments.cohort / DESCRIPTION).is_file()
    asked = arguments.only or ["rows", "pack", "look"]
    figures: Figures = {}
    with tempfile.TemporaryDirectory(dir=arguments.out.parent) as name:
        scratch = Path(name)
        if "pack" in asked:  # first: memory that others have had would hide its own
            figures["pack"] = pack_many(arguments.cohort, scratch, arguments.packed)
        if "rows" in asked:
            figures["rows"] = tables(like, scratch / "rows", arguments.rows, arguments.folds)
        if "look" in asked:
            figures["look"] = look(like, real_volumes(like, arguments.looked_at), scratch)
    write_figures(arguments.out, flattened(figures))
    print(json.dumps(figures))


def real_volumes(like: Cohort, number: int) -> np.ndarray:
    """Volumes of a cohort, one after the other and again, cut or padded to `SIDE`."""
    found = np.zeros((number, SIDE, SIDE, SIDE), np.uint8)
    sides = tuple(slice(min(SIDE, side)) for side in like.shape)
    for n in range(number):
        found[(n, *sides)] = read_row(like.volumes, n % len(like))[sides]
    return found


if __name__ == "__main__":
    main()
