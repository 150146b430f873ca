"""Batches by number: epochs, processes, workers that read ahead."""

import os
import signal
import subprocess
import sys
import time
from multiprocessing import active_children

import numpy as np
import pytest
import torch
from monai.transforms import RandomizableTransform

from foldnorm.pipeline.data.batches import Batches, Draws, workers_for
from foldnorm.preprocessing.core.errors import InputError

CPU, GPU = torch.device("cpu"), torch.device("meta")  # any that is no CPU


@pytest.fixture
def new_children():
    """Return the processes that were started since the test began."""
    others = {child.pid for child in active_children()}  # of trainings that an error ended
    return lambda: [child for child in active_children() if child.pid not in others]


class Noisy(RandomizableTransform):
    """Adds what no two draws have in common, as any random transform of MONAI."""

    def __call__(self, item):
        noise = self.R.randint(0, 9, item["image"].shape).astype(np.uint8)
        return {**item, "image": item["image"] + noise}


@pytest.fixture
def draws(small_cohort):
    return Draws(small_cohort.volumes, small_cohort.indices("train"), seed=3, transforms=[Noisy()])


def test_batches_visit_every_volume_once_an_epoch_and_any_batch_can_be_had(small_cohort):
    indices = small_cohort.indices("train")
    batches = Batches(Draws(small_cohort.volumes, indices, seed=3), 1)
    epoch = [int(batches.indices_of(n)[0]) for n in range(len(indices))]
    assert sorted(epoch) == indices.tolist()
    assert epoch != [int(batches.indices_of(n)[0]) for n in range(len(indices), 2 * len(indices))]
    again = Batches(Draws(small_cohort.volumes, indices, seed=3), 1)
    assert again.indices_of(len(indices) - 1)[0] == epoch[-1]
    assert torch.equal(batches.batch(2), again.batch(2))


def test_processes_share_out_a_batch(small_cohort):
    indices = small_cohort.indices("train")
    draws = Draws(small_cohort.volumes, indices)
    whole = Batches(draws, 4).indices_of(3)
    parts = [Batches(draws, 4, rank=r, world_size=2).indices_of(3) for r in (0, 1)]
    assert [*parts[0], *parts[1]] == whole.tolist()
    few = Draws(small_cohort.volumes, indices[:8])
    with pytest.raises(InputError, match="9 processes for 8 training volumes: start at most as"):
        Batches(few, 9, world_size=9)
    with pytest.raises(InputError, match="multiple of the 3"):
        Batches(draws, 4, world_size=3)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_batch_is_the_same_whoever_reads_it(draws, workers):
    alone, ahead = Batches(draws, 2), Batches(draws, 2, workers=workers)
    for number in (5, 6, 7, 7, 2, 3, 9):  # resumed, asked for again, and out of order
        assert torch.equal(ahead.batch(number), alone.batch(number))
    assert not torch.equal(alone.batch(5), alone.batch(6))
    assert torch.equal(ahead.first_of(6).volume, alone.batch(6)[:1])
    ahead.close()


def test_workers_stack_batches(draws, monkeypatch):
    """So that what is pinned for a GPU is the batch that is copied to it."""
    batches = Batches(draws, 2, workers=1)
    first = batches.batch(0)

    def refuse(*given, **named):
        raise AssertionError("a batch was copied after it had been read")

    monkeypatch.setattr(torch, "stack", refuse)
    assert batches.batch(1).shape == first.shape
    batches.close()


def test_workers_end_with_their_batches(draws, new_children):
    batches = Batches(draws, 2, workers=2)
    batches.batch(0)
    assert len(new_children()) == 2
    batches.close()
    deadline = time.monotonic() + 60  # on a busy machine
    while new_children():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_python_ends_though_workers_leave_signals():
    """Workers that were never closed are ended with the process."""
    code = (
        "import numpy as np; from foldnorm.pipeline.data.batches import Batches, Draws; "
        "volumes = np.zeros((4, 2, 2, 2), np.uint8); "
        "b = Batches(Draws(volumes, np.arange(4)), 2, workers=2); print(b.batch(0).shape); "
        "import builtins; builtins.kept = b"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=300, text=True)
    assert done.returncode == 0, done.stderr
    assert "[2, 2, 2, 2]" in done.stdout


def test_workers_leave_signals_to_the_process_that_trains(draws, new_children):
    batches = Batches(draws, 2, workers=1)
    batches.batch(0)
    for child in new_children():
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
            os.kill(child.pid, number)
    time.sleep(0.2)
    expected = Batches(draws, 2)
    for number in range(1, 9):
        assert torch.equal(batches.batch(number), expected.batch(number))
    batches.close()


def test_a_worker_that_is_ended_is_told_with_what_helps(draws, new_children):
    batches = Batches(draws, 2, workers=1)
    batches.batch(0)
    for child in new_children():
        os.kill(child.pid, signal.SIGKILL)
    with pytest.raises(InputError, match=r"--training\.workers 0 needs none"):
        [batches.batch(number) for number in range(1, 99)]
    batches.close()


def test_a_worker_that_ends_interrupts_nothing_else(draws, new_children):
    before = signal.getsignal(signal.SIGCHLD)
    batches = Batches(draws, 2, workers=1)
    batches.batch(0)
    assert signal.getsignal(signal.SIGCHLD) is before
    (worker,) = new_children()
    os.kill(worker.pid, signal.SIGKILL)
    worker.join()
    sum(range(100_000))
    batches.close()


@pytest.mark.parametrize("workers", [0, 1])
def test_what_is_wrong_with_a_volume_is_said_in_one_line(small_cohort, workers):
    def refuse(item):
        raise InputError("no fold in this volume")

    draws = Draws(small_cohort.volumes, small_cohort.indices("train"), transforms=[refuse])
    with pytest.raises(InputError, match=r"^no fold in this volume$"):
        Batches(draws, 2, workers=workers).batch(1)


def test_no_training_volume_is_refused(small_cohort):
    with pytest.raises(InputError, match="the training split is empty"):
        Draws(small_cohort.volumes, np.zeros(0, dtype=np.int64))


def test_as_many_workers_as_there_are_cpus_beside_a_gpu(monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda process: set(range(12)))
    monkeypatch.setattr("sys.platform", "linux")
    assert workers_for(None, GPU, 2) == 6
    assert workers_for(None, GPU, 100) == 1
    assert workers_for(None, CPU, 1) == 1
    assert workers_for(0, GPU, 1) == 0
    monkeypatch.setattr("sys.platform", "darwin")
    assert workers_for(None, GPU, 1) == 0
    assert workers_for(4, GPU, 1) == 4
