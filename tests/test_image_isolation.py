"""One bad image never ends the others, nor decides what they are left out for."""

import gzip

import nibabel
import numpy as np
import pytest
from conftest import IMAGE_SIDE, write_nifti
from PIL import Image

from foldnorm.pipeline.cli import main
from foldnorm.preprocessing.cohort.cohort import Cohort
from foldnorm.preprocessing.core.files import read_json

PNG = b"\x89PNG\r\n\x1a\n"


def grey(path, shape=(16, 16), dtype=np.uint8, seed=0):
    rng = np.random.default_rng(seed)
    top = 2 if dtype is bool else np.iinfo(dtype).max
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(rng.integers(0, top, shape).astype(dtype)).save(path)


def png_of(path):
    grey(path)
    return path.read_bytes()


BAD = {
    "empty.png": lambda p: p.write_bytes(b""),
    "text.png": lambda p: p.write_text("no picture"),
    "head.png": lambda p: p.write_bytes(PNG),
    "cut.png": lambda p: p.write_bytes(png_of(p)[:-30]),
    "garbled.png": lambda p: p.write_bytes(png_of(p)[:45] + bytes(40) + png_of(p)[85:]),
    "cut.tif": lambda p: (grey(p), p.write_bytes(p.read_bytes()[:80])),
    "jpeg.jpg": lambda p: p.write_bytes(b"\xff\xd8\xff\xe0" + bytes(20)),
    "large.png": lambda p: grey(p, (17, 16)),
    "deep.png": lambda p: grey(p, dtype=np.uint16),
    "link.png": lambda p: p.symlink_to("nowhere.png"),
    "pointer.png": lambda p: p.write_text("version https://git-lfs.github.com/spec/v1\n"),
}


@pytest.mark.parametrize("name", BAD)
@pytest.mark.parametrize("place", ["0first", "zlast"])
def test_one_bad_image_is_one_line_wherever_it_lies(tmp_path, capsys, name, place):
    source, out = tmp_path / "source", tmp_path / "out"
    for n in range(6):
        grey(source / f"m{n}.png", seed=n)
    BAD[name](source / f"{place}_{name}")
    assert main(["images", str(source), "-o", str(out), "--n-procs", "2", "--quiet"]) == 1
    said = [line for line in capsys.readouterr().err.splitlines() if "warning" not in line]
    assert len(said) == 1
    assert name in said[0]
    assert "unexpected" not in said[0]
    assert Cohort.open(out).keys() == [f"sub-m{n}_image-0" for n in range(6)]
    report = read_json(out / "run_report.json")
    assert report["done"] == 6
    assert len(report["failed"]) == 1


def test_volumes_that_are_damaged_fail_alone(tmp_path, capsys):
    source, out = tmp_path / "source", tmp_path / "out"
    rng = np.random.default_rng(0)
    for n in range(5):
        write_nifti(source / f"m{n}.nii.gz", rng.random((9, 9, 9), np.float32))
    whole = gzip.compress(nibabel.Nifti1Image(np.ones((9, 9, 9), np.float32), np.eye(4)).to_bytes())
    (source / "a_cut.nii.gz").write_bytes(whole[: len(whole) // 2])
    (source / "b_text.nii.gz").write_bytes(gzip.compress(b"no volume"))
    assert main(["images", str(source), "-o", str(out), "--n-procs", "1", "--quiet"]) == 1
    assert len(capsys.readouterr().err.splitlines()) == 2
    assert len(Cohort.open(out)) == 5


def test_restore_finishes_the_others(bars, denoiser, tmp_path, capsys):
    source, out = tmp_path / "source", tmp_path / "out"
    for n in range(3):
        grey(source / f"m{n}.png", (IMAGE_SIDE, IMAGE_SIDE), seed=n)
    grey(source / "a_large.png", (IMAGE_SIDE + 4, IMAGE_SIDE))
    (source / "b_text.png").write_text("no picture")
    words = ["restore", str(denoiser), str(source), "-o", str(out), "--device", "cpu", "--quiet"]
    assert main(words) == 1
    said = capsys.readouterr().err
    assert "a_large.png" in said
    assert "b_text.png" in said
    assert len(list(out.glob("*restored*.png"))) == 3
