"""Training beside processes that keep two cores busy, and what waiting without spinning costs.

An autoencoder is trained on phantoms by as many threads as PyTorch takes, in processes of its own:
alone, beside two busy processes, and alone with threads that spin while they wait, as OpenMP's do
unless `foldnorm` tells them not to. Seconds of training itself, medians of `--repeats`, the cases
in turn. `cost_alone` is what passive waiting costs where nothing else runs: seconds passive ÷
seconds spinning. `--spins` tries waits between both, which spin that often (of GNU's OpenMP, some
25 ns each) and then sleep: the same two figures of each, `…_N_spins`. Only an idle machine of two
cores or more tells: other work lengthens what is alone, too.
Ends with one line of JSON, which is also written to OUT.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from figures import write_figures

from foldnorm.pipeline.runs.run_folder import RunFolder

FOLDNORM = [sys.executable, "-m", "foldnorm.pipeline.cli"]
BUSY = [sys.executable, "-c", "while True: pass"]
N_BUSY = 2
# GNU's and Intel's OpenMP as they are when nothing is set.
SPINNING = {"GOMP_SPINCOUNT": "300000", "KMP_BLOCKTIME": "200"}
OF_THREADS = {"OMP_WAIT_POLICY", "KMP_BLOCKTIME", "GOMP_SPINCOUNT", "OMP_NUM_THREADS"}
Case = tuple[bool, dict[str, str]]  # whether others are busy, and variables
ALONE, BESIDE = "alone", f"beside {N_BUSY} busy processes"
SPINNING_ALONE = "alone, spinning"


def cases_of(spins: list[int]) -> dict[str, Case]:
    cases: dict[str, Case] = {
        ALONE: (False, {}), SPINNING_ALONE: (False, SPINNING), BESIDE: (True, {})
    }  # fmt: skip
    for n in spins:
        for name, busy in ((ALONE, False), (BESIDE, True)):
            cases[f"{name}, {n} spins"] = busy, {"GOMP_SPINCOUNT": str(n)}
    return cases


def foldnorm(*words: object, **environment: str) -> None:
    own = {name: value for name, value in os.environ.items() if name not in OF_THREADS}
    command = [*FOLDNORM, *map(str, words), "--quiet"]
    subprocess.run(command, check=True, env={**own, **environment})


def seconds(cohort: Path, run: Path, steps: int, case: Case) -> float:
    """Seconds of one training."""
    words = ["train", "autoencoder", cohort, "-o", run, "--overwrite", "--device", "cpu",
             "--training.batch_size", 4, "--training.steps", steps,
             "--training.validate_every", steps]  # fmt: skip
    busy, environment = case
    others = [subprocess.Popen(BUSY) for _ in range(N_BUSY if busy else 0)]
    try:
        foldnorm(*words, **environment)
    finally:
        for other in others:
            other.kill()
            other.wait()
    return RunFolder(run).cost["seconds"]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path, metavar="OUT", help="JSON")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--voxel-size", type=float, default=3.0, help="mm (default: 3)")
    parser.add_argument("--spins", type=int, nargs="+", default=[], metavar="N")
    arguments = parser.parse_args()
    cases = cases_of(arguments.spins)
    found: dict[str, list[float]] = {name: [] for name in cases}
    with tempfile.TemporaryDirectory() as place:
        source, cohort = Path(place) / "source", Path(place) / "cohort"
        foldnorm("phantom", "-o", source, "--subjects", 12, "--voxel-size", arguments.voxel_size)
        foldnorm("preprocess", source, "-o", cohort, "--voxel-size", arguments.voxel_size,
                 "--pad", "multiple:8")  # fmt: skip
        for _ in range(arguments.repeats):
            for name, own in found.items():
                own.append(seconds(cohort, Path(place) / "run", arguments.steps, cases[name]))
                print(f"{name}: {own[-1]:.2f} s", flush=True)
    of = {name: statistics.median(own) for name, own in found.items()}
    figures = {
        "slowdown_beside_two_busy_processes": of[BESIDE] / of[ALONE],
        "cost_alone": of[ALONE] / of[SPINNING_ALONE],
        "seconds_alone": of[ALONE],
    }
    for n in arguments.spins:
        alone, beside = (of[f"{name}, {n} spins"] for name in (ALONE, BESIDE))
        figures[f"slowdown_beside_two_busy_processes_{n}_spins"] = beside / alone
        figures[f"cost_alone_{n}_spins"] = alone / of[SPINNING_ALONE]
    figures = {name: round(value, 3) for name, value in figures.items()}
    write_figures(arguments.out, figures)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
