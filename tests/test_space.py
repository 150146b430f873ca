"""Transforms and resampling: by hand, against slow loops, and against the lab's own crops."""

import nibabel
import numpy as np
import pytest
import SimpleITK
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from foldnorm.preprocessing.core.errors import InputError
from foldnorm.preprocessing.io.fold_graph import read_fold_graph
from foldnorm.preprocessing.io.volumes import read_labels
from foldnorm.preprocessing.spatial.space import (
    ACPC_TO_MNI,
    acpc_of_graph,
    mni_grid,
    read_itk,
    read_trm,
    read_xfm,
    resample_linear,
    resample_nearest,
    resample_priority,
    voxel_to_aims,
    voxel_to_mni,
    write_trm,
)

TRM = "1 2 3\n0 1 0\n-1 0 0\n0 0 1\n"


def rotation(seed, scale=1.0):
    """A rotation about the middle of a 12³ volume, scaled, as a voxel → voxel matrix."""
    rng = np.random.default_rng(seed)
    turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    matrix = np.eye(4)
    matrix[:3, :3] = scale * turn
    matrix[:3, 3] = 5.5 - matrix[:3, :3] @ np.full(3, 5.5)
    return matrix


def test_a_trm_is_a_translation_and_three_rows(tmp_path):
    (tmp_path / "t.trm").write_text(TRM)
    moved = read_trm(tmp_path / "t.trm") @ [10, 20, 30, 1]
    assert moved.tolist() == [21, -8, 33, 1]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("1 2 3\n", "four lines"),
        ("1 2 3\na b c\n0 1 0\n0 0 1\n", "four lines"),
        ("1 2 3\n1 0\n0 1 0\n0 0 1\n", "four lines"),
        ("1 2 3\n0 0 0\n0 1 0\n0 0 1\n", "two heads"),
        ("1 2 nan\n1 0 0\n0 1 0\n0 0 1\n", "two heads"),
        ("", "four lines"),
    ],
)
def test_a_bad_trm_is_one_clear_line(tmp_path, text, reason):
    (tmp_path / "t.trm").write_text(text)
    with pytest.raises(InputError, match=reason) as caught:
        read_trm(tmp_path / "t.trm")
    assert "t.trm" in str(caught.value)


def test_a_voxel_in_aims_millimetres():
    matrix = voxel_to_aims((10, 20, 30), (0.5, 1.0, 2.0))
    assert (matrix @ [9, 19, 29, 1]).tolist() == [0, 0, 0, 1]
    assert (matrix @ [0, 19, 28, 1]).tolist() == [4.5, 0, 2, 1]


@pytest.mark.parametrize(("size", "shape"), [(1.0, (193, 229, 193)), (2.0, (96, 114, 96))])
def test_the_mni_grid(size, shape):
    found, affine = mni_grid(size)
    assert found == shape
    last = affine @ [*(np.array(shape) - 1), 1]
    assert last.tolist() == [96, 96, 114, 1]
    if size == 1:
        assert (affine @ [96, 132, 78, 1]).tolist() == [0, 0, 0, 1]


def test_an_itk_affine_is_inverted_and_turned_to_ras(tmp_path):
    affine = SimpleITK.AffineTransform(3)
    affine.Translate((1.0, 2.0, 3.0))
    SimpleITK.WriteTransform(affine, str(tmp_path / "a.tfm"))
    matrix = read_itk(tmp_path / "a.tfm")
    assert (matrix @ [0, 0, 0, 1]) == pytest.approx([1, 2, -3, 1])
    SimpleITK.WriteTransform(SimpleITK.BSplineTransform(3), str(tmp_path / "b.tfm"))
    with pytest.raises(InputError, match="affine"):
        read_itk(tmp_path / "b.tfm")
    (tmp_path / "c.tfm").write_text("nothing")
    with pytest.raises(InputError, match="not readable as a transform"):
        read_itk(tmp_path / "c.tfm")


XFM = """MNI Transform File
% by hand
Transform_Type = Linear;
Linear_Transform =
 1.1 0 0 2
 0 0.9 0 -3
 0 0 1 4;
"""


def test_an_xfm_leads_from_the_native_world_to_that_of_mni(tmp_path):
    path = tmp_path / "talairach.xfm"
    path.write_text(XFM)
    assert (read_xfm(path) @ [10, 10, 10, 1]) == pytest.approx([13, 6, 14, 1])
    shifted = np.eye(4)
    shifted[:3, 3] = 5
    found = voxel_to_mni(path, (4, 4, 4), shifted, (1.0, 1.0, 1.0))
    assert (found @ [5, 5, 5, 1]) == pytest.approx([13, 6, 14, 1])


@pytest.mark.parametrize(
    "text", ["", XFM.replace("1.1 0 0 2", "1.1 0 0"), XFM + XFM, XFM.replace("0.9", "x")]
)
def test_a_bad_xfm_is_one_clear_line(tmp_path, text):
    (tmp_path / "t.xfm").write_text(text)
    with pytest.raises(InputError, match=r"one Linear_Transform.*t\.xfm"):
        read_xfm(tmp_path / "t.xfm")


def test_a_trm_that_is_written_is_read_again(tmp_path):
    matrix = rotation(3, 1.1)
    write_trm(tmp_path / "t.trm", matrix)
    assert np.allclose(read_trm(tmp_path / "t.trm"), matrix, atol=1e-7)


def slow_priority(classes, matrix, shape, fill):
    landed = {}
    for place in np.ndindex(*classes.shape):
        there = tuple(np.rint((matrix @ [*place, 1])[:3]).astype(int))
        landed[there] = max(landed.get(there, -1), int(classes[place]))
    back, target = np.linalg.inv(matrix), np.full(shape, fill)
    for there in np.ndindex(*shape):
        source = np.rint((back @ [*there, 1])[:3]).astype(int)
        if there in landed:
            target[there] = landed[there]
        elif ((source >= 0) & (source < classes.shape)).all():
            target[there] = classes[tuple(source)]
    return target


@pytest.mark.parametrize("scale", [0.6, 1.0, 1.3])
@pytest.mark.parametrize("seed", range(3))
def test_priority_equals_a_slow_loop(seed, scale):
    classes = np.random.default_rng(seed).choice(3, (12, 12, 12), p=[0.4, 0.5, 0.1])
    classes, matrix = classes.astype(np.uint8), rotation(seed, scale)
    found = resample_priority(classes, matrix, (11, 12, 13), 0)
    assert (found == slow_priority(classes, matrix, (11, 12, 13), 0)).all()


@given(st.integers(0, 9999), st.floats(0.4, 1.5))
def test_every_sulcus_voxel_lands_on_sulcus(seed, scale):
    classes = np.random.default_rng(seed).choice(3, (12, 12, 12), p=[0.4, 0.5, 0.1])
    matrix = rotation(seed, scale)
    target = resample_priority(classes.astype(np.uint8), matrix, (24, 24, 24), 0)
    places = np.argwhere(classes == 2)
    there = np.rint(places @ matrix[:3, :3].T + matrix[:3, 3]).astype(int)
    inside = ((there >= 0) & (there < 24)).all(axis=1)
    assert inside.any()
    assert (target[tuple(there[inside].T)] == 2).all()


def test_a_turned_sheet_stays_in_one_piece_where_nearest_tears_it():
    sheet = np.ones((40, 40, 40), np.uint8)
    sheet[5:35, 5:35, 20] = 2
    matrix = rotation(4, 0.45)
    matrix[:3, 3] = 15 - matrix[:3, :3] @ np.full(3, 19.5)
    kept = resample_priority(sheet, matrix, (30, 30, 30), 0) == 2
    torn = resample_nearest(sheet, matrix, (30, 30, 30), 0) == 2
    assert ndimage.label(kept, np.ones((3, 3, 3)))[1] == 1
    assert ndimage.label(torn, np.ones((3, 3, 3)))[1] > 1 or torn.sum() < 0.6 * kept.sum()


def test_graph_and_trm_agree_on_mni(real_data):
    trm = read_trm(next(real_data.glob("morphologist/hcp/**/*_TO_Talairach-MNI.trm")))
    for path in sorted(real_data.glob("morphologist/hcp/**/*.arg")):
        graph = read_fold_graph(path)
        difference = ACPC_TO_MNI @ acpc_of_graph(graph.attributes, path) - trm
        assert np.abs(difference[:3, :3]).max() < 4e-6
        assert np.abs(difference[:3, 3]).max() < 6e-4


@pytest.mark.parametrize("method", ["nearest", "linear"])
def test_the_labs_own_crop(real_data, real_skeleton, method):
    """AIMS box [112,129,33]…[137,153,78] at 1 mm, through the transform to the SPM template.

    The lab's tools count voxels of one float32 step less than this file's header says
    (0.70001215 mm, not 0.70001221): by then no voxel differs for nearest, and one of 29,900, by
    one, for linear. By the header it would be none and five. Each lies within 0.001 of the half
    at which it is rounded.
    """
    volume = read_labels(real_skeleton)
    aims_mm = read_trm(real_data / "oracles/crop_nearest/natif_to_template_spm_100206.trm")
    size = float(np.nextafter(np.float32(volume.voxel_size[0]), np.float32(0)))
    matrix = aims_mm @ voxel_to_aims(volume.data.shape, (size, size, size))
    # The box in RAS+ order: its last AIMS voxel comes first.
    to_box = np.diag([-1.0, -1.0, -1.0, 1.0])
    to_box[:3, 3] = (137, 153, 78)
    resample = {"nearest": resample_nearest, "linear": resample_linear}[method]
    found = resample(volume.data, to_box @ matrix, (26, 25, 46), 11)
    oracle = nibabel.load(real_data / f"oracles/crop_nearest/crop_{method}_100206.nii.gz")
    difference = np.rint(found) - np.asarray(oracle.dataobj).squeeze()
    assert (difference != 0).sum() <= {"nearest": 0, "linear": 1}[method]
    assert np.abs(difference).max() <= 1
    ties = found[difference != 0] % 1
    assert (np.abs(ties - 0.5) < 1e-3).all()
