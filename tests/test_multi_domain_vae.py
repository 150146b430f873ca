"""Whole, damaged, and truly damaged images, in one latent space."""

import json

import numpy as np
import pytest
import torch
from conftest import noise_of
from PIL import Image
from test_synthetic_quality import blobs, save

from foldnorm.models.grids import ShapeError
from foldnorm.models.multi_domain_vae import MultiDomainVAE
from foldnorm.models.protocols import FindsDamage
from foldnorm.pipeline.cli import main
from foldnorm.pipeline.data.damage import RandStrokes
from foldnorm.pipeline.training.image_tasks import DegradationTask
from foldnorm.preprocessing.cohort.cohort import Cohort
from foldnorm.preprocessing.core.errors import InputError
from foldnorm.preprocessing.core.files import read_tsv

SIDE = 16
SMALL = {"channels": [8, 16], "code_channels": 4}
VARIANTS = ("plain", "skip", "residual")


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    """90 discs, every third of which came with strokes on it: ``state`` old."""
    folder = tmp_path_factory.mktemp("old")
    (folder / "source").mkdir()
    rows, scratch = ["file\tparticipant_id\tstate"], RandStrokes(("straight",), 2, (2.0, 3.0))
    for n, image in enumerate(blobs(90, 0, SIDE)):
        if n % 3 == 0:
            image = scratch.set_random_state(seed=n)(image[None])[0]
        save(folder / f"source/{n:03d}.png", image)
        rows.append(f"{n:03d}.png\tp{n}\t{'old' if n % 3 == 0 else 'new'}")
    (folder / "source/participants.tsv").write_text("\n".join(rows) + "\n")
    words = ["images", folder / "source", "-o", folder / "cohort", "--split-fractions", ".6", ".2",
             ".2"]  # fmt: skip
    assert main([*map(str, words), "--quiet"]) == 0
    return Cohort.open(folder / "cohort")


def train(cohort, out, *words):
    command = ["train", "multi_domain_vae", cohort.folder, "-o", out,
               "--device", "cpu", "--quiet", "--model.init_args.channels=[8,16]",
               "--model.init_args.code_channels=4", *words]  # fmt: skip
    return main(list(map(str, command)))


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("shape", [(16, 24), (8, 12, 16)])
def test_repairs_have_the_shape_and_range_of_images(variant, shape):
    model = MultiDomainVAE(shape, variant, damaged_column="state=old", **SMALL)
    assert not isinstance(model, FindsDamage)
    repaired = model.repair(2 * torch.rand(2, *shape) - 1)
    assert repaired.shape == (2, *shape)
    assert repaired.abs().max() <= 1


def triple(known):
    """(B, 3, 16, 16) of images of which it is known, or not, what they were."""
    generator = torch.Generator().manual_seed(0)
    images = 2 * torch.rand(len(known), 3, SIDE, SIDE, generator=generator) - 1
    for n, is_known in enumerate(known):
        images[n, 1] = (images[n, 1] > 0).float() if is_known else -1.0
        images[n, 2] = images[n, 2] if is_known else images[n, 0]
    return images


def test_sides_that_levels_do_not_divide_are_refused():
    with pytest.raises(ShapeError, match="each side must be a multiple of"):
        MultiDomainVAE((SIDE, SIDE + 1), **SMALL)


def test_each_domain_learns_from_its_own_images():
    model = MultiDomainVAE((SIDE, SIDE), "residual", damaged_column="state=old", **SMALL)
    of_known = model.loss("restoration", triple([True, True]), noise_of(2))
    of_others = model.loss("restoration", triple([False, False]), noise_of(2))
    assert {n for n, v in of_known.items() if v == 0} == {"truly_damaged"}
    assert {n for n, v in of_others.items() if v == 0} == {
        "whole", "damaged", "restored", "shared"
    }  # fmt: skip
    assert model.validation_loss(triple([False, True])).tolist()[0] == 0


def test_the_kl_term_grows_to_its_weight():
    model = MultiDomainVAE((SIDE, SIDE), kl_annealing=0.5, training_steps=8, **SMALL)

    def weighted(step):
        terms = model.loss("restoration", triple([True, True]), noise_of(2, step))
        rest = sum(terms[n] for n in ("whole", "damaged", "restored"))
        return ((terms["loss"] - rest) / (model.kl_weight * terms["kl"])).item()

    assert [weighted(n) for n in (0, 1, 3, 7)] == pytest.approx([0.25, 0.5, 1, 1], abs=1e-3)


def test_weights_of_domains_say_whose_encoder_repairs():
    images = 2 * torch.rand(2, SIDE, SIDE) - 1

    def repaired(weights):
        torch.manual_seed(0)
        model = MultiDomainVAE(
            (SIDE, SIDE), damaged_column="state=old", domain_weights=weights, **SMALL
        )
        return model.repair(images), model

    of_y, model = repaired([1, 1, 0])
    code, _, maps = model.encoders["y"](images)
    assert torch.allclose(of_y, model.decoders["x"](code, maps).clamp(-1, 1), atol=1e-6)
    of_both, _ = repaired([1, 1, 1])
    assert not torch.allclose(of_y, of_both)
    for weights in ([1, 0, 0], [1, 1], [1, -1, 1]):
        with pytest.raises(ValueError, match="domain_weights"):
            repaired(weights)
    with pytest.raises(ValueError, match="COLUMN=VALUE"):
        MultiDomainVAE((SIDE, SIDE), damaged_column="old", **SMALL)


def test_what_came_damaged_is_not_damaged_again(cohort):
    model = MultiDomainVAE((SIDE, SIDE), damaged_column="state=old", **SMALL)
    task = DegradationTask(model, cohort)
    for index in cohort.indices("validation")[:20]:
        volumes, row = task.validation_volume(index)
        assert volumes.shape == (3, SIDE, SIDE)
        is_old = row["state"] == "old"
        assert (volumes[1].min() == -1) == is_old
        assert np.array_equal(volumes[0], volumes[2]) == is_old
        with torch.no_grad():
            assert (task.figures(torch.from_numpy(volumes)[None], None) == {}) == is_old
    for told in ("state=ancient", "age=3"):
        other = MultiDomainVAE((SIDE, SIDE), damaged_column=told, **SMALL)
        with pytest.raises(InputError, match=f"{told} and some others, got 0 of"):
            DegradationTask(other, cohort)


def before_inside(folder):
    """PSNR inside the damage of degraded images, mean, dB."""
    found = []
    for path in folder.glob("*_desc-mask.png"):
        degraded, clean, mask = (
            np.asarray(Image.open(str(path).replace("mask", name)), dtype=float)
            for name in ("degraded", "clean", "mask")
        )
        found.append(20 * np.log10(255 / np.sqrt(((degraded - clean)[mask > 0] ** 2).mean())))
    return np.mean(found)


def test_it_restores_and_nobody_knows_what_old_images_were(cohort, tmp_path):
    words = ["--model.init_args.damaged_column=state=old", "--training.steps", 150,
             "--training.batch_size", 8, "--training.learning_rate", "3e-3",
             "--model.init_args.max_damage=2", "--model.init_args.widths=[2.0,3.0]",
             "--model.init_args.damage=[straight]"]  # fmt: skip
    assert train(cohort, tmp_path / "run", *words) == 0
    command = ["restore", tmp_path / "run", cohort.folder, "-o", tmp_path / "out",
               "--split", "test", "--degrade", "--quiet"]  # fmt: skip
    assert main(list(map(str, command))) == 0
    told = json.loads((tmp_path / "out/restored.json").read_text())
    assert told["mask_iou"] is None
    card = (tmp_path / "run/MODEL_CARD.md").read_text()
    assert "(straight), and others that came damaged (state=old)" in card
    assert (
        told["psnr_inside"] > before_inside(tmp_path / "out") + 3
    )  # of strokes; all is drawn anew
    old = {row["participant_id"] for row in cohort.rows if row["state"] == "old"}
    for row in read_tsv(tmp_path / "out/restored.tsv"):
        assert bool(row["psnr"]) == (row["participant_id"] not in old)
    command = [*command, "--method", "biharmonic", "--overwrite"]
    assert main(list(map(str, command))) == 2  # it finds no damage
