"""Files of somebody else: they run no code, name no file outside, and take no endless memory."""

import io
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import yaml
from test_models import small_latent
from torch import nn

from foldnorm.models import class_paths
from foldnorm.models.grids import ShapeError
from foldnorm.models.latent_ddpm import LatentDDPM
from foldnorm.models.weight_limit import limited_weights
from foldnorm.pipeline.artifacts import PAGE_ARRAYS, TRANSLATED
from foldnorm.pipeline.runs.config import build_model, config_path, resolve
from foldnorm.pipeline.scoring.scorer import Scorer
from foldnorm.pipeline.scoring.scorer_files import ABOUT, FORMAT
from foldnorm.preprocessing.cohort.cohort import DESCRIPTION, PARTICIPANTS, VOLUMES, Cohort
from foldnorm.preprocessing.core.arrays import read_npz
from foldnorm.preprocessing.core.errors import InputError
from foldnorm.preprocessing.core.file_names import checked_name
from foldnorm.preprocessing.io.schemes import SKELETON

EVIL = {"class_path": "sent_code.Model"}
ESCAPED = '{"class\\u005fpath": "sent_code.Model"}'  # YAML in text, with the key in disguise
BESIDE = "beside.yaml"  # holds EVIL
COHORT = {"shape": (16, 16, 16), "n_classes": 3, "n_pair_classes": 3, "void": 1}


@pytest.fixture
def beside(tmp_path, monkeypatch):
    """A folder with a module that leaves a trace when it is imported."""
    (tmp_path / "sent_code.py").write_text(
        "import pathlib\n"
        "pathlib.Path(__file__).with_name('trace').touch()\n"
        "from torch import nn\n"
        "class Model(nn.Module):\n"
        "    pass\n"
    )
    (tmp_path / BESIDE).write_text(yaml.safe_dump(EVIL))
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(class_paths.TRUST, "")
    yield tmp_path
    sys.modules.pop("sent_code", None)


def network(**init_args):
    return {
        "class_path": "monai.networks.nets.UNet",
        "init_args": {"channels": [8, 8], "strides": [2], **init_args},
    }


PLACES = {
    "model": ("model", EVIL),
    "model, by name": ("model", EVIL["class_path"]),
    "key with a dot": ("model.class_path", EVIL["class_path"]),
    "another configuration": ("config", BESIDE),
    "training": ("training", EVIL),
    "training, in a file": ("training", BESIDE),
    "augmentation": ("training/augmentation", EVIL),
    "augmentation, in a file": ("training/augmentation", BESIDE),
    "learning rates": ("training/learning_rates", {"critic": EVIL}),
    "network": ("model/init_args/network", EVIL),
    "loss": ("model/init_args/loss_function", EVIL),
    "any argument": ("model/init_args/kernel_size", EVIL),
    "arguments": ("model/init_args", EVIL["class_path"]),
    "argument of a network": ("model/init_args/network", network(act=EVIL)),
    "list in a network": ("model/init_args/network", network(act=[{"a": [EVIL]}])),
    "text in a network": ("model/init_args/network", network(act=json.dumps(EVIL))),
    "escaped text in a network": ("model/init_args/network", network(act=ESCAPED)),
    "text for a network": ("model/init_args/network", json.dumps(network(act=EVIL))),
    "more of a model": ("model/dict_kwargs", {"act": EVIL}),
}


@pytest.mark.parametrize("place", PLACES)
def test_no_place_of_a_configuration_imports_a_module_that_lies_beside_it(place, beside):
    content = yaml.safe_load(config_path("vnet").read_text())
    keys, value = PLACES[place]
    *above, last = keys.split("/")
    part = content
    for key in above:
        part = part[key] if isinstance(part.get(key), dict) else part.setdefault(key, {})
    part[last] = value
    path = beside / "sent.yaml"
    path.write_text(yaml.safe_dump(content))
    with pytest.raises(InputError, match="expected") as refusal:
        resolve(str(path), [], **COHORT)
    assert str(path) in str(refusal.value)
    assert not (beside / "trace").exists()
    if keys.startswith("model") and "." not in keys:
        with pytest.raises(InputError):
            build_model(content["model"] if isinstance(content["model"], dict) else {})
        assert not (beside / "trace").exists()


def test_numbers_as_people_write_them_survive_the_check(tmp_path):
    text = config_path("vnet").read_text().replace("training:\n", "training:\n  ema: 1e-4\n", 1)
    (tmp_path / "own.yaml").write_text(text)
    assert resolve(str(tmp_path / "own.yaml"), [], **COHORT)["training"]["ema"] == 1e-4


def test_a_network_of_more_weights_than_memory_is_refused_before_they_are_written():
    reason = r"4\.0 GiB up to weight of Linear, and 1\.0 GiB are free"
    with pytest.raises(ShapeError, match=reason), limited_weights(2**30):
        nn.Linear(2**15, 2**15)
    with limited_weights(2**30):
        nn.BatchNorm1d(8, affine=False)  # has buffers, and parameters that are None
    nn.Linear(2**4, 2**4)  # and the limit is gone


def test_weights_without_memory_are_not_counted():
    """A model of codes builds its autoencoder once without memory, to know the codes' sides."""
    with limited_weights(2**10):
        nn.Linear(2**15, 2**15, device="meta")
    held = bytes_of(small_latent(LatentDDPM, training_steps=4))
    with limited_weights(held):
        small_latent(LatentDDPM, training_steps=4)
    with pytest.raises(ShapeError, match="more weights than memory"), limited_weights(held - 1):
        small_latent(LatentDDPM, training_steps=4)


def bytes_of(model):
    return sum(t.numel() * t.element_size() for t in (*model.parameters(), *model.buffers()))


@pytest.mark.parametrize(
    ("argument", "reason"),
    [
        ({"class_weights": [1.0]}, "class_weights: expected one for each of 3 classes, got 1"),
        ({"channels": [-8, 8, 8]}, "negative dimension"),
        ({"channels": [10**5, 10**5, 10**5]}, "memory"),
    ],
)
def test_arguments_of_a_sent_run_that_cannot_be_are_one_line(argument, reason):
    model = resolve("vnet", [], **COHORT)["model"]
    with pytest.raises(InputError, match=reason) as refusal:
        build_model({**model, "init_args": {**model["init_args"], **argument}})
    assert "\n" not in str(refusal.value)


OUTSIDE = (
    "../../PWNED",
    "/etc/x",
    "..",
    ".hidden",
    "a/b",
    "a\\b",
    "C:x",
    "a\nb",
    "a\0b",
    "x" * 201,
)


@pytest.mark.parametrize("name", OUTSIDE)
def test_no_name_from_data_leads_out_of_the_folder(name):
    with pytest.raises(InputError, match="where: expected a name") as refusal:
        checked_name(name, "where")
    assert "\n" not in str(refusal.value)
    for artifact in (TRANSLATED, PAGE_ARRAYS):
        with pytest.raises(InputError, match="brain: expected a name"):
            artifact.of(brain=name)


@pytest.mark.parametrize("column", ["participant_id", "hemi", "image"])
def test_a_cohort_whose_names_lead_out_is_not_opened(tmp_path, column):
    row = {"participant_id": "sub-1", "hemi": "L", "split": "train", "image": "0"}
    about = {"Cohort": {"preparation": {"scheme": SKELETON.as_dict()}}}
    (tmp_path / DESCRIPTION).write_text(json.dumps(about))
    np.save(tmp_path / VOLUMES, np.zeros((1, 2, 2, 2), np.uint8))

    def write(row):
        lines = "\t".join(row), "\t".join(row.values())
        (tmp_path / PARTICIPANTS).write_text("\n".join(lines) + "\n")

    write(row)
    assert len(Cohort.open(tmp_path)) == 1
    write({**row, column: "../../PWNED"})
    with pytest.raises(InputError, match=rf"participants\.tsv: {column}: expected a name"):
        Cohort.open(tmp_path)


def test_a_scorer_reads_no_file_outside_its_folder(tmp_path):
    about = dict.fromkeys(ABOUT, "") | {"format": FORMAT, "sha256": {"../../dev/zero": "0"}}
    (tmp_path / "scorer.json").write_text(json.dumps(about))
    with pytest.raises(InputError, match="sha256: expected a name"):
        Scorer.load(tmp_path)


def test_no_module_of_the_current_folder_is_on_the_path_of_python_m(beside):
    """Such as ``torchrun -m foldnorm.pipeline.cli`` in the folder of a sent bundle."""
    (beside / "argparse.py").write_bytes((beside / "sent_code.py").read_bytes())
    model = {**EVIL, "init_args": {}}
    (beside / "config.yaml").write_text(yaml.safe_dump({"model": model, "training": {}}))
    (beside / "checkpoints").mkdir()
    (beside / "checkpoints" / "last.ckpt").touch()
    words = ["-m", "foldnorm.pipeline.cli", "translate", ".", ".", "-o", "out", "--trust"]
    words += ["sent_code"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    done = subprocess.run(
        [sys.executable, *words],
        cwd=beside, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert EVIL["class_path"] in done.stderr
    assert not (beside / "trace").exists()


def packed(**members):
    """Content of an archive with members of these bytes."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)
    return stream.getvalue()


def array_bytes(array):
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=True)
    return stream.getvalue()


def lying_shape():
    """An array of 8 bytes whose header says terabytes."""
    return array_bytes(np.zeros(1)).replace(b"(1,), }" + b" " * 12, b"(9999999999999,), }")


GOOD_ARCHIVE = packed(a=array_bytes(np.arange(100)))
ARCHIVES = {
    "bomb": (packed(a=array_bytes(np.zeros(1 << 20, np.uint8))), "does not fit into memory"),
    "cut off": (GOOD_ARCHIVE[: len(GOOD_ARCHIVE) // 2], "not readable as arrays"),
    "text": (b"hello", "not readable as arrays"),
    "empty": (b"", "not readable as arrays"),
    "objects": (packed(a=array_bytes(np.array([{}], dtype=object))), "allow_pickle=False"),
    "lying shape": (packed(a=lying_shape()), "not readable as arrays"),
    "no array": (packed(a=b"hello"), "expected arrays"),  # of which numpy gives the bytes
}


@pytest.mark.parametrize("name", ARCHIVES)
def test_an_archive_of_somebody_is_arrays_or_one_line(tmp_path, monkeypatch, name):
    content, reason = ARCHIVES[name]
    if name == "bomb":
        monkeypatch.setattr(
            "foldnorm.preprocessing.core.resources.available_memory", lambda: 1 << 19
        )
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(InputError, match=reason) as refusal:
        read_npz(tmp_path / "a.npz")
    assert "a.npz" in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_an_archive_that_fits_is_read(tmp_path):
    (tmp_path / "a.npz").write_bytes(GOOD_ARCHIVE)
    assert read_npz(tmp_path / "a.npz")["a"].tolist() == list(range(100))
