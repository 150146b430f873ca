"""Sulci by name in reports: the table of a person or of a sulcus, and points coloured by size."""

import re

import numpy as np
import pytest
from conftest import Watched, unnamed_controls
from test_atlas import hemispheres  # noqa: F401  # fixture

from foldnorm.pipeline.artifacts import PROJECTION, PROJECTION_SIDECAR, PROJECTION_SLICES
from foldnorm.pipeline.cli import main
from foldnorm.pipeline.latent.figures_of_brains import cohort_of, figures_by_brain
from foldnorm.pipeline.report.sulci import recognition_section
from foldnorm.pipeline.report.viewers import projection_points
from foldnorm.preprocessing.cohort.colours import many_colours
from foldnorm.preprocessing.cohort.pictures import png
from foldnorm.preprocessing.core.errors import InputError
from foldnorm.preprocessing.core.files import read_tsv, write_bytes, write_json, write_tsv

pytestmark = pytest.mark.timeout(240)
SULCI = ["calm", "odd"]
COLUMNS = ("participant_id", "hemi", "used_for", "flag", "sulcus", "size_mm2", "confidence",
           "depth_mm", "pieces", "z_missing", "z_large", "p_missing", "p_large",
           "z_mni")  # fmt: skip
PEOPLE = ("sub-a", "sub-b", "sub-c")


def labelled(folder, *, is_compared, flag=""):
    """What label-sulci writes of two sulci of three people; `odd` of sub-b departs most."""
    rows = []
    for n, person in enumerate(PEOPLE):
        for sulcus, large in zip(SULCI, (0.5 + n, -7.0 if n == 1 else 1.0), strict=True):
            values = [person, "L", "", flag, sulcus, 300 + n, 0.9 - n / 10, 12.3, 2]
            z = [-large, large, 0.25, 0.5] if is_compared else [""] * 4
            rows.append(dict(zip(COLUMNS, [*values, *z, 66.5], strict=True)))
        write_bytes(folder / f"{person}_hemi-L_desc-sulci.png", png(np.zeros((4, 4, 3), np.uint8)))
    write_tsv(folder / "sulci.tsv", rows, COLUMNS)
    about = {"atlas": {"vocabulary": "dkt"}, "phantom": False, "sulci": SULCI}
    more = {"smallest_p": 0.05} if is_compared else {}
    write_json(folder / "sulci.json", {**about, **more, "cohort": str(folder)})
    return folder


def test_sulci_are_listed_by_the_largest_departure_whatever_it_is(tmp_path):
    section = recognition_section(labelled(tmp_path, is_compared=True))
    listed = [cells[:6] for cells, _ in section["rows"]]
    assert listed[0] == ["sub-b", "L", "odd", "missing", "7.0", "0.250"]
    assert listed[1] == ["sub-c", "L", "calm", "large", "2.5", "0.500"]
    z = [float(cells[4]) for cells in listed]
    assert z == sorted(z, reverse=True)
    assert section["picture"].startswith("<svg") or "<svg" in section["picture"]


def test_colours_of_sulci_are_those_of_their_pictures(tmp_path):
    section = recognition_section(labelled(tmp_path, is_compared=False))
    colours = many_colours(len(SULCI))[1:-1]
    for cells, colour in section["rows"]:
        wanted = colours[SULCI.index(cells[2])].tolist()
        assert list(map(int, re.findall(r"\d+", colour))) == wanted
    assert section["picture"] is None
    assert [cells[0] for cells, _ in section["rows"]][:2] == ["sub-c", "sub-c"]  # least certain


def test_a_flag_is_a_warning(tmp_path):
    section = recognition_section(labelled(tmp_path, is_compared=False, flag="turned around"))
    assert section["warnings"] == [f"{person} L: turned around" for person in PEOPLE]


@pytest.fixture(scope="module")
def opened(browser, tmp_path_factory):
    folder = labelled(tmp_path_factory.mktemp("report") / "named", is_compared=True)
    page = folder.parent / "report.html"
    assert main(["report", str(folder), "-o", str(page), "--quiet"]) == 0
    watched = Watched(browser, viewport={"width": 400, "height": 900})
    watched.page.goto(page.as_uri())
    yield watched, page
    watched.page.close()


def cells(page):
    return page.evaluate("""() => [...document.querySelectorAll("[data-part=rows] tr")].map(
        (row) => [...row.cells].map((cell) => cell.textContent))""")


def test_a_person_or_a_sulcus_is_chosen_in_the_report(opened):
    watched, address = opened
    page = watched.page
    assert len(cells(page)) == 6
    assert not page.is_visible("[data-part=picture]")
    page.select_option("[data-part=brain]", label="sub-c L")
    assert [row[:3] for row in cells(page)] == [["sub-c", "L", "calm"], ["sub-c", "L", "odd"]]
    assert page.is_visible("[data-part=picture]")
    assert page.get_attribute("[data-part=picture]", "alt") == "Named sulci of sub-c L"
    page.select_option("[data-part=sulcus]", label="odd")
    assert [row[:3] for row in cells(page)] == [["sub-c", "L", "odd"]]
    page.select_option("[data-part=brain]", "")
    assert [row[0] for row in cells(page)] == ["sub-b", "sub-a", "sub-c"]
    assert not page.is_visible("[data-part=picture]")
    assert page.evaluate("document.documentElement.scrollWidth") <= 400
    assert unnamed_controls(page) == []
    assert watched.complaints == []
    assert watched.outside(address.as_uri()) == []


def test_sizes_of_sulci_of_a_cohort_are_sums_over_its_named_folds(hemispheres):  # noqa: F811
    assert cohort_of(hemispheres.folder) == hemispheres.folder.resolve()
    found = figures_by_brain(hemispheres.folder)
    row = hemispheres.rows[0]
    own = found[row["participant_id"], row["hemi"]]
    side = {"L": "_left", "R": "_right"}[row["hemi"]]
    for column, value in own.items():
        name = column.removeprefix("size_mm2@")
        folds = [
            float(fold["size"])
            for fold in hemispheres.fold_table
            if (fold["participant_id"], fold["hemi"]) == (row["participant_id"], row["hemi"])
            and fold["name"] in (name, name + side)
        ]
        assert float(value) == pytest.approx(sum(folds))
    assert any(float(value) > 100 for value in own.values())
    assert len({tuple(brain) for brain in found.values()}) == 1  # the same sulci of all


def test_sizes_of_sulci_that_label_sulci_found_are_those_of_its_table(tmp_path):
    found = figures_by_brain(labelled(tmp_path, is_compared=False))
    assert found["sub-b", "L"] == {"size_mm2@calm": "301", "size_mm2@odd": "301"}
    assert cohort_of(tmp_path) == tmp_path.resolve()


def test_what_has_no_figures_is_refused(small_cohort, tmp_path):
    with pytest.raises(InputError, match="neither scores, named sulci nor a cohort"):
        cohort_of(tmp_path)
    with pytest.raises(InputError, match="no names"):
        figures_by_brain(small_cohort.folder)


def test_sizes_of_sulci_are_a_group_of_their_own_among_the_colours(tmp_path):
    rows = [
        {"brain": f"sub-{n}", "cohort": "c", "index": n, "role": "fitted", "x": n, "y": -n,
         "age": 20 + n, "size_mm2@S.C.": 100.5 * n, "size_mm2@S.s.": 7}
        for n in range(3)
    ]  # fmt: skip
    write_tsv(tmp_path / PROJECTION, rows, list(rows[0]))
    write_json(tmp_path / PROJECTION_SIDECAR, {"method": "pca", "cohorts": {}})
    write_bytes(tmp_path / PROJECTION_SLICES, b"")
    points = projection_points(tmp_path)
    assert points["colours"] == ["role", "age"]
    assert points["sulci"] == ["S.C."]  # the other one says the same of all
    assert "size_mm2@S.C." in points["json"]


def test_a_projection_is_coloured_by_the_sulci_of_its_cohort(small_run, small_cohort, tmp_path):
    about = {"phantom": False, "sulci": ["S.C."], "cohort": str(small_cohort.folder)}
    rows = [
        {"participant_id": row["participant_id"], "hemi": row["hemi"], "sulcus": "S.C.",
         "size_mm2": 10 * n}
        for n, row in enumerate(small_cohort.rows)
    ]  # fmt: skip
    write_tsv(tmp_path / "named/sulci.tsv", rows, list(rows[0]))
    write_json(tmp_path / "named/sulci.json", about)
    words = ["latent", "projection", small_run, small_cohort.folder, "-o", tmp_path / "out",
             "--colour-by", tmp_path / "named", "--device", "cpu", "--quiet"]  # fmt: skip
    assert main([*map(str, words)]) == 0
    found = read_tsv(tmp_path / "out" / PROJECTION)
    assert [float(row["size_mm2@S.C."]) for row in found] == [10 * n for n in range(len(found))]
