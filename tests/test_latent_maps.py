"""Distances from the healthy centre, place by place, for models whose code is a map."""

import numpy as np
import pytest
import torch
from torch import nn

from foldnorm.models import BetaVAE, HypersphereClassifier
from foldnorm.pipeline.runs.trained_model import TrainedModel
from foldnorm.pipeline.scoring.brain_scores import BrainScores, unfitted_families
from foldnorm.pipeline.scoring.families import LATENT_MAP
from foldnorm.pipeline.scoring.latent_maps import (
    THRESHOLD,
    LatentMapScores,
    distance_from_centre,
)
from foldnorm.preprocessing.cohort.cohort import Brain
from foldnorm.preprocessing.io.schemes import SKELETON

CPU = torch.device("cpu")
SIDES = (16, 24, 16)


class MeanOfBlocks(nn.Module):
    """Two channels: the share of sulcus in each block of 8³ voxels, and minus that, times 10."""

    latent_dim, healthy_grid = 2 * 2 * 3 * 2, (2, 3, 2)

    def encode(self, volumes, condition=None):
        del condition
        shares = 10 * nn.functional.avg_pool3d(volumes[:, None].float() - 1, 8)
        return torch.cat([shares, -shares], dim=1).flatten(1)


def brain(number, odd_block=None):
    """A volume of the same random share of sulcus in every block, or more in one."""
    rng = np.random.default_rng(number)
    volume = 1 + (rng.random(SIDES) < 0.2 + 0.02 * rng.standard_normal()).astype(np.uint8)
    if odd_block is not None:
        i, j, k = (slice(8 * n, 8 * n + 8) for n in odd_block)
        volume[i, j, k] = 1 + (rng.random((8, 8, 8)) < 0.8)
    return Brain(volume, {"participant_id": f"sub-{number}", "hemi": "L"})


def fitted_scores():
    scores = LatentMapScores(TrainedModel(MeanOfBlocks(), CPU), SKELETON)
    return scores.fit([brain(n) for n in range(20)])


def test_the_length_is_that_of_all_channels_and_lies_in_the_middle_of_a_block():
    codes = torch.zeros(1, 2, 2, 3, 2)
    codes[0, :, 1, 1, 0] = torch.tensor([3.0, -4.0])
    length = distance_from_centre(codes, SIDES)
    assert length.shape == (1, 1, *SIDES)
    assert (length[0, 0, 11:13, 11:13, :4] > 4.3).all()  # the middle lies between voxels
    assert length.max() <= 5
    assert length[0, 0, :, 20:].max() == 0  # beyond the middle of the next block
    torch.testing.assert_close(length[0, 0, 8:, 8:16], length[0, 0, 8:, 8:16].flip(1))


def test_the_odd_place_of_a_brain_stands_out_there():
    scores = fitted_scores()
    healthy = scores.score([brain(n) for n in range(30, 40)])
    maps = []
    odd = scores.score([brain(50, odd_block=(1, 2, 0))], maps.append)
    assert set(odd) == {"latent_map_component", "latent_map_top"}
    assert odd["latent_map_component"][0] > healthy["latent_map_component"].max()
    assert odd["latent_map_top"][0] > healthy["latent_map_top"].max()
    where = np.unravel_index(maps[0][0].argmax(), SIDES)
    assert [int(n) // 8 for n in where] == [1, 2, 0]


def test_nothing_is_missing_outside_of_the_brain():
    scores, odd, maps = fitted_scores(), brain(50, odd_block=(1, 2, 0)), []
    whole = scores.score([odd], maps.append)
    odd.volume[:, 20:] = SKELETON.fill  # half of the odd block
    cut = scores.score([odd], maps.append)
    (before,), (after,) = maps
    assert (before[:, 20:] > THRESHOLD).any()
    assert (after[:, 20:] == 0).all()
    assert (after[:, :20] > THRESHOLD).any()
    assert 0 < cut["latent_map_component"][0] < whole["latent_map_component"][0]


@pytest.fixture
def hypersphere(phantom_cohort):
    torch.manual_seed(0)
    model = HypersphereClassifier(
        phantom_cohort.shape, channels=[4, 4], convolutions=[1, 1], code_channels=2
    )
    return TrainedModel(model.eval(), CPU)


def test_the_code_of_a_model_is_its_map_flattened(hypersphere, phantom_cohort):
    model = hypersphere.model
    volumes = torch.from_numpy(np.array(phantom_cohort.volumes[:2]))
    with torch.no_grad():
        expected = model.code_map(volumes)
    found = torch.from_numpy(hypersphere.encode(phantom_cohort)[:2])
    torch.testing.assert_close(found.unflatten(1, (-1, *model.healthy_grid)), expected)


def test_only_codes_that_are_healthy_near_zero_are_compared_by_place(phantom_cohort):
    def families(**edits):
        model = BetaVAE(phantom_cohort.shape, channels=[4], code_channels=2, **edits)
        return unfitted_families(TrainedModel(model, CPU), phantom_cohort)

    assert LATENT_MAP not in families()
    assert next(iter(families(edits=["balls"]))) == LATENT_MAP  # maps are written of the first


def test_a_model_with_few_unseen_brains_does_without(hypersphere, phantom_cohort):
    fitted = BrainScores(hypersphere).fit(phantom_cohort)
    assert len(phantom_cohort.select("validation")) < 8
    assert LATENT_MAP not in fitted.families_
    with_controls = BrainScores(hypersphere).fit(phantom_cohort, controls=phantom_cohort)
    found = with_controls.score(phantom_cohort.select("test"))
    assert np.isfinite(found["latent_map_component"]).all()
