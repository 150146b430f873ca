"""Damage to images, and its repair."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage
from test_synthetic_quality import blobs, save

from foldnorm.models.damage_unet import (
    FLOOR,
    GRAIN,
    MIN_FILLED_PROBABILITY,
    QUANTUM,
    DamageUNet,
    _finder_input,
    as_scanned,
)
from foldnorm.models.grids import ShapeError
from foldnorm.models.noise import StepNoise
from foldnorm.models.protocols import FindsDamage
from foldnorm.pipeline.cli import main
from foldnorm.pipeline.data.damage import VISIBLE, RandStrokes, RandStrokesd, degradation_of
from foldnorm.pipeline.data.items import transformed
from foldnorm.pipeline.inference.restore import inpaint
from foldnorm.pipeline.metrics.images import iou
from foldnorm.preprocessing.cohort.cohort import Cohort
from foldnorm.preprocessing.core.errors import InputError
from foldnorm.preprocessing.core.files import read_tsv

KINDS = ("straight", "broken", "curved", "blobs", "noise")
SIDE = 32


def damage_of(kind, shape=(64, 64), seed=0, most=1, widths=(3.0, 3.0)):
    return RandStrokes((kind,), most, widths).draw(np.random.default_rng(seed), shape)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(40, 50), (20, 24, 28)])
def test_damage_is_the_same_for_a_seed_and_leaves_the_rest_alone(kind, shape):
    image = np.random.default_rng(1).uniform(-1, 1, shape).astype(np.float32)
    scratch, given = RandStrokesd("image", (kind,), 3, (2.0, 4.0), mask_keys="mask"), image.copy()

    def damaged_at(draw):
        found = transformed({"image": given[None]}, [scratch], 0, draw)
        return found["image"][0], found["mask"][0]

    damaged, mask = damaged_at(2)
    assert np.array_equal(damaged, damaged_at(2)[0])
    assert np.array_equal(given, image)
    assert damaged.dtype == np.float32
    assert np.abs(damaged).max() <= 1
    assert set(np.unique(mask)) <= {0, 1}
    changed = np.abs(damaged - image) > VISIBLE
    assert np.array_equal(mask > 0, changed)
    assert not np.array_equal(damaged, damaged_at(3)[0])


def test_what_is_drawn_lies_where_it_lies_on_any_image():
    for damage in damage_of("curved", most=4):
        one = damage.onto(np.full((64, 64), -1, np.float32))
        two = damage.onto(np.full((64, 64), 0.9, np.float32))
        assert np.array_equal(one[damage.mask], two[damage.mask])
        assert (one[~damage.mask] == -1).all()


def test_a_straight_stroke_is_as_wide_as_asked_and_in_one_piece():
    count = 0
    for seed in range(60):
        (damage,) = damage_of("straight", seed=seed, widths=(5.0, 5.0))
        inside = np.pad(damage.mask[2:-2, 2:-2], 2)
        if damage.mask.sum() < 60 or (damage.mask != inside).any():
            continue  # partly outside the image
        count += 1
        assert ndimage.label(damage.mask, np.ones((3, 3)))[1] == 1
        inner = ndimage.distance_transform_edt(damage.mask)
        assert 2 * inner.max() - 1 == pytest.approx(5, abs=1.2)
        places = np.argwhere(damage.mask)
        spread = np.linalg.svd(places - places.mean(axis=0), compute_uv=False)
        assert spread[0] > 3 * spread[1]  # straight: long in one direction only
    assert count > 3


def test_a_broken_stroke_has_pieces_and_a_curved_one_bends():
    pieces, bends = [], []
    for seed in range(40):
        (broken,) = damage_of("broken", seed=seed, widths=(1.5, 1.5))
        pieces.append(ndimage.label(broken.mask, np.ones((3, 3)))[1])
        (curved,) = damage_of("curved", seed=seed, widths=(1.5, 1.5))
        assert (
            ndimage.label(curved.mask, np.ones((3, 3)))[1] <= 2
        )  # a chain; it may leave the image
        places = np.argwhere(curved.mask)
        spread = np.linalg.svd(places - places.mean(axis=0), compute_uv=False)
        bends.append(spread[1] / spread[0])
    assert np.median(pieces) >= 2
    assert np.median(bends) > 0.08


def test_volumes_have_tubes_and_plates():
    shape, thin, flat = (32, 32, 32), 0, 0
    for seed in range(30):
        (damage,) = damage_of("straight", shape, seed, widths=(2.0, 2.0))
        places = np.argwhere(damage.mask)
        if len(places) < 40:
            continue
        spread = np.linalg.svd(places - places.mean(axis=0), compute_uv=False)
        flat += spread[1] > 3 * spread[2]
        thin += spread[1] <= 3 * spread[2]
    assert flat >= 5
    assert thin >= 5


def test_noise_comes_once():
    for seed in range(20):
        found = damage_of("noise", seed=seed, most=6)
        assert len(found) == 1
        assert found[0].mask.all()


def test_intersection_over_union():
    one, two = np.zeros((4, 4), bool), np.zeros((4, 4), bool)
    one[:2], two[1:3] = True, True
    assert iou(one, two) == pytest.approx(4 / 12)
    assert iou(one, one) == 1
    assert np.isnan(iou(one & False, two & False))


def test_inpainting_goes_on_with_what_is_around():
    i, j = np.mgrid[:30, :30]
    smooth = (i / 30 - j / 40).astype(np.float32)
    mask = np.zeros((30, 30), bool)
    mask[10:14, 5:25] = True
    damaged = np.where(mask, 1, smooth).astype(np.float32)
    repaired = inpaint(damaged, mask)
    assert np.abs(repaired - smooth).max() < 0.02
    assert np.array_equal(repaired[~mask], damaged[~mask])
    assert inpaint(damaged, mask & False) is damaged


@pytest.mark.parametrize("shape", [(32, 48), (16, 16, 32)])
def test_only_what_is_taken_for_damage_is_replaced(shape):
    torch.manual_seed(0)
    model = DamageUNet(shape, channels=8).eval()
    assert isinstance(model, FindsDamage)
    images = torch.rand(2, *shape) * 2 - 1
    with torch.no_grad():
        likely, repaired = model.find_damage(images), model.repair(images)
    assert likely.shape == repaired.shape == images.shape
    assert likely.min() >= 0
    assert likely.max() <= 1
    whole = likely <= MIN_FILLED_PROBABILITY
    assert torch.equal(repaired[whole], images[whole])
    assert repaired.abs().max() <= 1


def a_stroke():
    """A slope, its stroke of another grey, and as it was, (1, 3, 32, 32)."""
    clean = torch.linspace(-0.5, 0.5, 32).expand(1, 32, 32)
    mask = torch.zeros(1, 32, 32)
    mask[0, 10:14] = 1
    return torch.stack([torch.where(mask > 0, 0.9, clean), mask, clean], 1)


def test_at_first_damage_is_filled_in_smoothly():
    images = a_stroke()
    damaged, _, clean = images.unbind(1)
    model = DamageUNet((32, 32), channels=8)
    # A stroke lies where it is much brighter; so it does in mirror images.
    model._logits = lambda images: 80 * (images - 0.8)
    assert torch.allclose(model.repair(damaged), clean, atol=0.05)
    loss = model.validation_loss(images).item()
    model._content = lambda images, likely, hole: clean  # validation looks at no mirror image
    assert model.validation_loss(images).item() == pytest.approx(np.log10(FLOOR), abs=1e-3)
    assert np.log10(FLOOR) < loss < -2.5


def test_the_finder_is_shown_where_an_image_is_flat():
    images = a_stroke()[:, 0].transpose(1, 2).clone()  # along the other axis, on a slope
    images += 0.05 * torch.sin(40 * torch.linspace(0, 1, 32))[:, None]
    seen = _finder_input(images)
    assert seen.shape == (1, 3, 32, 32)
    assert torch.equal(seen[:, 0], images)
    for axis in (1, 2):
        ahead = images.diff(dim=axis)
        inner = seen[:, axis].narrow(axis, 1, 31)
        assert torch.equal(inner.sign(), ahead.sign())
        assert torch.equal(inner.abs().argsort(stable=True), ahead.abs().argsort(stable=True))
        assert not seen[:, axis].narrow(axis, 0, 1).any()
    grey = images + QUANTUM * (torch.arange(32) % 2)
    step = (_finder_input(grey) - seen)[:, 2, 5, 11]
    assert step.abs() > 0.1  # one grey of 8 bits counts
    assert _finder_input(torch.zeros(2, 4, 5, 6)).shape == (2, 4, 4, 5, 6)


def test_scans_are_blurred_and_have_grain_each_in_its_own_measure():
    noise = StepNoise((0, 0, 0), 64, torch.device("cpu"))
    edge = torch.full((64, 16, 16), -0.5)
    edge[:, 8:] = 0.5
    seen = as_scanned(edge, noise, 0.5)
    same = (seen == edge).flatten(1).all(1)
    assert 20 < same.sum() < 44
    grain = seen[~same, :4].flatten(1).std(1)
    assert 0.8 * GRAIN[0] < grain.min() < grain.max() < 1.2 * GRAIN[1]  # of 64 pixels
    assert grain.max() > 4 * grain.min()
    step = seen[~same, 8].mean(1) - seen[~same, 7].mean(1)  # each row lost up to a quarter
    assert step.min() < 0.6
    assert step.max() > 0.95
    assert torch.allclose(seen[~same].mean((1, 2)), torch.zeros(1), atol=0.02)
    assert torch.equal(as_scanned(edge, StepNoise((1,), 64, torch.device("cpu")), 0.0), edge)
    volumes = torch.zeros(64, 4, 5, 6)
    assert as_scanned(volumes, StepNoise((1,), 64, torch.device("cpu")), 1.0).std() > GRAIN[0]


def test_validation_looks_at_images_as_they_are():
    images = a_stroke().repeat(4, 1, 1, 1)
    model = DamageUNet((32, 32), channels=8, scan_prob=1.0).eval()
    seen = []
    model._terms = lambda volumes, drawn: (seen.append(volumes), [torch.zeros(4)] * 3)[1]
    model.validation_loss(images)
    model.loss("restoration", images, StepNoise((0, 0, 0), 4, torch.device("cpu")))
    assert torch.equal(seen[0], images)
    assert torch.equal(seen[1][:, 1:], images[:, 1:])
    assert not torch.equal(seen[1][:, 0], images[:, 0])


def test_a_mirror_image_is_repaired_as_the_image_is():
    torch.manual_seed(0)
    images = 2 * torch.rand(1, 32, 64) - 1
    model, plain = (DamageUNet((32, 64), channels=8, tta_flips=how).eval() for how in (True, False))
    with torch.no_grad():
        for axes in ([1], [2], [1, 2]):
            for does in (model.find_damage, model.repair):
                assert torch.allclose(does(images.flip(axes)).flip(axes), does(images), atol=1e-5)
        apart = plain.find_damage(images.flip([1])).flip([1]) - plain.find_damage(images)
    assert apart.abs().max() > 1e-3


def test_what_is_filled_in_does_not_teach_where_damage_is():
    model = DamageUNet((32, 32), channels=8)
    _, _, content = model._terms(a_stroke(), torch.ones(1))
    content.sum().backward()
    assert all(p.grad is None for p in model.finder.parameters())
    assert any(p.grad.any() for p in model.filler.parameters())


def test_what_cannot_be_is_refused():
    with pytest.raises(ShapeError, match="multiple of 16"):
        DamageUNet((30, 32))
    with pytest.raises(ValueError, match="scan_prob: expected 0 to 1"):
        DamageUNet((32, 32), scan_prob=1.5)
    with pytest.raises(ValueError, match="expected some damage"):
        DamageUNet((32, 32), damage=[])
    with pytest.raises(ValueError, match="widths"):
        DamageUNet((32, 32), widths=[4.0, 2.0])
    with pytest.raises(InputError, match="did not learn from damage"):
        degradation_of(torch.nn.Identity())


@pytest.fixture(scope="module")
def repairer(tmp_path_factory):
    """Cohort of 80 discs, and a U-Net that has seen bright strokes on them."""
    folder = tmp_path_factory.mktemp("discs")
    (folder / "source").mkdir()
    for n, image in enumerate(blobs(80, 0, SIDE)):
        save(folder / f"source/{n:03d}.png", image)
    words = [
        "images",
        folder / "source",
        "-o",
        folder / "cohort",
        "--split-fractions",
        ".6",
        ".2",
        ".2",
    ]
    assert main([*map(str, words), "--quiet"]) == 0
    sizes = ["channels=8", "max_damage=3", "widths=[2.0,3.0]"]
    words = ["train", "damage_unet", folder / "cohort", "-o",
             folder / "run", "--training.steps", 160, "--training.learning_rate", "5e-3",
             "--device", "cpu", *(f"--model.init_args.{size}" for size in sizes)]  # fmt: skip
    assert main([*map(str, words), "--quiet"]) == 0
    return folder


def restore(folder, out, *words):
    command = ["restore", folder / "run", folder / "cohort", "-o", out, "--split", "test", *words]
    code = main([*map(str, command), "--quiet"])
    return json.loads((out / "restored.json").read_text()) if code == 0 else code


def test_strokes_are_found_and_replaced(repairer, tmp_path):
    found = restore(repairer, tmp_path / "a", "--degrade")
    assert found["psnr_gain"] > 2
    assert found["mask_iou"] > 0.5
    rows = read_tsv(tmp_path / "a/restored.tsv")
    cohort = Cohort.open(repairer / "cohort")
    assert len(rows) == len(cohort.indices("test"))
    key = cohort.keys()[cohort.indices("test")[0]]
    parts = {
        name: np.asarray(Image.open(tmp_path / f"a/{key}_desc-{name}.png")).astype(int)
        for name in ("degraded", "mask", "found", "restored", "clean")
    }
    assert set(np.unique(parts["mask"])) <= {0, 255}
    changed = np.abs(parts["degraded"] - parts["clean"]) > 255 * VISIBLE / 2 + 1.1
    assert (parts["mask"][changed] == 255).all()
    whole = parts["found"] == 0
    kept = parts["restored"] == parts["degraded"]
    assert kept[whole].mean() > 0.9  # what it doubts is replaced too
    both = (parts["found"] > 0) & (parts["mask"] > 0)
    either = (parts["found"] > 0) | (parts["mask"] > 0)
    assert float(rows[0]["mask_iou"]) == pytest.approx(both.sum() / either.sum(), abs=1e-4)


def test_inpainting_with_the_true_mask_knows_it(repairer, tmp_path):
    true = restore(repairer, tmp_path / "a", "--degrade", "--method", "true-mask")
    own = restore(repairer, tmp_path / "b", "--degrade", "--method", "biharmonic")
    assert true["mask_iou"] == own["mask_iou"]  # of what the model finds, in both
    assert true["psnr"] >= own["psnr"]
    same = [read_tsv(tmp_path / name / "restored.tsv") for name in "ab"]
    assert [row["participant_id"] for row in same[0]] == [row["participant_id"] for row in same[1]]


def test_a_diffusion_model_draws_what_is_damaged(repairer, tmp_path, capsys):
    prior, cohort = tmp_path / "prior", repairer / "cohort"
    sizes = ["channels=[4,8]", "attention=[false,false]", "diffusion_steps=8", "sampling_steps=4"]
    words = ["train", "ddpm", cohort, "-o", prior, "--training.steps", 2, "--device", "cpu"]
    words += [f"--model.init_args.{size}" for size in sizes]
    assert main([*map(str, words), "--quiet"]) == 0
    asked = ["--degrade", "--method", "diffusion", "--prior", prior]
    made = restore(repairer, tmp_path / "a", *asked)
    assert (made["method"], made["prior"]) == ("diffusion", str(prior))
    key = Cohort.open(cohort).keys()[Cohort.open(cohort).indices("test")[0]]
    parts = {
        name: np.asarray(Image.open(tmp_path / f"a/{key}_desc-{name}.png")).astype(int)
        for name in ("degraded", "found", "restored")
    }
    anew = parts["found"] > 0
    assert (parts["restored"] == parts["degraded"])[~anew].all()
    assert (parts["restored"] != parts["degraded"])[anew].any()
    assert restore(repairer, tmp_path / "b", *asked)["psnr"] == made["psnr"]
    assert restore(repairer, tmp_path / "c", *asked, "--seed", 1)["psnr"] != made["psnr"]
    one = restore(repairer, tmp_path / "f", *asked, "--draws", 1)
    # The mean of what is drawn: the part of the error in which draws differ is smaller.
    assert (one["draws"], made["draws"]) == (1, 4)
    assert made["psnr_inside"] > one["psnr_inside"]
    assert restore(repairer, tmp_path / "d", "--method", "diffusion") == 2
    assert "--method diffusion and --prior, whose it is, go together" in capsys.readouterr().err
    wrong = ["--method", "diffusion", "--prior", repairer / "run"]
    assert restore(repairer, tmp_path / "e", *wrong) == 2
    assert "--prior: DamageUNet cannot inpaint images" in capsys.readouterr().err


def test_another_kind_of_damage_can_be_asked_for(repairer, tmp_path, capsys):
    blob = restore(repairer, tmp_path / "a", "--degrade", "--damage", "blobs")
    stroke = restore(repairer, tmp_path / "b", "--degrade", "--damage", "straight")
    assert blob["psnr"] != stroke["psnr"]
    assert blob["damage"] == ["blobs"]
    assert restore(repairer, tmp_path / "c", "--damage", "blobs") == 2
    assert "--damage and --widths say how to --degrade" in capsys.readouterr().err
    assert restore(repairer, tmp_path / "d", "--method", "true-mask") == 2
    assert "known with --degrade only" in capsys.readouterr().err


def test_another_width_of_strokes_can_be_asked_for(repairer, tmp_path, capsys):
    thin, wide = (
        restore(repairer, tmp_path / name, "--degrade", "--widths", *widths)
        for name, widths in (("a", (1.5, 2)), ("b", (8, 10)))
    )
    assert wide["widths"] == [8, 10]
    assert wide["psnr"] - wide["psnr_gain"] < thin["psnr"] - thin["psnr_gain"]  # more is damaged
    assert restore(repairer, tmp_path / "c", "--degrade", "--widths", 4, 2) == 2
    assert "--widths: expected two above 0, the smaller first, got 4 2" in capsys.readouterr().err
    assert restore(repairer, tmp_path / "d", "--widths", 2, 4) == 2
    assert "--damage and --widths say how to --degrade" in capsys.readouterr().err


def test_validation_says_how_well_damage_is_found(repairer):
    header = (repairer / "run/metrics.csv").read_text().splitlines()[0].split(",")
    assert {"validation/mask_iou", "validation/psnr", "validation/psnr_gain"} <= set(header)
