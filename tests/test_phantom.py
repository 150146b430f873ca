import numpy as np
import pytest
from scipy import ndimage

from foldnorm.pipeline.cli import main
from foldnorm.pipeline.metrics.sheets import opening_fraction
from foldnorm.preprocessing.cohort.cohort import Cohort
from foldnorm.preprocessing.core.errors import InputError
from foldnorm.preprocessing.core.files import read_tsv
from foldnorm.preprocessing.phantom.anatomy import BY_NAME, MNI_PLANES, PRIMARY
from foldnorm.preprocessing.phantom.folds import ADDED_LABEL, Variant
from foldnorm.preprocessing.phantom.hemisphere import draw_hemisphere

CENTRAL = BY_NAME["central"].label


@pytest.fixture(scope="module")
def healthy():
    return draw_hemisphere(3, voxel_size=1.0)


def sulcus(hemisphere):
    return hemisphere.skeleton == 60


def test_same_arguments_same_voxels_other_subject_others(healthy):
    again = draw_hemisphere(3, voxel_size=1.0)
    assert (again.skeleton == healthy.skeleton).all()
    assert (again.folds == healthy.folds).all()
    assert (draw_hemisphere(4, voxel_size=1.0).skeleton != healthy.skeleton).any()


def test_it_is_near_real_skeletons(healthy):
    """FACTS 9: 8–11 % of the inside, about half of it hull, one component, no thick blocks."""
    skeleton, inside = sulcus(healthy), healthy.skeleton != 11
    assert 0.08 < skeleton.sum() / inside.sum() < 0.14
    assert 550_000 < inside.sum() < 850_000
    assert 0.35 < ((healthy.folds == 0) & skeleton).sum() / skeleton.sum() < 0.6
    assert ndimage.label(skeleton, np.ones((3, 3, 3)))[1] == 1
    assert opening_fraction(skeleton) < 0.02
    depth = ndimage.distance_transform_edt(inside)[skeleton]
    assert 15 < np.percentile(depth, 99) < 27


def test_every_primary_sulcus_is_there_and_no_fold_is_hull(healthy):
    labels = set(np.unique(healthy.folds))
    assert {p.label for p in PRIMARY} <= labels
    outside = healthy.skeleton == 11
    touches = ndimage.binary_dilation(outside)
    assert not (touches & (healthy.folds > 0)).any()


def test_no_white_matter_under_a_fold(healthy):
    assert set(np.unique(healthy.grey_white)) == {0, 100, 200}
    assert not (sulcus(healthy) & (healthy.grey_white == 200)).any()
    assert (healthy.grey_white[healthy.skeleton == 11] == 0).all()


def test_geometry_does_not_depend_on_the_voxel_size():
    fine, coarse = draw_hemisphere(7, voxel_size=1.0), draw_hemisphere(7, voxel_size=2.0)
    for label in (CENTRAL, BY_NAME["calcarine"].label):
        centres = [
            np.argwhere(h.folds == label).mean(axis=0) @ h.affine[:3, :3].T + h.affine[:3, 3]
            for h in (fine, coarse)
        ]
        assert np.abs(centres[0] - centres[1]).max() < 2.0


def test_an_erased_fold_leaves_no_other_trace(healthy):
    erased = draw_hemisphere(3, voxel_size=1.0, variant=Variant("erased", CENTRAL))
    changed = erased.skeleton != healthy.skeleton
    assert (healthy.folds[changed] == CENTRAL).all()
    assert CENTRAL not in erased.folds
    assert (erased.skeleton[changed] == 0).all()


def test_an_absent_folds_place_is_filled_by_its_neighbours(healthy):
    absent = draw_hemisphere(3, voxel_size=1.0, variant=Variant("absent", CENTRAL))
    assert CENTRAL not in absent.folds
    place = ndimage.binary_dilation(healthy.folds == CENTRAL, iterations=3)
    erased = draw_hemisphere(3, voxel_size=1.0, variant=Variant("erased", CENTRAL))
    assert sulcus(absent)[place].sum() > sulcus(erased)[place].sum()


@pytest.mark.parametrize(
    ("kind", "check"),
    [
        ("added", lambda h, v: ADDED_LABEL in v.folds and ADDED_LABEL not in h.folds),
        ("interrupted", lambda h, v: 0 < (v.folds == CENTRAL).sum() < (h.folds == CENTRAL).sum()),
        ("displaced", lambda h, v: np.linalg.norm(
            np.argwhere(v.folds == CENTRAL).mean(0) - np.argwhere(h.folds == CENTRAL).mean(0)) > 6),
    ],
)  # fmt: skip
def test_the_other_variants(healthy, kind, check):
    assert check(healthy, draw_hemisphere(3, voxel_size=1.0, variant=Variant(kind, CENTRAL)))


def test_a_right_hemisphere_is_on_the_right():
    right = draw_hemisphere(0, voxel_size=2.0, hemi="R")
    left = draw_hemisphere(0, voxel_size=2.0)
    assert (np.argwhere(right.skeleton != 11).mean(0) @ right.affine[:3, :3] + right.affine[:3, 3])[
        0
    ] > 20
    assert (np.argwhere(left.skeleton != 11).mean(0) @ left.affine[:3, :3] + left.affine[:3, 3])[
        0
    ] < -20


def test_both_sides_lead_to_where_a_brain_lies_in_mni_space(tmp_path):
    words = ["phantom", "-o", str(tmp_path / "source"), "--subjects", "2", "--voxel-size", "3",
             "--hemi", "L", "R", "--n-procs", "1", "--quiet"]  # fmt: skip
    assert main(words) == 0
    words = ["preprocess", str(tmp_path / "source"), "-o", str(tmp_path / "cohort"), "--space",
             "mni", "--voxel-size", "4", "--n-procs", "1", "--quiet"]  # fmt: skip
    assert main(words) == 0
    cohort = Cohort.open(tmp_path / "cohort")
    for row, volume in zip(cohort.rows, cohort.volumes, strict=True):
        voxels = np.argwhere(np.asarray(volume) == 2)
        mm = voxels @ cohort.affine_of(row)[:3, :3].T + cohort.affine_of(row)[:3, 3]
        low, high = mm.min(axis=0), mm.max(axis=0)
        if row["hemi"] == "R":
            low[0], high[0] = -high[0], -low[0]
        assert np.abs([low, high] - MNI_PLANES).max() < 14, row


def test_the_tree_says_phantom_and_is_the_same_each_time(tmp_path):
    arguments = ["--subjects", "2", "--voxel-size", "3", "--quiet", "--n-procs", "1"]
    for name in ("a", "b"):
        assert main(["phantom", "-o", str(tmp_path / name), *arguments]) == 0
    files = [p.relative_to(tmp_path / "a") for p in (tmp_path / "a").rglob("*") if p.is_file()]
    assert len(files) == 2 * 4 + 3
    for file in files:
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()
    assert "PHANTOM" in (tmp_path / "a/README").read_text()
    assert all(row["phantom"] == "true" for row in read_tsv(tmp_path / "a/participants.tsv"))


@pytest.mark.parametrize(
    "arguments",
    [["--variant", "melted:central"], ["--variant", "absent:nose"], ["--voxel-size", "9"]],
)
def test_a_phantom_nobody_can_draw_is_refused(tmp_path, arguments):
    assert (
        main(
            ["phantom", "-o", str(tmp_path / "x"), "--subjects", "1", "--n-procs", "1", *arguments]
        )
        == 2
    )


def test_an_unknown_label_cannot_vary():
    with pytest.raises(InputError, match="no primary sulcus"):
        Variant("absent", 77)
