"""The way back from a packed volume to the file that it was made of."""

import numpy as np

from foldnorm.preprocessing.input_space import InputSpace
from foldnorm.preprocessing.volumes import read_labels


def test_every_sulcus_voxel_of_the_input_is_found_again(phantom_cohort):
    """A coarse voxel is sulcus if any of its fine ones is: so each fine one lands in sulcus."""
    for index in range(3):
        space = InputSpace.of(phantom_cohort, phantom_cohort.rows[index])
        packed = np.array(phantom_cohort.volumes[index])
        original = read_labels(space.path).data
        assert space.shape == original.shape
        inside = space.label(np.ones_like(packed)) == 1
        back = space.label(packed)
        sulcus = (original == 60) & inside
        assert sulcus.sum() > 500
        assert (back[sulcus] == 2).all()


def test_without_its_input_a_brain_stays_in_the_grid_of_the_cohort(phantom_cohort):
    row = {**phantom_cohort.rows[0], "participant_id": "sub-nobody"}
    space = InputSpace.of(phantom_cohort, row)
    assert space.path is None
    assert np.array_equal(space.affine, phantom_cohort.affine)
    volume = np.array(phantom_cohort.volumes[0])
    assert np.array_equal(space.label(volume), volume)
