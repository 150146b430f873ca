"""Holes filled in smoothly, beside scikit-image's solution."""

import numpy as np
import pytest
import torch
from skimage.restoration import inpaint_biharmonic

from foldnorm.models.inpainting import biharmonic_fill


def with_strokes(shape):
    """Two smooth images, and holes of four pixels' width that lie otherwise in each."""
    axes = np.meshgrid(*[np.linspace(0, 3, side) for side in shape], indexing="ij")
    images = np.stack([np.sin(sum(axes)), np.cos(axes[0]) * axes[-1] / 3]).astype(np.float32)
    holes = np.zeros(images.shape, bool)
    inner = (slice(3, 9),) * (len(shape) - 2)
    holes[(0, slice(10, 14), slice(4, 20), *inner)] = True
    holes[(1, slice(5, 22), slice(20, 24), *inner)] = True
    return images, holes


def filled(images, holes, **words):
    return biharmonic_fill(torch.from_numpy(images), torch.from_numpy(holes), **words).numpy()


def test_it_is_what_scikit_image_solves():
    images, holes = with_strokes((32, 40))
    noisy = images + 0.1 * np.random.default_rng(0).standard_normal(images.shape).astype("float32")
    ours = filled(noisy, holes, iterations=200)
    for own, image, hole in zip(ours, noisy, holes, strict=True):
        assert own == pytest.approx(inpaint_biharmonic(image, hole), abs=2e-3)


@pytest.mark.parametrize("shape", [(32, 40), (24, 28, 16)])
def test_smooth_images_come_back_and_the_rest_stays(shape):
    images, holes = with_strokes(shape)
    ours = filled(np.where(holes, 7, images).astype(np.float32), holes)
    assert np.array_equal(ours[~holes], images[~holes])
    assert np.abs(ours - images).max() < 0.02


def test_a_long_image_and_a_long_volume():
    for shape in ((4, 64), (2, 4, 64)):
        images = np.linspace(0, 1, 64, dtype=np.float32) * np.ones((1, *shape), np.float32)
        holes = np.zeros(images.shape, bool)
        holes[..., 20:24] = True
        ours = filled(np.where(holes, 7, images).astype(np.float32), holes)
        assert np.abs(ours - images).max() < 0.02


def test_an_image_of_which_nothing_is_known_and_one_without_a_hole():
    images, holes = with_strokes((16, 24))
    holes[0], holes[1] = True, False
    ours = filled(images, holes)
    assert np.isfinite(ours).all()
    assert np.array_equal(ours[1], images[1])
