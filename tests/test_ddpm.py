"""Denoising diffusion."""

import json

import numpy as np
import pytest
import torch
from conftest import noise_of, train_images
from PIL import Image

from foldnorm.models.ddpm import DDPM, _posterior
from foldnorm.models.grids import ShapeError
from foldnorm.models.noise import StepNoise
from foldnorm.pipeline.cli import main

SIDE = 16


def small_ddpm(**others):
    arguments = {"channels": [8, 16], "attention": [False, True], "residual_blocks": 1}
    return DDPM((8, 8), **{**arguments, "diffusion_steps": 20, "sampling_steps": 5, **others})


def test_diffusion_ends_in_noise_and_begins_with_the_image():
    model = DDPM((32, 32), channels=[8, 16], attention=[False, False])
    images = torch.full((4, 32, 32), 0.5)
    assert torch.equal(model.diffuse(images, 0.0, torch.Generator()), images)
    generator = torch.Generator().manual_seed(0)
    raw = model.schedulers["adding"].add_noise(
        images[:, None], torch.randn(4, 1, 32, 32, generator=generator), torch.full((4,), 999)
    )
    assert raw.mean() == pytest.approx(0, abs=0.05)
    assert raw.std() == pytest.approx(1, abs=0.05)
    spread = [float(model.diffuse(images, share, generator).std()) for share in (0.1, 0.3, 0.6)]
    assert spread == sorted(spread)


def test_the_noise_variance_is_that_of_the_paper():
    model = DDPM((8, 8), channels=[8], attention=[False], beta_min=1e-4, beta_max=0.02)
    betas = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
    expected = torch.cumprod(1 - betas, 0)  # eq. 4: the share of the image's variance that is left
    assert torch.allclose(model.schedulers["ddpm"].alphas_cumprod.double(), expected, rtol=1e-3)


def test_the_networks_choices_are_those_asked_for():
    gelu, silu = small_ddpm(), small_ddpm(activation="silu")
    kinds = [{type(m).__name__ for m in model.modules()} for model in (gelu, silu)]
    assert "GELU" in kinds[0]
    assert "SiLU" not in kinds[0]
    assert "SiLU" in kinds[1]
    norms = [m.num_groups for m in gelu.modules() if isinstance(m, torch.nn.GroupNorm)]
    assert set(norms) == {1}


def test_samples_are_the_same_for_a_seed_and_lie_in_the_range():
    torch.manual_seed(0)
    for sampler in ("ddim", "ddpm"):
        model = small_ddpm(sampler=sampler).eval()
        drawn = [model.sample(3, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)]
        assert torch.equal(drawn[0], drawn[1])
        assert not torch.equal(drawn[0], drawn[2])
        assert drawn[0].shape == (3, 8, 8)
        assert drawn[0].abs().max() <= 1
        stages = list(model.sample_trajectory(3, torch.Generator().manual_seed(0)))
        assert len(stages) == model.num_inference_steps == (5 if sampler == "ddim" else 20)
        assert torch.equal(stages[-1], drawn[0])


def test_what_adds_noise_on_another_device_leaves_the_sampler_where_it_is():
    model = small_ddpm(sampler="ddpm")
    kept = model.sample(1, torch.Generator().manual_seed(0))
    weights = model.state_dict()
    model.to("meta")  # stands for any device that holds no tensors of the CPU
    images = torch.zeros(2, 8, 8, device="meta")
    model.loss("diffusion", images, StepNoise((0, 0, 0), 2, torch.device("meta")))
    model.diffuse(images, 0.5, torch.Generator())
    model.to_empty(device="cpu").load_state_dict(weights)
    assert torch.equal(model.sample(1, torch.Generator().manual_seed(0)), kept)


@pytest.mark.parametrize("sampler", ["ddpm", "ddim"])
def test_an_image_is_the_same_however_many_are_drawn(sampler):
    model = small_ddpm()
    model.sampler = sampler
    few, many = (model.sample(n, torch.Generator().manual_seed(3)) for n in (2, 20))
    assert torch.allclose(few, many[:2], atol=1e-5)
    assert (many[0] - many[1]).abs().max() > 0.1


def test_a_step_back_is_monais_with_the_same_noise():
    scheduler = small_ddpm().schedulers["ddpm"]
    x, noise_pred = torch.randn(2, 3, 1, 8, 8)
    for step in (19, 7, 0):
        mean, deviation = _posterior(scheduler, noise_pred, step, x)
        expected, _ = scheduler.step(noise_pred, step, x, torch.Generator().manual_seed(2))
        added = torch.randn(x.shape, generator=torch.Generator().manual_seed(2))
        assert torch.equal(mean + deviation * added if step else mean, expected)


def test_a_network_that_knows_the_noise_takes_it_away():
    model = small_ddpm(diffusion_steps=1000, sampling_steps=50)
    image = torch.linspace(-0.9, 0.9, 64).view(1, 1, 8, 8)

    class Knows(torch.nn.Module):
        def forward(self, x, steps, class_labels=None):
            left = model.schedulers["ddpm"].alphas_cumprod[steps].view(-1, 1, 1, 1)
            return (x - left.sqrt() * image) / (1 - left).sqrt()

    model.network = Knows()
    model.network.register_parameter("nothing", torch.nn.Parameter(torch.zeros(1)))
    for sampler, most in (("ddim", 0.02), ("ddpm", 0.05)):
        model.sampler = sampler
        drawn = model.sample(2, torch.Generator().manual_seed(0))
        assert (drawn - image[0]).abs().max() < most


def test_patches_are_channels_and_noise_lies_where_it_was():
    model = small_ddpm(patch=2, channels=[8], attention=[False])

    class Echo(torch.nn.Module):
        def forward(self, x, steps, class_labels=None):
            assert x.shape == (1, 4, 4, 4)
            return x

    model.network = Echo()
    noisy = torch.arange(64.0).view(1, 1, 8, 8)
    assert torch.equal(model._predict(noisy, torch.zeros(1), None), noisy)
    with pytest.raises(ShapeError, match="multiple of 4"):
        DDPM((8, 10), channels=[8, 8], attention=[False, False], patch=2)
    with pytest.raises(ValueError, match="patch"):
        small_ddpm(patch=0)


def test_label_volumes_can_be_drawn():
    model = DDPM((8, 8, 8), 3, channels=[8, 16], attention=[False, False], sampling_steps=2)
    volumes = torch.randint(0, 3, (2, 8, 8, 8), dtype=torch.uint8)
    assert model.loss("diffusion", volumes, noise_of(2))["loss"] > 0
    drawn = model.sample(2, torch.Generator().manual_seed(0))
    assert drawn.dtype == torch.uint8
    assert drawn.shape == (2, 8, 8, 8)
    assert drawn.max() < 3


def test_a_condition_changes_what_is_drawn():
    torch.manual_seed(0)
    model = small_ddpm(condition=["class"], condition_size=2)
    conditions = torch.eye(2)
    same = torch.randn(1, 1, 8, 8).expand(2, -1, -1, -1)
    steps = torch.tensor([5, 5])
    for parameter in model.network.parameters():  # MONAI's last convolutions start at 0
        torch.nn.init.normal_(parameter, std=0.1)
    out = model.network(same, steps, class_labels=conditions)
    assert not torch.allclose(out[0], out[1])


def test_sizes_that_do_not_go_together_are_refused():
    with pytest.raises(ShapeError, match="multiple of 4"):
        DDPM((30, 32))
    with pytest.raises(ValueError, match="attention"):
        DDPM((32, 32), attention=[True])
    with pytest.raises(ValueError, match="beta_min"):
        DDPM((32, 32), beta_min=0.1, beta_max=0.01)


def test_images_are_drawn_and_the_pictures_are_those_of_the_study(bars, tmp_path, capsys):
    sizes = ["channels=[8,16]", "attention=[false,true]", "residual_blocks=1", "sampling_steps=4",
             "diffusion_steps=100"]  # fmt: skip
    words = [f"--model.init_args.{size}" for size in sizes]
    run = train_images(bars, tmp_path / "run", "ddpm", *words, "--training.steps", "4",
                "--training.batch_size", "4")  # fmt: skip
    picture = np.asarray(Image.open(run / "samples/step-0000004.png"))
    # Four images as they dissolve, five stages each; one that comes out of noise; eight drawn.
    assert picture.shape[0] // 3 >= 7 * SIDE
    assert picture.shape[1] // 3 >= 5 * SIDE
    draw = ["generate", str(run), "-o", str(tmp_path / "drawn"), "--num", "5", "--quiet"]
    assert main(draw) == 0
    first = [np.asarray(Image.open(tmp_path / f"drawn/synthetic-{n:04d}.png")) for n in range(5)]
    assert first[0].shape == (SIDE, SIDE)
    assert first[0].dtype == np.uint8
    assert main([*draw, "--overwrite"]) == 0
    again = np.asarray(Image.open(tmp_path / "drawn/synthetic-0003.png"))
    assert np.array_equal(again, first[3])
    assert main([*draw, "--overwrite", "--scheduler", "ddpm"]) == 0
    assert json.loads((tmp_path / "drawn/synthetic.json").read_text())["steps"] == 100
    assert main([*draw, "--overwrite", "--sampling-steps", "2000"]) == 2
    assert "expected 1 to 100," in capsys.readouterr().err
