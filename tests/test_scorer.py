"""Scorers that were saved score as the fitted ones did, without the healthy brains."""

import json
import re
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import libraries_of, script_of, skeleton_source

from foldnorm.pipeline.cli import main
from foldnorm.pipeline.runs import forward_pass
from foldnorm.pipeline.runs.forward_pass import scoring_precision
from foldnorm.pipeline.runs.run_folder import RunFolder
from foldnorm.pipeline.scoring.baselines import Baselines
from foldnorm.pipeline.scoring.brain_scores import BrainScores
from foldnorm.pipeline.scoring.calibration import Calibration
from foldnorm.pipeline.scoring.fitted import read_state, write_state
from foldnorm.pipeline.scoring.latent import FeatureScores
from foldnorm.pipeline.scoring.scorer import Scorer
from foldnorm.preprocessing.cohort.cohort import Brain, Cohort
from foldnorm.preprocessing.cohort.cohort_files import write_participants
from foldnorm.preprocessing.core.errors import InputError
from foldnorm.preprocessing.core.files import read_json, read_tsv
from foldnorm.preprocessing.io.schemes import SKELETON

CPU = torch.device("cpu")


def call(*words):
    return main([*map(str, words), "--quiet"])


def renamed(cohort, folder, **columns):
    """The same brains as other people, with more columns."""
    folder.mkdir(parents=True)
    for path in cohort.folder.iterdir():
        if path.is_file():
            (folder / path.name).write_bytes(path.read_bytes())
    rows = []
    for n, row in enumerate(cohort.rows):
        more = {name: value(n) for name, value in columns.items()}
        rows.append({**row, "participant_id": f"{row['participant_id']}x", **more})
    write_participants(folder, rows)
    return Cohort.open(folder)


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """Forty skeletons, twenty of them for validation."""
    folder = tmp_path_factory.mktemp("many")
    source = skeleton_source(folder / "source", 40)
    words = ["preprocess", source, "-o", folder / "cohort", "--n-procs", 1, "--split-fractions",
             0.3, 0.5, 0.2]  # fmt: skip
    words += ["--voxel-size", 1.5, "--pad", "16,16,16"]
    assert call(*words) == 0
    return Cohort.open(folder / "cohort")


def train(config, cohort, out, *words):
    more = ["--training.steps", 4, "--training.validate_every", 2, "--device", "cpu", *words]
    assert call("train", config, cohort.folder, "-o", out, *more) == 0
    return out


@pytest.fixture(scope="module")
def runs(many):
    """A model that decodes, one that restores, and none."""
    folder = many.folder.parent
    net = ["--model.init_args.channels", "[8, 8]", "--model.init_args.convolutions", "[1, 1]"]
    edits = ["--model.init_args.edits", "[balls, sheets]", "--training.precision", "bf16"]
    return {
        "restorer": train("restorer", many, folder / "restorer", *net, *edits),
        "beta_vae": train("beta_vae", many, folder / "vae", "--model.init_args.channels", "[8]"),
        "void": "void",
    }


@pytest.fixture(scope="module")
def patients(many):
    return renamed(many, many.folder.parent / "patients")


@pytest.fixture(scope="module", params=["restorer", "beta_vae", "void"])
def saved(request, runs, many, patients):
    """Results of a fitted scorer, and the same scorer, saved and moved."""
    folder = many.folder.parent / request.param
    run, out = runs[request.param], folder / "fitted"
    words = ["--reference", many.folder, "--device", "cpu", "--maps", "--precision", 32]
    first = folder / "there"
    assert call("score", run, patients.folder, "-o", out, *words, "--save-scorer", first) == 0
    return out, first.rename(folder / "here")


def test_a_saved_scorer_gives_what_the_fitted_one_gave(saved, patients, tmp_path):
    fitted, scorer = saved
    words = ["--device", "cpu", "--maps"]
    assert call("score", scorer, patients.folder, "-o", tmp_path, *words) == 0
    assert (tmp_path / "scores.tsv").read_bytes() == (fitted / "scores.tsv").read_bytes()
    maps = sorted((fitted / "maps").iterdir())
    assert maps
    for path in maps:
        assert (tmp_path / "maps" / path.name).read_bytes() == path.read_bytes()
    own, other = (read_json(folder / "scores.json") for folder in (tmp_path, fitted))
    assert own.pop("scorer") == str(scorer)
    assert other.pop("reference")
    assert own == other


def test_loaded_scores_are_equal_to_the_last_bit(runs, many, patients, tmp_path):
    """Files round; arrays do not."""
    model = RunFolder.open(runs["beta_vae"]).load()
    fitted = BrainScores(model).fit(many)
    fitted.save(tmp_path)
    loaded = BrainScores(model).load(tmp_path, many, list(fitted.families_))
    indices = patients.indices("test")
    own, other = (scores.score(patients.brains(indices)) for scores in (fitted, loaded))
    assert {name.partition("_")[0] for name in own} == {
        "void", "latent", "features1", "reconstruction", "baseline",
    }  # fmt: skip
    assert own.keys() == other.keys()
    for name, values in own.items():
        assert np.array_equal(values, other[name]), name


def test_scores_that_were_saved_under_an_old_name_are_read(runs, many, tmp_path):
    model = RunFolder.open(runs["beta_vae"]).load()
    healthy = many.brains(many.indices("train"))
    fitted = FeatureScores(model).fit(healthy)
    fitted.save(tmp_path / "depths")
    loaded = BrainScores(model).load(tmp_path, many, ["depths"])
    assert np.array_equal(loaded.score(healthy)["features1_mahalanobis"],
                          fitted.score(healthy)["features1_mahalanobis"])  # fmt: skip
    loaded.save(tmp_path / "again")
    assert [path.name for path in (tmp_path / "again").iterdir()] == ["features"]
    state = {"scores": {"depth1_mahalanobis": np.ones(1), "void_top": np.ones(1)},
             "peaks": np.ones((1, 1)), "participants": ["a"], "hemis": ["L"], "sites": [],
             "are_local": False}  # fmt: skip
    assert list(Calibration.from_state(state).scores) == ["features1_mahalanobis", "void_top"]


def test_controls_and_covariates_are_kept(many, tmp_path):
    ages = {"age": lambda n: str(20 + n % 30), "sex": lambda n: "fm"[n % 2]}
    healthy = renamed(many, tmp_path / "healthy", **ages)
    controls = renamed(healthy, tmp_path / "controls", **ages, site=lambda n: "Here")
    scorer = Scorer().fit(healthy, controls=controls, covariates=["age", "sex:category"])
    scorer.save(tmp_path / "scorer")
    loaded = Scorer.load(tmp_path / "scorer")
    patients = renamed(controls, tmp_path / "patients", **ages)
    own, other = (s.score(patients).table for s in (scorer, loaded))
    assert own == other
    assert own[0]["p_void_top"] > 0
    assert loaded.calibration_.sites == ("Here",)
    assert loaded.calibration_.are_local
    older = [{**row, "age": "90"} for row in patients.rows]
    write_participants(patients.folder, older)
    changed = loaded.score(Cohort.open(patients.folder)).table
    assert changed[0]["score_void_top"] != own[0]["score_void_top"]


def test_no_name_is_in_a_saved_scorer(saved, many):
    _, scorer = saved
    files = [path for path in scorer.rglob("*") if path.is_file()]
    assert {path.suffix for path in files} <= {".json", ".npz", ".yaml", ".safetensors"}
    held = {path: path.read_bytes() for path in files if path.suffix != ".npz"}
    arrays = [np.load(path, allow_pickle=False) for path in files if path.suffix == ".npz"]
    assert not any(array.dtype.hasobject for own in arrays for array in own.values())
    for row in many.rows:
        name = row["participant_id"].encode()
        assert not [path for path, content in held.items() if name in content]
    assert str(many.folder.parent).encode() not in b"".join(held.values())
    about = read_json(scorer / "scorer.json")
    assert "code of each training brain" in about["personal_data"]


def test_who_is_among_the_healthy_brains_has_no_p(saved, many, tmp_path, capsys):
    _, scorer = saved
    assert call("score", scorer, many.folder, "-o", tmp_path, "--device", "cpu") == 1
    said = capsys.readouterr().err.splitlines()
    rows = read_tsv(tmp_path / "scores.tsv")
    flagged = [row for row in rows if "is of a family that is among the healthy" in row["flag"]]
    named = [line for line in said if "took part in training or calibration" not in line]
    assert len(named) == len(flagged) > 8
    assert "which cannot leave it out: score it with their cohort; no p-value" in named[0]
    assert not any(row["p_void_top"] for row in flagged)
    used = {row["participant_id"]: row["used_for"] for row in rows}
    roles = {"train": "training", "validation": "calibration"}
    calibrating_all = "void" in str(scorer)
    for row in many.rows:
        expected = "calibration" if calibrating_all else roles.get(row["split"], "")
        assert used[row["participant_id"]] == expected


def test_relatives_of_healthy_brains_have_no_p(many, tmp_path):
    healthy = renamed(many, tmp_path / "healthy", family=lambda n: str(n // 2))
    Scorer().fit(healthy).save(tmp_path / "scorer")
    patients = renamed(healthy, tmp_path / "patients", family=lambda n: "3" if n == 5 else "n/a")
    flags = [row["flag"] for row in Scorer.load(tmp_path / "scorer").score(patients).table]
    assert [n for n, flag in enumerate(flags) if flag] == [5]


def test_pages_show_no_healthy_brain_of_a_saved_scorer(saved, patients, tmp_path):
    _, scorer = saved
    words = ["--device", "cpu", "--maps", "--split", "test"]
    assert call("score", scorer, patients.folder, "-o", tmp_path / "scores", *words) == 0
    pages = read_json(tmp_path / "scores/pages.json")
    assert pages["healthy_hemispheres"] >= 8
    assert not any(brain["healthy"] for brain in pages["brains"].values())
    assert all(brain["compared_with"] for brain in pages["brains"].values())
    assert main(["report", str(tmp_path / "scores"), "-o", str(tmp_path / "report.html")]) == 0
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert text.count("No healthy brain is shown beside it") == len(pages["brains"])
    assert "The same plane in" not in text


def test_brains_are_prepared_like_a_saved_scorer(saved, many, phantom_cohort, tmp_path, capsys):
    _, scorer = saved
    out = tmp_path / "out"
    assert call("score", scorer, phantom_cohort.folder, "-o", out, "--device", "cpu") == 2
    said = capsys.readouterr().err
    assert "prepared otherwise than the healthy one" in said
    assert f"--layout-from {scorer}: {phantom_cohort.folder}" in said
    assert not out.exists()
    alike = tmp_path / "alike"
    words = ["--layout-from", scorer, "--n-procs", 1, "--split-fractions", 0, 0, 1]
    assert call("preprocess", skeleton_source(tmp_path / "more", 3), "-o", alike, *words) == 0
    Scorer.load(scorer).check_prepared(Cohort.open(alike))


def test_a_saved_scorer_is_not_fitted_again(saved, patients, tmp_path, capsys):
    _, scorer = saved
    words = ["score", scorer, patients.folder, "-o", tmp_path / "out", "--device", "cpu"]
    options = (["--controls", patients.folder], ["--covariates", "age"], ["--precision", 32])
    for more in (*options, ["--asymmetry"], ["--reference-split", "train"]):
        assert call(*words, *more) == 2
        said = "fitted already and takes no --reference, --reference-split, --controls"
        assert said in capsys.readouterr().err
    assert call(*words, "--save-scorer", tmp_path / "copy") == 2
    assert f"a saved scorer is copied as a folder: {scorer}" in capsys.readouterr().err


def cut(path):
    path.write_bytes(path.read_bytes()[:-20])


def change(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def without(key):
    def remove(path):
        path.write_text(json.dumps({k: v for k, v in read_json(path).items() if k != key}))

    return remove


@pytest.mark.parametrize(
    ("name", "spoil", "said"),
    [
        (
            "scores/void/arrays.npz",
            cut,
            "damaged scorer, not the file that was saved: .*void/arrays.npz",
        ),
        ("scores/void/values.json", change, "damaged scorer, .*void/values.json"),
        ("suitability/arrays.npz", lambda path: path.unlink(), "no such file: .*suitability/arr"),
        ("calibration/arrays.npz", change, "damaged scorer, .*calibration/arrays.npz"),
        ("scorer.json", cut, "not readable as JSON .*scorer.json"),
        ("scorer.json", without("participants"), "damaged scorer, it lacks participants: .*json"),
        ("scorer.json", without("format"), "expected a scorer of format 3, got None"),
    ],
)
def test_a_damaged_scorer_is_refused_in_one_line(
    many, patients, name, spoil, said, tmp_path, capsys
):
    Scorer().fit(many).save(tmp_path / "scorer")
    spoil(tmp_path / "scorer" / name)
    assert call("score", tmp_path / "scorer", patients.folder, "-o", tmp_path / "out") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert re.search(said, line)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("spoil", [cut, lambda path: path.write_bytes(b"PK")])
def test_arrays_that_cannot_be_read_are_an_input_error(tmp_path, spoil):
    fitted = Baselines(SKELETON).fit([Brain(np.eye(8, dtype=np.uint8)[None].repeat(8, 0), {})])
    fitted.save(tmp_path)
    spoil(tmp_path / "arrays.npz")
    with pytest.raises(InputError, match=str(tmp_path)):
        Baselines(SKELETON).load(tmp_path)


def test_a_state_of_something_else_is_refused(tmp_path):
    write_state(tmp_path, {"mean": np.zeros(3), "count": 2})
    with pytest.raises(InputError, match=r"not what a Baselines has saved .*log_prevalence"):
        Baselines(SKELETON).load(tmp_path)


def test_a_state_comes_back_as_it_was(tmp_path):
    state = {"a": {"b": np.arange(3.0), "c": [1, "x"]}, "d": None, "e": 0.1}
    state |= {"f": np.nan, "g": {"h": np.inf}}
    write_state(tmp_path, state)
    found = read_state(tmp_path)
    assert found["a"]["b"].tolist() == [0, 1, 2]
    assert (found["a"]["c"], found["d"], found["e"]) == ([1, "x"], None, 0.1)
    assert np.isnan(found["f"])
    assert found["g"]["h"] == np.inf


def test_a_saved_scorer_loads_what_it_needs_only(saved, patients, tmp_path):
    """Importing them takes longer than scoring a brain."""
    _, scorer = saved
    words = ["score", scorer, patients.folder, "-o", tmp_path, "--maps", "--device", "cpu",
             "--quiet"]  # fmt: skip
    loaded = libraries_of(script_of(words), {"torch", "sklearn", "monai", "matplotlib"})
    needed = {"void": set(), "restorer": {"torch"}, "beta_vae": {"sklearn", "torch"}}
    assert loaded == needed[scorer.parent.name]


def test_only_a_model_of_a_run_can_be_saved(runs, many, tmp_path):
    model = replace(RunFolder.open(runs["beta_vae"]).load(), config={})
    with pytest.raises(InputError, match="only a model that was loaded from a run"):
        Scorer(model).fit(many).save(tmp_path / "scorer")
    assert not (tmp_path / "scorer/scorer.json").exists()


def counted(monkeypatch, module, name):
    calls = []
    true = getattr(module, name)
    monkeypatch.setattr(module, name, lambda *a, **k: (calls.append(1), true(*a, **k))[1])
    return calls


@pytest.mark.parametrize(("config", "network"), [("restorer", "network"), ("beta_vae", "encoder")])
def test_a_brain_goes_through_the_model_once(runs, many, patients, monkeypatch, config, network):
    model = RunFolder.open(runs[config]).load()
    scorer = Scorer(model, precision="32").fit(many)
    part = getattr(model.model, network)
    downwards, all_the_way = (counted(monkeypatch, part, name) for name in ("maps", "forward"))
    found = []
    result = scorer.score(patients, on_map=found.append)
    assert len(found) == len(patients.rows) == 40
    assert len(downwards) == len(all_the_way) == 5  # batches of eight
    for z, again in zip(found, result.maps(), strict=True):
        assert np.array_equal(z, again)


def test_a_result_that_is_saved_with_maps_is_what_the_command_writes(
    runs, many, patients, saved, tmp_path
):
    fitted, scorer = saved
    result = Scorer.load(scorer).score(patients)
    assert not tmp_path.joinpath("scores.tsv").exists()
    result.save(tmp_path, maps=True)
    assert (
        call("score", scorer, patients.folder, "-o", tmp_path / "x", "--maps", "--device", "cpu")
        == 0
    )
    for name in ("scores.tsv", "calibration.tsv", "regions.tsv", "regions.json", "scores.json"):
        assert (tmp_path / name).read_bytes() == (tmp_path / "x" / name).read_bytes(), name
    rows = read_tsv(fitted / "scores.tsv")
    assert [row["participant_id"] for row in rows] == [r["participant_id"] for r in result.table]
    result.save(tmp_path)  # without maps: what was said of them is of other scores
    left = {path.name for path in tmp_path.iterdir() if path.is_file()}
    assert not left & {"regions.tsv", "regions.json", "pages.json"}
    assert "scores.tsv" in left


def test_a_model_computes_as_it_was_trained_where_that_is_faster(monkeypatch):
    for faster in (True, False):
        monkeypatch.setattr(forward_pass, "faster_in_bf16", lambda device, f=faster: f)
        assert scoring_precision("auto", "bf16", CPU) == ("bf16" if faster else "32")
        assert scoring_precision("auto", "32", CPU) == "32"
        assert scoring_precision("32", "bf16", CPU) == "32"
        assert scoring_precision("bf16", "32", CPU) == "bf16"


def test_a_saved_scorer_keeps_its_precision(runs, many, patients, tmp_path, monkeypatch):
    words = [patients.folder, "-o", tmp_path / "out", "--device", "cpu", "--overwrite"]
    scorer = tmp_path / "scorer"
    monkeypatch.setattr(forward_pass, "faster_in_bf16", lambda device: True)
    assert call("score", runs["restorer"], *words, "--save-scorer", scorer) == 0
    fitted = (tmp_path / "out/scores.tsv").read_bytes()
    assert read_json(tmp_path / "out/scores.json")["precision"] == "bf16"
    monkeypatch.setattr(forward_pass, "faster_in_bf16", lambda device: False)
    assert call("score", scorer, *words) == 0
    assert (tmp_path / "out/scores.tsv").read_bytes() == fitted
    assert call("score", runs["restorer"], *words) == 0
    exact = read_tsv(tmp_path / "out/scores.tsv")
    assert (tmp_path / "out/scores.tsv").read_bytes() != fitted
    shutil.copytree(scorer, tmp_path / "again")
    assert Scorer.load(tmp_path / "again").precision == "bf16"
    close = Scorer.load(scorer).score(patients).table
    pairs = [(float(a["score_evidence_sum"]), b["score_evidence_sum"])
             for a, b in zip(exact, close, strict=True)]  # fmt: skip
    assert np.corrcoef(np.array(pairs).T)[0, 1] > 0.99
