"""Every shipped configuration on a simulated GPU, and how often a step waits for it.

Each is trained, validated, stopped, resumed and used as `gpu_smoke` does, on phantoms (or on the
cohorts of ``--cohorts``), with a device that refuses what CUDA refuses (`simulated_cuda`). OUT is
a JSON file: of each configuration exit codes, what went wrong, and by step what waits and what is
copied until the next; what it holds of other configurations stays. Exit code 1 if one failed, or
waits more than `MAX_WAITS` times in a step that writes a row of metrics.csv, or at all in another.
"""

import sys

import simulated_cuda

try:
    simulated_cuda.install()
except simulated_cuda.Unavailable as reason:
    if __name__ == "__main__":
        print(f"no simulation: {reason}", file=sys.stderr)
        raise SystemExit(77) from None
    raise

import argparse
import shutil
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from figures import commit, write_figures
from gpu import draw_cohorts
from gpu_session import Session, replaced, say, short
from gpu_smoke import BF16, CASES, through
from simulated_tensors import GPU, TRAFFIC, Simulation, Traffic

from foldnorm.pipeline.training import train as train_module
from foldnorm.preprocessing.cohort.cohort import Cohort
from foldnorm.preprocessing.core.files import read_json

MAX_WAITS = 2
NAMES = ("small", "images")  # of the cohorts


@dataclass
class StepTraffic:
    """Waits and copies of one step, until what is written after it.

    Attributes:
        step: from 0.
        resumed: whether the training had been stopped before.
        logs: whether it writes a row of metrics.csv.
        waits: by line.
        copies: by line.
    """

    step: int
    resumed: bool
    logs: bool = False
    waits: dict[str, int] = field(default_factory=dict)
    copies: dict[str, int] = field(default_factory=dict)


@contextmanager
def steps_watched() -> Iterator[list[StepTraffic]]:
    """Collect the traffic of all steps of trainings within a block."""
    found: list[StepTraffic] = []
    begun: list[Traffic] = []  # of the step that is not closed yet
    sessions: list[Any] = []

    def close() -> None:
        if begun:
            traffic = TRAFFIC.since(begun.pop())
            found[-1].waits, found[-1].copies = dict(traffic.waits), dict(traffic.copies)

    def step(training: Any, _step: Callable[[Any], Any] = train_module.train_step) -> Any:
        close()
        if all(training is not other for other in sessions):
            sessions.append(training)
        found.append(StepTraffic(training.state.step, resumed=len(sessions) > 1))
        begun.append(TRAFFIC.copy())
        return _step(training)

    def log(*given: Any, _log: Callable[..., Any] = train_module._log) -> Any:
        found[-1].logs = True
        return _log(*given)

    def closed(work: Callable[..., Any]) -> Callable[..., Any]:
        def call(*given: Any) -> Any:
            close()
            return work(*given)

        return call

    with replaced(train_module, "train_step", step), \
            replaced(train_module, "_log", log), \
            replaced(train_module, "_validate_and_save", closed(train_module._validate_and_save)), \
            replaced(train_module, "_save", closed(train_module._save)):  # fmt: skip
        yield found


def simulate(session: Session, name: str) -> dict[str, Any]:
    """Train and use a configuration on the simulated device; what was found."""
    precision = "bf16" if name.endswith(BF16) else "tf32"
    row: dict[str, Any] = {
        "config": name.removesuffix(BF16), "precision": precision, "commit": commit()
    }  # fmt: skip
    begin = time.perf_counter()
    try:
        with Simulation(), steps_watched() as steps:
            through(session, row)
    except Exception as error:
        row["error"] = short(error)
    finally:
        for folder in ("runs", "used", "bundles"):
            shutil.rmtree(session.place / folder, ignore_errors=True)
    row["steps"] = [asdict(step) for step in steps]
    row["waits"] = _summary(steps)
    row["seconds"] = round(time.perf_counter() - begin, 1)
    row["wrong"] = _wrong(row, steps)
    return row


def _summary(steps: list[StepTraffic]) -> dict[str, int]:
    """Most waits of a step, before and after a training was resumed, with a row and without."""
    return {
        f"{'after' if resumed else 'before'} resume, {'a row' if logs else 'no row'}": max(
            (sum(s.waits.values()) for s in steps if (s.resumed, s.logs) == (resumed, logs)),
            default=-1,
        )
        for resumed in (False, True)
        for logs in (False, True)
    }


def _wrong(row: dict[str, Any], steps: list[StepTraffic]) -> list[str]:
    """Say what is wrong with a configuration; nothing, if all went well."""
    found = [row["error"]] if "error" in row else []
    for name, code in row.get("codes", {}).items():
        if code:
            found.append(f"{name} ended with {code}: {row['said'][name]}")
    if not row.get("finite", True):
        found.append("a figure is not finite")
    if not {(resumed, logs) for resumed in (False, True) for logs in (False, True)} <= {
        (s.resumed, s.logs) for s in steps
    }:
        found.append("no step before and after --resume, with a row of metrics.csv and without")
    for s in steps:
        if sum(s.waits.values()) > (MAX_WAITS if s.logs else 0):
            kind = "resumed" if s.resumed else "first"
            found.append(f"step {s.step} of the {kind} session waits: {s.waits}")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path, metavar="OUT.json")
    parser.add_argument("--configs", nargs="+", choices=CASES, default=CASES, metavar="CONFIG")
    parser.add_argument("--cohorts", type=Path, help="folder of the cohorts; drawn there once")
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    place = Path(tempfile.mkdtemp(prefix="foldnorm-simulation-"))
    drawn = given.cohorts or place
    session = Session(place, given.out.parent, GPU, tiny=True)
    try:
        if not all((drawn / name).is_dir() for name in NAMES):
            drawn.mkdir(parents=True, exist_ok=True)
            draw_cohorts(Session(drawn, drawn, torch.device("cpu"), tiny=True), set(NAMES))
        session.cohorts = {name: Cohort.open(drawn / name) for name in NAMES}
        # Rows of other configurations stay, each with the commit that it was made at.
        rows = read_json(given.out)["figures"]["rows"] if given.out.exists() else {}
        for name in given.configs:
            rows[name] = simulate(session, name)
            say(f"{name}: {rows[name]['seconds']} s, waits {rows[name]['waits']}")
            for line in rows[name]["wrong"]:
                say(f"{name}: {line}")
            write_figures(given.out, {"torch": torch.__version__, "rows": rows})
    finally:
        shutil.rmtree(place, ignore_errors=True)
    return int(any(rows[name]["wrong"] for name in given.configs))


if __name__ == "__main__":
    raise SystemExit(main())
