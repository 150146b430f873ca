"""The report in a browser: nothing from outside, nothing blank, controls that do something."""

import pytest
from conftest import Watched, colours_of, unnamed_controls

from foldnorm.pipeline.cli import main

pytestmark = pytest.mark.timeout(240)


@pytest.fixture(scope="module")
def report(small_run, small_cohort, tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    words = [small_run, small_cohort.folder, "-o", folder / "latent"]
    for analysis in (
        ["projection", *words, "--components", "2"],
        ["mean", *words],
        ["interpolate", *words, "--brain", "s03", "--to", "s04", "--path-steps", "3"],
        ["dimensions", *words, "--dimensions", "3", "--n-brains", "2", "--num", "2"],
        ["neighbours", *words, "--brain", "s03", "--num", "2"],
    ):
        assert main(["latent", *map(str, analysis), "--device", "cpu", "--quiet"]) == 0
    page = folder / "report.html"
    words = ["report", small_cohort.folder, small_run, folder / "latent", "-o", page, "--quiet"]
    assert main(list(map(str, words))) == 0
    return page


@pytest.fixture(scope="module")
def opened(browser, report):
    watched = Watched(browser, viewport={"width": 1200, "height": 900})
    watched.page.goto(report.as_uri())
    yield watched
    watched.page.close()


def shown(page, figure):
    """Wait until a figure shows something, and say what."""
    figure.scroll_into_view_if_needed()
    page.wait_for_function("(f) => f.dataset.shown", arg=figure, timeout=30_000)
    return figure.get_attribute("data-shown")


def figure_of(page, label):
    canvas = page.query_selector(f'canvas[aria-label^="{label}"]')
    return canvas.evaluate_handle("(c) => c.closest('figure')").as_element()


def test_all_figures_show_something_and_nothing_comes_from_outside(opened, report):
    page = opened.page
    figures = page.query_selector_all("figure.volumes")
    assert len(figures) == 5
    for figure in figures:
        shown(page, figure)
        assert colours_of(figure.query_selector("canvas")) > 5
    assert opened.complaints == []
    assert opened.outside(report.as_uri()) == []


def test_sliders_and_choices_change_what_is_seen(opened):
    page = opened.page
    figure = figure_of(page, "Sweep of a dimension")
    first = shown(page, figure)
    slider = figure.query_selector('[data-part="step"]')
    before = figure.query_selector("canvas").screenshot()
    slider.focus()
    for _ in range(6):
        page.keyboard.press("ArrowRight")
    page.wait_for_function("([f, s]) => f.dataset.shown !== s", arg=[figure, first])
    page.wait_for_timeout(500)
    assert figure.query_selector('[data-part="name"]').inner_text().startswith("z = ")
    assert figure.query_selector("canvas").screenshot() != before
    last = figure.get_attribute("data-shown")
    figure.query_selector("select").select_option(index=1)
    page.wait_for_function("([f, s]) => f.dataset.shown !== s", arg=[figure, last])
    assert slider.input_value() == "0"
    before = figure.query_selector("canvas").screenshot()
    figure.query_selector('[data-part="overlay"]').fill("0")
    page.wait_for_timeout(500)
    assert figure.query_selector("canvas").screenshot() != before


def test_play_goes_through_the_steps(opened):
    page = opened.page
    figure = figure_of(page, "Interpolation")
    assert shown(page, figure) == "step 0 of 3"
    figure.query_selector("button").click()
    page.wait_for_function("(f) => f.dataset.shown === 'step 2 of 3'", arg=figure, timeout=10_000)
    figure.query_selector("button").click()
    assert figure.query_selector("button").inner_text() == "Play"


def test_a_click_in_a_slice_says_where_and_what(opened):
    page = opened.page
    figure = figure_of(page, "First volumes")
    shown(page, figure)
    figure.query_selector("canvas").click(position={"x": 120, "y": 150})
    page.wait_for_function(
        "(f) => / mm: (outside|inside|sulcus)$/.test("
        "f.querySelector('[data-part=place]').textContent)",
        arg=figure,
    )
    place = figure.query_selector('[data-part="place"]').inner_text()
    assert place.split(" mm: ")[1] in ("outside", "inside", "sulcus")


def test_points_are_coloured_found_and_opened(opened):
    page = opened.page
    figure = page.query_selector("figure.points")
    assert shown(page, figure) == "role"
    plot = figure.query_selector('[data-part="plot"]')
    assert colours_of(plot) > 5
    before = plot.screenshot()
    figure.query_selector("select").select_option("split")
    page.wait_for_function("(f) => f.dataset.shown === 'split'", arg=figure)
    page.wait_for_timeout(300)
    assert plot.screenshot() != before
    search = figure.query_selector('[data-part="search"]')
    search.fill("s03")
    search.press("Enter")
    page.wait_for_function("(f) => f.dataset.opened === 'sub-s03'", arg=figure)
    page.wait_for_timeout(1500)
    assert colours_of(figure.query_selector("canvas")) > 5
    search.fill("nobody")
    search.press("Enter")
    page.wait_for_function(
        "(f) => f.querySelector('[data-part=opened]').textContent === 'no brain named nobody'",
        arg=figure,
    )
    point = plot.query_selector(".point")
    box = point.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.wait_for_function(
        "(f) => !f.querySelector('[data-part=hover]').hidden", arg=figure, timeout=5000
    )
    hover = figure.query_selector('[data-part="hover"]')
    assert "sub-s" in hover.inner_text()
    assert hover.query_selector(".tile") is not None


def test_controls_have_names(opened):
    assert unnamed_controls(opened.page) == []


def test_in_print_there_are_pictures_instead(opened):
    page = opened.page
    page.emulate_media(media="print")
    assert not page.query_selector("figure.volumes .live").is_visible()
    assert page.query_selector('img[alt="Slices of the first volumes"]').is_visible()
    page.emulate_media(media="screen")
