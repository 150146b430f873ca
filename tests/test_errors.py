"""`InputError` is a ValueError, and what says it best is what the user reads."""

from pathlib import Path

import pytest

from foldnorm.pipeline.runs.config import resolve
from foldnorm.preprocessing.cohort.images import ImageFile, read_image
from foldnorm.preprocessing.core.errors import InputError
from foldnorm.preprocessing.io.fold_sidecar import read_fold_names
from foldnorm.preprocessing.spatial.crop_spec import CropSpec


def test_a_notebook_catches_it_as_a_value_error():
    with pytest.raises(ValueError, match="--crop: expected"):
        CropSpec.parse("nonsense")


# Each of these is raised inside a `try` that turns other ValueErrors into one line.


def test_a_margin_that_is_too_large_is_said():
    with pytest.raises(InputError, match="a margin is 0 to 100 mm, got 9999"):
        CropSpec.parse("region:central@9999")


def test_a_table_that_is_no_text_is_said(tmp_path):
    (tmp_path / "fold_names.tsv").write_bytes(b"label\tname\n\xff\xfe")
    with pytest.raises(InputError, match="not readable as a table"):
        read_fold_names([tmp_path])


def test_an_archive_that_is_cut_off_is_said_once(tmp_path):
    path = tmp_path / "images-idx3-ubyte"
    path.write_bytes(b"\0\0\x08\x03\0\0\0\1")
    with pytest.raises(InputError, match=r"^truncated: 17 bytes expected, got 8") as raised:
        read_image(ImageFile("a", "0", path, index=0))
    assert str(raised.value).count(str(path)) == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--model.init_args.nonsense", "1"], "configuration: Option 'nonsense' is not accepted"),
        (["--model.init_args.edits", "[cats]"], 'configuration: Parser key "edits": Expected'),
    ],
)
def test_a_configuration_is_refused_by_its_innermost_reason(words, said):
    with pytest.raises(InputError) as raised:
        resolve("wgan_gp", words, shape=(16,) * 3, n_classes=3)
    assert str(raised.value).startswith(said)
    assert str(raised.value).count("configuration:") <= 1


def test_a_configuration_file_is_refused_likewise(tmp_path: Path):
    path = tmp_path / "own.yaml"
    path.write_text("model:\n  class_path: foldnorm.models.WGANGP\n  init_args: {nonsense: 3}\n")
    with pytest.raises(InputError) as raised:
        resolve(str(path), [], shape=(16,) * 3, n_classes=3)
    assert str(raised.value) == f"configuration: Option 'nonsense' is not accepted: {path}"
