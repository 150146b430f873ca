"""Input of a model: a cohort, or files prepared as its training cohort was."""

import shutil

import nibabel
import numpy as np
import pytest
from conftest import skeleton_source, skeleton_volume, write_nifti

from foldnorm.pipeline.cli import main
from foldnorm.pipeline.inference.inputs import open_input
from foldnorm.pipeline.runs.run_folder import RunFolder
from foldnorm.preprocessing.cohort.preparation import Preparation
from foldnorm.preprocessing.core.errors import InputError


def test_a_cohort_is_opened_as_it_is(small_run, small_cohort, tmp_path):
    given = open_input(RunFolder.open(small_run), small_cohort.folder, tmp_path, splits=["test"])
    assert given.cohort.folder == small_cohort.folder
    assert (given.from_files, given.failed) == (False, ())
    assert not list(tmp_path.iterdir())


def test_a_cohort_that_was_prepared_otherwise_is_refused(small_run, phantom_cohort, tmp_path):
    with pytest.raises(InputError, match="cohort preprocessing differs"):
        open_input(RunFolder.open(small_run), phantom_cohort.folder, tmp_path)


def test_files_become_the_volumes_of_the_training_cohort(small_run, small_cohort, tmp_path):
    source = skeleton_source(tmp_path / "source", 3)
    write_nifti(source / "sub-broken.nii.gz", np.full((9, 9, 9), 11, np.int16))
    given = open_input(RunFolder.open(small_run), source, tmp_path, quiet=True)
    assert given.from_files
    assert [problem.key for problem in given.failed] == ["sub-broken"]
    known = dict(zip(small_cohort.keys(), small_cohort.volumes, strict=True))
    assert given.cohort.keys() == ["sub-s00", "sub-s01", "sub-s02"]
    for key, volume in zip(given.cohort.keys(), given.cohort.volumes, strict=True):
        assert np.array_equal(volume, known[key])


def test_files_need_the_box_of_the_training_cohort(small_run, small_cohort, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(small_run, run)
    text = (run / "data.json").read_text()
    (run / "data.json").write_text(text.replace(str(small_cohort.folder.resolve()), "/gone"))
    source = skeleton_source(tmp_path / "source", 1)
    with pytest.raises(InputError, match="training cohort has moved: /gone; say where"):
        open_input(RunFolder.open(run), source, tmp_path, quiet=True)
    like = small_cohort.folder
    given = open_input(RunFolder.open(run), source, tmp_path, reference=like, quiet=True)
    assert given.cohort.shape == small_cohort.shape


def test_an_exported_model_knows_the_box(small_run, small_cohort, tmp_path):
    bundle = tmp_path / "bundle"
    assert main(["export", str(small_run), "-o", str(bundle), "--quiet"]) == 0
    source = skeleton_source(tmp_path / "source", 1)
    given = open_input(RunFolder.open(bundle), source, tmp_path, quiet=True)
    assert np.array_equal(given.cohort.volumes[0], small_cohort.volumes[0])


def test_splits_are_of_cohorts(small_run, tmp_path):
    source = skeleton_source(tmp_path / "source", 1)
    with pytest.raises(InputError, match="--split requires a cohort folder"):
        open_input(RunFolder.open(small_run), source, tmp_path, splits=["test"])
    assert not (tmp_path / "prepared").exists()


def test_files_without_directions_are_read_as_is_assumed(small_run, small_cohort, tmp_path):
    run, source = RunFolder.open(small_run), tmp_path / "sub-a.nii"
    image = nibabel.Nifti1Image(skeleton_volume(1)[::-1], np.diag([-1.0, 1, 1, 1]))
    image.set_sform(None, 0)
    image.set_qform(None, 0)
    nibabel.save(image, source)
    with pytest.raises(InputError, match=r"cannot be known .* --assume ras or las"):
        open_input(run, source, tmp_path, quiet=True)
    # Such a volume lies about the world's origin, which the box of the cohort does not.
    own = Preparation.from_dict(small_cohort.preparation)
    given = open_input(run, source, tmp_path, assume="las", uncropped=own, quiet=True)
    known = small_cohort.volumes[small_cohort.keys().index("sub-s01")]
    low, high = np.argwhere(known).min(axis=0), np.argwhere(known).max(axis=0) + 1
    held = known[tuple(map(slice, low, high))]
    assert not np.array_equal(held, held[::-1])
    assert np.array_equal(given.cohort.volumes[0], held)
    with pytest.raises(InputError, match=r"--assume is of files, got a cohort"):
        open_input(run, small_cohort.folder, tmp_path, assume="las")
