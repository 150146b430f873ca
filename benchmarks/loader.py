"""Volumes a second that training is given, by the number of workers that read them.

COHORT has fold labels, such as the 2mm cohort of `real_cohort.py`. Volumes are moved and edited as
`--config` says (by default the restorer's). With 0 workers they are read in the process that
trains, at the pace of the thread that read them before there were workers. Medians of `--repeats`,
the numbers of workers in turn. Ends with one line of JSON, which is also written to OUT.
"""

import argparse
import json
import statistics
import time
from pathlib import Path

from figures import write_figures

from foldnorm import load_config
from foldnorm.pipeline.data.batches import Batches, Draws
from foldnorm.pipeline.data.conditions import Conditions
from foldnorm.pipeline.runs.config import build_model, training_options
from foldnorm.pipeline.training.registry import task_of
from foldnorm.pipeline.training.setup import draws_of
from foldnorm.preprocessing.cohort.cohort import Cohort

NONE = Conditions.fit((), [])


def pace(draws: Draws, batch_size: int, workers: int, seconds: float) -> float:
    """Volumes a second, after the first batches."""
    batches = Batches(draws, batch_size, workers=workers)
    first = 2 * max(workers, 1)
    for number in range(first):
        batches.batch(number)
    began, number = time.perf_counter(), first
    while time.perf_counter() - began < seconds:
        batches.batch(number)
        number += 1
    found = (number - first) * batch_size / (time.perf_counter() - began)
    batches.close()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("cohort", type=Path, metavar="COHORT")
    parser.add_argument("out", type=Path, metavar="OUT", help="JSON")
    parser.add_argument("--config", default="restorer")
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 1, 2, 4])
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=15, help="of each measurement")
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    cohort = Cohort.open(arguments.cohort)
    config = load_config(arguments.config, cohort)
    task = task_of(build_model(config["model"]), cohort)
    draws = draws_of(task, training_options(config), NONE)
    found: dict[int, list[float]] = {workers: [] for workers in arguments.workers}
    for _ in range(arguments.repeats):
        for workers, paces in found.items():
            paces.append(pace(draws, arguments.batch_size, workers, arguments.seconds))
            print(f"{workers} workers: {paces[-1]:.1f} volumes a second", flush=True)
    figures = {f"volumes_a_second_{n}_workers": round(statistics.median(own), 2)
               for n, own in found.items()}  # fmt: skip
    write_figures(arguments.out, figures)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
