import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.covariance import LedoitWolf
from sklearn.metrics import average_precision_score, roc_auc_score

from foldnorm.pipeline.metrics.detection import detection, paired_share, roc_curve
from foldnorm.pipeline.scoring.baselines import Baselines, distance_map
from foldnorm.pipeline.scoring.latent_distance import (
    CentreDistance,
    Mahalanobis,
    NearestHealthy,
    OneClass,
    WhitenedNearest,
    conformal_p,
    fit_latent_scores,
)
from foldnorm.pipeline.studies.benchmark import halves
from foldnorm.preprocessing.cohort.cohort import Brain
from foldnorm.preprocessing.core.errors import InputError
from foldnorm.preprocessing.io.schemes import SKELETON


def codes(count, dims, seed=0):
    return np.random.default_rng(seed).normal(size=(count, dims)).astype(np.float32)


@pytest.mark.parametrize(("n", "d"), [(60, 5), (20, 50)])
def test_mahalanobis_equals_the_explicit_inverse(n, d):
    train, test = codes(n, d) * np.arange(1, d + 1), codes(7, d, 1) * 3
    fitted = LedoitWolf().fit(train.astype(np.float64))
    expected = np.sqrt(fitted.mahalanobis(test.astype(np.float64)))
    assert np.allclose(Mahalanobis().fit(train).score(test), expected, rtol=1e-4)


def test_mahalanobis_keeps_the_orthogonal_residual():
    train = codes(30, 4)
    train[:, 3] = 0
    inside, outside = np.zeros((1, 4), np.float32), np.array([[0, 0, 0, 5]], np.float32)
    score = Mahalanobis().fit(train)
    assert score.score(outside)[0] > 3 * score.score(inside)[0] + 1


def test_distances_by_hand():
    train = np.array([[0, 0], [2, 0], [1, 3]], np.float32)
    assert CentreDistance().fit(train).score(np.array([[1, 2]], np.float32)) == pytest.approx([1])
    near = NearestHealthy(k=2).fit(train).score(np.array([[1, 0]], np.float32))
    assert near == pytest.approx([1])


@pytest.mark.parametrize(("n", "d"), [(60, 5), (20, 50)])
def test_whitened_codes_have_their_mahalanobis_distance_as_length(n, d):
    train, test = codes(n, d) * np.arange(1, d + 1), codes(7, d, 1) * 3
    space = Mahalanobis().fit(train)
    white = space.whitened(test)
    assert np.linalg.norm(white, axis=1) == pytest.approx(space.score(test), rel=1e-4)
    assert white.shape == (7, min(n, d) + 1)


def test_more_dimensions_than_brains_do_not_blind_the_one_class_svm():
    train, others = codes(60, 300), codes(20, 300, 1)
    fitted = OneClass().fit(train)
    farther = fitted.score(1.2 * others) - fitted.score(others)
    assert (farther > 1e-3 * np.abs(fitted.score(others))).all()


def test_what_lies_outside_along_a_narrow_direction_stands_out_in_whitened_codes():
    train = codes(200, 3) * [10, 10, 0.1]
    fitted = WhitenedNearest().fit(train.astype(np.float32))
    inside, outside = np.array([[5, 5, 0]], np.float32), np.array([[0, 0, 2]], np.float32)
    assert fitted.score(outside)[0] > fitted.score(inside)[0]
    assert NearestHealthy().fit(train).score(outside)[0] < 5


@given(st.lists(st.integers(0, 9), min_size=1, max_size=20), st.integers(0, 9))
def test_conformal_p_is_its_formula(calibration, score):
    p = conformal_p(np.array([float(score)]), np.array(calibration, float))
    assert p[0] == (1 + sum(c >= score for c in calibration)) / (len(calibration) + 1)


def test_conformal_p_is_valid_on_exchangeable_brains():
    rng = np.random.default_rng(0)
    p = np.concatenate([conformal_p(rng.normal(size=20), rng.normal(size=39)) for _ in range(200)])
    for level in (0.05, 0.1, 0.5):
        assert (p <= level).mean() <= level + 0.02
    assert p.min() == 1 / 40


def test_scores_need_healthy_brains():
    with pytest.raises(InputError, match="at least 3 training brains"):
        fit_latent_scores(codes(2, 4))
    with pytest.raises(InputError, match="validation brains"):
        conformal_p(np.zeros(1), np.zeros(0))


@given(st.integers(0, 500))
def test_detection_equals_scikit_learn_with_ties_and_weights(seed):
    rng = np.random.default_rng(seed)
    positive, negative = rng.integers(0, 6, 8).astype(float), rng.integers(0, 5, 9).astype(float)
    w_pos, w_neg = rng.integers(1, 4, 8).astype(float), rng.integers(1, 4, 9).astype(float)
    truth = np.r_[np.ones(8), np.zeros(9)]
    scores, weights = np.r_[positive, negative], np.r_[w_pos, w_neg]
    found = detection(positive, negative, w_pos=w_pos, w_neg=w_neg)
    assert found.auroc == pytest.approx(roc_auc_score(truth, scores, sample_weight=weights))
    assert found.ap == pytest.approx(average_precision_score(truth, scores, sample_weight=weights))


def test_fpr95_by_hand():
    found = detection(
        np.array([3.0, 2.0]), np.array([2.5, 1.0]), w_pos=np.ones(2), w_neg=np.ones(2)
    )
    assert found.fpr95 == 0.5
    fpr, tpr = roc_curve(np.array([3.0, 2.0]), np.array([2.5, 1.0]))
    assert fpr.tolist() == [0, 0, 0.5, 0.5, 1]
    assert tpr.tolist() == [0, 0.5, 0.5, 1, 1]


def test_paired_share_counts_ties_half():
    assert paired_share(np.array([2.0, 1, 0, 3]), np.array([1.0, 1, 1, 2])) == 0.625


def test_halves_are_halves_and_differ_by_draw():
    assert halves(11, 0).sum() == 5
    assert (halves(50, 0) != halves(50, 1)).any()


def volumes(count, hole=False):
    for n in range(count):
        volume = np.ones((12, 12, 12), np.uint8)
        volume[:, 4 + n % 3, :] = 2
        volume[6, :, :] = 2
        if hole:
            volume[6, :, 3:9] = 1
        yield volume


def brains(count, hole=False):
    return [Brain(volume, {}) for volume in volumes(count, hole)]


def test_every_baseline_sees_a_large_hole():
    baselines = Baselines(SKELETON).fit(brains(20))
    healthy = baselines.score(brains(6))
    altered = baselines.score(brains(6, hole=True))
    assert set(healthy) == set(Baselines.NAMES)
    for name in Baselines.NAMES:
        assert (altered[name] > healthy[name]).all(), name


def test_a_distance_map_is_truncated_and_blocked():
    sulcus = np.zeros((100, 8, 8), bool)
    sulcus[0] = True
    small = distance_map(sulcus)
    assert small.shape == (34, 3, 3)
    assert small.max() == 8
    assert small[0, 0, 0] == pytest.approx(1.0)
    assert (distance_map(np.zeros((4, 4, 4), bool)) == 8).all()
