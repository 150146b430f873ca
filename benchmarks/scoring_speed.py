"""Seconds a hemisphere that scoring takes on one core: with a restorer and without a model.

COHORT is the 2mm cohort of `real_cohort.py`, or any with fold labels and a validation split. A
restorer is trained for `--steps`, which is enough to time it, or taken from `--run`. Each way is
fitted on the cohort, then the first `--brains` of its test split (or of what other split is named)
are scored twice: tables alone, and with --maps. Seconds are of processor time of this process,
which has one thread (a busy machine alters them less than the clock's), and of the clock beside
them. `--profile` prints where the time goes. Ends with one line of JSON, which is also written to
OUT.
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
from dataclasses import replace
from pathlib import Path

import torch
from figures import write_figures

from foldnorm.pipeline.cli import main as foldnorm
from foldnorm.pipeline.scoring.scorer import Scorer, score_into
from foldnorm.pipeline.scoring.setup import open_scorer
from foldnorm.preprocessing.cohort.cohort import Cohort

LINES = 25  # of a profile


def train(cohort: Path, out: Path, steps: int) -> None:
    words = ["train", "restorer", str(cohort), "-o", str(out), "--device", "cpu", "--quiet",
             "--training.steps", str(steps), "--training.validate_every", str(steps),
             "--training.workers", "0"]  # fmt: skip
    if code := foldnorm(words):
        raise SystemExit(code)


def first_of(cohort: Cohort, split: str, number: int) -> Cohort:
    """Keep so few volumes of a split in it; the others go to one that is not scored."""
    chosen = set(cohort.indices(split)[:number].tolist())
    if len(chosen) < number:
        raise SystemExit(f"{len(chosen)} volumes of split {split}, {number} are asked for")
    rows = [{**row, "split": split if n in chosen else "train"}
            for n, row in enumerate(cohort.rows)]  # fmt: skip
    return replace(cohort, rows=rows)


@contextmanager
def timed(found: dict[str, float], name: str, per: int) -> Iterator[None]:
    wall, cpu = time.perf_counter(), time.process_time()
    yield
    found[f"{name}_cpu_s"] = round((time.process_time() - cpu) / per, 3)
    found[f"{name}_clock_s"] = round((time.perf_counter() - wall) / per, 3)
    print(name, found[f"{name}_cpu_s"], found[f"{name}_clock_s"], flush=True)


def measured(
    scorer: Scorer, some: Cohort, split: str, number: int, out: Path, *, profile: bool
) -> dict[str, float]:
    """Seconds a hemisphere, tables alone and with maps."""
    found: dict[str, float] = {}
    warm = first_of(some, split, 1)
    score_into(out / "warm", scorer, warm, splits=(split,), maps=True)  # compiles, reads modules
    for name, maps in (("tables", False), ("with_maps", True)):
        profiler = cProfile.Profile()
        with timed(found, name, number):
            if profile:
                profiler.enable()
            result, _ = score_into(out / name, scorer, some, splits=(split,), maps=maps)
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
    parser.add_argument("--run", type=Path, help="of a restorer, trained on COHORT")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--split", default="test")
    parser.add_argument("--brains", type=int, default=10)
    parser.add_argument("--ways", nargs="+", default=["void", "restorer"])
    parser.add_argument("--profile", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    cohort = Cohort.open(arguments.cohort)
    some = first_of(cohort, arguments.split, arguments.brains)
    figures: dict[str, object] = {"shape": list(cohort.shape), "healthy": len(cohort),
                                  "brains": arguments.brains}  # fmt: skip
    with tempfile.TemporaryDirectory() as scratch:
        for way in arguments.ways:
            run = arguments.run or Path(scratch) / "run"
            if way != "void" and arguments.run is None:
                train(arguments.cohort, run, arguments.steps)
            fitting: dict[str, float] = {}
            with timed(fitting, "fit", 1):
                whence = (Path("void"), arguments.cohort) if way == "void" else (run, None)
                scorer, _ = open_scorer(whence[0], arguments.cohort, whence[1], "cpu")
            figures[way] = fitting | measured(
                scorer, some, arguments.split, arguments.brains, Path(scratch) / way,
                profile=arguments.profile,
            )  # fmt: skip
    write_figures(arguments.out, figures)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
