"""`foldnorm view` of images: as they are, degraded, repaired, and what that changed."""

import io
import json
import threading

import numpy as np
import pytest
from conftest import Watched, colours_of, unnamed_controls
from PIL import Image
from test_view import ask

from foldnorm.pipeline.cli import main
from foldnorm.pipeline.view.library import Library
from foldnorm.pipeline.view.server import ViewServer
from foldnorm.preprocessing.cohort.cohort import Cohort
from foldnorm.preprocessing.cohort.pictures import FULL_CHANGE, PALETTE, changed_slices
from foldnorm.preprocessing.core.errors import InputError
from foldnorm.preprocessing.core.files import read_tsv

pytestmark = pytest.mark.timeout(240)


@pytest.fixture(scope="module")
def server(bars, denoiser):
    serving = ViewServer(Library([bars, denoiser], "cpu"))
    threading.Thread(target=serving.serve_forever, daemon=True).start()
    yield serving
    serving.shutdown()
    serving.server_close()


def grey(server, path):
    status, headers, content = ask(server, path)
    assert status == 200, content
    assert headers["Content-Type"] == "image/png"
    return np.asarray(Image.open(io.BytesIO(content)))[: 2**4, : 2**4, 0]


def test_it_shows_what_restore_would_make(server, bars, denoiser, tmp_path):
    words = ["restore", denoiser, bars, "-o", tmp_path / "out", "--split", "test", "--degrade",
             "--quiet"]  # fmt: skip
    assert main(list(map(str, words))) == 0
    cohort = Cohort.open(bars)
    place = int(cohort.indices("test")[0])
    key = cohort.keys()[place]
    parts = {"picture": "clean", "given": "degraded", "repaired": "restored"}
    for word, written in parts.items():
        path = f"{word}/0/{place}" + ("" if word == "picture" else "/0/1")
        expected = np.asarray(Image.open(tmp_path / f"out/{key}_desc-{written}.png"))
        assert np.array_equal(grey(server, path), expected), word
    told = json.loads(ask(server, f"figures/0/{place}/0/1")[2])
    (row,) = (r for r in read_tsv(tmp_path / "out/restored.tsv")
              if r["participant_id"] == cohort.rows[place]["participant_id"])  # fmt: skip
    assert told["psnr"] == pytest.approx(float(row["psnr"]), abs=1e-3)
    assert np.array_equal(grey(server, f"given/0/{place}/0/0"), cohort.volumes[place])
    assert json.loads(ask(server, f"figures/0/{place}/0/0")[2]) == {}
    assert ask(server, f"given/0/{place}/0/2")[0] == 404


def test_a_figure_that_is_not_finite_is_null(server, bars, monkeypatch):
    """An image that is repaired exactly has an infinite PSNR, which JSON does not know."""
    monkeypatch.setattr(Library, "figures", lambda *_: {"psnr": float("inf"), "iou": float("nan")})
    status, _, content = ask(server, "figures/0/0/0/1")
    assert (status, content) == (200, b'{"psnr": null, "iou": null}')


def test_what_changed_has_a_colour_and_the_rest_is_dim():
    before = np.zeros((4, 5), np.float32)
    after = before.copy()
    after[0, 0], after[1, 1] = -FULL_CHANGE / 127, 2 * FULL_CHANGE / 127
    (shown,) = changed_slices(before, after)
    assert np.array_equal(shown[0, 0], PALETTE[3])
    assert np.array_equal(shown[1, 1], PALETTE[4])
    assert (shown[2:] == 64).all()
    assert len(changed_slices(np.zeros((4, 5, 6)), np.zeros((4, 5, 6)))) == 3


def test_only_what_has_a_latent_space_has_too_many_to_encode(bars, denoiser, monkeypatch):
    monkeypatch.setattr("foldnorm.pipeline.view.library.MAX_ENCODED", 10)
    library = Library([bars, denoiser], "cpu")
    with pytest.raises(InputError, match="120 images are too many"):
        library.neighbours(0, 0, 0)
    monkeypatch.setattr("foldnorm.pipeline.view.models.ViewedModel.encodes", False)
    assert library.neighbours(0, 0, 0) == []


def test_a_model_that_makes_no_image_is_one_line(bars, classifier):
    serving = ViewServer(Library([bars, classifier], "cpu"))
    threading.Thread(target=serving.serve_forever, daemon=True).start()
    status, _, content = ask(serving, "model/0/0")
    serving.shutdown()
    serving.server_close()
    assert status == 409
    assert "ImageClassifier makes no volume to show" in json.loads(content)["error"]


def test_the_page_compares_and_can_damage_first(browser, server):
    watched = Watched(browser, viewport={"width": 1400, "height": 860})
    page = watched.page
    page.goto(server.url)
    page.wait_for_selector('body[data-shown="0/0/0"]')
    for name in ("input", "made", "difference"):
        assert colours_of(page.query_selector(f"#{name} img")) > 5
    assert not page.query_selector("#original").is_visible()
    assert not page.query_selector("#input canvas").is_visible()
    before = page.query_selector("#input img").screenshot()
    page.check("#degrade")
    page.wait_for_selector("#original", state="visible")
    page.wait_for_selector("#figures:has-text('psnr')")
    assert page.query_selector("#input img").screenshot() != before
    assert "brighter" in page.inner_text("#difference")
    page.keyboard.press("Escape")
    page.focus("#next")
    page.keyboard.press("ArrowRight")
    page.wait_for_selector('body[data-shown="0/1/0"]')
    page.select_option("#model", "-1")
    page.wait_for_selector("#made", state="hidden")
    assert page.query_selector("#input img").is_visible()
    assert watched.complaints == []
    assert watched.outside(server.url) == []
    assert unnamed_controls(page) == []
    page.close()
