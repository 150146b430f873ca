"""Tables of populations: written row by row, and read without what is there again and again."""

import pickle

import numpy as np
import pytest

from foldnorm.preprocessing.cohort.prepared_index import prepared_volumes
from foldnorm.preprocessing.core.errors import InputError
from foldnorm.preprocessing.core.files import Record, read_tsv, tsv_writer, write_tsv

ROWS = [
    {"participant_id": "sub-1", "hemi": "L", "size": 1.23456789},
    {"participant_id": "sub-1", "hemi": "", "size": float("nan")},
    {"participant_id": "sub-2", "size": "a\tb\nc\udcff"},
]
COLUMNS = ("participant_id", "hemi", "size")


def test_a_table_is_the_same_row_by_row(tmp_path):
    write_tsv(tmp_path / "whole.tsv", ROWS, COLUMNS)
    with tsv_writer(tmp_path / "rows.tsv", COLUMNS) as write_row:
        for row in ROWS:
            write_row(row)
    content = (tmp_path / "rows.tsv").read_bytes()
    assert content == (tmp_path / "whole.tsv").read_bytes()
    lines = ["participant_id\themi\tsize", "sub-1\tL\t1.23457", "sub-1\tn/a\tn/a",
             "sub-2\tn/a\ta b c\\udcff", ""]  # fmt: skip
    assert content.decode() == "\n".join(lines)


def test_line_breaks_and_tabs_in_names_and_cells_become_a_space(tmp_path):
    (tmp_path / "a.csv").write_bytes(b'id,"age\n(years)","a\r\nb"\r\n1,"x\r\ny\tz",3\r\n')
    rows = read_tsv(tmp_path / "a.csv")
    write_tsv(tmp_path / "a.tsv", rows, list(rows[0]))
    assert (tmp_path / "a.tsv").read_bytes() == b"id\tage (years)\ta b\n1\tx y z\t3\n"
    assert read_tsv(tmp_path / "a.tsv") == [{"id": "1", "age (years)": "x y z", "a b": "3"}]
    write_tsv(tmp_path / "b.tsv", [{"a\rb": 1, "": "x\0y"}], ["a\rb", ""])
    assert read_tsv(tmp_path / "b.tsv") == [{"a b": "1", "n/a": "x y"}]


def test_names_of_columns_that_a_table_cannot_tell_apart_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"^column 'a b' is there twice: .*a\.tsv$"):
        write_tsv(tmp_path / "a.tsv", [], ["a\nb", "a b"])
    assert not list(tmp_path.iterdir())


def test_numbers_of_numpy_are_written_as_those_of_python(tmp_path):
    row = {"a": np.float32("nan"), "b": np.float32(1 / 3), "c": np.int64(7), "d": np.float16(0.5)}
    write_tsv(tmp_path / "a.tsv", [row], list(row))
    assert (tmp_path / "a.tsv").read_text() == "a\tb\tc\td\nn/a\t0.333333\t7\t0.5\n"


def test_a_table_whose_writer_fails_is_the_one_from_before(tmp_path):
    write_tsv(tmp_path / "a.tsv", ROWS[:1], COLUMNS)
    before = (tmp_path / "a.tsv").read_bytes()

    def rows():
        yield ROWS[1]
        raise OSError("full")

    with pytest.raises(OSError, match="full"):
        write_tsv(tmp_path / "a.tsv", rows(), COLUMNS)
    assert [path.name for path in tmp_path.iterdir()] == ["a.tsv"]
    assert (tmp_path / "a.tsv").read_bytes() == before


def test_equal_cells_of_neighbouring_rows_are_one_object(tmp_path):
    (tmp_path / "a.tsv").write_text("participant_id\themi\nsub-long\tL\nsub-long\tR\nsub-b\tR\n")
    first, second, third = read_tsv(tmp_path / "a.tsv")
    assert [first, second, third] == [
        {"participant_id": "sub-long", "hemi": "L"},
        {"participant_id": "sub-long", "hemi": "R"},
        {"participant_id": "sub-b", "hemi": "R"},
    ]
    assert first["participant_id"] is second["participant_id"]


def test_the_line_of_a_bad_row_is_said(tmp_path):
    (tmp_path / "a.tsv").write_text("a\tb\n1\t2\n\n1\n")
    with pytest.raises(InputError, match=r"^line 4: 1 cells, expected 2"):
        read_tsv(tmp_path / "a.tsv")


def test_words_of_sidecars_are_kept_once(annotated_cohort):
    """Of 50,000 hemispheres they would take gigabytes; what one lacks is still an error."""
    volumes = [v for v in prepared_volumes(annotated_cohort.folder) if v.sidecar["FoldSizes"]]
    first, second = volumes[0].sidecar["FoldSizes"], volumes[1].sidecar["FoldSizes"]
    common = sorted(first.keys() & second.keys())
    assert common
    for label in common:
        (one,), (other,) = ([k for k in own if k == label] for own in (first, second))
        assert one is other
    with pytest.raises(InputError, match=r"lacks 'no such': .*_dseg\.json"):
        _ = first["no such"]


def test_a_row_has_no_dictionary_of_its_own():
    """Of five million rows these would take a gigabyte."""
    row = Record({"a": "1"})
    assert not hasattr(row, "__dict__")
    assert pickle.loads(pickle.dumps(row)) == row
