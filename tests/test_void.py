"""Missing folds without a network: distance to the nearest fold, sites, controls, nonsense."""

import numpy as np
import pytest
from conftest import write_nifti

from foldnorm.pipeline.cli import main
from foldnorm.pipeline.scoring.healthy import HealthyBrains
from foldnorm.pipeline.scoring.void import MAX_DISTANCE, VoidScores, distance_to_folds
from foldnorm.preprocessing.cohort.cohort import Brain, Cohort
from foldnorm.preprocessing.cohort.cohort_files import write_participants
from foldnorm.preprocessing.core.files import read_json, read_tsv
from foldnorm.preprocessing.io.schemes import SKELETON

MM = (2.0, 2.0, 2.0)


def brain(number, fold=True, participant=None):
    """Inside, with a hull at one end and parallel folds 6 mm apart that wander by a voxel."""
    rng = np.random.default_rng(number)
    volume = np.ones((20, 24, 20), np.uint8)
    volume[:2], volume[2] = 0, 2
    for n, at in enumerate(range(4, 24, 6)):
        if n != 1 or fold:
            volume[3:, at + rng.integers(0, 2), :] = 2
    return Brain(volume, {"participant_id": participant or f"sub-{number}"})


def test_distances_are_in_mm_and_outside_is_none():
    volume = np.ones((12, 4, 4), np.uint8)
    volume[0], volume[1] = 0, 2
    distance = distance_to_folds(volume, SKELETON, MM)
    assert distance[:4, 0, 0].tolist() == [0, 0, 2, 4]
    assert distance.max() == MAX_DISTANCE
    assert (distance_to_folds(np.ones((4, 4, 4), np.uint8), SKELETON, MM) == MAX_DISTANCE).all()


def test_behind_a_cut_the_border_takes_the_place_of_the_hull():
    volume = np.ones((12, 4, 4), np.uint8)
    volume[:2] = 0
    assert distance_to_folds(volume, SKELETON, MM)[:4, 0, 0].tolist() == [0, 0, 2, 4]


def written(folder, participant, brain, *, side):
    """A hemisphere as a raw skeleton in the world; the right one mirrors the left."""
    raw = np.array([11, 0, 60], np.int16)[brain.volume]
    affine = np.diag([*MM, 1])
    affine[0, 3] = -2.0 * (len(raw) + 4) if side == "L" else 10.0
    write_nifti(
        folder / f"sub-{participant}_hemi-{side}.nii.gz",
        raw if side == "L" else raw[::-1].copy(),
        affine,
    )


def test_regions_of_a_right_hemisphere_lie_on_the_right(tmp_path):
    for n in range(12):
        written(tmp_path / "source", f"h{n}", brain(n), side="L")
    for side in "LR":
        written(tmp_path / "patient", "p", brain(40, fold=False), side=side)
    layout = ["--mirror-right", "--voxel-size", "2", "--n-procs", "1", "--quiet"]
    healthy, patient, out = (tmp_path / name for name in ("healthy", "cohort", "out"))
    assert main([*map(str, ("preprocess", tmp_path / "source", "-o", healthy)), *layout]) == 0
    words = ["preprocess", tmp_path / "patient", "-o", patient, "--layout-from", healthy, "--quiet"]
    assert main(list(map(str, words))) == 0
    words = ["score", "void", patient, "-o", out, "--reference", healthy, "--maps", "--quiet"]
    assert main(list(map(str, words))) == 0
    sentence = read_json(out / "scores.json")["sentence"]
    assert sentence.startswith(
        "Scores were fitted on 12 healthy brains and turned into conformal p"
    )
    assert "with 12 of them, each compared with those of other families;" in sentence
    assert "Fewer than 20 of them are of the training split: it is not known which" in sentence
    left, right = (
        next(row for row in read_tsv(out / "regions.tsv") if row["hemi"] == side) for side in "LR"
    )
    assert float(left["x"]) < -10 < 10 < float(right["x"])
    assert float(left["x"]) == pytest.approx(-float(right["x"]), abs=1)
    assert (left["y"], left["z"], left["mm3"]) == (right["y"], right["z"], right["mm3"])
    assert 16 <= float(left["y"]) <= 26  # the fold was at voxel 10 or 11


def test_a_missing_fold_stands_out_and_is_pointed_at():
    void = VoidScores(SKELETON, MM).fit([brain(n) for n in range(20)])
    healthy = void.score(brain(n) for n in range(40, 50))
    altered = void.score(brain(n, fold=False) for n in range(40, 50))
    assert list(healthy) == ["void_component", "void_top"]
    for name in healthy:
        assert altered[name].min() > healthy[name].max(), name
    ((z,),) = void.maps([brain(40, fold=False)])
    assert 8 <= np.unravel_index(z.argmax(), z.shape)[1] <= 13


def test_a_healthy_brain_is_compared_with_the_others():
    """Twenty brains, one of which lacks a fold: it is not among those it is held against."""
    brains = [*(brain(n) for n in range(19)), brain(19, fold=False)]
    void = VoidScores(SKELETON, MM).fit(brains)
    own = void.score([brains[-1]])["void_component"]
    stranger = Brain(brains[-1].volume, {"participant_id": "sub-other"})
    assert own > void.score([stranger])["void_component"]
    fresh = VoidScores(SKELETON, MM).fit(brains[:-1]).score([stranger])["void_component"]
    # The clipping of the second pass has seen it; nothing else has.
    assert own == pytest.approx(fresh, rel=0.05)


def with_sites(cohort, folder, site_of):
    """The cohort's packed files under other participants' rows."""
    folder.mkdir()
    for path in cohort.folder.iterdir():
        if path.is_file():
            (folder / path.name).write_bytes(path.read_bytes())
    write_participants(folder, [{**row, "site": site_of(n)} for n, row in enumerate(cohort.rows)])
    return Cohort.open(folder)


def test_a_brain_of_another_site_has_no_p_unless_it_is_asked_for(small_cohort, tmp_path, capsys):
    healthy = with_sites(small_cohort, tmp_path / "healthy", lambda n: "Here")
    patients = with_sites(small_cohort, tmp_path / "patients", lambda n: "There" if n else "Here")
    rows = [{**row, "participant_id": f"{row['participant_id']}x"} for row in patients.rows]
    write_participants(patients.folder, rows)
    words = ["score", "void", patients.folder, "-o", tmp_path / "out",
             "--reference", healthy.folder]  # fmt: skip
    assert main([*map(str, words), "--maps"]) == 1
    said = capsys.readouterr().err
    assert "is of site There, the calibration brains of Here: give --controls of its site" in said
    found = read_tsv(tmp_path / "out/scores.tsv")
    assert found[0]["p_void_component"]
    assert not any(row["p_void_component"] for row in found[1:])
    assert all(row["score_void_component"] for row in found)
    assert read_json(tmp_path / "out/scores.json")["calibrated_on"] == len(healthy.rows)
    assert (tmp_path / "out/regions.tsv").is_file()
    assert main([*map(str, words), "--overwrite", "--across-sites", "--quiet"]) == 0
    assert all(row["p_void_component"] for row in read_tsv(tmp_path / "out/scores.tsv"))
    # Regions of the earlier scores would be shown beside p-values that are not theirs.
    assert not any((tmp_path / "out" / name).exists() for name in ("regions.tsv", "pages.json"))


def test_controls_of_a_site_move_the_mean_and_calibrate(small_cohort, tmp_path, capsys):
    healthy = with_sites(small_cohort, tmp_path / "healthy", lambda n: "Here")
    controls = with_sites(small_cohort, tmp_path / "controls", lambda n: "There")
    rows = [{**row, "participant_id": f"{row['participant_id']}c"} for row in controls.rows]
    write_participants(controls.folder, rows)
    words = ["score", "void", controls.folder, "-o", tmp_path / "out",
             "--reference", healthy.folder, "--controls", controls.folder, "--quiet"]  # fmt: skip
    assert main(list(map(str, words))) == 0
    found = read_tsv(tmp_path / "out/scores.tsv")
    assert {row["used_for"] for row in found} == {"calibration"}
    said = "no p-value of 24 of 24 brains, which took part in training or calibration (such as sub-"
    assert said in capsys.readouterr().err
    assert not any(row["p_void_component"] for row in found)
    assert read_json(tmp_path / "out/scores.json")["calibrated_on_local_controls"]


def test_controls_that_are_among_the_healthy_brains_are_counted_once(small_cohort, tmp_path):
    few = with_sites(small_cohort, tmp_path / "few", lambda n: "Here")
    few.rows[12:] = [
        {**row, "participant_id": f"{row['participant_id']}c"} for row in few.rows[12:]
    ]
    brains = HealthyBrains.from_cohorts(small_cohort, few, has_model=False, names_sulci=False)
    assert len(brains.local) == 24
    assert [row["participant_id"] for row in brains.all_known.rows] == [
        row["participant_id"] for row in small_cohort.rows[12:]
    ]


def test_brains_are_compared_with_a_split_of_the_healthy_ones_if_asked(
    small_cohort, tmp_path, capsys
):
    folder = small_cohort.folder
    words = ["score", "void", folder, "--reference", folder, "--split", "test", "-o"]
    words = [*map(str, words), str(tmp_path / "out")]
    assert main(words) == 0
    assert {row["used_for"] for row in read_tsv(tmp_path / "out/scores.tsv")} == {"calibration"}
    assert main([*words, "--overwrite", "--reference-split", "train", "validation"]) == 0
    found = read_tsv(tmp_path / "out/scores.tsv")
    assert [row["used_for"] for row in found] == [""] * len(small_cohort.indices("test"))
    assert all(row["p_void_component"] for row in found)
    about = read_json(tmp_path / "out/scores.json")
    assert about["reference_splits"] == ["train", "validation"]
    assert about["fitted_on"] == len(small_cohort.indices("train", "validation"))
    cohort = with_sites(small_cohort, tmp_path / "trained", lambda n: "Here")
    for row in cohort.rows:
        row["split"] = "train"
    write_participants(cohort.folder, cohort.rows)
    capsys.readouterr()
    words[4] = str(cohort.folder)
    assert main([*words, "--overwrite", "--reference-split", "test"]) == 2
    assert f"no brain of split test: {cohort.folder}" in capsys.readouterr().err
    words[1] = str(tmp_path / "run")
    assert main([*words, "--overwrite", "--reference-split", "train"]) == 2
    assert "--reference-split goes with the word void or sulci" in capsys.readouterr().err


def test_void_needs_healthy_brains_prepared_alike(small_cohort, phantom_cohort, tmp_path, capsys):
    words = ["score", "void", str(small_cohort.folder), "-o", str(tmp_path / "out")]
    assert main(words) == 2
    assert "give --reference COHORT" in capsys.readouterr().err
    assert main([*words, "--reference", str(phantom_cohort.folder)]) == 2
    said = capsys.readouterr().err
    assert "prepared otherwise than the healthy one" in said
    assert str(small_cohort.folder) in said
    assert not (tmp_path / "out").exists()


def test_a_brain_is_compared_with_healthy_ones_of_its_age_if_asked(small_cohort, tmp_path, capsys):
    rng = np.random.default_rng(0)
    healthy = with_sites(small_cohort, tmp_path / "healthy", lambda n: "Here")
    rows = [{**row, "age": str(rng.integers(20, 80)), "sex": "fm"[n % 2]}
            for n, row in enumerate(healthy.rows)]  # fmt: skip
    write_participants(healthy.folder, rows)
    words = ["score", "void", healthy.folder, "-o", tmp_path / "out", "--reference", healthy.folder,
             "--quiet", "--overwrite", "--covariates"]  # fmt: skip
    found = []
    for columns in ([], ["age", "sex:category"]):
        ask = words if columns else words[:-1]
        assert main([*map(str, ask), *columns]) == 0
        table = read_tsv(tmp_path / "out/scores.tsv")
        found.append([float(row["score_void_top"]) for row in table])
    assert found[0] != found[1]
    assert np.corrcoef(found)[0, 1] > 0.8  # age means nothing here
    assert main([*map(str, words), "weight"]) == 2
    assert "no column 'weight' in participants.tsv" in capsys.readouterr().err


@pytest.mark.parametrize("kept", [0, 5])
def test_scores_do_not_depend_on_how_many_maps_are_kept(monkeypatch, kept):
    healthy = [brain(n) for n in range(12)]
    patients = [brain(3), brain(50, fold=False)]
    expected = VoidScores(SKELETON, MM).fit(healthy).score(patients)
    bytes_of_one = 4 * healthy[0].volume.size
    monkeypatch.setattr("foldnorm.pipeline.scoring.map_scores.KEPT_BYTES", kept * bytes_of_one)
    scores = VoidScores(SKELETON, MM).fit(healthy)
    assert len(scores._kept) == kept
    found = scores.score(patients)
    assert all(np.array_equal(found[name], expected[name]) for name in expected)
