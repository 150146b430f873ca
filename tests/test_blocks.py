"""Blocks are those of MONAI, without loading it."""

import pytest
import torch
from monai.networks.blocks import Convolution
from monai.networks.utils import pixelshuffle as monai_pixelshuffle
from torch import nn

from foldnorm.models.blocks import as_channels_last, convolution, pixelshuffle, pixelunshuffle
from foldnorm.models.grids import ShapeError
from foldnorm.models.volume_networks import Encoder, Generator

SIDES = (6, 4, 8)


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize(("kernel_size", "stride"), [(3, 1), (5, 1), (3, 2), (2, 2)])
def test_a_block_has_the_names_and_values_of_monais(dims, kernel_size, stride):
    groups = ("group", {"num_groups": 2, "num_channels": 4})
    padding = 0 if kernel_size == 2 else None
    theirs = Convolution(dims, 3, 4, stride, kernel_size, "NA", "prelu", groups, bias=False,
                         padding=padding)  # fmt: skip
    own = convolution(
        dims, 3, 4, kernel_size, stride=stride, norm=nn.GroupNorm(2, 4), act=nn.PReLU()
    )
    own.load_state_dict(theirs.state_dict())
    x = torch.randn(2, 3, *SIDES[:dims])
    assert torch.equal(own(x), theirs(x))


def test_a_bare_convolution_has_a_bias_and_the_name_of_monais():
    theirs = Convolution(3, 3, 4, kernel_size=1, conv_only=True)
    own = convolution(3, 3, 4, 1)
    own.load_state_dict(theirs.state_dict())
    x = torch.randn(2, 3, *SIDES)
    assert torch.equal(own(x), theirs(x))


@pytest.mark.parametrize("dims", [2, 3])
def test_channels_become_blocks_of_voxels_and_back(dims):
    x = torch.randn(2, 3 * 2**dims, *SIDES[:dims])
    shuffled = pixelshuffle(x, dims, 2)
    assert torch.equal(shuffled, monai_pixelshuffle(x, dims, 2))
    assert torch.equal(pixelunshuffle(shuffled, dims, 2), x)


@pytest.mark.parametrize(
    ("network", "shape", "channels"),
    [(Encoder, (8, 8), (8, 8)), (Generator, (16, 16), (8, 8)), (Generator, (8, 8, 8), (4,))],
)
def test_group_norm_of_single_numbers_is_refused_before_the_first_step(network, shape, channels):
    """PyTorch refuses a batch of one there, and anything else becomes 0."""
    with pytest.raises(ShapeError, match=r"map of one voxel with \d channels"):
        network(shape, 3, channels, 4, None)
    network(shape, 3, channels, 4, None, norm=False)
    network(shape, 3, (*channels[:-1], 16), 4, None)
    network([2 * side for side in shape], 3, channels, 4, None)


@pytest.mark.parametrize(("dims", "layer"), [(2, nn.Conv2d), (3, nn.Conv3d)])
def test_only_weights_of_convolutions_are_laid_out_channels_last(dims, layer):
    """A table of four axes in a network of volumes was taken for one of them, and refused."""
    torch.manual_seed(0)
    network = nn.Sequential(layer(4, 6, 3), nn.Linear(4, 2))
    network.register_buffer("table", torch.rand(2, 3, 4, 5))
    before = [value.clone() for value in network.state_dict().values()]
    weights = dict(network.named_parameters())
    assert as_channels_last(network, dims) is network
    assert all(weights[name] is own for name, own in network.named_parameters())
    assert network[0].weight.stride(1) == 1
    assert network.table.is_contiguous()
    for old, new in zip(before, network.state_dict().values(), strict=True):
        assert torch.equal(old, new)
