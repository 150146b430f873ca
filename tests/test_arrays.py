"""Rows of arrays in files: read by calls to the system, the same as of the map."""

import os
import pickle
import shutil

import numpy as np
import pytest

from foldnorm.preprocessing.cohort.cohort import Cohort
from foldnorm.preprocessing.cohort.each_volume import refuse_unreadable
from foldnorm.preprocessing.core.arrays import MappedArray, read_array, read_row
from foldnorm.preprocessing.core.errors import InputError

STORED = np.arange(5 * 3 * 4, dtype=np.uint16).reshape(5, 3, 4)


def mapped(folder, array=STORED):
    np.save(folder / "a.npy", array)
    return read_array(folder / "a.npy")


@pytest.mark.parametrize("index", [0, 4, -1, np.int64(2)])
@pytest.mark.parametrize(
    "stored", [STORED, np.asfortranarray(STORED), STORED[:, 0, 0], np.zeros((5, 0), np.uint8)]
)
def test_a_row_is_that_of_the_array(tmp_path, stored, index):
    for array in (mapped(tmp_path, stored), stored):
        assert np.array_equal(read_row(array, index), stored[index])
        assert read_row(array, index).dtype == stored.dtype


def test_parts_and_copies_of_a_map_have_rows_of_their_own(tmp_path):
    array = mapped(tmp_path)
    for own in (array[1:], array[::2], array + 1, pickle.loads(pickle.dumps(array))):
        assert np.array_equal(read_row(own, 1), np.array(own)[1])


def test_a_row_is_memory_of_its_own(tmp_path):
    array = mapped(tmp_path)
    read_row(array, 0)[:] = 7
    assert np.array_equal(array, STORED)


def test_there_is_no_row_beyond_the_last(tmp_path):
    for array in (mapped(tmp_path), STORED):
        with pytest.raises(IndexError):
            read_row(array, 5)


def test_a_file_that_is_cut_after_it_was_opened_is_one_error(tmp_path):
    """The map would end the process by a signal."""
    array = mapped(tmp_path, np.zeros((5, 4096), np.uint8))
    os.truncate(tmp_path / "a.npy", array.offset + 3 * 4096 + 7)
    assert not read_row(array, 2).any()
    with pytest.raises(InputError, match=r"the file ends within row 3: .*a\.npy"):
        read_row(array, 3)


def test_a_system_that_refuses_to_read_is_one_error(tmp_path):
    array = mapped(tmp_path)
    array.stream = (tmp_path / "a.npy").open("ab", buffering=0)  # which is not for reading
    with pytest.raises(InputError, match=r"row 0 is not readable \(Bad file descriptor\): .*a.npy"):
        read_row(array, 0)


def test_a_file_that_is_replaced_stays_the_one_that_was_opened(tmp_path):
    array = mapped(tmp_path)
    np.save(tmp_path / "other.npy", STORED + 1)
    (tmp_path / "other.npy").replace(tmp_path / "a.npy")
    assert np.array_equal(read_row(array, 1), STORED[1])


def test_volumes_of_a_cut_cohort_are_named(small_cohort, tmp_path):
    shutil.copytree(small_cohort.folder, tmp_path / "cut")
    cohort = Cohort.open(tmp_path / "cut")
    last = int(cohort.indices("train")[-1])
    assert isinstance(cohort.volumes._stored, MappedArray)
    size = (tmp_path / "cut/volumes.npy").stat().st_size
    voxels = int(np.prod(cohort.shape))
    os.truncate(tmp_path / "cut/volumes.npy", size - voxels * (len(cohort) - last) + 1)
    with pytest.raises(InputError, match=rf"^{cohort.keys()[last]}.*the file ends within row"):
        refuse_unreadable(cohort, "train")
    with pytest.raises(InputError, match=r"not readable as an array"):
        Cohort.open(tmp_path / "cut")
