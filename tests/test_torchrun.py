"""Signals to a training of two processes that torchrun started: all save, and leave with 75."""

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest
from conftest import TINY_TRAINING

from foldnorm.pipeline.runs.run_folder import RunFolder

# torchrun signals the group of each process, and does not say what the last to leave ended with:
# this writes it down.
NOTED = """
import os, signal, subprocess, sys
for number in (signal.SIGTERM, signal.SIGUSR1):
    signal.signal(number, lambda *_: None)
code = subprocess.Popen(sys.argv[1:]).wait()
with open(os.path.join(os.environ["PLACE"], "code-" + os.environ["RANK"]), "w") as file:
    file.write(str(code))
sys.exit(code)
"""


def torchrun(cohort, out, *before):
    words = [*before, sys.executable, "-m", "foldnorm.pipeline.cli", "train", "wgan_gp",
             str(cohort.folder), "-o", str(out), "--device", "cpu", "--quiet", *TINY_TRAINING,
             "--training.steps", "100000", "--training.validate_every", "3"]  # fmt: skip
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    started = subprocess.Popen(
        [*launcher, "--nproc-per-node", "2", "--no-python", *words],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PLACE": str(out.parent)},
    )
    deadline = time.monotonic() + 300
    while not RunFolder(out).checkpoint("last").is_file() and time.monotonic() < deadline:
        time.sleep(0.1)
    return started


def is_ours(process):
    return "foldnorm.pipeline.cli" in process.cmdline()[2:3]


def trainings_of(launcher):
    """The processes that train, and those that read volumes for them."""
    ours = [p for p in psutil.Process(launcher.pid).children(recursive=True) if is_ours(p)]
    training = [p for p in ours if not is_ours(p.parent())]
    assert len(training) == 2
    return training, [p for p in ours if p not in training]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("who", "number"),
    [
        ("launcher", signal.SIGTERM),
        ("one", signal.SIGTERM),
        ("one", signal.SIGUSR1),
        ("all", signal.SIGTERM),
    ],
)
def test_all_processes_leave_with_75_and_the_state_saved(who, number, small_cohort, tmp_path):
    script = tmp_path / "noted.py"
    script.write_text(NOTED)
    process = torchrun(small_cohort, tmp_path / "run", sys.executable, script)
    training, readers = trainings_of(process)
    signalled = {"launcher": [], "one": training[1:], "all": [*training, *readers]}[who]
    for each in signalled or [process]:
        each.send_signal(number)
    assert process.wait(timeout=120) == 1  # torchrun's own, whatever its processes end with
    codes = {path.name: path.read_text().strip() for path in tmp_path.glob("code-*")}
    assert codes == {"code-0": "75", "code-1": "75"}
    run = RunFolder(tmp_path / "run")
    assert run.reached > 0
    assert (run.folder / "metrics.csv").read_text().count("\n") == run.reached + 1


@pytest.mark.slow
def test_a_launcher_that_is_killed_leaves_no_process_and_a_saved_state(small_cohort, tmp_path):
    process = torchrun(small_cohort, tmp_path / "run")
    training, readers = trainings_of(process)
    process.send_signal(signal.SIGUSR1)  # which torchrun does not know
    assert process.wait(timeout=60) == -signal.SIGUSR1
    assert psutil.wait_procs([*training, *readers], timeout=120)[1] == []
    saved = RunFolder(tmp_path / "run")
    assert (saved.folder / "metrics.csv").read_text().count("\n") == saved.reached + 1
