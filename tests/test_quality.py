"""Quality control: quantities by hand, and what is flagged."""

import re

import numpy as np
import pytest
from conftest import skeleton_source, skeleton_volume, write_nifti
from PIL import Image

from foldnorm.pipeline.cli import main
from foldnorm.preprocessing.cohort.quality import (
    measure,
    quality_rows,
    read_warnings,
    robust_z,
    touched_sides,
)
from foldnorm.preprocessing.core.files import read_json, read_tsv, write_json
from foldnorm.preprocessing.io.schemes import SKELETON
from foldnorm.preprocessing.io.source_volume import SourceVolume, source_warnings
from foldnorm.preprocessing.spatial.crop import Box


def test_quantities_of_a_small_volume():
    native = np.zeros((10, 10, 10), np.uint8)
    native[2:8, 2:8, 2:8] = 1
    native[2:8, 2:8, 3] = native[2:8, 2:8, 6] = 2
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    affine[0, 3] = -50
    found = measure(native, affine, native, affine, SKELETON)
    assert found == {
        "brain_cm3": pytest.approx(6**3 * 8 / 1000),
        "structure_voxels": 72,
        "components": 2,
        "sheet_kept": 1.0,
        "centre_x": -50 + 2 * 4.5,
    }


def test_a_sheet_that_doubles_keeps_twice_its_area():
    native = np.zeros((6, 6, 6), np.uint8)
    native[:, :, 2] = 2
    thick = native.copy()
    thick[:, :, 3] = 2
    assert measure(native, np.eye(4), thick, np.eye(4), SKELETON)["sheet_kept"] == 2


def test_sides_that_a_box_touches():
    assert touched_sides(Box((0, 1, 1), (5, 9, 9)), (10, 9, 10)) == ["left", "anterior"]


def rows(count=20, **changed):
    """Rows of both hemispheres, alike but for noise; then one changed."""
    rng = np.random.default_rng(0)
    made = [
        {
            "participant_id": f"sub-{n}", "hemi": "LR"[n % 2],
            "brain_cm3": 600 + rng.uniform(-1, 1), "structure_voxels": 5000 + rng.uniform(-1, 1),
            "components": 1, "sheet_kept": 1.1 + 0.01 * rng.uniform(-1, 1),
            "centre_x": (30.0 if n % 2 else -30.0) + rng.uniform(-1, 1), "touches": [],
        }
        for n in range(count)
    ]  # fmt: skip
    made[4].update(changed)
    return made


@pytest.mark.parametrize(
    ("changed", "flag"),
    [
        ({}, ""),
        ({"brain_cm3": 300.0}, "brain_cm3 low"),
        ({"sheet_kept": 2.0}, "sheet_kept high"),
        ({"centre_x": 30.0}, "lies on the other side than L"),
        ({"touches": ["superior"]}, "touches the superior of its field of view"),
    ],
)
def test_what_is_unusual_is_flagged_and_nothing_else(changed, flag):
    found = quality_rows(rows(**changed), in_mni_space=False)
    assert found[4]["flags"].startswith(flag)
    assert sum(bool(row["flags"]) for row in found) == bool(flag)


def test_few_volumes_flag_nothing_but_the_wrong_side_of_mni_space():
    few = rows(6, brain_cm3=1.0, centre_x=30.0)
    assert not any(row["flags"] for row in quality_rows(few, in_mni_space=False))
    found = quality_rows(few, in_mni_space=True)
    assert [bool(row["flags"]) for row in found] == [n == 4 for n in range(6)]


def test_where_all_touch_the_border_none_is_flagged():
    made = [{**row, "touches": ["left"]} for row in rows()]
    assert not any(row["flags"] for row in quality_rows(made, in_mni_space=False))


def test_robust_z_ignores_the_outlier_itself():
    values = np.array([1.0, 2, 3, 4, 5, 6, 7, 8, 1e6])
    assert robust_z(values)[-1] > 1e4
    assert np.abs(robust_z(values)[:-1]).max() < 2
    assert (robust_z(np.ones(20)) == 0).all()


def test_preprocess_ends_with_a_table_and_a_page(tmp_path):
    source = skeleton_source(tmp_path / "source", 11)
    odd = skeleton_volume()
    odd[14:] = 11
    write_nifti(source / "sub-odd.nii.gz", odd)
    out = tmp_path / "out"
    assert main(["preprocess", str(source), "-o", str(out), "--quiet", "--n-procs", "1"]) == 0
    table = {row["participant_id"]: row for row in read_tsv(out / "qc.tsv")}
    assert len(table) == 12
    page = (out / "qc.html").read_text()
    pictures = re.findall(r'<img src="([^"]+)"', page)
    assert len(set(pictures)) == 12
    for picture in pictures:
        assert Image.open(out / picture).size[0] > 20
    assert "http" not in page
    flagged = [key for key, row in table.items() if row["flags"]]
    assert page.count('class="flags"') == len(flagged)


def warn_of(source, name, *warnings):
    write_json(source / f"sub-{name}.json", {"Origin": "test", "Warnings": list(warnings)})


def test_what_a_source_warns_of_stands_in_table_and_page(tmp_path, capsys):
    source, out = skeleton_source(tmp_path / "source", 3), tmp_path / "out"
    for n in range(3):
        warn_of(source, f"s0{n}")
    words = ["preprocess", str(source), "-o", str(out), "--quiet", "--n-procs", "1"]
    assert main(words) == 0
    volume = out / "sub-s01/anat/sub-s01_dseg.nii.gz"
    before = volume.stat().st_mtime_ns
    # Said later, by a newer skeletonise: the volume is the same, what is known of it is not.
    warn_of(source, "s01", "hardly any fold", "speckled")
    assert main(words) == 0
    (line,) = capsys.readouterr().err.splitlines()
    assert line == "foldnorm: warning: 1 volume with warnings of the source, see qc.tsv"
    assert volume.stat().st_mtime_ns == before
    assert read_json(out / "sub-s01/anat/sub-s01_dseg.json")["Warnings"][1] == "speckled"
    table = {row["participant_id"]: row for row in read_tsv(out / "qc.tsv")}
    assert table["sub-s01"]["warnings"] == "hardly any fold; speckled"
    assert table["sub-s01"]["flags"] == "2 warnings of its source"
    assert not table["sub-s00"]["flags"]
    assert read_warnings(out) == {"sub-s01": "hardly any fold; speckled"}
    page = (out / "qc.html").read_text()
    assert "1 of them to look at" in page
    assert '<div class="warnings">hardly any fold; speckled</div>' in page
    assert main(["report", str(out), "-o", str(tmp_path / "r.html"), "--quiet"]) == 0
    assert (
        "2 warnings of its source (hardly any fold; speckled)" in (tmp_path / "r.html").read_text()
    )


def test_a_whole_brain_has_the_warnings_of_both_sides(tmp_path):
    left, right = tmp_path / "L.nii.gz", tmp_path / "R.nii.gz"
    for path, warning in ((left, "a"), (right, "b")):
        write_json(path.with_name(f"{path.name[0]}.json"), {"Warnings": [warning]})
    brain = SourceVolume("x", "", left, right=SourceVolume("x", "R", right))
    assert source_warnings(brain) == ["left: a", "right: b"]


def test_a_table_of_the_users_own_excludes(tmp_path, capsys):
    source = skeleton_source(tmp_path / "source", 4)
    table = tmp_path / "qc.tsv"
    table.write_text("participant_id\tqc\nsub-s00\tpass\ns01\t0\ns02\tFail\n")
    # Prepared before anyone looked, then left out.
    plain = ["preprocess", str(source), "-o", str(tmp_path / "out"), "--n-procs", "1", "--quiet"]
    assert main(plain) == 0
    words = ["--n-procs", "1", "--quiet", "--qc", str(table)]
    assert main(["preprocess", str(source), "-o", str(tmp_path / "out"), *words]) == 0
    assert [row["participant_id"] for row in read_tsv(tmp_path / "out/qc.tsv")] == [
        "sub-s00", "sub-s03",
    ]  # fmt: skip
    table.write_text("participant_id\tqc\ns01\tperhaps\n")
    assert main(["preprocess", str(source), "-o", str(tmp_path / "out2"), *words]) == 2
    assert "line 2: qc is 'perhaps'" in capsys.readouterr().err
    table.write_text("subject\tqc\ns01\t1\n")
    assert main(["preprocess", str(source), "-o", str(tmp_path / "out2"), *words]) == 2
    assert "expected the columns participant_id and qc" in capsys.readouterr().err
