import numpy as np
import pytest
from conftest import write_nifti
from hypothesis import given
from hypothesis import strategies as st

from foldnorm.preprocessing.cohort.discretise import check_values, discretise
from foldnorm.preprocessing.cohort.preparation import Preparation
from foldnorm.preprocessing.cohort.prepare_volume import read_hemisphere
from foldnorm.preprocessing.core.errors import InputError
from foldnorm.preprocessing.io.schemes import (
    BINARY_SKELETON,
    GREY_WHITE,
    SKELETON,
    LabelScheme,
    load_scheme,
    scheme_from_dict,
)
from foldnorm.preprocessing.io.source_volume import SourceVolume

RAW = np.array([[[0, 11, 60, 30, 10, 80]]], dtype=np.int16)


def test_topological_rule_keeps_every_sulcus_value():
    assert discretise(RAW, SKELETON).tolist() == [[[1, 0, 2, 2, 2, 2]]]


def test_nearest_rule_sends_30_outside_as_the_study_did():
    classes = discretise(RAW, SKELETON.with_rule("nearest"))
    assert classes.tolist() == [[[1, 0, 2, 0, 0, 2]]]


def test_binary_skeleton_knows_sulcus_only():
    assert discretise(RAW, BINARY_SKELETON).tolist() == [[[0, 0, 1, 1, 1, 1]]]


def test_unknown_value_is_named_with_its_count(tmp_path):
    raw = np.array([[[0, 100, 200, 150, 150]]], dtype=np.int16)
    with pytest.raises(InputError, match=r"150 \(2 voxels\).*some\.nii"):
        discretise(raw, GREY_WHITE, path=tmp_path / "some.nii")


@given(st.sampled_from(["int8", "uint8", "int16", "uint16", "int32", "int64"]), st.integers(0, 999))
def test_any_integer_type_and_memory_order_gives_the_same_classes(dtype, seed):
    rng = np.random.default_rng(seed)
    raw = rng.choice([0, 11, 60, 30], size=(3, 4, 5)).astype(dtype)
    expected = np.vectorize({0: 1, 11: 0, 60: 2, 30: 2}.get)(raw)
    for view in (raw, np.asfortranarray(raw), raw.astype(dtype)[::-1][::-1]):
        assert (discretise(view, SKELETON) == expected).all()
    assert (discretise(raw[::-1, :, ::-1], SKELETON) == expected[::-1, :, ::-1]).all()


@pytest.mark.parametrize("value", [40000, -40000, 2**20])
def test_a_value_beyond_the_table_is_not_wrapped(value):
    raw = np.array([[[0, value]]], dtype=np.int32)
    with pytest.raises(InputError, match=str(value)):
        discretise(raw, GREY_WHITE)


def test_a_users_yaml_is_read_and_round_trips(tmp_path):
    path = tmp_path / "hippocampus.yaml"
    path.write_text(
        "name: hippocampus\nclasses:\n- {name: background, values: [0]}\n"
        "- {name: anterior, values: [1]}\n- {name: posterior, values: [2]}\n"
    )
    scheme = load_scheme(str(path))
    assert scheme.names == ["background", "anterior", "posterior"]
    assert scheme.fill == scheme.void == 0
    assert scheme_from_dict(scheme.as_dict()) == scheme


@pytest.mark.parametrize(
    "content",
    [
        "just text",
        {"name": "x"},
        {"name": "x", "classes": [{"name": "a", "values": [0]}]},
        {"name": "x", "classes": [{"name": "a", "values": [0]}, {"name": "b", "values": [0]}]},
        {"name": "x", "classes": [{"name": "a", "values": [0]}, {"name": "b", "values": [1.5]}]},
        {"name": "x", "classes": [{"name": "a", "values": 0}, {"name": "b", "values": [1]}]},
        {"name": "x", "classes": [{"name": "a", "values": [0]}, {"name": "a", "values": [1]}]},
        {"name": "x", "rule": "magic", "classes": SKELETON.as_dict()["classes"]},
        {"name": "x", "fill": "nowhere", "classes": SKELETON.as_dict()["classes"]},
        {"name": "x", "colour": "red", "classes": SKELETON.as_dict()["classes"]},
    ],
)
def test_a_bad_scheme_is_refused(content):
    with pytest.raises(InputError):
        scheme_from_dict(content)


def test_a_scheme_that_is_neither_file_nor_name_says_so():
    with pytest.raises(InputError, match="neither a file nor one of"):
        load_scheme("no-such-scheme")


def test_class_number_is_priority():
    assert isinstance(SKELETON, LabelScheme)
    assert SKELETON.names == ["outside", "inside", "sulcus"]
    assert SKELETON.names[SKELETON.top] == "sulcus"
    assert SKELETON.names[SKELETON.void] == "inside"
    assert SKELETON.names[SKELETON.fill] == "outside"


@pytest.mark.parametrize(
    "values", [(0, 3, 2, 42, 41), (0, 1), (0, 250, 700), (0, 22, 22, 120)],
    ids=["FreeSurfer", "mask", "intensities", "doubled"],
)  # fmt: skip
def test_what_is_no_skeleton_makes_none(tmp_path, values):
    data = np.resize(np.array(values, np.int16), (8, 8, 8))
    path = write_nifti(tmp_path / "sub-1.nii", data)
    with pytest.raises(InputError, match=r"no skeleton of Morphologist has .*foldnorm skeletonise"):
        check_values(data, discretise(data, SKELETON), SKELETON, path)
    volume = SourceVolume("1", "", path)
    with pytest.raises(InputError, match=r"no skeleton of Morphologist has"):
        read_hemisphere(volume, Preparation(SKELETON, None))


def test_a_few_unusual_values_of_a_skeleton_are_said(tmp_path):
    data = np.resize(np.array([0, 11, 60, 60, 30, 7], np.int16), (12, 12, 12))
    path = write_nifti(tmp_path / "sub-1.nii", data)
    found = read_hemisphere(SourceVolume("1", "", path), Preparation(SKELETON, None))
    assert found.warnings == ("288 of 1152 voxels of sulcus have unusual values (7)",)


def test_a_scheme_of_ones_own_takes_every_value():
    own = scheme_from_dict({**SKELETON.as_dict(), "name": "own"})
    data = np.full((2, 2, 2), 7, np.int16)
    assert check_values(data, discretise(data, own), own, "a") == [
        "8 of 8 voxels of sulcus have unusual values (7)"
    ]
    nearest = own.with_rule("nearest")
    assert not check_values(data, discretise(data, nearest), nearest, "a")
