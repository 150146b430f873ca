"""A trained model as a MONAI bundle: it gives what the run gives, and tells nobody's name."""

import shutil
import subprocess
import sys

import nibabel
import numpy as np
import pytest
import torch
from conftest import TINY_TRAINING, skeleton_source, skeleton_volume
from monai.bundle import run as run_bundle
from monai.bundle import verify_net_in_out
from test_vnet import pair_cohort, run  # noqa: F401  # fixtures

from foldnorm.models.classes import to_classes
from foldnorm.pipeline.bundle.fine_tuning import FineTuning
from foldnorm.pipeline.bundle.volumes import (
    BundleNetwork,
    PreparedVolumed,
    _label_steps,
    volumes_in,
)
from foldnorm.pipeline.cli import main
from foldnorm.pipeline.runs.config import resolve_for
from foldnorm.pipeline.runs.run_folder import RunFolder
from foldnorm.pipeline.training.distributed import launch
from foldnorm.pipeline.training.setup import set_up
from foldnorm.preprocessing.cohort.cohort import Cohort
from foldnorm.preprocessing.cohort.cohort_files import write_participants
from foldnorm.preprocessing.core.errors import InputError
from foldnorm.preprocessing.core.files import read_json

CONFIGS = ("configs/inference.json", "configs/metadata.json")


def by_monai(bundle, source, out, **more):
    """Files that MONAI makes of a source with a bundle."""
    run_bundle(
        config_file=str(bundle / CONFIGS[0]), meta_file=str(bundle / CONFIGS[1]),
        bundle_root=str(bundle), dataset_dir=str(source), output_dir=str(out),
        device=torch.device("cpu"), **more,
    )  # fmt: skip
    return sorted(out.iterdir())


@pytest.fixture(scope="module")
def bundle(small_run, tmp_path_factory):
    out = tmp_path_factory.mktemp("exported") / "bundle"
    assert main(["export", str(small_run), "-o", str(out), "--quiet"]) == 0
    return out


def test_monai_verifies_it(bundle):
    inference, metadata = (str(bundle / name) for name in CONFIGS)
    verify_net_in_out(
        "network_def", meta_file=metadata, config_file=inference, device="cpu",
        bundle_root=str(bundle),
    )  # fmt: skip
    described = read_json(bundle / CONFIGS[1])
    assert described["network_data_format"]["inputs"]["image"]["spatial_shape"] == [16, 16, 16]
    classes = described["network_data_format"]["outputs"]["pred"]["channel_def"]
    assert list(classes.values()) == ["outside", "inside", "sulcus"]


def test_monai_runs_it_on_files(bundle, small_run, small_cohort, tmp_path):
    source = skeleton_source(tmp_path / "source", 2)
    made = {path.name: nibabel.load(path) for path in by_monai(bundle, source, tmp_path / "out")}
    assert sorted(made) == ["sub-s00_pred.nii.gz", "sub-s01_pred.nii.gz"]
    volume = torch.from_numpy(np.array(small_cohort.volumes[:1]))
    assert small_cohort.rows[0]["participant_id"] == "sub-s00"
    model = RunFolder.open(small_run).load().model
    with torch.no_grad():
        decoded = to_classes(model.decode(model.encode(volume)))[0].numpy()
    expected = small_cohort.scheme.canonical_values[decoded]
    assert np.array_equal(np.asarray(made["sub-s00_pred.nii.gz"].dataobj), expected)
    apart = made["sub-s00_pred.nii.gz"].affine - small_cohort.affine
    assert np.abs(apart).max() <= 0.75 + 1e-6  # half a voxel: a packed volume lies on a lattice


def test_values_of_classes_choose_the_type_of_what_monai_writes():
    types = {tuple(v): _label_steps(v)[-1]["output_dtype"] for v in ([0, 60], [-1, 1], [0, 70000])}
    assert list(types.values()) == ["$np.uint8", "$np.int16", "$np.int32"]


def test_monai_is_told_directions_that_no_header_says(bundle, tmp_path, capsys):
    source = tmp_path / "source"
    source.mkdir()
    volume = skeleton_volume()
    for name, data in (("ras", volume), ("las", volume[::-1])):
        image = nibabel.Nifti1Image(data, None)
        image.header.set_zooms((1, 1, 1))
        nibabel.save(image, source / f"sub-{name}.nii.gz")
    with pytest.raises(RuntimeError):  # MONAI's, of our line
        by_monai(bundle, source, tmp_path / "refused")
    made = {}
    for assume in ("ras", "las"):
        for path in by_monai(bundle, source, tmp_path / assume, assume=assume):
            made[assume, path.name[4:7]] = np.asarray(nibabel.load(path).dataobj)
        assert f"assumed to run {assume}" in capsys.readouterr().out  # as its logging.conf says
    assert np.array_equal(made["ras", "ras"], made["las", "las"])
    prepared = [
        PreparedVolumed("image", bundle)(volumes_in(bundle, source, assume)[0])["image"]
        for assume in ("ras", "las")
    ]
    assert not torch.equal(*prepared)


def test_monai_runs_a_translation_in_windows(run, tmp_path):  # noqa: F811
    bundle, source = tmp_path / "bundle", skeleton_source(tmp_path / "source", 1)
    assert main(["export", str(run), "-o", str(bundle), "--quiet"]) == 0
    (path,) = by_monai(bundle, source, tmp_path / "out")
    assert set(np.unique(np.asarray(nibabel.load(path).dataobj))) <= {0, 100, 200}
    words = ["translate", str(bundle), str(source), "-o", str(tmp_path / "ours"), "--quiet"]
    assert main(words) == 0


def test_it_takes_the_place_of_the_run(bundle, small_run, small_cohort, tmp_path):
    codes = []
    for n, model in enumerate((small_run, bundle)):
        out = tmp_path / str(n)
        assert main(["embed", str(model), str(small_cohort.folder), "-o", str(out), "--quiet",
                     "--device", "cpu"]) == 0  # fmt: skip
        codes.append(np.load(out / "codes.npy"))
    assert np.array_equal(*codes)
    words = [
        "score",
        str(bundle),
        str(small_cohort.folder),
        "-o",
        str(tmp_path / "scores"),
        "--quiet",
    ]
    assert main([*words, "--reference", str(small_cohort.folder)]) == 0
    assert main(["report", str(bundle), "-o", str(tmp_path / "report.html"), "--quiet"]) == 0


def test_volumes_are_prepared_like_its_training_cohort(bundle, small_cohort, tmp_path):
    source = skeleton_source(tmp_path / "source", 2)
    made = []
    for n, like in enumerate((bundle, small_cohort.folder)):
        out = tmp_path / str(n)
        words = [
            "preprocess",
            str(source),
            "-o",
            str(out),
            "--layout-from",
            str(like),
            "--n-procs",
            "1",
        ]
        assert main([*words, "--split-fractions", "0", "0", "1", "--quiet"]) == 0
        made.append(np.array(Cohort.open(out).volumes))
    assert np.array_equal(*made)


def test_no_name_and_no_path_is_in_it(bundle, small_cohort):
    content = b"".join(path.read_bytes() for path in bundle.rglob("*") if path.is_file())
    assert str(small_cohort.folder).encode() not in content
    for row in small_cohort.rows:
        assert row["participant_id"].encode() not in content
    training = [small_cohort.rows[i]["participant_id"] for i in small_cohort.indices("train")]
    everyone = [row["participant_id"] for row in small_cohort.rows]
    assert RunFolder.open(bundle).trained_on(everyone) == sorted(training)


def test_a_score_needs_the_training_cohort(bundle, small_cohort, tmp_path, capsys):
    words = ["score", str(bundle), str(small_cohort.folder), "-o", str(tmp_path / "scores")]
    assert main(words) == 2
    assert "exported model; say where the training cohort is with --reference" in (
        capsys.readouterr().err
    )


def test_it_does_not_overwrite_unasked(bundle, small_run, capsys):
    assert main(["export", str(small_run), "-o", str(bundle)]) == 2
    assert "metadata.json" in capsys.readouterr().err


def test_broken_weights_are_one_line(bundle, small_run, small_cohort, tmp_path, capsys):
    broken = tmp_path / "bundle"
    assert main(["export", str(small_run), "-o", str(broken), "--quiet"]) == 0
    weights = broken / "models/model.safetensors"
    weights.write_bytes(weights.read_bytes()[:200])
    words = ["embed", str(broken), str(small_cohort.folder), "-o", str(tmp_path / "codes")]
    assert main(words) == 2
    assert "not readable as safetensors" in capsys.readouterr().err


def test_what_it_is_not_told_about_is_refused(bundle):
    with pytest.raises(InputError, match="given: the model is told nothing, not age"):
        BundleNetwork(bundle, {"age": 30})


@pytest.fixture
def elsewhere(small_cohort, tmp_path):
    """The same volumes of other people."""
    shutil.copytree(small_cohort.folder, tmp_path / "elsewhere")
    rows = [{**r, "participant_id": f"{r['participant_id']}x"} for r in small_cohort.rows]
    write_participants(tmp_path / "elsewhere", rows)
    return Cohort.open(tmp_path / "elsewhere")


def trained_by_monai(bundle, out, **words):
    """Run folder of a training that MONAI went on with for two steps."""
    run_bundle(
        run_id="training", config_file=str(bundle / "configs/train.json"),
        bundle_root=str(bundle), output_dir=str(out), device=torch.device("cpu"),
        steps=2, batch_size=2, **words,
    )  # fmt: skip
    return RunFolder.open(out / "run")


def test_monai_trains_it_further_on_a_cohort(bundle, small_cohort, elsewhere, tmp_path):
    further = trained_by_monai(bundle, tmp_path, dataset_dir=str(elsewhere.folder))
    assert further.load_checkpoint("last")["state"]["step"] == 2
    options = further.config["training"]
    assert (options["learning_rate"], options["batch_size"]) == (2e-4, 2)
    known = RunFolder.open(bundle).load().model.state_dict()
    moved = {n: (t - known[n]).abs().max() for n, t in further.load().model.state_dict().items()}
    assert 0 < max(moved.values()) < 0.01  # from these weights, not from new ones
    everyone = people(small_cohort) + people(elsewhere)
    seen = sorted(people(small_cohort, "train") + people(elsewhere, "train"))
    assert further.trained_on(everyone) == seen


def test_monai_trains_it_further_on_dictionaries(bundle, tmp_path):
    volumes = sorted(skeleton_source(tmp_path / "source", 8).iterdir())
    datalist = [
        {"image": str(path), "participant_id": f"new{n}", "age": 30 + n}
        for n, path in enumerate(volumes)
    ]
    further = trained_by_monai(bundle, tmp_path / "out", datalist=datalist)
    cohort = Cohort.open(tmp_path / "out/cohort")
    assert [row["participant_id"] for row in cohort.rows] == [f"sub-new{n}" for n in range(8)]
    assert cohort.rows[3]["age"] == "33"
    assert further.load_checkpoint("last")["state"]["step"] == 2


def test_a_dictionary_without_a_volume_is_refused(bundle, tmp_path):
    training = FineTuning(bundle, "", tmp_path, datalist=[{"label": "x.nii.gz"}])
    with pytest.raises(InputError, match="expected a path under 'image'"):
        training.run()


@pytest.mark.slow
def test_the_command_that_its_readme_names_trains_it(bundle, elsewhere, tmp_path):
    out = tmp_path / "out"
    words = ["--config_file", "configs/train.json", "--logging_file", "configs/logging.conf",
             "--dataset_dir", elsewhere.folder, "--output_dir", out, "--steps", "1",
             "--batch_size", "2"]  # fmt: skip
    command = [sys.executable, "-m", "monai.bundle", "run", "training", *map(str, words)]
    subprocess.run(command, check=True, cwd=bundle)
    assert RunFolder.open(out / "run").load_checkpoint("last")["state"]["step"] == 1


def test_terms_are_named(small_run, bundle, tmp_path):
    words = ["--licence", "CC-BY-4.0", "--data-terms", "of the Mindboggle-101 data"]
    assert main(["export", str(small_run), "-o", str(tmp_path), "--quiet", *words]) == 0
    named, unnamed = (read_json(folder / CONFIGS[1]) for folder in (tmp_path, bundle))
    assert (named["license"], named["data_license"]) == ("CC-BY-4.0", words[3])
    assert (unnamed["license"], unnamed["data_license"]) == ("not named", "not named")
    assert "CC-BY-4.0" in (tmp_path / "LICENSE").read_text()
    assert words[3] in (tmp_path / "docs/data_license.txt").read_text()


def people(cohort, *splits):
    return sorted(cohort.rows[i]["participant_id"] for i in cohort.indices(*splits))


def test_training_starts_from_the_weights_of_a_run_or_a_bundle(
    small_run, small_cohort, bundle, elsewhere, tmp_path
):
    words = ["--device", "cpu", "--quiet", *TINY_TRAINING]
    everyone = people(small_cohort) + people(elsewhere)
    seen = sorted(people(small_cohort, "train") + people(elsewhere, "train"))
    config = resolve_for(elsewhere, "wgan_gp", TINY_TRAINING)
    known = RunFolder.open(small_run).load().model.state_dict()
    for source in (small_run, bundle):
        out = tmp_path / source.name
        training = set_up(
            config, elsewhere, out, fabric=launch("cpu"), resume=False, weights=source
        )
        training.batches.close()
        assert all(torch.equal(t, known[n]) for n, t in training.model.state_dict().items())
        assert RunFolder(out).trained_on(everyone) == seen
    out, again = tmp_path / "out", tmp_path / "again"
    asked = ["train", "wgan_gp", elsewhere.folder, "-o", out, "--weights", bundle, *words]
    assert main(list(map(str, asked))) == 0
    assert main(["export", str(out), "-o", str(again), "--quiet"]) == 0
    assert RunFolder.open(again).trained_on(everyone) == seen
    card = (out / "MODEL_CARD.md").read_text(encoding="utf-8")
    earlier = len(people(small_cohort, "train"))
    assert f"starting from weights that {earlier} other participants had given" in card
    text = (again / "data.json").read_text(encoding="utf-8")
    assert not any(name in text for name in everyone)


def test_weights_that_know_held_out_brains_or_another_model_are_refused(
    small_run, small_cohort, elsewhere, tmp_path, capsys
):
    swap = {"train": "test", "test": "train"}
    rows = [{**r, "split": swap.get(r["split"], r["split"])} for r in small_cohort.rows]
    write_participants(elsewhere.folder, rows)
    words = ["-o", tmp_path / "run", "--weights", small_run, "--device", "cpu", "--quiet",
             *TINY_TRAINING]  # fmt: skip
    assert main(list(map(str, ["train", "wgan_gp", elsewhere.folder, *words]))) == 2
    count = len(people(small_cohort, "train"))
    assert f"not trained on, got {count} that it was (such as sub-" in capsys.readouterr().err
    other = ["--model.init_args.code_channels", "3"]
    assert main(list(map(str, ["train", "wgan_gp", small_cohort.folder, *words, *other]))) == 2
    assert "(differs in code_channels)" in capsys.readouterr().err
    assert not (tmp_path / "run/config.yaml").exists()
