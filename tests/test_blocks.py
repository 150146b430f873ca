"""Blocks are those of MONAI, without loading it."""

import pytest
import torch
from monai.networks.blocks import Convolution
from monai.networks.utils import pixelshuffle as monai_pixelshuffle
from torch import nn

from foldnorm.models.blocks import convolution, pixelshuffle, pixelunshuffle
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
