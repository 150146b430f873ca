"""Sulci that an atlas names, compared with those of healthy people: what is missing, and where."""

import json
import re
import shutil

import numpy as np
import pytest
from test_atlas import hemispheres  # noqa: F401  a fixture

from foldnorm.pipeline.artifacts import SULCUS_DEPARTURES, SULCUS_EVIDENCE
from foldnorm.pipeline.cli import main
from foldnorm.pipeline.scoring import sulcus_norms
from foldnorm.pipeline.scoring.atlas_labeller import AtlasLabeller
from foldnorm.pipeline.scoring.sulcus_measures import MEASURES
from foldnorm.pipeline.scoring.sulcus_norms import LEAST_EFFECT, SIZE_FLOOR, SulcusNorms
from foldnorm.pipeline.scoring.sulcus_scores import MIN_OF_SITE, Measured, SulcusScores
from foldnorm.preprocessing.cohort.cohort import Cohort, row_key
from foldnorm.preprocessing.core.errors import InputError
from foldnorm.preprocessing.core.files import read_json, read_tsv, write_tsv
from foldnorm.preprocessing.naming.atlas import SulcusAtlas

SULCI = ("first", "second", "third", "fourth")


def measures_of(sizes):
    """Measures of hemispheres whose sulci have these sizes, (N, n) mm²; all else is alike."""
    found = np.zeros((*np.shape(sizes), len(MEASURES)))
    found[..., 0], found[..., 1], found[..., 6] = sizes, 0.8, 1
    return found


def healthy_sizes(rng, count):
    """First and second share 1,000 mm² between them, as names of one region do; others vary."""
    share = rng.uniform(0.3, 0.7, count)
    third, fourth = rng.normal(400, 40, (2, count))
    return np.stack([1000 * share, 1000 * (1 - share), third, fourth], axis=1)


def lost_of(sizes):
    """Nothing but itself goes with a sulcus."""
    return np.stack([np.diag(own) for own in sizes])


def test_a_size_that_a_neighbour_makes_up_for_is_no_missing_sulcus():
    sizes = healthy_sizes(np.random.default_rng(0), 60)
    norms = SulcusNorms(4).fit(measures_of(sizes), lost=lost_of(sizes))
    shared = norms.departures(measures_of([[300, 700, 400, 400]]))["missing"][0]
    alone = norms.departures(measures_of([[300, 500, 400, 400]]))["missing"][0]
    gone = norms.departures(measures_of([[0, 500, 400, 400]]))["missing"][0]
    assert gone[0] > alone[0] > shared[0]
    assert gone.argmax() == 0
    assert gone[0] > 5 > 2 > shared.max()


def test_evidence_is_the_matched_filter_of_the_absence():
    rng = np.random.default_rng(1)
    sizes = healthy_sizes(rng, 40)
    lost = lost_of(sizes)
    lost[:, 2, 3] = 50.0  # what is named third holds some of the fourth
    norms = SulcusNorms(4).fit(measures_of(sizes), lost=lost)
    brain = np.array([500.0, 500, 100, 300])
    z = (np.sqrt(brain) - norms.size.mean_) / norms.size.spread_
    left = np.sqrt(np.maximum(sizes[:, None] - lost, 0)) - np.sqrt(sizes)[:, None]
    healthy = np.clip((np.sqrt(sizes) - norms.size.mean_) / norms.size.spread_, -2.5, 2.5)
    correlations = healthy.T @ healthy / 39
    shrunk = (correlations + np.diag(np.diag(correlations))) / 2
    shrunk += np.diag((SIZE_FLOOR / norms.size.spread_) ** 2)
    found = norms.departures(measures_of(brain[None]))["missing"][0]
    for n in range(4):
        d = left[:, n].mean(axis=0) / norms.size.spread_
        weights = np.linalg.inv(shrunk) @ d
        expected = weights @ z / np.sqrt(weights @ d + LEAST_EFFECT**2)
        assert found[n] == pytest.approx(expected, rel=1e-4)


def test_a_sulcus_that_no_one_would_miss_says_little():
    rng = np.random.default_rng(2)
    sizes = np.stack([rng.normal(900, 60, 40), rng.normal(3, 0.5, 40)], axis=1)
    norms = SulcusNorms(2).fit(measures_of(sizes), lost=lost_of(sizes))
    missing = norms.departures(measures_of([[900, 0], [0, 3]]))["missing"]
    assert missing[1, 0] > 5 * missing[0, 1] > 0
    assert list(norms.panel_) == [True, False]


def fitted(rows, sizes, **more):
    cohort = type(
        "Prepared", (), {"preparation": {}, "folder": "there", "scheme": None, "rows": []}
    )()
    atlas = SulcusAtlas(SULCI, {"L": np.ones((4, 2, 2, 2), np.uint8)}, np.eye(4))
    scores = SulcusScores(cohort, atlas)
    measured = [Measured(*own) for own in zip(measures_of(sizes), lost_of(sizes), strict=True)]
    return scores.fit_measured(measured, rows, **more), measured


def people(count, site="here", hemi="L"):
    return [{"participant_id": f"sub-{site}{n}", "hemi": hemi, "site": site} for n in range(count)]


def test_brains_are_compared_with_their_own_site_where_it_has_enough():
    rng = np.random.default_rng(3)
    here, there = healthy_sizes(rng, 40), healthy_sizes(rng, MIN_OF_SITE) + 300
    few = healthy_sizes(rng, MIN_OF_SITE - 1) + 300
    rows = people(40) + people(MIN_OF_SITE, "there") + people(MIN_OF_SITE - 1, "few")
    scores, measured = fitted(rows, np.concatenate([here, there, few]))
    assert scores.design_.sites == ("here", "there")
    large = {
        site: np.mean([scores.compared(own, row).z["large"].mean()
                       for own, row in zip(measured, rows, strict=True) if row["site"] == site])
        for site in ("here", "there", "few")
    }  # fmt: skip
    assert abs(large["there"]) < 0.4
    assert large["few"] > large["there"] + 0.5


def test_controls_move_the_mean_towards_them_and_calibrate():
    rng = np.random.default_rng(4)
    here, there = healthy_sizes(rng, 40), healthy_sizes(rng, 12) + 300
    rows = people(40) + people(12, "there")
    scores, measured = fitted(rows, np.concatenate([here, there]), n_local=12)
    patient = {"participant_id": "sub-p", "hemi": "L", "site": "there"}
    own = scores.compared(measured[-1], patient)
    assert abs(own.z["large"].mean()) < 1
    assert scores.calibrated_on == 12
    assert min(p.min() for p in own.p.values()) >= 1 / 13
    alone, _ = fitted(rows[:40], here)
    assert alone.compared(measured[-1], patient).z["large"].mean() > 2


def test_a_family_is_left_out_of_what_its_own_are_compared_with():
    sizes = healthy_sizes(np.random.default_rng(5), 20)
    sizes[3] = (0, 0, 400, 400)
    rows = [row | {"family": "n/a"} for row in people(20)]
    rows[3]["family"] = rows[4]["family"] = "twins"
    scores, measured = fitted(rows, sizes)
    others = [n for n in range(20) if n not in (3, 4)]
    without, _ = fitted([rows[n] for n in others], sizes[others])
    stranger = {"participant_id": "sub-x", "hemi": "L"}
    for n in (3, 4):
        for kind, z in scores.compared(measured[n], rows[n]).z.items():
            assert np.array_equal(z, without.compared(measured[n], stranger).z[kind])
    assert scores.compared(measured[3], rows[3]).scores["sulcus_missing"] > 3


def test_each_side_is_compared_with_itself():
    rng = np.random.default_rng(6)
    left, right = healthy_sizes(rng, 20), 2 * healthy_sizes(rng, 20)
    rows = people(20) + people(20, hemi="R")
    scores, measured = fitted(rows, np.concatenate([left, right]))
    own, other = (
        scores.compared(measured[0], {"participant_id": "sub-p", "hemi": hemi}).z["missing"].max()
        for hemi in "LR"
    )
    assert other > own + 3
    only, _ = fitted(rows[:20], left)
    with pytest.raises(InputError, match="is of side R, the healthy brains of L: sub-p_hemi-R"):
        only.compared(measured[0], {"participant_id": "sub-p", "hemi": "R"})
    with pytest.raises(InputError, match="at least 8 healthy R brains, got 7"):
        fitted(rows[:27], np.concatenate([left, right])[:27])


def test_what_was_fitted_is_kept(tmp_path):
    rng = np.random.default_rng(7)
    sizes = np.concatenate([healthy_sizes(rng, 20), healthy_sizes(rng, 20) + 100])
    scores, measured = fitted(people(20) + people(20, "there"), sizes)
    scores.save(tmp_path)
    again = SulcusScores(scores.cohort).load(tmp_path)
    assert again.sulci == SULCI
    assert again.families == []
    patient = {"participant_id": "sub-p", "hemi": "L", "site": "there"}
    one, other = (own.compared(measured[0], patient) for own in (scores, again))
    assert other.scores == pytest.approx(one.scores)
    for kind, p in one.p.items():
        assert np.array_equal(p, other.p[kind])
    for part in tmp_path.iterdir():
        assert b"sub-" not in part.read_bytes()


def test_what_goes_with_the_folds_of_a_name_is_what_it_holds_of_each(hemispheres):  # noqa: F811
    named = AtlasLabeller(SulcusAtlas.from_cohort(hemispheres), hemispheres).name(hemispheres[0])
    lost, sizes = named.lost(), named.measure(named.to_atlas)[:, 0]
    unnamed = named.labels[named.scheme.foreground(named.volume)] == 0
    rest = named.probabilities[1:, unnamed].sum(axis=1)
    assert np.all(lost.sum(axis=0) <= sizes * (1 + 1e-5))
    if not rest.any():
        assert lost.sum(axis=0) == pytest.approx(sizes, rel=1e-4)
    assert np.trace(lost) > 0.5 * sizes.sum()


@pytest.fixture(scope="module")
def patients(hemispheres, tmp_path_factory):  # noqa: F811
    """Cohorts of five healthy people, and of one without the largest left central sulcus."""
    folder = tmp_path_factory.mktemp("sulci")
    central = [r for r in hemispheres.fold_table if (r["hemi"], r["name"]) == ("L", "central")]
    gone = max(central, key=lambda row: float(row["size"]))["participant_id"]
    volumes, folds = (np.load(hemispheres.folder / f"{what}.npy") for what in ("volumes", "folds"))
    keys = {row_key(row): n for n, row in enumerate(hemispheres.rows)}
    left = keys[f"{gone}_hemi-L"]
    labels = [
        int(row["label"]) for row in hemispheres.fold_table
        if row_key(row) == f"{gone}_hemi-L" and row["name"].startswith("central")
    ]  # fmt: skip
    erased = np.isin(folds[left], labels)
    volumes[left][erased], folds[left][erased] = hemispheres.scheme.void, 0
    for name, is_patient in (("healthy", False), ("patient", True)):
        shutil.copytree(hemispheres.folder, folder / name)
        own = [
            n for n, r in enumerate(hemispheres.rows) if (r["participant_id"] == gone) == is_patient
        ]
        rows = [hemispheres.rows[n] for n in own]
        write_tsv(folder / name / "participants.tsv", rows, list(rows[0]))
        known = {row_key(row) for row in rows}
        table = [row for row in hemispheres.fold_table if row_key(row) in known]
        write_tsv(folder / name / "folds.tsv", table, list(table[0]))
        np.save(folder / name / "volumes.npy", volumes[own])
        np.save(folder / name / "folds.npy", folds[own])
    SulcusAtlas.from_cohort(hemispheres).save(folder / "atlas.npz")
    return folder


def score(folder, *words):
    out = ["--atlas", folder / "atlas.npz", "--reference", folder / "healthy", *words]
    return main(
        [*map(str, ["score", "sulci", folder / "patient", "-o", folder / "out", *out]), "--quiet"]
    )


def listed(page):
    """Sides of the sulci that a report lists as most missing."""
    table = page.read_text().split("Sulci that are most missing")[1].split("</table>")[0]
    return set(re.findall("<td>([LR])</td>", table))


def test_a_missing_sulcus_is_a_score_with_its_name(patients, monkeypatch, tmp_path):
    monkeypatch.setattr(sulcus_norms, "MIN_HEALTHY", 4)
    assert score(patients, "--save-scorer", tmp_path / "kept") == 0
    left, right = read_tsv(patients / "out/scores.tsv")
    assert (left["hemi"], left["missing_sulcus"]) == ("L", "central")
    kinds = (*SULCUS_DEPARTURES, *SULCUS_EVIDENCE)
    for name in (*kinds, "missing_panel"):
        assert 0 < float(left[f"p_sulcus_{name}"]) <= 1
    assert float(left["score_sulcus_missing"]) > 2 * float(right["score_sulcus_missing"])
    assert float(left["p_sulcus_missing"]) == pytest.approx(1 / 11, abs=1e-5)
    sulci = read_tsv(patients / "out/sulcus_scores.tsv")
    names = SulcusAtlas.open(patients / "atlas.npz").names
    assert [row["sulcus"] for row in sulci] == [*names, *names]
    central = next(row for row in sulci if (row["hemi"], row["sulcus"]) == ("L", "central"))
    assert float(central["p_missing"]) == pytest.approx(1 / 6, abs=1e-5)
    for row in sulci:
        joined = (float(row["z_unnamed"]) + float(row["z_void"])) / np.sqrt(2)
        assert float(row["z_missing"]) == pytest.approx(joined, abs=1e-4)
    void = {row["sulcus"]: float(row["z_void"]) for row in sulci if row["hemi"] == "L"}
    assert "central" in sorted(void, key=void.__getitem__)[-2:]  # its neighbour lies close
    assert main(["report", str(patients / "out"), "-o", str(tmp_path / "a.html")]) == 0
    assert "central" in (tmp_path / "a.html").read_text()
    assert listed(tmp_path / "a.html") == {"L", "R"}
    flagged = tmp_path / "flagged"
    shutil.copytree(patients / "out", flagged)
    rows = [row | {"flag": "turned" if row["hemi"] == "L" else ""} for row in sulci]
    write_tsv(flagged / "sulcus_scores.tsv", rows, list(rows[0]))
    assert main(["report", str(flagged), "-o", str(tmp_path / "b.html")]) == 0
    assert listed(tmp_path / "b.html") == {"R"}
    words = ["score", tmp_path / "kept", patients / "patient", "-o", tmp_path / "again"]
    assert main([*map(str, words), "--quiet"]) == 0
    again = read_tsv(tmp_path / "again/scores.tsv")
    assert [row["missing_sulcus"] for row in again] == [
        left["missing_sulcus"],
        right["missing_sulcus"],
    ]
    for row, known in zip(again, (left, right), strict=True):
        for name in ("missing", "unnamed", "void"):
            assert float(row[f"score_sulcus_{name}"]) == pytest.approx(
                float(known[f"score_sulcus_{name}"]), rel=1e-4
            )


def test_healthy_people_among_the_patients_get_no_p_value(patients, monkeypatch, tmp_path):
    monkeypatch.setattr(sulcus_norms, "MIN_HEALTHY", 4)
    words = ["score", "sulci", patients / "healthy", "-o", tmp_path / "out", "--atlas",
             patients / "atlas.npz", "--reference", patients / "healthy"]  # fmt: skip
    assert main([*map(str, words), "--quiet"]) == 0
    for table in ("scores", "sulcus_scores"):
        rows = read_tsv(tmp_path / f"out/{table}.tsv")
        assert {row["used_for"] for row in rows} == {"calibration"}
        p = "p_missing" if table == "sulcus_scores" else "p_sulcus_missing"
        assert {row[p] for row in rows} <= {"", "n/a"}


def test_bad_input_of_scores_by_sulci_is_one_line(patients, tmp_path, capsys):
    (tmp_path / "text.npz").write_text("no atlas")
    other = tmp_path / "other"
    shutil.copytree(patients / "patient", other)
    description = read_json(other / "dataset_description.json")
    description["Cohort"]["preparation"]["thin"] = True
    (other / "dataset_description.json").write_text(json.dumps(description))
    atlas, healthy = ["--atlas", patients / "atlas.npz"], ["--reference", patients / "healthy"]
    for words, said in (
        (["sulci", patients / "patient", *healthy], "sulci without an atlas"),
        (["void", patients / "patient", *healthy, *atlas], "void with an atlas"),
        (["sulci", patients / "patient", *atlas], "sulci compares brains with healthy ones"),
        (["sulci", patients / "patient", *healthy, "--atlas", tmp_path / "text.npz"], "text.npz"),
        (["sulci", patients / "patient", *healthy, "--atlas", tmp_path / "none.npz"], "none.npz"),
        (["sulci", patients / "patient", *healthy, "--atlas", patients], "Is a directory"),
        (["sulci", other, *healthy, *atlas], "prepared otherwise than the healthy one (thin)"),
        (["sulci", patients / "patient", *healthy, *atlas], "at least 8 healthy"),
    ):
        out = tmp_path / "out"
        assert main([*map(str, ["score", *words, "-o", out]), "--quiet"]) == 2
        (line,) = capsys.readouterr().err.strip().splitlines()
        assert said in line
        assert not (out / "scores.tsv").exists()


def test_a_volume_without_folds_ends_no_other(patients, monkeypatch, tmp_path):
    monkeypatch.setattr(sulcus_norms, "MIN_HEALTHY", 4)
    folder = tmp_path / "patients"
    shutil.copytree(patients, folder, ignore=shutil.ignore_patterns("out"))
    volumes = np.load(folder / "patient/volumes.npy")
    cohort = Cohort.open(folder / "patient")
    volumes[1][volumes[1] == cohort.scheme.top] = cohort.scheme.void
    np.save(folder / "patient/volumes.npy", volumes)
    assert score(folder) == 1
    rows = read_tsv(folder / "out/scores.tsv")
    assert [row["hemi"] for row in rows] == ["L"]
    report = read_json(folder / "out/run_report.json")
    assert "voxels of folds, expected a hemisphere" in json.dumps(report["failed"])
