"""Codebooks that follow what is encoded, and the autoencoder whose codes are their entries."""

import pytest
import torch
from test_models import CODES, batch, make, noise

from foldnorm.models import VQVAE
from foldnorm.models.block_networks import BlockEncoder
from foldnorm.models.classes import one_hot, to_classes
from foldnorm.models.codebooks import Codebooks
from foldnorm.pipeline.metrics.sheets import sheet_panel

CLUSTERS = torch.tensor([[0.0, 0.0], [4.0, 0.0], [0.0, 4.0], [4.0, 4.0], [9.0, 9.0]])


def books(size=8, count=1, channels=2):
    torch.manual_seed(0)
    return Codebooks(channels, count, size, decay=0.9)


def clustered(seed):
    """(1, 2, 20, 20): places of five clusters, a fifth of each."""
    generator = torch.Generator().manual_seed(seed)
    where = torch.randint(len(CLUSTERS), (400,), generator=generator)
    points = CLUSTERS[where] + 0.1 * torch.randn(400, 2, generator=generator)
    return points.T.reshape(1, 2, 20, 20)


def test_each_part_of_a_code_is_the_nearest_entry_of_its_codebook():
    own = books(size=7, count=2, channels=6)
    encoded = torch.randn(2, 6, 3, 4)
    tokens = own.tokens(encoded)
    assert tokens.shape == (2, 2, 3, 4)
    codes = own.codes(tokens)
    for n, part in enumerate(encoded.chunk(2, dim=1)):
        for b, i, j in [(0, 0, 0), (1, 2, 3), (0, 1, 2)]:
            apart = [(part[b, :, i, j] - entry).norm().item() for entry in own.entries[n]]
            assert tokens[b, n, i, j] == apart.index(min(apart))
            nearest = own.entries[n, tokens[b, n, i, j]]
            assert torch.equal(codes[b, 3 * n : 3 * n + 3, i, j], nearest)


def test_entries_move_to_where_codes_are_and_none_stays_dead():
    own = books()
    own.entries += 100  # far from everything: one entry stands for it all
    own.sums += 100 * own.use[..., None]
    for step in range(150):
        encoded = clustered(step)
        own.follow(encoded, own.tokens(encoded))
    assert own.in_use == 1
    apart = torch.cdist(CLUSTERS, own.entries[0])
    assert (apart.min(dim=1).values < 0.15).all()
    assert (apart.min(dim=0).values < 0.3).all()  # every entry is in some cluster


def test_codebooks_move_after_the_step_of_a_training_and_at_no_other_time():
    model = make("vqvae")
    before = model.codebooks.entries.clone()
    model.eval().loss("reconstruction", batch("vqvae"), noise())
    model.after_step("reconstruction")
    assert torch.equal(model.codebooks.entries, before)
    model.train().loss("reconstruction", batch("vqvae"), noise())
    assert torch.equal(model.codebooks.entries, before)
    model.after_step("reconstruction")
    moved = model.codebooks.entries.clone()
    assert not torch.equal(moved, before)
    model.after_step("reconstruction")  # nothing was encoded since
    assert torch.equal(model.codebooks.entries, moved)


def test_a_volume_is_brought_back_from_the_numbers_of_its_codes():
    model = make("vqvae").eval()
    volumes = batch("vqvae")
    tokens = model.tokens(volumes)
    assert tokens.shape == (4, 8, 2, 2, 3)
    assert tokens.max() < 6
    with torch.no_grad():
        assert torch.equal(model.decode_tokens(tokens), model.decode(model.encode(volumes)))


def test_a_code_tells_of_one_cube_of_a_block_and_of_nothing_else():
    torch.manual_seed(0)
    encoder = BlockEncoder((8, 8, 12), 3, [8], 16, 8)
    volumes = batch("vqvae")[:1]
    changed = volumes.clone()
    changed[0, 5, 6, 9] = (changed[0, 5, 6, 9] + 1) % 3
    with torch.no_grad():
        before, after = (encoder(one_hot(v, 3))[0].view(8, 2, 2, 2, 3) for v in (volumes, changed))
    where = (before != after).any(dim=1).nonzero().tolist()
    # Of the block that begins at (4, 4, 8): the cube that begins 0, 2 and 0 voxels further.
    assert where == [[2, 1, 1, 2]]


def sheets(count, seed):
    """(count, 8, 8, 8): outside, inside, and a sheet one voxel thick across it."""
    generator = torch.Generator().manual_seed(seed)
    volumes = torch.ones(count, 8, 8, 8, dtype=torch.uint8)
    volumes[:, 0] = 0
    places = torch.randint(2, 8, (count,), generator=generator)
    for volume, place in zip(volumes, places, strict=True):
        volume[1:, place] = 2
    return volumes


def test_thin_sheets_survive():
    torch.manual_seed(0)
    sizes = {"channels": [16], "code_channels": 16, "n_codebooks": 8, "n_codes": 16}
    stages = {"codebook_annealing": 0.5, "training_steps": 150}
    model = VQVAE((8, 8, 8), **sizes, **stages).train()
    networks = [*model.encoder.parameters(), *model.generator.parameters()]
    optimizer = torch.optim.Adam(networks, 1e-2)
    for step in range(150):
        terms = model.loss("reconstruction", sheets(8, step), noise(step))
        optimizer.zero_grad()
        terms["loss"].backward()
        optimizer.step()
        model.after_step("reconstruction")
    model.eval()
    true = sheets(4, 1000)
    with torch.no_grad():
        made = to_classes(model.decode_tokens(model.tokens(true)))
    for back, own in zip(made.numpy(), true.numpy(), strict=True):
        panel = sheet_panel(back == 2, own == 2)
        assert panel["dice"] > 0.9
        assert panel["opening_excess"] < 0.1


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"n_codebooks": 3}, "equal cubes in a block of 4 voxels along each of 3 axes, such as 8"),
        ({"n_codebooks": 27}, "got 27"),  # of a third of a block's side
        ({"code_channels": 12}, "code_channels: expected a multiple of 8 codebooks, got 12"),
        ({"n_codes": 1}, "two codes or more"),
        ({"codebook_decay": 1.0}, "a decay between 0 and 1, got 6 and 1"),
    ],
)
def test_codebooks_that_mean_nothing_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        VQVAE((8, 8, 12), **{**CODES, **wrong})
