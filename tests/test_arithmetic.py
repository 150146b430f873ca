"""Flags of a GPU's libraries, and an optimiser that goes on elsewhere."""

import pytest
import torch
from torch import nn

from foldnorm.models.losses import gradient_penalty
from foldnorm.models.precision import full_float32, tf32
from foldnorm.models.protocols import Phase
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
