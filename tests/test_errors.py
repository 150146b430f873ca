"""`InputError` is a ValueError, and what says it best is what the user reads."""

from pathlib import Path

import pytest
from conftest import skeleton_volume, write_nifti

from foldnorm.pipeline.cli import main
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
        (["--model.init_args.nonsense", "1"], "--model.init_args.nonsense: the model has no such"),
        (
            ["--model.init_args.chanels", "[8]"],
            "--model.init_args.chanels: the model has no such argument; did you mean channels",
        ),
        (["--model.init_args.edits", "[cats]"], "--model.init_args.edits: expected "),
        (["--training.stpes", "2"], "--training.stpes: no such key; did you mean --training.steps"),
        (
            ["--training.augmentation.rotaton", "2"],
            "--training.augmentation.rotaton: no such key; did you mean "
            "--training.augmentation.rotation",
        ),
        (["--training.lr", "2"], "--training.lr: no such key (those of the model are in "),
        (["--training.steps", "abc"], "--training.steps: expected int, got abc"),
    ],
)
def test_a_word_of_the_command_line_is_refused_by_its_innermost_reason(words, said):
    with pytest.raises(InputError) as raised:
        resolve("wgan_gp", words, shape=(16,) * 3, n_classes=3)
    assert str(raised.value).startswith(said)


def test_a_configuration_file_is_refused_likewise(tmp_path: Path):
    path = tmp_path / "own.yaml"
    path.write_text("model:\n  class_path: foldnorm.models.WGANGP\n  init_args: {nonsense: 3}\n")
    with pytest.raises(InputError) as raised:
        resolve(str(path), [], shape=(16,) * 3, n_classes=3)
    assert str(raised.value) == f"nonsense: the model has no such argument: {path}"


def test_what_is_not_there_is_said_to_be_missing(small_cohort, tmp_path, capsys):
    cohort, out = str(small_cohort.folder), str(tmp_path / "out")
    for words in (["score", "nowhere", cohort, "-o", out], ["view", "nowhere"],
                  ["report", cohort, "nowhere", "-o", f"{out}.html"],
                  ["embed", "nowhere", cohort, "-o", out],
                  ["alter", "nowhere", "-o", out, "--size", "50"]):  # fmt: skip
        assert main(words) == 2
        assert "no such file or folder: nowhere" in capsys.readouterr().err
    assert main(["score", "restorer", cohort, "-o", out]) == 2
    assert "foldnorm train restorer COHORT -o RUN" in capsys.readouterr().err


@pytest.mark.parametrize("made", ["preprocess", "skeletonise", "images"])
def test_a_source_is_not_written_into(made, tmp_path, capsys):
    source = tmp_path / "source"
    write_nifti(source / "Lskeleton_s1.nii.gz", skeleton_volume(1))
    (source / "participants.tsv").write_text("participant_id\tage\nsub-s1\t40\n")
    (tmp_path / "link").symlink_to(source)
    before = {path: path.read_bytes() for path in source.rglob("*")}
    for out in (source, tmp_path / "link", source / "../source"):
        assert main([made, str(source), "-o", str(out), "--quiet"]) == 2
        assert "--out is the source, which is only read" in capsys.readouterr().err
    if made == "preprocess":
        words = ["--from", "segmentation", "--quiet"]
        assert main([made, str(source), "-o", str(source), *words]) == 2
    assert {path: path.read_bytes() for path in source.rglob("*")} == before
