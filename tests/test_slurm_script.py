"""docs/train.slurm without SLURM: the signal at the time limit, the requeue, and the end."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import TINY_TRAINING

from foldnorm.pipeline.runs.run_folder import RunFolder
from foldnorm.pipeline.training import distributed

SCRIPT = Path(__file__).parents[1] / "docs/train.slurm"


@pytest.fixture
def cluster(tmp_path):
    """`srun` that starts the command here and passes USR1 on; `scontrol` that writes down."""
    commands = {
        "srun": 'shift\n"$@" &\npid=$!\necho $pid > "$PLACE/pid"\nwait $pid\nexit $?\n',
        "scontrol": 'echo "$@" >> "$PLACE/scontrol"\n',
        "foldnorm": f'exec {sys.executable} -m foldnorm.pipeline.cli "$@"\n',
    }
    for name, text in commands.items():
        path = tmp_path / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/bash\n{text}")
        path.chmod(0o755)
    path = f"{tmp_path / 'bin'}:{os.environ['PATH']}"
    return tmp_path, {**os.environ, "PATH": path, "PLACE": str(tmp_path), "SLURM_JOB_ID": "42"}


@pytest.mark.slow
def test_at_the_time_limit_the_job_is_requeued_and_goes_on(small_cohort, cluster):
    place, environment = cluster
    out = place / "run"
    words = ["bash", str(SCRIPT), "wgan_gp", str(small_cohort.folder), "-o", str(out),
             "--device", "cpu", *TINY_TRAINING]  # fmt: skip
    job = subprocess.Popen([*words, "--training.steps", "100000"], env=environment)
    deadline = time.monotonic() + 120
    while not (out / "environment.json").is_file() and time.monotonic() < deadline:
        time.sleep(0.1)
    time.sleep(1.0)
    os.kill(int((place / "pid").read_text()), signal.SIGUSR1)
    assert job.wait(timeout=60) == 75
    assert (place / "scontrol").read_text() == "requeue 42\n"
    reached = RunFolder(out).load_checkpoint("last")["state"]["step"]
    # The requeued job runs the same script again.
    done = subprocess.run([*words, "--training.steps", str(reached + 1)], env=environment,
                          check=False)  # fmt: skip
    assert done.returncode == 0
    assert RunFolder(out).load_checkpoint("last")["state"]["step"] == reached + 1
    assert (place / "scontrol").read_text() == "requeue 42\n"  # not once more


@pytest.mark.slow
def test_a_job_that_fails_is_not_requeued(cluster):
    place, environment = cluster
    words = ["bash", str(SCRIPT), "wgan_gp", "nowhere", "-o", "run"]
    done = subprocess.run(words, env=environment, check=False, capture_output=True, text=True)
    assert done.returncode == 2
    assert "not a cohort folder" in done.stderr
    assert not (place / "scontrol").exists()


@pytest.mark.parametrize(
    ("environment", "nodes", "processes"),
    [
        ({}, 1, None),
        ({"SLURM_NNODES": "4", "SLURM_NTASKS_PER_NODE": "8"}, 4, 8),
        ({"GROUP_WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "3"}, 2, 3),
    ],
)
def test_nodes_and_processes_are_those_of_the_launcher(monkeypatch, environment, nodes, processes):
    for name in ("GROUP_WORLD_SIZE", "LOCAL_WORLD_SIZE", "SLURM_NNODES", "SLURM_NTASKS_PER_NODE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert distributed.num_nodes() == nodes
    assert distributed.local_world_size() == processes
