from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foldnorm.preprocessing.cohort.cohort import Cohort
from foldnorm.preprocessing.cohort.split import SPLITS, assign_split
from foldnorm.preprocessing.core.errors import InputError


def test_shares_are_near_what_was_asked():
    drawn = [assign_split(str(n)) for n in range(4000)]
    for split, share in zip(SPLITS, (0.75, 0.15, 0.10), strict=True):
        assert abs(drawn.count(split) / 4000 - share) < 0.03


@given(st.text(min_size=1), st.integers(0, 5))
def test_a_participant_keeps_its_place(unit, seed):
    assert assign_split(unit, seed=seed) == assign_split(unit, seed=seed)


def test_a_larger_validation_share_moves_no_one_out_of_training():
    ids = [str(n) for n in range(500)]
    before = {i for i in ids if assign_split(i, fractions=(0.5, 0.2, 0.3)) == "train"}
    after = {i for i in ids if assign_split(i, fractions=(0.6, 0.2, 0.2)) == "train"}
    assert before < after


def test_a_split_without_volumes_is_refused_where_some_are_needed(small_cohort, bars):
    for cohort, what in ((small_cohort, "brain"), (Cohort.open(bars), "image")):
        assert (cohort.some_indices("test") == cohort.indices("test")).all()
        untested = replace(cohort, rows=[row for row in cohort.rows if row["split"] != "test"])
        with pytest.raises(InputError, match=f"no {what} of split test"):
            untested.some_indices("test")


@pytest.mark.parametrize("fractions", [(0.5, 0.5), (0.9, 0.2, 0.1), (1.2, -0.1, -0.1)])
def test_bad_shares_are_refused(fractions):
    with pytest.raises(InputError, match="three shares"):
        assign_split("a", fractions=fractions)
