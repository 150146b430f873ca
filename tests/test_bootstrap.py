"""Bootstrap over participants."""

import numpy as np
import pytest

from foldnorm.pipeline.metrics.bootstrap import bootstrap_interval, drawn_weights
from foldnorm.pipeline.studies.benchmark import BenchmarkOptions, _Draw, _figures

PEOPLE = ["b", "a", "b", "c"]


def mean_of(values):
    return lambda weights: weights @ values / weights.sum()


def test_a_participant_is_drawn_with_all_that_is_theirs():
    weights = np.array(list(drawn_weights(PEOPLE, 500)))
    assert weights.shape == (500, 4)
    assert np.array_equal(weights[:, 0], weights[:, 2])
    assert set((weights[:, 0] + weights[:, 1] + weights[:, 3]).tolist()) == {3}
    assert weights.mean(axis=0) == pytest.approx(1, abs=0.15)
    assert not np.array_equal(weights, list(drawn_weights(PEOPLE, 500, seed=1)))


def test_the_same_people_are_drawn_alike_whatever_rows_they_have():
    few = [row[:3] for row in drawn_weights(["a", "b", "c"], 20)]
    many = [row[[1, 0, 3]] for row in drawn_weights(PEOPLE, 20)]
    assert np.array_equal(few, many)


def test_an_interval_is_that_of_a_loop_over_draws():
    values, owners = np.array([0.0, 1, 5, 2, 2, 7]), np.array([3, 1, 1, 2, 0, 3])
    rng, means = np.random.default_rng(4), []
    for times in rng.multinomial(4, np.full(4, 0.25), 200):
        drawn = [v for v, owner in zip(values, owners, strict=True) for _ in range(times[owner])]
        means.append(np.mean(drawn))
    expected = np.percentile(means, [2.5, 97.5])
    assert bootstrap_interval(mean_of(values), owners, 200, seed=4) == pytest.approx(expected)


def test_draws_without_a_figure_are_left_out():
    values = np.array([1.0, 2, 3])

    def figure(weights):
        return (np.nan, 0.0) if weights[0] == 0 else (1.0, weights[0])

    interval = bootstrap_interval(figure, ["a", "b", "c"], 100)
    assert interval.shape == (2, 2)
    assert interval[:, 0].tolist() == [1, 1]
    assert np.isfinite(bootstrap_interval(mean_of(values), ["a", "b", "c"], 100)).all()


def test_two_hemispheres_of_a_brain_count_once_in_the_benchmark():
    rng = np.random.default_rng(0)
    one_side = rng.normal(size=24)
    both, people = np.repeat(one_side, 2), [f"p{n // 2:02d}" for n in range(48)]
    options = BenchmarkOptions(sizes=())
    draw = _Draw(np.arange(24), {"s": both[:24] + 1}, [])
    by_brain = _figures(both, "s", [draw], list(map(str, range(48))), options)
    by_participant = _figures(both, "s", [draw], people, options)
    assert by_brain["auroc"] == by_participant["auroc"]
    widths = [f["auroc_high"] - f["auroc_low"] for f in (by_brain, by_participant)]
    assert widths[1] > 1.2 * widths[0]
