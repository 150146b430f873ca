"""Shaded pictures of surfaces on shapes whose picture is known."""

import io

import numpy as np
import pytest
from PIL import Image

from foldnorm.pipeline.latent.rendering import animation, shaded_surface


def ball(side=32, radius=10.0, middle=(16, 16, 16)):
    places = np.indices((side,) * 3).reshape(3, -1).T - middle
    return (np.linalg.norm(places, axis=1) <= radius).reshape((side,) * 3).astype(np.float32)


def inked(picture):
    return (picture < 250).any(axis=-1)


@pytest.mark.parametrize("azimuth", [0.0, 33.0, 250.0])
def test_a_ball_is_a_disc_from_everywhere(azimuth):
    picture = shaded_surface(ball(), pixels=120, azimuth=azimuth, elevation=40.0)
    pixel = np.linalg.norm([32] * 3) / 120
    assert inked(picture).sum() * pixel**2 == pytest.approx(np.pi * 10**2, rel=0.06)
    rows, columns = np.nonzero(inked(picture))
    assert abs(rows.mean() - 59.5) < 2
    assert abs(columns.mean() - 59.5) < 2


def test_superior_is_up_and_anterior_right_when_seen_from_the_right():
    for middle, side in (((16, 16, 26), "up"), ((16, 26, 16), "right")):
        picture = shaded_surface(ball(radius=4, middle=middle), azimuth=0.0, elevation=0.0)
        rows, columns = np.nonzero(inked(picture))
        assert (rows.max() < 120) if side == "up" else (columns.min() > 120)
    beside = shaded_surface(ball(radius=4, middle=(26, 16, 16)), azimuth=90.0, elevation=0.0)
    assert np.nonzero(inked(beside))[1].max() < 120  # from the front, right is on the left


def test_light_comes_from_the_upper_left_and_far_things_are_paler():
    picture = shaded_surface(ball(), pixels=120, azimuth=0.0, elevation=0.0).mean(axis=-1)
    assert picture[45, 45] > picture[75, 75]
    near = shaded_surface(ball(radius=4, middle=(27, 16, 16)), azimuth=0.0, elevation=0.0)
    far = shaded_surface(ball(radius=4, middle=(5, 16, 16)), azimuth=0.0, elevation=0.0)
    assert far[inked(far)].mean() > near[inked(near)].mean() + 20


def test_nothing_is_white_and_an_animation_goes_there_and_back():
    empty = shaded_surface(np.zeros((8, 8, 8)), pixels=40)
    assert (empty == 255).all()
    frames = [empty, shaded_surface(ball(8, 3, (4, 4, 4)), pixels=40), empty]
    opened = Image.open(io.BytesIO(animation(frames)))
    assert (opened.n_frames, opened.size, opened.info["loop"]) == (4, (40, 40), 0)
