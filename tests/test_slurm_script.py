"""docs/train.slurm without SLURM: the signal at the time limit, the requeue, and the end."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from conftest import TINY_TRAINING

from foldnorm.pipeline.runs.run_folder import RunFolder
from foldnorm.pipeline.training import distributed
from foldnorm.pipeline.training.distributed import Group, launch
from foldnorm.preprocessing.core.errors import InputError

FOLDNORM = [sys.executable, "-m", "foldnorm.pipeline.cli"]
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
    assert "no such file or folder: nowhere" in done.stderr
    assert not (place / "scontrol").exists()


JOB = {"SLURM_JOB_ID": "7", "SLURM_NNODES": "1", "SLURM_NODELIST": "here[1-2]"}
BATCH = {**JOB, "SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NODEID": "0"}
STEP = {**BATCH, "SLURM_PROCID": "3", "SLURM_STEP_ID": "0"}
TORCHRUN = {"TORCHELASTIC_RUN_ID": "x", "GROUP_WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "3",
            "RANK": "4"}  # fmt: skip


@pytest.fixture
def environment(monkeypatch):
    """A function that sets the variables of a launcher, and no other launcher's."""
    for name in list(os.environ):
        if name.startswith(("SLURM_", "TORCHELASTIC_")) or name in {*TORCHRUN, "MASTER_ADDR"}:
            monkeypatch.delenv(name)

    def set_all(variables):
        for name, value in variables.items():
            monkeypatch.setenv(name, value)

    return set_all


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, (1, 1, 0)),
        (TORCHRUN, (3, 2, 4)),
        ({**BATCH, "SLURM_NTASKS": "8", **TORCHRUN}, (3, 2, 4)),  # torchrun within a job
        ({**BATCH, "SLURM_NTASKS": "1"}, (1, 1, 0)),
        ({**JOB, "SLURM_NTASKS": "1", "SLURM_NNODES": "2"}, (1, 1, 0)),  # of salloc
        ({**STEP, "SLURM_STEP_NUM_TASKS": "4"}, (4, 1, 3)),  # without --ntasks-per-node
        ({**STEP, "SLURM_NTASKS": "4"}, (4, 1, 3)),
        ({**STEP, "SLURM_STEP_NUM_TASKS": "4", "SLURM_STEP_NUM_NODES": "2",
          "SLURM_STEP_TASKS_PER_NODE": "2(x2)", "SLURM_NNODES": "3"}, (2, 2, 3)),
        ({**STEP, "SLURM_STEP_NUM_TASKS": "1", "SLURM_NTASKS": "8"}, (1, 1, 0)),
    ],
)  # fmt: skip
def test_who_trains_together_is_what_the_launcher_started(environment, variables, expected):
    environment(variables)
    group = Group.of_launcher()
    assert (group.local, group.nodes, group.rank) == expected


@pytest.mark.parametrize(
    "variables",
    [
        {**BATCH, "SLURM_NTASKS": "4"},
        {**BATCH, "SLURM_NTASKS": "4", "SLURM_NTASKS_PER_NODE": "4"},
        {**BATCH, "SLURM_NTASKS_PER_NODE": "2"},
        {**JOB, "SLURM_NNODES": "2"},
        {**JOB, "SLURM_NTASKS": "2", "SLURM_JOB_NAME": "interactive"},
        {**BATCH, "SLURM_NTASKS": "2", "SLURM_STEP_ID": str(2**32 - 5)},  # as a batch script is
        {**BATCH, "SLURM_NTASKS": "2", "SLURM_STEP_ID": str(2**32 - 6),
         "SLURM_STEP_NUM_TASKS": "1"},  # the shell of salloc
    ],
)  # fmt: skip
def test_tasks_that_nobody_started_are_not_waited_for(environment, variables):
    environment(variables)
    with pytest.raises(InputError, match=r"has \d tasks, and srun started none of them"):
        Group.of_launcher()


def test_uneven_tasks_are_refused(environment):
    environment({**STEP, "SLURM_STEP_NUM_TASKS": "4", "SLURM_STEP_NUM_NODES": "2",
                 "SLURM_STEP_TASKS_PER_NODE": "3,1"})  # fmt: skip
    with pytest.raises(InputError, match="as many on each"):
        Group.of_launcher()


def test_a_training_within_another_command_joins_nobody(environment):
    environment({**STEP, "SLURM_STEP_NUM_TASKS": "4"})
    assert launch("cpu").world_size == 1


def test_tasks_that_see_one_gpu_each_are_told_what_to_ask_for(monkeypatch):
    """As with --gpus-per-task; none waits for the others."""
    monkeypatch.setattr(distributed, "choose_device", lambda device: torch.device("cuda"))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(InputError, match="2 processes on this node, and each sees 1 GPU"):
        launch("auto", Group(local=2))


@pytest.mark.slow
def test_two_tasks_of_srun_train_together(small_cohort, tmp_path):
    words = [*FOLDNORM, "train", "wgan_gp", str(small_cohort.folder), "-o", str(tmp_path / "run"),
             "--device", "cpu", *TINY_TRAINING]  # fmt: skip
    step = {"SLURM_JOB_ID": str(os.getpid()), "SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "2",
            "SLURM_STEP_NODELIST": "127.0.0.1", "OMP_NUM_THREADS": "1"}  # fmt: skip
    tasks = [
        subprocess.Popen(words, env={**os.environ, **step, "SLURM_PROCID": n, "SLURM_LOCALID": n},
                         stderr=subprocess.PIPE, text=True)
        for n in "01"
    ]  # fmt: skip
    said = [task.communicate(timeout=300)[1] for task in tasks]
    assert [task.returncode for task in tasks] == [0, 0], said
    assert RunFolder(tmp_path / "run").load_checkpoint("last")["state"]["step"] == 4


@pytest.mark.slow
def test_a_task_whose_other_never_comes_is_ended_by_a_signal(small_cohort, tmp_path):
    words = [*FOLDNORM, "train", "wgan_gp", str(small_cohort.folder), "-o", str(tmp_path / "run"),
             "--device", "cpu", *TINY_TRAINING]  # fmt: skip
    step = {"SLURM_JOB_ID": str(os.getpid()), "SLURM_STEP_ID": "1", "SLURM_STEP_NUM_TASKS": "2",
            "SLURM_STEP_NODELIST": "127.0.0.1", **dict.fromkeys(
                ("SLURM_PROCID", "SLURM_LOCALID"), "0")}  # fmt: skip
    task = subprocess.Popen(words, env={**os.environ, **step}, stderr=subprocess.PIPE, text=True)
    assert task.stderr is not None
    for line in task.stderr:
        if "Initializing distributed" in line:
            break
    time.sleep(1)
    assert task.poll() is None
    task.terminate()
    assert task.wait(timeout=20) == -signal.SIGTERM
    task.stderr.close()
