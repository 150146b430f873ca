"""Scores of reconstructions, with a model that expects one sheet in every brain."""

import numpy as np
import pytest
import torch
from torch import nn

from foldnorm.pipeline.runs.trained_model import TrainedModel
from foldnorm.pipeline.scoring.reconstruction import ReconstructionScores
from foldnorm.preprocessing.cohort.cohort import Brain
from foldnorm.preprocessing.core.errors import InputError
from foldnorm.preprocessing.io.schemes import SKELETON

CPU = torch.device("cpu")
EXPECTED = np.ones((12, 12, 12), np.uint8)
EXPECTED[:, 6, :] = 2


class ExpectsOneSheet(nn.Module):
    """Decodes any code into `EXPECTED`, sure of it."""

    latent_dim = 1

    def encode(self, volumes, condition=None):
        return torch.zeros(len(volumes), 1)

    def decode(self, codes, condition=None):
        classes = torch.from_numpy(EXPECTED).long()
        logits = 50 * nn.functional.one_hot(classes, 3).movedim(-1, 0).float()
        return logits.expand(len(codes), *logits.shape)


def hole(side):
    volume = EXPECTED.copy()
    volume[2 : 2 + side, 6, 2 : 2 + side] = 1
    return volume


def scores(*volumes):
    training = [EXPECTED, hole(1)]
    trained = TrainedModel(ExpectsOneSheet(), CPU)
    fitted = ReconstructionScores(trained, SKELETON).fit(brains(training))
    return fitted.score(brains(volumes))


def brains(volumes):
    return [Brain(volume, {}) for volume in volumes]


def test_what_is_missing_is_counted():
    found = scores(EXPECTED, hole(2), hole(5))
    assert found["reconstruction_missing"].tolist() == pytest.approx([0, 4, 25])
    assert set(found) == set(ReconstructionScores.NAMES)


def test_local_evidence_grows_with_the_hole():
    intact, small, large = scores(EXPECTED, hole(3), hole(7))["reconstruction_missing_local"]
    assert intact <= 0 < small < large


def test_structure_that_is_not_expected_is_no_missing_structure():
    more = EXPECTED.copy()
    more[:, 2, :] = 2
    found = scores(EXPECTED, more)
    assert found["reconstruction_missing"][1] == pytest.approx(-144)
    intact, other = found["reconstruction_missing_local"]
    assert other == intact
    assert found["reconstruction_loss"][1] > found["reconstruction_loss"][0]


def test_no_volumes_no_scores():
    assert all(len(values) == 0 for values in scores().values())


def test_a_model_without_a_decoder_is_refused():
    with pytest.raises(InputError, match="Linear makes no volumes out of codes"):
        ReconstructionScores(TrainedModel(nn.Linear(1, 1), CPU), SKELETON)
