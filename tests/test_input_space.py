"""The way back from a packed volume to the file that it was made of."""

import numpy as np
from conftest import write_nifti

from foldnorm.pipeline.cli import main
from foldnorm.preprocessing.cohort.cohort import Cohort
from foldnorm.preprocessing.cohort.input_space import InputSpace
from foldnorm.preprocessing.io.volumes import read_labels


def test_every_sulcus_voxel_of_the_input_is_found_again(phantom_cohort):
    """A coarse voxel is sulcus if any of its fine ones is: so each fine one lands in sulcus."""
    for index in range(3):
        space = InputSpace.from_row(phantom_cohort, phantom_cohort.rows[index])
        packed = np.array(phantom_cohort.volumes[index])
        original = read_labels(space.path).data
        assert space.shape == original.shape
        inside = space.labels_to_input_grid(np.ones_like(packed)) == 1
        back = space.labels_to_input_grid(packed)
        sulcus = (original == 60) & inside
        assert sulcus.sum() > 500
        assert (back[sulcus] == 2).all()


def test_without_its_input_a_brain_stays_in_the_grid_of_the_cohort(phantom_cohort):
    row = {**phantom_cohort.rows[0], "participant_id": "sub-nobody"}
    space = InputSpace.from_row(phantom_cohort, row)
    assert space.path is None
    assert np.array_equal(space.affine, phantom_cohort.affine)
    volume = np.array(phantom_cohort.volumes[0])
    assert np.array_equal(space.labels_to_input_grid(volume), volume)


def mirrored_source(folder):
    """Two hemispheres of one person in the world; each has a fold of three voxels of its own."""
    volume = np.full((20, 12, 12), 11, np.int16)
    volume[1:-1, 1:-1, 1:-1] = 0
    left, right = volume.copy(), volume.copy()
    left[4:7, 5, 6], right[11:14, 8, 3] = 60, 60
    for side, data, x in (("L", left, -44.0), ("R", right, 6.0)):
        affine = np.diag([2.0, 2, 2, 1])
        affine[:3, 3] = (x, -10, 4)
        write_nifti(folder / f"sub-a_hemi-{side}.nii.gz", data, affine)
    return {"L": (-44 + 2 * 5, 0, 16), "R": (6 + 2 * 12, 6, 10)}


def test_a_mirrored_hemisphere_lies_where_it_is_in_the_head(tmp_path):
    places = mirrored_source(tmp_path / "source")
    words = ["preprocess", tmp_path / "source", "-o", tmp_path / "cohort", "--mirror-right",
             "--quiet"]  # fmt: skip
    assert main([*map(str, words), "--voxel-size", "2", "--n-procs", "1"]) == 0
    cohort = Cohort.open(tmp_path / "cohort")
    for index, row in enumerate(cohort.rows):
        middle = np.append(np.argwhere(cohort.volumes[index] == 2).mean(axis=0), 1)
        lost = InputSpace.from_row(cohort, {**row, "participant_id": "sub-nobody"})
        for space in (InputSpace.from_row(cohort, row), lost):
            place = (space.to_world @ middle)[:3]
            assert np.abs(place - places[row["hemi"]]).max() <= 1, (row, place)  # half a voxel
        assert np.array_equal(lost.affine, lost.to_world)
