"""One brain of a cohort that cannot be read, through every command that reads a cohort."""

import shutil

import numpy as np
import pytest
from corpus import APPLIED_COHORT, COHORT, run
from corpus_fixtures import places_of

from foldnorm.preprocessing.cohort.cohort import Cohort
from foldnorm.preprocessing.core.files import read_json

pytestmark = pytest.mark.usefixtures("no_waiting")
SPLITS = ("train", "validation", "test")
# Exit codes where the brain is of the training, validation or test split. 0: nobody looks at it, or
# (`SHOWN`) it is only left out of what is shown; 1: it is left out, named, and the others are done;
# 2: it is one of those that all others would be fitted to or compared with, and nothing is begun.
CODES = {
    "train": (2, 2, 0),
    "embed": (1, 1, 1),
    "score": (2, 2, 1),
    "score sulci": (2, 2, 2),
    "score void": (2, 2, 2),  # all brains of the reference are healthy ones to compare with
    "score with a scorer": (1, 1, 1),
    "alter": (1, 1, 1),
    "benchmark": (0, 0, 1),  # the brains that its model is fitted to are those of another folder
    "latent": (1, 1, 1),
    "evaluate-synthetic": (1, 1, 1),
    "compare": (2, 2, 1),
    "search": (2, 2, 0),
    "export": (0, 0, 0),
    "view": (0, 0, 0),
    "report": (0, 0, 0),
    "preprocess like it": (0, 0, 0),
    "label-sulci": (1, 1, 1),
    "translate": (1, 1, 1),
}
SHOWN = ("report",)
COMMANDS = {
    **{name: ("small_cohort", words) for name, words in COHORT.items()},
    **{
        name: (cohort, words)
        for cohort in ("annotated_cohort", "paired_cohort")
        for name, words in APPLIED_COHORT[cohort].items()
    },
}
COMMANDS["compare"] = ("small_cohort", COHORT["compare"] + " --size 1 --kind ball")


def damage_one(cohort, folder, split):
    """Copy a cohort with a class that its scheme has not in one volume; returns whose it is."""
    shutil.copytree(cohort.folder, folder)
    first = int(cohort.indices(split)[0])
    stored = np.load(folder / "volumes.npy")
    stored[first, 3, 3, 3] = 99
    np.save(folder / "volumes.npy", stored)
    return cohort.keys()[first]


@pytest.mark.slow
@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("name", COMMANDS)
def test_an_unreadable_brain_is_named(request, tmp_path, name, split):
    cohort, words = COMMANDS[name]
    cohort = request.getfixturevalue(cohort)
    if not len(cohort.indices(split)):
        pytest.skip(f"no {split} split in this cohort")
    source, out = tmp_path / "in", tmp_path / "out"
    key = damage_one(cohort, source, split)
    places = {"source": source, "out": out, **places_of(request, words)}
    code, said = run(words, places, tmp_path)
    assert code == CODES[name][SPLITS.index(split)], said
    if code or name in SHOWN:
        (line,) = [line for line in said.splitlines() if key in line]
        assert "class number 99" in line
    if code == 1:
        report = read_json(out / "run_report.json")
        failed = [one["volume"] for one in report["failed"] if "no p-value" not in one["reason"]]
        assert failed == [key]
        assert report["done"] > 0
    if code == 2:
        assert not list(out.rglob("*.tsv")), "begun"


def test_every_command_on_cohorts_is_there():
    assert set(COMMANDS) == set(CODES)
    assert all(len(codes) == len(SPLITS) for codes in CODES.values())


def test_the_brain_is_named_where_it_is_read(small_cohort, tmp_path):
    folder = tmp_path / "damaged"
    key = damage_one(small_cohort, folder, "test")
    damaged = Cohort.open(folder)
    number = damaged.keys().index(key)
    for index in (number, slice(number, number + 2), np.array([0, number]), (number, 3)):
        with pytest.raises(ValueError, match=rf"class number 99.*\({key}\)"):
            _ = damaged.volumes[index]
    assert len(damaged.volumes[:number]) == number
