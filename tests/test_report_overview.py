"""What a report says first: answers to a reader's questions, and benchmarks side by side."""

from foldnorm.pipeline.report.overview import MAX_COMPARED, answers, compared_scores


def cohort(**more):
    facts = {"volumes": 9, "box": "8 × 8 × 8 voxels", "voxel size": "2 × 2 × 2 mm",
             "split": "9 test"}  # fmt: skip
    own = {"kind": "cohort", "title": "Cohort: c", "phantom": True, "facts": facts,
           "deletion": None, "failed": [], "flagged": []}  # fmt: skip
    return own | more


def scores(values, with_p, regions=()):
    rows = [
        {"participant_id": f"sub-{n}", "hemi": "L", "p_void": str(p)} for n, p in enumerate(values)
    ]
    pages = [{"title": "sub-0, left hemisphere", "regions": list(regions)}]
    return {"kind": "scores", "title": "Scores: s", "phantom": False, "sorted_by": "p_void",
            "facts": {"with a p-value": with_p}, "rows": rows, "pages": pages}  # fmt: skip


def benchmark(name, aurocs, altered="a fold taken out of each brain", path=""):
    """Benchmark whose scores have one AUROC each, .5 at the control."""
    cell = {
        (score, size): {"auroc": str(value if size != "0" else 0.5), "auroc_low": "0.4",
                        "auroc_high": "0.99"}
        for score, value in aurocs.items()
        for size in ("0", "500")
    }  # fmt: skip
    return {"kind": "benchmark", "title": f"Deletion benchmark: {name}", "phantom": False,
            "path": path or name, "facts": {"altered": altered}, "sizes": ["0", "500"],
            "scores": list(aurocs), "cell": cell, "unit": "mm²"}  # fmt: skip


def answer(question, *sections):
    return dict(answers(sections)).get(question)


def test_only_questions_that_something_answers_are_asked():
    assert [question for question, _ in answers([cohort()])] == ["What is this?", "Did it work?"]
    assert answers([]) == []


def test_what_went_wrong_is_counted():
    (fine,) = answer("Did it work?", cohort())
    assert "every volume was prepared" in fine
    (said,) = answer("Did it work?", cohort(failed=[{}, {}], flagged=[{}]))
    assert "2 volumes could not be used, 1 volume should be looked at" in said


def test_unusual_brains_are_counted_and_the_first_are_named():
    (said,) = answer("Which brains are unusual?", scores([0.01, 0.05, 0.3], 3))
    assert "s: 2 of 3 brains with p ≤ 0.05 by void, first sub-0 L, sub-1 L; " in said
    (said,) = answer("Which brains are unusual?", scores([0.3], 1))
    assert "s: 0 of 1 brain with p ≤ 0.05 by void; " in said
    (said,) = answer("Which brains are unusual?", scores([0.01] * 4, 20))  # not all are listed
    assert "at least 4 of 20 brains" in said


def test_the_place_is_that_of_the_first_page():
    assert answer("Where?", scores([0.01], 1)) is None
    region = {"folds": "fewer", "sulcus": "central", "place": "1, 2, 3", "peak_z": "7.1"}
    (said,) = answer("Where?", scores([0.01], 1, [region]))
    assert said.startswith("s: sub-0, left hemisphere has fewer folds than healthy brains near cen")


def test_certainty_is_of_the_best_score_that_is_no_baseline():
    (said,) = answer("How sure is that?", benchmark("b", {"x": 0.6, "y": 0.8, "baseline_z": 0.9}))
    assert "y tells brains with a fold taken out (over 500 mm²) from healthy ones" in said
    assert "AUROC 0.80 [0.40, 0.99], the best trivial baseline with 0.90" in said
    (said,) = answer("How sure is that?", benchmark("b", {"void": 0.9, "baseline_z": 0.8}))
    assert "b: void tells" in said


def test_benchmarks_are_joined_with_the_best_score_first():
    one = benchmark("one", {"latent_centre": 0.4, "void": 0.9, "baseline_z": 0.6})
    two = benchmark("two", {"evidence": 0.7, "void": 0.8, "baseline_z": 0.6})
    rows = compared_scores([one, two, cohort()])["rows"]
    assert [(score, of) for score, of, *_ in rows] == [
        ("void", ""), ("evidence", "two"), ("baseline_z", ""), ("latent_centre", "one")
    ]  # fmt: skip
    assert "moves towards the centre" in rows[3][3]
    many = benchmark("many", {f"x{n}": 0.5 for n in range(2 * MAX_COMPARED)})
    assert len(compared_scores([one, many])["rows"]) == MAX_COMPARED


def test_benchmarks_of_other_alterations_are_not_joined():
    one = benchmark("one", {"x": 0.4})
    assert compared_scores([one]) == {}
    assert compared_scores([one, benchmark("two", {"x": 0.4}, "a ball")]) == {}
