"""Drawn volumes as a cohort folder that other commands take, and the first of a cohort in 3-D."""

import base64
import io
import shutil

import nibabel
import numpy as np
import pytest
from conftest import train_images
from matplotlib.image import imread

from foldnorm.pipeline.cli import main
from foldnorm.pipeline.report.gallery import hemisphere_gallery, shows_sheets
from foldnorm.pipeline.runs.run_folder import RunFolder
from foldnorm.preprocessing.cohort.cohort import Cohort
from foldnorm.preprocessing.core.errors import InputError
from foldnorm.preprocessing.core.files import read_tsv
from foldnorm.preprocessing.io.volumes import read_labels


@pytest.fixture(scope="module")
def run(phantom_cohort, tmp_path_factory):
    """A model of phantoms that have folds, hardly trained."""
    out = tmp_path_factory.mktemp("run")
    words = ["train", "beta_vae", str(phantom_cohort.folder), "-o", str(out), "--quiet"]
    assert main([*words, "--training.steps", "3", "--model.init_args.channels", "[8,8]"]) == 0
    return out


@pytest.fixture(scope="module")
def drawn(run, phantom_cohort, tmp_path_factory):
    """Ten drawn volumes, with a cohort of the same layout."""
    out = tmp_path_factory.mktemp("drawn")
    words = ["generate", str(run), "-o", str(out), "--num", "10", "--quiet", "--overwrite"]
    assert main([*words, "--cohort", str(phantom_cohort.folder)]) == 0
    return out


def test_drawn_volumes_are_a_cohort_and_marked_as_drawn(drawn, phantom_cohort):
    cohort = Cohort.open(drawn)
    assert len(cohort.rows) == 10
    assert {row["split"] for row in cohort.rows} == {"train"}
    assert cohort.rows[3]["participant_id"] == "sub-synthetic0003"
    assert cohort.is_phantom
    assert cohort.description["Cohort"]["synthetic"]["kept"] == 10
    assert cohort.preparation == phantom_cohort.preparation
    np.testing.assert_array_equal(cohort.affine, phantom_cohort.affine)
    for n in (0, 9):
        own = read_labels(drawn / f"synthetic-{n:04d}_dseg.nii.gz")
        np.testing.assert_array_equal(cohort.volumes[n], own.data)
        np.testing.assert_allclose(own.affine, cohort.affine)


def test_a_mirrored_right_hemisphere_that_was_drawn_lies_on_the_right(tmp_path):
    source, mirrored, run = (tmp_path / name for name in ("source", "mirrored", "run"))
    words = ["phantom", "-o", str(source), "--subjects", "4", "--hemi", "L", "R", "--quiet"]
    assert main([*words, "--voxel-size", "4", "--n-procs", "1"]) == 0
    words = ["preprocess", str(source), "-o", str(mirrored), "--mirror-right", "--quiet"]
    assert main([*words, "--voxel-size", "8", "--n-procs", "1", "--pad", "multiple:8"]) == 0
    told = ["--model.init_args.condition", "[hemi]", "--model.init_args.channels", "[8]"]
    words = ["train", "beta_vae", str(mirrored), "-o", str(run), "--training.steps", "1", "--quiet"]
    assert main([*words, *told]) == 0
    like, packed, in_the_world = Cohort.open(mirrored), {}, {}
    for hemi in "LR":
        words = ["generate", str(run), "-o", str(tmp_path / hemi), "--num", "1", "--quiet"]
        words += ["--cohort", str(mirrored), "--condition", f"hemi={hemi}"]
        assert main(words) == 0
        drawn = Cohort.open(tmp_path / hemi)
        assert drawn.rows[0]["hemi"] == hemi
        packed[hemi] = np.array(drawn.volumes[0])
        in_the_world[hemi] = nibabel.load(tmp_path / hemi / "synthetic-0000_dseg.nii.gz")
    for hemi, image in in_the_world.items():
        voxel = np.argwhere(packed[hemi] == 2)[0]
        place = like.affine_of({"hemi": hemi}) @ [*voxel, 1]
        assert (place[0] > 0) == (hemi == "R")
        back = np.linalg.inv(image.affine) @ place
        assert image.dataobj[tuple(np.rint(back[:3]).astype(int))] == 2


def test_folds_of_drawn_volumes_are_the_surfaces_of_their_sheets(drawn):
    cohort = Cohort.open(drawn)
    rows = read_tsv(drawn / "folds.tsv")
    for n in range(10):
        volume, folds = np.array(cohort.volumes[n]), np.array(cohort.folds[n])
        assert (volume[folds > 0] == 2).all()
        own = [row for row in rows if row["participant_id"] == cohort.rows[n]["participant_id"]]
        assert [int(row["voxels"]) for row in own] == np.bincount(folds.ravel())[1:].tolist()
    face = float(np.prod(cohort.voxel_size)) ** (2 / 3)
    assert float(rows[0]["size"]) == pytest.approx(int(rows[0]["voxels"]) * face, rel=1e-4)


def test_other_commands_take_them(drawn, phantom_cohort, run, tmp_path):
    words = ["--quiet", "--training.steps", "2", "--model.init_args.channels", "[8,8]",
             "--model.init_args.convolutions", "[1,1]"]  # fmt: skip
    assert main(["train", "restorer", str(drawn), "-o", str(tmp_path / "run"), *words]) == 0
    assert RunFolder.open(tmp_path / "run").data["phantom"]
    card = (tmp_path / "run/MODEL_CARD.md").read_text()
    assert "drawn by a model), not brains" in card
    out = tmp_path / "scores"
    assert main(["score", str(run), str(drawn), "-o", str(out), "--quiet"]) in (0, 1)
    assert len(read_tsv(out / "scores.tsv")) == 10
    assert main(["report", str(drawn), "-o", str(tmp_path / "report.html"), "--quiet"]) == 0
    page = (tmp_path / "report.html").read_text()
    assert "SYNTHETIC data" in page
    assert "has no volume in its" not in page


@pytest.mark.parametrize("more", [[], ["--overwrite"]])
def test_a_cohort_that_was_not_drawn_is_not_drawn_over(run, phantom_cohort, tmp_path, capsys, more):
    out = tmp_path / "brains"
    shutil.copytree(phantom_cohort.folder, out)
    before = {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()}
    words = ["generate", str(run), "-o", str(out), "--num", "1", *more]
    assert main([*words, "--cohort", str(phantom_cohort.folder)]) == 2
    assert "a cohort that was not drawn, which would be lost" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()} == before


def test_volumes_drawn_over_a_cohort_are_not_taken_for_it(run, drawn, phantom_cohort, tmp_path):
    out = tmp_path / "again"
    shutil.copytree(drawn, out)
    (out / "synthetic-notes.png").touch()
    words = ["generate", str(run), "-o", str(out), "--num", "2", "--seed", "5", "--overwrite"]
    assert main([*words, "--quiet"]) == 0
    with pytest.raises(InputError, match="not a cohort folder"):
        Cohort.open(out)
    assert not (out / "volumes.npy").exists()
    assert not (out / "folds.npy").exists()
    assert main([*words, "--quiet", "--cohort", str(phantom_cohort.folder)]) == 0
    cohort = Cohort.open(out)
    assert len(cohort.rows) == len(cohort.folds) == 2
    assert (out / "synthetic-notes.png").exists()  # of somebody else
    names = sorted(path.name for path in out.glob("*.nii.gz"))
    assert names == ["synthetic-0000_dseg.nii.gz", "synthetic-0001_dseg.nii.gz"]


def test_a_cohort_of_another_layout_or_of_images_is_refused(
    run, small_cohort, bars, tmp_path, capsys
):
    words = ["generate", str(run), "-o", str(tmp_path / "out"), "--num", "1"]
    assert main([*words, "--cohort", str(small_cohort.folder)]) == 2
    assert str(small_cohort.folder) in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    vae = train_images(bars, tmp_path / "vae", "image_vae")
    words = ["generate", str(vae), "-o", str(tmp_path / "out"), "--num", "1"]
    assert main([*words, "--cohort", str(bars)]) == 2
    assert "expected label volumes, got images" in capsys.readouterr().err


def test_hemispheres_of_a_cohort_are_shown_from_both_sides(phantom_cohort):
    assert shows_sheets(phantom_cohort)
    source = hemisphere_gallery(phantom_cohort, [0, 1, 2])
    picture = imread(io.BytesIO(base64.b64decode(source.partition(",")[2])))
    height, width = picture.shape[:2]
    assert width > 1000
    cells = [picture[: height // 2, n * width // 4 : (n + 1) * width // 4] for n in range(4)]
    assert all((cell[..., 2] - cell[..., 0] > 0.2).any() for cell in cells)  # sulci are blue
    last = picture[height // 2 :, 3 * width // 4 :]
    assert last.min() == 1  # three fill three quarters
