"""Normative maps that know the rest of a brain."""

import numpy as np
import pytest

from foldnorm.pipeline.scoring.conditional import ConditionalNormativeMap
from foldnorm.pipeline.scoring.normative import NormativeMap

SHAPE = (1, 6, 7, 8)
HERE = (0, 2, 3, 4)
FLOOR = 0.5


def patterned(count, seed):
    """Maps of `count` brains: three patterns that all share, in amounts of their own, and noise."""
    patterns = np.random.default_rng(0).normal(size=(3, *SHAPE))
    rng = np.random.default_rng(seed)
    amounts = rng.normal(size=(count, 3)) * 3
    noise = rng.normal(size=(count, *SHAPE)) * 0.3
    return (np.tensordot(amounts, patterns, axes=1) + noise + 5).astype(np.float32)


def fitted(maps, *more):
    return ConditionalNormativeMap(FLOOR).fit(lambda: maps, *more)


def test_what_the_rest_of_a_brain_explains_is_not_unusual():
    healthy, (brain,) = patterned(60, 1), patterned(1, 2)
    brain[HERE] += 4
    plain = NormativeMap(FLOOR).fit(lambda: healthy).z(brain)
    z = fitted(healthy).z(brain)
    assert z.argmax() == np.ravel_multi_index(HERE, SHAPE)
    assert z[HERE] > 3 > plain[HERE]
    assert np.abs(z[HERE]) > 2 * np.sort(np.abs(z), axis=None)[-2]


def test_a_healthy_brain_left_out_is_as_unusual_as_one_that_was_never_in():
    healthy = np.random.default_rng(3).normal(size=(30, *SHAPE)).astype(np.float32)
    others = np.random.default_rng(4).normal(size=(30, *SHAPE)).astype(np.float32)
    names = [f"family {n}" for n in range(len(healthy))]
    normative = ConditionalNormativeMap(0.01).fit(lambda: healthy, None, names)
    own = [normative.without([m], None, f).z(m) for f, m in zip(names, healthy, strict=True)]
    new = [normative.z(m) for m in others]
    assert np.std(own) == pytest.approx(np.std(new), rel=0.1)
    assert np.std(own) > 0.9


def test_with_itself_among_them_a_healthy_brain_would_leave_less():
    healthy = np.random.default_rng(3).normal(size=(30, *SHAPE)).astype(np.float32)
    names = [f"family {n}" for n in range(len(healthy))]
    normative = ConditionalNormativeMap(0.01).fit(lambda: healthy, None, names)
    left_out = normative.without(healthy[:1], None, names[0]).z(healthy[0])
    assert np.std(normative.z(healthy[0])) < 0.7 * np.std(left_out)


def test_relatives_do_not_predict_each_other():
    healthy = np.random.default_rng(5).normal(size=(15, *SHAPE)).astype(np.float32)
    healthy = np.concatenate([healthy, healthy + 0.01])  # the same scans again
    names = [f"family {n % 15}" for n in range(30)]
    apart = fitted(healthy, None, names)
    as_strangers = fitted(healthy)
    own = apart.without(healthy[[0, 15]], None, names[0])
    assert np.std(own.z(healthy[0])) > 0.6
    # Each was predicted by its copy: little seemed to be left, and all else would stand out.
    assert as_strangers.prediction_.spread.mean() < 0.8 * apart.prediction_.spread.mean()


def test_left_out_equals_fitted_without():
    healthy, (brain,) = patterned(40, 6), patterned(1, 7)
    site = np.repeat([0.0, 1.0], 20)[:, None]
    names = [f"family {n // 2}" for n in range(40)]
    left = fitted(healthy, site, names).without(healthy[38:], site[38:], "family 19")
    anew = fitted(healthy[:38], site[:38], names[:38])
    here = np.array([1.0])
    np.testing.assert_allclose(left.expected(here), anew.expected(here), atol=0.05)
    # Bounds and standard deviations are those of all: close, not the same.
    assert np.corrcoef(left.z(brain, here).ravel(), anew.z(brain, here).ravel())[0, 1] > 0.98


def test_what_is_kept_scores_likewise():
    healthy, (brain,) = patterned(30, 8), patterned(1, 9)
    site = np.repeat([0.0, 1.0], 15)[:, None]
    normative = fitted(healthy, site)
    loaded = ConditionalNormativeMap(FLOOR).load_state_dict(normative.state_dict())
    here = np.array([1.0])
    assert np.array_equal(loaded.z(brain, here), normative.z(brain, here))


def test_half_of_the_components_are_kept_in_a_byte_a_place_and_no_map_of_anyone():
    healthy = patterned(30, 8)
    state = fitted(healthy, np.repeat([0.0, 1.0], 15)[:, None]).state_dict()
    arrays = [value for value in state.values() if isinstance(value, np.ndarray)]
    assert state["components"].dtype == np.int8
    assert state["components"].shape == (2 + 15, healthy[0].size)  # mean, covariate, components
    assert not any(len(array) == len(healthy) for array in arrays)


def test_rounding_components_changes_little():
    healthy, brains = patterned(60, 1), patterned(5, 2)
    normative = fitted(healthy)
    exact = normative.without([], None, "nobody")
    for brain in brains:
        np.testing.assert_allclose(normative.z(brain), exact.z(brain), atol=0.25)
        assert np.std(normative.z(brain) - exact.z(brain)) < 0.15 * np.std(exact.z(brain))


def test_places_where_healthy_brains_are_all_alike_and_what_is_not_known():
    healthy, (brain,) = patterned(20, 10), patterned(1, 11)
    healthy[:, 0, 0] = 2.0
    brain[0, 0] = 3.0
    brain[0, 1, 1, 1] = np.nan
    z = fitted(healthy).z(brain)
    np.testing.assert_allclose(z[0, 0], 1.0 / FLOOR, rtol=1e-5)
    assert np.isnan(z[0, 1, 1, 1])
    assert np.isfinite(np.delete(z.ravel(), np.ravel_multi_index((0, 1, 1, 1), SHAPE))).all()


def test_more_brains_than_are_kept(monkeypatch):
    monkeypatch.setattr("foldnorm.pipeline.scoring.conditional.MAX_HEALTHY", 10)
    healthy, (brain,) = patterned(40, 12), patterned(1, 13)
    brain[HERE] += 4
    normative = fitted(healthy)
    assert normative.count_ == 40
    assert len(normative.prediction_.basis) <= 10
    intact = brain.copy()
    intact[HERE] -= 4
    assert normative.z(brain)[HERE] > normative.z(intact)[HERE] + 1
