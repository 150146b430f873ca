"""Pairs of .hdr and .img: one volume each, not read, and why."""

import gzip

import nibabel
import numpy as np
import pytest
from conftest import skeleton_source

from foldnorm.pipeline.cli import main
from foldnorm.preprocessing.io.file_pairs import pair_fault

KINDS = {
    "NIfTI pair": nibabel.Nifti1Pair,
    "NIfTI pair ": nibabel.Nifti2Pair,
    "Analyze 7.5, which does not tell left from right": nibabel.AnalyzeImage,
    "Analyze 7.5": nibabel.Spm99AnalyzeImage,
}


def write_pair(folder, kind=nibabel.Nifti1Pair, name="sub-b"):
    folder.mkdir(parents=True, exist_ok=True)
    image = kind(np.zeros((4, 5, 6), np.int16), np.eye(4))
    nibabel.save(image, folder / f"{name}.img")
    return folder / f"{name}.img"


@pytest.mark.parametrize(("said", "kind"), KINDS.items())
def test_a_pair_is_recognised_by_its_header(tmp_path, said, kind):
    voxels = write_pair(tmp_path, kind)
    assert pair_fault(voxels).startswith(said.strip())
    assert pair_fault(voxels.with_suffix(".hdr")) == f"header of: {pair_fault(voxels)}"


def test_packed_and_capital_pairs_are_pairs(tmp_path):
    voxels = write_pair(tmp_path)
    for path in (voxels, voxels.with_suffix(".hdr")):
        (tmp_path / f"p{path.suffix}.gz").write_bytes(gzip.compress(path.read_bytes()))
        path.rename(path.with_suffix(path.suffix.upper()))
    assert pair_fault(tmp_path / "p.img.gz").startswith("NIfTI pair")
    assert pair_fault(tmp_path / "p.hdr.gz").startswith("header of")
    assert pair_fault(tmp_path / "sub-b.IMG").startswith("NIfTI pair")


def test_other_files_of_these_names_are_none(tmp_path):
    (tmp_path / "disk.img").write_bytes(bytes(4096))
    (tmp_path / "envi.hdr").write_text("ENVI\nsamples = 3\n" * 99)
    (tmp_path / "envi.img").write_bytes(bytes(99))
    lonely = write_pair(tmp_path).with_suffix(".hdr")
    lonely.with_suffix(".img").unlink()
    for path in tmp_path.iterdir():
        assert pair_fault(path) == ""


def test_every_command_says_what_to_do_with_a_pair(tmp_path, capsys):
    source = skeleton_source(tmp_path / "in", 1)
    voxels = write_pair(source)
    assert main(["inspect", str(source)]) == 0
    said = capsys.readouterr().out
    joined = "NIfTI pair of .hdr and .img; expected both in one .nii (fslchfiletype joins them)"
    assert f"not used, {joined}: 1 ({voxels})" in said
    assert f"not used, header of: {joined}: 1 ({voxels.with_suffix('.hdr')})" in said
    assert "volumes whose names do not say their kind: 1 " in said
    for command in ("preprocess", "skeletonise", "images"):
        for path in (voxels, voxels.with_suffix(".hdr")):
            assert main([command, str(path), "-o", str(tmp_path / "out"), "--quiet"])
            assert f"{joined}: {path}" in capsys.readouterr().err
