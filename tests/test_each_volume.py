"""One brain of a cohort that cannot be read or worked on ends none of the others."""

import shutil

import numpy as np
import pytest

from foldnorm.pipeline.cli import main
from foldnorm.pipeline.inference.classify import classify
from foldnorm.pipeline.runs.run_folder import RunFolder
from foldnorm.preprocessing.cohort.cohort import Cohort, row_key
from foldnorm.preprocessing.core.errors import InputError
from foldnorm.preprocessing.core.files import read_json, read_tsv


def damage(cohort, folder, numbers):
    """Copy a cohort, with class numbers that its scheme has not in some volumes."""
    shutil.copytree(cohort.folder, folder)
    volumes = np.load(folder / "volumes.npy")
    volumes[numbers, 3, 3, 3] = 99
    np.save(folder / "volumes.npy", volumes)
    return folder


@pytest.fixture
def damaged(small_cohort, tmp_path):
    """A copy of the small cohort whose sixth volume cannot be read."""
    return damage(small_cohort, tmp_path / "damaged", [5])


def assert_named(out, code, said, key, done):
    """The one that failed is named on stderr and in the report of the run, and the code says so."""
    assert code == 1
    (line,) = [line for line in said.splitlines() if "warning" not in line]
    assert line.startswith(f"foldnorm: {key}: class number 99")
    report = read_json(out / "run_report.json")
    assert report["done"] == done
    assert [failure["volume"] for failure in report["failed"]] == [key]


def test_codes_of_the_others_are_written(small_run, small_cohort, damaged, tmp_path, capsys):
    keys, out = small_cohort.keys(), tmp_path / "out"
    code = main(
        ["embed", str(small_run), str(damaged), "-o", str(out), "--device", "cpu", "--quiet"]
    )
    assert_named(out, code, capsys.readouterr().err, keys[5], 23)
    assert [row_key(row) for row in read_tsv(out / "codes.tsv")] == keys[:5] + keys[6:]
    expected = RunFolder.open(small_run).load().encode(small_cohort)
    assert np.allclose(np.load(out / "codes.npy"), np.delete(expected, 5, axis=0), atol=1e-5)


def test_scores_and_maps_of_the_others_are_written(small_cohort, damaged, tmp_path, capsys):
    keys, tables = small_cohort.keys(), []
    for name, cohort in (("damaged", damaged), ("whole", small_cohort.folder)):
        out = tmp_path / f"scores-{name}"
        words = ["score", "void", cohort, "--reference", small_cohort.folder, "-o", out, "--maps"]
        code = main([*map(str, words), "--quiet"])
        tables.append(read_tsv(out / "scores.tsv"))
        if name == "damaged":
            assert_named(out, code, capsys.readouterr().err, keys[5], 23)
            assert read_json(out / "scores.json")["failed"] == 1
    expected = tables[1][:5] + tables[1][6:]
    assert tables[0] == expected
    maps = {path.name for path in (tmp_path / "scores-whole").rglob("*_desc-missing_z.nii.gz")}
    others = {path.name for path in (tmp_path / "scores-damaged").rglob("*_desc-missing_z.nii.gz")}
    assert maps - others == {name for name in maps if name.startswith(keys[5])}
    assert len(others) == 23
    regions = [read_tsv(tmp_path / f"scores-{name}/regions.tsv") for name in ("damaged", "whole")]
    assert regions[0] == [row for row in regions[1] if row_key(row) != keys[5]]


def test_where_none_can_be_read_the_reason_ends_it(small_cohort, tmp_path, capsys):
    damaged = damage(small_cohort, tmp_path / "damaged", range(24))
    words = ["score", "void", damaged, "--reference", small_cohort.folder, "-o", tmp_path / "out"]
    assert main([*map(str, words), "--quiet"]) == 2
    assert "class number 99" in capsys.readouterr().err
    assert not (tmp_path / "out/scores.tsv").exists()


def test_an_image_that_the_network_fails_on_is_left_out(bars, classifier):
    run, cohort = RunFolder.open(classifier), Cohort.open(bars)
    trained, bad = run.load(), cohort[3].volume

    def refuse(_, given):
        if any(np.array_equal(image.squeeze(), bad) for image in given[0].numpy()):
            raise InputError("no such image")

    first = next(m for m in trained.model.modules() if not list(m.children()))
    first.register_forward_pre_hook(refuse)
    result = classify(run, trained, cohort)
    assert [(p.key, p.reason) for p in result.failed] == [(cohort.keys()[3], "no such image")]
    others = cohort.keys()[:3] + cohort.keys()[4:]
    assert [row_key(row) for row in result.table] == others
