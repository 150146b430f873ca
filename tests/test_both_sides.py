"""Participants whose both hemispheres were scored."""

import numpy as np
import pytest

from foldnorm.pipeline.scoring.calibration import Calibration
from foldnorm.pipeline.scoring.score_cohort import ScoreResult, add_p_values
from foldnorm.preprocessing.core.files import read_tsv


def rows_of(*brains):
    return [{"participant_id": name, "hemi": hemi, "used_for": "", "flag": "", "warning": ""}
            for name, hemi in brains]  # fmt: skip


def sides_of(prefix, number):
    return [(f"{prefix}{n}", hemi) for hemi in "LR" for n in range(number)]


def result_of(rows, scores, healthy_rows, healthy):
    calibration = Calibration({"own": np.array(healthy, dtype=float)}, np.zeros((0, 1)),
                              healthy_rows, (), are_local=False)  # fmt: skip
    add_p_values(rows, {"own": np.array(scores, dtype=float)}, calibration)
    about = {"precision": None, "phantom": True, "knows_unlike_brains": True}
    return ScoreResult(rows, ("own",), calibration, about, len(healthy), None)


def test_the_more_unusual_side_speaks_and_is_compared_with_that_of_others(tmp_path):
    rows = rows_of(("a", "L"), ("a", "R"), ("b", "R"), ("b", "L"), ("alone", "L"))
    rows[3]["flag"] = "is empty"
    healthy = rows_of(*sides_of("h", 4), ("one", "L"))
    result = result_of(rows, [1, 7, 9, 2, 99], healthy, [1, 2, 3, 4, 8, 5, 1, 1, 50])
    result.save(tmp_path)
    first, second = read_tsv(tmp_path / "both_sides.tsv")
    assert (first["participant_id"], first["score_own"], first["side_own"]) == ("a", "7", "R")
    # The larger of h0 to h3 are 8, 5, 3, 4: one of four reaches 7.
    assert float(first["p_own"]) == pytest.approx(2 / 5)
    assert (second["flag"], second["side_own"], second["p_own"]) == ("L is empty", "R", "")
    assert len(result.both_sides) == 2


def test_false_alarms_stay_at_their_rate_though_there_are_two_sides():
    rng = np.random.default_rng(0)
    healthy, asked = rng.normal(size=(2, 2 * 400))
    rows, others = rows_of(*sides_of("b", 400)), rows_of(*sides_of("h", 400))
    table = result_of(rows, asked, others, healthy).both_sides
    assert np.mean([row["p_own"] < 0.05 for row in table]) == pytest.approx(0.05, abs=0.025)


def test_nothing_is_said_where_sides_are_alone(tmp_path):
    alone, both = [(f"a{n}", "L") for n in range(3)], sides_of("b", 3)
    (tmp_path / "both_sides.tsv").write_text("of earlier scores\n")
    for asked, healthy in ((alone, both), (both, alone)):
        rows, others = rows_of(*asked), rows_of(*healthy)
        result = result_of(rows, range(len(rows)), others, range(len(others)))
        result.save(tmp_path)
        assert not (tmp_path / "both_sides.tsv").exists()


def test_a_score_that_one_side_lacks_is_none_of_both():
    rows, others = rows_of(*sides_of("b", 2)), rows_of(*sides_of("h", 9))
    first, second = result_of(rows, [1, np.nan, 2, 3], others, range(18)).both_sides
    assert first["p_own"] > 0
    assert np.isnan(second["score_own"])
    assert np.isnan(second["p_own"])
    assert "side_own" not in second
