"""Colours of sulci: each is told from every other one, by eyes of all kinds."""

import numpy as np
import pytest

from foldnorm.preprocessing.cohort.colours import many_colours, seen

JUST_SEEN = 2.3  # CIELAB: the least difference that is noticed (Mahy et al. 1994)


def least_apart(colours):
    """Least difference between any two, (4,), one for each kind of eye."""
    places = seen(colours)
    apart = np.linalg.norm(places[:, :, None] - places[:, None], axis=-1)
    return (apart + np.diag([np.inf] * len(colours))).min(axis=(1, 2))


@pytest.mark.parametrize(("count", "times"), [(1, 9), (20, 5), (66, 3), (132, 1.5)])
def test_colours_are_told_apart_by_eyes_of_all_kinds(count, times):
    colours = many_colours(count)
    assert colours.shape == (count + 2, 3)
    assert colours[0].tolist() == [255] * 3
    assert (least_apart(colours / 255) > times * JUST_SEEN).all()


def test_the_first_colours_are_the_same_however_many_there_are():
    assert np.array_equal(many_colours(10)[1:-1], many_colours(60)[1:11])


def test_red_and_olive_are_alike_to_eyes_without_green_cones_only():
    usual, red_blind, green_blind, blue_blind = least_apart(
        np.array([[0.8, 0.2, 0.2], [0.45, 0.45, 0.1]])
    )
    assert green_blind < 5 < red_blind < usual
    assert blue_blind > usual
