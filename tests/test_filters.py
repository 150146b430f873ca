"""Conditions that users write."""

import json

import pytest

from foldnorm.pipeline.cli import main
from foldnorm.pipeline.inference.filters import VolumeFilter
from foldnorm.pipeline.metrics.structure import sheet_statistics
from foldnorm.pipeline.runs.run_folder import RunFolder
from foldnorm.preprocessing.core.errors import InputError
from foldnorm.preprocessing.io.schemes import scheme_from_dict
from foldnorm.preprocessing.io.volumes import read_labels

VALUES = {"voxels": 100.0, "components": 3.0, "thick": 0.1, "depth": float("nan")}


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("voxels > 90", True),
        ("voxels > 90 and components >= 4", False),
        ("voxels > 90 or components >= 4", True),
        ("not thick > 0.2", True),
        ("10 < voxels <= 100 < 200", True),
        ("voxels / components > 33", True),
        ("-voxels + 2 * components == -94", True),
        ("voxels != 100", False),
        ("depth > 0", False),
        ("depth <= 0", False),
        ("voxels / (components - 3) > 0", False),
        ("(voxels > 200 or thick < 1) and components < 4", True),
    ],
)
def test_what_holds_holds(text, holds):
    assert VolumeFilter.parse(text).holds(VALUES) is holds


@pytest.mark.parametrize(
    "text",
    ["", "voxels >", "__import__('os')", "voxels.real > 1", "[1]", "lambda: 1", "'a' < 'b'",
     "voxels if 1 else 2", "voxels ** 9", "True", "(x := 3)", "voxels > 1\nimport os"],
)  # fmt: skip
def test_nothing_else_is_evaluated(text):
    with pytest.raises(InputError, match="--keep-if"):
        VolumeFilter.parse(text)


def test_an_unknown_statistic_is_named():
    with pytest.raises(InputError, match="'volume' is none of the statistics voxels, components"):
        VolumeFilter.parse("volume > 3").holds(VALUES)


def test_only_what_keeps_it_is_written(small_run, tmp_path, capsys):
    words = ["generate", str(small_run), "-o", str(tmp_path / "all"), "--num", "20", "--quiet"]
    assert main(words) == 0
    scheme = scheme_from_dict(RunFolder.open(small_run).data["preparation"]["scheme"])
    counts = sorted(
        sheet_statistics(read_labels(path).data.astype("uint8"), scheme)["voxels"]
        for path in (tmp_path / "all").glob("*_dseg.nii.gz")
    )
    middle = counts[10]
    words = ["generate", str(small_run), "-o", str(tmp_path / "some"), "--num", "10"]
    assert main([*words, "--keep-if", f"voxels >= {middle}"]) == 0
    assert "not kept)" in capsys.readouterr().out
    kept = [
        sheet_statistics(read_labels(path).data.astype("uint8"), scheme)["voxels"]
        for path in (tmp_path / "some").glob("*_dseg.nii.gz")
    ]
    assert len(kept) == 10
    assert min(kept) >= middle
    said = json.loads((tmp_path / "some/synthetic.json").read_text())
    assert said["kept"] == 10
    assert said["rejected"] > 0
    words = ["generate", str(small_run), "-o", str(tmp_path / "none"), "--num", "1"]
    assert main([*words, "--keep-if", "voxels < 0"]) == 2
    assert "none of 50 drawn volumes keeps" in capsys.readouterr().err
