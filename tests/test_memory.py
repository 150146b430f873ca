"""What a training takes, foretold."""

from functools import partial
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from foldnorm.models.checkpointed import Checkpointed
from foldnorm.models.ddpm import DDPM
from foldnorm.pipeline.cli import main
from foldnorm.pipeline.runs.config import resolve_for
from foldnorm.pipeline.training import memory
from foldnorm.pipeline.training.arithmetic import mixed
from foldnorm.pipeline.training.distributed import launch
from foldnorm.pipeline.training.memory import (
    GIB,
    MAX_MEMORY_SHARE,
    available_bytes,
    bytes_per_sample,
    memory_warning,
    needed_bytes,
    saved_tensor_bytes,
)
from foldnorm.pipeline.training.setup import set_up


def test_what_is_held_is_what_backward_needs():
    layer = nn.Linear(100, 50, bias=False)
    x = torch.randn(8, 100)
    # The input for the weight's gradient (8·100), the output for the square's (8·50), float32.
    held = saved_tensor_bytes(lambda: layer(x).pow(2).sum(), layer)
    assert held == 4 * (8 * 100 + 8 * 50)
    deep = nn.Sequential(*[nn.Linear(100, 100, bias=False) for _ in range(5)])
    assert saved_tensor_bytes(lambda: deep(x).sum(), deep) == 4 * 8 * 100 * 5


def test_bfloat16_holds_half_and_no_copies_of_weights():
    layers = nn.Sequential(*[nn.Linear(100, 100, bias=False) for _ in range(5)])
    x, held = torch.randn(8, 100), {}
    for precision in ("32", "bf16"):
        with mixed(precision, torch.device("cpu")):
            held[precision] = saved_tensor_bytes(lambda: layers(x).sum(), layers)
    assert held["bf16"] == held["32"] / 2 == 2 * 8 * 100 * 5


def test_weights_are_held_four_times():
    layer = nn.Linear(100, 50, bias=False)
    assert needed_bytes(0, 8, layer) == 4 * 4 * 100 * 50


@pytest.mark.parametrize(("batch", "fits"), [(8, 3), (4, 3)])
def test_what_would_fit_is_said(batch, fits):
    layer = nn.Linear(1, 1)
    text = memory_warning(GIB, batch, layer, int((fits + 0.5) * 1.2 * GIB / MAX_MEMORY_SHARE))
    assert f"--training.batch_size {fits} would fit" in text
    assert f"{batch} at once" in text
    assert memory_warning(GIB, fits, layer, int((fits + 0.5) * 1.2 * GIB / MAX_MEMORY_SHARE)) == ""


def test_what_does_not_fit_alone_is_said():
    text = memory_warning(8 * GIB, 2, nn.Linear(1, 1), 4 * GIB)
    assert "one volume alone takes 9.6 GiB" in text
    assert memory_warning(8 * GIB, 2, nn.Linear(1, 1), None) == ""


def test_checkpointing_holds_less_gives_the_same_gradient_and_is_advised():
    images, steps = torch.randn(2, 16, 16), torch.tensor([3, 12])
    found = {}
    for checkpointing in (False, True):
        torch.manual_seed(0)
        model = DDPM((16, 16), channels=[8, 16], attention=[False, False], residual_blocks=2,
                     diffusion_steps=20, sampling_steps=5, checkpointing=checkpointing)  # fmt: skip
        for parameter in model.network.parameters():  # MONAI starts some of its convolutions at 0
            if not parameter.any():
                nn.init.normal_(parameter, std=0.1)
        error = partial(model._error, images[:, None], steps, images[:, None], None)
        held = saved_tensor_bytes(lambda error=error: error().sum(), model)
        error().sum().backward()
        found[checkpointing] = held, [p.grad for p in model.parameters()]
        advised = "checkpointing true" in memory_warning(GIB, 8, model, GIB)
        assert advised == (not checkpointing)
    assert found[True][0] < 0.6 * found[False][0]  # what goes into the blocks counts too
    for plain, again in zip(found[False][1], found[True][1], strict=True):
        assert torch.allclose(plain, again, rtol=1e-4, atol=1e-6)


def test_what_is_computed_again_keeps_its_input_and_the_largest_of_it():
    def block():
        return nn.Sequential(nn.Linear(100, 300, bias=False), nn.Tanh(), nn.Linear(300, 100))

    network = nn.Sequential(*[Checkpointed(block()) for _ in range(5)])
    x = torch.randn(8, 100, requires_grad=True)
    # Of each block 8·100; and of one, its input and 8·300 after the tanh.
    held = saved_tensor_bytes(lambda: network(x).sum(), network)
    assert held == 4 * 8 * (5 * 100 + 100 + 300)


def test_the_stage_that_keeps_most_counts_whenever_it_comes(small_cohort, tmp_path):
    sizes = ["first_stage.init_args.channels=[8]", "first_stage.init_args.code_channels=2",
             "channels=[8]", "attention=[false]"]  # fmt: skip
    words = [f"--model.init_args.{size}" for size in sizes]
    config = resolve_for(small_cohort, "latent_ddpm", [*words, "--training.steps", "10"])
    training = set_up(config, small_cohort, tmp_path / "run", fabric=launch("cpu"), resume=False)
    cpu = torch.device("cpu")
    held = [
        bytes_per_sample(training.model, training.batches, steps, 0, cpu)
        for steps in (range(4), range(4, 10), range(10), range(10, 10))
    ]
    training.batches.close()
    assert min(held[:2]) > 0
    assert held[0] != held[1]
    assert held[2:] == [max(held[:2]), 0]


def test_this_machine_has_some():
    found = available_bytes(torch.device("cpu"))
    assert found is None or GIB / 8 < found < 2**50


def test_training_says_it_and_goes_on_as_before(small_cohort, tmp_path, capsys, monkeypatch):
    words = ["train", "autoencoder", str(small_cohort.folder),
             "--training.steps", "2", "--device", "cpu", "--quiet",
             "--model.init_args.channels", "[8]"]  # fmt: skip
    assert main([*words, "-o", str(tmp_path / "a")]) == 0
    assert "warning" not in capsys.readouterr().err
    monkeypatch.setattr(memory, "available_bytes", lambda device: 2**20)
    assert main([*words, "-o", str(tmp_path / "b")]) == 0
    assert "foldnorm: warning: training takes about" in capsys.readouterr().err
    first, second = ((tmp_path / name / "metrics.csv").read_text() for name in "ab")
    assert first == second


@pytest.mark.parametrize(("system", "mib"), [("linux", 3072.0), ("darwin", 3.0)])
def test_the_peak_is_in_mib_whatever_the_system_counts_in(system, mib, monkeypatch):
    training = SimpleNamespace(
        fabric=SimpleNamespace(device=torch.device("cpu")),
        model=torch.nn.Linear(1, 1),
        state=SimpleNamespace(seconds=0.0),
        paces=[],
    )
    used = SimpleNamespace(ru_maxrss=3 * 2**20)
    monkeypatch.setattr(memory.resource, "getrusage", lambda who: used)
    monkeypatch.setattr(memory.sys, "platform", system)
    assert memory.cost_of(training)["peak_memory_mib"] == mib
