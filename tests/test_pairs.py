"""A skeleton and its grey-white volume on one grid: right pairs, shifted ones, wrong ones."""

import json

import numpy as np
import pytest
from conftest import skeleton_volume, write_nifti

from foldnorm.pipeline.cli import main
from foldnorm.pipeline.data.conditions import Conditions
from foldnorm.pipeline.runs.run_folder import RunFolder
from foldnorm.preprocessing.cohort.cohort import Cohort
from foldnorm.preprocessing.core.errors import InputError
from foldnorm.preprocessing.core.files import read_json

SEGMENTATION = "t1mri/default_acquisition/default_analysis/segmentation"


def grey_white_of(skeleton):
    """White deep inside, away from the folds; grey between; background in the folds."""
    volume = np.where(skeleton == 0, 100, 0).astype(np.int16)
    near = skeleton != 0
    for axis in range(3):
        for step in (-2, -1, 1, 2):
            near |= np.roll(skeleton != 0, step, axis)
    volume[~near] = 200
    return volume


def pair_source(folder, count, affine=None):
    for n in range(count):
        skeleton = skeleton_volume(n)
        place = folder / f"s{n}" / SEGMENTATION
        write_nifti(place / f"Lskeleton_s{n}.nii.gz", skeleton)
        write_nifti(place / f"Lgrey_white_s{n}.nii.gz", grey_white_of(skeleton), affine)
    return folder


def preprocess(source, out, *more):
    words = ["--pair", "grey-white", "--n-procs", "1", *more]
    return main(["preprocess", str(source), "-o", str(out), *words])


def test_row_n_of_both_is_one_hemisphere_on_one_grid(tmp_path):
    source = pair_source(tmp_path / "source", 3)
    assert preprocess(source, tmp_path / "out") == 0
    cohort = Cohort.open(tmp_path / "out")
    assert cohort.pairs.shape == cohort.volumes.shape
    for n in range(3):
        raw = skeleton_volume(n)
        assert (np.array(cohort.volumes[n]) == 1).sum() == (raw == 0).sum()
        expected = np.bincount(grey_white_of(raw)[2:-2, 2:-2, 2:-2].ravel() // 100, minlength=3)
        assert (np.bincount(np.array(cohort.pairs[n]).ravel(), minlength=3) == expected).all()
        assert not (cohort.pairs[n][cohort.volumes[n] == 2] == 2).any()


@pytest.mark.parametrize("more", [(), ("--voxel-size", "2"), ("--mirror-right",)])
def test_a_shifted_affine_changes_nothing_and_is_said(tmp_path, capsys, more):
    shifted = np.eye(4)
    shifted[:3, 3] = (0.5, -24, 8)
    for name, affine in (("same", None), ("shifted", shifted)):
        source = pair_source(tmp_path / f"{name}_source", 2, affine)
        assert preprocess(source, tmp_path / name, *more) == 0
    same, other = (Cohort.open(tmp_path / name) for name in ("same", "shifted"))
    assert (np.array(same.pairs) == np.array(other.pairs)).all()
    assert "two affines of 2 pairs, up to 24 mm apart" in capsys.readouterr().out
    sidecar = read_json(next((tmp_path / "shifted").rglob("*_dseg.json")))
    assert sidecar["PairShiftMm"] == [0.5, -24, 8]


def test_flipped_axes_are_the_same_pair(tmp_path):
    source = pair_source(tmp_path / "source", 1)
    path = next(source.rglob("Lgrey_white*"))
    flip = np.diag([-1.0, 1.0, 1.0, 1.0])
    flip[0, 3] = 23
    write_nifti(path, grey_white_of(skeleton_volume(0))[::-1], flip)
    assert preprocess(source, tmp_path / "out") == 0
    cohort = Cohort.open(tmp_path / "out")
    assert not (cohort.pairs[0][cohort.volumes[0] == 2] == 2).any()


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        (lambda good: np.roll(good, 4, axis=0), "fold voxels lie on white matter"),
        (lambda good: grey_white_of(skeleton_volume(7)), "fold voxels lie on white matter"),
        (lambda good: good[:-1], "one voxel grid; got (23, 24, 24)"),
        (lambda good: np.where(good == 200, 255, good), "does not know the value 255"),
        (None, "no grey_white volume beside it"),
    ],
)
def test_what_is_no_pair_is_refused_and_the_others_go_on(tmp_path, capsys, wrong, reason):
    source = pair_source(tmp_path / "source", 3)
    path = next((source / "s1").rglob("Lgrey_white*"))
    if wrong is None:
        path.unlink()
    else:
        write_nifti(path, wrong(grey_white_of(skeleton_volume(1))).astype(np.int16))
    assert preprocess(source, tmp_path / "out") == 1
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "sub-s1_hemi-L" in line
    assert reason in line
    assert len(Cohort.open(tmp_path / "out").pairs) == 2


def test_a_table_may_name_the_pair(tmp_path):
    skeleton = skeleton_volume(0)
    write_nifti(tmp_path / "a.nii", skeleton)
    write_nifti(tmp_path / "b.nii", grey_white_of(skeleton))
    (tmp_path / "t.tsv").write_text("participant_id\tpath\tpair\ns\ta.nii\tb.nii\n")
    assert preprocess(tmp_path / "t.tsv", tmp_path / "out") == 0
    assert Cohort.open(tmp_path / "out").pairs is not None


def test_leaving_the_pair_out_again_takes_it_away(tmp_path):
    source = pair_source(tmp_path / "source", 2)
    assert preprocess(source, tmp_path / "out") == 0
    words = ["--overwrite", "--n-procs", "1", "--quiet"]
    assert main(["preprocess", str(source), "-o", str(tmp_path / "out"), *words]) == 0
    assert Cohort.open(tmp_path / "out").pairs is None


def test_a_scheme_that_names_no_other_volume_is_refused(tmp_path, capsys):
    source = pair_source(tmp_path / "source", 1)
    words = ["--pair", "skeleton", "--n-procs", "1"]
    assert main(["preprocess", str(source), "-o", str(tmp_path / "out"), *words]) == 2
    assert "names no other volume" in capsys.readouterr().err


def test_real_hemispheres_whose_affines_differ_by_24_mm(real_data, tmp_path, capsys):
    archi = real_data / "morphologist/archi"
    assert preprocess(archi, tmp_path / "out", "--voxel-size", "native") == 0
    assert "two affines of 2 pairs, up to 23.99 mm apart" in capsys.readouterr().out
    cohort = Cohort.open(tmp_path / "out")
    volumes, pairs = np.array(cohort.volumes), np.array(cohort.pairs)
    assert not ((volumes == 2) & (pairs == 2)).any()
    assert ((volumes == 2) & (pairs == 1)).sum() > 30_000
    assert json.loads((tmp_path / "out/run_report.json").read_text())["done"] == 2


def test_a_model_of_paired_volumes_takes_brains_without_a_pair_but_not_with_another(tmp_path):
    source = pair_source(tmp_path / "source", 3)
    assert preprocess(source, tmp_path / "paired") == 0
    words = ["preprocess", str(source), "-o", str(tmp_path / "single"), "--n-procs", "1"]
    assert main(words) == 0
    paired, single = (Cohort.open(tmp_path / name) for name in ("paired", "single"))
    run = RunFolder(tmp_path / "run")
    run.write_data(paired, Conditions())
    run.check_cohort(single)
    other = {**paired.preparation["pair"], "name": "other"}
    preparation = {**paired.preparation, "pair": other}
    changed = {"Cohort": {**paired.description["Cohort"], "preparation": preparation}}
    with pytest.raises(InputError, match=r"differs from that of the training cohort \(pair\)"):
        run.check_cohort(Cohort(paired.folder, changed, paired.rows))
