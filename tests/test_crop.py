import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from foldnorm.preprocessing.cohort.discretise import foreground_box
from foldnorm.preprocessing.core.errors import InputError
from foldnorm.preprocessing.io.schemes import SKELETON
from foldnorm.preprocessing.spatial.crop import (
    Box,
    bounding_box,
    lattice_start,
    missing_sides,
    paste,
    shifted_affine,
    union_box,
)
from foldnorm.preprocessing.spatial.crop_spec import CropSpec


def test_bounding_box_is_tight():
    mask = np.zeros((5, 6, 7), bool)
    mask[1, 2, 3] = mask[3, 2, 6] = True
    assert bounding_box(mask) == Box((1, 2, 3), (4, 3, 7))
    assert bounding_box(np.zeros((2, 2, 2), bool)) is None


@given(st.integers(0, 999), st.sampled_from(["C", "F", "reversed", "turned"]))
def test_the_box_of_the_foreground_is_that_of_its_mask(seed, order):
    rng = np.random.default_rng(seed)
    data = np.full((5, 6, 7), 11, np.int16)
    data[rng.random(data.shape) < 0.02] = 60
    view = {
        "C": data,
        "F": np.asfortranarray(data),
        "reversed": data[::-1, :, ::-1],
        "turned": data.transpose(2, 0, 1),
    }[order]
    assert foreground_box(view, SKELETON) == bounding_box(view != 11)
    assert foreground_box(view, SKELETON.with_rule("nearest")) == bounding_box(view != 11)


def test_union_holds_both():
    assert union_box([Box((0, 1, 2), (3, 4, 5)), Box((-1, 2, 0), (2, 9, 4))]) == Box(
        (-1, 1, 0), (3, 9, 5)
    )


@pytest.mark.parametrize(
    ("pad", "shape"),
    [("none", (3, 4, 5)), ("cubic", (5, 5, 5)), ("multiple:4", (4, 4, 8)), ("7,7,7", (7, 7, 7))],
)
def test_padding_grows_evenly(pad, shape):
    box = Box((10, 10, 10), (13, 14, 15))
    padded = box.padded(pad)
    assert padded.shape == shape
    before = np.subtract(box.start, padded.start)
    after = np.subtract(padded.stop, box.stop)
    assert ((after - before >= 0) & (after - before <= 1)).all()


@pytest.mark.parametrize("pad", ["cube", "multiple:0", "multiple:x", "1,2", "2,2,2"])
def test_an_impossible_padding_is_refused(pad):
    with pytest.raises(InputError):
        Box((0, 0, 0), (3, 4, 5)).padded(pad)


@given(st.tuples(*[st.integers(-6, 6)] * 3), st.integers(0, 99))
def test_place_copies_each_voxel_to_its_lattice_point(offset, seed):
    data = np.random.default_rng(seed).integers(1, 9, (3, 4, 5)).astype(np.uint8)
    at = Box((0, 0, 0), (3, 4, 5))
    target = Box((0, 0, 0), (6, 5, 4)).shifted(offset)
    placed = paste(data, at, target, fill=0)
    for index in np.ndindex(placed.shape):
        source = tuple(np.add(index, target.start))
        inside = all(0 <= n < side for n, side in zip(source, data.shape, strict=True))
        assert placed[index] == (data[source] if inside else 0)


def test_what_sticks_out_is_named_by_side_and_amount():
    outer = Box((0, 0, 0), (10, 10, 10))
    assert missing_sides(Box((-2, 0, 3), (10, 14, 9)), outer) == "2 voxels left, 4 voxels anterior"
    assert missing_sides(Box((1, 1, 1), (2, 2, 2)), outer) == ""


def test_a_mirrored_grid_lies_on_the_mirrored_lattice():
    left, right = np.diag([2.0, 2, 2, 1]), np.diag([-2.0, 2, 2, 1])
    left[:3, 3], right[:3, 3] = (-60, -20, 8), (60, -20, 8)
    assert lattice_start(left) == lattice_start(right) == (-30, -10, 4)


def test_shifted_affine_keeps_the_world():
    affine = np.diag([0.7, 0.7, 0.7, 1])
    affine[:3, 3] = (-90, -108, -91)
    moved = shifted_affine(affine, (5, 6, 7))
    assert np.allclose(moved @ [0, 0, 0, 1], affine @ [5, 6, 7, 1])


@pytest.mark.parametrize(
    "text",
    ["cohort", "cohort@6", "none", "region:central@7", "box:0,4,0,4,0,4", "mm:-8,8,-8,8,-8,8"],
)
def test_crop_specs_keep_their_text(text):
    assert CropSpec.parse(text).text == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "box",
        "box:1,2,3",
        "mm:a,b,c,d,e,f",
        "region:",
        "sphere:3",
        "cohort@x",
        "cohort@-1",
        "cohort@500",
        "cohort@6@2",
    ],
)
def test_a_bad_crop_is_refused(text):
    with pytest.raises(InputError, match="--crop"):
        CropSpec.parse(text)


def test_millimetres_become_lattice_voxels():
    spec = CropSpec.parse("mm:-72,8,-70,10,-40,40")
    assert spec.fixed_box((2, 2, 2)) == Box((-36, -35, -20), (4, 5, 20))


def test_a_region_is_found_by_name_or_number():
    names = {1: "central", 2: "lateral", 3: "central"}
    assert CropSpec.parse("region:central+2").labels(names) == {1, 2, 3}
    with pytest.raises(InputError, match="no fold or region is named 'calcarine'"):
        CropSpec.parse("region:calcarine").labels(names)
