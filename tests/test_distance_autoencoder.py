"""The autoencoder of distances to each class."""

import numpy as np
import pytest
import torch
from conftest import noise_of
from torch import nn

from foldnorm.models.classes import signed_distances, to_classes
from foldnorm.models.distance_autoencoder import DistanceAutoencoder
from foldnorm.pipeline.runs.predict import drawn
from foldnorm.preprocessing.cohort.preparation import Preparation

SHAPE = (8, 8, 12)
SMALL = {"channels": [8], "code_channels": 4}


def sheets(count):
    """Volumes of two classes, with a sheet of the third between them at some height."""
    rng = np.random.default_rng(0)
    volumes = np.zeros((count, *SHAPE), np.uint8)
    for own, height in zip(volumes, rng.integers(2, 10, count), strict=True):
        own[:, :, height:] = 1
        own[:, :, height] = 2
    return torch.from_numpy(volumes)


@pytest.mark.parametrize("longest", [2, 4, 11])
def test_true_distances_decode_to_the_volume(longest):
    volumes = sheets(3)
    model = DistanceAutoencoder(SHAPE, **SMALL, longest_distance=longest, sharpness=2.0)
    true = longest * signed_distances(volumes, 3, longest)
    model.generator = nn.Identity()
    model.generator.forward = lambda codes, condition=None: true
    logits = model.decode(torch.zeros(3, model.latent_dim))
    assert torch.equal(logits, -2.0 * true)
    assert torch.equal(to_classes(logits), volumes)
    terms = model.reconstruction_terms(logits, volumes)
    assert terms["distance_error"] == 0
    assert terms["cross_entropy"] < 0.05


def test_distances_are_truncated_where_they_are_asked_to_be():
    volumes = sheets(2)
    near, far = (signed_distances(volumes, 3, longest) * longest for longest in (3, 8))
    assert torch.allclose(near, far.clamp(-3, 3), atol=1e-6)


def test_it_learns_where_a_sheet_lies():
    torch.manual_seed(0)
    model, volumes = DistanceAutoencoder(SHAPE, **SMALL, kl_weight=0.01), sheets(8)
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for step in range(150):
        terms = model.loss("reconstruction", volumes, noise_of(8, step=step))
        optimizer.zero_grad()
        terms["loss"].backward()
        optimizer.step()
    back = to_classes(model.decode(model.encode(volumes)))
    assert (back == volumes).float().mean() > 0.97
    assert terms["distance_error"] < 0.15


def test_what_makes_no_sense_is_refused():
    for wrong in ({"longest_distance": 0}, {"longest_distance": 12}, {"sharpness": 0.0}):
        with pytest.raises(ValueError, match="expected a longest_distance of 1 to 11 voxels"):
            DistanceAutoencoder(SHAPE, **SMALL, **wrong)
    with pytest.raises(ValueError, match="latent_dim: expected null"):
        DistanceAutoencoder(SHAPE, **SMALL, latent_dim=4)


def test_drawn_sheets_hold_together_and_are_thin(small_cohort):
    """A hole of which the code is not sure closes, and what grew thick is thinned."""
    volumes = sheets(1)
    model = DistanceAutoencoder(SHAPE, **SMALL, sheet_margin=0.0)
    true = 4 * signed_distances(volumes, 3, 4)
    height = int((volumes[0, 0, 0] == 2).nonzero())
    true[0, 2, 3, 4, height] = true[0, 1, 3, 4, height] + 0.4  # nearly as near as what is inside
    model.distances = lambda codes, condition=None: true

    preparation = Preparation.from_dict(small_cohort.preparation)

    def drawn_with(margin):
        model.sheet_margin = margin
        return drawn(model, 1, torch.Generator().manual_seed(0), None, lambda: preparation)

    holed, whole = drawn_with(0.0), drawn_with(0.5)
    assert (holed[0] == 2).sum() == 8 * 8 - 1
    assert np.array_equal(whole, volumes.numpy())
    model.sheet_margin = 2.5
    thick = model.sample(1, torch.Generator().manual_seed(0))
    assert (thick == 2).sum() > 2 * 8 * 8
    assert (drawn_with(2.5)[0] == 2).sum() == 8 * 8
