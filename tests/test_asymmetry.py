"""A brain's two sides against each other, with healthy asymmetry as the norm."""

import numpy as np
import pytest
from conftest import write_nifti

from foldnorm.pipeline.cli import main
from foldnorm.pipeline.scoring.asymmetry import AsymmetryScores
from foldnorm.pipeline.scoring.fusion import fuse
from foldnorm.pipeline.scoring.latent_distance import conformal_p
from foldnorm.pipeline.scoring.void import VoidScores
from foldnorm.preprocessing.cohort.cohort import Brain, Cohort, row_key
from foldnorm.preprocessing.cohort.cohort_files import write_participants
from foldnorm.preprocessing.core.errors import InputError
from foldnorm.preprocessing.core.files import read_tsv
from foldnorm.preprocessing.io.schemes import SKELETON

MM = (2.0, 2.0, 2.0)
FOLDS = range(4, 24, 6)


def hemisphere(person, side, *, without=()):
    """Folds that wander by a voxel in each person, alike on both sides but for one of them."""
    rng = np.random.default_rng(person)
    places = [at + int(rng.integers(0, 2)) for at in FOLDS]
    if side == "R":
        places[3] -= int(np.random.default_rng(1000 + person).integers(0, 2))
    volume = np.ones((20, 24, 20), np.uint8)
    volume[:2], volume[2] = 0, 2
    for n, at in enumerate(places):
        if n not in without:
            volume[3:, at] = 2
    return volume


def brain(person, side, *, without=(), other_without=()):
    """A hemisphere that knows the other one."""
    other = hemisphere(person, "LR"[side == "L"], without=other_without)
    row = {"participant_id": f"sub-{person}", "hemi": side}
    return Brain(hemisphere(person, side, without=without), row, lambda: other)


@pytest.fixture(scope="module")
def healthy():
    """Thirty people; ten of them lack the second fold on both sides, which is usual here."""
    return [
        brain(n, side, without=(1,) * (n % 3 == 0), other_without=(1,) * (n % 3 == 0))
        for n in range(30)
        for side in "LR"
    ]


def test_a_fold_that_one_side_lacks_stands_out_where_many_people_lack_it_on_both(healthy):
    own = AsymmetryScores(SKELETON, MM).fit(healthy)
    void = VoidScores(SKELETON, MM).fit(healthy)
    both = [brain(n, "L", without=(1,), other_without=(1,)) for n in range(40, 50)]
    one = [brain(n, "L", without=(1,)) for n in range(40, 50)]
    none = [brain(n, "L") for n in range(40, 50)]
    alike, different, intact = (own.score(brains) for brains in (both, one, none))
    assert list(alike) == ["asymmetric_void_component", "asymmetric_void_top",
                           "asymmetry_component", "asymmetry_top"]  # fmt: skip
    for name in alike:
        usual = np.concatenate([alike[name], intact[name]])
        assert different[name].min() > usual.max(), name
    assert void.score(one)["void_top"] == pytest.approx(void.score(both)["void_top"])
    ((_, z),) = own.maps(one[:1])
    assert 8 <= np.unravel_index(z.argmax(), z.shape)[1] <= 13
    other = own.score([brain(40, "R", other_without=(1,))])  # the side that has it
    assert other["asymmetry_component"] < different["asymmetry_component"].min()


def test_a_hemisphere_alone_has_no_score_and_no_p_value(healthy):
    own = AsymmetryScores(SKELETON, MM).fit([*healthy, Brain(hemisphere(99, "L"), {})])
    assert len(own.healthy) == len(healthy)
    alone = Brain(hemisphere(41, "L", without=(1,)), {"participant_id": "sub-41", "hemi": "L"})
    scores = own.score([alone, brain(41, "L", without=(1,))])
    for name, (first, second) in scores.items():
        assert np.isnan(first), name
        assert second > 0, name
        p = conformal_p(scores[name], np.array([0.0, np.nan, second + 1]))
        assert np.isnan(p[0])
        assert p[1] == 2 / 3  # of two brains, and itself
    assert np.isnan(conformal_p(np.array([1.0]), np.array([np.nan]))).all()


def test_controls_move_the_mean_only_if_both_of_their_sides_are_there(healthy):
    alone = [Brain(hemisphere(n, "L"), {"participant_id": f"sub-{n}"}) for n in range(60, 63)]
    local = [brain(n, "L") for n in range(70, 73)]
    few = AsymmetryScores(SKELETON, MM).fit([*healthy, *alone], len(alone))
    some = AsymmetryScores(SKELETON, MM).fit([*healthy, *alone, *local], len(alone + local))
    assert few._regressors is None
    assert some._regressors[:, 0].sum() == len(local)


def test_too_few_brains_with_both_sides_are_refused(healthy):
    alone = [Brain(hemisphere(n, "L"), {"participant_id": f"sub-{n}"}) for n in range(30)]
    with pytest.raises(InputError, match=r"at least 8 healthy hemispheres .* got 4"):
        AsymmetryScores(SKELETON, MM).fit([*alone, *healthy[:4]])


def cohort_of(folder, *words, people=3, lacking=None):
    """People with two hemispheres, the last with one; a left one may lack a fold."""
    for person in range(people):
        for side in "LR"[: 2 - (person == people - 1)]:
            without = (1,) if (person, side) == (lacking, "L") else ()
            raw = np.array([11, 0, 60], np.int16)[hemisphere(person, side, without=without)]
            affine = np.diag([*MM, 1])
            affine[0, 3] = -48 if side == "L" else 10
            data = raw if side == "L" else raw[::-1].copy()
            write_nifti(folder / "source" / f"sub-{person}_hemi-{side}.nii.gz", data, affine)
    out = folder / "cohort"
    command = ["preprocess", folder / "source", "-o", out, "--voxel-size", 2, "--n-procs", 1,
               "--quiet"]  # fmt: skip
    assert main([*map(str, command), *words]) == 0
    return Cohort.open(out)


def test_hemispheres_of_a_cohort_in_one_layout_know_each_other(tmp_path):
    cohort = cohort_of(tmp_path / "mirrored", "--mirror-right")
    keys = cohort.keys()
    brains = list(cohort.brains(range(len(keys))))
    altered = cohort.brain(0, np.ones_like(brains[0].volume))
    assert (altered.volume == 1).all()
    for own, key in zip([*brains, altered], [*keys, keys[0]], strict=True):
        other = key.replace("hemi-L", "hemi-X").replace("hemi-R", "hemi-L").replace("-X", "-R")
        if other in keys:
            assert np.array_equal(own.other_side(), cohort.volumes[keys.index(other)])
        else:
            assert own.other_side is None
    assert sum(own.other_side is None for own in brains) == 1
    assert all(own.other_side is None for own in cohort_of(tmp_path / "not").brains(range(5)))


def test_score_gives_them_where_there_are_two_sides_and_a_saved_scorer_keeps_them(tmp_path):
    healthy = cohort_of(tmp_path / "healthy", "--mirror-right", people=10)
    patients = cohort_of(tmp_path / "patients", "--mirror-right", people=4, lacking=2)
    rows = [{**row, "participant_id": f"{row['participant_id']}x"} for row in patients.rows]
    write_participants(patients.folder, rows)
    words = ["score", "void", patients.folder, "-o", tmp_path / "out",
             "--reference", healthy.folder]  # fmt: skip
    words += ["--asymmetry", "--save-scorer", tmp_path / "scorer", "--quiet"]
    assert main([*map(str, words)]) == 0
    again = ["score", tmp_path / "scorer", patients.folder, "-o", tmp_path / "again", "--quiet"]
    assert main([*map(str, again)]) == 0
    scored = [(tmp_path / out / "scores.tsv").read_bytes() for out in ("out", "again")]
    assert scored[0] == scored[1]
    table = {row_key(row): row for row in read_tsv(tmp_path / "out/scores.tsv")}
    name = "asymmetric_void_component"
    assert float(table["sub-2x_hemi-L"][f"p_{name}"]) == pytest.approx(1 / 19)  # not 1 / 20
    assert table["sub-2x_hemi-L"][f"q_{name}"]
    alone = table["sub-3x_hemi-L"]
    assert alone[f"score_{name}"] == alone[f"p_{name}"] == alone[f"q_{name}"] == ""
    assert alone["p_void_component"]
    fused = fuse([tmp_path / "out"], [name]).table
    assert {row_key(row) for row in fused} == set(table) - {"sub-3x_hemi-L"}


def test_scores_have_them_on_request_only(tmp_path):
    healthy = cohort_of(tmp_path / "healthy", "--mirror-right", people=10)
    for words, given in (([], False), (["--asymmetry"], True)):
        out = tmp_path / f"out {given}"
        asked = ["benchmark", "void", healthy.folder, "-o", out, "--reference", healthy.folder,
                 *words]  # fmt: skip
        asked += ["--kind", "ball", "--size", 200, "--draws", 1, "--split", "validation", "test"]
        assert main([*map(str, asked), "--quiet"]) == 0
        names = {row["score"] for row in read_tsv(out / "benchmark.tsv")}
        assert "void_component" in names
        assert ("asymmetry_component" in names) == given


def test_asymmetry_is_refused_where_sides_lie_in_different_layouts(tmp_path, capsys):
    healthy = cohort_of(tmp_path / "healthy", people=10)
    words = ["score", "void", healthy.folder, "-o", tmp_path / "out", "--reference", healthy.folder]
    assert main([*map(str, words), "--asymmetry", "--quiet"]) == 2
    said = capsys.readouterr().err
    assert f"prepared without --mirror-right: {healthy.folder}" in said
    assert not (tmp_path / "out").exists()


def test_sides_in_different_layouts_are_scored_with_a_warning(tmp_path, capsys):
    apart = cohort_of(tmp_path / "apart", people=10)
    alike = cohort_of(tmp_path / "alike", "--mirror-right", people=10)
    for cohort, warned in ((apart, True), (alike, False)):
        words = ["score", "void", cohort.folder, "-o", tmp_path / "out", "--overwrite",
                 "--reference", cohort.folder]  # fmt: skip
        assert main([*map(str, words), "--quiet"]) == 0
        assert ("prepare with --mirror-right" in capsys.readouterr().err) == warned
