"""Autoencoders of images, plain and denoising."""

import json

import numpy as np
import pytest
import torch
from conftest import DENOISING, train_images
from PIL import Image
from skimage.metrics import peak_signal_noise_ratio

from foldnorm.models.image_autoencoder import ImageAutoencoder
from foldnorm.pipeline.cli import main
from foldnorm.pipeline.data.damage import RandClippedNoise
from foldnorm.pipeline.report.images import restored_section
from foldnorm.preprocessing.cohort.cohort import Cohort
from foldnorm.preprocessing.core.files import read_tsv, write_json, write_tsv


@pytest.mark.parametrize("architecture", ["dense", "convolutional"])
@pytest.mark.parametrize("shape", [(28, 28), (15, 21), (9, 10, 11)])
def test_autoencoders_give_back_the_shape_they_get(architecture, shape):
    model = ImageAutoencoder(shape, architecture, widths=[8, 12], latent_dim=3)
    images = torch.rand(2, *shape) * 2 - 1
    codes = model.encode(images)
    assert codes.shape == (2, model.latent_dim)
    back = model.repair(images)
    assert back.shape == images.shape
    assert back.abs().max() <= 1


def test_noise_is_a_share_of_the_range_and_stays_in_it():
    image = np.zeros((1, 400, 400), np.float32)
    noisy = RandClippedNoise(0.1).set_random_state(seed=0)(image)
    assert noisy.std() == pytest.approx(0.2, rel=0.02)
    assert RandClippedNoise(0)(image) is image
    far = RandClippedNoise(0.5).set_random_state(seed=0)(image + 1)
    assert far.max() == 1
    assert far.min() == -1


def test_a_denoiser_gains_and_its_table_says_what(bars, denoiser, tmp_path):
    out = tmp_path / "restored"
    words = ["restore", str(denoiser), str(bars), "-o", str(out), "--split", "test", "--degrade"]
    assert main([*words, "--quiet"]) == 0
    found = json.loads((out / "restored.json").read_text())
    assert found["psnr_gain"] > 3
    assert found["known_to_the_model"] == 0
    cohort = Cohort.open(bars)
    (first, *_) = cohort.indices("test")
    row, key = cohort.rows[first], cohort.keys()[first]
    (said,) = (
        r for r in read_tsv(out / "restored.tsv") if r["participant_id"] == row["participant_id"]
    )
    clean, noisy, repaired = (
        np.asarray(Image.open(out / f"{key}_desc-{what}.png"), dtype=float)
        for what in ("clean", "degraded", "restored")
    )
    assert np.array_equal(clean, cohort.volumes[first])
    after = peak_signal_noise_ratio(clean, repaired, data_range=255)
    before = peak_signal_noise_ratio(clean, noisy, data_range=255)
    assert float(said["psnr"]) == pytest.approx(after, abs=0.05)  # written in 8 bits
    assert float(said["psnr_gain"]) == pytest.approx(after - before, abs=0.1)
    assert Image.open(out / "contact_sheet.png").size[0] > 0


def test_the_report_says_what_no_image_has_a_figure_of(tmp_path):
    """Images that are repaired exactly have no finite PSNR."""
    figures = {"psnr": np.inf, "ssim": 1.0, "psnr_gain": np.inf}
    about = {"images": 1, "degraded": True, "known_to_the_model": 0, "phantom": True}
    write_json(tmp_path / "restored.json", {**about, **figures})
    write_tsv(tmp_path / "restored.tsv", [{"image": "a", **figures}], ["image", *figures])
    Image.fromarray(np.zeros((2, 2), np.uint8)).save(tmp_path / "contact_sheet.png")
    facts = restored_section(tmp_path)["facts"]
    assert facts == {"images": 1, "PSNR": "n/a", "SSIM": "1.000"}


def test_without_degrading_nothing_is_compared(bars, denoiser, tmp_path, capsys):
    words = ["restore", str(denoiser), str(bars), "-o", str(tmp_path / "out"), "--split", "test"]
    assert main(words) == 0
    assert "PSNR" not in capsys.readouterr().out
    assert "psnr" not in json.loads((tmp_path / "out/restored.json").read_text())
    assert main(words) == 2  # it is there already


def test_noise_in_validation_is_always_the_same(bars, denoiser, tmp_path):
    table = (denoiser / "metrics.csv").read_text()
    again = train_images(bars, tmp_path / "again", "denoising_autoencoder", *DENOISING)
    assert (again / "metrics.csv").read_text() == table
