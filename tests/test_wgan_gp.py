"""The model, and that none of the errors of the 2021 study can come back."""

import numpy as np
import pytest
import torch
from torch import nn

from foldnorm.models.classes import one_hot, straight_through, to_classes
from foldnorm.models.grids import ShapeError
from foldnorm.models.losses import (
    CRITIC_SLOPE,
    class_cross_entropy,
    critic_values,
    gradient_penalty,
    kl_to_standard_normal,
)
from foldnorm.models.noise import StepNoise
from foldnorm.models.protocols import Encodes, Generates, Trainable
from foldnorm.models.wgan_gp import WGANGP
from foldnorm.pipeline.training.arithmetic import mixed

CPU = torch.device("cpu")
SHAPE = (8, 8, 12)


def make(**more):
    torch.manual_seed(0)
    return WGANGP(SHAPE, channels=(8,), critic_channels=(8,), code_channels=2, **more)


def batch(count=3, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 3, (count, *SHAPE), np.uint8))


def noise(count=3, key=0):
    return StepNoise((key, 0, 0), count, CPU)


@pytest.mark.parametrize(
    "more", [{}, {"latent_dim": 5}, {"generated": "softmax"}, {"dice_weight": 0.5}]
)
def test_it_keeps_its_protocols(more):
    model = make(**more)
    assert isinstance(model, Trainable)
    assert isinstance(model, Encodes)
    assert isinstance(model, Generates)
    codes = model.encode(batch())
    assert codes.shape == (3, model.latent_dim)
    assert model.decode(codes).shape == (3, 3, *SHAPE)
    assert model.sample(2, torch.Generator().manual_seed(0)).shape == (2, *SHAPE)
    assert model.validation_loss(batch()).shape == (3,)
    assert list(model.phase_order(0)) == ["critic"] * 5 + ["generator"]


def test_kl_is_that_of_two_normals_and_weighs_as_much_as_the_cross_entropy():
    mean, log_variance = torch.tensor([[1.0, 0.0, 2.0]]), torch.zeros(1, 3)
    assert kl_to_standard_normal(mean, log_variance) == pytest.approx(2.5)
    # Of (0.5, 0, 2) nats, each below one counts as one: 1, 1 and 2.
    free = torch.tensor([[1.0, 0.0, 2.0]]), torch.zeros(1, 3)
    assert kl_to_standard_normal(*free) == pytest.approx(2.5)
    assert kl_to_standard_normal(*free, free_nats=1.0) == pytest.approx(4.0)
    terms = make(kl_weight=1.0).loss("reconstruction", batch(), noise())
    voxels = 8 * 8 * 12
    mean, log_variance = make().encoder(one_hot(batch(), 3))
    assert terms["kl"].item() == pytest.approx(
        kl_to_standard_normal(mean, log_variance).item() / voxels
    )
    assert terms["loss"].item() == pytest.approx((terms["cross_entropy"] + terms["kl"]).item())


def test_a_sample_is_decoded_from_a_standard_normal_code():
    model = make(sampling_rounds=0)
    code = torch.randn(1, model.latent_dim, generator=torch.Generator().manual_seed(3))
    (sample,) = model.sample(1, torch.Generator().manual_seed(3))
    assert torch.equal(sample, to_classes(model.decode(code))[0])


def test_a_sampling_round_draws_a_code_of_the_volume_and_decodes_it():
    model, generator = make(sampling_rounds=1), torch.Generator().manual_seed(3)
    first = to_classes(model.decode(torch.randn(1, model.latent_dim, generator=generator)))
    mean, log_variance = model.encoder(one_hot(first, 3))
    noise = torch.randn(1, model.latent_dim, generator=generator)
    second = to_classes(model.decode(mean + (log_variance / 2).exp() * noise))
    (sample,) = model.sample(1, torch.Generator().manual_seed(3))
    assert torch.equal(sample, second[0])
    assert not torch.equal(first, second)


def test_a_sheet_is_drawn_where_another_class_is_likelier_by_less_than_the_margin():
    model = make(sampling_rounds=0, sheet_margin=0.2)
    logits = model.decode(
        torch.randn(1, model.latent_dim, generator=torch.Generator().manual_seed(3))
    )
    (sample,) = model.sample(1, torch.Generator().manual_seed(3))
    is_near = logits[0, 2] > logits[0, :2].max(dim=0).values - 0.2
    assert torch.equal(sample == 2, is_near)
    assert (is_near != (to_classes(logits)[0] == 2)).any()


def step(model, phase):
    """One plain optimiser step of a phase, as the loop does it."""
    names = model.phases[phase].networks
    for name in ("encoder", "generator", "critic"):
        getattr(model, name).requires_grad_(name in names)
    parameters = [p for name in names for p in getattr(model, name).parameters()]
    optimizer = torch.optim.Adam(parameters, lr=1e-3)
    model.loss(phase, batch(), noise())["loss"].backward()
    optimizer.step()


def moved(model, before):
    return {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}


def test_error_1_every_parameter_of_encoder_and_generator_moves():
    model = make()
    before = {name: p.clone() for name, p in model.named_parameters()}
    step(model, "generator")
    expected = {n for n in before if n.startswith(("encoder.", "generator."))}
    assert moved(model, before) == expected


def test_each_phase_moves_only_its_networks():
    model = make()
    before = {name: p.clone() for name, p in model.named_parameters()}
    step(model, "critic")
    # The value of a critic is known up to a constant: its last bias has no gradient.
    expected = {n for n in before if n.startswith("critic.")} - {"critic.to_value.bias"}
    assert moved(model, before) == expected


@pytest.mark.parametrize("generated", ["straight-through", "softmax"])
def test_error_2_the_critic_passes_a_gradient_to_the_generator(generated):
    model = make(
        generated=generated, cross_entropy_weight=0.0, kl_weight=0.0, adversarial_weight=1.0
    )
    model.loss("generator", batch(), noise())["loss"].backward()
    for name, p in [*model.generator.named_parameters(), *model.encoder.named_parameters()]:
        assert p.grad is not None, name
        assert p.grad.abs().sum() > 0, name


def test_error_2_the_critic_sees_one_hot_channels(monkeypatch):
    model, seen = make(), []
    forward = model.critic.forward
    monkeypatch.setattr(model.critic, "forward", lambda x, _: seen.append(x.detach()) or forward(x))
    model.loss("critic", batch(), noise())
    real, generated = seen[0].chunk(2)
    for volumes in (real, generated):
        assert volumes.shape[1] == 3
        assert torch.allclose(volumes.sum(1), torch.ones(()))
        assert torch.isclose(volumes.amax(1), torch.ones(()), atol=1e-6).all()


def test_error_3_the_output_is_not_constant_on_blocks_and_not_bounded():
    model = make()
    with torch.no_grad():
        logits = model.decode(torch.randn(2, model.latent_dim))
        blocks = logits.unfold(2, 2, 2).unfold(3, 2, 2).unfold(4, 2, 2).flatten(-3)
        assert (blocks.std(-1) > 0).all()
        for p in model.generator.parameters():
            p.mul_(30)
        assert model.decode(torch.randn(2, model.latent_dim)).abs().max() > 5


def test_error_3_a_thin_sheet_can_be_learned():
    """Overfit one sheet: its volume ratio is 1, where an upsampled output would give 2."""
    torch.manual_seed(0)
    model = WGANGP((8, 8, 8), channels=(16,), critic_channels=(8,), code_channels=4)
    volume = torch.ones((1, 8, 8, 8), dtype=torch.uint8)
    volume[:, :, 3] = 2
    optimizer = torch.optim.Adam([*model.encoder.parameters(), *model.generator.parameters()], 1e-2)
    for _ in range(60):
        optimizer.zero_grad()
        model.validation_loss(volume).mean().backward()
        optimizer.step()
    found = to_classes(model.decode(model.encode(volume)))
    assert (found == volume).all()


def test_error_4_classes_weigh_the_same_in_every_shipped_configuration():
    assert make().class_weights is None


def test_error_5_no_layer_keeps_statistics_of_a_batch():
    model = make(latent_dim=5)
    assert not [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    model.eval()
    alone, together = model.encode(batch(1)), model.encode(batch(3))
    assert torch.allclose(alone[0], model.encode(batch(1))[0])
    assert torch.allclose(together[:1], model.encode(batch(3)[:1]), atol=1e-6)


def test_error_9_codes_end_in_a_linear_layer():
    """Turned weights give turned codes: nothing rectifies or normalises what is sampled from."""
    model = make()
    with torch.no_grad():
        codes = model.encode(batch(3))
        for p in model.encoder.to_map.parameters():
            p.neg_()
        assert torch.allclose(model.encode(batch(3)), -codes)
    assert codes.abs().sum() > 0


def test_no_dense_layer_sees_the_full_volume():
    model = WGANGP((16, 16, 16), channels=(8, 16), latent_dim=5)
    voxels = 16**3
    assert all(
        max(m.in_features, m.out_features) < voxels
        for m in model.modules()
        if isinstance(m, nn.Linear)
    )


def test_volumes_that_do_not_suit_are_refused_with_what_would():
    with pytest.raises(ShapeError, match="multiple of 8"):
        WGANGP((12, 8, 8), channels=(8, 8))


def test_penalty_is_that_of_a_linear_critic():
    """D(x) = w·x has gradient w everywhere: the penalty is (√V ‖w‖ / K − 1)²."""
    weights = torch.randn(3, 4, 4, 4)
    penalty = gradient_penalty(
        lambda x: (x * weights).flatten(1).sum(1),
        torch.rand(2, 3, 4, 4, 4),
        torch.rand(2, 3, 4, 4, 4),
        torch.rand(2),
    )
    assert torch.isclose(penalty, (8 * weights.norm() / CRITIC_SLOPE - 1) ** 2)


def test_straight_through_is_hard_forwards_and_soft_backwards():
    logits = torch.tensor([[[2.0, -1.0], [0.0, 3.0], [1.0, 0.5]]], requires_grad=True)
    shown = straight_through(logits)
    assert torch.allclose(shown, one_hot(torch.tensor([[0, 1]]), 3))
    weights = torch.randn(1, 3, 2)
    (gradient,) = torch.autograd.grad((shown * weights).sum(), logits)
    (soft,) = torch.autograd.grad((torch.softmax(logits, 1) * weights).sum(), logits)
    assert torch.allclose(gradient, soft)


def test_cross_entropy_is_a_volumes_own():
    logits, volumes = torch.randn(3, 3, *SHAPE), batch()
    each = class_cross_entropy(logits, volumes)
    assert torch.allclose(each[1], class_cross_entropy(logits[1:2], volumes[1:2])[0])


def test_noise_of_two_processes_is_that_of_one():
    whole = StepNoise((5, "a"), 4, CPU)
    parts = [StepNoise((5, "a"), 2, CPU, rank, 2) for rank in (0, 1)]
    assert torch.equal(whole.normal(3), torch.cat([p.normal(3) for p in parts]))
    assert torch.equal(whole.uniform(), torch.cat([p.uniform() for p in parts]))
    assert not torch.equal(
        StepNoise((5, "b"), 4, CPU).normal(3), StepNoise((5, "a"), 4, CPU).normal(3)
    )


def test_noise_of_a_cpu_is_the_same_wherever_it_is_asked_to_come_from():
    assert torch.equal(
        StepNoise((5, "a"), 4, CPU, source="cpu").normal(3), StepNoise((5, "a"), 4, CPU).normal(3)
    )


def test_the_critic_is_trained_in_float32_whatever_the_rest_is():
    model, seen = make(), []
    for part in model.critic.modules():
        if isinstance(part, nn.Conv3d):
            part.register_forward_hook(lambda part, given, out: seen.append(out.dtype))
    with mixed("bf16", CPU):
        model.loss("critic", batch(), noise())
    assert set(seen) == {torch.float32}
    real, generated = one_hot(batch(), 3), one_hot(batch(seed=1), 3)
    expected = critic_values(model.critic, real, generated)
    with mixed("bf16", CPU):
        found = critic_values(model.critic, real, generated)
    assert all(map(torch.equal, found, expected))


def test_a_flat_image_is_a_volume_too():
    model = WGANGP((8, 12), channels=(8,), critic_channels=(8,), code_channels=2)
    images = torch.randint(0, 3, (2, 8, 12), dtype=torch.uint8)
    assert model.decode(model.encode(images)).shape == (2, 3, 8, 12)
