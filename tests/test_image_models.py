"""Models of images: what they learn, from their commands to their tables."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from skimage.metrics import peak_signal_noise_ratio

from foldnorm.models.classes import as_channels
from foldnorm.models.damage_unet import DamageUNet
from foldnorm.models.ddpm import DDPM
from foldnorm.models.image_autoencoder import ImageAutoencoder
from foldnorm.models.image_classifier import ImageClassifier
from foldnorm.models.image_vae import ImageVAE
from foldnorm.models.image_wgan_gp import ImageWGANGP
from foldnorm.models.multi_domain_vae import MultiDomainVAE
from foldnorm.models.noise import StepNoise
from foldnorm.models.protocols import (
    Classifies,
    Diffuses,
    FindsDamage,
    LearnsFromDamage,
    LearnsFromTrueDamage,
    Samples,
    TakesNoise,
    Trainable,
)
from foldnorm.models.volume_networks import ShapeError
from foldnorm.pipeline.augmentation import ImageAugmentation
from foldnorm.pipeline.classify import interval_by_participant
from foldnorm.pipeline.cli import main
from foldnorm.pipeline.cross_validation import parts
from foldnorm.pipeline.image_tasks import Images, psnr, with_noise
from foldnorm.pipeline.training_options import AugmentationOptions
from foldnorm.preprocessing.cohort import Cohort
from foldnorm.preprocessing.errors import InputError
from foldnorm.preprocessing.files import read_tsv

SIDE = 16
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
    "image_vae": lambda: ImageVAE((8, 8), [8], latent_dim=4, code_channels=2),
    "image_wgan_gp": lambda: ImageWGANGP((8, 8), [8], [8], latent_dim=4, code_channels=2),
    "multi_domain_vae": lambda: MultiDomainVAE(
        (32, 32), "residual", truly_damaged="state=old", channels=[8, 8], code_channels=4
    ),
    "damage_unet": lambda: DamageUNet((32, 32), channels=8),
}


def noise_of(batch, step=0):
    return StepNoise((0, step, 0), batch, torch.device("cpu"))


@pytest.fixture(scope="session")
def bars(tmp_path_factory):
    """120 people with an image each: a bright bar, upright or lying; some without a class."""
    source = tmp_path_factory.mktemp("bars") / "source"
    source.mkdir()
    rng, rows = np.random.default_rng(0), ["file\tparticipant_id\tway"]
    for n in range(120):
        image = rng.normal(60, 10, (SIDE, SIDE))
        place = int(rng.integers(3, SIDE - 4))
        image[place : place + 2] = 200
        way = "upright" if n % 2 else "lying"
        image = image.T if n % 2 else image
        Image.fromarray(image.round().astype(np.uint8)).save(source / f"{n:03d}.png")
        rows.append(f"{n:03d}.png\tp{n}\t{'n/a' if n % 10 == 0 else way}")
    (source / "participants.tsv").write_text("\n".join(rows) + "\n")
    out = source.parent / "cohort"
    words = ["images", str(source), str(out), "--split", ".6", ".2", ".2", "--quiet"]
    assert main(words) == 0
    return out


def save_blank(path, sides):
    path.parent.mkdir()
    Image.fromarray(np.zeros(sides, np.uint8)).save(path)


def train(cohort, out, config, *words):
    command = ["train", "--config", config, "--cohort", str(cohort), "--out", str(out), "--quiet"]
    assert main([*command, "--device", "cpu", *words]) == 0
    return out


@pytest.fixture(scope="session")
def classifier(bars):
    words = ["--model.init_args.target", "way", "--training.steps", "60"]
    return train(bars, bars.parent / "classifier", "cnn_classifier", *words)


@pytest.fixture(scope="session")
def denoiser(bars):
    words = ["--model.init_args.noise_factor", "0.2", "--training.steps", "150",
             "--training.batch_size", "32"]  # fmt: skip
    return train(bars, bars.parent / "denoiser", "denoising_autoencoder", *words)


def loss_of(model, batch, noise):
    """Loss of images of fixed numbers, with a class each."""
    rng = np.random.default_rng(0)
    side = 32 if model.reads == "damaged" else 8  # what the smallest of each takes
    beside = {"noisy": (2,), "damaged": (3,)}.get(model.reads, ())
    sides = (4, *beside, side, side)
    images = torch.from_numpy(rng.uniform(-1, 1, sides).astype(np.float32))[batch]
    if model.reads == "damaged":
        images[:, 1] = (images[:, 1] > 0).float()  # the mask
        if isinstance(model, LearnsFromTrueDamage):  # of two images nobody knows what they were
            images[::2, 1], images[::2, 2] = -1, images[::2, 0]
    levels = torch.eye(3)[torch.arange(4) % 3][batch] if model.reads == "classified" else None
    return sum(model.loss(p, images, noise, levels)["loss"] for p in model.phase_order(0))


@pytest.mark.parametrize("name", IMAGE_MODELS)
def test_every_weight_learns(name):
    torch.manual_seed(0)
    model = IMAGE_MODELS[name]()
    assert isinstance(model, Trainable)
    assert isinstance(model, Classifies) == name.endswith("classifier")
    assert isinstance(model, TakesNoise) == name.endswith("autoencoder")
    assert isinstance(model, FindsDamage) == (name == "damage_unet")
    assert isinstance(model, LearnsFromDamage) == (name in {"damage_unet", "multi_domain_vae"})
    assert isinstance(model, LearnsFromTrueDamage) == (name == "multi_domain_vae")
    assert isinstance(model, Samples) == (name in {"ddpm", "image_vae", "image_wgan_gp"})
    assert isinstance(model, Diffuses) == (name == "ddpm")
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


@pytest.mark.parametrize("architecture", ["cnn", "mlp"])
@pytest.mark.parametrize("shape", [(28, 28), (9, 10, 11)])
def test_classifiers_take_images_and_volumes(architecture, shape):
    model = ImageClassifier(shape, 3, condition_size=4, architecture=architecture)
    classes = torch.randint(0, 3, (2, *shape), dtype=torch.uint8)
    assert model.classify(classes).shape == (2, 4)


def test_volumes_without_a_class_teach_nothing():
    torch.manual_seed(0)
    model = ImageClassifier((8, 8), dropout=0.0).eval()
    images, levels = torch.rand(3, 8, 8), torch.tensor([[1.0, 0], [0, 1], [0, 0]])
    all_three = model.loss("classification", images, noise_of(3), levels)
    known = model.loss("classification", images[:2], noise_of(2), levels[:2])
    for name in ("loss", "accuracy"):
        assert all_three[name].item() == pytest.approx(known[name].item(), rel=1e-5)
    nobody = model.loss("classification", images[2:], noise_of(1), levels[2:])
    assert nobody["loss"].item() == 0


def test_a_classifier_tells_upright_from_lying(bars, classifier, tmp_path):
    words = ["classify", str(classifier), str(bars), str(tmp_path / "told"), "--quiet"]
    assert main(words) == 0
    found = json.loads((tmp_path / "told/classes.json").read_text())
    rows = read_tsv(tmp_path / "told/classes.tsv")
    cohort = Cohort.open(bars)
    tested = [row for row in cohort.rows if row["split"] != "train" and row["way"]]
    assert found["tested"] == len(tested)  # not those that were trained on, nor of no class
    assert found["accuracy"] > 0.9
    assert found["accuracy_low"] <= found["accuracy"] <= found["accuracy_high"]
    assert np.sum(found["confusion"]) == len(tested)
    right = [row for row in rows if not row["used_for"] and row["true"] == row["told"]]
    assert found["accuracy"] == pytest.approx(len(right) / len(tested))
    assert len(rows) == 120
    for row in rows:
        p = {level: float(row[f"p_{level}"]) for level in ("lying", "upright")}
        assert sum(p.values()) == pytest.approx(1, abs=1e-4)
        assert row["told"] == max(p, key=p.get)


def test_cross_validation_tests_everyone_once(bars, tmp_path):
    out = tmp_path / "out"
    sizes = ["--model.init_args.target", "way", "--training.steps", "60", "--device", "cpu"]
    words = ["crossvalidate", "cnn_classifier", bars, out, "--folds", "3", "--quiet", *sizes]
    words = list(map(str, words))
    assert main(words) == 0
    found = json.loads((out / "classes.json").read_text())
    rows = read_tsv(out / "classes.tsv")
    known = [row for row in Cohort.open(bars).rows if row["way"]]
    assert sorted(row["participant_id"] for row in rows) == sorted(
        row["participant_id"] for row in known
    )
    for number in range(3):
        data = json.loads((out / f"fold-{number}/data.json").read_text())["participants"]
        tested = {row["participant_id"] for row in rows if row["fold"] == str(number)}
        assert not tested & {*data["train"], *data["validation"]}
    assert found["tested"] == len(known)
    assert found["accuracy"] > 0.85
    weighted = [
        accuracy * sum(row["fold"] == str(n) for row in rows)
        for n, accuracy in enumerate(found["accuracy_of_folds"])
    ]
    assert sum(weighted) / len(rows) == pytest.approx(found["accuracy"])
    before = (out / "fold-0/checkpoints/last.ckpt").stat().st_mtime_ns
    assert main([*words, "--overwrite"]) == 0  # finished trainings are not made again
    assert (out / "fold-0/checkpoints/last.ckpt").stat().st_mtime_ns == before


def test_folds_have_as_many_of_each_class():
    rows = [{"participant_id": f"p{n}", "way": "ab"[n % 4 == 0]} for n in range(40)]
    rows += rows[:7]  # several images of some
    fold_of = parts(rows, "way", 5, 0)
    for number in range(5):
        own = [row["way"] for row in rows[:40] if fold_of[row["participant_id"]] == number]
        assert own.count("a") == 6
        assert own.count("b") == 2
    assert parts(rows, "way", 5, 1) != fold_of
    with pytest.raises(InputError, match="of way 'b' there are 10"):
        parts(rows, "way", 11, 0)
    with pytest.raises(InputError, match="at least two"):
        parts(rows, "way", 1, 0)


def test_files_are_told_as_the_cohort_is(bars, classifier, tmp_path, capsys):
    source = bars.parent / "source"
    words = ["classify", str(classifier), str(source), str(tmp_path / "files"), "--quiet"]
    assert main(words) == 0
    words = ["classify", str(classifier), str(bars), str(tmp_path / "cohort"), "--quiet"]
    assert main(words) == 0
    first, second = (
        {row["participant_id"]: row["told"] for row in read_tsv(tmp_path / where / "classes.tsv")}
        for where in ("files", "cohort")
    )
    assert first == second
    unknown = tmp_path / "unknown"  # of whom nothing is known
    unknown.mkdir()
    for path in sorted(source.glob("*.png"))[:5]:
        (unknown / path.name).write_bytes(path.read_bytes())
    assert main([*words[:2], str(unknown), str(tmp_path / "u"), "--quiet"]) == 0
    told = [row["told"] for row in read_tsv(tmp_path / "u/classes.tsv")]
    assert told == [first[f"sub-p{n}"] for n in range(5)]
    assert json.loads((tmp_path / "u/classes.json").read_text())["tested"] == 0
    large = tmp_path / "large"
    save_blank(large / "a.png", (SIDE + 4, SIDE))
    assert main([*words[:2], str(large), str(tmp_path / "l"), "--quiet"]) == 2
    assert "expected images of 16 × 16 as the model's, got 20 × 16" in capsys.readouterr().err
    assert main([*words[:2], str(source), str(tmp_path / "x"), "--split", "test"]) == 2


def test_a_column_that_is_no_class_is_refused(bars, tmp_path, capsys):
    words = ["train", "--config", "mlp_classifier", "--cohort", str(bars), "--out"]
    for target, said in (
        ("image", "is '0000' for all"),
        ("file", "no classes"),
        ("x", "no column"),
    ):
        code = main([*words, str(tmp_path / target), "--model.init_args.target", target])
        assert code == 2
        assert said in capsys.readouterr().err


def test_an_interval_counts_people_not_images():
    # Ten people, right in all of their images or in none: a hundred images are ten draws.
    values = np.repeat([0.0, 1.0], 500)
    people = np.repeat(np.arange(10), 100)
    low, high = interval_by_participant(values, people)
    assert low == pytest.approx(0.2, abs=0.11)
    assert high == pytest.approx(0.8, abs=0.11)
    low, high = interval_by_participant(values, np.arange(1000))
    assert high - low == pytest.approx(2 * 1.96 * 0.5 / np.sqrt(1000), rel=0.1)


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
    rng = np.random.default_rng(0)
    noisy = with_noise(np.zeros((400, 400), np.float32), 0.1, rng)
    assert noisy.std() == pytest.approx(0.2, rel=0.02)
    far = with_noise(np.ones((400, 400), np.float32), 0.5, rng)
    assert far.max() == 1
    assert far.min() == -1


def test_a_denoiser_gains_and_its_table_says_what(bars, denoiser, tmp_path):
    out = tmp_path / "restored"
    words = ["restore", str(denoiser), str(bars), str(out), "--split", "test", "--degrade"]
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


def test_without_degrading_nothing_is_compared(bars, denoiser, tmp_path, capsys):
    words = ["restore", str(denoiser), str(bars), str(tmp_path / "out"), "--split", "test"]
    assert main(words) == 0
    assert "PSNR" not in capsys.readouterr().out
    assert "psnr" not in json.loads((tmp_path / "out/restored.json").read_text())
    assert main(words) == 2  # it is there already


def test_noise_in_validation_is_always_the_same(bars, denoiser):
    table = (denoiser / "metrics.csv").read_text()
    again = train(bars, bars.parent / "again", "denoising_autoencoder",
                  "--model.init_args.noise_factor", "0.2", "--training.steps", "150",
                  "--training.batch_size", "32")  # fmt: skip
    assert (again / "metrics.csv").read_text() == table


@pytest.mark.parametrize("shape", [(9, 12), (7, 8, 9)])
def test_images_are_moved_alike_and_the_same_for_a_draw(shape):
    images = np.stack([np.random.default_rng(0).normal(size=shape).astype(np.float32)] * 2)
    shifts = ImageAugmentation(AugmentationOptions(shift=2), 0)
    for draw in range(5):
        moved = shifts(images, draw)
        assert np.array_equal(moved, shifts(images, draw))
        assert np.array_equal(moved[0], moved[1])
        assert set(np.unique(moved)) <= set(np.unique(images))  # whole pixels: nothing in between
    assert not np.array_equal(shifts(images, 0), shifts(images, 1))
    turned = ImageAugmentation(AugmentationOptions(rotation=45.0), 0)(images, 0)
    assert turned.shape == images.shape
    assert not np.allclose(turned, images)


def test_images_know_no_elastic():
    with pytest.raises(InputError, match="label volumes"):
        ImageAugmentation(AugmentationOptions(elastic=1.0), 0)


def test_a_classifier_repairs_nothing_and_a_denoiser_tells_nothing(
    bars, classifier, denoiser, tmp_path, capsys
):
    assert main(["restore", str(classifier), str(bars), str(tmp_path / "a")]) == 2
    assert "ImageClassifier repairs no images" in capsys.readouterr().err
    assert main(["classify", str(denoiser), str(bars), str(tmp_path / "b")]) == 2
    assert "ImageAutoencoder tells no classes" in capsys.readouterr().err


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
    assert main(["classify", str(classifier), str(bars), str(told), "--quiet"]) == 0
    words = ["restore", str(denoiser), str(bars), str(made), "--degrade", "--quiet"]
    assert main(words) == 0
    paths = [bars, classifier, denoiser, told, made]
    assert main(["report", *map(str, paths), str(page)]) == 0
    text = page.read_text()
    accuracy = json.loads((told / "classes.json").read_text())["accuracy"]
    known = "the model was trained on"
    for words in ("Images: cohort", "validation/accuracy", "psnr_gain", "16 × 16",
                  f"{accuracy:.3f} [", "Worst repaired", known):  # fmt: skip
        assert words in text


def small_ddpm(**others):
    arguments = {"channels": [8, 16], "attention": [False, True], "residual_blocks": 1}
    return DDPM((8, 8), **{**arguments, "diffusion_steps": 20, "sampling_steps": 5, **others})


def test_diffusion_ends_in_noise_and_begins_with_the_image():
    model = DDPM((32, 32), channels=[8, 16], attention=[False, False])
    images = torch.full((4, 32, 32), 0.5)
    assert torch.equal(model.diffuse(images, 0.0, torch.Generator()), images)
    generator = torch.Generator().manual_seed(0)
    raw = model.schedulers["ddpm"].add_noise(
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
        stages = list(model.stages(3, torch.Generator().manual_seed(0)))
        assert len(stages) == model.steps_taken == (5 if sampler == "ddim" else 20)
        assert torch.equal(stages[-1], drawn[0])


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
    assert torch.equal(model._noise_in(noisy, torch.zeros(1), None), noisy)
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
    sizes = ["channels=[8,16]", "attention=[false,true]", "residual_blocks=1", "sampling_steps=4"]
    words = [f"--model.init_args.{size}" for size in sizes]
    run = train(bars, tmp_path / "run", "ddpm", *words, "--training.steps", "4",
                "--training.batch_size", "4")  # fmt: skip
    picture = np.asarray(Image.open(run / "samples/step-0000004.png"))
    # Four images as they dissolve, five stages each; one that comes out of noise; eight drawn.
    assert picture.shape[0] // 3 >= 7 * SIDE
    assert picture.shape[1] // 3 >= 5 * SIDE
    draw = ["generate", str(run), str(tmp_path / "drawn"), "--number", "5", "--quiet"]
    assert main(draw) == 0
    first = [np.asarray(Image.open(tmp_path / f"drawn/synthetic-{n:04d}.png")) for n in range(5)]
    assert first[0].shape == (SIDE, SIDE)
    assert first[0].dtype == np.uint8
    assert main([*draw, "--overwrite"]) == 0
    again = np.asarray(Image.open(tmp_path / "drawn/synthetic-0003.png"))
    assert np.array_equal(again, first[3])
    assert main([*draw, "--overwrite", "--sampler", "ddpm"]) == 0
    assert json.loads((tmp_path / "drawn/synthetic.json").read_text())["steps"] == 1000
    assert main([*draw, "--overwrite", "--steps", "2000"]) == 2
    assert "expected 1 to 1000" in capsys.readouterr().err


SMALL = ["channels=[16]", "latent_dim=8", "code_channels=4"]


CRITIC = ["critic_channels=[16]", "critic_steps=1"]


@pytest.mark.parametrize(("config", "more"), [("image_vae", []), ("image_wgan_gp", CRITIC)])
def test_bars_come_back_through_a_code_and_are_drawn(config, more, bars, tmp_path):
    words = [f"--model.init_args.{word}" for word in [*SMALL, *more]]
    words += ["--training.steps", "200", "--training.learning_rate", "3e-3"]
    run = train(bars, tmp_path / "run", config, *words)
    header, *_, last = (run / "metrics.csv").read_text().splitlines()
    figures = dict(zip(header.split(","), last.split(","), strict=True))
    images = [
        np.array(image)
        for image, _ in Images(ImageVAE((SIDE, SIDE), [8]), Cohort.open(bars)).validation_volumes(
            64
        )
    ]
    mean = np.mean(images, axis=0)
    assert float(figures["validation/psnr"]) > np.mean([psnr(i, mean) for i in images]) + 1
    assert abs(float(figures["samples/mean_difference"])) < 0.3
    draw = ["generate", str(run), str(tmp_path / "drawn"), "--number", "3", "--quiet"]
    assert main(draw) == 0
    drawn = np.asarray(Image.open(tmp_path / "drawn/synthetic-0002.png"))
    assert drawn.shape == (SIDE, SIDE)
    assert drawn.max() > drawn.min() + 30
    made = ["restore", str(run), str(bars), str(tmp_path / "back"), "--split", "test", "--quiet"]
    assert main(made) == 0


def test_the_likeliest_variance_makes_the_loss_a_logarithm():
    model = ImageVAE((8, 8), [8], latent_dim=4, code_channels=2)
    images = torch.zeros(2, 8, 8)
    far = torch.full((2, 1, 8, 8), 0.8)
    near = model.likeness(0.1 * far, images)["loss"] - model.likeness(far, images)["loss"]
    assert near.item() == pytest.approx(np.log(0.1), abs=0.03)  # a tenth of the error, ln 10 less


def test_only_diffusion_has_a_sampler(denoiser, tmp_path, capsys):
    assert main(["generate", str(denoiser), str(tmp_path / "a")]) == 2
    assert "does not draw" in capsys.readouterr().err
