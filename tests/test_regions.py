"""Regions: by name, by mask, dilated as the lab dilates, frozen in a cohort."""

import numpy as np
import pytest
from conftest import write_nifti

from foldnorm.pipeline.cli import main
from foldnorm.preprocessing.cohort.cohort import Cohort
from foldnorm.preprocessing.core.errors import InputError
from foldnorm.preprocessing.io.fold_graph import read_fold_graph
from foldnorm.preprocessing.io.volumes import read_labels
from foldnorm.preprocessing.spatial.crop_spec import CropSpec
from foldnorm.preprocessing.spatial.regions import (
    dilated,
    read_regions,
    region_of_mask,
    region_of_voxels,
)


def slow_chamfer(mask, threshold):
    """Shortest way of weighted steps from the mask, by relaxation."""
    steps = [s for s in np.ndindex(3, 3, 3) if s != (1, 1, 1)]
    distance = np.where(mask, 0, 10**6)
    for _ in range(20):
        padded = np.pad(distance, 1, constant_values=10**6)
        for step in steps:
            weight = (0, 50, 71, 87)[sum(n != 1 for n in step)]
            shifted = padded[
                tuple(slice(n, n + side) for n, side in zip(step, mask.shape, strict=True))
            ]
            distance = np.minimum(distance, shifted + weight)
    return distance <= threshold


@pytest.mark.parametrize(("margin", "size"), [(5.0, 1.0), (3.0, 1.0), (5.0, 2.0), (0.0, 1.0)])
def test_dilation_is_by_chamfer_distance(margin, size):
    mask = np.random.default_rng(0).random((20, 21, 22)) > 0.999
    assert mask.any()
    assert (dilated(mask, margin, size) == slow_chamfer(mask, 50 * margin / size)).all()


def test_dilation_of_the_labs_own_mask(real_data):
    mask = read_labels(real_data / "oracles/delete_fold_graph/S.C._right_mask_1mm.nii.gz")
    assert (mask.data > 0).sum() == 27_114
    region = region_of_mask(mask, 5.0, 1.0, mirrored=False)
    assert region.mask.sum() == 86_813
    assert region.box.start == (93 - 96 - 5, 85 - 132 - 5, 81 - 78 - 5)


def test_a_region_holds_the_voxels_of_all_subjects():
    region = region_of_voxels([np.array([[5, 5, 5]]), np.array([[9, 5, -2]])], 1.0, 1.0)
    assert (region.box.start, region.box.stop) == ((4, 4, -3), (11, 7, 7))
    assert region.mask.sum() == 14


@pytest.mark.parametrize("size", [0.5, 1.0, 2.0])
def test_a_mask_fills_the_lattice_at_any_voxel_size(tmp_path, size):
    mask = np.zeros((20, 20, 20), np.uint8)
    mask[4:12, 4:12, 4:12] = 3
    affine = np.eye(4)
    affine[:3, 3] = 10
    volume = read_labels(write_nifti(tmp_path / "m.nii", mask, affine))
    region = region_of_mask(volume, 0.0, size, mirrored=False)
    assert abs(region.mask.sum() * size**3 - 512) <= 0.2 * 512
    mirrored = region_of_mask(volume, 0.0, size, mirrored=True)
    assert mirrored.box.stop[0] < 0


def test_every_shipped_region_is_made_of_known_sulci(real_data):
    """Names occur in the graphs of two subjects, so a typing error cannot hide."""
    known = set()
    for path in real_data.glob("morphologist/**/*.arg"):
        for fold in read_fold_graph(path).folds:
            known |= {name.removesuffix("_left").removesuffix("_right")
                      for name in (fold.label, fold.name)}  # fmt: skip
    missing = {s for sulci in read_regions().values() for s in sulci} - known
    assert not missing


def test_a_file_of_the_users_own_goes_before(tmp_path):
    path = tmp_path / "r.yaml"
    path.write_text("central: [S.C., S.C.LPC.]\nmine: [S.Rh.]\n")
    regions = read_regions(path)
    assert regions["central"] == ("S.C.", "S.C.LPC.")
    assert {"mine", "cingulate"} <= set(regions)
    for text in ("- a\n", "central: S.C.\n", "central: []\n", "central: [1]\n", "a: {b: c\n"):
        path.write_text(text)
        with pytest.raises(InputError, match=r"r\.yaml"):
            read_regions(path)


def test_a_fold_goes_before_a_region_of_the_same_name():
    spec = CropSpec.parse("region:central+cingulate@3", read_regions())
    names = {1: "S.C._left", 2: "F.C.M.ant._left", 3: "S.Rh._left"}
    assert spec.labels(names) == {1, 2}
    assert spec.labels({**names, 4: "central"}) == {2, 4}
    assert spec.margin == 3


@pytest.mark.parametrize("text", ["region:central@-1", "region:central@1e9", "mask:a.nii@nan"])
def test_an_absurd_margin_is_refused(text):
    with pytest.raises(InputError, match="margin"):
        CropSpec.parse(text, read_regions())


def preprocess(source, out, *more):
    words = ["--quiet", "--n-procs", "1", "--voxel-size", "2", *more]
    return main(["preprocess", str(source), "-o", str(out), *words])


def test_off_the_mask_all_is_one_class_and_new_subjects_get_the_frozen_mask(
    phantom_source, phantom_cohort, tmp_path
):
    words = ["--crop", "region:central@4", "--outside-class", "outside"]
    assert preprocess(phantom_source, tmp_path / "a", *words) == 0
    assert preprocess(phantom_source, tmp_path / "boxed", "--crop", "region:central@4") == 0
    cohort, boxed = Cohort.open(tmp_path / "a"), Cohort.open(tmp_path / "boxed")
    mask = read_labels(tmp_path / "a/region_mask.nii.gz")
    assert np.allclose(mask.affine, cohort.affine)
    inside = mask.data > 0
    assert 0.1 < inside.mean() < 0.9
    volumes, whole = np.array(cohort.volumes), np.array(boxed.volumes)
    assert (volumes[:, ~inside] == 0).all()
    assert (volumes[:, inside] == whole[:, inside]).all()
    assert not np.array(cohort.folds)[:, ~inside].any()
    some = [row["participant_id"] for row in cohort.rows[:2]]
    like = ["--layout-from", str(tmp_path / "a"), "--participant-label", *some]
    assert preprocess(phantom_source, tmp_path / "b", *like) == 0
    other = Cohort.open(tmp_path / "b")
    assert (np.array(other.volumes) == volumes[:2]).all()
    assert other.preparation == cohort.preparation


def test_a_class_that_is_none_or_no_region_is_refused(phantom_source, tmp_path, capsys):
    words = ["--crop", "region:central"]
    assert preprocess(phantom_source, tmp_path / "a", *words, "--outside-class", "nothing") == 2
    assert "expected one of outside, inside, sulcus" in capsys.readouterr().err
    assert preprocess(phantom_source, tmp_path / "a", "--outside-class", "outside") == 2
    assert "needs a region" in capsys.readouterr().err


def test_a_real_region_by_name_holds_its_sulci(real_data, tmp_path):
    words = ["--space", "mni", "--hull", "remove", "--mirror-right"]
    crop = ["--crop", "region:superior-temporal-branches@5"]
    source = real_data / "morphologist/hcp"
    assert preprocess(source, tmp_path / "a", *words, *crop) == 0
    cohort = Cohort.open(tmp_path / "a")
    held = {row["name"].rpartition("_")[0] for row in cohort.fold_table}
    assert {"S.T.s.ter.asc.ant.", "S.T.s.ter.asc.post."} <= held
    assert cohort.preparation["regions"] == {
        "superior-temporal-branches": ["S.T.s.ter.asc.ant.", "S.T.s.ter.asc.post."]
    }
    assert max(cohort.shape) < 60


def test_the_labs_own_mask_as_a_crop(real_data, tmp_path, capsys):
    mask = real_data / "oracles/delete_fold_graph/S.C._right_mask_1mm.nii.gz"
    words = ["--space", "mni", "--hemi", "R", "--crop", f"mask:{mask}@5"]
    assert preprocess(real_data / "morphologist/hcp", tmp_path / "a", *words) == 0
    cohort = Cohort.open(tmp_path / "a")
    assert cohort.affine[0, 3] >= -8
    assert preprocess(real_data / "morphologist/hcp", tmp_path / "b",
                      "--crop", "mask:nowhere.nii") == 2  # fmt: skip
    assert "no such file" in capsys.readouterr().err
