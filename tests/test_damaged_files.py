"""Files of ours that are empty, cut off, or pointers to what was not fetched: one line each."""

import json
import pickle
import shutil

import numpy as np
import pytest
from conftest import TINY_TRAINING

from foldnorm.pipeline.cli import main
from foldnorm.pipeline.runs.run_folder import RunFolder
from foldnorm.preprocessing.cohort.cohort import Cohort
from foldnorm.preprocessing.core.arrays import read_array
from foldnorm.preprocessing.core.errors import InputError
from foldnorm.preprocessing.core.files import (
    content_fault,
    number,
    read_json,
    read_tsv,
    whole_number,
)

LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 9\n"
ANNEX = b"/annex/objects/MD5E-s9--0123456789abcdef.npy\n"
DAMAGES = {
    "lfs": (lambda whole: LFS, "git lfs pull"),
    "annex": (lambda whole: ANNEX, "git annex get"),
    "empty": (lambda whole: b"", "empty file"),
    "cut": (lambda whole: whole[: len(whole) // 2], ""),
    "zeros": (lambda whole: bytes(len(whole)), ""),  # as a crash of a file server leaves
}
OURS = ["volumes.npy", "participants.tsv", "dataset_description.json"]


def refused(capsys, *words):
    """The one line that a command refuses its input with."""
    capsys.readouterr()
    assert main([*map(str, words), "--quiet"]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "weights_only" not in line
    assert "\x1b" not in line
    return line


def damage(path, name):
    path.write_bytes(DAMAGES[name][0](path.read_bytes()))
    return DAMAGES[name][1]


@pytest.mark.parametrize("name", DAMAGES)
@pytest.mark.parametrize("file", OURS)
def test_a_damaged_cohort_is_refused_by_name(small_cohort, tmp_path, file, name):
    for own in OURS:
        shutil.copy(small_cohort.folder / own, tmp_path / own)
    reason = damage(tmp_path / file, name)
    with pytest.raises(InputError, match=file) as raised:
        _ = Cohort.open(tmp_path)
    if file != "participants.tsv" or name != "empty":
        assert reason in str(raised.value)


def with_class_number(cohort, folder, name, number):
    """Copy of a cohort: all volumes but the first hold a class number that its scheme has not."""
    shutil.copytree(cohort.folder, folder)
    stored = np.load(folder / name)
    stored[1:, 0, 0, 0] = number
    np.save(folder / name, stored)
    return Cohort.open(folder)


def test_a_class_number_that_the_scheme_has_not_is_refused_as_it_is_read(small_cohort, tmp_path):
    cohort = with_class_number(small_cohort, tmp_path / "cohort", "volumes.npy", 3)
    assert np.array_equal(cohort.volumes[0], small_cohort.volumes[0])
    for read in (
        lambda: cohort[1].volume,
        lambda: np.asarray(cohort.volumes),
        lambda: cohort.volumes[:2],
        lambda: list(cohort.brains([1])),
        lambda: cohort.dataset()[1],
    ):
        with pytest.raises(InputError, match=r"class number 3, expected 0 to 2 .*volumes\.npy"):
            read()


def test_training_ends_at_such_a_volume_in_one_line(small_cohort, tmp_path, capsys):
    cohort = with_class_number(small_cohort, tmp_path / "cohort", "volumes.npy", 223)
    words = ["train", "wgan_gp", cohort.folder, "-o", tmp_path / "run", *TINY_TRAINING]
    assert "class number 223, expected 0 to 2" in refused(capsys, *words)


def test_arrays_beside_the_volumes_have_their_shape(phantom_cohort, tmp_path):
    shutil.copytree(phantom_cohort.folder, tmp_path / "cohort")
    np.save(tmp_path / "cohort/folds.npy", np.array(phantom_cohort.folds)[..., 1:])
    with pytest.raises(InputError, match=r"expected an array of .*folds\.npy"):
        _ = Cohort.open(tmp_path / "cohort").folds


def test_class_numbers_are_bytes(small_cohort, tmp_path):
    shutil.copytree(small_cohort.folder, tmp_path / "cohort")
    np.save(tmp_path / "cohort/volumes.npy", np.asarray(small_cohort.volumes).astype(np.float32))
    with pytest.raises(InputError, match=r"expected class numbers \(uint8\), got float32"):
        Cohort.open(tmp_path / "cohort")


def test_a_row_says_which_column_its_table_lacks(tmp_path):
    (tmp_path / "scores.tsv").write_text("id\tz\nsub-1\t2.5\n")
    (row,) = read_tsv(tmp_path / "scores.tsv")
    assert row["z"] == "2.5"
    assert row.get("hemi") is None
    for joined in (row, row | {"flag": "x"}, {"flag": "x"} | row, pickle.loads(pickle.dumps(row))):
        with pytest.raises(InputError, match=r"lacks 'participant_id': .*scores\.tsv"):
            _ = joined["participant_id"]


def test_a_header_of_an_array_that_does_not_parse_is_one_error(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros(3))
    whole = (tmp_path / "a.npy").read_bytes()
    for damage in (whole.replace(b"}", b"("), whole.replace(b"}", b"\0"), whole[:20]):
        (tmp_path / "a.npy").write_bytes(damage)
        with pytest.raises(InputError, match=r"not readable as an array .*a\.npy"):
            read_array(tmp_path / "a.npy")


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_checkpoint_is_refused_by_name(small_run, small_cohort, tmp_path, capsys, name):
    run = tmp_path / "run"
    shutil.copytree(small_run, run)
    reason = damage(run / "checkpoints/best.ckpt", name)
    line = refused(capsys, "embed", run, small_cohort.folder, "-o", tmp_path / "codes")
    assert "best.ckpt" in line
    assert reason in line
    damage(run / "checkpoints/last.ckpt", name)
    words = ["train", "wgan_gp", small_cohort.folder, "-o", run, "--resume", "auto"]
    words += TINY_TRAINING
    assert "last.ckpt" in refused(capsys, *words, "--device", "cpu")


def test_another_checkpoint_of_torch_is_none_of_ours(small_run, tmp_path):
    import torch

    run = tmp_path / "run"
    shutil.copytree(small_run, run)
    for content in ({"epoch": 3}, [1, 2], torch.zeros(3)):
        torch.save(content, run / "checkpoints/best.ckpt")
        with pytest.raises(InputError, match=r"checkpoint.*best\.ckpt"):
            RunFolder.open(run).load()


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_bundle_is_refused_by_name(small_run, small_cohort, tmp_path, capsys, name):
    bundle = tmp_path / "bundle"
    assert main(["export", str(small_run), "-o", str(bundle), "--quiet"]) == 0
    reason = damage(bundle / "models/model.safetensors", name)
    line = refused(capsys, "embed", bundle, small_cohort.folder, "-o", tmp_path / "codes")
    assert "model.safetensors" in line
    assert "config.yaml" not in line
    assert reason in line


@pytest.mark.parametrize("name", DAMAGES)
@pytest.mark.parametrize("file", ["config.yaml", "data.json"])
def test_a_damaged_run_folder_is_refused_by_name(
    small_run, small_cohort, tmp_path, capsys, file, name
):
    run = tmp_path / "run"
    shutil.copytree(small_run, run)
    if name == "cut":  # half of the text may be enough
        (run / file).write_bytes((run / file).read_bytes()[:60])
    else:
        damage(run / file, name)
    line = refused(capsys, "embed", run, small_cohort.folder, "-o", tmp_path / "codes")
    assert file in line


def test_a_key_that_json_lacks_is_said_with_its_file(tmp_path):
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"Cohort": {"affine": 1}}))
    with pytest.raises(InputError, match=r"lacks 'preparation': .*a\.json"):
        _ = read_json(path)["Cohort"]["preparation"]
    assert read_json(path)["Cohort"].get("preparation") is None


def test_annexed_files_are_known_by_their_link_too(tmp_path):
    path = tmp_path / "a.npy"
    path.symlink_to(".git/annex/objects/aa/bb/MD5E/MD5E")
    assert "git annex get" in content_fault(path)
    with pytest.raises(InputError, match="no such file"):
        read_array(path)


def test_damaged_sidecars_are_made_anew(small_cohort, tmp_path):
    out, words = tmp_path / "out", ["--voxel-size", "1.5", "--n-procs", "1", "--quiet"]
    source = small_cohort.folder.parent / "source"
    command = ["preprocess", str(source), "-o", str(out), *words]
    assert main(command) == 0
    before = np.load(out / "volumes.npy")
    for path in (out / "sub-s00/anat/sub-s00_dseg.json", out / "sub-s01/anat/sub-s01_dseg.json"):
        path.write_bytes(b"" if "s00" in path.name else path.read_bytes()[:100])
    assert main(command) == 0
    assert read_json(out / "run_report.json")["skipped"] == 22
    assert np.array_equal(np.load(out / "volumes.npy"), before)


@pytest.mark.parametrize(
    ("cell", "read", "said"),
    [
        ("many", number, "a number under z, got 'many'"),
        ("n/a", number, "a number under z, got 'n/a'"),
        ("2.5", whole_number, "a whole number under z, got '2.5'"),
        ("inf", whole_number, "a whole number under z, got 'inf'"),
    ],
)
def test_a_cell_that_is_no_number_is_named(tmp_path, cell, read, said):
    (tmp_path / "a.tsv").write_text(f"z\n-3\n{cell}\n")
    good, bad = read_tsv(tmp_path / "a.tsv")
    assert read(good, "z") == -3
    with pytest.raises(InputError, match=rf"expected {said}: .*a\.tsv"):
        read(bad, "z")
