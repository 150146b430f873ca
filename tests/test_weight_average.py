"""The average of a model's weights, beside PyTorch's."""

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from foldnorm.pipeline.training.weight_average import WeightAverage


def test_it_is_pytorchs():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    own = WeightAverage(model, 0.9)
    other = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9))
    for _ in range(3):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter += torch.randn_like(parameter)
        model(torch.randn(5, 3))  # moves the buffers
        own.update(model)
        other.update_parameters(model)
    expected, found = other.module.state_dict(), own.module.state_dict()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert not torch.equal(found["0.weight"], model[0].weight)
