"""Naming sulci: what is learned from, what is measured, which are missing."""

import shutil
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from conftest import FORTY_PHANTOMS
from monai.bundle import verify_net_in_out
from test_each_volume import damage

from foldnorm.models.classes import to_classes
from foldnorm.models.sulcus_segmenter import SulcusSegmenter
from foldnorm.pipeline.artifacts import SULCUS_DEPARTURES
from foldnorm.pipeline.bundle.volumes import BundleNetwork
from foldnorm.pipeline.cli import main
from foldnorm.pipeline.data.items import transformed
from foldnorm.pipeline.data.sulcus_labels import (
    SulciByPlace,
    SulcusLabels,
    common_sulci,
    sulcus_name,
)
from foldnorm.pipeline.data.sulcus_replacement import RandReplaceSulcusd
from foldnorm.pipeline.metrics.classes import sulcus_dice
from foldnorm.pipeline.runs.config import resolve_for
from foldnorm.pipeline.runs.predict import recognise
from foldnorm.pipeline.runs.run_folder import RunFolder
from foldnorm.pipeline.runs.trained_model import TrainedModel
from foldnorm.pipeline.scoring.network_labeller import NetworkLabeller
from foldnorm.pipeline.scoring.recognition import RecognitionScores
from foldnorm.pipeline.scoring.sulcus_counts import SulcusCounts
from foldnorm.pipeline.scoring.sulcus_measures import (
    MEASURES,
    AtlasTemplate,
    NamedBrain,
)
from foldnorm.pipeline.scoring.sulcus_norms import MIN_HEALTHY
from foldnorm.pipeline.training.distributed import launch
from foldnorm.pipeline.training.label_tasks import SulcusTask
from foldnorm.pipeline.training.setup import set_up
from foldnorm.pipeline.view.models import ViewedModel
from foldnorm.preprocessing.cohort.cohort import FOLD_TABLE, Brain, Cohort, row_key
from foldnorm.preprocessing.core.errors import InputError
from foldnorm.preprocessing.core.files import read_json, read_tsv, write_tsv
from foldnorm.preprocessing.io.schemes import SKELETON
from foldnorm.preprocessing.io.volumes import read_labels
from foldnorm.preprocessing.phantom.anatomy import BY_NAME

SMALL = ["--model.init_args.channels", "[8, 8]", "--model.init_args.convolutions", "[1, 1]",
         "--training.steps", "4", "--training.validate_every", "2", "--device", "cpu"]  # fmt: skip


@pytest.fixture(scope="module")
def cohort(many_phantoms, tmp_path_factory):
    """Forty coarse phantoms with fold labels, half of them for validation."""
    folder = tmp_path_factory.mktemp("named")
    words = ["preprocess", many_phantoms, "-o", folder / "cohort", "--voxel-size", "4",
             "--crop", "mm:-76,4,-70,10,-40,40", "--split-fractions", ".3", ".5", ".2",
             *FORTY_PHANTOMS, "--n-procs", "1"]  # fmt: skip
    assert main([*map(str, words), "--quiet"]) == 0
    return Cohort.open(folder / "cohort")


@pytest.fixture(scope="module")
def run(cohort, tmp_path_factory):
    out = tmp_path_factory.mktemp("run") / "run"
    assert train(cohort, out) == 0
    return out


def train(cohort, out, *more):
    words = ["train", "sulcus_segmenter", cohort.folder, "-o", out, *SMALL]
    return main([*map(str, words), *more, "--quiet"])


def test_a_side_is_no_part_of_a_name_unless_both_are_in_one_volume():
    assert sulcus_name("S.C._left", both_sides=False) == "S.C."
    assert sulcus_name("S.C._right", both_sides=True) == "S.C._right"


def test_voxels_get_the_number_of_their_sulcus(cohort):
    sulci = ["superior_temporal", "central"]
    index = 3
    named, labels = SulcusLabels(cohort, sulci)[index], cohort.folds[index]
    rows = [r for r in cohort.fold_table if row_key(r) == cohort.keys()[index]]
    for number, name in enumerate(sulci, start=1):
        own = [int(row["label"]) for row in rows if row["name"] == name]
        assert np.array_equal(named == number, np.isin(labels, own))
    assert not named[labels == 0].any()
    assert set(np.unique(named)) == {0, 1, 2}
    with pytest.raises(InputError, match=r"no brain of the cohort has a sulcus S\.C\."):
        SulcusLabels(cohort, ["central", "S.C."])


def test_a_fold_that_the_table_does_not_know_is_an_error_of_ours(cohort):
    labels = SulcusLabels(cohort, ["central"])
    labels.tables[0] = labels.tables[0][:2]
    with pytest.raises(InputError, match=f"no row for fold .* of {cohort.keys()[0]}: .*folds.tsv"):
        labels[0]


def test_the_sulci_that_nearly_all_have_are_learned_by_default(cohort, run):
    sulci = common_sulci(cohort)
    assert {"lateral_fissure", "superior_temporal"} <= set(sulci)
    assert set(sulci) <= set(BY_NAME)
    assert RunFolder(run).config["model"]["init_args"]["sulci"] == sulci
    asked = resolve_for(cohort, "sulcus_segmenter", ["--model.init_args.sulci", '["central"]'])
    assert asked["model"]["init_args"]["sulci"] == ["central"]


def test_a_cohort_without_names_is_refused(small_cohort, tmp_path, capsys):
    assert train(small_cohort, tmp_path / "run") == 2
    assert "expected sulci to recognise, got none" in capsys.readouterr().err
    assert train(small_cohort, tmp_path / "run", "--model.init_args.sulci", '["S.C."]') == 2
    assert "needs fold labels, and has none" in capsys.readouterr().err


def test_brains_whose_folds_have_no_names_are_not_learned_from(cohort, tmp_path, caplog):
    folder = tmp_path / "cohort"
    shutil.copytree(cohort.folder, folder)
    unnamed = {split: cohort.indices(split)[::2].tolist() for split in ("train", "validation")}
    keys = {row_key(cohort.rows[index]) for indices in unnamed.values() for index in indices}
    rows = [{**row, "name": "n/a" if row_key(row) in keys else row["name"]}
            for row in cohort.fold_table]  # fmt: skip
    write_tsv(folder / FOLD_TABLE, rows, tuple(rows[0]))
    partly, sulci = Cohort.open(folder), ("superior_temporal", "lateral_fissure")
    assert set(sulci) <= set(common_sulci(partly))
    task = SulcusTask(
        SulcusSegmenter(cohort.shape, sulci=sulci, channels=[8], convolutions=[1]), partly
    )
    learned = task.training_indices().tolist()
    assert learned == cohort.indices("train")[1::2].tolist()
    n = len(cohort.indices("train"))
    assert f"{len(unnamed['train'])} of {n} volumes to train on have no fold" in caplog.text
    assert task.validation_indices().tolist() == cohort.indices("validation")[1::2].tolist()
    assert SulciByPlace(partly).indices == learned
    course = SulcusLabels(partly, sulci)[learned[0]] == 2
    assert AtlasTemplate(sulci, SKELETON).fit(partly).share_[2][course].mean() > 0.5


def brain_of_folds():
    """Three sheets; the first is sulcus 1, the others have no name."""
    volume, named = np.ones((20, 20, 20), np.uint8), np.zeros((20, 20, 20), np.uint8)
    folds = named.copy()
    volume[0] = 0
    for fold, i in enumerate((5, 10, 15), start=1):
        volume[i, 4:12, 4:12], folds[i, 4:12, 4:12] = 2, fold
    named[folds == 1] = 1
    return volume, named, folds


def replaced_at(draw, volume, named, folds, prob=1.0, seed=1):
    """A volume, and the sulci of its voxels, as a draw says."""
    item = {"image": volume[None], "sulci": named[None], "folds": folds[None]}
    found = transformed(item, [RandReplaceSulcusd("image", prob=prob)], seed, draw)
    return found["image"][0], found["sulci"][0]


def test_other_folds_take_the_place_of_a_sulcus_and_get_no_name():
    volume, named, folds = brain_of_folds()
    filled = 0
    for draw in range(50):
        new, names = replaced_at(draw, volume, named, folds)
        assert not names.any()
        assert (new[volume == 0] == 0).all()
        assert (new[(folds == 2) | (folds == 3)] == 2).all()
        added = (new == 2) & (volume != 2)
        filled += bool(added.any())
        again, _ = replaced_at(draw, volume, named, folds)
        assert np.array_equal(new, again)
    assert filled == 50
    untouched = [replaced_at(n, volume, named, folds, 0.3, seed=2)[1].any() for n in range(300)]
    assert np.mean(untouched) == pytest.approx(0.7, abs=0.08)
    bare = np.where(folds > 0, 1, volume).astype(np.uint8)
    assert np.array_equal(replaced_at(0, bare, named * 0, folds)[0], bare)


def test_where_every_fold_has_a_name_nothing_takes_the_place_of_a_sulcus():
    volume, named, folds = brain_of_folds()
    named[folds > 0] = 1
    new, names = replaced_at(0, volume, named, folds)
    assert not (new == 2).any()
    assert not names.any()


def test_only_sulcus_voxels_count_in_the_loss():
    torch.manual_seed(0)
    model = SulcusSegmenter((8, 8, 8), sulci=["a", "b"], channels=[8], convolutions=[1])
    rng = np.random.default_rng(0)
    volume = rng.integers(0, 3, (2, 8, 8, 8), np.uint8)
    named = rng.integers(0, 3, volume.shape, np.uint8)
    other = np.where(volume == 2, named, 0).astype(np.uint8)
    losses = [
        model.validation_loss(torch.from_numpy(np.stack([volume, n], axis=1)))
        for n in (named, other)
    ]
    assert torch.equal(*losses)


def test_dice_is_that_of_each_sulcus():
    true = np.array([[[1, 1, 2, 0]]], np.uint8)
    named = np.array([[[1, 0, 2, 2]]], np.uint8)
    assert sulcus_dice(named, true, 3) == pytest.approx([2 / 3, 2 / 3, np.nan], nan_ok=True)


def named_brain(sure=0.9):
    """A sheet of 8 × 6 voxels that is sulcus 1, another of two pieces that is sulcus 2."""
    volume = np.ones((12, 12, 12), np.uint8)
    volume[0] = 0
    volume[4, 2:10, 2:8] = 2
    volume[8, 2:5, 2:8] = 2
    volume[8, 7:10, 2:8] = 2
    places = np.argwhere(volume == 2)
    first = places[:, 0] == 4
    probabilities = np.zeros((3, len(places)), np.float32)
    probabilities[1, first], probabilities[2, ~first] = sure, 1.0
    probabilities[0, first] = 1 - sure
    return NamedBrain(volume, probabilities, SKELETON)


def test_a_sulcus_is_measured_in_mm():
    affine = np.diag([2.0, 2, 2, 1])
    affine[:3, 3] = (-10, 0, 5)
    first, second = (dict(zip(MEASURES, row, strict=True)) for row in named_brain().measure(affine))
    assert first["size_mm2"] == pytest.approx(48 * 0.9 * 4)
    assert first["confidence"] == pytest.approx(0.9)
    assert [first[a] for a in "xyz"] == pytest.approx([-10 + 8, 11, 5 + 9])
    assert first["depth_mm"] == pytest.approx(8)
    assert (first["pieces"], second["pieces"]) == (1, 2)
    assert second["depth_mm"] == pytest.approx(16)


class Named:
    """Names given, a brain each, whatever brains are asked about."""

    sulci = ("first", "second")

    def __init__(self, brains):
        self.brains = brains

    def named(self, brains):
        del brains
        return iter(self.brains)


def test_a_missing_sulcus_stands_out_and_is_named():
    rng = np.random.default_rng(0)
    healthy = [named_brain(rng.uniform(0.85, 1)) for _ in range(20)]
    scores = RecognitionScores(Named(healthy), np.eye(4)).fit([])
    gone = named_brain()
    gone.probabilities[1] = 0.05
    gone.probabilities[0, gone.probabilities[2] == 0] = 0.95
    departures = scores.norms.departures(np.stack([b.measure(np.eye(4)) for b in [*healthy, gone]]))
    missing = departures["missing"]
    assert missing[-1].argmax() == 0
    assert missing[-1, 0] > 5 > np.abs(missing[:-1]).max()
    of_brains = scores.norms.scores(departures)
    assert set(of_brains) == {*SULCUS_DEPARTURES, "missing_panel"}
    assert of_brains["missing"][-1] == missing[-1].max()
    assert scores.norms.panel_.all()
    with pytest.raises(InputError, match=f"at least {MIN_HEALTHY} validation brains, got 3"):
        RecognitionScores(Named(healthy[:3]), np.eye(4)).fit([])


def test_the_atlas_names_by_place(cohort):
    sulci = ("superior_temporal", "lateral_fissure")
    atlas = AtlasTemplate(sulci, SKELETON).fit(cohort)
    index = int(cohort.indices("test")[0])
    (brain,) = atlas.named(cohort.brains([index]))
    true = SulcusLabels(cohort, sulci)[index]
    assert np.nanmean(sulcus_dice(brain.labels, true, 2)) > 0.4
    sulcus, share = SulciByPlace(cohort).likeliest(np.argwhere(true == 2))
    assert sulcus == "lateral_fissure"
    assert share > 0.8
    counts = SulcusCounts().fit(cohort)
    sulcus, commonest = counts.likeliest(np.argwhere(true == 2))
    assert sulcus == "lateral_fissure"
    assert 0.3 < commonest <= share  # of brains that have it at one voxel
    assert counts.likeliest(np.array([[0, 0, 0]])) == ("", 0.0)


def test_recognising_names_voxels_in_the_grid_of_the_input(cohort, run, tmp_path):
    out = tmp_path / "out"
    words = ["label-sulci", run, cohort.folder, "-o", out, "--split", "test", "validation",
             "--device", "cpu"]  # fmt: skip
    assert main([*map(str, words), "--quiet"]) == 0
    rows = read_tsv(out / "sulci.tsv")
    sulci = [row["name"] for row in read_tsv(out / "sulcus_names.tsv")]
    brains = len(cohort.indices("test")) + len(cohort.indices("validation"))
    assert len(rows) == brains * len(sulci)
    assert {row["used_for"] for row in rows} == {"", "calibration"}
    assert all(bool(row["p_missing"]) != bool(row["used_for"]) for row in rows)
    sidecar = read_json(out / "sulci.json")
    assert sidecar["smallest_p"] == 1 / (1 + len(cohort.indices("validation")) // 2)
    key = cohort.keys()[cohort.indices("test")[0]]
    labels = read_labels(out / f"{key}_desc-sulci_dseg.nii.gz")
    original = read_labels(Path(sidecar["labels_in_grid_of"][key]))
    assert np.array_equal(labels.affine, original.affine)
    assert labels.data.shape == original.data.shape
    assert not labels.data[(original.data == 0) | (original.data == 11)].any()
    assert main([*map(str, words), "--quiet"]) == 2


def test_a_brain_that_cannot_be_read_ends_no_other(cohort, run, tmp_path, capsys):
    bad, *others = cohort.indices("test").tolist()
    damaged, out = damage(cohort, tmp_path / "damaged", [bad]), tmp_path / "out"
    words = ["label-sulci", run, damaged, "-o", out, "--split", "test", "--device", "cpu"]
    assert main([*map(str, words), "--quiet"]) == 1
    assert f"{cohort.keys()[bad]}: class number 99" in capsys.readouterr().err
    keys = {row_key(row) for row in read_tsv(out / "sulci.tsv")}
    assert keys == {cohort.keys()[n] for n in others}
    assert {path.name.split("_desc")[0] for path in out.glob("*_dseg.nii.gz")} == keys
    (failed,) = read_json(out / "run_report.json")["failed"]
    assert failed["volume"] == cohort.keys()[bad]


def test_a_file_is_prepared_as_the_training_cohort_was(cohort, many_phantoms, run, tmp_path):
    index = int(cohort.indices("test")[0])
    participant = cohort.rows[index]["participant_id"].removeprefix("sub-")
    source = next(many_phantoms.rglob(f"Lskeleton_{participant}.nii.gz"))
    words = ["label-sulci", run, source, "-o", tmp_path / "a", "--device", "cpu", "--quiet"]
    assert main(list(map(str, words))) == 0
    prepared = Cohort.open(tmp_path / "a/prepared")
    assert np.array_equal(prepared.volumes[0], cohort.volumes[index])
    words = ["label-sulci", run, cohort.folder, "-o", tmp_path / "b", "--device", "cpu", "--quiet"]
    assert main(list(map(str, words))) == 0
    whole = {(r["participant_id"], r["sulcus"]): r for r in read_tsv(tmp_path / "b/sulci.tsv")}
    for row in read_tsv(tmp_path / "a/sulci.tsv"):
        twin = whole[cohort.rows[index]["participant_id"], row["sulcus"]]
        assert float(row["size_mm2"]) == pytest.approx(float(twin["size_mm2"]), rel=1e-4)


def test_a_file_whose_directions_are_assumed_is_labelled_in_its_grid(
    cohort, many_phantoms, run, tmp_path
):
    participant = cohort.rows[0]["participant_id"].removeprefix("sub-")
    source = next(many_phantoms.rglob(f"Lskeleton_{participant}.nii.gz"))
    image = nibabel.load(source)
    image.set_sform(None, 0)
    image.set_qform(None, 0)
    nibabel.save(image, tmp_path / "sub-a.nii.gz")
    words = ["label-sulci", run, tmp_path / "sub-a.nii.gz", "-o", tmp_path / "out", "--quiet",
             "--device", "cpu"]  # fmt: skip
    assert main(list(map(str, words))) == 2
    assert main([*map(str, words), "--assume", "ras"]) == 0
    given = read_labels(tmp_path / "sub-a.nii.gz", assume="ras")
    (made,) = (tmp_path / "out").glob("*_desc-sulci_dseg.nii.gz")
    assert read_labels(made).data.shape == given.data.shape
    assert read_labels(made).affine == pytest.approx(given.affine)


def test_nonsense_is_refused(cohort, run, small_run, tmp_path, capsys):
    (tmp_path / "empty.nii.gz").write_bytes(b"no volume")
    for words, said in (
        ([small_run, cohort.folder], "recognises no sulci"),
        ([run, tmp_path / "none"], "no such file or folder"),
        ([run, tmp_path / "empty.nii.gz"], "could be prepared"),
        ([run, tmp_path / "empty.nii.gz", "--split", "test"], "--split requires a cohort"),
    ):
        words = [
            "label-sulci",
            words[0],
            words[1],
            "-o",
            tmp_path / "out",
            *words[2:],
            "--device",
            "cpu",
        ]
        if words[1] == small_run:
            words += ["--reference", RunFolder(small_run).data["cohort"]]
        assert main(list(map(str, words))) == 2
        assert said in capsys.readouterr().err


def test_sulci_are_scored_beside_the_atlas(cohort, run, tmp_path):
    words = [
        "score",
        run,
        cohort.folder,
        "-o",
        tmp_path / "s",
        "--split",
        "test",
        "--device",
        "cpu",
    ]
    assert main([*map(str, words), "--quiet"]) == 0
    rows = read_tsv(tmp_path / "s/scores.tsv")
    kinds = ("missing", "large", "displaced", "interrupted", "missing_panel")
    for prefix in ("sulci", "baseline_atlas"):
        assert {f"p_{prefix}_{kind}" for kind in kinds} < set(rows[0])


def test_a_saved_scorer_of_sulci_gives_what_the_fitted_one_gave(cohort, run, tmp_path):
    scorer, tables = tmp_path / "scorer", []
    for model, more in ((run, ["--save-scorer", scorer]), (scorer, [])):
        out = tmp_path / f"of_{model.name}"
        words = [
            "score",
            model,
            cohort.folder,
            "-o",
            out,
            "--split",
            "test",
            "--device",
            "cpu",
            "--maps",
        ]
        assert main([*map(str, [*words, *more]), "--quiet"]) == 0
        tables.append((out / "scores.tsv").read_bytes())
    assert tables[0] == tables[1]
    assert b"score_baseline_atlas_missing" in tables[0]
    rows = read_tsv(out / "regions.tsv")
    assert any(0 < float(row["sulcus_share"]) <= 1 for row in rows)


def test_the_report_shows_sulci_scores_and_joined_scores(cohort, run, tmp_path):
    words = ["label-sulci", run, cohort.folder, "-o", tmp_path / "named", "--split", "test"]
    assert main([*map(str, words), "--device", "cpu", "--quiet"]) == 0
    restorer = tmp_path / "restorer"
    words = ["train", "restorer", cohort.folder, "-o", restorer, *SMALL]
    assert main([*map(str, words), "--quiet"]) == 0
    for model, more in ((run, []), (restorer, ["--maps"])):
        words = [
            "score",
            model,
            cohort.folder,
            "-o",
            tmp_path / f"s_{model.name}",
            "--split",
            "test",
        ]
        assert main([*map(str, words), *more, "--device", "cpu", "--quiet"]) == 0
    scores = [tmp_path / "s_run", tmp_path / "s_restorer"]
    assert main(["combine", *map(str, scores), "-o", str(tmp_path / "joined"), "--quiet"]) == 0
    rows = read_tsv(tmp_path / "joined/fused.tsv")
    assert len(rows) == len(cohort.indices("test"))
    assert {"p_sulci_missing", "p_evidence_component", "p_fused", "q_fused"} < set(rows[0])
    out = tmp_path / "report.html"
    folders = [run, restorer, tmp_path / "named", *scores, tmp_path / "joined"]
    assert main(["report", *map(str, folders), "-o", str(out)]) == 0
    page = out.read_text()
    assert page.count("These are research figures, not a diagnosis.") == 4
    for said in ("Sulci that depart most", "Joined scores", "something was erased"):
        assert said in page
    with pytest.raises(InputError, match="SulcusSegmenter makes no volume to show"):
        ViewedModel.open(run, "cpu")


def test_a_resumed_recogniser_equals_an_unbroken_one(cohort, run, tmp_path):
    out = tmp_path / "run"
    assert train(cohort, out, "--training.session_steps", "3") == 75
    assert train(cohort, out, "--resume", "auto") == 0
    whole, parts = (RunFolder(r).load_checkpoint("last")["model"] for r in (run, out))
    for key, tensor in whole.items():
        assert torch.equal(tensor, parts[key]), key


def test_names_move_with_the_volume(cohort, tmp_path):
    moved = ["--training.augmentation.shift", "2", "--model.init_args.substitutes", "0"]
    config = resolve_for(cohort, "sulcus_segmenter", [*SMALL[:4], *moved])
    training = set_up(config, cohort, tmp_path, fabric=launch("cpu"), resume=False)
    for volume, named in training.batches.batch(0).numpy():
        inner = (slice(2, -2),) * 3
        assert (volume[inner][named[inner] > 0] == 2).all()
        assert named.any()
    training.batches.close()


def test_a_trained_model_names_what_it_says_it_names():
    model = SulcusSegmenter((6, 6, 6), sulci=["a", "b"], channels=[8], convolutions=[1])
    recognition = NetworkLabeller(TrainedModel(model.eval(), torch.device("cpu")), SKELETON)
    volume = np.random.default_rng(0).integers(0, 3, (6, 6, 6), np.uint8)
    (brain,) = recognition.named([Brain(volume, {})])
    assert recognition.sulci == ("a", "b")
    assert brain.probabilities.sum(axis=0) == pytest.approx(np.ones((volume == 2).sum()), abs=1e-5)
    assert not brain.labels[volume != 2].any()


def test_an_exported_recogniser_names_sulci_as_the_run_does(cohort, run, tmp_path):
    bundle = tmp_path / "bundle"
    assert main(["export", str(run), "-o", str(bundle), "--quiet"]) == 0
    verify_net_in_out(
        "network_def", meta_file=str(bundle / "configs/metadata.json"),
        config_file=str(bundle / "configs/inference.json"), device="cpu",
        bundle_root=str(bundle),
    )  # fmt: skip
    model = RunFolder.open(run).load().model
    described = read_json(bundle / "configs/metadata.json")["network_data_format"]["outputs"]
    assert list(described["pred"]["channel_def"].values()) == ["none", *model.sulci]
    volumes = torch.from_numpy(np.array(cohort.volumes[:2]))
    with torch.no_grad():
        named = to_classes(BundleNetwork(bundle)(volumes[:, None]))
        expected = recognise(model, volumes, cohort.scheme)
    assert torch.equal(named, expected)
    told = [tmp_path / name for name in ("of_run", "of_bundle")]
    for source, out in zip((run, bundle), told, strict=True):
        words = [
            "label-sulci",
            source,
            cohort.folder,
            "-o",
            out,
            "--reference",
            cohort.folder,
            "--quiet",
        ]
        assert main(list(map(str, words))) in (0, 1)  # toys may be flagged
    first, second = ((out / "sulci.tsv").read_text() for out in told)
    assert first == second
