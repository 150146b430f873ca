"""Both hemispheres of a participant in one volume."""

import numpy as np
from conftest import skeleton_volume, write_nifti

from foldnorm.pipeline.cli import main
from foldnorm.preprocessing.cohort.cohort import Cohort
from foldnorm.preprocessing.core.files import read_json
from foldnorm.preprocessing.io.source_volume import RIGHT_LABELS

SEGMENTATION = "t1mri/default_acquisition/default_analysis/segmentation"


def both_sides(folder, subject, side=24):
    """Left hemisphere in the first half of the grid, right in the second; two voxels overlap."""
    place = folder / subject / SEGMENTATION
    shape = (2 * side - 2, side, side)
    volumes = {}
    for hemi, start in (("L", 0), ("R", side - 2)):
        volume = np.full(shape, 11, np.int16)
        volume[start : start + side] = skeleton_volume(ord(hemi), (side, side, side))
        volumes[hemi] = volume
        write_nifti(place / f"{hemi}skeleton_{subject}.nii.gz", volume)
        folds = np.where((volume != 0) & (volume != 11), 3 if hemi == "L" else 4, 0)
        write_nifti(place / f"{hemi}folds_{subject}.nii.gz", folds.astype(np.int16))
    return volumes


def whole_brain(source, out, *more):
    words = ["--whole-brain", "--n-procs", "1", "--quiet", "--crop", "none", *more]
    return main(["preprocess", str(source), "-o", str(out), *words])


def test_the_higher_class_of_both_hemispheres_stays(tmp_path):
    raw = both_sides(tmp_path / "source", "s1")
    assert whole_brain(tmp_path / "source", tmp_path / "out") == 0
    cohort = Cohort.open(tmp_path / "out")
    assert [(row["participant_id"], row["hemi"]) for row in cohort.rows] == [("sub-s1", "")]
    classes = [np.where(v == 11, 0, np.where(v == 0, 1, 2)) for v in raw.values()]
    assert (np.array(cohort.volumes[0]) == np.maximum(*classes)).all()


def test_fold_labels_of_the_right_are_moved_up_and_named(tmp_path):
    raw = both_sides(tmp_path / "source", "s1")
    (tmp_path / "source/fold_names.tsv").write_text("label\tname\n3\tcentral\n4\tcallosal\n")
    assert whole_brain(tmp_path / "source", tmp_path / "out") == 0
    cohort = Cohort.open(tmp_path / "out")
    rows = {int(row["label"]): row["name"] for row in cohort.fold_table}
    assert rows == {3: "central", RIGHT_LABELS + 4: "callosal_right"}
    right = (raw["R"] != 0) & (raw["R"] != 11)
    assert (np.array(cohort.folds[0])[right] == RIGHT_LABELS + 4).all()


def test_one_hemisphere_alone_or_on_another_grid_is_said(tmp_path, capsys):
    source = tmp_path / "source"
    for subject in ("s1", "s2", "s3"):
        both_sides(source, subject)
    next((source / "s2").rglob("Rskeleton*")).unlink()
    write_nifti(next((source / "s3").rglob("Rskeleton*")), skeleton_volume(0))
    next((source / "s3").rglob("Rfolds*")).unlink()
    assert whole_brain(source, tmp_path / "out") == 1
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 2
    assert "needs both hemispheres, there is only side L" in lines[0]
    assert "different grids" in lines[1]
    assert len(Cohort.open(tmp_path / "out").rows) == 1


def test_pairs_of_both_sides_are_joined_and_the_larger_shift_is_kept(tmp_path):
    raw = both_sides(tmp_path / "source", "s1")
    shifted = np.eye(4)
    shifted[1, 3] = 7
    place = tmp_path / "source/s1" / SEGMENTATION
    for hemi, affine in (("L", None), ("R", shifted)):
        grey = np.where(raw[hemi] == 0, 100, 0).astype(np.int16)
        write_nifti(place / f"{hemi}grey_white_s1.nii.gz", grey, affine)
    assert whole_brain(tmp_path / "source", tmp_path / "out", "--pair", "grey-white") == 0
    cohort = Cohort.open(tmp_path / "out")
    grey = np.maximum(*[np.where(volume == 0, 1, 0) for volume in raw.values()])
    assert (np.array(cohort.pairs[0]) == grey).all()
    assert cohort.description["Cohort"]["pairs"]["largest_shift_mm"] == 7


def test_mirroring_one_side_of_a_whole_brain_is_refused(tmp_path, capsys):
    both_sides(tmp_path / "source", "s1")
    assert whole_brain(tmp_path / "source", tmp_path / "out", "--mirror-right") == 2
    assert "--mirror-right is for one" in capsys.readouterr().err


def test_a_finished_whole_brain_is_seen_until_its_right_side_changes(tmp_path):
    both_sides(tmp_path / "source", "s1")
    out = tmp_path / "out"
    for skipped in (0, 1):
        assert whole_brain(tmp_path / "source", out) == 0
        assert read_json(out / "run_report.json")["skipped"] == skipped
    path = next((tmp_path / "source").rglob("Rskeleton*"))
    volume = np.full((46, 24, 24), 11, np.int16)
    volume[30:40, 5:20, 5:20] = 60
    write_nifti(path, volume)
    assert whole_brain(tmp_path / "source", out) == 0
    assert read_json(out / "run_report.json")["skipped"] == 0


def test_a_real_brain_in_mni_space_with_names_of_both_sides(real_data, tmp_path):
    source = real_data / "morphologist/hcp"
    words = ["--space", "mni", "--voxel-size", "2", "--hull", "remove"]
    assert whole_brain(source, tmp_path / "out", *words) == 0
    cohort = Cohort.open(tmp_path / "out")
    volume = np.array(cohort.volumes[0])
    left = round((0 - cohort.affine[0, 3]) / 2)
    halves = [(volume[:left] == 2).sum(), (volume[left:] == 2).sum()]
    assert min(halves) > 0.8 * max(halves) > 5000
    names = {row["name"] for row in cohort.fold_table}
    assert {"S.C._left", "S.C._right"} <= names
    centres = {}
    for row in cohort.fold_table:
        if row["name"].startswith("S.C._"):
            where = np.argwhere(cohort.folds[0] == int(row["label"]))
            centres.setdefault(row["name"], []).append(where[:, 0].mean())
    assert max(centres["S.C._left"]) < left < min(centres["S.C._right"])
