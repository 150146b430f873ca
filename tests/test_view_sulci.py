"""Sulci in `foldnorm view`: names of a cohort and of `label-sulci`, their colours, one alone."""

import gzip
import json
import threading
from io import BytesIO

import nibabel
import numpy as np
import pytest
from conftest import Watched, unnamed_controls
from PIL import Image
from test_atlas import hemispheres  # noqa: F401  # fixture
from test_view import ask

from foldnorm.pipeline.cli import main
from foldnorm.pipeline.view.library import Library
from foldnorm.pipeline.view.server import ViewServer
from foldnorm.pipeline.view.sulci import MOST_COLOURS, LabelledSulci, above_classes
from foldnorm.preprocessing.cohort.colours import many_colours
from foldnorm.preprocessing.core.errors import InputError
from foldnorm.preprocessing.core.files import read_json, read_tsv
from foldnorm.preprocessing.io.volumes import read_labels

pytestmark = pytest.mark.timeout(240)
INDEX, LOST = 0, -1  # of brains


@pytest.fixture(scope="module")
def named(hemispheres, tmp_path_factory):  # noqa: F811  # the fixture
    """What label-sulci finds in coarse phantoms; the last brain of it is lost."""
    folder = tmp_path_factory.mktemp("named")
    assert main(["atlas", str(hemispheres.folder), "-o", str(folder / "a.npz"), "--quiet"]) == 0
    words = ["label-sulci", folder / "a.npz", hemispheres.folder, "-o", folder / "out", "--quiet"]
    assert main(list(map(str, words))) in (0, 1)  # flags of coarse phantoms are no matter here
    LabelledSulci(folder / "out", hemispheres).files(LOST)[0].unlink()
    return folder / "out"


@pytest.fixture(scope="module")
def server(hemispheres, named):  # noqa: F811  # the fixture
    serving = ViewServer(Library([hemispheres.folder, named], "cpu"))
    threading.Thread(target=serving.serve_forever, daemon=True).start()
    yield serving
    serving.shutdown()
    serving.server_close()


def voxels(content):
    return np.asarray(nibabel.Nifti1Image.from_bytes(gzip.decompress(content)).dataobj)


def test_names_of_a_cohort_are_above_its_classes(server, hemispheres):  # noqa: F811
    (about,) = json.loads(ask(server, "contents")[2])["cohorts"]
    of_labeller, own = about["sulci"]
    assert own["title"].startswith("of the cohort")
    assert own["palette"] == many_colours(len(own["names"]))[1:-1].tolist()
    found, volume = voxels(ask(server, "named/0/0/1")[2]), hemispheres.volumes[0]
    top = hemispheres.scheme.n_classes - 1
    row = hemispheres.rows[0]
    for fold in hemispheres.fold_table:
        if (fold["participant_id"], fold["hemi"]) != (row["participant_id"], row["hemi"]):
            continue
        values = np.unique(found[hemispheres.folds[0] == int(fold["label"])])
        name = fold["name"].removesuffix("_left").removesuffix("_right")
        wanted = top + 1 + own["names"].index(name) if name in own["names"] else top
        assert values.tolist() in ([wanted], [])
    unnamed = found <= top
    assert np.array_equal(found[unnamed], np.array(volume)[unnamed])
    assert 0 < (~unnamed).sum() < (np.array(volume) == top).sum()
    assert of_labeller["title"] == "out"


def test_names_that_label_sulci_gave_come_back_to_the_grid_of_the_cohort(
    hemispheres,  # noqa: F811  # the fixture
    named,
    server,
):
    index = INDEX
    sulci = LabelledSulci(named, hemispheres)
    found = sulci.labels(index)
    (path,) = sulci.files(index)
    truth = read_json(named / "sulci.json")["sulci"]
    assert sulci.sulci == truth
    of_folds = {}
    row = hemispheres.rows[index]
    for fold in read_tsv(named / "folds.tsv"):
        if (fold["participant_id"], fold["hemi"]) == (row["participant_id"], row["hemi"]):
            of_folds[int(fold["fold"])] = fold["sulcus"]
    folds = np.array(hemispheres.folds[index])
    wanted = np.zeros(folds.shape, dtype=int)
    for label, name in of_folds.items():
        if name:
            wanted[folds == label] = truth.index(name) + 1
    known = (wanted > 0) & (found > 0)
    assert known.sum() > 0.8 * (wanted > 0).sum()
    assert (found[known] == wanted[known]).mean() > 0.9  # its grid is that of the input
    assert set(np.unique(read_labels(path).data)) >= set(np.unique(found)) - {0}
    number = hemispheres.scheme.n_classes - 1 + found[found > 0]
    assert np.array_equal(voxels(ask(server, f"named/0/{index}/0")[2])[found > 0], number)


def test_a_brain_that_was_not_named_and_names_that_are_not_there_are_said(
    server,
    hemispheres,  # noqa: F811  # the fixture
    named,
):
    other = len(hemispheres.rows) - 1
    status, _, content = ask(server, f"named/0/{other}/0")
    assert status == 409
    assert "not among the brains that were named" in json.loads(content)["error"]
    assert ask(server, f"named/0/{other}/2")[0] == 404
    with pytest.raises(InputError, match="expected a cohort folder"):
        Library([named])


def test_more_sulci_than_colours_share_the_last(hemispheres):  # noqa: F811
    sulci = np.array([[[0, 1, 254, 255]]], dtype=np.uint8)
    found = above_classes(np.ones_like(sulci), sulci, hemispheres.scheme)
    top = hemispheres.scheme.n_classes - 1
    assert found.ravel().tolist() == [1, top + 1, MOST_COLOURS, MOST_COLOURS]


@pytest.fixture(scope="module")
def opened(browser, server, hemispheres):  # noqa: F811  # the fixture
    index = INDEX
    watched = Watched(browser, viewport={"width": 1280, "height": 860})
    watched.page.goto(f"{server.url}#0/{index}/-1")
    watched.page.wait_for_selector("body[data-shown]")
    yield watched
    watched.page.close()


def colour_share(page, name):
    """Share of the planes that have the colour of a sulcus in the legend."""
    page.wait_for_timeout(400)
    swatch = page.query_selector(f'[data-sulcus="{name}"] .swatch')
    colour = swatch.evaluate(
        "(e) => getComputedStyle(e).backgroundColor.match(/\\d+/g).map(Number)"
    )
    shot = page.query_selector("#input canvas").screenshot()
    seen = np.asarray(Image.open(BytesIO(shot)).convert("RGB"), dtype=int)
    return (np.abs(seen - colour).max(axis=-1) < 8).mean()


def test_a_sulcus_is_seen_alone_and_all_again_by_keys(opened):
    page = opened.page
    buttons = page.query_selector_all("#legend button")
    assert len(buttons) >= 3
    names = [button.get_attribute("data-sulcus") for button in buttons]
    before = {name: colour_share(page, name) for name in names}
    chosen, other = sorted(names, key=lambda name: -before[name])[:2]
    assert before[other] > 0
    page.focus(f'[data-sulcus="{chosen}"]')
    page.keyboard.press("Enter")
    assert page.get_attribute(f'[data-sulcus="{chosen}"]', "aria-pressed") == "true"
    assert colour_share(page, chosen) > 0
    assert colour_share(page, other) == 0
    assert page.evaluate("document.activeElement.dataset.sulcus") == chosen
    page.keyboard.press("ArrowRight")  # it stays alone in the next brain
    page.wait_for_timeout(500)
    page.keyboard.press("ArrowLeft")
    page.wait_for_timeout(1500)
    assert page.get_attribute(f'[data-sulcus="{chosen}"]', "aria-pressed") == "true"
    page.focus(f'[data-sulcus="{chosen}"]')
    page.keyboard.press("Escape")
    assert page.get_attribute(f'[data-sulcus="{chosen}"]', "aria-pressed") == "false"
    assert colour_share(page, other) == pytest.approx(before[other], rel=0.2)
    assert unnamed_controls(page) == []


def test_names_are_under_the_pointer_in_planes_and_on_the_surface(opened):
    page = opened.page
    box = page.query_selector("#input canvas").bounding_box()
    names = {button.get_attribute("data-sulcus") for button in page.query_selector_all("#legend *")}
    seen = {"planes": set(), "surface": set()}
    for across in np.linspace(0.3, 0.75, 9):
        for down in np.linspace(0.1, 0.9, 9):
            page.mouse.move(box["x"] + across * box["width"], box["y"] + down * box["height"])
            page.wait_for_timeout(60)
            if page.is_visible("#hover"):
                where = "surface" if across > 0.5 and down > 0.5 else "planes"
                seen[where].add(page.inner_text("#hover"))
    assert seen["planes"] & names
    assert seen["surface"] & names


def test_other_names_or_none_can_be_chosen(opened):
    page = opened.page
    page.select_option("#names", "1")
    page.wait_for_timeout(1500)
    assert page.query_selector_all("#legend button")
    page.select_option("#names", "-1")
    page.wait_for_timeout(1500)
    assert page.query_selector_all("#legend button") == []
    assert [c for c in opened.complaints if "ReadPixels" not in c and "409" not in c] == []
