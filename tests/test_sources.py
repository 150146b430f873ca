import numpy as np
import pytest
from conftest import skeleton_source, write_nifti

from foldnorm.preprocessing.core.errors import InputError
from foldnorm.preprocessing.io.fold_sidecar import read_fold_names
from foldnorm.preprocessing.io.source_volume import origin_of
from foldnorm.preprocessing.io.sources import Source, find_volumes

SMALL = np.zeros((2, 2, 2), np.int16)
SEGMENTATION = "t1mri/default_acquisition/default_analysis/segmentation"


def found(*arguments, **options):
    findings = find_volumes(*arguments, **options)
    return findings.items, findings.problems


def test_a_real_morphologist_tree(real_data):
    volumes, problems = found([Source(real_data / "morphologist")], "skeleton")
    assert [v.key for v in volumes] == [
        "sub-001_hemi-L",
        "sub-001_hemi-R",
        "sub-100206_hemi-L",
        "sub-100206_hemi-R",
    ]
    assert not problems
    grey_white, _ = found([Source(real_data / "morphologist")], "grey_white", hemis=["R"])
    assert [v.key for v in grey_white] == ["sub-001_hemi-R"]


def test_a_folder_of_files_takes_ids_from_names(tmp_path):
    for name in ("sub-100206_hemi-L_desc-x_dseg.nii.gz", "plain.nii"):
        write_nifti(tmp_path / name, SMALL)
    volumes, _ = found([Source(tmp_path)], "skeleton")
    assert [(v.participant, v.hemi) for v in volumes] == [("100206", "L"), ("plain", "")]


def test_a_table_with_families_keeps_ids_as_text(tmp_path):
    write_nifti(tmp_path / "a.nii.gz", SMALL)
    table = tmp_path / "list.tsv"
    table.write_text("participant_id\tpath\themi\tfamily\n007\ta.nii.gz\tL\tF1\n")
    (volume,), _ = found([Source(table)], "skeleton")
    assert (volume.participant, volume.hemi, volume.known) == ("007", "L", {"family": "F1"})
    assert volume.path == tmp_path / "a.nii.gz"


def test_two_volumes_of_one_id_are_a_problem_and_the_others_go_on(tmp_path):
    for site in ("siteA", "siteB"):
        write_nifti(tmp_path / site / "s1" / SEGMENTATION / "Lskeleton_s1.nii.gz", SMALL)
    write_nifti(tmp_path / "siteA" / "s2" / SEGMENTATION / "Lskeleton_s2.nii.gz", SMALL)
    volumes, problems = found([Source(tmp_path)], "skeleton")
    assert [v.key for v in volumes] == ["sub-s2_hemi-L"]
    assert problems[0].key == "sub-s1_hemi-L"
    assert "siteA" in problems[0].reason
    assert "siteB" in problems[0].reason


def test_what_was_asked_for_and_is_not_there_is_said(tmp_path):
    source = skeleton_source(tmp_path, 2)
    with pytest.raises(InputError, match="no volume of participant nobody"):
        found([Source(source)], "skeleton", participants=["nobody"])
    assert len(found([Source(source)], "skeleton", participants=["sub-s01"])[0]) == 1


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
        found([Source(table)], "skeleton")


def test_an_empty_or_missing_source_is_refused(tmp_path):
    with pytest.raises(InputError, match="no skeleton volume found"):
        found([Source(tmp_path)], "skeleton")
    with pytest.raises(InputError, match="no such file or folder"):
        found([Source(tmp_path / "nowhere")], "skeleton")


def acquisition(subject, name, analysis="default_analysis"):
    return subject / "t1mri" / name / analysis


def test_of_several_acquisitions_the_default_one_is_taken_and_the_others_kept_in_mind(tmp_path):
    subject = tmp_path / "db/s1"
    for name in ("BL", "default_acquisition", "M24"):
        write_nifti(acquisition(subject, name) / "segmentation/Lskeleton_s1.nii.gz", SMALL)
    (volume,), problems = found([Source(tmp_path)], "skeleton")
    assert not problems
    assert "default_acquisition" in volume.path.parts
    assert [path.parts[-4] for path in volume.alternatives] == ["BL", "M24"]
    (volume,), _ = found([Source(tmp_path)], "skeleton", prefer=["M24"])
    assert "M24" in volume.path.parts


def test_of_several_sessions_of_a_nested_tree_the_first_is_taken(tmp_path):
    for session in ("ses-2", "ses-1"):
        subject = tmp_path / f"sub-s1/{session}/anat"
        write_nifti(acquisition(subject, "t1") / "segmentation/Rskeleton_s1.nii.gz", SMALL)
    (volume,), _ = found([Source(tmp_path)], "skeleton")
    assert "ses-1" in volume.path.parts


def test_of_several_graphs_the_newest_version_and_there_one_by_hand(tmp_path):
    analysis = acquisition(tmp_path / "s_1", "t1")
    write_nifti(analysis / "segmentation/Lskeleton_s_1.nii.gz", SMALL)
    for place in ("3.1/a_manual", "3.3/a_auto", "3.3/b_manual", "3.10/z_auto", "3.10/other"):
        graph = analysis / "folds" / place / f"Ls_1_{place.split('/')[1]}.arg"
        graph.parent.mkdir(parents=True)
        graph.touch()
    (analysis / "folds/3.10/other/Ls_1_copy.arg").touch()
    (volume,), _ = found([Source(tmp_path)], "skeleton")
    assert volume.companions.graph == analysis / "folds/3.10/other/Ls_1_other.arg"
    for name in ("3.10/other/Ls_1_other.arg", "3.10/z_auto/Ls_1_z_auto.arg"):
        (analysis / "folds" / name).unlink()
    (volume,), _ = found([Source(tmp_path)], "skeleton", prefer=["a_auto"])
    assert volume.companions.graph.parent.name == "a_auto"
    (volume,), _ = found([Source(tmp_path)], "skeleton")
    assert volume.companions.graph.parent.name == "b_manual"
    assert volume.companions.transform == volume.companions.graph


def test_the_registration_goes_before_the_graph(real_data):
    volumes, _ = found([Source(real_data / "morphologist")], "skeleton")
    suffixes = {v.key: v.companions.transform.suffix for v in volumes}
    assert suffixes == {
        "sub-001_hemi-L": ".arg", "sub-001_hemi-R": ".arg",
        "sub-100206_hemi-L": ".trm", "sub-100206_hemi-R": ".trm",
    }  # fmt: skip


def test_a_table_may_name_graph_and_transform(tmp_path):
    table = tmp_path / "list.csv"
    table.write_text("participant_id,path,graph,transform\ns1,a.nii,g.arg,t.trm\n")
    (volume,), _ = found([Source(table)], "skeleton")
    assert volume.companions.graph == tmp_path / "g.arg"
    assert volume.companions.transform == tmp_path / "t.trm"
    assert volume.known == {}


def test_an_id_without_letters_and_digits_is_a_problem_of_its_own(tmp_path):
    table = tmp_path / "t.tsv"
    table.write_text("participant_id\tpath\n../..\ta.nii\ns1\ta.nii\n")
    (volume,), (problem,) = found([Source(table)], "skeleton")
    assert volume.participant == "s1"
    assert problem.key == "'../..'"
    assert "needs a letter or a digit" in problem.reason


def databases(folder):
    """Two databases with a subject of the same id, one of which has two acquisitions."""
    for database, names in {"a": ("default_acquisition", "M24"), "b": ("t1",)}.items():
        for name in names:
            analysis = acquisition(folder / database / "001", name)
            write_nifti(analysis / "segmentation/Lskeleton_001.nii.gz", SMALL)
    return folder / "a", folder / "b"


def test_databases_with_names_may_hold_the_same_ids(tmp_path):
    a, b = databases(tmp_path)
    sources = [Source.parse(f"one={a}"), Source.parse(f"two={b}")]
    volumes, problems = found(sources, "skeleton")
    assert not problems
    assert [v.key for v in volumes] == ["sub-one001_hemi-L", "sub-two001_hemi-L"]
    assert [v.known["database"] for v in volumes] == ["one", "two"]
    assert "default_acquisition" in volumes[0].path.parts
    assert len(volumes[0].alternatives) == 1
    (only,), _ = found(sources, "skeleton", participants=["two001"])
    assert only.participant == "two001"


def test_databases_without_names_clash_and_it_is_said_how_to_part_them(tmp_path):
    a, b = databases(tmp_path)
    volumes, (problem,) = found([Source(a), Source(b)], "skeleton")
    assert not volumes
    assert "NAME=PATH sets databases apart" in problem.reason


def test_a_folder_whose_own_name_has_an_equals_sign_is_a_folder(tmp_path, monkeypatch):
    (tmp_path / "a=b").mkdir()
    monkeypatch.chdir(tmp_path)
    assert Source.parse("a=b") == Source(tmp_path / "a=b")
    assert Source.parse("c=b") == Source(tmp_path / "b", "c")


def test_two_sources_must_agree_on_the_names_of_folds(tmp_path):
    for name, fold in (("a", "central"), ("b", "central"), ("c", "callosal")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "fold_names.tsv").write_text(f"label\tname\n1\t{fold}\n")
    a, b, c = (tmp_path / name for name in "abc")
    assert read_fold_names([a, b]) == {1: "central"}
    with pytest.raises(InputError, match="label 1 is 'central' in another source"):
        read_fold_names([a, c])


@pytest.mark.parametrize(
    ("said", "origin"), [("true", "phantom"), ("0", "unknown"), ("no", "unknown")]
)
def test_a_table_that_says_of_people_that_they_are_no_phantoms_is_believed(tmp_path, said, origin):
    write_nifti(tmp_path / "sub-a.nii.gz", SMALL)
    (tmp_path / "participants.tsv").write_text(f"participant_id\tphantom\na\t{said}\n")
    (volume,) = find_volumes([Source(tmp_path)], "skeleton").items
    assert origin_of(volume) == origin
