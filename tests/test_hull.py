"""The hull: by hand, and against the fold graphs of real hemispheres."""

import numpy as np

from foldnorm.preprocessing.io.fold_graph import graph_skeleton, read_fold_graph
from foldnorm.preprocessing.io.volumes import read_labels
from foldnorm.preprocessing.topology.hull import (
    graph_matches,
    hull_of,
    is_skeleton,
    transfer_labels,
)

OUTSIDE, INSIDE, SURFACE = 11, 0, 60


def ball_with_a_fold():
    """A cube of inside under a hull, with a fold that hangs from it."""
    raw = np.full((9, 9, 9), OUTSIDE, np.int16)
    raw[1:8, 1:8, 1:8] = SURFACE
    raw[2:7, 2:7, 2:7] = INSIDE
    raw[4, 2:7, 3:7] = SURFACE
    return raw


def test_hull_touches_the_outside_and_folds_do_not():
    raw = ball_with_a_fold()
    hull = hull_of(raw)
    expected = is_skeleton(raw)
    expected[4, 2:7, 3:7] = False
    assert (hull == expected).all()


def test_the_border_of_the_volume_is_outside():
    raw = ball_with_a_fold()[1:8, 1:8, 1:8]
    assert (hull_of(raw) == hull_of(ball_with_a_fold())[1:8, 1:8, 1:8]).all()


def test_a_graph_says_it_exactly_if_it_is_of_this_skeleton():
    raw = ball_with_a_fold()
    folds = np.zeros(raw.shape, bool)
    folds[4, 2:8, 3:8] = True  # the fold, and where it meets the hull
    assert graph_matches(raw, folds)
    assert (hull_of(raw, folds) == (is_skeleton(raw) & ~folds)).all()
    assert not graph_matches(raw, np.roll(folds, 1, axis=0))
    assert not graph_matches(raw, np.zeros_like(folds))


def test_labels_move_by_a_voxel_and_not_onto_the_hull():
    raw = ball_with_a_fold()
    labels = np.zeros(raw.shape, np.uint16)
    labels[4, 2:5, 3:8], labels[4, 5:8, 3:8] = 7, 9  # the fold, and where it meets the hull
    moved = transfer_labels(raw, labels)
    assert (moved == np.where(is_skeleton(raw), labels, 0)).all()
    beside = np.roll(labels, 1, axis=0)
    moved = transfer_labels(raw, beside)
    fold = (labels > 0) & is_skeleton(raw) & ~hull_of(raw)
    assert (moved[fold] == labels[fold]).all()
    assert (moved[hull_of(raw) & (beside == 0)] == 0).all()
    assert transfer_labels(raw, np.zeros_like(labels)) is None


def test_labels_of_another_brain_do_not_move_here():
    raw, labels = np.zeros((20, 20, 20), np.int16), np.zeros((20, 20, 20), np.uint16)
    raw[10, 4:16, 4:16], labels[12, 4:16, 4:16] = 60, 7
    assert transfer_labels(raw, labels) is None
    moved = transfer_labels(raw, np.roll(labels, -1, axis=0))
    assert (moved == np.where(raw == 60, 7, 0)).all()


def test_the_rule_agrees_with_real_graphs(real_data, real_skeleton):
    raw = np.asarray(read_labels(real_skeleton).data)
    graph = read_fold_graph(next(real_data.glob("morphologist/hcp/**/L100206_*.arg")))
    folds = graph_skeleton(graph, raw.shape)[::-1, ::-1, ::-1] > 0
    assert graph_matches(raw, folds)
    exact, by_rule = hull_of(raw, folds), hull_of(raw)
    assert exact.sum() == 77_733  # 44 % of the skeleton (FACTS 1.1)
    dice = 2 * (exact & by_rule).sum() / (exact.sum() + by_rule.sum())
    assert dice > 0.9
