"""VAE and WGAN-GP of images."""

import numpy as np
import pytest
import torch
from conftest import train_images
from PIL import Image

from foldnorm.models.image_vae import ImageVAE
from foldnorm.pipeline.cli import main
from foldnorm.pipeline.metrics.images import psnr
from foldnorm.pipeline.runs.run_folder import RunFolder
from foldnorm.pipeline.training.image_tasks import ImageTask
from foldnorm.preprocessing.cohort.cohort import Cohort

SIDE = 16


SMALL = ["channels=[16]", "latent_dim=8", "code_channels=4"]


CRITIC = ["critic_channels=[16]", "critic_steps=1"]


@pytest.mark.parametrize(("config", "more"), [("image_vae", []), ("image_wgan_gp", CRITIC)])
def test_bars_come_back_through_a_code_and_are_drawn(config, more, bars, tmp_path):
    words = [f"--model.init_args.{word}" for word in [*SMALL, *more]]
    words += ["--training.steps", "200", "--training.learning_rate", "3e-3"]
    run = train_images(bars, tmp_path / "run", config, *words)
    header, *_, last = (run / "metrics.csv").read_text().splitlines()
    figures = dict(zip(header.split(","), last.split(","), strict=True))
    task = ImageTask(ImageVAE((SIDE, SIDE), [8]), Cohort.open(bars))
    images = [task.validation_volume(n)[0] for n in task.cohort.indices("validation")[:64]]
    mean = np.mean(images, axis=0)
    assert float(figures["validation/psnr"]) > np.mean([psnr(i, mean) for i in images]) + 1
    assert abs(float(figures["samples/mean_difference"])) < 0.3
    draw = ["generate", str(run), "-o", str(tmp_path / "drawn"), "--num", "3", "--quiet"]
    assert main(draw) == 0
    drawn = np.asarray(Image.open(tmp_path / "drawn/synthetic-0002.png"))
    assert drawn.shape == (SIDE, SIDE)
    assert drawn.max() > drawn.min() + 30
    made = ["restore", str(run), str(bars), "-o", str(tmp_path / "back"), "--split", "test",
            "--quiet"]  # fmt: skip
    assert main(made) == 0


@pytest.mark.parametrize(("config", "more"), [("image_vae", []), ("image_wgan_gp", CRITIC)])
def test_a_conditioned_one_repairs_what_it_is_told_nothing_of(config, more, bars, tmp_path):
    words = [f"--model.init_args.{word}" for word in [*SMALL, *more, "condition=[way]"]]
    run = train_images(bars, tmp_path / "run", config, *words, "--training.steps", "20",
                       "--training.learning_rate", "1e-2")  # fmt: skip
    out, bundle = tmp_path / "back", tmp_path / "bundle"
    assert main(["restore", str(run), str(bars), "-o", str(out), "--split", "test", "--quiet"]) == 0
    assert main(["export", str(run), "-o", str(bundle), "--quiet"]) == 0
    model = RunFolder.open(run).load().model
    images, nothing = torch.rand(2, SIDE, SIDE) * 2 - 1, torch.zeros(2, 2)
    with torch.no_grad():
        back = model.to_output(model.decode(model.encode(images, nothing), nothing))
        upright = model.to_output(model.decode(model.encode(images, nothing + 1), nothing + 1))
        assert torch.equal(model.repair(images), back)
    assert not torch.equal(back, upright)


def test_the_likeliest_variance_makes_the_loss_a_logarithm():
    model = ImageVAE((8, 8), [8], latent_dim=4, code_channels=2)
    images = torch.zeros(2, 8, 8)
    far = torch.full((2, 1, 8, 8), 0.8)
    near = (
        model.reconstruction_terms(0.1 * far, images)["loss"]
        - model.reconstruction_terms(far, images)["loss"]
    )
    assert near.item() == pytest.approx(np.log(0.1), abs=0.03)  # a tenth of the error, ln 10 less
