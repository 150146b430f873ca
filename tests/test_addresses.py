"""Addresses of classes that are written into files: they stay, and the old ones still open."""

import importlib
import inspect
import json
import pydoc
import shutil
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
import yaml
from monai.bundle import ConfigParser

import foldnorm.bundle
import foldnorm.models
import foldnorm.pipeline
from foldnorm.models.classes import to_classes
from foldnorm.pipeline.artifacts import BUNDLE_INFERENCE, RUN_CONFIG, RUN_DATA
from foldnorm.pipeline.cli import main
from foldnorm.pipeline.runs.class_paths import current_class_path
from foldnorm.pipeline.runs.config import config_path, resolve, shipped_configs
from foldnorm.pipeline.runs.old_names import CONFIGS, KEYS, current_config, current_word
from foldnorm.pipeline.runs.options import TrainingOptions
from foldnorm.pipeline.runs.run_folder import RunFolder
from foldnorm.preprocessing.cohort.cohort import Cohort

# A cohort of six phantoms, a run of one step on it, and its bundle, as release 0.1 wrote them.
OLD = Path(__file__).parent / "data/release_0.1"
OLD_TARGETS = (
    "foldnorm.pipeline.bundle_of_images.ImageNetwork",
    "foldnorm.pipeline.bundle_of_images.PreparedImaged",
    "foldnorm.pipeline.bundle_of_images.WrittenImaged",
    "foldnorm.pipeline.bundle_of_images.images_in",
    "foldnorm.pipeline.bundle_of_volumes.BundleNetwork",
    "foldnorm.pipeline.bundle_of_volumes.LabelValuesd",
    "foldnorm.pipeline.bundle_of_volumes.PreparedVolumed",
    "foldnorm.pipeline.bundle_of_volumes.volumes_in",
    "foldnorm.pipeline.bundle_parts.ToldClassd",
)

BASES = {"ConvolutionalGAN", "Diffusion", "EditedVolumes", "EncoderGAN", "LabelAutoencoder",
         "ImageMixin", "LatentStage", "VariationalAutoencoder"}  # fmt: skip


@pytest.fixture
def cohort():
    return Cohort.open(OLD / "cohort")


@pytest.fixture
def run(tmp_path):
    """The old run; its weights are kept as safetensors, in the bundle."""
    folder = Path(shutil.copytree(OLD / "run", tmp_path / "run"))
    weights = safetensors.torch.load_file(OLD / "bundle/models/model.safetensors")
    RunFolder(folder).save_checkpoint("last", {"model": weights})
    return folder


def arguments_of(name):
    """Arguments of a model's class and of its bases, which `**others` takes."""
    bases = getattr(foldnorm.models, name).__mro__
    return {p for base in bases if hasattr(base, "phase_order") or base.__name__ in BASES
            for p in inspect.signature(base.__init__).parameters}  # fmt: skip


def at(address):
    """What MONAI finds there: `monai.utils.instantiate` looks it up like this."""
    return pydoc.locate(address)


def targets(content):
    """Every ``_target_`` of ours in an ``inference.json``."""
    if isinstance(content, dict):
        own = content.get("_target_", "")
        found = [own] if own.startswith("foldnorm") else []
        return found + [t for value in content.values() for t in targets(value)]
    return [t for part in content for t in targets(part)] if isinstance(content, list) else []


@pytest.mark.parametrize("folder", ["run", "bundle"])
def test_an_old_run_and_an_old_bundle_give_the_same_numbers(folder, run, cohort):
    opened = RunFolder.open(run if folder == "run" else OLD / "bundle")
    assert "wgan_gp.WGANGP" in (opened.folder / RUN_CONFIG).read_text()  # an old address
    opened.check_cohort(cohort)
    trained = opened.load()
    codes = trained.encode(cohort.brains(cohort.indices()))
    assert np.allclose(codes, np.load(OLD / "codes.npy"), atol=1e-5)
    with torch.no_grad():
        made = to_classes(trained.model.decode(torch.from_numpy(codes)))
    assert np.array_equal(made.numpy(), np.load(OLD / "reconstructions.npy"))


def test_monai_builds_what_an_old_bundle_names(cohort):
    content = json.loads((OLD / "bundle" / BUNDLE_INFERENCE).read_text())
    assert set(targets(content)) <= set(OLD_TARGETS)
    parser = ConfigParser({**content, "bundle_root": str(OLD / "bundle")})
    with torch.no_grad():
        logits = parser.get_parsed_content("network_def")(
            torch.from_numpy(np.array(cohort.volumes))[:, None]
        )
    assert np.array_equal(to_classes(logits).numpy(), np.load(OLD / "reconstructions.npy"))
    parser.get_parsed_content("preprocessing")
    for address in OLD_TARGETS:
        assert at(address) is at(f"foldnorm.bundle.{address.rpartition('.')[2]}")


def test_an_old_run_is_continued_and_one_is_started_from_its_weights(run, cohort, tmp_path):
    words = ["train", str(run / RUN_CONFIG), str(cohort.folder), "--quiet",
             "--device", "cpu", "--weights", str(run), "-o", str(tmp_path / "new")]  # fmt: skip
    assert main(words) == 0
    model = yaml.safe_load((tmp_path / "new" / RUN_CONFIG).read_text())["model"]
    assert model["class_path"] == "foldnorm.models.WGANGP"
    RunFolder(run).check_model(model)


def test_an_old_record_says_whom_the_first_weights_were_fitted_to(run):
    record = json.loads((run / RUN_DATA).read_text())
    earlier = {"participants": ["sub-earlier"], "salt": None}
    (run / RUN_DATA).write_text(json.dumps({**record, "before": [earlier]}))
    opened = RunFolder.open(run)
    assert opened.training_participants[1:] == [earlier]
    assert opened.trained_on(["sub-earlier", "sub-other"]) == ["sub-earlier"]


@pytest.mark.parametrize("words", [[], ["--model", "foldnorm.models.wgan.WGAN"],
                                   ["--model.class_path=foldnorm.models.wgan.WGAN"]])  # fmt: skip
def test_an_old_configuration_resolves_to_the_new_address(words, tmp_path):
    new = config_path("wgan_gp").read_text()
    path = tmp_path / "old.yaml"
    path.write_text(new.replace("models.WGANGP", "models.wgan_gp.WGANGP"))
    assert path.read_text() != new
    told = [resolve(str(p), words, shape=(16,) * 3, n_classes=3) for p in (path, "wgan_gp")]
    assert told[0] == told[1]
    expected = "WGAN" if words else "WGANGP"
    assert told[0]["model"]["class_path"] == f"foldnorm.models.{expected}"


def test_every_old_key_has_a_new_one_that_is_known():
    arguments = {p for name in foldnorm.models.__all__ for p in arguments_of(name)}
    known = {"model": arguments, "training": {f.name for f in fields(TrainingOptions)}}
    for section, keys in KEYS.items():
        assert set(keys.values()) <= known[section]
        assert not set(keys) & known[section]
    assert set(CONFIGS.values()) <= set(shipped_configs())
    assert not set(CONFIGS) & set(shipped_configs())


@pytest.mark.parametrize(
    ("name", "model", "training"),
    [
        ("restorer", {"most_edits": 2}, {}),
        ("autoencoder", {"encoder_sees": "distance"}, {}),
        ("wgan_gp", {}, {"learning_rate_of": {"critic": 0.5}}),
        ("damage_unet", {"most_damage": 3, "scanned": 0.25, "mirrors": False}, {}),
        ("multi_domain_vae", {"form": "plain", "truly_damaged": "state=old"}, {}),
    ],
)
def test_old_keys_resolve_to_new_ones(name, model, training, tmp_path, caplog):
    size = {"shape": (16, 16) if name in ("damage_unet", "multi_domain_vae") else (16,) * 3,
            "n_classes": None if len(model) > 1 else 3}  # fmt: skip
    content = yaml.safe_load(config_path(name).read_text())
    path = tmp_path / "old.yaml"
    new = {KEYS["model"][key] for key in model}
    kept = {k: v for k, v in content["model"]["init_args"].items() if k not in new}
    content["model"]["init_args"] = {**kept, **model}
    content["training"] = {
        **{k: v for k, v in content["training"].items() if k != "learning_rates" or not training},
        **training,
    }
    path.write_text(yaml.safe_dump(content))
    from_file = resolve(str(path), [], **size)
    for key, value in model.items():
        assert from_file["model"]["init_args"][KEYS["model"][key]] == value
    for key, value in training.items():
        assert from_file["training"][KEYS["training"][key]] == value
    words = [f"--model.init_args.{key}={json.dumps(v).strip(chr(34))}" for key, v in model.items()]
    words += [f"--training.{key}={json.dumps(value)}" for key, value in training.items()]
    assert not caplog.messages  # a file may stay as it is
    assert resolve(name, words, **size) == from_file
    assert [message.partition("=")[0] for message in caplog.messages] == [
        word.partition("=")[0] for word in words
    ]
    assert all("; the old form goes with release 0.3" in message for message in caplog.messages)


def test_the_autoencoder_of_a_latent_diffusion_may_be_told_as_before(tmp_path, caplog):
    new = yaml.safe_load(config_path("latent_ddpm").read_text())
    given = dict(new["model"]["init_args"])
    (stage,) = [given.pop("first_stage")["init_args"]]
    told = {"encoder_channels": stage.pop("channels"), **stage}
    path = tmp_path / "old.yaml"
    model = {**new["model"], "init_args": {**told, **given}}
    path.write_text(yaml.safe_dump({**new, "model": model}))
    size = {"shape": (16,) * 3, "n_classes": 3}
    assert resolve(str(path), [], **size) == resolve("latent_ddpm", [], **size)
    assert not caplog.messages
    words = ["--model.init_args.encoder_channels", "[8]", "--model.init_args.kl_weight=0.1"]
    found = resolve("latent_ddpm", words, **size)["model"]["init_args"]["first_stage"]
    assert found["class_path"] == "foldnorm.models.BetaVAE"
    assert found["init_args"] == {"channels": [8], "code_channels": 10, "kl_weight": 0.1,
                                  "free_nats": 0.0}  # fmt: skip
    assert "now --model.init_args.first_stage.init_args.channels" in caplog.messages[0]
    of_others = resolve("beta_vae", ["--model.init_args.kl_weight=0.1"], **size)
    assert of_others["model"]["init_args"]["kl_weight"] == 0.1


def test_keys_of_a_class_that_is_not_ours_are_left_alone():
    model = {"class_path": "lab.Network", "init_args": {"mirrors": 1}}
    assert current_config({"model": model, "training": {}}) == {"model": model, "training": {}}
    assert current_word("--model.init_args.mirrors=1", "lab.Network").endswith(".mirrors=1")


def test_an_old_name_of_a_configuration_and_of_a_class_is_known(caplog):
    assert config_path("recogniser") == config_path("sulcus_segmenter")
    (message,) = caplog.messages
    assert message.startswith("recogniser is now sulcus_segmenter; ")
    for old in ("foldnorm.models.Recogniser", "foldnorm.models.recogniser.Recogniser"):
        assert current_class_path(old) == "foldnorm.models.SulcusSegmenter"


def test_a_model_that_has_moved_is_found():
    assert current_class_path("foldnorm.models.no_such_module.WGANGP") == "foldnorm.models.WGANGP"
    assert current_class_path("foldnorm.models.WGANGP") == "foldnorm.models.WGANGP"
    for other in ("study_network.WGANGP", "foldnorm.models.wgan_gp.NoModel", "WGANGP", ""):
        assert current_class_path(other) == other


@pytest.mark.parametrize("name", shipped_configs())
def test_shipped_configurations_hold_addresses_that_stay(name):
    class_path = yaml.safe_load(config_path(name).read_text())["model"]["class_path"]
    package, _, model = class_path.rpartition(".")
    assert package == "foldnorm.models"
    assert model in foldnorm.models.__all__


def test_every_model_is_exported():
    for path in Path(foldnorm.models.__path__[0]).glob("*.py"):
        module = importlib.import_module(f"foldnorm.models.{path.stem}")
        for name, kind in vars(module).items():
            if isinstance(kind, type) and kind.__module__ == module.__name__:
                is_model = hasattr(kind, "input_kind") and issubclass(kind, torch.nn.Module)
                if is_model and name not in BASES:
                    assert getattr(foldnorm.models, name) is kind
    assert all(hasattr(getattr(foldnorm.models, n), "loss") for n in foldnorm.models.__all__)


def test_modules_that_old_bundles_name_have_moved_and_no_others_are_made_up():
    named = {address.split(".")[2] for address in OLD_TARGETS}
    assert named == set(foldnorm.pipeline.MOVED)
    for name in named:
        assert not (Path(foldnorm.pipeline.__path__[0]) / f"{name}.py").exists()
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        foldnorm.pipeline.nonsense  # noqa: B018


def test_the_address_of_a_bundle_is_complete():
    since = {"FineTuning"}  # release 0.1 had no such part
    old = {target.rpartition(".")[2] for target in OLD_TARGETS}
    assert old | since == set(foldnorm.bundle.__all__)
