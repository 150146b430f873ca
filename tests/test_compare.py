"""Models compared: same cohort, same budget, several seeds, one table; and what a latent uses."""

import itertools

import numpy as np
import pytest

from foldnorm.pipeline.cli import main
from foldnorm.pipeline.metrics.latent import active_share, silhouette
from foldnorm.pipeline.runs.config import config_path
from foldnorm.pipeline.runs.run_folder import RunFolder
from foldnorm.pipeline.studies import compare as comparing
from foldnorm.preprocessing.core.files import read_json, read_tsv, write_json

VAE = ["--model.init_args.channels=[8]", "--model.init_args.code_channels=2"]


def compare(cohort, out, *words):
    configs = list(itertools.takewhile(lambda word: not word.startswith("-"), words))
    return main(["compare", *configs, str(cohort.folder), "-o", str(out), *words[len(configs):],
                 "--device", "cpu", *VAE])  # fmt: skip


@pytest.mark.slow
def test_two_models_and_two_seeds_make_one_table(phantom_cohort, tmp_path, capsys):
    out = tmp_path / "c"
    words = ["autoencoder", "beta_vae", "--steps", "3", "--seeds", "2", "--size", "200"]
    assert compare(phantom_cohort, out, *words) == 0
    assert "beta_vae" in capsys.readouterr().out
    rows = {row["model"]: row for row in read_tsv(out / "comparison.tsv")}
    assert list(rows) == ["(nearest training brain)", "autoencoder", "beta_vae"]
    runs = read_tsv(out / "comparison_runs.tsv")
    assert [(run["model"], run["seed"]) for run in runs] == [
        ("autoencoder", "0"), ("autoencoder", "1"), ("beta_vae", "0"), ("beta_vae", "1"),
    ]  # fmt: skip
    for name in ("dice", "loss", "active_share", "seconds_per_step", "auroc_latent_knn_200"):
        values = [float(run[name]) for run in runs if run["model"] == "beta_vae"]
        row = rows["beta_vae"]
        assert float(row[name]) == pytest.approx(np.mean(values), rel=1e-4), name
        assert float(row[f"{name}_low"]) == pytest.approx(min(values), rel=1e-4), name
    assert float(rows["(nearest training brain)"]["dice"]) > 0
    assert read_json(out / "comparison.json")["phantom"]
    page = tmp_path / "report.html"
    assert main(["report", str(out), "-o", str(page), "--quiet"]) == 0
    text = page.read_text()
    assert "PHANTOM" in text.upper()
    low, high = (float(rows["beta_vae"][f"dice_{end}"]) for end in ("low", "high"))
    assert f"{low:.3g} – {high:.3g}" in text
    assert "latent mahalanobis 200" in text
    # Finished runs are not made again; a budget in minutes is found by a trial.
    before = (out / "autoencoder/seed-1/cost.json").stat().st_mtime_ns
    assert compare(phantom_cohort, out, *words, "--quiet") == 0
    assert (out / "autoencoder/seed-1/cost.json").stat().st_mtime_ns == before
    # Nor is what release 0.1 began, which named its inputs by flags.
    path = out / "autoencoder/seed-1/asked.json"
    asked = read_json(path)
    first, config, cohort, _, folder, *others = asked["words"]
    old = [first, "--config", config, "--cohort", cohort, "--out", folder, *others]
    write_json(path, {**asked, "words": old})
    assert compare(phantom_cohort, out, *words, "--quiet") == 0
    assert (out / "autoencoder/seed-1/cost.json").stat().st_mtime_ns == before
    # Nor does one go on with other settings.
    assert compare(phantom_cohort, out, *words, "--training.batch_size=2", "--quiet") == 2
    assert "holds a training with other settings" in capsys.readouterr().err
    config = tmp_path / "own.yaml"
    config.write_text(config_path("autoencoder").read_text())
    assert compare(phantom_cohort, tmp_path / "own", str(config), "--steps", "2", "--quiet") == 0
    config.write_text(config.read_text().replace("batch_size: 4", "batch_size: 2"))
    assert compare(phantom_cohort, tmp_path / "own", str(config), "--steps", "2", "--quiet") == 2
    timed = tmp_path / "timed"
    assert compare(phantom_cohort, timed, "autoencoder", "--minutes", "0.002", "--quiet") == 0
    (run,) = read_tsv(timed / "comparison_runs.tsv")
    pace = read_json(timed / "autoencoder/trial/cost.json")["seconds_per_step"]
    assert int(run["steps"]) == max(int(0.12 / pace), 1)


def test_bad_budgets_and_models_are_said(phantom_cohort, tmp_path, capsys):
    assert compare(phantom_cohort, tmp_path / "c", "autoencoder") == 2
    assert "--minutes or --steps" in capsys.readouterr().err
    assert compare(phantom_cohort, tmp_path / "c", "nothing", "--steps", "1") == 2
    assert "'nothing' is neither a file nor one of" in capsys.readouterr().err
    words = ["autoencoder", "autoencoder", "nothing", "--steps", "1"]
    assert compare(phantom_cohort, tmp_path / "c", *words, "--training.learning_rate_of={}") == 2
    first, second = capsys.readouterr().err.splitlines()
    assert "learning_rate_of={} is now --training.learning_rates={}; the old form goes" in first
    assert "'nothing' is neither" in second
    assert not (tmp_path / "c").exists()  # nothing is trained before all are known to be right


def test_figures_without_a_value_are_the_same_when_they_are_read_again(tmp_path, monkeypatch):
    """Peak memory where nobody counts it, say: JSON has no NaN."""
    measured = {"dice": 0.5, "peak_memory_mib": float("nan")}
    monkeypatch.setattr(comparing, "measure", lambda *_: measured)
    options = comparing.CompareOptions(steps=1)
    first, again = (comparing._measured(tmp_path, None, options, []) for _ in range(2))
    assert str(first) == str(again) == str(measured)
    run = RunFolder(tmp_path)
    run.write_cost(measured)
    assert str(run.cost) == str(measured)


def test_a_dimension_is_in_use_if_it_varies_from_brain_to_brain():
    codes = np.zeros((50, 4), np.float32)
    codes[:, 0] = np.random.default_rng(0).standard_normal(50)
    codes[:, 1] = 7
    codes[:, 2] = 0.001 * codes[:, 0]
    assert active_share(codes) == 0.25


def test_silhouettes_tell_clusters_from_none():
    rng = np.random.default_rng(0)
    one = rng.standard_normal((60, 20)).astype(np.float32)
    two = one + 10 * (np.arange(60) % 2)[:, None].astype(np.float32)
    assert silhouette(one) < 0.1
    assert silhouette(two) > 0.7
    assert np.isnan(silhouette(one[:3]))
