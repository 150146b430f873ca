"""Normative maps: moments, floor, clipping, covariates, brains that are left out."""

import numpy as np
import pytest

from foldnorm.pipeline.scoring.design import Design
from foldnorm.pipeline.scoring.map_scores import largest_mass
from foldnorm.pipeline.scoring.normative import NormativeMap
from foldnorm.preprocessing.core.errors import InputError

SHAPE = (6, 5, 4)


def maps(number, seed=0, mean=0.0):
    rng = np.random.default_rng(seed)
    return [rng.normal(mean, 1.0, SHAPE).astype(np.float32) for _ in range(number)]


def test_plain_moments_are_those_of_all_maps_at_once():
    healthy = maps(30)
    normative = NormativeMap(0.5, clip=None).fit(lambda: iter(healthy))
    stacked = np.stack(healthy)
    assert normative.count_ == 30
    assert normative.mean_ == pytest.approx(stacked.mean(axis=0), abs=1e-5)
    spread = np.sqrt(stacked.var(axis=0, ddof=1) + 0.25)
    assert normative.spread_ == pytest.approx(spread, abs=1e-5)
    other = maps(1, seed=9)[0]
    assert normative.z(other) == pytest.approx((other - stacked.mean(axis=0)) / spread, abs=1e-4)


def test_a_tiny_spread_wins_the_maximum_unless_the_floor_is_the_noise():
    """Healthy brains agree at one place; the next one differs there by noise, and lacks a fold."""
    rng = np.random.default_rng(0)

    def brain(fold):
        distance = rng.normal(1.5, 0.8, (20, 20, 20)).astype(np.float32)
        distance[0] = 2.0  # all healthy brains agree
        if not fold:
            distance[0, 3, 3] += 0.4
            distance[8:12, 8:12, 8:12] += 5
        return distance

    healthy = [brain(True) for _ in range(20)]
    patient = brain(False)
    tiny = NormativeMap(0.01).fit(lambda: healthy).z(patient)
    sensible = NormativeMap(1.0).fit(lambda: healthy).z(patient)
    assert np.unravel_index(tiny.argmax(), tiny.shape) == (0, 3, 3)
    where = np.unravel_index(sensible.argmax(), sensible.shape)
    assert all(8 <= axis < 12 for axis in where)
    assert largest_mass(sensible, 2.0) > 10 * largest_mass(
        NormativeMap(1.0).fit(lambda: healthy).z(brain(True)), 2.0
    )


def test_odd_healthy_brains_do_not_hide_others():
    healthy = [*maps(40), *(m + 30 for m in maps(2, seed=1))]
    plain = NormativeMap(0.1, clip=None).fit(lambda: healthy)
    robust = NormativeMap(0.1).fit(lambda: healthy)
    assert plain.spread_.min() > 5
    assert robust.spread_.mean() < 0.75 * plain.spread_.mean()
    assert np.abs(robust.mean_).mean() < np.abs(plain.mean_).mean()


@pytest.mark.parametrize("smoothing", [0.0, 1.0])
@pytest.mark.parametrize("with_covariates", [False, True])
def test_brains_left_out_are_as_if_they_had_never_been_there(smoothing, with_covariates):
    healthy = maps(12)
    age = np.random.default_rng(3).normal(size=(12, 1)) if with_covariates else None
    some = NormativeMap(0.2, smoothing, clip=None)
    some.fit(lambda: healthy, age)
    left = some.without(healthy[:2], None if age is None else age[:2])
    if age is None:
        fresh = NormativeMap(0.2, smoothing, clip=None).fit(lambda: healthy[2:])
    else:  # about the same centre, or the ridge is another
        fresh = NormativeMap(0.2, smoothing, clip=None, ridge=0.0).fit(lambda: healthy[2:], age[2:])
        some = NormativeMap(0.2, smoothing, clip=None, ridge=0.0).fit(lambda: healthy, age)
        left = some.without(healthy[:2], age[:2])
    other = maps(1, seed=5)[0]
    row = None if age is None else np.array([0.7])
    assert left.count_ == fresh.count_ == 10
    assert left.z(other, row) == pytest.approx(fresh.z(other, row), abs=1e-3)
    assert some.count_ == 12


def test_an_old_brain_is_compared_with_its_age():
    rng = np.random.default_rng(0)
    age = rng.uniform(20, 80, (60, 1))
    healthy = [m * 0.1 + np.float32(a / 20) for m, a in zip(maps(60), age[:, 0], strict=True)]
    old = maps(1, seed=7)[0] * 0.1 + np.float32(80 / 20)
    without = NormativeMap(0.05).fit(lambda: healthy).z(old)
    with_age = NormativeMap(0.05).fit(lambda: healthy, age).z(old, np.array([80.0]))
    assert without.mean() > 1.2
    assert abs(with_age.mean()) < 0.2
    unknown = NormativeMap(0.05).fit(lambda: healthy, age).z(old, np.array([np.nan]))
    assert unknown.mean() > 3  # against brains of the mean age


def test_few_brains_of_a_site_move_the_mean_towards_them():
    healthy = [*maps(40), *maps(8, seed=1, mean=3.0)]
    local = np.repeat([[0.0], [1.0]], [40, 8], axis=0)
    normative = NormativeMap(0.1).fit(lambda: healthy, local)
    assert 2.0 < normative.expected(np.array([1.0])).mean() < 3.2
    assert abs(normative.expected(np.array([0.0])).mean()) < 0.3


def test_what_is_not_known_counts_nowhere():
    rng = np.random.default_rng(0)
    values = rng.normal(size=(20, 3))
    values[:10, 1] = np.nan
    normative = NormativeMap(0.0, clip=None).fit(lambda: values)
    assert normative.mean_[1] == pytest.approx(values[10:, 1].mean(), abs=1e-6)
    assert normative.spread_[1] == pytest.approx(values[10:, 1].std(ddof=1), abs=1e-6)
    assert np.isnan(normative.z(values[0])[1])


@pytest.mark.parametrize("column", ["sex", "age"])
def test_a_brain_of_which_a_covariate_is_not_known_is_compared_with_the_mean(column):
    values = {"sex": ["M"] * 30 + ["F"] * 10, "age": ["20"] * 30 + ["60"] * 10}[column]
    rows, is_local = [{column: value} for value in values], np.zeros(40, bool)
    design = Design.fit([column], rows, 0)
    healthy = [own + 10 * (n >= 30) for n, own in enumerate(maps(40))]
    normative = NormativeMap(0.1, clip=None).fit(lambda: healthy, design.encode(rows, is_local))
    (unknown,) = design.encode([{column: ""}], is_local[:1])
    assert normative.expected(unknown) == pytest.approx(np.mean(healthy, axis=0), abs=1e-3)
    (known,) = design.encode([{column: values[-1]}], is_local[:1])
    assert normative.expected(known).mean() > 8


@pytest.mark.parametrize("count", [4, 6])
def test_there_is_a_row_of_covariates_for_each_map(count):
    with pytest.raises(InputError, match="5 covariates"):
        NormativeMap(0.1).fit(lambda: maps(count), np.arange(5.0)[:, None])


def test_no_healthy_brain_is_refused():
    with pytest.raises(InputError, match="needs healthy brains, got none"):
        NormativeMap(1.0).fit(lambda: [])
