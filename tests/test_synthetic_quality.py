"""Figures that tell good synthetic volumes from bad ones."""

import io
import json

import numpy as np
import pytest
import torch
from PIL import Image

from foldnorm.models.image_vae import ImageVAE
from foldnorm.pipeline.cli import main
from foldnorm.pipeline.data.conditions import Conditions
from foldnorm.pipeline.metrics import two_sample
from foldnorm.pipeline.metrics.structure import (
    circle_radii,
    distance_between,
    microstructure_statistics,
    sheet_statistics,
)
from foldnorm.pipeline.metrics.two_sample import (
    diversity,
    memorised,
    mmd,
    nearest,
    precision_recall_coverage,
    radii,
    two_sample_auroc,
)
from foldnorm.pipeline.runs.trained_model import TrainedModel
from foldnorm.pipeline.studies.blind_sheet import BlindSheet
from foldnorm.pipeline.studies.synthetic_quality import QualityOptions, measure_quality
from foldnorm.pipeline.studies.synthetic_volumes import VolumeSet
from foldnorm.preprocessing.cohort.cohort import Cohort
from foldnorm.preprocessing.cohort.pictures import GAP
from foldnorm.preprocessing.core.errors import InputError
from foldnorm.preprocessing.core.files import read_tsv
from foldnorm.preprocessing.io.schemes import SKELETON

RNG = np.random.default_rng(0)


def points(count, shift=0.0, seed=0):
    return np.random.default_rng(seed).normal(size=(count, 4)) + shift


def blobs(count, seed, side=16):
    """Images of a bright disc anywhere, from −1 to 1."""
    rng = np.random.default_rng(seed)
    i, j = np.mgrid[:side, :side]
    images = []
    for _ in range(count):
        a, b, r = *rng.uniform(4, side - 4, 2), rng.uniform(2, 4)
        disc = (i - a) ** 2 + (j - b) ** 2 < r**2
        images.append(np.where(disc, 0.8, -0.8) + rng.normal(0, 0.05, (side, side)))
    return np.clip(np.array(images), -1, 1).astype(np.float32)


def names(count, prefix):
    return [f"{prefix}{n}" for n in range(count)]


def test_mmd_is_nothing_between_alike_and_grows_with_the_shift():
    alike = [mmd(points(100, seed=n), points(100, seed=n + 50)) for n in range(20)]
    assert abs(np.mean(alike)) < 3 * np.std(alike) / np.sqrt(20)
    shifted = [mmd(points(100, shift, 1), points(100, 0.0, 2)) for shift in (0.0, 0.5, 1.0, 2.0)]
    assert shifted == sorted(shifted)
    assert shifted[-1] > 10 * np.std(alike)


def test_a_ball_reaches_to_the_neighbour():
    line = np.array([[0.0], [1.0], [3.0], [7.0]])
    assert radii(line, 1).tolist() == [1, 1, 2, 4]
    assert radii(line, 2).tolist() == [3, 2, 3, 6]
    assert radii(line, 9).tolist() == [7, 6, 4, 7]  # no more than there are


def test_precision_recall_and_coverage_say_what_is_wrong():
    real = points(200, seed=1)
    alike = precision_recall_coverage(points(200, seed=2), real)
    assert min(alike.values()) > 0.8
    # All in one place that is real: true, and not varied.
    collapsed = precision_recall_coverage(points(200, seed=3) * 0.01, real)
    assert collapsed["precision"] == 1
    assert collapsed["recall"] < 0.05
    assert collapsed["coverage"] < 0.3
    # Half of it nonsense.
    half = np.concatenate([points(100, seed=4), points(100, 30.0, 5)])
    assert precision_recall_coverage(half, real)["precision"] == pytest.approx(0.45, abs=0.1)
    assert precision_recall_coverage(points(200, 30.0, 6), real) == {
        "precision": 0, "recall": 0, "coverage": 0,
    }  # fmt: skip


def test_copies_are_seen_as_memorised():
    training, held_out = blobs(60, 0), blobs(30, 1)
    floor, _ = nearest(held_out, training)
    made, places = nearest(training[[7, 3]], training)
    assert made.tolist() == [0, 0]
    assert places.tolist() == [7, 3]
    assert memorised(made, floor) == 1
    fresh, _ = nearest(blobs(30, 2), training)
    assert memorised(fresh, floor) < 0.2
    (one,), _ = nearest(np.zeros((1, 2, 2), np.float32), [np.full((2, 2), 0.5, np.float32)])
    assert one == pytest.approx(0.5)  # in intensities, whatever the number of pixels


def test_what_is_all_the_same_is_not_diverse():
    varied, same = blobs(20, 0, 32), np.repeat(blobs(1, 0, 32), 20, axis=0)
    assert diversity(same, names(20, "a"), 20) == pytest.approx(1, abs=1e-4)
    assert diversity(varied, names(20, "a"), 20) < 0.8
    assert np.isnan(diversity(same, ["one"] * 20, 20))  # pairs are of two persons


def test_a_classifier_finds_what_gives_images_away():
    real, more = blobs(80, 0), blobs(80, 1)
    groups = (names(80, "a"), names(80, "b"))
    assert two_sample_auroc(more, real, groups) == pytest.approx(0.5, abs=0.13)
    marked = more.copy()
    marked[:, 0, 0] = 1  # one pixel
    marked[:, :2, :2] = 1
    assert two_sample_auroc(marked, real, groups) > 0.9


def test_a_classifier_leaves_draws_of_others_as_they_are():
    groups = (names(12, "a"), names(12, "b"))
    found = []
    for seed in (5, 6):
        torch.manual_seed(seed)
        expected = torch.rand(1)
        torch.manual_seed(seed)
        found.append(two_sample_auroc(blobs(12, 0), blobs(12, 1), groups))
        assert torch.equal(torch.rand(1), expected)
    assert found[0] == found[1]


def test_persons_are_not_torn_apart_by_the_classifier():
    # Every person's image twice: what tells persons apart must not tell sets apart.
    once, other = blobs(30, 0), blobs(30, 1)
    twice = np.repeat(once, 2, axis=0), np.repeat(other, 2, axis=0)
    groups = tuple([f"{p}{n // 2}" for n in range(60)] for p in "ab")
    assert two_sample_auroc(*twice, groups) == pytest.approx(0.5, abs=0.2)


def test_stripes_discs_and_noise_are_measured():
    stripes = np.zeros((40, 40))
    stripes[:, [c for c in range(40) if c % 8 < 3]] = 1
    found = microstructure_statistics(stripes, 0.5)
    assert found["volume_fraction"] == pytest.approx(3 / 8)
    noise = microstructure_statistics(RNG.random((300, 300)), 0.7)
    assert noise["correlation"] == pytest.approx(1, abs=0.03)
    assert noise["chord"] == pytest.approx(1 / 0.7, abs=0.03)  # of a geometric law
    i, j = np.mgrid[:64, :64]
    discs = np.zeros((64, 64), bool)
    for a, b, r in ((16, 16, 6), (16, 46, 9), (46, 30, 12)):
        discs |= (i - a) ** 2 + (j - b) ** 2 <= r**2
    radii_found = circle_radii(discs)
    for r in (6, 9, 12):
        assert np.abs(radii_found - r).min() <= 1
    assert microstructure_statistics(np.zeros((20, 20)), 0.5)["volume_fraction"] == 0


def test_a_ball_of_a_volume_is_measured():
    i, j, k = np.mgrid[:20, :20, :20]
    ball = (i - 10) ** 2 + (j - 10) ** 2 + (k - 10) ** 2 < 36
    found = microstructure_statistics(ball.astype(float), 0.5)
    assert found["volume_fraction"] == pytest.approx(ball.mean())
    assert "circles" not in found


def test_a_sheet_is_measured():
    volume = np.zeros((12, 12, 12), np.uint8)
    volume[2:10, 2:10, 2:10] = 1
    volume[5, 3:9, 3:9] = 2
    found = sheet_statistics(volume, SKELETON)
    assert found["voxels"] == 36
    assert found["components"] == 1
    assert found["euler_number"] == 1
    assert found["thick"] == 0
    inside = range(3, 9)
    depth = [min(5 - 1, b - 1, 10 - b, c - 1, 10 - c) for b in inside for c in inside]
    assert found["depth"] == pytest.approx(np.mean(depth))
    thick = volume.copy()
    thick[6, 3:9, 3:9] = 2
    assert sheet_statistics(thick, SKELETON)["thick"] == 1
    assert distance_between([found] * 3, [found] * 3)["voxels"] == 0
    assert distance_between([found] * 3, [sheet_statistics(thick, SKELETON)] * 3)["voxels"] == 1


@pytest.fixture(scope="module")
def discs(tmp_path_factory):
    """Cohort of 120 images."""
    return cohort_of(blobs(120, 0), tmp_path_factory.mktemp("discs"))


def cohort_of(images, folder):
    (folder / "source").mkdir()
    for n, image in enumerate(images):
        save(folder / f"source/{n:03d}.png", image)
    words = ["images", folder / "source", "-o", folder / "cohort", "--split-fractions", ".5", ".25",
             ".25"]  # fmt: skip
    assert main([*map(str, words), "--quiet"]) == 0
    return folder / "cohort"


@pytest.fixture
def hasty(monkeypatch):
    """The classifier of two samples is hardly trained: for tests that do not look at it."""
    monkeypatch.setattr(two_sample, "STEPS", 2)


def save(path, image):
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(np.rint((image + 1) * 127.5).astype(np.uint8)).save(path)


def quality_of(discs, images, out, *words):
    for n, image in enumerate(images):
        save(out / f"synthetic/{n:03d}.png", image)
    command = ["evaluate-synthetic", str(discs), str(out / "synthetic"), "-o", str(out / "q"),
               *words, "--quiet"]  # fmt: skip
    assert main(command) == 0
    rows = read_tsv(out / "q/quality.tsv")
    return {row["figure"]: row for row in rows}


@pytest.mark.usefixtures("hasty")
def test_good_images_look_like_held_out_ones(discs, tmp_path):
    found = quality_of(discs, blobs(60, 9), tmp_path, "--microstructure")
    for name in ("precision", "recall", "coverage", "nearest_training", "ms_ssim"):
        made, floor = (float(found[name][key]) for key in ("synthetic", "held_out"))
        assert made == pytest.approx(floor, abs=0.2), name
    assert float(found["memorised"]["synthetic"]) < 0.15
    assert float(found["ks_volume_fraction"]["synthetic"]) < 0.3
    sidecar = json.loads((tmp_path / "q/quality.json").read_text())
    cohort = Cohort.open(discs)
    held_out = len(cohort.indices("validation", "test"))
    assert sidecar["volumes_of_each_set"] == min(held_out, len(cohort.indices("train")), 60)
    assert (tmp_path / "q/closest_pairs.png").stat().st_size > 100


def test_bad_images_do_not(discs, tmp_path):
    noise = np.clip(RNG.normal(0, 0.5, (60, 16, 16)), -1, 1)
    found = quality_of(discs, noise, tmp_path)
    assert float(found["precision"]["synthetic"]) == 0
    assert float(found["two_sample_auroc"]["synthetic"]) > 0.95
    assert float(found["mmd"]["synthetic"]) > 5 * abs(float(found["mmd"]["held_out"]))


@pytest.mark.usefixtures("hasty")
def test_copies_of_training_images_are_named(discs, tmp_path):
    cohort = Cohort.open(discs)
    copies = [brain.volume for brain in cohort.brains(cohort.indices("train")[:40])]
    found = quality_of(discs, copies, tmp_path)
    assert float(found["memorised"]["synthetic"]) == 1
    assert float(found["nearest_training"]["synthetic"]) == pytest.approx(0, abs=1e-6)
    page = tmp_path / "report.html"
    assert main(["report", str(tmp_path / "q"), "-o", str(page)]) == 0
    assert "100% are nearly copies of training volumes" in page.read_text()


@pytest.mark.usefixtures("hasty")
def test_where_held_out_images_have_no_recall_it_is_said_to_say_nothing(discs, tmp_path, capsys):
    # Components of so few images of noise are these images: others lie near the middle of all.
    noise = np.clip(np.random.default_rng(1).normal(0, 0.4, (60, 16, 16)), -1, 1)
    found = quality_of(cohort_of(noise[:40], tmp_path), noise[40:], tmp_path)
    assert float(found["recall"]["held_out"]) == 0
    said = "with 15 volumes of each set precision and recall say nothing"
    assert f"foldnorm: warning: {said}" in capsys.readouterr().err
    page = tmp_path / "report.html"
    assert main(["report", str(tmp_path / "q"), "-o", str(page)]) == 0
    assert said in page.read_text()
    (tmp_path / "other").mkdir()
    assert float(quality_of(discs, blobs(60, 9), tmp_path / "other")["recall"]["held_out"]) > 0
    assert "say nothing" not in capsys.readouterr().err


def test_nonsense_is_refused(discs, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    words = ["evaluate-synthetic", str(discs)]
    assert main([*words, str(tmp_path / "empty"), "-o", str(tmp_path / "a")]) == 2
    assert "no synthetic volume" in capsys.readouterr().err
    for n, image in enumerate(blobs(3, 0)):
        save(tmp_path / f"few/{n}.png", image)
    assert main([*words, str(tmp_path / "few"), "-o", str(tmp_path / "b")]) == 2
    assert "expected at least 8 volumes of each set, got 3 synthetic" in capsys.readouterr().err
    for n, image in enumerate(blobs(9, 0, 20)):
        save(tmp_path / f"large/{n}.png", image)
    assert main([*words, str(tmp_path / "large"), "-o", str(tmp_path / "c")]) == 2
    assert "expected (16, 16), got (20, 20)" in capsys.readouterr().err


def test_an_encoder_that_is_told_things_is_refused(discs, tmp_path):
    conditions = Conditions.fit(["side"], [{"side": "left"}, {"side": "right"}])
    model = ImageVAE(
        (16, 16), [8], latent_dim=4, condition=["side"], condition_size=conditions.size
    )
    for n, image in enumerate(blobs(9, 0)):
        save(tmp_path / f"made/{n}.png", image)
    trained = TrainedModel(model, torch.device("cpu"), conditions)
    with pytest.raises(InputError, match="ImageVAE is told side, and nobody knows that"):
        measure_quality(Cohort.open(discs), tmp_path / "made", QualityOptions(),
                        trained)  # fmt: skip


@pytest.mark.usefixtures("hasty")
def test_label_volumes_are_compared_in_their_structure(small_cohort, tmp_path):
    words = ["evaluate-synthetic", str(small_cohort.folder), str(small_cohort.folder), "-o",
             str(tmp_path / "q")]  # fmt: skip
    assert main([*words, "--quiet"]) == 0
    found = {row["figure"]: row for row in read_tsv(tmp_path / "q/quality.tsv")}
    for name in ("ks_voxels", "ks_euler_number", "ks_depth", "prevalence_difference"):
        assert float(found[name]["synthetic"]) <= 1
    training = float(found["mean_voxels"]["training"])
    assert float(found["mean_voxels"]["synthetic"]) == pytest.approx(training, rel=0.3)


def test_the_key_of_the_blind_sheet_says_where_synthetic_volumes_are(discs):
    black, white = (np.full((11, 16, 16), value, np.float32) for value in (-1, 1))
    synthetic, real = VolumeSet(black, names(11, "s")), VolumeSet(white, names(11, "r"))
    sheet = BlindSheet.from_sets(Cohort.open(discs), synthetic, real, np.random.default_rng(0))
    pixels = np.asarray(Image.open(io.BytesIO(sheet.picture)))[..., 0]
    places = [(row["row"], row["column"]) for row in sheet.key]
    assert places == [(n // 8 + 1, n % 8 + 1) for n in range(22)]
    pitch = 3 * (16 + 2 * GAP)  # of a picture in a picture
    for row, (down, right) in zip(sheet.key, places, strict=True):
        middle = pixels[(down - 1) * pitch + 24, (right - 1) * pitch + 24]
        assert middle == (0 if row["kind"] == "synthetic" else 255)
        assert row["volume"][0] == row["kind"][0]
    assert {row["kind"] for row in sheet.key[:11]} == {"synthetic", "real"}  # they are mixed
    assert sorted(row["volume"] for row in sheet.key) == sorted(synthetic.groups + real.groups)


@pytest.mark.usefixtures("hasty")
def test_a_blind_sheet_is_written_where_it_is_asked_for(discs, tmp_path):
    quality_of(discs, blobs(12, 9), tmp_path)
    assert not list((tmp_path / "q").glob("blind*"))
    quality_of(discs, blobs(12, 9), tmp_path, "--blind-sheet", "9", "--overwrite")
    kinds = [row["kind"] for row in read_tsv(tmp_path / "q/blind_sheet_key.tsv")]
    assert (kinds.count("synthetic"), kinds.count("real")) == (9, 9)
    assert Image.open(tmp_path / "q/blind_sheet.png").size == (8 * 60, 3 * 60)
    quality_of(discs, blobs(12, 10), tmp_path, "--overwrite")
    assert not list((tmp_path / "q").glob("blind*")), "of other volumes"
