"""Results whose volumes are made one at a time."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from foldnorm.pipeline.inference.restore import RestoreOptions, restore
from foldnorm.pipeline.inference.results import VolumeResult
from foldnorm.pipeline.runs.run_folder import RunFolder
from foldnorm.preprocessing.cohort.cohort import Cohort
from foldnorm.preprocessing.cohort.each_volume import each_volume
from foldnorm.preprocessing.core.errors import InputError
from foldnorm.preprocessing.core.files import read_tsv
from foldnorm.preprocessing.core.problems import Problem


@dataclass
class Numbered:
    number: int

    @property
    def rows(self):
        return [{"number": self.number}]


@dataclass
class Counted(VolumeResult[Numbered]):
    """Five volumes; counts how many were made."""

    made: int = 0

    def _make(self):
        for number in range(5):
            self.made += 1
            yield Numbered(number)

    def _write(self, out):
        for one in self:
            (out / str(one.number)).touch()


def test_volumes_are_made_when_they_are_asked_for():
    result = Counted()
    volumes = iter(result)
    next(volumes)
    next(volumes)
    assert result.made == 2


def test_saving_makes_each_once_and_the_table_costs_nothing_more(tmp_path):
    result = Counted()
    result.save(tmp_path)
    assert [row["number"] for row in result.table] == [0, 1, 2, 3, 4]
    assert result.made == len(list(tmp_path.iterdir())) == 5


def test_a_table_is_known_without_saving():
    result = Counted()
    next(iter(result))  # a pass that is broken off says nothing of all
    assert len(result.table) == len(result.table) == 5
    assert result.made == 6


def test_images_are_restored_without_writing(bars, denoiser, tmp_path):
    run, cohort = RunFolder.open(denoiser), Cohort.open(bars)
    options = RestoreOptions(("test",), degrade=True)
    result = restore(run, run.load(), cohort, options)
    first, *others = result
    assert len(others) == len(cohort.indices("test")) - 1
    assert set(first.images) == {"degraded", "clean", "restored"}
    assert not np.array_equal(first.images["clean"], first.images["degraded"])
    assert result.metrics["psnr"] == np.mean([row["psnr"] for row in result.table])
    assert not list(tmp_path.iterdir())
    result.save(tmp_path)
    written = [float(row["psnr"]) for row in read_tsv(tmp_path / "restored.tsv")]
    assert np.allclose(written, [row["psnr"] for row in result.table], atol=1e-4)


@dataclass
class Fragile(VolumeResult[Numbered]):
    """Volumes of which some cannot be made."""

    bad: tuple[int, ...] = ()
    together: int = 1

    def _make_one(self, number):
        if number in self.bad:
            raise InputError(f"no volume: {number}.nii")
        return Numbered(number)

    def _make(self):
        rows = [{"participant_id": f"sub-{n}"} for n in range(5)]
        cohort, work = Cohort(Path("nowhere"), {}, rows), partial(map, self._make_one)
        for _, made in each_volume(cohort, range(5), work, self.failed, together=self.together):
            yield made

    def _write(self, out):
        for _ in self:
            pass


@pytest.mark.parametrize("together", [1, 2, 8])
def test_one_that_cannot_be_made_does_not_end_the_others(tmp_path, together):
    result = Fragile(bad=(0, 3), together=together)
    for _ in range(2):  # each pass anew
        result.save(tmp_path)
        assert [row["number"] for row in result.table] == [1, 2, 4]
        assert result.failed == [Problem("sub-0", "no volume: 0.nii"),
                                 Problem("sub-3", "no volume: 3.nii")]  # fmt: skip


def test_where_none_can_be_made_it_is_said_why():
    with pytest.raises(InputError, match=r"no volume: 4\.nii"):
        _ = Fragile(bad=(0, 1, 2, 3, 4)).table
