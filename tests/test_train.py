"""The loop: bit-exact resume, clean stops, two processes like one."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import TINY_TRAINING

from foldnorm.models.wgan_gp import WGANGP
from foldnorm.pipeline.artifacts import RUN_SAMPLE
from foldnorm.pipeline.cli import main
from foldnorm.pipeline.runs.metrics_log import MetricsLog
from foldnorm.pipeline.runs.options import TrainingOptions
from foldnorm.pipeline.runs.run_folder import RunFolder
from foldnorm.pipeline.training.distributed import clip_gradients, launch
from foldnorm.pipeline.training.setup import TrainingState, set_up
from foldnorm.preprocessing.core.errors import InputError


def train(cohort, out, *more):
    return main(
        ["train", "wgan_gp", str(cohort.folder), "-o", str(out),
         "--device", "cpu", "--quiet", *TINY_TRAINING, *more]
    )  # fmt: skip


def weights(run):
    return RunFolder(run).load_checkpoint("last")["model"]


def test_a_run_folder_holds_what_it_promises(small_run, small_cohort):
    run = RunFolder.open(small_run)
    for name in ("config.yaml", "data.json", "environment.json", "metrics.csv", "MODEL_CARD.md"):
        assert (small_run / name).is_file(), name
    assert run.checkpoint("best").is_file()
    assert len(list(run.folder.glob(RUN_SAMPLE.pattern))) == 2
    assert run.data["shape"] == list(small_cohort.shape)
    everyone = [row["participant_id"] for row in small_cohort.rows]
    assert run.trained_on(everyone) == sorted(
        small_cohort.rows[i]["participant_id"] for i in small_cohort.indices("train")
    )
    table = MetricsLog(small_run / "metrics.csv", up_to=99)
    assert table.column("generator/cross_entropy")[0] == [1, 2, 3, 4]
    for name in ("dice", "precision", "recall", "volume_ratio", "opening_excess", "assd"):
        assert table.column(f"validation/{name}")[0] == [2, 4], name


def test_figures_reach_their_file_before_a_checkpoint(tmp_path, monkeypatch):
    """A training of an hour that validates only at its end has to show where it is."""
    path = tmp_path / "metrics.csv"
    log = MetricsLog(path)
    log.add(10, {"loss": 2.0})
    assert not path.is_file(), "not with every row of a training that logs often"
    monkeypatch.setattr("foldnorm.pipeline.runs.metrics_log.WRITE_EVERY", 0.0)
    log.add(20, {"loss": 1.0})
    assert MetricsLog(path, up_to=20).rows == {10: {"loss": 2.0}, 20: {"loss": 1.0}}
    assert MetricsLog(path, up_to=10).rows == {10: {"loss": 2.0}}, "resumed from step 10"


def test_what_was_not_measured_is_no_figure(tmp_path):
    """An empty volume has no distance between sheets."""
    log = MetricsLog(tmp_path / "metrics.csv")
    for step, value in ((10, float("nan")), (20, 0.5), (30, 0.4)):
        log.add(step, {"validation/assd": value, "validation/loss": 1 / step})
    assert log.column("validation/assd") == ([20, 30], [0.5, 0.4])
    log.save()
    run = RunFolder(tmp_path)
    chosen = {"monitor": "validation/assd", "monitor_mode": "min"}
    run.write_config({"model": {"class_path": "foldnorm.models.WGANGP"}, "training": chosen})
    best, figures = run.best_metrics(MetricsLog(tmp_path / "metrics.csv", up_to=99))
    assert (best, figures["assd"]) == (30, 0.4)


def test_a_run_that_is_written_over_leaves_nothing_behind(small_run, small_cohort, tmp_path):
    """Or a training that is killed early would go on from the weights of another."""
    out = tmp_path / "run"
    shutil.copytree(small_run, out)
    kept = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    assert train(small_cohort, out) == 2
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == kept
    config = RunFolder.open(out).config
    set_up(config, small_cohort, out, fabric=launch("cpu"), resume=False).batches.close()
    assert RunFolder(out).reached == 0
    left = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    assert left == {"config.yaml", "data.json", "environment.json", "MODEL_CARD.md"}


@pytest.mark.parametrize("stop", [1, 3])
def test_a_resumed_run_equals_an_unbroken_one_bit_for_bit(small_cohort, small_run, tmp_path, stop):
    out = tmp_path / "run"
    assert train(small_cohort, out, "--training.session_steps", str(stop)) == 75
    assert train(small_cohort, out, "--resume", "auto") == 0
    for name, tensor in weights(small_run).items():
        assert torch.equal(tensor, weights(out)[name]), name
    whole = MetricsLog(small_run / "metrics.csv", up_to=99).column("critic/loss")
    assert MetricsLog(out / "metrics.csv", up_to=99).column("critic/loss") == whole


def test_a_checkpoint_alone_is_no_run_to_go_on_with(small_cohort, small_run, tmp_path, capsys):
    """As when a folder was taken away from under a run that then saved its state."""
    out = tmp_path / "run"
    shutil.copytree(small_run, out)
    (out / "config.yaml").unlink()
    assert train(small_cohort, out, "--resume", "auto") == 2
    assert f"not a run folder (no config.yaml): {out}" in capsys.readouterr().err


def test_the_same_seed_gives_the_same_run_and_another_seed_another(
    small_cohort, small_run, tmp_path
):
    assert train(small_cohort, tmp_path / "same") == 0
    assert train(small_cohort, tmp_path / "other", "--seed", "5") == 0
    name = "encoder.to_map.conv.weight"
    assert torch.equal(weights(tmp_path / "same")[name], weights(small_run)[name])
    assert not torch.equal(weights(tmp_path / "other")[name], weights(small_run)[name])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 75), (signal.SIGUSR1, 75), (signal.SIGINT, 130)]
)
def test_a_signal_saves_the_state_and_resuming_finishes(
    small_cohort, small_run, tmp_path, number, code
):
    out = tmp_path / "run"
    arguments = ["train", "wgan_gp", str(small_cohort.folder), "-o",
                 str(out), "--device", "cpu", *TINY_TRAINING, "--training.steps", "100000",
                 "--training.validate_every", "100000"]  # fmt: skip
    process = subprocess.Popen([sys.executable, "-m", "foldnorm.pipeline.cli", *arguments])
    deadline = time.monotonic() + 120
    while not (out / "environment.json").is_file() and time.monotonic() < deadline:
        time.sleep(0.1)
    time.sleep(1.0)
    process.send_signal(number)
    assert process.wait(timeout=60) == code
    reached = RunFolder(out).load_checkpoint("last")["state"]["step"]
    assert 0 < reached < 100000
    assert train(small_cohort, out, "--resume", "auto", "--training.steps", str(reached + 1)) == 0
    assert RunFolder(out).load_checkpoint("last")["state"]["step"] == reached + 1


@pytest.mark.slow
def test_two_processes_equal_one_on_the_whole_batch(small_cohort, small_run, tmp_path):
    out = tmp_path / "run"
    arguments = ["train", "wgan_gp", str(small_cohort.folder), "-o",
                 str(out), "--device", "cpu", "--quiet", *TINY_TRAINING]  # fmt: skip
    subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
         "-m", "foldnorm.pipeline.cli", *arguments],
        check=True, timeout=300, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    # Relative to the tensor: Adam divides by the gradient's size, so an entry whose gradient is all
    # rounding moves by its rounding.
    for name, tensor in weights(small_run).items():
        difference = torch.linalg.vector_norm(tensor - weights(out)[name])
        assert difference <= 1e-5 * torch.linalg.vector_norm(tensor), name


def test_mixed_precision_and_tensorboard(small_cohort, tmp_path):
    out = tmp_path / "run"
    more = ["--training.precision", "bf16", "--training.tensorboard", "true"]
    assert train(small_cohort, out, *more) == 0
    assert list((out / "tensorboard").glob("events*"))
    table = MetricsLog(out / "metrics.csv", up_to=99)
    assert table.column("critic/penalty")[1]
    assert {p.dtype for p in weights(out).values()} == {torch.float32}


def test_a_diverging_run_says_so(small_cohort, tmp_path, capsys):
    more = ["--training.learning_rate", "1e30", "--training.steps", "50"]
    assert train(small_cohort, tmp_path / "run", *more) == 2
    assert "training diverged at step" in capsys.readouterr().err


@pytest.mark.parametrize("spoils", ["loss", "weight"])
def test_what_is_not_finite_is_never_saved(spoils, small_cohort, tmp_path, monkeypatch, capsys):
    """The step is named, not that of the next row of metrics.csv; the last good state is kept."""
    loss, steps = WGANGP.loss, []

    def spoilt_loss(model, phase, volumes, noise, condition=None):
        steps.append(noise.step)
        terms = loss(model, phase, volumes, noise, condition)
        spoil = spoils == "loss" and noise.step == 4 and phase == "generator"
        return {**terms, "loss": terms["loss"] * float("nan")} if spoil else terms

    def spoilt_weight(model, phase):
        if spoils == "weight" and steps[-1] == 5 and phase == "generator":
            next(model.encoder.parameters()).data.fill_(float("inf"))

    monkeypatch.setattr(WGANGP, "loss", spoilt_loss)
    monkeypatch.setattr(WGANGP, "after_step", spoilt_weight)
    out = tmp_path / "run"
    more = [
        "--training.steps",
        "9",
        "--training.log_every",
        "9",
        "--training.validate_every",
        "3",
        "--model.init_args.reconstruction_steps",
        "0",
    ]
    assert train(small_cohort, out, *more) == 2
    said = capsys.readouterr().err
    assert "training diverged" in said
    assert "last good state is kept" in said
    if spoils == "loss":
        assert "at step 5, first in phase generator" in said
    kept = RunFolder(out).load_checkpoint("last")
    assert kept["state"]["step"] == 3
    assert all(tensor.isfinite().all() for tensor in kept["model"].values())
    assert max(MetricsLog(out / "metrics.csv", up_to=99).rows) == 3


def test_a_cohort_without_training_volumes_is_refused(small_cohort, tmp_path, capsys):
    from conftest import skeleton_source

    source = skeleton_source(tmp_path / "source", 1)
    out = tmp_path / "one"
    words = ["preprocess", str(source), "-o", str(out), "--pad", "24,24,24", "--n-procs", "1"]
    assert main([*words, "--split-fractions", "0", "0", "1", "--quiet"]) == 0
    code = main(["train", "wgan_gp", str(out), "-o",
                 str(tmp_path / "run"), "--device", "cpu", "--quiet", *TINY_TRAINING])  # fmt: skip
    assert code == 2
    assert "training split is empty" in capsys.readouterr().err


def test_an_existing_run_is_not_trampled_on(small_cohort, small_run, capsys):
    assert train(small_cohort, small_run) == 2
    assert "run exists" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--device", "cuda:7"], "CUDA devices"),
        (["--device", "tpu"], "expected auto, cpu"),
        (["--training.stepz", "3"], "stepz"),
        (["--training.steps", "many"], "steps"),
        (["--training.steps", "0"], "at least 1"),
        (["--model.init_args.colour", "red"], "colour"),
        (["--model.init_args.channels", "[8,8,8,8,8]"], "multiple of"),
    ],
)
def test_bad_arguments_exit_2_with_one_line(small_cohort, tmp_path, capsys, arguments, reason):
    assert train(small_cohort, tmp_path / "run", *arguments) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert reason in lines[0]


def test_unknown_configurations_and_cohorts_exit_2_with_one_line(small_cohort, tmp_path, capsys):
    for config, cohort, reason in (
        ("no_such", str(small_cohort.folder), "neither a file nor one of"),
        ("wgan_gp", "no-such-folder", "no such file or folder: no-such-folder"),
        ("wgan_gp", str(tmp_path), "not a cohort folder"),
    ):
        assert main(["train", config, cohort, "-o", str(tmp_path / "run")]) == 2
        lines = capsys.readouterr().err.strip().splitlines()
        assert len(lines) == 1
        assert reason in lines[0]


def test_a_checkpoint_that_does_not_fit_is_refused(small_cohort, small_run, tmp_path, capsys):
    import shutil

    out = tmp_path / "run"
    shutil.copytree(small_run, out)
    for change, what in (
        (["--model.init_args.channels", "[16]"], "channels"),
        (["--model.init_args.kl_weight", "7"], "kl_weight"),
        (["--model", "foldnorm.models.wgan.WGAN"], "class_path"),
    ):
        assert train(small_cohort, out, "--resume", "auto", *change) == 2
        said = capsys.readouterr().err
        assert "model configuration differs from the run" in said
        assert what in said
    state = RunFolder(out).load_checkpoint("last")
    state["model"].popitem()
    RunFolder(out).save_checkpoint("last", state)
    assert train(small_cohort, out, "--resume", "auto", "--training.steps", "5") == 2
    assert "checkpoint does not fit the configuration" in capsys.readouterr().err
    RunFolder(out).checkpoint("last").write_bytes(b"not a checkpoint")
    assert train(small_cohort, out, "--resume", "auto") == 2
    assert "not readable as a checkpoint" in capsys.readouterr().err


def test_a_finished_run_can_train_for_longer(small_cohort, small_run, tmp_path):
    import shutil

    out = tmp_path / "run"
    shutil.copytree(small_run, out)
    assert train(small_cohort, out, "--resume", "auto", "--training.steps", "6") == 0
    assert RunFolder(out).load_checkpoint("last")["state"]["step"] == 6
    assert RunFolder(out).config["training"]["steps"] == 6


def test_a_pickle_in_a_checkpoint_is_not_run(small_run, tmp_path):
    run = RunFolder(tmp_path)

    class Trap:
        def __reduce__(self):
            return (os.system, (f"touch {tmp_path / 'sprung'}",))

    run.checkpoint("last").parent.mkdir()
    torch.save({"model": Trap()}, run.checkpoint("last"))
    with pytest.raises(InputError, match="not readable as a checkpoint"):
        run.load_checkpoint("last")
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("stop", [1, 3])
def test_a_run_with_all_options_resumes_bit_for_bit(small_cohort, tmp_path, stop):
    options = ["--training.ema", "0.5", "--training.gradient_clip", "0.1", "--training.decay",
               "linear", "--training.warmup_steps", "2"]  # fmt: skip
    assert train(small_cohort, tmp_path / "whole", *options) == 0
    out = tmp_path / "run"
    assert train(small_cohort, out, "--training.session_steps", str(stop), *options) == 75
    assert train(small_cohort, out, "--resume", "auto", *options) == 0
    whole, resumed = (RunFolder(p).load_checkpoint("last") for p in (tmp_path / "whole", out))
    for part in ("model", "average"):
        for name, tensor in whole[part].items():
            assert torch.equal(tensor, resumed[part][name]), name


def test_adam_still_counts_its_steps_on_the_cpu_after_a_resume_on_another_device(
    small_run, small_cohort
):
    # "meta" stands for a GPU: weights and moments of Adam go there, its counts do not.
    elsewhere = SimpleNamespace(
        device=torch.device("meta"), is_global_zero=False, global_rank=0, world_size=1
    )
    config = RunFolder.open(small_run).config
    training = set_up(config, small_cohort, small_run, fabric=elsewhere, resume=True)
    training.batches.close()
    states = [s for o in training.optimizers.values() for s in o.state.values()]
    assert training.state.step == 4
    assert {state["exp_avg"].device.type for state in states} == {"meta"}
    assert {state["step"].device.type for state in states} == {"cpu"}


def test_the_average_of_the_weights_is_what_a_finished_run_is(small_cohort, tmp_path):
    out = tmp_path / "run"
    words = ["--training.ema", "0.5", "--training.validate_every", "1"]
    averages = []
    for step in range(1, 4):
        assert train(small_cohort, out, *words, "--training.steps", str(step), "--resume",
                     "auto") == 0  # fmt: skip
        averages.append(RunFolder(out).load_checkpoint("last"))
    name = "encoder.to_map.conv.weight"
    expected = averages[0]["model"][name]
    for checkpoint in averages[1:]:
        expected = 0.5 * expected + 0.5 * checkpoint["model"][name]
        assert torch.allclose(checkpoint["average"][name], expected, atol=1e-7)
    best = RunFolder(out).load_checkpoint("best")
    model = RunFolder.open(out).load().model
    assert torch.equal(dict(model.named_parameters())[name], best["average"][name])
    assert not torch.equal(best["average"][name], best["model"][name])


def test_training_ends_when_nothing_becomes_better(small_cohort, tmp_path):
    """A learning rate of nearly nothing: the first validation stays the best but for rounding."""
    out = tmp_path / "run"
    options = ["--training.patience", "2", "--training.validate_every", "1", "--training.steps",
               "50", "--training.monitor", "validation/dice"]  # fmt: skip
    assert train(small_cohort, out, "--training.learning_rate", "1e-30", *options) == 0
    assert RunFolder(out).load_checkpoint("last")["state"]["step"] == 3
    assert (out / "MODEL_CARD.md").is_file()
    assert train(small_cohort, out, "--resume", "auto", *options) == 0  # and stays ended
    assert RunFolder(out).load_checkpoint("last")["state"]["step"] == 3


def test_a_checkpoint_of_release_0_1_keeps_its_patience():
    old = {"step": 4, "best": 0.5, "waited": 3, "seconds": 1.0}
    state = TrainingState.from_dict(old)
    assert (state.step, state.validations_without_improvement) == (4, 3)
    assert TrainingState.from_dict(vars(state)) == state


@pytest.mark.slow
def test_two_processes_end_early_together(small_cohort, tmp_path):
    out = tmp_path / "run"
    arguments = ["train", "wgan_gp", str(small_cohort.folder), "-o",
                 str(out), "--device", "cpu", "--quiet", *TINY_TRAINING, "--training.patience",
                 "1", "--training.validate_every", "1", "--training.steps", "50",
                 "--training.learning_rate", "1e-30"]  # fmt: skip
    subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
         "-m", "foldnorm.pipeline.cli", *arguments],
        check=True, timeout=120, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert RunFolder(out).load_checkpoint("last")["state"]["step"] < 50


@pytest.mark.slow
def test_what_one_process_cannot_read_ends_both(small_cohort, tmp_path):
    shutil.copytree(small_cohort.folder, tmp_path / "cohort")
    stored = np.load(tmp_path / "cohort/volumes.npy")
    stored[small_cohort.indices("train")[0], 3, 3, 3] = 99
    np.save(tmp_path / "cohort/volumes.npy", stored)
    arguments = ["train", "wgan_gp", str(tmp_path / "cohort"), "-o", str(tmp_path / "run"),
                 "--device", "cpu", "--quiet", *TINY_TRAINING]  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
         "-m", "foldnorm.pipeline.cli", *arguments],
        timeout=120, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode
    said = [line for line in done.stderr.splitlines() if "class number 99" in line]
    # torchrun ends the one that is later, which may not have said it yet.
    assert len(said) in (1, 2), done.stderr
    assert all(re.fullmatch(r"foldnorm: error: sub-[^:]+: class number 99[^:]+: \S+ \(sub-\w+\)",
                            line) for line in said), done.stderr  # fmt: skip
    assert not (tmp_path / "run/metrics.csv").exists()


def test_gradients_are_shortened_together():
    parameters = [torch.nn.Parameter(torch.zeros(2)) for _ in range(2)]
    for p, value in zip(parameters, (3.0, 4.0), strict=True):
        p.grad = torch.tensor([value, 0.0])
    clip_gradients([torch.optim.SGD([p], lr=1) for p in parameters], 1.0)
    assert parameters[0].grad[0].item() == pytest.approx(0.6, rel=1e-4)
    assert parameters[1].grad[0].item() == pytest.approx(0.8, rel=1e-4)


@pytest.mark.parametrize(
    ("decay", "expected"),
    [("none", [0.5, 1, 1]), ("linear", [0.5, 0.525, 0.05]), ("cosine", [0.5, 0.525, 0.05])],
)  # fmt: skip
def test_learning_rates_rise_and_fall(decay, expected):
    options = TrainingOptions(steps=10, learning_rate=1.0, decay=decay, warmup_steps=2)
    rates = [options.rate("encoder", step) for step in (0, 5, 10)]
    assert rates == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(
    "wrong", [{"ema": 1.0}, {"patience": 0}, {"gradient_clip": -1.0}, {"warmup_steps": -1}]
)
def test_options_that_make_no_sense_are_refused(wrong):
    with pytest.raises(InputError, match=f"training.{next(iter(wrong))}: expected"):
        TrainingOptions(**wrong)
