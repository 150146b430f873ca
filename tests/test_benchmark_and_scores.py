"""The commands from codes to the report, on the small cohorts."""

import json
import re
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import skeleton_source

from foldnorm.pipeline.cli import main
from foldnorm.pipeline.report.page import DONE
from foldnorm.pipeline.runs.provenance import benchmark_track
from foldnorm.preprocessing.alteration.kinds import KINDS
from foldnorm.preprocessing.cohort.cohort import row_key
from foldnorm.preprocessing.core.files import read_json, read_tsv, write_json, write_tsv


def call(*words):
    return main([*map(str, words), "--quiet"])


@pytest.fixture(scope="module")
def phantom_run(phantom_cohort, tmp_path_factory):
    out = tmp_path_factory.mktemp("phantom_run") / "run"
    code = main(
        ["train", "wgan_gp", str(phantom_cohort.folder), "-o", str(out),
         "--device", "cpu", "--quiet", "--training.steps", "2", "--training.batch_size", "2",
         "--training.validate_every", "2", "--model.init_args.channels", "[8]",
         "--model.init_args.critic_channels", "[8]", "--model.init_args.code_channels", "2"]
    )  # fmt: skip
    assert code == 0
    return out


@pytest.fixture(scope="module")
def results(phantom_run, phantom_cohort, tmp_path_factory):
    out = tmp_path_factory.mktemp("results")
    cohort = phantom_cohort.folder
    assert call("alter", cohort, "-o", out / "altered", "--size", "200", "--split", "test") == 0
    assert call("score", phantom_run, cohort, "-o", out / "scores", "--device", "cpu") == 0
    assert call("score", phantom_run, out / "altered", "-o", out / "scores_altered") == 0
    assert (
        call(
            "benchmark",
            phantom_run,
            cohort,
            "-o",
            out / "benchmark",
            "--size",
            "200",
            "--draws",
            "2",
        )
        == 0
    )
    return out


def test_embedding_gives_a_code_a_volume(small_run, small_cohort, tmp_path):
    assert call("embed", small_run, small_cohort.folder, "-o", tmp_path / "codes") == 0
    codes = np.load(tmp_path / "codes/codes.npy", allow_pickle=False)
    rows = read_tsv(tmp_path / "codes/codes.tsv")
    assert codes.shape[0] == len(rows) == len(small_cohort.rows)
    assert codes.dtype == np.float32
    assert call("embed", small_run, small_cohort.folder, "-o", tmp_path / "codes") == 2


def test_only_brains_that_took_no_part_get_a_p_value(results, phantom_cohort):
    rows = read_tsv(results / "scores/scores.tsv")
    used = {"train": "training", "validation": "calibration", "test": ""}
    for row, source in zip(rows, phantom_cohort.rows, strict=True):
        assert row["used_for"] == used[source["split"]]
        assert bool(row["p_latent_mahalanobis"]) == (source["split"] == "test")
    sidecar = read_json(results / "scores/scores.json")
    m = len(phantom_cohort.indices("validation"))
    assert sidecar["smallest_p"] == 1 / (m + 1)
    assert sidecar["phantom"]
    p = [float(r["p_latent_knn"]) for r in rows if not r["used_for"]]
    assert min(p) >= 1 / (m + 1) - 1e-6


def test_a_warned_brain_keeps_its_p_with_the_warning_beside_it(
    small_run, small_cohort, tmp_path, capsys
):
    source = skeleton_source(tmp_path / "source", 3)
    write_json(source / "sub-s01.json", {"Origin": "unknown", "Warnings": ["speckled"]})
    for old, new in (("s00", "n0"), ("s01", "n1"), ("s02", "n2")):
        for path in source.glob(f"sub-{old}.*"):
            path.rename(path.with_name(path.name.replace(old, new)))
    cohort, out = tmp_path / "cohort", tmp_path / "scores"
    assert (
        call(
            "preprocess", source, "-o", cohort, "--layout-from", small_cohort.folder, "--n-procs", 1
        )
        == 0
    )
    capsys.readouterr()
    assert call("score", small_run, cohort, "-o", out) == 0
    assert "foldnorm: warning: sub-n1: speckled" in capsys.readouterr().err
    rows = {row["participant_id"]: row for row in read_tsv(out / "scores.tsv")}
    assert [row["warning"] for row in rows.values()] == ["", "speckled", ""]
    assert rows["sub-n1"]["p_latent_knn"]
    assert read_json(out / "scores.json")["warned"] == 1
    assert call("report", out, "-o", tmp_path / "report.html") == 0
    assert "Brains that their source warns of" in (tmp_path / "report.html").read_text()


def test_the_benchmark_has_control_baselines_and_intervals(results):
    rows = read_tsv(results / "benchmark/benchmark.tsv")
    assert {r["size"] for r in rows} == {"0", "200"}
    names = {r["score"] for r in rows}
    assert {"latent_centre", "latent_mahalanobis", "latent_knn", "reconstruction_loss"} < names
    assert {"baseline_fewer_voxels", "baseline_prevalence", "baseline_pca_residual"} <= set(names)
    for row in rows:
        assert float(row["auroc_low"]) <= float(row["auroc"]) <= float(row["auroc_high"])
        assert 0 <= float(row["false_alarm"]) <= 1
        if row["size"] == "0":
            assert float(row["paired"]) == 0.5
    fewer = next(r for r in rows if r["score"] == "baseline_fewer_voxels" and r["size"] == "200")
    assert float(fewer["paired"]) == 1.0


def test_relatives_are_one_draw_of_the_intervals(phantom_run, phantom_cohort, tmp_path):
    related = tmp_path / "related"
    shutil.copytree(phantom_cohort.folder, related)
    rows = [{**row, "family": "1" if row["split"] == "test" else ""} for row in phantom_cohort.rows]
    write_tsv(related / "participants.tsv", rows, list(rows[0]))
    out = tmp_path / "benchmark"
    words = ["--size", "200", "--draws", "2"]
    assert call("benchmark", phantom_run, related, "-o", out, *words) == 0
    for row in read_tsv(out / "benchmark.tsv"):  # of one family nothing can be drawn anew
        assert row["auroc_low"] == row["auroc"] == row["auroc_high"]


def test_the_control_scores_exactly_as_the_healthy_volumes(
    results, phantom_run, phantom_cohort, tmp_path
):
    assert call("alter", phantom_cohort.folder, "-o", tmp_path / "control", "--size", "0") == 0
    assert call("score", phantom_run, tmp_path / "control", "-o", tmp_path / "scores") == 0
    assert (tmp_path / "scores/scores.tsv").read_bytes() == (
        results / "scores/scores.tsv"
    ).read_bytes()


def test_the_report_is_one_file_that_says_phantom(results, phantom_run, phantom_cohort, tmp_path):
    out = tmp_path / "report.html"
    folders = [phantom_cohort.folder, phantom_run, results / "altered", results / "scores",
               results / "scores_altered", results / "benchmark"]  # fmt: skip
    assert call("report", *folders, "-o", out) == 0
    # What scripts ask for is watched in a browser; their comments name addresses.
    page = re.sub(r"<script>.*?</script>", "", out.read_text(), flags=re.DOTALL)
    assert "SYNTHETIC data" in page
    assert "latent_mahalanobis" in page
    assert "volume_ratio" in page
    assert page.count("<svg") == 6
    for outside in ("http://", "https://", 'src="/'):
        assert outside not in page.replace("http://www.w3.org", "").replace(
            "http://purl.org", ""
        ).replace("http://creativecommons.org", "").replace("https://matplotlib.org", "")
    again = tmp_path / "again.html"
    assert call("report", *folders, "-o", again) == 0
    assert again.read_bytes() == out.read_bytes()


def test_generated_volumes_are_the_same_for_a_seed(small_run, tmp_path):
    for name in ("a", "b"):
        assert call("generate", small_run, "-o", tmp_path / name, "--num", "3", "--seed", "1") == 0
    files = sorted(p.name for p in (tmp_path / "a").iterdir())
    assert len(files) == 5  # three volumes, the contact sheet, and what was asked for
    for file in files:
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_a_cohort_prepared_otherwise_is_refused(small_run, phantom_cohort, tmp_path, capsys):
    assert call("score", small_run, phantom_cohort.folder, "-o", tmp_path / "scores") == 2
    assert "preprocessing differs from that of the training cohort" in capsys.readouterr().err


def test_a_cohort_without_fold_labels_can_be_scored(
    phantom_run, phantom_cohort, phantom_source, tmp_path
):
    unlabelled = tmp_path / "unlabelled"
    words = ("--layout-from", phantom_cohort.folder, "--n-procs", "1")
    assert (
        call("preprocess", phantom_source, "-o", unlabelled, *words, "--fold-labels", "none") == 0
    )
    assert not (unlabelled / "folds.npy").exists()
    assert call("score", phantom_run, unlabelled, "-o", tmp_path / "scores") == 0


def test_a_reference_with_trained_brains_held_out_is_refused(
    phantom_run, phantom_source, tmp_path, capsys
):
    out = tmp_path / "other_split"
    assert call("preprocess", phantom_source, "-o", out, "--voxel-size", "4", "--crop",
                "mm:-72,-8,-70,-6,-28,36", "--split-seed", "9", "--n-procs", "1") == 0  # fmt: skip
    assert call("score", phantom_run, out, "-o", tmp_path / "s", "--reference", out) == 2
    assert "held out in the reference: expected participants that the" in capsys.readouterr().err


@pytest.mark.parametrize("broken", ["config.yaml", "data.json", "checkpoints/last.ckpt"])
def test_a_run_that_lacks_a_part_is_refused(small_run, small_cohort, tmp_path, capsys, broken):
    import shutil

    shutil.copytree(small_run, tmp_path / "run")
    (tmp_path / "run" / broken).unlink()
    assert call("embed", tmp_path / "run", small_cohort.folder, "-o", tmp_path / "codes") == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1


def test_a_cohort_too_small_for_the_benchmark_is_refused(small_run, small_cohort, tmp_path, capsys):
    code = call("benchmark", small_run, small_cohort.folder, "-o", tmp_path / "b", "--size", "200")
    assert code == 2
    assert "no fold labels" in capsys.readouterr().err


def test_the_list_of_models(capsys):
    assert main(["models", "--json"]) == 0
    listed = {entry["name"] for entry in json.loads(capsys.readouterr().out)}
    assert {"wgan_gp", "wgan_gp_report"} <= listed


@pytest.mark.parametrize(
    ("kind", "edits", "sulci", "said"),
    [
        ("fold", (), (), "healthy brains as they are"),
        ("fold", ("balls", "slabs"), (), "edits of another kind (balls, slabs)"),
        ("fold-raw", ("folds", "copies"), (), "edits of the same kind (folds, copies)"),
        ("ball", ("balls",), (), "edits of the same kind (balls)"),
        ("add", ("folds",), (), "edits of another kind (folds)"),
        ("add", ("copies",), (), "edits of the same kind (copies)"),
        ("asymmetry", ("folds",), (), "edits of another kind (folds)"),
        ("refill", ("folds",), (), "edits of another kind (folds)"),
        ("interrupt", ("folds",), (), "edits of another kind (folds)"),
        ("fold", (), ("central",), "fold names of training brains"),
    ],
)
def test_the_track_of_a_model_is_said(kind, edits, sulci, said):
    assert benchmark_track(kind, edits, sulci) == said


def test_every_kind_of_alteration_has_a_name_in_the_report():
    assert set(DONE) == set(KINDS)


def test_what_the_model_learned_from_stands_in_all_its_results(results, phantom_run):
    assert read_json(results / "benchmark/benchmark.json")["track"] == "healthy brains as they are"
    assert read_json(results / "scores/scores.json")["learned_from"] == "healthy brains as they are"
    card = (phantom_run / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert "It learned from healthy brains as they are." in card


def test_scores_of_an_earlier_version_are_refused(results, tmp_path, capsys):
    folder = tmp_path / "scores"
    shutil.copytree(results / "scores", folder)
    rows = [{k: v for k, v in r.items() if k != "flag"} for r in read_tsv(folder / "scores.tsv")]
    write_tsv(folder / "scores.tsv", rows, list(rows[0]))
    assert call("report", folder, "-o", tmp_path / "r.html") == 2
    assert "scores of an earlier version, score again" in capsys.readouterr().err


def test_reporting_on_nothing_known_is_refused(tmp_path, capsys):
    assert call("report", tmp_path, "-o", tmp_path / "r.html") == 2
    assert "neither a cohort, a run" in capsys.readouterr().err
    assert call("report", tmp_path, "-o", tmp_path / "r.pdf") == 2


def test_every_fold_is_taken_out_one_at_a_time(phantom_run, phantom_cohort, tmp_path):
    out = tmp_path / "b"
    words = ("--size", "500", "--draws", "1", "--leave-one-fold-out", "200")
    assert call("benchmark", phantom_run, phantom_cohort.folder, "-o", out, *words) == 0
    rows = read_tsv(out / "every_fold.tsv")
    tested = {phantom_cohort.keys()[i] for i in phantom_cohort.indices("test")}
    assert {row["volume"] for row in rows} <= tested
    folds = {(row["volume"], row["label"]) for row in rows}
    face = phantom_cohort.voxel_size[0] ** 2
    expected = {
        (row_key(row), row["label"])
        for row in phantom_cohort.fold_table
        if row_key(row) in tested and float(row["size"]) > 200
        and int(row["voxels"]) * face >= float(row["size"]) / 2
    }  # fmt: skip
    assert folds == expected
    fewer = [row for row in rows if row["score"] == "baseline_fewer_voxels"]
    for row in fewer:  # the score is the negative count: it rises by what was taken out
        gained = float(row["after"]) - float(row["before"])
        assert gained == int(row["voxels"])
    (summary,) = [
        row for row in read_tsv(out / "every_fold_summary.tsv")
        if row["score"] == "baseline_fewer_voxels"
    ]  # fmt: skip
    assert [float(summary[f"paired{end}"]) for end in ("", "_low", "_high")] == [1, 1, 1]
    assert int(summary["folds"]) == len(folds)


def test_each_fold_that_is_taken_out_is_looked_for_in_its_own_map(phantom_cohort, tmp_path):
    from foldnorm.pipeline.studies.leave_one_fold_out import leave_one_fold_out
    from foldnorm.preprocessing.alteration.deletion import SizeRange

    class Knows:
        """Evidence exactly where the volume is not that of the cohort."""

        map_scores = (SimpleNamespace(THRESHOLD=3.0),)

        def score(self, brains, on_map=None):
            found = []
            for brain in brains:
                whole = np.array(phantom_cohort.volumes[phantom_cohort.rows.index(brain.row)])
                gone = whole != brain.volume
                found.append(float(gone.sum()))
                if on_map is not None:
                    on_map(np.where(gone, 9.0, 0.0)[None])
            return {"gone": np.array(found)}

    indices = phantom_cohort.indices("test")
    scores = leave_one_fold_out(Knows(), phantom_cohort, indices, SizeRange(200))
    assert len(scores.rows) > 3
    for row in scores.rows:
        assert (row["hit"], row["dice"]) == (1, 1)
    large = scores.filter_by_size(SizeRange(500))
    assert {row["label"] for row in large.rows} < {row["label"] for row in scores.rows}
    assert list(large.after["gone"]) == [row["voxels"] for row in large.rows]
    scores.save(tmp_path)
    places = read_tsv(tmp_path / "every_fold_places.tsv")
    assert [row["label"] for row in places] == [str(row["label"]) for row in scores.rows]
    assert "hit" not in read_tsv(tmp_path / "every_fold.tsv")[0]


def test_shares_are_counted_over_people_and_their_families():
    from foldnorm.pipeline.studies.leave_one_fold_out import FoldScores

    rows = [{"participant_id": who} for who in "aaab"]
    scores = FoldScores(rows, {"s": np.zeros(4)}, {"s": np.array([1.0, 1, 1, -1])})
    (summary,) = scores.summary()
    assert summary["paired"] == 0.75
    assert (summary["paired_low"], summary["paired_high"]) == (0, 1)
    assert (summary["folds"], summary["participants"]) == (4, 2)
    related = [{**row, "family": "1"} for row in rows]  # of one family: nothing can be drawn anew
    (summary,) = FoldScores(related, scores.before, scores.after).summary()
    assert (summary["paired_low"], summary["paired_high"]) == (0.75, 0.75)
    assert scores.join(scores).summary()[0]["folds"] == 8


def test_a_share_and_its_interval_count_the_same_ties():
    from foldnorm.pipeline.studies.leave_one_fold_out import FoldScores

    before = np.linspace(1, 2, 8)
    rows = [{"participant_id": str(n)} for n in range(8)]
    (summary,) = FoldScores(rows, {"s": before}, {"s": before * (1 + 1e-7)}).summary()
    assert (summary["paired_low"], summary["paired"], summary["paired_high"]) == (0.5, 0.5, 0.5)
