"""Scores of several models joined into one p-value."""

import numpy as np
import pytest

from foldnorm.pipeline.cli import main
from foldnorm.pipeline.scoring.fusion import fuse
from foldnorm.preprocessing.core.errors import InputError
from foldnorm.preprocessing.core.files import read_json, read_tsv, write_json, write_tsv

NAMES = ("evidence_component", "sulci_missing")


def folder_of(path, healthy, asked, name="evidence_component", flagged=()):
    """What `score` writes: brains c0, c1, … calibrate, b0, b1, … are asked about."""
    columns = ["participant_id", "hemi", f"score_{name}"]
    known = [{"participant_id": f"c{n}", "hemi": "L", columns[2]: v} for n, v in enumerate(healthy)]
    write_tsv(path / "calibration.tsv", known, columns)
    rows = [
        {"participant_id": f"b{n}", "hemi": "L", "used_for": "", columns[2]: v,
         "flag": "is empty" if n in flagged else ""}
        for n, v in enumerate(asked)
    ]  # fmt: skip
    write_tsv(path / "scores.tsv", rows, [*columns, "used_for", "flag"])
    write_json(path / "scores.json", {"phantom": True})
    return path


@pytest.mark.parametrize("method", ["fisher", "harmonic"])
def test_false_alarms_stay_at_their_rate_though_scores_depend_on_each_other(tmp_path, method):
    rng = np.random.default_rng(0)
    shared = rng.normal(size=1200)
    scores = [shared + 0.3 * rng.normal(size=1200) for _ in range(2)]
    folders = [
        folder_of(tmp_path / str(n), s[:200], s[200:], name)
        for n, (s, name) in enumerate(
            zip(scores, ("evidence_component", "sulci_missing"), strict=True)
        )
    ]
    fused = fuse(folders, method=method)
    fused.save(tmp_path / "out")
    alarms = np.mean([row["p_fused"] < 0.05 for row in fused.table])
    assert alarms == pytest.approx(0.05, abs=0.03)
    assert read_json(tmp_path / "out/fused.json")["scores"] == {
        "evidence_component": str(folders[0]), "sulci_missing": str(folders[1]),
    }  # fmt: skip


def test_two_weak_signs_are_one_strong_one(tmp_path):
    rng = np.random.default_rng(1)
    healthy = rng.normal(size=(2, 999))
    asked = rng.normal(size=(2, 1000)) + 1.5
    folders = [
        folder_of(tmp_path / name, own, theirs, name)
        for name, own, theirs in zip(NAMES, healthy, asked, strict=True)
    ]
    rows = fuse(folders).table
    names = ("p_fused", "p_evidence_component", "p_sulci_missing")
    fused, *alone = (np.mean([row[name] < 0.05 for row in rows]) for name in names)
    assert fused > max(alone) + 0.1


@pytest.mark.parametrize("names", [(), ("evidence_component",)])
def test_one_score_at_two_resolutions_keeps_both_apart(tmp_path, names):
    rng = np.random.default_rng(4)
    coarse, fine, elsewhere = (
        folder_of(tmp_path / name, rng.normal(size=20), [value])
        for name, value in (("2mm", 9.0), ("1mm", -9.0), ("other/1mm", 0.0))
    )
    fused = fuse([coarse, fine], names)
    assert fused.folders == {"evidence_component@2mm": coarse, "evidence_component@1mm": fine}
    (row,) = fused.table
    assert row["p_evidence_component@2mm"] == pytest.approx(1 / 21)
    assert row["p_evidence_component@1mm"] == 1
    assert 1 / 21 < row["p_fused"] < 1
    assert set(fuse([fine, elsewhere], names).folders.values()) == {fine, elsewhere}


def test_a_flagged_brain_has_no_p(tmp_path):
    rng = np.random.default_rng(2)
    words = (rng.normal(size=20), [5.0, -1.0])
    folders = [folder_of(tmp_path / "a", *words, flagged=[1]),
               folder_of(tmp_path / "b", *words, name="sulci_missing")]  # fmt: skip
    assert main(["combine", *map(str, folders), "-o", str(tmp_path / "out"), "--quiet"]) == 0
    first, second = read_tsv(tmp_path / "out/fused.tsv")
    assert float(first["p_fused"]) == pytest.approx(1 / 21)
    assert float(first["q_fused"]) == pytest.approx(1 / 21)
    assert not second["p_fused"]
    assert main(["combine", *map(str, folders), "-o", str(tmp_path / "out"), "--quiet"]) == 2


def test_what_cannot_be_joined_is_refused(tmp_path):
    rng = np.random.default_rng(3)
    a = folder_of(tmp_path / "a", rng.normal(size=20), [1.0])
    b = folder_of(tmp_path / "b", rng.normal(size=20), [1.0])
    few = folder_of(tmp_path / "few", rng.normal(size=5), [1.0], "sulci_missing")
    own = folder_of(tmp_path / "own", rng.normal(size=20), [1.0], "mine")
    for folders, names, said in (
        ([a, tmp_path], (), "not a folder of scores"),
        ([a, b], ("x",), "x is in none of the folders; there are evidence_component"),
        ([a, few], (), "expected at least 8 brains that calibrate every score, got 5"),
        ([a, own], (), "say which --scores to join"),
    ):
        with pytest.raises(InputError, match=said):
            fuse(folders, names)
