"""The documentation: its figures are those of the results, and it builds without a warning."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

from foldnorm.preprocessing.core.files import read_json

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks/results"
README = (ROOT / "README.md").read_text(encoding="utf-8")


def module_of(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module  # a dataclass looks for its module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def figures():
    pytest.importorskip("sphinx", reason="the extra docs is not installed")
    return module_of(ROOT / "docs/extensions/figures.py")


def test_tables_of_the_readme_are_those_of_the_results(figures):
    assert figures.with_tables(README) == README
    wrong = README.replace("| `void`, no network | .", "| `void`, no network | 7")
    assert wrong != README
    assert figures.with_tables(wrong) == README


def test_the_readme_is_read_in_a_minute_and_names_files_that_there_are():
    assert len(re.sub(r"<!--.*?-->\n", "", README, flags=re.DOTALL).splitlines()) <= 120
    links = re.findall(r"\]\((?!http)([^)#]+)\)", README)
    assert len(links) > 15
    for link in links:
        assert (ROOT / link).exists(), link


@pytest.mark.parametrize(
    ("value", "digits", "expected"),
    [(0.9449, 2, ".94"), (0.995, 2, "1.00"), (1.0, 2, "1.00"), (-0.011, 2, "-.01"),
     (-0.002, 2, ".00"), (12345, 2, "12,345"), (1717955.0, 2, "1,717,955"), (74.11, 2, "74.1"),
     (0.8764, 3, ".876"), (None, 2, "–")],
)  # fmt: skip
def test_numbers_are_written_as_papers_do(figures, value, digits, expected):
    assert figures.number(value, digits) == expected


def test_a_table_has_a_cell_for_each_key_and_refuses_unknown_ones(figures):
    record = read_json(RESULTS / "threads.json")["figures"]
    table = figures.Table({"cost": "{}", "other": "{}_of_nobody"}, {"here": "cost_alone"},
                          file="threads.json")  # fmt: skip
    last = table.to_markdown().splitlines()[-1]
    assert last == f"| here | {figures.number(record['cost_alone'])} | – |"
    with pytest.raises(figures.UnknownFigure, match=r"threads\.json"):
        figures.Table({"cost": "{}"}, {"here": "nothing"}, file="threads.json").to_markdown()


def test_every_file_of_results_says_where_it_comes_from_and_what_it_measures():
    measured = module_of(ROOT / "benchmarks/stale.py").MEASURED
    names = {path.name for path in RESULTS.glob("*.json")}
    assert measured.keys() == names
    for name in names:
        assert {"commit", "date", "machine", "figures"} <= read_json(RESULTS / name).keys()
        assert all((ROOT / path).exists() for path in measured[name]), name


def test_a_figure_among_others_has_a_path(figures):
    record = {"a": 1, "b": {"c": [2, {"d": 3}]}, "e": {}}
    assert dict(figures.leaves(record)) == {"a": 1, "b/c/0": 2, "b/c/1/d": 3}
    named = read_json(RESULTS / "missing_sulci.json")["figures"]["named_by_sulcus"]
    found = figures.load("missing_sulci.json")["figures"]["named_by_sulcus/central/void"]
    assert found == named["central"]["void"]


def pages_of(folder):
    paths = sorted((ROOT / "docs" / folder).glob("*.md"))
    return [pytest.param(path, id=path.stem) for path in paths if path.stem != "index"]


@pytest.mark.parametrize("page", pages_of("results"))
def test_a_page_of_results_begins_with_what_came_out(page):
    title, outcome, *_ = page.read_text(encoding="utf-8").split("\n\n")
    assert title.startswith("# ")
    assert re.match(r"[A-Z`]", outcome), f"{page}: {outcome}"


@pytest.mark.parametrize("page", pages_of("results") + pages_of("results/studies"))
def test_a_table_of_figures_is_rendered_or_names_the_commit_of_its_run(page):
    text = page.read_text(encoding="utf-8").partition("## What is reported here")
    ours = re.sub(r"{figure}`[^`]*`|```{figures}.*?```", "", text[2] or text[0], flags=re.DOTALL)
    typed = re.search(r"^\|.*\.\d", ours, re.MULTILINE)
    assert not typed or re.search(r"[Tt]yped\s+from runs up to\s+commit `[0-9a-f]{7}`", ours), page


@pytest.mark.parametrize("page", pages_of("results/studies"))
def test_a_page_of_a_study_has_what_it_printed_and_what_its_configuration_measures(page):
    text = page.read_text(encoding="utf-8")
    assert re.findall(r"^## (.+)$", text, re.MULTILINE) == [
        "What was asked", "What was built", "What the report printed", "What is wrong with it",
        "The same here", "What is reported here",
    ]  # fmt: skip
    trained = re.findall(r"^foldnorm train (\w+)", text, re.MULTILINE)
    assert trained
    for name in trained:
        assert (ROOT / f"configs/{name}.yaml").is_file(), name


@pytest.mark.slow
def test_the_pages_build_without_a_warning(figures, tmp_path):
    words = ["-m", "sphinx", "--fail-on-warning", "--keep-going", "--quiet", "docs", tmp_path]
    done = subprocess.run(
        [sys.executable, *map(str, words)], cwd=ROOT, capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, done.stderr[-2000:]
    command = (tmp_path / "reference/_made/command-score.html").read_text(encoding="utf-8")
    assert "--reference" in command
    assert ".94\N{NO-BREAK SPACE}[.93" in (tmp_path / "results/missing_folds.html").read_text(
        encoding="utf-8"
    )
