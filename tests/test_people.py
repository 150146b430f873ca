"""Tables of people: quoting, ids that match nobody, rows that contradict each other."""

import numpy as np
import pytest
from conftest import skeleton_source, write_nifti
from PIL import Image

from foldnorm.pipeline.cli import main
from foldnorm.preprocessing.cohort.cohort import Cohort
from foldnorm.preprocessing.cohort.images import find_images
from foldnorm.preprocessing.core.errors import InputError
from foldnorm.preprocessing.core.files import read_json, read_tsv
from foldnorm.preprocessing.io.people import read_excluded, read_people
from foldnorm.preprocessing.io.sources import Source, find_volumes

SMALL = np.zeros((2, 2, 2), np.int16)


@pytest.fixture
def flat(tmp_path):
    """Volumes of three people whose ids begin with zeros."""
    for n in (1, 2, 3):
        write_nifti(tmp_path / f"flat/sub-{n:03d}.nii.gz", SMALL)
    return tmp_path / "flat"


def joined(flat, text):
    """Ages by id, and the warnings."""
    (flat / "participants.tsv").write_text(text)
    found = find_volumes([Source(flat)], "skeleton")
    return {v.participant: v.known.get("age") for v in found.items}, found.warnings


def test_a_quote_in_a_tsv_is_a_sign_like_any_other(tmp_path):
    table = tmp_path / "a.tsv"
    table.write_text('participant_id\tnote\ns1\t"left handed\ns2\t5" tall\n')
    notes = {row["participant_id"]: row["note"] for row in read_tsv(table)}
    assert notes == {"s1": '"left handed', "s2": '5" tall'}


def test_a_csv_may_quote(tmp_path):
    table = tmp_path / "a.CSV"
    table.write_text('participant_id,note\n"s1","a, ""b"""\n')
    assert read_tsv(table) == [{"participant_id": "s1", "note": 'a, "b"'}]


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("a.csv", 'id,note\ns1,"open\ns2,b\n', "not readable as a table"),
        ("a.tsv", "id\tage\tage\ns1\t1\t2\n", "column 'age' is there twice"),
        ("a.tsv", "id\tage\ns1\t1\t2\n", "line 2: 3 cells, expected 2"),
        ("a.tsv", "id\tage\n\ns1\n", "line 3: 1 cells, expected 2"),
        ("a.csv", "id,age\ns1,1,5\n", "line 2: 3 cells, expected 2"),
    ],
)
def test_a_table_whose_cells_have_no_column_is_refused(tmp_path, name, text, reason):
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=reason):
        read_tsv(tmp_path / name)


def test_empty_columns_and_rows_of_a_spreadsheet_do_not_count(tmp_path):
    (tmp_path / "a.csv").write_text("id,age,,\ns1,n/a,,\n,,,\ns2,3,,\n")
    assert read_tsv(tmp_path / "a.csv") == [{"id": "s1", "age": ""}, {"id": "s2", "age": "3"}]


@pytest.mark.parametrize(
    ("ids", "got", "said"),
    [
        (("sub-001", "sub-002", "sub-003"), 3, []),
        (("001", "002", "003"), 3, []),
        (("001", "002"), 2, ["1 of 3 volumes got nothing (003)"]),
        (("001", "002", "003", "x"), 3, ["no volume for 1 of 4 rows (x)"]),
        (("1", "2", "3"), 0, ["3 of 3 volumes got nothing", "1 and 001 differ by zeros"]),
        (("SUB-001", "sub-002", "sub-003"), 2, ["differ by zeros or letter case"]),
        (('"sub-001"', "002", "003"), 2, ["1 of 3 volumes got nothing (001)"]),
        (("1.0", "2.0", "3.0"), 0, ["ids are floats (1.0) and were read as 1", "by zeros"]),
        (("", "002", "003"), 2, ["no id in 1 row"]),
    ],
)
def test_a_table_joins_equal_ids_and_says_what_it_did_not_join(flat, ids, got, said):
    ages, warnings = joined(flat, "participant_id\tage\n" + "".join(f"{i}\t7\n" for i in ids))
    assert list(ages.values()).count("7") == got
    assert bool(warnings) == bool(said)
    for part in said:
        assert any(part in line and "participants.tsv" in line for line in warnings), warnings


@pytest.mark.parametrize("kind", ["empty", "lfs", "dangling"])
def test_a_table_that_holds_nothing_is_said(flat, kind):
    path = flat / "participants.tsv"
    if kind == "empty":
        path.write_text("participant_id\tage\n")
        (line,) = find_volumes([Source(flat)], "skeleton").warnings
        assert "3 of 3 volumes got nothing" in line
        return
    if kind == "lfs":
        path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    else:
        path.symlink_to("nowhere")
    with pytest.raises(InputError, match="git-LFS" if kind == "lfs" else "dangling link"):
        find_volumes([Source(flat)], "skeleton")


def test_integers_written_as_floats_are_the_integers(tmp_path):
    for n in (100206, 100307):
        write_nifti(tmp_path / f"sub-{n}.nii.gz", SMALL)
    ages, warnings = joined(tmp_path, "participant_id\tage\n100206.0\t25\n100307.0\t26\n")
    assert ages == {"100206": "25", "100307": "26"}
    assert "ids are floats (100206.0)" in warnings[0]
    table = tmp_path / "t.csv"
    table.write_text("participant_id,path\n100206.0,sub-100206.nii.gz\n")
    (volume,) = find_volumes([Source(table)], "skeleton").items
    assert volume.key == "sub-100206"


@pytest.mark.parametrize("ids", [("1.0", "b"), ("1.00206E+05", "2.1E+05"), ("1e+05", "x")])
def test_ids_that_were_numbers_for_a_while_are_refused(tmp_path, ids):
    table = tmp_path / "t.tsv"
    table.write_text("participant_id\tpath\n" + "".join(f"{i}\ta.nii\n" for i in ids))
    with pytest.raises(InputError, match="expected text"):
        find_volumes([Source(table)], "skeleton")


def test_rows_that_contradict_each_other_give_what_they_agree_on(tmp_path):
    path = tmp_path / "p.tsv"
    path.write_text(
        "participant_id\tfamily\tage\nsub-1\tF\t20\nsub-2\tG\t30\nsub-1\tF\t21\nsub-2\tG\t30\n"
    )
    people = read_people(path)
    assert people.known == {"1": {"family": "F"}, "2": {"family": "G", "age": "30"}}
    (line,) = people.warnings
    assert "rows of 1 participant (1) contradict each other in age" in line


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        (("s1\ta.nii\tL\tF\t1", "s1\tb.nii\tR\tG\t1"), "of family F in one row and of G"),
        (("s1\ta.nii\tL\tF\t1", "s1\ta.nii\tL\tF\t2"), "rows of sub-s1_hemi-L contradict"),
        (("s1\ta.nii\tL\tF\t1", "sub-s1\tb.nii\tR\tn/a\t1"), "family F in one row and of n/a"),
    ],
)
def test_a_table_of_volumes_that_contradicts_itself_is_refused(tmp_path, rows, reason):
    table = tmp_path / "t.tsv"
    table.write_text("\n".join(["participant_id\tpath\themi\tfamily\tage", *rows]) + "\n")
    with pytest.raises(InputError, match=reason):
        find_volumes([Source(table)], "skeleton")


def test_one_file_of_two_people_is_said(tmp_path):
    write_nifti(tmp_path / "a.nii", SMALL)
    (tmp_path / "t.tsv").write_text("participant_id\tpath\ns1\ta.nii\ns2\ta.nii\n")
    found = find_volumes([Source(tmp_path / "t.tsv")], "skeleton")
    assert len(found.items) == 2
    assert "one file of 2 participants (s1, s2)" in found.warnings[0]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("s1\tpass\ns1\tfail\n", "s1 passes in one row and fails in another"),
        ("s1\tperhaps\n", "line 2: qc is 'perhaps'"),
        ("1.0\tfail\nx\tpass\n", "ids are floats"),
    ],
)
def test_a_quality_table_of_unclear_verdicts_is_refused(tmp_path, text, reason):
    path = tmp_path / "qc.tsv"
    path.write_text("participant_id\tqc\n" + text)
    with pytest.raises(InputError, match=reason):
        read_excluded(path)


@pytest.mark.parametrize("name", ["1", "sub-01", "nobody", "s1"])
def test_a_quality_table_that_fails_nobody_here_stops(flat, tmp_path, name, capsys):
    table = tmp_path / "qc.tsv"
    table.write_text(f"participant_id\tqc\n{name}\tfail\n")
    words = ["-o", str(tmp_path / "out"), "--qc", str(table), "--n-procs", "1"]
    assert main(["preprocess", str(flat), *words]) == 2
    said = capsys.readouterr().err
    assert "no volume of participant" in said
    assert ("differ by zeros" in said) == ("1" in name and name != "s1")
    assert not (tmp_path / "out").exists()


def test_a_quality_table_fails_by_equal_ids_whatever_their_prefix(flat):
    found = find_volumes([Source(flat)], "skeleton", excluded=["sub-001", "002"])
    assert [v.key for v in found.items] == ["sub-003"]
    with pytest.raises(InputError, match="every volume is left out as asked"):
        find_volumes([Source(flat)], "skeleton", excluded=["001", "002", "003"])


def test_warnings_of_a_table_are_in_the_report(tmp_path, capsys):
    source = skeleton_source(tmp_path / "source", 3)
    (source / "participants.tsv").write_text("participant_id\tage\ns00\t3\ns9\t4\n")
    words = ["-o", str(tmp_path / "out"), "--n-procs", "1", "--quiet"]
    assert main(["preprocess", str(source), *words]) == 0
    (line,) = read_json(tmp_path / "out/run_report.json")["source_warnings"]
    assert "2 of 3 volumes got nothing (s01, s02); no volume for 1 of 2 rows (s9)" in line
    assert line in capsys.readouterr().err
    ages = [row["age"] for row in Cohort.open(tmp_path / "out").rows]
    assert ages == ["3", "", ""]


@pytest.fixture
def pictures(tmp_path):
    """Two pictures."""
    for name in ("a.png", "b.png"):
        Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / name)
    return tmp_path


def test_a_file_with_two_owners_in_a_table_of_images_is_nobodys(pictures):
    table = pictures / "participants.tsv"
    table.write_text("file\tparticipant_id\na.png\ts1\n./a.png\ts2\nb.png\ts1\nb.png\ts1\n")
    found = find_images(pictures)
    assert [(i.path.name, i.participant) for i in found.items] == [("b.png", "s1")]
    assert [(p.key, p.reason) for p in found.problems] == [
        ("a.png", "rows of the table contradict each other")
    ]


def test_float_ids_of_images_are_integers(pictures):
    table = pictures / "participants.tsv"
    table.write_text("file\tparticipant_id\na.png\t7.0\nb.png\t8.0\n")
    found = find_images(pictures)
    assert [i.participant for i in found.items] == ["7", "8"]
    assert "ids are floats" in found.warnings[0]


def test_a_table_without_files_says_that_it_is_not_used(pictures):
    (pictures / "participants.tsv").write_text("participant_id\tage\ns1\t3\n")
    assert "no column file" in find_images(pictures).warnings[0]


def test_images_of_one_name_without_a_table_are_said(pictures):
    for name in ("a.png", "b.png"):
        (pictures / name).rename(pictures / f"sub-1_{name}")
    (line,) = find_images(pictures).warnings
    assert "2 file names seem to be of 1 participant (sub-1_a.png and sub-1_b.png)" in line


def test_columns_that_a_cohort_has_of_its_own_are_said(flat):
    head, tail = "participant_id\tage\tsplit\themi\n", "1\t{s}\t{h}\n"
    rows = [f"sub-{n:03d}\t" + tail for n in (1, 2, 3)]
    ages, (said,) = joined(flat, head + "".join(rows).format(s="test", h="R"))
    assert set(ages.values()) == {"1"}
    assert "columns split and hemi of the table not used" in said
    assert not joined(flat, head + "".join(rows).format(s="n/a", h="n/a"))[1]
    table = flat / "volumes.tsv"
    table.write_text("participant_id\tpath\themi\tsplit\na\tsub-001.nii.gz\tL\ttest\n")
    found = find_volumes([Source(table)], "skeleton")
    assert found.items[0].hemi == "L"
    assert "column split of the table not used" in found.warnings[0]


@pytest.mark.parametrize("word", ["NA", "nan", "N/A", "NULL", "-", "unknown", "<NA>"])
def test_people_of_unknown_family_are_no_family(flat, word):
    text = "participant_id\tfamily\tsex\n" + "".join(f"{n:03d}\t{word}\tF\n" for n in (1, 2, 3))
    (flat / "participants.tsv").write_text(text)
    found = find_volumes([Source(flat)], "skeleton")
    assert [v.known["family"] for v in found.items] == [""] * 3
    (line,) = found.warnings
    assert f"read as n/a: {word} under family: {flat / 'participants.tsv'}" in line


def test_what_is_unknown_is_empty_in_every_table_of_people(flat, pictures):
    row = "\tNA\t1.0\n"
    (flat / "list.tsv").write_text("participant_id\tpath\tage\tfamily\ns1\tsub-001.nii.gz" + row)
    (volume,) = find_volumes([Source(flat / "list.tsv")], "skeleton").items
    assert volume.known == {"age": "", "family": "1"}
    (pictures / "participants.tsv").write_text("participant_id\tfile\tage\tfamily\ns1\ta.png" + row)
    (image,) = find_images(pictures).items
    assert image.known == {"file": "a.png", "family": "1"}


def test_a_family_of_very_many_is_said(tmp_path):
    rows = "".join(f"s{n}\t0\n" for n in range(9))
    (tmp_path / "p.tsv").write_text("participant_id\tfamily\n" + rows)
    assert (
        "family 0 has 9 participants, all in one split"
        in read_people(tmp_path / "p.tsv").warnings[0]
    )
    (tmp_path / "p.tsv").write_text("participant_id\tfamily\n" + rows[: rows.index("s8")])
    assert not read_people(tmp_path / "p.tsv").warnings


def test_floats_with_a_comma_are_the_integers(tmp_path):
    write_nifti(tmp_path / "10.nii.gz", SMALL)
    (tmp_path / "participants.tsv").write_text("participant_id\tage\n1,0\t3\n10,0\t4\n")
    found = find_volumes([Source(tmp_path)], "skeleton")
    assert found.items[0].known["age"] == "4"
    assert "ids are floats (1,0) and were read as 1" in found.warnings[0]


def test_one_file_is_not_both_hemispheres(tmp_path):
    write_nifti(tmp_path / "a.nii", SMALL)
    (tmp_path / "t.tsv").write_text("participant_id\tpath\themi\ns1\ta.nii\tL\ns1\ta.nii\tR\n")
    with pytest.raises(InputError, match="one file is hemisphere L of s1 in one row and R in an"):
        find_volumes([Source(tmp_path / "t.tsv")], "skeleton")


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ("1\ts1_R.nii\tL\n", "of 1 volume, s1_R.nii is given as L"),
        ("1\tsub-2.nii\tn/a\n2\tsub-1.nii\tn/a\n", "of 2 volumes, sub-2.nii is given to 1"),
        ("anonymous\tsub-1.nii\tn/a\n", ""),
    ],
)
def test_a_table_against_the_names_of_files_is_said(tmp_path, rows, said):
    for name in ("s1_R.nii", "sub-1.nii", "sub-2.nii"):
        write_nifti(tmp_path / name, SMALL)
    (tmp_path / "t.tsv").write_text("participant_id\tpath\themi\n" + rows)
    warnings = find_volumes([Source(tmp_path / "t.tsv")], "skeleton").warnings
    assert said in "".join(warnings)
    assert bool(warnings) == bool(said)


@pytest.mark.parametrize("word", ["NA", "nan", "NULL"])
def test_an_id_that_is_not_known_is_nobodys(pictures, flat, word):
    (pictures / "participants.tsv").write_text(f"file\tparticipant_id\na.png\t{word}\nb.png\ts1\n")
    found = find_images(pictures)
    assert [image.participant for image in found.items] == ["s1"]
    assert "an id needs a letter or a digit" in found.problems[0].reason
    (flat / "list.tsv").write_text(f"participant_id\tpath\n{word}\tsub-001.nii.gz\n")
    with pytest.raises(InputError, match="line 2: expected participant_id and path"):
        find_volumes([Source(flat / "list.tsv")], "skeleton")


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (("s1_left", "s1_right", "s2_left"), "2 file names seem to be of 1 participant"),
        (("s1_slice3", "s1_slice4", "s2-slice3", "s2-slice4"), "4 file names seem to be of 2"),
        (("test_image_1", "test_image_2"), ""),
        (("1", "2", "10"), ""),
    ],
)
def test_images_of_one_person_by_their_names_are_said(tmp_path, names, said):
    for name in names:
        Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / f"{name}.png")
    warnings = find_images(tmp_path).warnings
    assert said in "".join(warnings)
    assert bool(warnings) == bool(said)


def test_visits_in_a_table_of_images_are_said(pictures):
    (pictures / "participants.tsv").write_text("file\tparticipant_id\na.png\tp_v1\nb.png\tp_v2\n")
    assert "p_v1 and p_v2 may be one person" in find_images(pictures).warnings[0]
