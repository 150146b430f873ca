import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from foldnorm.preprocessing.cohort.discretise import discretise
from foldnorm.preprocessing.core.errors import InputError
from foldnorm.preprocessing.io.schemes import SKELETON
from foldnorm.preprocessing.io.volumes import read_labels
from foldnorm.preprocessing.spatial.downsample import METHODS, ResamplingPlan, downsample

SULCUS = 2


def components(mask):
    return ndimage.label(mask, np.ones((3, 3, 3)))[1]


def slow_push(classes, plan):
    """One voxel after the other: what the kernel must give where no axis is enlarged."""
    maps = [plan.target_index(axis, n) for axis, n in enumerate(classes.shape)]
    target = np.zeros([m[-1] - m[0] + 1 for m in maps], classes.dtype)
    for index in np.ndindex(classes.shape):
        place = tuple(m[n] - m[0] for m, n in zip(maps, index, strict=True))
        target[place] = max(target[place], classes[index])
    return target


random_volumes = st.tuples(
    st.integers(0, 10_000),
    st.tuples(*[st.integers(2, 9)] * 3),
    st.sampled_from([0.5, 0.7, 1 / 3, 0.35, 1.0, 1.1, 1.6]),
    st.sampled_from([0.02, 0.1, 0.4]),
)


def make(seed, shape, density):
    rng = np.random.default_rng(seed)
    volume = rng.integers(0, 2, shape).astype(np.uint8)
    volume[rng.random(shape) < density] = SULCUS
    return volume


@given(random_volumes)
def test_every_sulcus_voxel_lands_on_a_sulcus_voxel(case):
    seed, shape, scale, density = case
    volume, plan = make(seed, shape, density), ResamplingPlan((scale, scale, scale), (3, 0, 1))
    small, start = downsample(volume, plan)
    for index in np.argwhere(volume == SULCUS):
        place = tuple(
            int(plan.target_index(axis, shape[axis])[n]) - start[axis]
            for axis, n in enumerate(index)
        )
        assert small[place] == SULCUS


@given(random_volumes)
def test_components_of_sulci_never_grow(case):
    seed, shape, scale, density = case
    volume = make(seed, shape, density)
    small, _ = downsample(volume, ResamplingPlan((scale, 1.0, scale)))
    assert components(small == SULCUS) <= components(volume == SULCUS)


@given(random_volumes)
def test_push_equals_a_slow_loop(case):
    seed, shape, scale, density = case
    volume, plan = make(seed, shape, density), ResamplingPlan((min(scale, 1.0),) * 3, (0, 2, 5))
    small, _ = downsample(volume, plan)
    assert (small == slow_push(volume, plan)).all()


@pytest.mark.parametrize("method", METHODS)
def test_the_four_methods_on_a_line_of_sulcus(method):
    volume = np.ones((4, 1, 1), np.uint8)
    volume[2] = SULCUS
    expected = {
        "sulcus-priority": [1, 2],
        "max": [1, 2],
        "nearest": [1, 2],
        "linear": [1, 2],  # the mean of 0 and 60 is 30: a tie with 11, snapped to the nearer
    }
    small, _ = downsample(
        volume,
        ResamplingPlan((0.5, 1, 1)),
        method=method,
        canonical_values=SKELETON.canonical_values,
    )
    if method == "linear":
        # Half of 60 is 30, nearer to 11 (outside) than to 60: why this method is not kept.
        assert small.ravel().tolist() == [1, 0]
    else:
        assert small.ravel().tolist() == expected[method]


def test_max_sees_voxels_that_only_overlap():
    volume = np.ones((6, 1, 1), np.uint8)
    volume[2] = SULCUS  # covers 2…3; target voxels of 1.5 cover 0…1.5, 1.5…3, 3…4.5, 4.5…6
    pushed, _ = downsample(volume, ResamplingPlan((1 / 1.5, 1, 1)))
    widest, _ = downsample(volume, ResamplingPlan((1 / 1.5, 1, 1)), method="max")
    assert pushed.ravel().tolist() == [1, 2, 1, 1]
    assert widest.ravel().tolist() == [1, 2, 1, 1]
    volume[:] = 1
    volume[1] = SULCUS  # covers 1…2: two target voxels overlap it, its centre is in one
    pushed, _ = downsample(volume, ResamplingPlan((1 / 1.5, 1, 1)))
    widest, _ = downsample(volume, ResamplingPlan((1 / 1.5, 1, 1)), method="max")
    assert pushed.ravel().tolist() == [1, 2, 1, 1]
    assert widest.ravel().tolist() == [2, 2, 1, 1]


@given(st.integers(0, 999), st.sampled_from([0.5, 0.7, 0.43, 1.1]))
def test_affine_maps_the_same_points(seed, scale):
    rng = np.random.default_rng(seed)
    affine = np.diag([*rng.uniform(0.5, 2, 3), 1.0])
    affine[:3, 3] = rng.uniform(-100, 100, 3)
    plan = ResamplingPlan((scale, scale, scale), (4, 0, 9))
    target = plan.target_affine(affine)
    for n in range(6):
        source_mm = affine @ [4 + n, n, 9 + n, 1]
        index = [plan.target_index(axis, 10)[n] for axis in range(3)]
        target_mm = target @ [*index, 1]
        half = np.abs(np.diag(target)[:3]) / 2
        assert (np.abs(source_mm - target_mm)[:3] <= half + 1e-6).all()


def test_the_result_does_not_depend_on_the_crop():
    volume = make(5, (20, 20, 20), 0.1)
    whole, _ = downsample(volume, ResamplingPlan((0.7, 0.7, 0.7)))
    part, start = downsample(volume[5:15, 3:, :9], ResamplingPlan((0.7, 0.7, 0.7), (5, 3, 0)))
    inner = part[1:-1, 1:-1, 1:-1]  # voxels at the rim share sources with what was cut off
    there = tuple(slice(s + 1, s + 1 + n) for s, n in zip(start, inner.shape, strict=True))
    assert (whole[there] == inner).all()


def test_a_factor_makes_exact_blocks():
    volume = np.zeros((6, 6, 6), np.uint8)
    volume[5, 5, 5] = SULCUS
    small, _ = downsample(volume, ResamplingPlan.by_factor(3))
    assert small.shape == (2, 2, 2)
    assert np.argwhere(small == SULCUS).tolist() == [[1, 1, 1]]


@pytest.mark.parametrize("bad", [0, -1, float("nan")])
def test_an_impossible_voxel_size_is_refused(bad):
    with pytest.raises(InputError, match="voxel size"):
        ResamplingPlan.to_voxel_size(np.eye(4), bad)


def test_an_unknown_method_and_an_empty_volume_are_refused():
    with pytest.raises(InputError, match="cubic"):
        downsample(np.zeros((2, 2, 2), np.uint8), ResamplingPlan((0.5,) * 3), method="cubic")
    with pytest.raises(InputError, match="shape"):
        downsample(np.zeros((0, 2, 2), np.uint8), ResamplingPlan((0.5,) * 3))


@pytest.mark.parametrize("voxel_size", [1.0, 2.0])
def test_a_real_skeleton_stays_whole(real_skeleton, voxel_size):
    volume = read_labels(real_skeleton)
    classes = discretise(volume.data, SKELETON)
    plan = ResamplingPlan.to_voxel_size(volume.affine, voxel_size)
    small, start = downsample(classes, plan)
    assert start == (0, 0, 0)
    landed = tuple(
        plan.target_index(axis, classes.shape[axis])[index]
        for axis, index in enumerate(np.nonzero(classes == SULCUS))
    )
    assert (small[landed] == SULCUS).all()
    assert components(small == SULCUS) <= components(classes == SULCUS)
    pulled, _ = downsample(classes, plan, method="nearest")
    assert (pulled == SULCUS).sum() < 0.6 * (small == SULCUS).sum()
