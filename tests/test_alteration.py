"""Alterations other than deletion: a fold added, a crop elsewhere, the other side."""

import argparse
import shutil

import numpy as np
import pytest
from conftest import skeleton_volume, write_nifti
from scipy import ndimage

from foldnorm.pipeline.cli import main
from foldnorm.pipeline.commands.arguments import add_kind
from foldnorm.preprocessing.alteration.alteration import alter
from foldnorm.preprocessing.alteration.deletion import ANY_SIZE, SizeRange
from foldnorm.preprocessing.alteration.kinds import KINDS
from foldnorm.preprocessing.cohort.cohort import Cohort, row_key
from foldnorm.preprocessing.cohort.quality import read_warnings
from foldnorm.preprocessing.core.errors import InputError
from foldnorm.preprocessing.core.files import read_tsv, write_tsv
from foldnorm.preprocessing.io.volumes import read_labels

SEGMENTATION = "t1mri/default_acquisition/default_analysis/segmentation"


def delete(cohort, out, *words):
    return main(["alter", str(cohort.folder), "-o", str(out), "--quiet", *words])


def test_an_added_fold_is_that_of_another_subject_of_the_same_split(phantom_cohort, tmp_path):
    assert delete(phantom_cohort, tmp_path / "a", "--kind", "add", "--size", "200") == 0
    altered, keys = Cohort.open(tmp_path / "a"), phantom_cohort.keys()
    rows = read_tsv(tmp_path / "a/deletions.tsv")
    assert len(rows) == len(altered.rows) > 2
    for n, row in enumerate(rows):
        index, donor = keys.index(altered.keys()[n]), keys.index(row["donor"])
        assert donor != index
        assert phantom_cohort.rows[donor]["split"] == phantom_cohort.rows[index]["split"]
        before, after = np.array(phantom_cohort.volumes[index]), np.array(altered.volumes[n])
        changed = before != after
        assert changed.sum() == int(row["voxels"])
        assert (before[changed] == 1).all()
        assert (after[changed] == 2).all()
        assert (phantom_cohort.folds[donor][changed] == int(row["label"])).all()


def test_what_is_erased_has_no_fold_label_any_more_and_the_other_folds_have_theirs(
    phantom_cohort, tmp_path
):
    """In real brains some voxels of a fold lie in the hull, and stay."""
    shutil.copytree(phantom_cohort.folder, tmp_path / "healthy")
    labels = np.array(phantom_cohort.folds)
    for volume, own in zip(phantom_cohort.volumes, labels, strict=True):
        hull = (volume == 2) & ndimage.binary_dilation(volume == 0) & (own == 0)
        own[hull] = ndimage.grey_dilation(own, 3)[hull]
    np.save(tmp_path / "healthy/folds.npy", labels)
    healthy = Cohort.open(tmp_path / "healthy")
    assert delete(healthy, tmp_path / "a", "--size", "200", "--n-procs", "1") == 0
    altered, keys = Cohort.open(tmp_path / "a"), healthy.keys()
    for n, done in enumerate(read_tsv(tmp_path / "a/deletions.tsv")):
        key, label = altered.keys()[n], int(done["label"])
        folds, before = np.array(altered.folds[n]), healthy.folds[keys.index(key)]
        assert (folds[np.array(altered.volumes[n]) != 2] == 0).all()
        assert (folds == np.where(before == label, 0, before)).all()
        before, after = (
            {row["label"]: row for row in cohort.fold_table if row_key(row) == key}
            for cohort in (healthy, altered)
        )
        assert list(after) == [own for own in before if own != str(label)]


def test_an_interrupted_fold_is_smaller_in_the_table_by_what_was_cut(phantom_cohort, tmp_path):
    words = ["--kind", "interrupt", "--size", "500", "--n-procs", "1"]
    assert delete(phantom_cohort, tmp_path / "a", *words) == 0
    altered = Cohort.open(tmp_path / "a")
    for n, done in enumerate(read_tsv(tmp_path / "a/deletions.tsv")):
        before, after = (
            next(row for row in cohort.fold_table
                 if (row_key(row), row["label"]) == (altered.keys()[n], done["label"]))
            for cohort in (phantom_cohort, altered)
        )  # fmt: skip
        voxels = int((altered.folds[n] == int(done["label"])).sum())
        assert 0 < voxels == int(after["voxels"]) < int(before["voxels"])
        per_voxel = [float(row["size"]) / int(row["voxels"]) for row in (before, after)]
        assert per_voxel[0] == pytest.approx(per_voxel[1], rel=1e-4)


def test_where_sheets_have_moved_no_fold_is_labelled(phantom_cohort, tmp_path):
    words = ["--n-procs", "1", "--size"]
    assert delete(phantom_cohort, tmp_path / "a", *words, "200") == 0
    words = ["--overwrite", "--kind", "refill", *words]
    assert delete(phantom_cohort, tmp_path / "a", *words, "200") == 0
    moved = Cohort.open(tmp_path / "a")
    assert moved.folds is None
    assert not moved.fold_table
    assert delete(phantom_cohort, tmp_path / "a", *words, "0") == 0  # the control moves nothing
    assert (np.array(Cohort.open(tmp_path / "a").folds) == phantom_cohort.folds).all()


def test_what_quality_control_said_of_a_volume_goes_along(phantom_cohort, tmp_path):
    healthy = tmp_path / "healthy"
    shutil.copytree(phantom_cohort.folder, healthy)
    rows = read_tsv(healthy / "qc.tsv")
    (warned, *_) = phantom_cohort.indices("test")
    rows[warned]["warnings"] = "speckled"
    write_tsv(healthy / "qc.tsv", rows, list(rows[0]))
    words = ["--size", "200", "--split", "test", "train", "--n-procs", "1"]
    assert delete(Cohort.open(healthy), tmp_path / "a", *words) == 0
    known, keys = read_tsv(tmp_path / "a/qc.tsv"), Cohort.open(tmp_path / "a").keys()
    assert [row_key(row) for row in known] == keys
    assert [row for row in rows if row_key(row) in keys] == known
    assert read_warnings(tmp_path / "a") == {row_key(rows[warned]): "speckled"}


def test_a_mirrored_hemisphere_is_altered_where_it_lies_in_the_head(tmp_path):
    source = two_sides(tmp_path / "source", 3)
    words = ["--mirror-right", "--quiet", "--n-procs", "1"]
    assert main(["preprocess", str(source), "-o", str(tmp_path / "c"), *words]) == 0
    words = ["--kind", "ball", "--size", "100", "--n-procs", "1"]
    assert delete(Cohort.open(tmp_path / "c"), tmp_path / "a", *words) == 0
    for row in read_tsv(tmp_path / "a/deletions.tsv"):
        stem = f"{row['participant_id']}/anat/{row_key(row)}_dseg.nii.gz"
        before, after = (read_labels(tmp_path / name / stem) for name in "ca")
        place = np.array([float(row[axis]) for axis in "xyz"])
        voxel = np.linalg.inv(before.affine) @ np.append(place, 1)
        assert ((voxel[:3] > 0) & (voxel[:3] < before.data.shape)).all()
        erased = np.argwhere(before.data == 2) @ before.affine[:3, :3].T + before.affine[:3, 3]
        kept = np.argwhere(after.data == 2) @ after.affine[:3, :3].T + after.affine[:3, 3]
        lost = {tuple(mm) for mm in erased.round(3)} - {tuple(mm) for mm in kept.round(3)}
        assert {tuple(mm) for mm in kept.round(3)} <= {tuple(mm) for mm in erased.round(3)}
        assert max(np.linalg.norm(place - mm) for mm in lost) < 6  # a ball of 100 mm³ and a voxel


@pytest.fixture(scope="module")
def crops(phantom_source, tmp_path_factory):
    out = tmp_path_factory.mktemp("crops") / "cohort"
    words = ["--voxel-size", "2", "--crop", "region:central@2", "--quiet", "--n-procs", "1"]
    assert main(["preprocess", str(phantom_source), "-o", str(out), *words]) == 0
    return Cohort.open(out)


def test_a_random_crop_is_the_same_brain_half_a_side_away_or_more(crops, tmp_path):
    assert delete(crops, tmp_path / "a", "--kind", "random", "--n-procs", "1") == 0
    altered = Cohort.open(tmp_path / "a")
    assert altered.shape == crops.shape
    for n, row in enumerate(read_tsv(tmp_path / "a/deletions.tsv")):
        shift = np.array([int(s) for s in row["shift"].split(",")])
        assert (np.abs(shift) >= np.array(crops.shape) / 2).any()
        index = crops.keys().index(altered.keys()[n])
        before, after = np.array(crops.volumes[index]), np.array(altered.volumes[n])
        assert (after == 2).sum() >= (before == 2).sum() / 2
        overlap = [(slice(max(s, 0), side + min(s, 0)), slice(max(-s, 0), side - max(s, 0)))
                   for s, side in zip(shift, crops.shape, strict=True)]  # fmt: skip
        if all(a.start < a.stop for a, _ in overlap):
            old, new = (tuple(pair[n] for pair in overlap) for n in (0, 1))
            assert (before[old] == after[new]).all()


def two_sides(folder, count):
    for n in range(count):
        for hemi in "LR":
            volume = skeleton_volume(10 * n + ord(hemi))
            write_nifti(folder / f"s{n}" / SEGMENTATION / f"{hemi}skeleton_s{n}.nii.gz", volume)
    next((folder / f"s{count - 1}").rglob("R*")).unlink()
    return folder


def test_the_other_side_takes_the_place_of_this_one(tmp_path):
    source = two_sides(tmp_path / "source", 3)
    words = ["--mirror-right", "--quiet", "--n-procs", "1"]
    assert main(["preprocess", str(source), "-o", str(tmp_path / "c"), *words]) == 0
    cohort = Cohort.open(tmp_path / "c")
    assert delete(cohort, tmp_path / "a", "--kind", "asymmetry", "--n-procs", "1") == 0
    altered = Cohort.open(tmp_path / "a")
    assert altered.keys() == cohort.keys()[:-1]
    for n, key in enumerate(altered.keys()):
        other = key[:-1] + {"L": "R", "R": "L"}[key[-1]]
        expected = cohort.volumes[cohort.keys().index(other)]
        assert (np.array(altered.volumes[n]) == np.array(expected)).all()
        assert read_tsv(tmp_path / "a/deletions.tsv")[n]["donor"] == other


@pytest.mark.parametrize("kind", ["fold", "ball", "add", "random"])
def test_the_control_changes_nothing_whatever_the_kind(crops, kind):
    for altered in alter(crops, range(3), SizeRange(0), kind=kind):
        assert altered.deletion.kind == "none"
        assert (altered.volume == crops.volumes[altered.index]).all()


def test_two_processes_write_what_one_writes(crops, tmp_path):
    for name, procs in (("one", "1"), ("two", "2")):
        words = ["--kind", "add", "--size", "50", "--n-procs", procs]
        assert delete(crops, tmp_path / name, *words) == 0
    for name in ("volumes.npy", "deletions.tsv", "participants.tsv"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("asymmetry", "--mirror-right"),
        ("fold-graph", "--space mni"),
        ("fold-raw", "--space mni"),
    ],
)
def test_what_this_cohort_cannot_have_is_said(crops, kind, reason):
    with pytest.raises(InputError, match=reason):
        list(alter(crops, [0], ANY_SIZE, kind=kind))


def test_a_whole_hemisphere_has_no_elsewhere_and_folds_need_a_size(
    phantom_cohort, small_cohort, tmp_path, capsys
):
    for cohort, words, reason in (
        (small_cohort, ["--kind", "random"], "no elsewhere"),
        (phantom_cohort, ["--kind", "add"], "needs a --size"),
        (small_cohort, ["--kind", "add", "--size", "1"], "no fold labels"),
        (small_cohort, ["--kind", "fold-graph", "--size", "1"], "no fold graph beside it"),
    ):
        assert delete(cohort, tmp_path / "a", "--n-procs", "1", *words) == 2
        assert reason in capsys.readouterr().err
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize("more", [[], ["--overwrite"]])
def test_a_cohort_that_was_not_altered_is_not_written_over(crops, tmp_path, capsys, more):
    out = tmp_path / "brains"
    shutil.copytree(crops.folder, out)
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    for source in (crops, Cohort.open(out)):
        assert delete(source, out, "--kind", "ball", "--size", "50", *more) == 2
    said = "a cohort that was not altered, which would be lost" if more else "--overwrite"
    assert said in capsys.readouterr().err
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before


def test_an_altered_cohort_that_was_half_written_over_is_none(crops, tmp_path, monkeypatch):
    out = tmp_path / "altered"
    assert delete(crops, out, "--kind", "ball", "--size", "0", "--n-procs", "1") == 0
    assert Cohort.is_in(out)

    def stopped(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("foldnorm.preprocessing.alteration.alteration.write_participants", stopped)
    words = ["--kind", "ball", "--size", "50", "--n-procs", "1", "--overwrite"]
    assert delete(crops, out, *words) == 130
    assert not Cohort.is_in(out)


def test_volumes_of_an_altered_cohort_that_is_written_over_are_its_own(crops, tmp_path):
    out = tmp_path / "altered"
    words = ["--kind", "ball", "--size", "50", "--n-procs", "1", "--overwrite"]
    assert delete(crops, out, *words, "--split", "train", "test") == 0
    assert delete(crops, out, *words, "--split", "test") == 0
    cohort = Cohort.open(out)
    names = {path.name for path in out.glob("sub-*/anat/*.nii.gz")}
    assert names == {f"{row_key(row)}_dseg.nii.gz" for row in cohort.rows}
    assert len(names) < len(crops.rows)


def test_the_command_offers_every_kind_there_is():
    parser = argparse.ArgumentParser()
    add_kind(parser)
    (action,) = [a for a in parser._actions if a.dest == "kind"]
    assert tuple(action.choices) == tuple(KINDS)
