"""Rectified flow, and classifier-free guidance, which all diffusion models share."""

import json

import numpy as np
import pytest
import torch
from conftest import noise_of, train_images
from torch import nn

from foldnorm.models.ddpm import DDPM
from foldnorm.models.grids import ShapeError
from foldnorm.models.rectified_flow import STEPS, RectifiedFlow
from foldnorm.pipeline.cli import main

TOLD = {"condition": ["class"], "condition_size": 2, "condition_dropout": 0.5}


def small_flow(kind=RectifiedFlow, **others):
    torch.manual_seed(0)
    arguments = {"channels": [8, 16], "attention": [False, True], "residual_blocks": 1}
    model = kind((8, 8), **{**arguments, "sampling_steps": 4, **others})
    for parameter in model.network.parameters():  # MONAI starts some of its convolutions at 0
        if not parameter.any():
            nn.init.normal_(parameter, std=0.1)
    return model.eval()


class Says(nn.Module):
    """A network that says what a function of images, times and conditions does."""

    def __init__(self, says):
        super().__init__()
        self.says, self.weight = says, nn.Parameter(torch.zeros(()))

    def forward(self, x, steps, class_labels=None):
        return self.says(x, steps, class_labels)


def test_the_line_from_image_to_noise_is_straight():
    model = small_flow()
    images, added = torch.full((3, 1, 8, 8), 0.5), torch.randn(3, 1, 8, 8)
    mixed = model.add_noise(images, added, torch.tensor([0.0, STEPS / 4, STEPS]))
    assert torch.allclose(mixed[0], images[0])
    assert torch.allclose(mixed[1], 0.75 * images[1] + 0.25 * added[1], atol=1e-6)
    assert torch.allclose(mixed[2], added[2], atol=1e-6)
    assert torch.equal(model.diffuse(images[:, 0], 0.0, torch.Generator()), images[:, 0])


def test_a_network_that_knows_the_image_reaches_it_from_any_noise():
    image = torch.linspace(-0.9, 0.9, 64).view(1, 1, 8, 8)
    for sampler, asked in (("euler", 5), ("heun", 9)):
        model, times = small_flow(sampler=sampler, sampling_steps=5), []

        def towards(x, steps, _, times=times):
            times.append(steps[0].item())
            return (image - x) / (steps.view(-1, 1, 1, 1) / STEPS).clamp(min=1e-3)

        model.network = Says(towards)
        drawn = model.sample(2, torch.Generator().manual_seed(0))
        assert (drawn - image[0]).abs().max() < 1e-5
        assert len(times) == asked
        assert times[0] == STEPS


def test_heun_follows_a_curve_better_than_euler():
    """A velocity of x itself, for a time of 1, is x · e."""
    found = {}
    for sampler in ("euler", "heun"):
        model = small_flow(sampler=sampler, sampling_steps=4)
        model.network = Says(lambda x, steps, _: x)
        *_, last = model._denoised(1, torch.Generator().manual_seed(0), None)
        seed = torch.randint(2**62, (1,), generator=torch.Generator().manual_seed(0)).item()
        start = torch.randn(1, 1, 8, 8, generator=torch.Generator().manual_seed(seed))
        found[sampler] = (last / start).mean().item()
    assert abs(found["heun"] - np.e) < abs(found["euler"] - np.e) / 2


@pytest.mark.parametrize("sampler", ["euler", "heun"])
def test_an_image_is_the_same_however_many_are_drawn(sampler):
    model = small_flow(sampler=sampler)
    few, many = (model.sample(n, torch.Generator().manual_seed(3)) for n in (2, 20))
    assert torch.allclose(few, many[:2], atol=1e-5)
    assert (many[0] - many[1]).abs().max() > 0.1
    stages = list(model.sample_trajectory(2, torch.Generator().manual_seed(3)))
    assert len(stages) == model.num_inference_steps == 4
    assert torch.equal(stages[-1], few)


def test_more_of_the_times_that_are_trained_on_lie_in_the_middle():
    drawn = {}
    for times in ("uniform", "logit-normal"):
        steps = small_flow(times=times).draw_steps(noise_of(4000))
        assert 0 <= steps.min() < steps.max() <= STEPS
        drawn[times] = ((steps > STEPS / 4) & (steps < 3 * STEPS / 4)).float().mean().item()
    assert drawn["uniform"] == pytest.approx(0.5, abs=0.03)
    assert drawn["logit-normal"] == pytest.approx(0.728, abs=0.03)  # |normal| < ln 3


def test_the_loss_is_the_error_of_the_velocity():
    model, noise = small_flow(), noise_of(4)
    images = torch.rand(4, 8, 8)
    seen = []
    model.network = Says(lambda x, steps, _: seen.append((x, steps)) or 0 * x)
    loss = model.loss("diffusion", images, noise)["loss"]
    ((x, steps),) = seen
    share = steps.view(-1, 1, 1, 1) / STEPS
    velocity = (images[:, None] - x) / share  # image − noise
    assert loss.item() == pytest.approx(velocity.square().mean().item(), rel=1e-3)


@pytest.mark.parametrize("kind", [RectifiedFlow, DDPM])
def test_guidance_of_1_is_what_the_network_says_and_more_leads_away(kind):
    model, condition = small_flow(kind, **TOLD), torch.eye(2)

    def drawn(guidance):
        model.guidance = guidance
        return model.sample(2, torch.Generator().manual_seed(0), condition)

    plain = small_flow(kind, **{**TOLD, "condition_dropout": 0.0})
    plain.load_state_dict(model.state_dict())
    assert torch.equal(drawn(1.0), plain.sample(2, torch.Generator().manual_seed(0), condition))
    untold = model.sample(2, torch.Generator().manual_seed(0), torch.zeros(2, 2))
    assert torch.allclose(drawn(0.0), untold, atol=1e-5)
    x, steps = torch.randn(2, 1, 8, 8), torch.tensor([300, 700])
    told, nothing = (model._predict(x, steps, c) for c in (condition, torch.zeros(2, 2)))
    model.guidance = 3.0
    assert torch.allclose(
        model._guided(x, steps, condition), nothing + 3 * (told - nothing), atol=1e-4
    )


def test_conditions_are_left_out_for_a_share_of_the_training_volumes():
    model, seen = small_flow(**TOLD), []
    model.network = Says(lambda x, steps, labels: seen.append(labels) or 0 * x)
    model.loss("diffusion", torch.zeros(400, 8, 8), noise_of(400), torch.ones(400, 2))
    (labels,) = seen
    assert labels.mean() == pytest.approx(0.5, abs=0.1)
    assert (labels[:, 0] == labels[:, 1]).all()  # all that is known of a volume, or nothing
    model.validation_loss(torch.zeros(4, 8, 8), torch.ones(4, 2))
    assert all(own.all() for own in seen[1:])


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"guidance": 2.0}, "guidance: expected 1 of a model without condition"),
        ({**TOLD, "condition_dropout": 0.0, "guidance": 2.0}, "guidance: expected 1"),
        ({"condition_dropout": 1.0}, "condition_dropout: expected 0 to below 1, got 1"),
        ({"sampling_steps": 1001}, "sampling_steps: expected 1 to 1000, got 1001"),
    ],
)
def test_arguments_that_mean_nothing_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        small_flow(**wrong)


def test_images_are_drawn_in_as_many_steps_as_are_asked_for(bars, tmp_path, capsys):
    sizes = ["channels=[8,16]", "attention=[false,true]", "residual_blocks=1", "sampling_steps=4",
             "condition=[way]", "condition_dropout=0.2"]  # fmt: skip
    words = [f"--model.init_args.{size}" for size in sizes]
    run = train_images(bars, tmp_path / "run", "rectified_flow", *words, "--training.steps", "4",
                "--training.batch_size", "4")  # fmt: skip
    draw = ["generate", str(run), "-o", str(tmp_path / "drawn"), "--num", "2", "--quiet"]
    assert main([*draw, "--scheduler", "euler", "--sampling-steps", "3", "--guidance", "2"]) == 0
    record = json.loads((tmp_path / "drawn/synthetic.json").read_text())
    assert (record["sampler"], record["steps"], record["guidance"]) == ("euler", 3, 2.0)
    assert main([*draw, "--overwrite", "--scheduler", "ddim"]) == 2
    assert "--scheduler: RectifiedFlow knows euler, heun, got ddim" in capsys.readouterr().err
    assert main([*draw, "--overwrite", "--sampling-steps", "2000"]) == 2
    assert "expected 1 to 1000," in capsys.readouterr().err


def of_two_images(model):
    """Have a model know that images are −.5 all over or .5, each as often."""

    def says(x, steps, _):
        of_image, of_noise = model.shares(steps[0].item())
        near = of_image * 0.5 * x.flatten(1).sum(1) / max(of_noise, 1e-3) ** 2
        image = 0.5 * torch.tanh(near).view(-1, 1, 1, 1)
        if isinstance(model, DDPM):
            return (x - of_image * image) / max(of_noise, 1e-3)
        return (image - x) / max(of_noise, 1e-3)

    model.network = Says(says)
    return model


@pytest.mark.parametrize(
    ("kind", "sampler"),
    [(DDPM, "ddpm"), (DDPM, "ddim"), (RectifiedFlow, "euler"), (RectifiedFlow, "heun")],
)
def test_what_is_missing_is_drawn_to_go_with_what_is_known(kind, sampler):
    steps = {"diffusion_steps": 20, "beta_max": 0.4} if kind is DDPM else {}
    model = of_two_images(small_flow(kind, sampler=sampler, sampling_steps=10, **steps))
    signs = torch.tensor([0.5, -0.5, 0.5, -0.5, -0.5, 0.5])
    images = signs.view(-1, 1, 1) * torch.ones(6, 8, 8)
    missing = torch.zeros(6, 8, 8, dtype=torch.bool)
    missing[:, :, 5:] = True
    given = torch.where(missing, torch.tensor(0.9), images)
    whole = model.inpaint(given, missing, torch.Generator().manual_seed(0))
    assert torch.equal(whole[~missing], images[~missing])
    assert (whole - images).abs().max() < 0.05
    alone = model.sample(6, torch.Generator().manual_seed(0)).mean(dim=(1, 2))
    assert (alone.abs() - 0.5).abs().max() < 0.05  # it draws either, where nothing is known
    assert not torch.equal(alone.sign(), signs.sign())


def test_images_of_other_sides_are_not_inpainted():
    images, missing = torch.zeros(1, 16, 16), torch.ones(1, 16, 16, dtype=torch.bool)
    with pytest.raises(ShapeError, match=r"expected images of \(8, 8\), got \(16, 16\)"):
        small_flow().inpaint(images, missing, torch.Generator().manual_seed(0))
