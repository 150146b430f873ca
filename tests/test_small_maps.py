"""Gradients in bfloat16 on a CPU: right for every map, and the same each time."""

import pytest
import torch
from torch import nn

from foldnorm.models.checkpointed import Checkpointed
from foldnorm.models.small_maps import small_maps_in_float32

CPU = torch.device("cpu")
SMALL = {  # convolutions whose weight gradients oneDNN 3.12 gets wrong in bfloat16, and their maps
    "3 wide, two deep": (nn.Conv3d(32, 32, 3, padding=1), (2, 5, 6)),
    "5 wide, four deep": (nn.Conv3d(32, 32, 5, padding="same"), (4, 6, 6)),
    "stride 2, one high": (nn.Conv3d(32, 32, 3, stride=2, padding=1), (6, 1, 6)),
    "stride 2, one across": (nn.Conv3d(32, 32, 3, stride=(2, 2, 2), padding=1), (6, 6, 1)),
    "stride 2, as deep as the kernel": (nn.Conv3d(32, 32, 4, 2, padding=3), (4, 6, 6)),
    "stride 2, an image": (nn.Conv2d(32, 32, 3, stride=2, padding=1), (6, 1)),
    "transposed": (nn.ConvTranspose3d(32, 32, 3, padding=2), (4, 6, 6)),
}
LARGE = {
    "3 wide, three deep": (nn.Conv3d(32, 32, 3, padding=1), (3, 7, 5)),
    "1 wide, a point": (nn.Conv3d(32, 32, 1), (1, 1, 1)),
    "halves": (nn.Conv3d(32, 32, 2, stride=2), (3, 4, 4)),
    "doubles": (nn.ConvTranspose3d(32, 32, 2, stride=2), (2, 3, 2)),
    "an image": (nn.Conv2d(32, 32, 3, padding=1), (3, 3)),
}


def passed(module, sides, *, mixed):
    """What comes out of a module, and the gradients of what went in and of the parameters."""
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(2, 32, *sides, generator=draw).requires_grad_()
    module.zero_grad()
    with torch.autocast("cpu", torch.bfloat16, enabled=mixed), small_maps_in_float32(CPU):
        y = module(x)
    y.backward(torch.randn(y.shape, generator=draw).to(y.dtype))
    return [y.detach(), x.grad, *[p.grad for p in module.parameters()]]


@pytest.mark.parametrize("name", SMALL)
def test_small_maps_go_the_way_of_float32(name):
    module, sides = SMALL[name]
    expected = passed(module, sides, mixed=False)
    for _ in range(3):
        found = passed(module, sides, mixed=True)
        assert all(map(torch.equal, found, expected))


@pytest.mark.parametrize("name", LARGE)
def test_other_maps_stay_in_bfloat16_and_have_right_gradients(name):
    module, sides = LARGE[name]
    expected, first = (passed(module, sides, mixed=mixed) for mixed in (False, True))
    assert first[0].dtype == torch.bfloat16
    for value, right in zip(first, expected, strict=True):
        assert torch.linalg.vector_norm(value - right) < 0.01 * torch.linalg.vector_norm(right)
    for _ in range(5):
        assert all(map(torch.equal, passed(module, sides, mixed=True), first))


def test_a_block_that_is_computed_again_is_so_in_the_same_precision():
    module, sides = SMALL["3 wide, two deep"]
    expected = passed(module, sides, mixed=False)
    assert all(map(torch.equal, passed(Checkpointed(module), sides, mixed=True), expected))


def test_arguments_may_be_named():
    module, sides = SMALL["3 wide, two deep"]
    x, named = torch.randn(2, 32, *sides), {"weight": module.weight, "bias": module.bias}
    with torch.autocast("cpu", torch.bfloat16), small_maps_in_float32(CPU):
        found = nn.functional.conv3d(input=x, **named, stride=(1,), padding=1)
    assert torch.equal(found, module(x))


def test_a_gpu_computes_small_maps_as_it_is_told():
    module, sides = SMALL["3 wide, two deep"]
    with torch.autocast("cpu", torch.bfloat16), small_maps_in_float32(torch.device("cuda")):
        assert module(torch.randn(2, 32, *sides)).dtype == torch.bfloat16


def test_without_autocast_nothing_changes():
    module, sides = SMALL["3 wide, two deep"]
    x, weight = torch.randn(2, 32, *sides, dtype=torch.float64), module.weight.double()
    with small_maps_in_float32(CPU):
        assert nn.functional.conv3d(x, weight, padding=1).dtype == torch.float64
