"""Whose a volume is: layouts of Morphologist, deep_folding, BIDS, FreeSurfer, and flat folders."""

from pathlib import Path

import numpy as np
import pytest
from conftest import skeleton_volume, write_nifti

from foldnorm.pipeline.cli import main
from foldnorm.preprocessing.cohort.cohort import Cohort
from foldnorm.preprocessing.core.errors import InputError
from foldnorm.preprocessing.io.layouts import NOT_CHOSEN, SEGMENTATION
from foldnorm.preprocessing.io.names import FileName, bids_label, understand
from foldnorm.preprocessing.io.sources import Source, find_volumes
from foldnorm.preprocessing.io.volumes import write_labels

SMALL = np.zeros((2, 2, 2), np.int16)
MORPHOLOGIST = "t1mri/default_acquisition/default_analysis/segmentation"


def find(folder, *names, stem="skeleton"):
    for name in names:
        write_nifti(folder / name, SMALL)
    return find_volumes([Source(folder)], stem)


def keys(found):
    return [v.key for v in found.items]


@pytest.mark.parametrize(
    ("stem", "participant", "hemi"),
    [
        ("Lskeleton_subject0", "subject0", "L"),
        ("Rskeleton_generated_100206", "100206", "R"),
        ("Lresampled_skeleton_100206", "100206", "L"),
        ("Lskeleton_sub-OAS1_0001_MR1", "OAS1_0001_MR1", "L"),
        ("sub-OAS1_0001_MR1", "OAS1_0001_MR1", ""),
        ("sub-OAS1_0001_MR1_hemi-R_dseg", "OAS1_0001_MR1", "R"),
        ("sub-OAS1_0001_dseg", "OAS1_0001", ""),
        ("sub-01_ses-2_acq-x_hemi-lh_desc-y_dseg", "01", "L"),
        ("sub-01_R", "01", "R"),
        ("sub-007", "007", ""),
        ("007", "007", ""),
        ("NKI-RS-22-1", "NKI-RS-22-1", ""),
        ("training_seg_01", "training_seg_01", ""),
        ("lh.s1", "s1", "L"),
        ("s1_rh", "s1", "R"),
        ("s1_Left", "s1", "L"),
        ("s1_L", "s1", "L"),
        ("s1_R_skeleton", "s1", "R"),
        ("s1_skeleton_right", "s1", "R"),
        ("100206_hemi-L", "100206", "L"),
        ("100206_cropped_skeleton", "100206", ""),
        ("HCP_100206_Lskeleton", "HCP_100206", "L"),
        ("HCP_100206_Rgrey_white", "HCP_100206", "R"),
        ("Lskeleton_sub-01_ses-2", "01", "L"),
        ("Rskeleton_generated_sub-01_ses-2_run-1", "01", "R"),
        ("sub-01_hemi-R_desc-left_dseg", "01", "R"),
        ("sub-01_ses-R_dseg", "01", ""),
    ],
)
def test_a_name_says_whose_and_of_which_side(stem, participant, hemi):
    name = understand(stem)
    assert (name.participant, name.hemi) == (participant, hemi)


@pytest.mark.parametrize(
    ("stem", "beside"),
    [
        ("skeleton", ()),
        ("aparc+aseg", ()),
        ("Lskeleton", ()),
        ("lh.ribbon", ()),
        ("s1_left_cortex", ()),
        ("L_001", ()),
        ("001L", ("001R",)),
        ("s1Left", ("s1Right",)),
        ("Lthing_s1", ("Rthing_s1",)),
        ("sub-01_hemi-X_dseg", ()),
        ("sub-01 (1)", ()),
        ("sub-01_side-L", ()),
        ("sub-01_hemisphere-R_dseg", ()),
        ("sub-01_desc-left_dseg", ()),
        ("sub-01L", ("sub-01R",)),
        ("100206_gauche", ()),
        ("100206_Rechts", ()),
        ("s1 - Copy", ()),
    ],
)
def test_a_name_that_says_nobody_or_no_clear_side_is_refused(stem, beside):
    with pytest.raises(InputError):
        understand(stem, {stem, *beside})


def test_a_letter_is_a_side_where_the_other_side_is_there():
    assert understand("L_s1", {"L_s1", "R_s1"}) == FileName("s1", "L")


@pytest.mark.parametrize(
    "names",
    [
        ("Lskeleton_s1.nii.gz", "Rskeleton_s1.nii.gz"),
        ("raw/L/Lskeleton_generated_s1.nii.gz", "raw/R/Rskeleton_generated_s1.nii.gz"),
        ("L/s1.nii.gz", "R/s1.nii.gz"),
        ("lh/sub-s1.nii.gz", "rh/sub-s1.nii.gz"),
        ("sub-s1/anat/sub-s1_hemi-L_dseg.nii.gz", "sub-s1/anat/sub-s1_hemi-R_dseg.nii.gz"),
        ("sub-s1/ses-1/anat/sub-s1_ses-1_hemi-L_skeleton.nii.gz",
         "sub-s1/ses-1/anat/sub-s1_ses-1_hemi-R_skeleton.nii.gz"),
        ("s1_left.nii.gz", "s1_right.nii.gz"),
        ("lh.s1.nii", "rh.s1.nii"),
        (f"sub-s1/ses-1/anat/{MORPHOLOGIST}/Lskeleton_sub-s1.nii.gz",
         f"sub-s1/ses-1/anat/{MORPHOLOGIST}/Rskeleton_sub-s1.nii.gz"),
        ("s1/Lskeleton_s1.nii.gz", "s1/Rskeleton_s1.nii.gz"),
        ("Lcrops/s1_cropped_skeleton.nii.gz", "Rcrops/s1_cropped_skeleton.nii.gz"),
    ],
)  # fmt: skip
def test_two_hemispheres_are_one_person(tmp_path, names):
    found = find(tmp_path, *names)
    assert keys(found) == ["sub-s1_hemi-L", "sub-s1_hemi-R"]
    assert {v.participant for v in found.items} == {"s1"}
    assert not found.problems


@pytest.mark.parametrize(
    "names",
    [
        ("p1/mri/aparc+aseg.mgz",),
        ("p1/aparc+aseg.mgz",),
        ("p1/aparc+aseg.nii.gz",),
        ("p1/mri/aparc.DKTatlas+aseg.deep.mgz", "p1/mri/aseg.mgz", "p1/mri/lh.ribbon.mgz"),
        ("sub-p1/ses-1/mri/aseg.mgz",),
        ("sub-p1_ses-1/mri/aseg.mgz", "sub-p1_ses-2/mri/aseg.mgz"),
        ("derivatives/freesurfer/sub-p1/mri/aseg.mgz",),
        ("sub-p1/anat/sub-p1_desc-aseg_dseg.nii.gz",
         "sub-p1/anat/sub-p1_desc-aparcaseg_dseg.nii.gz", "sub-p1/anat/sub-p1_dseg.nii.gz"),
        ("p1_aseg.nii.gz",),
        ("p1_synthseg.nii.gz",),
    ],
)  # fmt: skip
def test_a_segmentation_is_one_persons(tmp_path, names):
    found = find(tmp_path, *names, stem=SEGMENTATION)
    assert keys(found) == ["sub-p1"]
    assert not found.problems
    chosen = found.items[0].path.name
    assert "aparc" in chosen or not any("aparc" in name for name in names)


def test_the_folder_of_a_single_freesurfer_file_names_the_person(tmp_path):
    write_nifti(tmp_path / "p1/aparc+aseg.nii.gz", SMALL)
    found = find_volumes([Source(tmp_path / "p1/aparc+aseg.nii.gz")], SEGMENTATION)
    assert keys(found) == ["sub-p1"]


@pytest.mark.parametrize(
    "names",
    [
        ("001L.nii.gz", "001R.nii.gz"),
        ("L/Rskeleton_s1.nii.gz",),
        ("L/s1_right.nii.gz",),
        ("skeleton.nii.gz",),
        ("s1_left_cortex.nii.gz", "s1_right_cortex.nii.gz"),
    ],
)
def test_files_of_unclear_names_are_problems_that_say_the_pattern(tmp_path, names):
    found = find(tmp_path, *names)
    assert not found.items
    assert len(found.problems) == len(names)
    assert all("sub-ID" in p.reason or "the folder is L" in p.reason for p in found.problems)


@pytest.mark.parametrize(
    "names",
    [
        ("sub-1_desc-a_dseg.nii.gz", "sub-1_desc-b_dseg.nii.gz"),
        ("sub-1.nii", "sub-1.nii.gz"),
        ("raw/L/Lskeleton_s.nii.gz", "2mm/L/Lresampled_skeleton_s.nii.gz"),
        ("sub-1/anat/sub-1_desc-a_dseg.nii.gz", "sub-1/anat/sub-1_desc-b_dseg.nii.gz"),
    ],
)
def test_of_two_volumes_of_one_hemisphere_none_is_taken_by_guess(tmp_path, names):
    found = find(tmp_path, *names)
    assert not found.items
    assert "several volumes of the same id" in found.problems[0].reason


def test_of_two_sessions_the_first_is_taken_and_the_other_is_said(tmp_path):
    found = find(tmp_path, "sub-1_ses-2_dseg.nii.gz", "sub-1_ses-1_dseg.nii.gz")
    (volume,) = found.items
    assert "ses-1" in volume.path.name
    assert [(one.path.name, one.reason.split()[0]) for one in found.unused] == [
        ("sub-1_ses-2_dseg.nii.gz", "another")
    ]
    names = [f"Lskeleton_sub-1_ses-{n}.nii.gz" for n in (2, 1)]
    found = find(tmp_path / "flat", *names)
    assert [v.path.name for v in found.items] == [names[1]]
    assert [one.path.name for one in found.unused] == [names[0]]


def test_ids_that_differ_by_signs_alone_are_not_one_person(tmp_path):
    found = find(tmp_path, "Lskeleton_s_1.nii.gz", "Rskeleton_s1.nii.gz", "Lskeleton_s2.nii.gz")
    assert keys(found) == ["sub-s2_hemi-L"]
    assert {p.key for p in found.problems} == {"sub-s1_hemi-L", "sub-s1_hemi-R"}


def test_what_goes_with_a_skeleton_is_no_person(tmp_path):
    found = find(tmp_path, "Lskeleton_s.nii.gz", "Lgrey_white_s.nii.gz", "Lfolds_s.nii.gz")
    assert keys(found) == ["sub-s_hemi-L"]
    assert find_volumes([Source(tmp_path)], "grey_white").items[0].path.name.startswith("Lgrey")


def test_a_morphologist_subject_named_as_bids_does_joins_its_table(tmp_path):
    (tmp_path / "participants.tsv").write_text("participant_id\tage\nsub-OAS1_0001_MR1\t7\n")
    name = "sub-OAS1_0001_MR1"
    found = find(tmp_path, f"{name}/{MORPHOLOGIST}/Lskeleton_{name}.nii.gz")
    assert keys(found) == ["sub-OAS10001MR1_hemi-L"]
    assert found.items[0].known == {"age": "7"}
    assert not found.warnings
    assert find_volumes([Source(tmp_path)], "skeleton", participants=[name]).items


def test_both_sides_of_a_flat_folder_are_in_one_split(tmp_path):
    for n in range(12):
        for side in "LR":
            path = tmp_path / f"flat/{side}skeleton_subject{n}.nii.gz"
            write_labels(path, skeleton_volume(n), np.eye(4))
    words = ["--n-procs", "1", "--quiet", "-o", str(tmp_path / "out")]
    assert main(["preprocess", str(tmp_path / "flat"), *words]) == 0
    rows = Cohort.open(tmp_path / "out").rows
    assert [row["hemi"] for row in rows] == ["L", "R"] * 12
    splits = {row["participant_id"]: set() for row in rows}
    for row in rows:
        splits[row["participant_id"]].add(row["split"])
    assert len(splits) == 12
    assert all(len(found) == 1 for found in splits.values())


def test_letters_that_bids_does_not_allow_tell_people_apart(tmp_path):
    assert bids_label("Zo\u00e9") == bids_label("Zoe\u0301") == "Zoe"
    assert bids_label("\u674e1") != bids_label("\u738b1")
    assert bids_label("\u674e1") != "1"
    found = find(tmp_path, "sub-\u674e1.nii.gz", "sub-\u738b1.nii.gz", "sub-1.nii.gz")
    assert len(keys(found)) == 3
    assert not find(tmp_path / "b", "sub-\u00e91.nii.gz", "sub-e1.nii.gz").items


@pytest.mark.parametrize("text", ["sub-007", "007", " 007 ", "sub-0-0_7"])
def test_an_id_in_letters_and_digits_keeps_its_zeros(text):
    assert bids_label(text) == "007"


@pytest.mark.parametrize(
    "names",
    [
        ("c1sub-1.nii.gz", "c2sub-1.nii.gz", "c3sub-1.nii.gz"),
        ("mwp1sub-1.nii.gz", "mwp2sub-1.nii.gz"),
        ("sub-1_pve_0.nii.gz", "sub-1_pve_1.nii.gz"),
        ("s1_prob_1.nii.gz", "s1_prob_2.nii.gz"),
        ("s1Posteriors01.nii.gz", "s1Posteriors02.nii.gz"),
    ],
)
def test_parts_of_one_person_are_not_several_people(tmp_path, names):
    found = find(tmp_path, *names, "sub-9.nii.gz")
    assert keys(found) == ["sub-9"]
    assert {Path(problem.key).name for problem in found.problems} == {*names}
    assert all("one of several files of a person" in p.reason for p in found.problems)


@pytest.mark.parametrize("stem", ["c1_left", "c1abc", "site_1", "p1"])
def test_a_number_in_an_id_makes_no_part_of_it(stem):
    assert understand(stem, {stem, "c2_left", "c3", "site_2", "p2"}).participant


@pytest.mark.parametrize("stem", ["s1_left_right", "s2_L_R", "lh.s1_R", "sub-1_left_hemi-R"])
def test_a_name_of_two_sides_is_refused(stem):
    with pytest.raises(InputError, match="side"):
        understand(stem)


def test_accents_are_written_one_way():
    assert understand("Zo\u00eb_L") == understand("Zoe\u0308_L")
    assert bids_label("Zo\u00eb") == "Zoe"


def test_an_entity_of_bids_is_the_side_whatever_words_the_id_has():
    assert understand("sub-R_01_hemi-L") == FileName("R_01", "L")


@pytest.mark.parametrize(
    ("names", "chosen"),
    [
        (("p1/T1w/aparc+aseg.nii.gz", "p1/MNINonLinear/aparc+aseg.nii.gz"), "T1w"),
        (("p1/T1w/p1/mri/aparc+aseg.mgz", "p1/T1w/ribbon.nii.gz"), "mri"),
        (("p1/FreeSurfer/mri/aseg.mgz",), "mri"),
        (("sub-p1/ses-1/mri/aseg.mgz", "sub-p1/ses-2/mri/aseg.mgz"), "mri"),
    ],
)
def test_folders_within_a_subject_are_no_person(tmp_path, names, chosen):
    found = find(tmp_path, *names, stem=SEGMENTATION)
    assert keys(found) == ["sub-p1"]
    assert found.items[0].path.parent.name == chosen
    assert not found.problems
    assert {one.reason for one in found.unused} <= {NOT_CHOSEN}
    assert len(found.unused) == len(names) - 1


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (("p1_tp1/mri/aseg.mgz", "p1_tp2/mri/aseg.mgz"), True),
        (("OAS1_0001_MR1/mri/aseg.mgz", "OAS1_0001_MR2/mri/aseg.mgz"), True),
        (("007/mri/aseg.mgz", "7/mri/aseg.mgz"), True),
        (("NKI-RS-22-1/mri/aseg.mgz", "NKI-RS-22-2/mri/aseg.mgz"), False),
    ],
)
def test_visits_of_one_person_are_said(tmp_path, names, said):
    found = find(tmp_path, *names, stem=SEGMENTATION)
    assert len(found.items) == 2
    assert any("may be one person (1 such case)" in line for line in found.warnings) == said
    ids = "\n".join(f"{name.split('/')[0]}\tF" for name in names)
    (tmp_path / "participants.tsv").write_text(f"participant_id\tfamily\n{ids}\n")
    assert not find_volumes([Source(tmp_path)], SEGMENTATION).warnings
