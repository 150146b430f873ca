"""Share of a training step that averaging gradients over processes takes (CPU, Gloo).

A process that is ahead waits for the others; that is no cost of the message, so all wait for one
another before it. The least of all steps counts, of both times: other work only adds to them. Ends
with one line of JSON, which is also written to OUT.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from figures import write_figures

from foldnorm import load_config
from foldnorm.pipeline.training import train as train_module
from foldnorm.pipeline.training.distributed import Group
from foldnorm.pipeline.training.messages import wait_for_others
from foldnorm.preprocessing.cohort.cohort import Cohort
from foldnorm.preprocessing.core.files import read_json, write_json


def measure(config: str, cohort: Cohort, arguments: argparse.Namespace) -> dict[str, float]:
    """Seconds a step, and of them those of averaging, at the best of the steps."""
    average, step = train_module.average_gradients, train_module.train_step
    whole: list[float] = []
    averaging: list[float] = []

    def timed_average(fabric: Any, optimizers: Any) -> None:
        wait_for_others(fabric)
        begin = time.perf_counter()
        average(fabric, optimizers)
        averaging[-1] += time.perf_counter() - begin

    def timed_step(training: Any) -> Any:
        averaging.append(0.0)
        begin = time.perf_counter()
        terms = step(training)
        whole.append(time.perf_counter() - begin)
        return terms

    train_module.average_gradients, train_module.train_step = timed_average, timed_step
    chosen = load_config(config, cohort)
    chosen["training"] |= {
        "steps": 2 * arguments.steps, "session_steps": arguments.steps, "precision": "32",
        "validate_every": 2 * arguments.steps, "batch_size": arguments.batch_size,
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as place:
        train_module.train(
            chosen, cohort, Path(place), device="cpu", quiet=True, group=Group.of_launcher()
        )
    return {
        "seconds_a_step": round(min(whole), 4),
        "seconds_averaging": round(min(averaging), 4),
        "share": round(min(averaging) / min(whole), 4),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("cohort", type=Path, metavar="COHORT")
    parser.add_argument("out", type=Path, metavar="OUT", help="JSON")
    parser.add_argument("--configs", nargs="+", default=["vnet", "wgan_gp", "wgan_gp_report"])
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--batch-size", type=int, default=4, help="over all processes")
    arguments = parser.parse_args()
    cohort = Cohort.open(arguments.cohort)
    if "RANK" in os.environ:  # one of the processes that are started below
        found = measure(arguments.configs[0], cohort, arguments)
        if os.environ["RANK"] == "0":
            write_json(arguments.out, found)
        return
    figures: dict[str, Any] = {
        "processes": arguments.processes,
        "batch_size": arguments.batch_size,
        "shape": list(cohort.shape),
    }
    launcher = ["torch.distributed.run", "--standalone", f"--nproc-per-node={arguments.processes}"]
    sizes = [f"--steps={arguments.steps}", f"--batch-size={arguments.batch_size}"]
    for config in arguments.configs:
        with tempfile.TemporaryDirectory() as place:
            out = Path(place) / "figures.json"
            words = [__file__, arguments.cohort, out, "--configs", config, *sizes]
            subprocess.run([sys.executable, "-m", *launcher, *map(str, words)], check=True)
            figures[config] = read_json(out)
    write_figures(arguments.out, figures)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
