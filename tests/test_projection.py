"""Projections: one fit on training brains, all others placed into it."""

import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from foldnorm.pipeline.cli import main
from foldnorm.pipeline.latent.projection import METHODS, departures, fit_projection
from foldnorm.pipeline.report.latent import latent_section
from foldnorm.preprocessing.core.errors import InputError
from foldnorm.preprocessing.core.files import read_json, read_tsv, write_json, write_tsv


def two_clouds(number, seed):
    codes = np.random.default_rng(seed).standard_normal((number, 80))
    codes[number // 2 :, 0] += 15
    return codes


SLOW = ("umap",)  # compiles for longer than all others take


@pytest.mark.parametrize(
    "method", [pytest.param(m, marks=pytest.mark.slow if m in SLOW else ()) for m in METHODS]
)
def test_others_are_placed_beside_those_like_them_and_move_nobody(method):
    training, others = two_clouds(100, 0), two_clouds(20, 1)
    found = fit_projection(training, method, components=3 if method == "tsne" else 2)
    before = found.fitted.copy()
    placed = found.place(others)
    assert placed.shape == (20, found.fitted.shape[1])
    assert np.array_equal(found.fitted, before)
    assert np.allclose(found.place(others), placed)
    centres = found.fitted[:50].mean(axis=0), found.fitted[50:].mean(axis=0)
    nearer = np.argmin([np.linalg.norm(placed - c, axis=1) for c in centres], axis=0)
    assert nearer.tolist() == [0] * 10 + [1] * 10
    again = fit_projection(training, method, components=3 if method == "tsne" else 2)
    assert np.array_equal(again.fitted, found.fitted)


@pytest.mark.slow
def test_umap_leaves_torch_its_threads():
    """Sums are done in another order with other threads, and a training is another training."""
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        fit_projection(two_clouds(40, 0), "umap").place(two_clouds(4, 1))
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)


def test_too_few_brains_are_refused():
    with pytest.raises(InputError, match="at least 10 training brains to fit a projection on"):
        fit_projection(two_clouds(8, 0), "pca")


def test_departures_say_who_lies_outside():
    rng = np.random.default_rng(0)
    training, held_out, alike = rng.standard_normal((3, 200, 10))
    outside = rng.standard_normal((50, 10)) + 4
    same, far = departures(training, held_out, [("alike", alike), ("outside", outside)])
    assert same.ratio == pytest.approx(1, abs=0.1)
    assert same.beyond == pytest.approx(0.05, abs=0.05)
    assert "200 brains lie among" in same.sentence
    assert far.ratio > 2
    assert far.beyond == 1
    assert "50 brains lie outside the brains of the training cohort" in far.sentence


@pytest.fixture(scope="module")
def deleted(small_cohort, tmp_path_factory):
    folder = tmp_path_factory.mktemp("projection") / "deleted"
    words = ["alter", small_cohort.folder, "-o", folder, "--kind", "ball", "--size", "50"]
    assert main([*map(str, words), "--split", "test", "--quiet"]) == 0
    return folder


def test_the_command_places_other_cohorts_and_joins_scores(
    small_run, small_cohort, deleted, tmp_path, capsys
):
    words = [small_run, small_cohort.folder, "-o", tmp_path / "scores", "--device", "cpu"]
    assert main(["score", *map(str, words), "--quiet"]) == 0
    words = ["latent", "projection", small_run, small_cohort.folder, "-o", tmp_path / "out",
             "--project", deleted, "--colour-by", tmp_path / "scores",
             "--device", "cpu"]  # fmt: skip
    assert main([*map(str, words)]) == 0
    said = capsys.readouterr().out.splitlines()
    rows = read_tsv(tmp_path / "out/projection.tsv")
    roles = [row["role"] for row in rows]
    assert f"{len(rows)} brains, {roles.count('fitted')} of them fitted" in said[0]
    assert said[1].startswith("deleted: ")
    assert {row["split"] for row in rows if row["role"] == "fitted"} == {"train"}
    own = [row for row in rows if row["cohort"] == small_cohort.folder.name]
    others = [row for row in rows if row["cohort"] == "deleted"]
    assert len(own) == len(small_cohort.rows)
    assert {row["role"] for row in others} == {"placed"}
    assert all(float(row["deletion_size"]) > 0 for row in others)
    assert all(float(row["deletion_size"]) == 0 for row in own)
    assert all(row["score_latent_mahalanobis"] for row in own)
    assert not any(row["score_latent_mahalanobis"] for row in others)
    sidecar = read_json(tmp_path / "out/projection.json")
    assert sidecar["departures"][0]["brains"] == len(others)
    write_json(tmp_path / "out/projection.json", {**sidecar, "explained": [np.nan, 0.12345]})
    found = latent_section(tmp_path / "out")["projection"]
    assert found["explained"] == ["n/a", 0.123]
    picture = np.asarray(Image.open(tmp_path / "out/projection_slices.png"))
    assert picture.shape[0] == small_cohort.shape[2] + 2
    assert picture.shape[1] == len(rows) * (small_cohort.shape[0] + 2)


def test_columns_of_participants_take_no_place_of_the_projection(
    small_run, small_cohort, deleted, tmp_path
):
    others = tmp_path / "others"
    shutil.copytree(deleted, others)
    rows = read_tsv(others / "participants.tsv")
    told = {"index": "712", "role": "control", "x": "front", "age": "40"}
    columns = [*rows[0], *told]
    write_tsv(others / "participants.tsv", [{**row, **told} for row in rows], columns)
    words = ["latent", "projection", small_run, small_cohort.folder, "-o", tmp_path / "out",
             "--project", others, "--device", "cpu", "--quiet"]  # fmt: skip
    assert main([*map(str, words)]) == 0
    found = [row for row in read_tsv(tmp_path / "out/projection.tsv") if row["cohort"] == "others"]
    assert [row["index"] for row in found] == [str(n) for n in range(len(rows))]
    assert {row["role"] for row in found} == {"placed"}
    assert {row["age"] for row in found} == {"40"}
    assert all(np.isfinite(float(row["x"])) for row in found)


def test_brains_that_no_one_trained_on_fit_no_projection(small_run, deleted, tmp_path, capsys):
    words = ["latent", "projection", small_run, deleted, "-o", tmp_path / "out", "--device", "cpu"]
    assert main([*map(str, words)]) == 2
    assert "give its training cohort, and this one to --project" in capsys.readouterr().err
    assert not (tmp_path / "out/projection.tsv").exists()
