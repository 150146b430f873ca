"""What holds for every model of images, and what is told of them."""

import json

import numpy as np
import pytest
import torch
from conftest import noise_of
from scipy import ndimage
from test_ddpm import small_ddpm
from test_rectified_flow import small_flow

from foldnorm.models.classes import as_channels
from foldnorm.models.damage_unet import DamageUNet
from foldnorm.models.image_autoencoder import ImageAutoencoder
from foldnorm.models.image_classifier import ImageClassifier
from foldnorm.models.image_vae import ImageVAE
from foldnorm.models.image_wgan_gp import ImageWGANGP
from foldnorm.models.multi_domain_vae import MultiDomainVAE
from foldnorm.models.noise import StepNoise
from foldnorm.models.protocols import (
    Classifies,
    Denoises,
    Diffuses,
    FindsDamage,
    Generates,
    LearnsFromDamage,
    LearnsFromTrueDamage,
    Trainable,
)
from foldnorm.pipeline.cli import main
from foldnorm.pipeline.data.image_affine import RandImageAffine
from foldnorm.pipeline.data.items import transformed

SIDE = 16


DIFFUSION = {"ddpm", "rectified_flow"}
IMAGE_MODELS = {  # configuration → a small one of its class, and its levels or None
    "cnn_classifier": lambda: ImageClassifier(
        (8, 8), condition_size=3, widths=[8, 8], hidden=8, dropout=0.0
    ),
    "mlp_classifier": lambda: ImageClassifier(
        (8, 8), condition_size=3, architecture="mlp", widths=[8], dropout=0.0
    ),
    "dense_autoencoder": lambda: ImageAutoencoder((8, 8), "dense", widths=[8], latent_dim=4),
    "convolutional_autoencoder": lambda: ImageAutoencoder((8, 8), widths=[8]),
    "denoising_autoencoder": lambda: ImageAutoencoder((8, 8), widths=[8], noise_factor=0.3),
    "ddpm": lambda: small_ddpm(),
    "rectified_flow": lambda: small_flow(),
    "image_vae": lambda: ImageVAE((8, 8), [8], latent_dim=4, code_channels=2),
    "image_wgan_gp": lambda: ImageWGANGP((8, 8), [8], [8], latent_dim=4, code_channels=2),
    "multi_domain_vae": lambda: MultiDomainVAE(
        (32, 32), "residual", damaged_column="state=old", channels=[8, 8], code_channels=4
    ),
    "damage_unet": lambda: DamageUNet((32, 32), channels=8),
}


def loss_of(model, batch, noise):
    """Loss of images of fixed numbers, with a class each."""
    rng = np.random.default_rng(0)
    side = 32 if model.input_kind == "damaged" else 8  # what the smallest of each takes
    beside = {"noisy": (2,), "damaged": (3,)}.get(model.input_kind, ())
    sides = (4, *beside, side, side)
    images = torch.from_numpy(rng.uniform(-1, 1, sides).astype(np.float32))[batch]
    if model.input_kind == "damaged":
        images[:, 1] = (images[:, 1] > 0).float()  # the mask
        if isinstance(model, LearnsFromTrueDamage):  # of two images nobody knows what they were
            images[::2, 1], images[::2, 2] = -1, images[::2, 0]
    levels = torch.eye(3)[torch.arange(4) % 3][batch] if model.input_kind == "classified" else None
    return sum(model.loss(p, images, noise, levels)["loss"] for p in model.phase_order(0))


@pytest.mark.parametrize("name", IMAGE_MODELS)
def test_every_weight_learns(name):
    torch.manual_seed(0)
    model = IMAGE_MODELS[name]()
    assert isinstance(model, Trainable)
    assert isinstance(model, Classifies) == name.endswith("classifier")
    assert isinstance(model, Denoises) == name.endswith("autoencoder")
    assert isinstance(model, FindsDamage) == (name == "damage_unet")
    assert isinstance(model, LearnsFromDamage) == (name in {"damage_unet", "multi_domain_vae"})
    assert isinstance(model, LearnsFromTrueDamage) == (name == "multi_domain_vae")
    assert isinstance(model, Generates) == (name in {*DIFFUSION, "image_vae", "image_wgan_gp"})
    assert isinstance(model, Diffuses) == (name in DIFFUSION)
    for parameter in model.parameters():  # MONAI starts some of its convolutions at 0
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.1)
    loss_of(model, slice(0, 4), noise_of(4)).backward()
    still = {n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()}
    assert not still


@pytest.mark.parametrize("name", IMAGE_MODELS)
def test_two_processes_see_the_loss_of_one(name):
    torch.manual_seed(0)
    model = IMAGE_MODELS[name]()
    whole = loss_of(model, slice(0, 4), noise_of(4))
    halves = [
        loss_of(model, slice(2 * rank, 2 * rank + 2),
                StepNoise((0, 0, 0), 2, torch.device("cpu"), rank, 2))
        for rank in (0, 1)
    ]  # fmt: skip
    assert sum(half.item() for half in halves) / 2 == pytest.approx(whole.item(), rel=1e-4)


def test_channels_of_images_and_of_classes():
    images = torch.rand(2, 4, 5) * 2 - 1
    assert torch.equal(as_channels(images, 1), images[:, None])
    classes = torch.tensor([[[0, 2], [1, 1]]], dtype=torch.uint8)
    channels = as_channels(classes, 3)
    assert channels.shape == (1, 3, 2, 2)
    assert channels[0, :, 0, 1].tolist() == [-1, -1, 1]


def moved_at(draw, images, **limits):
    """(N, *sides) images as a draw says."""
    return transformed(images, [RandImageAffine(**limits)], 0, draw)


@pytest.mark.parametrize("shape", [(9, 12), (7, 8, 9)])
def test_images_are_moved_alike_and_the_same_for_a_draw(shape):
    images = np.stack([np.random.default_rng(0).normal(size=shape).astype(np.float32)] * 2)
    for draw in range(5):
        moved = moved_at(draw, images, shift=2)
        assert np.array_equal(moved, moved_at(draw, images, shift=2))
        assert np.array_equal(moved[0], moved[1])
        assert set(np.unique(moved)) <= set(np.unique(images))  # whole pixels: nothing in between
    assert not np.array_equal(moved_at(0, images, shift=2), moved_at(1, images, shift=2))
    turned = moved_at(0, images, rotation=45.0)
    assert turned.shape == images.shape
    assert not np.allclose(turned, images)


def test_images_that_are_turned_stay_sharp():
    fine = ndimage.gaussian_filter(np.random.default_rng(0).normal(size=(64, 64)), 0.8)
    images = fine[None].astype(np.float32)
    kept = []
    for draw in range(10):
        moved = moved_at(draw, images, rotation=10, stretch=0.05)
        assert images.min() <= moved.min() < moved.max() <= images.max()
        kept.append(moved[0, 8:-8, 8:-8].std() / fine[8:-8, 8:-8].std())
    assert min(kept) > 0.95  # linear interpolation: .9


def test_images_are_mirrored_along_each_axis_every_second_time():
    image = np.arange(12, dtype=np.float32).reshape(1, 3, 4)
    kinds = {(): image, (1,): image[:, ::-1], (2,): image[:, :, ::-1], (1, 2): image[:, ::-1, ::-1]}
    found = [next(k for k, v in kinds.items() if np.array_equal(moved_at(n, image, mirror=True), v))
             for n in range(200)]  # fmt: skip
    assert all(30 < found.count(kind) < 70 for kind in kinds)


def test_no_label_volume_is_mirrored(small_cohort, tmp_path, capsys):
    words = ["train", "autoencoder", str(small_cohort.folder), "-o"]
    assert main([*words, str(tmp_path), "--training.augmentation.mirror", "true"]) == 2
    assert "the mirror image of a hemisphere is the other one" in capsys.readouterr().err


def test_images_know_no_elastic(bars, tmp_path, capsys):
    words = ["train", "image_vae", str(bars), "-o", str(tmp_path / "a")]
    assert main([*words, "--training.augmentation.elastic", "1"]) == 2
    assert "elastic and dropout are for label volumes" in capsys.readouterr().err


def test_a_classifier_repairs_nothing_and_a_denoiser_tells_nothing(
    bars, classifier, denoiser, tmp_path, capsys
):
    assert main(["restore", str(classifier), str(bars), "-o", str(tmp_path / "a")]) == 2
    assert "ImageClassifier does not repair images" in capsys.readouterr().err
    assert main(["classify", str(denoiser), str(bars), "-o", str(tmp_path / "b")]) == 2
    assert "ImageAutoencoder is not a classifier" in capsys.readouterr().err


def test_model_cards_speak_of_images(classifier, denoiser):
    cards = [(run / "MODEL_CARD.md").read_text() for run in (classifier, denoiser)]
    assert "the classes of the column way" in cards[0]
    assert "images under noise of 0.2" in cards[1]
    for card in cards:
        assert "Images of 16 × 16" in card
        assert "brain" not in card
        assert "cortical" not in card


def test_the_report_shows_images_and_what_was_learned(bars, classifier, denoiser, tmp_path):
    page, told, made = (tmp_path / name for name in ("report.html", "told", "made"))
    assert main(["classify", str(classifier), str(bars), "-o", str(told), "--quiet"]) == 0
    words = ["restore", str(denoiser), str(bars), "-o", str(made), "--degrade", "--quiet"]
    assert main(words) == 0
    paths = [bars, classifier, denoiser, told, made]
    assert main(["report", *map(str, paths), "-o", str(page)]) == 0
    text = page.read_text()
    accuracy = json.loads((told / "classes.json").read_text())["accuracy"]
    known = "the model was trained on"
    for words in ("Images: cohort", "validation/accuracy", "psnr_gain", "16 × 16",
                  f"{accuracy:.3f} [", "Worst repaired", known):  # fmt: skip
        assert words in text


def test_only_diffusion_has_a_sampler(denoiser, tmp_path, capsys):
    assert main(["generate", str(denoiser), "-o", str(tmp_path / "a")]) == 2
    assert "does not draw" in capsys.readouterr().err
