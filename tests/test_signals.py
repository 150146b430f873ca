"""Signals to a program that trains once, or several times one after the other."""

import os
import signal
import subprocess
import sys
import time

import pytest

import foldnorm.pipeline.training.train as train_module
from foldnorm.pipeline.cli import main
from foldnorm.pipeline.runs.run_folder import RunFolder
from foldnorm.pipeline.training.signals import STOPPED, StopFlag, ended_by_signals, stop_on_signals
from foldnorm.preprocessing.core.errors import Stopped

TINY = ["--model.init_args.channels=[8]", "--model.init_args.code_channels=2",
        "--training.batch_size=4", "--device", "cpu", "--quiet"]  # fmt: skip


def signal_to_me(number=signal.SIGTERM):
    os.kill(os.getpid(), number)


def study(number, reached, *, in_training):
    """Two trainings, of which the first, or what comes before it, is signalled."""
    with ended_by_signals():
        if not in_training:
            signal_to_me(number)
        for training in "ab":
            with stop_on_signals(number) as flag:
                signal_to_me(number)
                reached.append(f"{training} {flag.code}")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 75), (signal.SIGINT, 130)])
@pytest.mark.parametrize("in_training", [False, True])
def test_between_trainings_a_signal_ends_at_once_and_in_one_at_its_end(number, code, in_training):
    before, reached = signal.getsignal(number), []
    with pytest.raises(Stopped) as stopped:
        study(number, reached, in_training=in_training)
    assert stopped.value.code == code
    assert reached == [f"a {code}"] * in_training
    assert signal.getsignal(number) is before


def test_a_training_alone_or_stopped_by_itself_ends_nothing_around_it():
    with stop_on_signals(signal.SIGTERM) as flag:
        signal_to_me()
    assert flag.code == STOPPED
    with ended_by_signals(), stop_on_signals(signal.SIGTERM, flag=StopFlag(STOPPED)):
        pass


@pytest.mark.parametrize("command", ["search", "crossvalidate"])
def test_a_signal_in_the_last_step_of_a_training_ends_the_whole_program(
    command, small_cohort, bars, tmp_path, monkeypatch
):
    """The training is finished all the same: there is nothing more of it to stop."""
    out, validate, calls = tmp_path / "out", train_module.validate, []

    def validate_and_be_told_to_stop(*arguments, **more):
        calls.append(1)
        signal_to_me()
        return validate(*arguments, **more)

    monkeypatch.setattr(train_module, "validate", validate_and_be_told_to_stop)
    words = {
        "search": ["search", "autoencoder", small_cohort.folder, "-o", out, *TINY,
                   "--sampler", "grid", "--vary", "training.learning_rate=1e-3,1e-4",
                   "--training.steps=2", "--training.validate_every=1"],
        "crossvalidate": ["crossvalidate", "cnn_classifier", bars, "-o", out, "--cv-folds", "2",
                          "--model.init_args.target", "way", "--training.steps", "1",
                          "--device", "cpu", "--quiet"],
    }  # fmt: skip
    before = signal.getsignal(signal.SIGTERM)
    assert main(list(map(str, words[command]))) == STOPPED
    assert len(calls) == 1
    (config,) = out.glob("**/config.yaml")
    assert RunFolder(config.parent).reached == 1
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.slow
def test_a_comparison_that_is_stopped_has_stopped_its_training_too(small_cohort, tmp_path):
    words = ["compare", "autoencoder", small_cohort.folder, "-o", tmp_path / "c", *TINY,
             "--steps", "1000000"]  # fmt: skip
    command = [sys.executable, "-m", "foldnorm.pipeline.cli", *map(str, words)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    run = tmp_path / "c/autoencoder/seed-0"
    deadline = time.monotonic() + 120
    while not (run / "environment.json").is_file() and time.monotonic() < deadline:
        time.sleep(0.1)
    time.sleep(1.0)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=60)
    assert process.returncode == STOPPED
    assert "the same command goes on" in said
    reached = RunFolder(run).reached
    assert 0 < reached < 1000000
    time.sleep(1.0)
    assert RunFolder(run).reached == reached  # nobody trains on
