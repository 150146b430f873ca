import numpy as np
import pytest
from conftest import skeleton_source, write_nifti

from foldnorm.preprocessing.errors import InputError
from foldnorm.preprocessing.sources import find_volumes

SMALL = np.zeros((2, 2, 2), np.int16)
SEGMENTATION = "t1mri/default_acquisition/default_analysis/segmentation"


def test_a_real_morphologist_tree(real_data):
    volumes, problems = find_volumes(real_data / "morphologist", "skeleton")
    assert [v.key for v in volumes] == [
        "sub-001_hemi-L",
        "sub-001_hemi-R",
        "sub-100206_hemi-L",
        "sub-100206_hemi-R",
    ]
    assert not problems
    grey_white, _ = find_volumes(real_data / "morphologist", "grey_white", hemis=["R"])
    assert [v.key for v in grey_white] == ["sub-001_hemi-R"]


def test_a_folder_of_files_takes_ids_from_names(tmp_path):
    for name in ("sub-100206_hemi-L_desc-x_dseg.nii.gz", "plain.nii"):
        write_nifti(tmp_path / name, SMALL)
    volumes, _ = find_volumes(tmp_path, "skeleton")
    assert [(v.participant, v.hemi) for v in volumes] == [("100206", "L"), ("plain", "")]


def test_a_table_with_families_keeps_ids_as_text(tmp_path):
    write_nifti(tmp_path / "a.nii.gz", SMALL)
    table = tmp_path / "list.tsv"
    table.write_text("participant_id\tpath\themi\tfamily\n007\ta.nii.gz\tL\tF1\n")
    (volume,), _ = find_volumes(table, "skeleton")
    assert (volume.participant, volume.hemi, volume.known) == ("007", "L", {"family": "F1"})
    assert volume.path == tmp_path / "a.nii.gz"


def test_two_volumes_of_one_id_are_a_problem_and_the_others_go_on(tmp_path):
    for site in ("siteA", "siteB"):
        write_nifti(tmp_path / site / "s1" / SEGMENTATION / "Lskeleton_s1.nii.gz", SMALL)
    write_nifti(tmp_path / "siteA" / "s2" / SEGMENTATION / "Lskeleton_s2.nii.gz", SMALL)
    volumes, problems = find_volumes(tmp_path, "skeleton")
    assert [v.key for v in volumes] == ["sub-s2_hemi-L"]
    assert problems[0].key == "sub-s1_hemi-L"
    assert "siteA" in problems[0].reason
    assert "siteB" in problems[0].reason


def test_what_was_asked_for_and_is_not_there_is_said(tmp_path):
    source = skeleton_source(tmp_path, 2)
    with pytest.raises(InputError, match="no volume of participant nobody"):
        find_volumes(source, "skeleton", participants=["nobody"])
    assert len(find_volumes(source, "skeleton", participants=["sub-s01"])[0]) == 1


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("participant_id\tpath\na\t\n", "line 2: expected participant_id and path"),
        ("participant_id\tpath\themi\na\tb.nii\tleft\n", "hemi is L, R"),
        ("participant_id\tpath\n", "no skeleton volume found"),
    ],
)
def test_a_bad_table_is_refused(tmp_path, text, reason):
    table = tmp_path / "list.tsv"
    table.write_text(text)
    with pytest.raises(InputError, match=reason):
        find_volumes(table, "skeleton")


def test_an_empty_or_missing_source_is_refused(tmp_path):
    with pytest.raises(InputError, match="no skeleton volume found"):
        find_volumes(tmp_path, "skeleton")
    with pytest.raises(InputError, match="no such file or folder"):
        find_volumes(tmp_path / "nowhere", "skeleton")
