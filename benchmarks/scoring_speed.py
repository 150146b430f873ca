"""Seconds a hemisphere that scoring takes on one core: with a restorer and without a model.

COHORT is the 2mm cohort of `real_cohort.py`, or any with fold labels. Of its first hemispheres,
`--healthy` are learned from and fitted on, and `--brains` more are scored twice: tables alone, and
with --maps. A restorer is trained for `--steps`, which is enough to time it. Seconds are of
processor time of this process, which has one thread (a busy machine alters them less than the
clock's), and of the clock beside them; `fit` is of all healthy ones together. `--profile` prints
where the time goes. Ends with one line of JSON, which is also written to OUT.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import cProfile
import json
import pstats
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from figures import flattened, write_figures

from foldnorm.pipeline.cli import main as foldnorm
from foldnorm.pipeline.runs.run_folder import RunFolder
from foldnorm.pipeline.runs.trained_model import TrainedModel
from foldnorm.pipeline.scoring.scorer import Scorer, score_into
from foldnorm.preprocessing.cohort.cohort import (
    FOLD_COLUMNS,
    FOLD_TABLE,
    FOLDS,
    VOLUMES,
    Cohort,
    row_key,
)
from foldnorm.preprocessing.cohort.cohort_files import write_description, write_participants
from foldnorm.preprocessing.core.arrays import read_row, write_array
from foldnorm.preprocessing.core.files import write_tsv

LINES = 25  # of a profile


def trained(cohort: Path, scratch: Path, steps: int) -> TrainedModel:
    """Train a restorer for a few steps."""
    words = ["train", "restorer", str(cohort), "-o", str(scratch / "run"), "--device", "cpu",
             "--quiet", "--training.steps", str(steps), "--training.validate_every", str(steps),
             "--training.workers", "0"]  # fmt: skip
    if code := foldnorm(words):
        raise SystemExit(code)
    return RunFolder.open(scratch / "run").load("cpu")


def subset(cohort: Cohort, out: Path, number: int, scored: int) -> Cohort:
    """Write a cohort of so many hemispheres: a third to learn, the rest healthy, and the scored."""
    rows = [dict(row) for row in cohort.rows[: number + scored]]
    if len(rows) < number + scored:
        raise SystemExit(f"{len(rows)} volumes, {number + scored} are asked for")
    for n, row in enumerate(rows):
        row["split"] = "train" if n < number // 3 else "validation" if n < number else "test"
    for name, volumes in ((VOLUMES, cohort.volumes), (FOLDS, cohort.folds)):
        assert volumes is not None
        kept = (read_row(volumes, n) for n in range(len(rows)))
        shape, dtype = (len(rows), *cohort.shape), np.dtype(volumes.dtype)
        write_array(out / name, kept, shape=shape, dtype=dtype)
    keys = {row_key(row) for row in rows}
    folds = (row for row in cohort.fold_table if row_key(row) in keys)
    write_tsv(out / FOLD_TABLE, folds, FOLD_COLUMNS)
    write_participants(out, rows)
    write_description(out, "benchmark", cohort.description["Cohort"])
    return Cohort.open(out)


@contextmanager
def timed(found: dict[str, float], name: str, per: int) -> Iterator[None]:
    wall, cpu = time.perf_counter(), time.process_time()
    yield
    found[f"{name}_cpu_s"] = round((time.process_time() - cpu) / per, 3)
    found[f"{name}_clock_s"] = round((time.perf_counter() - wall) / per, 3)
    print(name, found[f"{name}_cpu_s"], found[f"{name}_clock_s"], flush=True)


def measured(
    scorer: Scorer, cohort: Cohort, number: int, out: Path, *, profile: bool
) -> dict[str, float]:
    """Seconds a hemisphere of the test split, tables alone and with maps."""
    found: dict[str, float] = {}
    for name, maps in (("tables", False), ("with_maps", True)):
        profiler = cProfile.Profile()
        with timed(found, name, number):
            if profile:
                profiler.enable()
            result, _ = score_into(out / name, scorer, cohort, splits=("test",), maps=maps)
            profiler.disable()
        assert len(result.table) == number, result.failed
        if profile:
            pstats.Stats(profiler).sort_stats("cumulative").print_stats(2 * LINES)
            pstats.Stats(profiler).sort_stats("tottime").print_stats(LINES)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("cohort", type=Path, metavar="COHORT")
    parser.add_argument("out", type=Path, metavar="OUT", help="JSON")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--healthy", type=int, default=60)
    parser.add_argument("--brains", type=int, default=10)
    parser.add_argument("--ways", nargs="+", default=["void", "restorer"])
    parser.add_argument("--profile", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    number, scored = arguments.healthy, arguments.brains
    with tempfile.TemporaryDirectory(dir=arguments.out.parent) as name:
        scratch = Path(name)
        cohort = subset(Cohort.open(arguments.cohort), scratch / "cohort", number, scored)
        figures: dict[str, object] = {"shape": list(cohort.shape), "healthy": number,
                                      "brains": scored}  # fmt: skip
        for way in arguments.ways:
            model = None if way == "void" else trained(cohort.folder, scratch, arguments.steps)
            fitting: dict[str, float] = {}
            with timed(fitting, "fit", 1):
                scorer = Scorer(model).fit(cohort)
            figures[way] = fitting | measured(
                scorer, cohort, scored, scratch / way, profile=arguments.profile
            )
    write_figures(arguments.out, flattened(figures))
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
