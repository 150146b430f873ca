"""Flags of a GPU's libraries, and an optimiser that goes on elsewhere."""

import numpy as np
import pytest
import torch
from torch import nn

from foldnorm.models.autoencoder import Autoencoder
from foldnorm.models.losses import gradient_penalty
from foldnorm.models.precision import float32_of, full_float32, tf32
from foldnorm.models.protocols import Phase
from foldnorm.pipeline.runs.trained_model import TrainedModel
from foldnorm.pipeline.training.arithmetic import arithmetic, of_backward
from foldnorm.pipeline.training.setup import load_optimizer

GPU = torch.device("cuda")  # flags can be set without one


def flags():
    return torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32


@pytest.mark.parametrize(("precision", "allowed"), [("32", False), ("tf32", True), ("bf16", True)])
def test_the_precision_of_a_training_sets_both_flags_and_leaves_them_as_they_were(
    precision, allowed
):
    before = *flags(), torch.backends.cudnn.benchmark
    with arithmetic(precision, GPU):
        assert flags() == (allowed, allowed)
        assert torch.backends.cudnn.benchmark
        with full_float32(torch.device("cpu")):  # a CPU's arithmetic is nobody else's
            assert flags() == (allowed, allowed)
        with of_backward(Phase(("critic",), full_float32=True), GPU):
            assert flags() == (False, False)
        with of_backward(Phase(("generator",)), GPU):
            assert flags() == (allowed, allowed)
    assert (*flags(), torch.backends.cudnn.benchmark) == before


@pytest.mark.parametrize(
    ("trained_in", "allowed"), [("32", False), ("tf32", True), ("bf16", True), (None, None)]
)
def test_a_model_is_used_in_the_arithmetic_of_its_training(trained_in, allowed, monkeypatch):
    as_on_a_gpu = lambda precision, device: float32_of(precision, GPU)  # noqa: E731
    monkeypatch.setattr("foldnorm.pipeline.runs.trained_model.float32_of", as_on_a_gpu)
    model, before, seen = Autoencoder((8, 8, 8), channels=[8]).eval(), flags(), []
    for network in (model.encoder.refine, model.generator):
        network.register_forward_hook(lambda *_: seen.append((*flags(), torch.is_grad_enabled())))
    config = {} if trained_in is None else {"training": {"precision": trained_in}}
    trained = TrainedModel(model, torch.device("cpu"), config=config)
    brain = np.ones((8, 8, 8), np.uint8)
    codes = trained.encode(brain)
    assert trained.decode(codes).shape == trained.reconstruct(brain).shape == (1, 8, 8, 8)
    assert len(seen) == 4  # encoded and decoded, and both at once
    expected = before if allowed is None else (allowed, allowed)
    assert set(seen) == {(*expected, False)}
    assert flags() == before


def test_algorithms_are_not_raced_where_they_are_to_be_deterministic():
    torch.use_deterministic_algorithms(True)
    try:
        with arithmetic("tf32", GPU):
            assert not torch.backends.cudnn.benchmark
    finally:
        torch.use_deterministic_algorithms(False)


def test_a_penalty_is_computed_without_autocast():
    seen = []

    def critic(volumes):
        seen.append(torch.is_autocast_enabled("cpu"))
        return volumes.flatten(1).sum(1)

    with torch.autocast("cpu", torch.bfloat16), tf32(torch.device("cpu"), allowed=True):
        gradient_penalty(critic, torch.zeros(2, 3, 4), torch.ones(2, 3, 4), torch.rand(2))
    assert seen == [False]


@pytest.mark.parametrize(("first", "second"), [(True, False), (False, True)])
def test_a_fused_adam_goes_on_where_another_was_and_the_other_way_round(first, second):
    def trained(layer, optimizer, steps):
        for _ in range(steps):
            optimizer.zero_grad()
            layer(torch.ones(2, 4)).square().sum().backward()
            optimizer.step()
        return layer.weight.detach().clone()

    def made(fused):
        torch.manual_seed(0)
        layer = nn.Linear(4, 3)
        return layer, torch.optim.Adam(layer.parameters(), lr=0.1, fused=fused)

    expected = trained(*made(False), 6)
    layer, optimizer = made(first)
    trained(layer, optimizer, 3)
    again, other = made(second)
    again.load_state_dict(layer.state_dict())
    load_optimizer(other, optimizer.state_dict())
    assert other.param_groups[0]["fused"] is second
    assert torch.allclose(trained(again, other, 3), expected, atol=1e-6)
