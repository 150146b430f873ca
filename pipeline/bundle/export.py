"""A trained model as a MONAI bundle: a folder that others can use without the training cohort.

Beside what MONAI wants (``metadata.json``, ``inference.json``, ``train.json`` and ``logging.conf``
under ``configs``, ``models/model.pt``, ``docs/README.md``) it holds the weights as safetensors, the
run's ``config.yaml``, ``data.json`` and ``metrics.csv``, and under ``cohort`` the layout of the
training cohort. So every command that takes a run takes a bundle, and ``foldnorm preprocess
--layout-from BUNDLE`` (``images --layout-from BUNDLE``) prepares for it. Participants appear as
salted hashes: enough to see that a brain was trained on, not to tell whose it was.
"""

import io
import secrets
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from monai.bundle import ConfigParser
from torch import nn

from foldnorm.pipeline.artifacts import (
    BUNDLE_CARD,
    BUNDLE_DATA_TERMS,
    BUNDLE_INFERENCE,
    BUNDLE_LICENCE,
    BUNDLE_LOGGING,
    BUNDLE_METADATA,
    BUNDLE_TORCH_WEIGHTS,
    BUNDLE_TRAIN,
    BUNDLE_WEIGHTS,
    RUN_CONFIG,
    RUN_COST,
    RUN_DATA,
    RUN_METRICS,
)
from foldnorm.pipeline.bundle import images as bundle_of_images
from foldnorm.pipeline.bundle import volumes as bundle_of_volumes
from foldnorm.pipeline.bundle.common import Contents
from foldnorm.pipeline.bundle.fine_tuning import training_config
from foldnorm.pipeline.runs.metrics_log import MetricsLog
from foldnorm.pipeline.runs.model_card import card_of
from foldnorm.pipeline.runs.run_folder import RunFolder
from foldnorm.preprocessing.cohort.cohort import DESCRIPTION, REGION_MASK, Cohort
from foldnorm.preprocessing.cohort.layout import LAYOUT_FOLDER
from foldnorm.preprocessing.core.counts import counted
from foldnorm.preprocessing.core.errors import InputError
from foldnorm.preprocessing.core.files import hashed, write_bytes, write_json, write_text

SCHEMA = (
    "https://github.com/Project-MONAI/MONAI-extra-test-data/releases/download/0.8.1/"
    "meta_schema_20240725.json"
)
SALT_BYTES = 16
UNNAMED = "not named"  # terms that nobody has given
LOGGING = """[loggers]
keys=root

[handlers]
keys=console

[formatters]
keys=plain

[logger_root]
level=INFO
handlers=console

[handler_console]
class=StreamHandler
level=INFO
formatter=plain
args=(sys.stdout,)

[formatter_plain]
format=%(asctime)s - %(name)s - %(levelname)s - %(message)s
"""


def export(
    run: RunFolder, cohort: Cohort, out: Path, *, licence: str = "", data_terms: str = ""
) -> None:
    """Write a bundle and check that it makes of an input what the run makes of it.

    Args:
        run: finished, or at least with a checkpoint.
        cohort: that it was trained on, for its layout.
        out: folder to write to.
        licence: of the weights, by name, such as ``CC-BY-4.0``; empty: who trained them has still
            to name it.
        data_terms: of the data that they were fitted to, likewise.

    Raises:
        InputError: the cohort is another one, or the model makes nothing of an input.
    """
    run.check_cohort(cohort)
    model = run.load().model
    of_images = "intensities" in run.data["preparation"]
    contents = (bundle_of_images if of_images else bundle_of_volumes).contents_of(model, run)
    write_json(out / RUN_DATA, _shareable(run.data))
    write_text(out / RUN_CONFIG, (run.folder / RUN_CONFIG).read_text(encoding="utf-8"))
    for name in (RUN_METRICS, RUN_COST):
        if (run.folder / name).is_file():
            write_bytes(out / name, (run.folder / name).read_bytes())
    write_bytes(out / LAYOUT_FOLDER / DESCRIPTION, (cohort.folder / DESCRIPTION).read_bytes())
    if (cohort.folder / REGION_MASK).is_file():
        write_bytes(out / LAYOUT_FOLDER / REGION_MASK, (cohort.folder / REGION_MASK).read_bytes())
    state = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    write_bytes(out / BUNDLE_WEIGHTS, safetensors.torch.save(state))
    stream = io.BytesIO()
    torch.save(state, stream)
    write_bytes(out / BUNDLE_TORCH_WEIGHTS, stream.getvalue())
    write_text(out / BUNDLE_LICENCE, _terms("these weights", licence))
    write_text(out / BUNDLE_DATA_TERMS, _terms("the data they were fitted to", data_terms))
    card = card_of(run, MetricsLog(run.folder / RUN_METRICS, up_to=2**62))
    write_text(out / BUNDLE_CARD, f"{card}\n{_how_to_use(contents, run)}")
    write_json(out / BUNDLE_INFERENCE, _inference(contents))
    write_json(out / BUNDLE_TRAIN, training_config())
    write_text(out / BUNDLE_LOGGING, LOGGING)
    terms = {"license": licence or UNNAMED, "data_license": data_terms or UNNAMED}
    write_json(out / BUNDLE_METADATA, {**_metadata(contents, model, run), **terms})
    _check_same(contents, run.folder, out)


def _terms(of: str, name: str) -> str:
    """Text of a file of terms."""
    if not name:
        return f"The terms of {of} are for who trained the model to name.\n"
    return f"Terms of {of}: {name}\n"


def _shareable(data: Mapping[str, Any]) -> dict[str, Any]:
    """Copy a run's record without paths, and with hashes in the place of participants' names."""
    salt = secrets.token_hex(SALT_BYTES)
    participants = {
        split: sorted(hashed(name, salt) for name in names)
        for split, names in data["participants"].items()
    }
    kept = {key: value for key, value in data.items() if key not in ("cohort", "participants")}
    before = [
        known
        if known["salt"]
        else {"participants": sorted(hashed(n, salt) for n in known["participants"]), "salt": salt}
        for known in data.get("pretrained_on", [])
    ]
    return {**kept, "participants": participants, "pretrained_on": before, "salt": salt}


def _check_same(contents: Contents, run: Path, bundle: Path) -> None:
    """Both must give the same of one input."""
    network = {"given": {}, "network_def": contents.steps["network_def"]}
    parsers = (ConfigParser({**network, "bundle_root": str(folder)}) for folder in (run, bundle))
    with torch.no_grad():
        ours, theirs = (
            parser.get_parsed_content("network_def")(contents.example) for parser in parsers
        )
    if not torch.equal(ours, theirs):
        raise InputError(f"the bundle does not give what the run gives: {bundle}")


def _inference(contents: Contents) -> dict[str, Any]:
    """``inference.json``: from files to files, by ``monai.bundle run``."""
    steps = contents.steps
    return {
        "bundle_root": ".",
        "dataset_dir": "$@bundle_root + '/input'",
        "output_dir": "$@bundle_root + '/output'",
        "assume": None,
        "given": {},
        "device": "$torch.device('cuda:0' if torch.cuda.is_available() else 'cpu')",
        "network_def": steps["network_def"],
        "network": "$@network_def.to(@device)",
        "data": steps["data"],
        "preprocessing": {"_target_": "Compose", "transforms": steps["preprocessing"]},
        "dataset": {"_target_": "Dataset", "data": "@data", "transform": "@preprocessing"},
        "dataloader": {"_target_": "DataLoader", "dataset": "@dataset", "batch_size": 1},
        "inferer": steps["inferer"],
        "postprocessing": {"_target_": "Compose", "transforms": steps["postprocessing"]},
        "evaluator": {
            "_target_": "SupervisedEvaluator",
            "device": "@device",
            "val_data_loader": "@dataloader",
            "network": "@network",
            "inferer": "@inferer",
            "postprocessing": "@postprocessing",
        },
        "run": ["$@evaluator.run()"],
    }


def _metadata(contents: Contents, model: nn.Module, run: RunFolder) -> dict[str, Any]:
    """``metadata.json``, as MONAI's schema wants it."""
    name = type(model).__name__
    participants = run.data["participants"]["train"]
    return {
        "schema": SCHEMA,
        "version": version("foldnorm"),
        "changelog": {version("foldnorm"): "exported"},
        "monai_version": version("monai"),
        "pytorch_version": version("torch").partition("+")[0],
        "numpy_version": version("numpy"),
        "required_packages_version": {
            package: version(package)
            for package in ("foldnorm", "nibabel", "safetensors", "lightning", "jsonargparse")
        },
        "supported_apps": {},
        "name": f"foldnorm {name}",
        "task": contents.task,
        "description": f"{name} of foldnorm, trained on "
        f"{counted(len(participants), 'participant')} ({contents.data})",
        "authors": "see docs/README.md",
        "copyright": "see LICENSE",
        "data_source": "see docs/README.md",
        "data_type": "nibabel",
        "intended_use": "research; not for diagnosis",
        "references": [],
        "network_data_format": {
            "inputs": {"image": contents.inputs},
            "outputs": {"pred": contents.outputs},
        },
    }


def _how_to_use(contents: Contents, run: RunFolder) -> str:
    told = [column.name for column in run.conditions.columns]
    given = ""
    if told and "given" in contents.steps["network_def"]:
        given = f"\nIt is told {', '.join(told)}: `--given \"{{'{told[0]}': …}}\"`.\n"
    weights, as_torch = BUNDLE_WEIGHTS, BUNDLE_TORCH_WEIGHTS
    return f"""## How to use

In this folder, with foldnorm:

```
{contents.commands}
```

With MONAI (`pip install 'foldnorm[bundle]'`); INPUT is {contents.takes}:

```
python -m monai.bundle run --config_file configs/inference.json --dataset_dir INPUT --output_dir OUT
```

`--assume ras` or `las` says in which directions voxels run, where a header does not.

To train it further, on a cohort that was prepared like its own or on INPUT as above:

```
python -m monai.bundle run training --config_file configs/train.json --dataset_dir COHORT \\
    --output_dir OUT --steps 500
```

`OUT/run` is then a run folder. `--datalist` takes dictionaries in the place of a folder.
{given}
The weights stand in `{weights}`, and the same ones in `{as_torch}`. How the training
cohort was prepared stands in `{RUN_DATA}` and `{LAYOUT_FOLDER}/`.
"""
