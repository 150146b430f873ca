"""Latent analyses on codes whose answer is known."""

import numpy as np
import pytest

from foldnorm.pipeline.cli import main
from foldnorm.pipeline.latent import probes
from foldnorm.pipeline.latent.clusters import find_clusters
from foldnorm.pipeline.latent.probes import probe
from foldnorm.pipeline.latent.space import principal_axes
from foldnorm.preprocessing.errors import InputError
from foldnorm.preprocessing.files import read_tsv, write_tsv


def cloud(number=60, dimensions=200, seed=0):
    """One normal cloud in more dimensions than brains."""
    rng = np.random.default_rng(seed)
    return rng.standard_normal((number, dimensions)) * np.linspace(1, 0.1, dimensions)


def clouds(number=60, apart=6.0):
    """Three of them."""
    codes = cloud(number)
    codes[number // 3 :, 0] += apart
    codes[2 * number // 3 :, 1] += apart
    return codes


def test_principal_axes_keep_all_distances():
    codes = cloud(20)
    turned = principal_axes(codes)
    assert turned.shape == (20, 19)
    before = np.linalg.norm(codes[:, None] - codes, axis=-1)
    assert np.allclose(np.linalg.norm(turned[:, None] - turned, axis=-1), before)
    assert (np.diff(turned.var(axis=0)) <= 1e-9).all()
    assert principal_axes(np.ones((5, 3))).shape == (5, 3)


def test_one_cloud_is_one_cluster():
    found = find_clusters(cloud(), 4)
    assert found.gap_k == 1
    assert found.p_one_cloud > 0.05
    assert found.sentence.startswith("There is no sign of more than one cluster")
    assert np.isnan(found.clusterings[0].silhouettes).all()


def test_three_clouds_are_three_clusters():
    found = find_clusters(clouds()[:, :20], 5)
    assert found.p_one_cloud < 0.05
    assert found.sentence.startswith("The brains fall into 3 clusters")
    best = found.clusterings[2]
    assert best.k == 3
    assert sorted(np.bincount(best.labels)) == [20, 20, 20]
    assert best.stability > 0.95
    assert best.as_row()["silhouette"] == pytest.approx(best.silhouettes.mean())


def test_too_few_brains_for_clusters_are_refused():
    with pytest.raises(InputError, match="got k = 5 and 8 brains"):
        find_clusters(cloud(8), 5)


def rows(values, **others):
    return [
        {"participant_id": f"p{n}", "x": str(value), **{k: v[n] for k, v in others.items()}}
        for n, value in enumerate(values)
    ]


def test_what_a_code_holds_can_be_read_off_it():
    codes = cloud(100, 30)
    age = 40 + 5 * codes[:, 0]
    found = probe(codes, rows(age), "x")
    assert found.measure == "r"
    assert found.value > 0.9
    assert found.low < found.value < found.high
    assert found.p == pytest.approx(1 / 201)
    assert np.corrcoef(found.predictions, age)[0, 1] == pytest.approx(found.value)
    sex = np.where(codes[:, 1] > 0, "F", "M")
    found = probe(codes, rows(sex), "x")
    assert (found.measure, found.chance) == ("auc", 0.5)
    assert found.value > 0.85
    site = np.digitize(codes[:, 0], [-0.5, 0.5]) + 1
    found = probe(codes, rows(site), "x:category")
    assert (found.measure, found.chance) == ("balanced accuracy", pytest.approx(1 / 3))
    assert found.value > 0.6


@pytest.mark.parametrize("kind", ["quantity", "category"])
def test_what_a_code_does_not_hold_cannot(kind, monkeypatch):
    monkeypatch.setattr(probes, "PERMUTATIONS", 39)
    monkeypatch.setattr(probes, "BOOTSTRAPS", 100)
    rng, found = np.random.default_rng(1), []
    for seed in range(12):
        values = rng.standard_normal(60) if kind == "quantity" else rng.choice(["a", "b"], 60)
        found.append(probe(cloud(60, 40, seed), rows(values), "x", seed=seed))
    assert sum(f.p <= 0.05 for f in found) <= 2
    assert 0.2 < np.median([f.p for f in found]) < 0.9
    # Not below chance either, as pooled predictions of nothing are.
    assert np.mean([f.value for f in found]) == pytest.approx(found[0].chance, abs=0.08)


def test_two_hemispheres_of_a_participant_stand_on_one_side():
    """Codes that only tell who it is do not predict what participants have by chance."""
    rng = np.random.default_rng(0)
    who = rng.standard_normal((40, 60)).repeat(2, axis=0)
    codes = who + 0.01 * rng.standard_normal(who.shape)
    ages = rng.uniform(20, 80, 40).repeat(2)
    table = [
        {"participant_id": f"p{n // 2}", "hemi": "LR"[n % 2], "x": str(age)}
        for n, age in enumerate(ages)
    ]
    assert probe(codes, table, "x").p > 0.05


def test_brains_without_a_value_are_left_out():
    codes = cloud(60, 10)
    table = rows(codes[:, 0])
    for row in table[:20]:
        row["x"] = ""
    found = probe(codes, table, "x")
    assert found.brains == 40
    assert found.indices.tolist() == list(range(20, 60))


@pytest.mark.parametrize(
    ("values", "column", "message"),
    [
        (range(40), "y", "no column 'y' in participants.tsv, which has participant_id, x"),
        ([1] * 40, "x", "column 'x' is the same for all brains"),
        (["a"] * 38 + ["b"] * 2, "x", "got a \\(38\\), b \\(2\\)"),
        (range(7), "x", "expected at least 10 participants, got 7"),
        ([""] * 40, "x", "expected at least 10 participants, got 0"),
    ],
)
def test_columns_that_cannot_be_probed_are_one_line(values, column, message):
    values = list(values)
    with pytest.raises(InputError, match=message):
        probe(cloud(len(values), 10), rows(values), column)


def latent(*words):
    return main(["latent", *map(str, words), "--device", "cpu"])


def test_the_command_writes_tables_and_the_report_shows_them(
    small_run, small_cohort, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(probes, "PERMUTATIONS", 19)
    out = tmp_path / "latent"
    arguments = [small_run, small_cohort.folder, out]
    assert latent("clusters", *arguments, "--most", "3") == 0
    sentence = capsys.readouterr().out.strip()
    assert "cluster" in sentence
    assert [row["k"] for row in read_tsv(out / "clusters.tsv")] == ["1", "2", "3"]
    brains = read_tsv(out / "clusters_brains.tsv")
    assert [row["participant_id"] for row in brains] == [
        row["participant_id"] for row in small_cohort.rows
    ]
    assert latent("probe", *arguments, "--columns", "participant_id", "--quiet") == 2
    assert "at least two categories" in capsys.readouterr().err
    rows = [{**row, "group": "ab"[n % 2]} for n, row in enumerate(small_cohort.rows)]
    cohort = tmp_path / "cohort"
    cohort.mkdir()
    for path in small_cohort.folder.iterdir():
        (cohort / path.name).symlink_to(path)
    (cohort / "participants.tsv").unlink()
    write_tsv(cohort / "participants.tsv", rows, list(rows[0]))
    assert latent("probe", small_run, cohort, out, "--columns", "group", "--quiet") == 0
    (row,) = read_tsv(out / "probes.tsv")
    assert (row["measure"], row["brains"]) == ("auc", "24")
    assert len(read_tsv(out / "probes_brains.tsv")) == 24
    page = tmp_path / "report.html"
    assert main(["report", str(out), str(page), "--quiet"]) == 0
    text = page.read_text()
    assert sentence.split("(")[0] in text
    assert "k = 3, mean" in text
    assert "<td>group</td>" in text


def test_nothing_is_overwritten_unasked(small_run, small_cohort, tmp_path, capsys):
    (tmp_path / "clusters.tsv").write_text("k")
    assert latent("clusters", small_run, small_cohort.folder, tmp_path) == 2
    assert "clusters.tsv" in capsys.readouterr().err
