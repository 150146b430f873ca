"""The list of result files: complete, true, and the only place where they are named."""

import ast
import re
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np
import pytest
from conftest import libraries_of, script_of

from foldnorm.pipeline import artifacts
from foldnorm.pipeline.artifacts import Artifact
from foldnorm.pipeline.cli import main
from foldnorm.pipeline.scoring.sulcus_measures import MEASURES
from foldnorm.pipeline.scoring.sulcus_norms import SulcusNorms
from foldnorm.preprocessing.core.files import read_tsv

PIPELINE = Path(__file__).parents[1] / "pipeline"
LISTED = {name: value for name, value in vars(artifacts).items() if isinstance(value, Artifact)}
HEAVY = {"torch", "sklearn", "monai", "lightning", "optuna", "SimpleITK"}
# What looks like the name of a file of results, and is none.
NO_RESULTS = {"OUT.html", "folds.tsv", "report.html", "sulcus_atlas.npz", "view.html", "sizes.json"}
RESULT = re.compile(r"[a-z][\w/-]*\.(tsv|csv|json|npy|npz|png|gif|html|yaml|md|nii\.gz)")
TABLES = {a.name: a for a in LISTED.values() if a.columns}


@pytest.fixture(scope="module")
def results(small_cohort, small_run, bars, classifier, denoiser, tmp_path_factory):
    """Folders that commands have written, by command."""
    out = tmp_path_factory.mktemp("results")
    latent = {"clusters": [], "mean": [], "neighbours": ["--brain", "sub-s00"],
              "dimensions": ["--dimensions", "2"], "projection": [],
              "interpolate": ["--brain", "sub-s00", "--to", "sub-s01"]}  # fmt: skip
    commands = [
        ["embed", small_run, small_cohort.folder, "-o", out / "embed"],
        ["score", small_run, small_cohort.folder, "-o", out / "score"],
        ["benchmark", small_run, small_cohort.folder, "-o", out / "benchmark", "--kind", "ball",
         "--size", "10-500", "--draws", "1"],
        *(["latent", analysis, small_run, small_cohort.folder, "-o", out / "latent", *more]
          for analysis, more in latent.items()),
        ["classify", classifier, bars, "-o", out / "classify"],
        ["restore", denoiser, bars, "-o", out / "restore", "--degrade", "--split", "test"],
    ]  # fmt: skip
    for words in commands:
        assert main([*map(str, words), "--device", "cpu", "--quiet"]) == 0, words
    return {folder.name: folder for folder in out.iterdir()} | {"train": small_run}


def test_every_table_of_a_command_has_the_columns_that_are_listed(results):
    tables = [path for folder in results.values() for suffix in ("tsv", "csv")
              for path in folder.glob(f"*.{suffix}")]  # fmt: skip
    assert len(tables) > 12
    for path in tables:
        patterns = TABLES[path.name].columns
        for column in read_tsv(path)[0]:
            assert any(fnmatchcase(column, pattern) for pattern in patterns), (path.name, column)


def test_every_file_of_a_command_is_listed(results):
    patterns = [a.pattern for a in LISTED.values()]
    for folder in results.values():
        for path in folder.rglob("*"):
            name = str(path.relative_to(folder))
            found = [p for p in patterns if fnmatchcase(name, p) or fnmatchcase(name, f"{p}.*")]
            assert found or path.is_dir(), name


def test_report_reads_results_without_torch_and_scikit_learn(results, small_cohort, bars, tmp_path):
    folders = [small_cohort.folder, bars, *(f for name, f in results.items() if name != "embed")]
    words = ["report", *folders, "-o", tmp_path / "report.html", "--quiet"]
    assert not libraries_of(script_of(words), HEAVY)
    assert (tmp_path / "report.html").is_file()


@pytest.mark.parametrize("artifact", LISTED.values(), ids=LISTED)
def test_each_says_what_it_holds(artifact):
    assert artifact.about.endswith(".")
    assert bool(artifact.columns) == artifact.name.endswith((".tsv", ".csv"))
    assert all(artifact.columns.values())


def test_no_two_commands_write_a_table_of_one_name():
    names = [a.name for a in LISTED.values() if a.columns]
    assert len(names) == len(set(names))


def test_departures_of_sulci_are_those_that_are_measured():
    healthy, voids = np.ones((8, 2, len(MEASURES))), np.zeros((8, 2))
    for table, more in ((artifacts.SULCI, {}), (artifacts.SULCUS_SCORES, {"voids": voids})):
        norms = SulcusNorms(2).fit(healthy, **more)
        for sign in "zp":
            start = f"{sign}_"
            listed = [c.removeprefix(start) for c in table.columns if c.startswith(start)]
            assert [c for c in listed if c != "mni"] == list(norms.departures(healthy, **more))


def test_files_are_named_nowhere_else():
    names = {a.name for a in LISTED.values()}
    for path in PIPELINE.rglob("*.py"):
        if path.name != "artifacts.py":
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Constant) and node.value not in NO_RESULTS:
                    text = str(node.value)
                    named = text in names or RESULT.fullmatch(text)
                    assert not named, f"{path}:{node.lineno}: {text}"


def test_an_artifact_stands_in_a_path_and_its_fields_are_filled_in():
    artifact = Artifact("any", "maps/{brain}_{n:03d}.nii.gz", "Maps.")
    assert artifact.of(brain="sub-1", n=7) == "maps/sub-1_007.nii.gz"
    assert artifact.pattern == "maps/*_*.nii.gz"
    assert Path("out") / artifacts.SCORES == Path("out/scores.tsv")
