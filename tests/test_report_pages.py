"""Pages about brains: who gets one, what it says, and that left stays left."""

import gzip
import re
import shutil
import threading

import nibabel
import numpy as np
import pytest
from conftest import Watched, colours_of, unnamed_controls

from foldnorm.pipeline.artifacts import PAGE_ARRAYS
from foldnorm.pipeline.cli import main
from foldnorm.pipeline.report.brain_page import PageChoice, brain_pages, unmirrored
from foldnorm.pipeline.report.brain_page_figures import PagePictures
from foldnorm.pipeline.report.hemisphere import Glow, Hemisphere, glows_of_regions
from foldnorm.pipeline.report.page_files import PageArrays
from foldnorm.pipeline.view.library import Library
from foldnorm.pipeline.view.server import ViewServer
from foldnorm.preprocessing.cohort.cohort import Cohort, row_key
from foldnorm.preprocessing.cohort.cohort_files import write_participants
from foldnorm.preprocessing.core.errors import InputError
from foldnorm.preprocessing.core.files import read_json, read_tsv, write_json, write_tsv

pytestmark = pytest.mark.timeout(240)
SCORE = "void_component"


def packed_copy(source, folder, change):
    """The packed files of a cohort under other rows."""
    folder.mkdir()
    for path in source.iterdir():
        if path.is_file():
            (folder / path.name).write_bytes(path.read_bytes())
    write_participants(folder, [change(n, row) for n, row in enumerate(Cohort.open(source).rows)])
    return folder


@pytest.fixture(scope="module")
def scored(phantom_cohort, tmp_path_factory):
    """Scores of phantoms without a fold, of healthy families; the third is of a far site."""
    folder = tmp_path_factory.mktemp("pages")
    words = ["alter", phantom_cohort.folder, "-o", folder / "altered", "--size", "200", "--quiet"]
    assert main([*map(str, words), "--n-procs", "1"]) == 0

    def healthy_row(n, row):
        return {**row, "family": f"f{n}", "site": "Here"}

    def patient_row(n, row):
        site = "There" if n == 2 else "Here"
        name = f"{row['participant_id']}x"
        return {**row, "participant_id": name, "family": f"f{n}", "site": site}

    healthy = packed_copy(phantom_cohort.folder, folder / "healthy", healthy_row)
    patients = packed_copy(folder / "altered", folder / "patients", patient_row)
    words = ["score", "void", patients, "-o", folder / "scores", "--reference", healthy, "--maps"]
    assert main([*map(str, words), "--quiet"]) == 1  # one is flagged
    return folder / "scores"


@pytest.fixture(scope="module")
def pages(scored):
    return brain_pages(scored, PageChoice())


def test_the_brain_with_the_smallest_p_comes_first_and_its_sulcus_is_named(scored, pages):
    rows = {row_key(row): row for row in read_tsv(scored / "scores.tsv")}
    smallest = min(float(row[f"p_{SCORE}"]) for row in rows.values() if row[f"p_{SCORE}"])
    first = pages[0]
    assert first["p"] == smallest
    region = next(r for r in read_tsv(scored / "regions.tsv") if row_key(r) == first["key"])
    assert first["regions"][0]["sulcus"] == region["sulcus"].replace("_", " ")
    assert region["sulcus"]
    assert first["regions"][0]["share"].endswith(" %")
    assert first["planes"].startswith("data:image/png;base64,")


def test_none_of_the_five_healthy_brains_is_of_the_family(scored):
    brains = read_json(scored / "pages.json")["brains"]
    families = {row["participant_id"]: row["family"] for row in
                read_tsv(scored.parent / "healthy/participants.tsv")}  # fmt: skip
    own = {row_key(row): row["family"] for row in
           read_tsv(scored.parent / "patients/participants.tsv")}  # fmt: skip
    for key, brain in brains.items():
        shown = [other["key"].partition("_")[0] for other in brain["healthy"]]
        assert len(set(shown)) == 5
        assert own[key] not in {families[name] for name in shown}
        assert brain["compared_with"] == len(families) - 1


def test_a_flagged_brain_shows_the_flag_and_no_p(pages):
    (flagged,) = [page for page in pages if page["facts"]["site"] == "There"]
    assert "is of site There" in flagged["no_p"]
    assert flagged["p"] is flagged["q"] is None
    assert {region["p"] for region in flagged["regions"]} == {"–"}
    assert pages[-1] is flagged
    assert not any(page["stranger"] or page["no_p"] for page in pages[:-1])


def test_a_brain_of_another_site_that_has_a_p_all_the_same_is_warned_of(scored, tmp_path):
    folder = tmp_path / "scores"
    shutil.copytree(scored, folder)
    rows = read_tsv(folder / "scores.tsv")
    for row in rows:  # as --across-sites gives it
        if row["flag"]:
            row |= {"flag": "", f"p_{SCORE}": "0.01", f"q_{SCORE}": "0.01"}
    write_tsv(folder / "scores.tsv", rows, list(rows[0]))
    first = brain_pages(folder, PageChoice(1))[0]
    assert "site There, and none of the healthy brains is" in first["stranger"]


@pytest.fixture(scope="module")
def both_sides(scored, pages, tmp_path_factory):
    """Scores of which three brains know the other side: unusual, flagged, of a healthy person."""
    folder = tmp_path_factory.mktemp("both") / "scores"
    shutil.copytree(scored, folder)
    one, two, three = ({"participant_id": page["key"].partition("_")[0]} for page in pages[:3])
    one |= {"flag": "", f"side_{SCORE}": "R", f"p_{SCORE}": "0.02", f"q_{SCORE}": "0.04"}
    two |= {"flag": "R is empty", f"side_{SCORE}": "R"}
    columns = ["participant_id", "used_for", "flag"]
    names = [name for name in read_tsv(folder / "scores.tsv")[0] if name.startswith("score_")]
    columns += [name.replace("score", w, 1) for w in ("score", "side", "p", "q") for name in names]
    write_tsv(folder / "both_sides.tsv", [one, two, {**three, "used_for": "calibration"}], columns)
    sidecar = read_json(folder / "scores.json") | {"both_sides_calibrated_on": 49}
    write_json(folder / "scores.json", sidecar)
    return folder


def test_a_page_says_what_both_hemispheres_say_together(both_sides):
    one, two, three, four = brain_pages(both_sides, PageChoice(4))
    said = {"p": 0.02, "q": 0.04, "side": "right", "flag": "", "calibrated_on": 49}
    assert one["both_sides"] == said
    assert (two["both_sides"]["p"], two["both_sides"]["flag"]) == (None, "R is empty")
    assert three["both_sides"] is None  # its page says that it is of a healthy person
    assert four["both_sides"] is None


def test_the_report_has_a_table_of_both_hemispheres(both_sides, scored, tmp_path):
    texts = []
    for folder in (both_sides, scored):
        assert main(["report", str(folder), str(tmp_path / "r.html"), "--pages", "2"]) == 0
        texts.append((tmp_path / "r.html").read_text(encoding="utf-8"))
    text = re.sub(r"<[^>]*>", " ", texts[0])
    assert "Both hemispheres of this person together: p = 0.020, q = 0.040" in text
    assert "The right one is the more unusual" in text
    assert "have no p-value: R is empty" in text
    table = texts[0].split("Both hemispheres of a person together", 1)[1].split("</table>", 1)[0]
    assert table.count("<tr>") == 2  # a header, and the one that has a p
    assert "<td>R</td>" in table
    assert "<td>0.020</td>" in table
    assert "<td>–</td>" in table  # of a score that has none
    assert "each of 49 healthy people" in text
    assert "Both hemispheres" not in texts[1]


@pytest.mark.parametrize(
    ("table", "column"),
    [("scores.tsv", f"p_{SCORE}"), ("scores.tsv", f"q_{SCORE}"), ("regions.tsv", "mass"),
     ("regions.tsv", "x"), ("regions.tsv", "mm3"), ("regions.tsv", "p")],
)  # fmt: skip
def test_a_cell_that_is_no_number_is_named_by_the_report(scored, tmp_path, capsys, table, column):
    shutil.copytree(scored, tmp_path / "scores")
    rows = read_tsv(scored / table)
    bad = [{**row, column: row[column] and "many"} for row in rows]
    write_tsv(tmp_path / "scores" / table, bad, list(rows[0]))
    words = ["report", str(tmp_path / "scores"), "-o", str(tmp_path / "r.html"), "--pages", "1"]
    assert main(words) == 2
    said = f"expected a number under {column}, got 'many': {tmp_path / 'scores' / table}"
    assert said in capsys.readouterr().err


def test_pages_can_be_few_or_asked_for(scored, pages):
    assert [page["key"] for page in brain_pages(scored, PageChoice(2))] == [
        page["key"] for page in pages[:2]
    ]
    assert brain_pages(scored, PageChoice(0)) == []
    last = pages[-1]["key"]
    asked = brain_pages(scored, PageChoice(brains=(last.partition("_")[0],)))
    assert [page["key"] for page in asked] == [last]
    with pytest.raises(InputError, match="sub-nobody"):
        brain_pages(scored, PageChoice(brains=("sub-nobody",)))


def test_arrays_are_small_and_come_back(scored, pages):
    path = scored / PAGE_ARRAYS.of(brain=pages[0]["key"])
    arrays = PageArrays.read(path)
    assert path.stat().st_size < 60_000
    assert arrays.volume.shape == arrays.z.shape == arrays.regions.shape
    assert [len(own) for own in arrays.planes("healthy")] == [5, 5, 5]
    i, j, k = read_json(scored / "pages.json")["brains"][pages[0]["key"]]["peak"]
    assert arrays.regions[i, j, k] == 1
    assert arrays.z[i, j, k] == arrays.z[arrays.regions == 1].max()
    assert arrays.z.max() == 255  # of the largest z


def test_arrays_with_pickles_are_refused(tmp_path):
    np.savez(tmp_path / "bad.npz", volume=np.array([{}], dtype=object))
    with pytest.raises(InputError, match=r"not the arrays of a page.*bad\.npz"):
        PageArrays.read(tmp_path / "bad.npz")


def test_a_mirrored_right_hemisphere_is_turned_back():
    affine = np.array([[2.0, 0, 0, -80], [0, 2, 0, -10], [0, 0, 2, -6], [0, 0, 0, 1]])
    stored, side = np.array([3, 1, 2, 1]), 48
    turned = np.array([side - 1 - 3, 1, 2, 1])
    x, y, z, _ = affine @ stored
    assert (unmirrored(affine, side) @ turned).tolist() == [-x, y, z, 1]


def arrays_of(volume):
    empty = np.zeros_like(volume)
    planes = {}
    for axis, plane in (
        ("sagittal", empty[0]),
        ("coronal", empty[:, 0]),
        ("axial", empty[:, :, 0]),
    ):
        planes |= {
            f"share_{axis}": plane,
            f"expected_{axis}": plane,
            f"healthy_{axis}": plane[None],
        }
    return PageArrays(volume=volume, z=empty, regions=empty, **planes)


def test_right_and_anterior_are_on_the_left_of_a_plane():
    volume = np.zeros((8, 10, 12), np.uint8)
    volume[7, 9, 11] = 1  # right, anterior, superior
    about = {"affine": np.eye(4).tolist(), "classes": ["outside", "inside"]}
    pictures = PagePictures(arrays_of(volume), about, {}, (7, 9, 11))
    planes = {"sagittal": volume[7], "coronal": volume[:, 9], "axial": volume[:, :, 11]}
    for axis, plane in planes.items():
        picture, (left, right, bottom, top) = pictures._oriented(axis, plane)
        rows, columns = np.nonzero(picture)
        assert (rows[0], columns[0]) == (picture.shape[0] - 1, 0)  # of an origin at the bottom
        assert (left, top) == (-0.5, 0.5)  # the place is at 0, 0
        assert (right - left, top - bottom) == picture.shape[::-1]


def test_mirrored_arrays_exchange_left_and_right():
    volume = np.zeros((4, 5, 6), np.uint8)
    volume[0, 1, 2] = 1
    turned = arrays_of(volume).mirrored()
    assert np.argwhere(turned.volume).tolist() == [[3, 1, 2]]
    assert turned.share_sagittal.shape == (5, 6)


def test_a_hemisphere_is_seen_from_its_sides_with_its_region():
    """A box with a bump in front, and a region below its left face."""
    inside = np.zeros((60, 40, 40), bool)
    inside[5:55, 5:30, 5:35] = True
    inside[5:55, 30:37, 5:10] = True  # in front, below
    regions = np.zeros(inside.shape, np.uint8)
    regions[8:12, 10:16, 25:30] = 1
    glows = glows_of_regions(regions)
    views = Hemisphere(inside, np.zeros_like(inside), (1, 1, 1), "L", glows=glows).views(pixel=1)
    assert [view.name for view in views] == ["lateral", "medial", "from above"]

    def red(view):
        picture = view.picture
        return np.argwhere((picture[..., 0] > 1.8 * picture[..., 1]) & (picture[..., 0] > 60))

    lateral, medial, above = views
    assert lateral.letters == "AP"
    assert len(red(medial)) == 0  # too deep
    rows, columns = red(lateral).mean(axis=0)
    assert (rows, columns) == pytest.approx((12, 27), abs=1)  # above the middle, behind it
    dark = np.argwhere((lateral.picture < 250).any(axis=-1))
    assert dark[dark[:, 0] > 32, 1].min() < 5 < dark[dark[:, 0] < 20, 1].min()  # bump at the left
    assert red(above)[:, 1].max() < 15  # left is left


def a_box_with_two_furrows():
    """Box of tissue in a hull, cut from its left face by two sheets, 8 mm deep."""
    volume = np.zeros((24, 40, 40), np.uint8)
    volume[2:22, 2:38, 2:38] = 2  # hull
    volume[3:21, 3:37, 3:37] = 1
    volume[2:11, 12, 8:32] = volume[2:11, 28, 8:32] = 2
    labels = np.zeros(volume.shape, int)
    labels[3:11, 12, 8:32], labels[3:11, 28, 8:32] = 1, 2
    return volume, labels


def test_sheets_are_seen_in_their_colours_between_gyri_and_the_hull_is_not():
    volume, labels = a_box_with_two_furrows()
    colours = np.array([[250.0, 0, 0], [0, 0, 250]])
    drawn = Hemisphere(volume == 1, volume == 2, (1, 1, 1), "L", labels=labels, colours=colours)
    lateral, medial = drawn.views(("left", "right"), pixel=1)
    _, column = lateral.named[2].places[0]
    assert column == pytest.approx(40 - 28.5, abs=1)  # anterior is on the left
    assert set(lateral.named) == {1, 2}
    assert lateral.named[2].pixels > 20
    r, g, b = np.moveaxis(lateral.picture.astype(int), -1, 0)
    assert (b > r + 60).sum() > 20
    assert (r > b + 60).sum() > 20
    assert (abs(r - g) < 25)[15:25, 16:24].all()  # a gyrus, not the hull
    assert not medial.named
    assert (np.ptp(medial.picture.astype(int), axis=-1) < 30).all()


def test_what_shines_through_is_coloured_by_its_strongest_value():
    volume, _ = a_box_with_two_furrows()
    values = np.zeros(volume.shape, np.float32)
    values[4:8, 18:23, 18:23] = 2
    values[12:14, 18:23, 18:23] = 5  # deeper, stronger
    seen = []

    def colours_of(found):
        seen.append(found)
        return np.repeat([[0.0, 200, 0]], len(found), axis=0)

    Hemisphere(volume == 1, volume == 2, (1, 1, 1), "L", glows=[Glow(values, 1, colours_of)]).views(
        ["left"], pixel=1
    )
    assert seen[0].max() == 5
    assert 80 < len(seen[0]) < 180  # 5 by 5 mm of 4 rays a pixel, and their rims


@pytest.fixture(scope="module")
def page(scored, tmp_path_factory):
    out = tmp_path_factory.mktemp("page") / "report.html"
    assert main(["report", str(scored), "-o", str(out), "--pages", "3", "--quiet"]) == 0
    return out


def test_the_page_says_what_it_means_and_what_not(page, pages):
    text = re.sub(r"<[^>]*>", "", page.read_text(encoding="utf-8").split("<article", 1)[1])
    assert "This is not a diagnosis" in text
    assert "the smallest p that can be reached" in text.lower()
    assert "people in all, the family of this brain left out) of site Here" in text
    assert pages[0]["regions"][0]["sulcus"] in text
    for jargon in ("conformal", "latent"):
        assert jargon not in text.split("Settings")[0].lower()


def test_pages_in_a_browser_and_in_print(browser, page):
    watched = Watched(browser, viewport={"width": 1000, "height": 900})
    opened = watched.page
    opened.goto(page.as_uri())
    articles = opened.query_selector_all("article.brain")
    assert len(articles) == 3
    figure = articles[0].query_selector("figure.volumes")
    figure.scroll_into_view_if_needed()
    opened.wait_for_function("(f) => f.dataset.shown", arg=figure, timeout=30_000)
    assert colours_of(figure.query_selector("canvas")) > 5
    assert unnamed_controls(opened) == []
    assert watched.complaints == []
    assert watched.outside(page.as_uri()) == []
    opened.emulate_media(media="print")
    opened.set_viewport_size({"width": 703, "height": 1047})  # A4 without its margins
    for article in articles:
        assert article.bounding_box()["height"] < 1047  # one sheet
        assert article.evaluate("(e) => getComputedStyle(e).breakBefore") == "page"
        assert article.evaluate("(e) => e.querySelector('.scroll').scrollWidth") <= 703
        assert not article.query_selector(".live").is_visible()
        assert colours_of(article.query_selector("img")) > 50
    opened.close()


@pytest.fixture(scope="module")
def server(scored):
    serving = ViewServer(Library([scored.parent / "patients", scored], "cpu"))
    threading.Thread(target=serving.serve_forever, daemon=True).start()
    yield serving
    serving.shutdown()
    serving.server_close()


def test_view_tells_regions_and_where_the_strongest_is(server, scored, pages):
    cohort = Cohort.open(scored.parent / "patients")
    place = cohort.keys().index(pages[0]["key"])
    about = server.library.brain(0, place)
    (own,) = about["scores"]
    assert own["regions"][0][0].replace("_", " ") == pages[0]["regions"][0]["sulcus"]
    assert own["regions"][0][-1]
    layer = np.asarray(
        nibabel.Nifti1Image.from_bytes(gzip.decompress(server.library.departure(0, place))).dataobj
    )
    assert layer.shape == cohort.shape
    assert layer[tuple(about["peak"])] > 0
    flagged = server.library.brain(0, cohort.keys().index(pages[-1]["key"]))
    assert flagged["scores"][0]["regions"][0][-1] == ""  # no p


def test_view_shows_them_over_the_brain(browser, server, scored, pages):
    place = Cohort.open(scored.parent / "patients").keys().index(pages[0]["key"])
    watched = Watched(browser, viewport={"width": 1200, "height": 900})
    watched.page.goto(f"{server.url}#0/{place}/-1")
    watched.page.wait_for_selector(f'body[data-shown="0/{place}/-1"]', timeout=30_000)
    assert "Regions that depart" in watched.page.inner_text("#scores")
    assert colours_of(watched.page.query_selector("#input canvas")) > 5
    assert watched.complaints == []
    watched.page.close()


def test_view_follows_no_link_out_of_the_scores(scored, tmp_path):
    cohort, folder = scored.parent / "patients", tmp_path / "scores"
    shutil.copytree(scored, folder)
    key = next(iter(read_json(folder / "pages.json")["brains"]))
    path = folder / PAGE_ARRAYS.of(brain=key)
    path.rename(tmp_path / "elsewhere.npz")
    path.symlink_to(tmp_path / "elsewhere.npz")
    library = Library([cohort, folder], "cpu")
    with pytest.raises(InputError, match="leads out of the folders"):
        library.departure(0, library.keys(0).index(key))
