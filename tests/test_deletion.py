import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from foldnorm.pipeline.cli import main
from foldnorm.preprocessing.alteration.deletion import (
    CONTROL,
    Deletion,
    SizeRange,
    apply_deletion,
    sample_ball,
    sample_fold,
    subject_rng,
)
from foldnorm.preprocessing.cohort.cohort import Cohort
from foldnorm.preprocessing.cohort.volume_companions import downsample_folds
from foldnorm.preprocessing.core.errors import InputError
from foldnorm.preprocessing.core.files import read_tsv
from foldnorm.preprocessing.io.schemes import SKELETON
from foldnorm.preprocessing.io.volumes import LabelVolume
from foldnorm.preprocessing.spatial.downsample import NativeTarget, ResamplingPlan, downsample

FOLDS = [
    {"label": "7", "name": "central", "size": "620", "voxels": "100"},
    {"label": "9", "name": "callosal", "size": "210.5", "voxels": "30"},
]


@pytest.mark.parametrize(
    ("text", "labels"), [("200", {7, 9}), ("500", {7}), ("200-500", {9}), ("0-210.5", {9})]
)
def test_only_eligible_folds_are_drawn(text, labels):
    sizes = SizeRange.parse(text)
    drawn = {sample_fold(np.random.default_rng(s), FOLDS, sizes).label for s in range(30)}
    assert drawn == labels


def test_no_eligible_fold_is_none_and_size_0_is_the_control():
    rng = np.random.default_rng(0)
    assert sample_fold(rng, FOLDS, SizeRange(5000)) is None
    assert sample_fold(rng, FOLDS, SizeRange.parse("0")) == CONTROL


@pytest.mark.parametrize("text", ["big", "-5", "500-200", "3-", ""])
def test_a_bad_size_is_refused(text):
    with pytest.raises(InputError, match="--size"):
        SizeRange.parse(text)


def test_deleted_voxels_become_inside_and_nothing_else_changes():
    volume = np.array([[[0, 1, 2, 2, 2]]], np.uint8)
    folds = np.array([[[0, 0, 7, 7, 9]]], np.uint16)
    altered = apply_deletion(volume, Deletion("fold", 7), SKELETON, folds=folds)
    assert altered.tolist() == [[[0, 1, 1, 1, 2]]]
    assert volume.tolist() == [[[0, 1, 2, 2, 2]]]


def test_the_hull_stays_closed_and_junctions_of_the_fold_alone_go_with_it():
    volume, folds = np.ones((9, 9, 9), np.uint8), np.zeros((9, 9, 9), np.uint16)
    volume[:2], volume[2] = 0, 2  # outside, hull
    volume[2:8, 4, :], folds[2:8, 4, :] = 2, 7  # a fold that hangs on it, labelled up to the hull
    folds[4, 4, :] = 0  # a row of it without a label
    volume[5, 5:9, :], folds[5, 6:9, :] = 2, 9  # another fold, whose junction with it has no label
    altered = apply_deletion(volume, Deletion("fold", 7), SKELETON, folds=folds)
    assert (altered[2] == 2).all()
    assert (altered[3:8, 4, :] == 1).all()
    assert (altered[5, 6:9, :] == 2).all()
    bare = apply_deletion(volume, Deletion("fold", 7), SKELETON, folds=folds, has_hull=False)
    assert (bare[2, 4] == 1).all()


def test_the_control_changes_nothing():
    volume = np.array([[[0, 1, 2]]], np.uint8)
    assert (apply_deletion(volume, CONTROL, SKELETON) == volume).all()


def test_a_ball_has_its_volume_and_takes_only_what_is_above_void():
    volume = np.full((30, 30, 30), 2, np.uint8)
    volume[:, :, 20:] = 0
    ball = sample_ball(np.random.default_rng(1), volume, SKELETON, SizeRange(400))
    centred = Deletion("ball", size=400, centre=(15.0, 15.0, 9.0), radius=ball.radius)
    altered = apply_deletion(volume, centred, SKELETON)
    assert abs((altered == 1).sum() - 400) < 30
    assert (altered[:, :, 20:] == 0).all()
    doubled = apply_deletion(volume, centred, SKELETON, voxel_size=(2.0, 2.0, 2.0))
    assert abs((doubled == 1).sum() * 8 - 400) < 80


@given(st.integers(0, 500))
def test_deleting_after_downsampling_equals_deleting_before(seed):
    """What has a label at 2 mm is what erasing that label at 1 mm would take there."""
    rng = np.random.default_rng(seed)
    volume = np.where(rng.random((8, 8, 8)) < 0.3, 2, 1).astype(np.uint8)
    folds = np.where(volume == 2, rng.integers(0, 4, volume.shape), 0).astype(np.uint16)
    grid = ResamplingPlan((0.5, 0.7, 0.5))
    small, _ = downsample(volume, grid)
    small_folds = downsample_folds(
        folds, volume == 2, NativeTarget(LabelVolume(volume, np.eye(4)), grid)
    )
    after = np.where(small_folds == 2, 1, small)
    before, _ = downsample(np.where(folds == 2, 1, volume).astype(np.uint8), grid)
    assert (after == before).all()


def test_a_subjects_draw_does_not_depend_on_the_others():
    assert subject_rng(0, "sub-a").integers(1000) == subject_rng(0, "sub-a").integers(1000)
    assert subject_rng(0, "sub-a").integers(1000) != subject_rng(0, "sub-b").integers(1000)


def delete(cohort, out, *more):
    return main(["alter", str(cohort.folder), "-o", str(out), "--quiet", *more])


def test_the_command_writes_a_cohort_with_a_table(phantom_cohort, tmp_path):
    assert delete(phantom_cohort, tmp_path / "a", "--size", "200") == 0
    altered = Cohort.open(tmp_path / "a")
    assert altered.preparation == phantom_cohort.preparation
    rows = read_tsv(tmp_path / "a/deletions.tsv")
    assert [r["participant_id"] for r in rows] == [r["participant_id"] for r in altered.rows]
    for n, row in enumerate(rows):
        index = phantom_cohort.keys().index(altered.keys()[n])
        healthy, after = np.array(phantom_cohort.volumes[index]), np.array(altered.volumes[n])
        changed = healthy != after
        assert changed.sum() == int(row["voxels"])
        assert float(row["size"]) > 200
        assert set(np.unique(phantom_cohort.folds[index][changed])) <= {0, int(row["label"])}
        assert not (changed & ndimage.binary_dilation(phantom_cohort.volumes[index] == 0)).any()
        assert (after[changed] == altered.scheme.void).all()


def test_the_command_is_reproducible_and_its_control_is_the_cohort(phantom_cohort, tmp_path):
    for name, size in (("a", "200"), ("b", "200"), ("control", "0")):
        assert delete(phantom_cohort, tmp_path / name, "--size", size, "--seed", "3") == 0
    first, second = (Cohort.open(tmp_path / name).volumes for name in "ab")
    assert (np.array(first) == np.array(second)).all()
    control = Cohort.open(tmp_path / "control").volumes
    assert (np.array(control) == np.array(phantom_cohort.volumes)).all()


def test_what_cannot_be_deleted_is_said(small_cohort, phantom_cohort, tmp_path, capsys):
    assert delete(small_cohort, tmp_path / "a", "--size", "200") == 2
    assert "no fold labels; delete balls instead" in capsys.readouterr().err
    assert delete(phantom_cohort, tmp_path / "b", "--size", "99999") == 2
    assert "no volume has a fold of size 99999" in capsys.readouterr().err
    assert not (tmp_path / "b").exists()
    assert delete(small_cohort, tmp_path / "c", "--size", "40", "--kind", "ball") == 0
    assert delete(small_cohort, tmp_path / "c", "--size", "40", "--kind", "ball") == 2
    assert "exists already" in capsys.readouterr().err
