"""A trained model as a MONAI bundle: a folder that others can use without the training cohort.

Beside what MONAI wants (``configs/metadata.json``, ``configs/inference.json``,
``models/model.pt``, ``docs/README.md``) it holds the weights as safetensors, the run's
``config.yaml``, ``data.json`` and ``metrics.csv``, and under ``cohort`` the layout of the training
cohort. So every command that takes a run takes a bundle, and ``foldnorm preprocess --like BUNDLE``
prepares volumes for it. Participants appear as salted hashes: enough to see that a brain was
trained on, not to tell whose it was.
"""

import io
import secrets
from collections.abc import Hashable, Mapping
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform
from torch import Tensor, nn

from foldnorm.models.protocols import Decodes, Recognises, Restores, Translates
from foldnorm.pipeline.configuration import build_model
from foldnorm.pipeline.metrics_table import MetricsTable
from foldnorm.pipeline.model_card import card_of
from foldnorm.pipeline.run_folder import (
    BUNDLED_WEIGHTS,
    CONFIG,
    COST,
    DATA,
    METRICS,
    RunFolder,
    hashed,
)
from foldnorm.preprocessing.cohort import DESCRIPTION, REGION_MASK, Cohort
from foldnorm.preprocessing.crop_spec import CropSpec
from foldnorm.preprocessing.errors import InputError
from foldnorm.preprocessing.files import write_bytes, write_json, write_text
from foldnorm.preprocessing.layout import LAYOUT_FOLDER, Layout
from foldnorm.preprocessing.preparation import Preparation
from foldnorm.preprocessing.prepare import prepare_volume
from foldnorm.preprocessing.schemes import LabelScheme
from foldnorm.preprocessing.sources import Source, SourceVolume, find_volumes

METADATA, INFERENCE = "configs/metadata.json", "configs/inference.json"
CARD, LICENCE, TORCH_WEIGHTS = "docs/README.md", "LICENSE", "models/model.pt"
SCHEMA = (
    "https://github.com/Project-MONAI/MONAI-extra-test-data/releases/download/0.8.1/"
    "meta_schema_20240725.json"
)
SALT_BYTES = 16
OVERLAP = 0.5  # of the windows of a translation
NO_SULCUS = 1e4  # logit of what is no structure


def export(run: RunFolder, cohort: Cohort, out: Path) -> None:
    """Write a bundle and check that it makes of a volume what the run makes of it.

    Args:
        run: finished, or at least with a checkpoint.
        cohort: that it was trained on, for its layout.
        out: folder to write to.

    Raises:
        InputError: the cohort is another one, or the model makes no label volumes.
    """
    run.check_cohort(cohort)
    model = run.load().model
    if not isinstance(model, (Decodes, Translates, Restores, Recognises)):
        raise InputError(
            f"a bundle makes label volumes, {type(model).__name__} makes none: {run.folder}"
        )
    write_json(out / DATA, _shareable(run.data))
    write_text(out / CONFIG, (run.folder / CONFIG).read_text(encoding="utf-8"))
    for name in (METRICS, COST):
        if (run.folder / name).is_file():
            write_bytes(out / name, (run.folder / name).read_bytes())
    write_bytes(out / LAYOUT_FOLDER / DESCRIPTION, (cohort.folder / DESCRIPTION).read_bytes())
    if (cohort.folder / REGION_MASK).is_file():
        write_bytes(out / LAYOUT_FOLDER / REGION_MASK, (cohort.folder / REGION_MASK).read_bytes())
    state = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    write_bytes(out / BUNDLED_WEIGHTS, safetensors.torch.save(state))
    stream = io.BytesIO()
    torch.save(state, stream)
    write_bytes(out / TORCH_WEIGHTS, stream.getvalue())
    write_text(out / LICENCE, "The terms of these weights are for who trained them to name.\n")
    card = card_of(run, MetricsTable(run.folder / METRICS, up_to=2**62))
    write_text(out / CARD, f"{card}\n{_how_to_use(model, run)}")
    write_json(out / INFERENCE, _inference(model, run))
    write_json(out / METADATA, _metadata(model, run))
    _check_same(run, RunFolder.open(out))


class BundleNetwork(nn.Module):
    """The bundled model from volume to class logits.

    Its reconstruction, its translation, the volume of a healthy brain, or its sulci.

    Args:
        folder: of the bundle.
        given: values of the columns that a conditioned model is told, the same for all volumes;
            of what is not given it is told nothing.
    """

    def __init__(self, folder: str | Path, given: Mapping[str, Any] | None = None) -> None:
        super().__init__()
        run = RunFolder.open(Path(folder))
        trained = run.load()
        self.void = _input_of(run)[1].void
        self.model = trained.model
        names = [column.name for column in trained.conditions.columns]
        row = dict.fromkeys(names, "") | {k: str(v) for k, v in (given or {}).items()}
        unknown = sorted(set(row) - set(names))
        if unknown:
            raise InputError(f"given: the model is told {', '.join(names) or 'nothing'}, "
                             f"not {unknown[0]}")  # fmt: skip
        condition = torch.from_numpy(trained.conditions.encode([row]))
        self.condition: Tensor
        self.register_buffer("condition", condition, persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        """(B, 1, I, J, K) class numbers, of any type → (B, C, I, J, K) float32 logits."""
        if isinstance(image, MetaTensor):  # whose affine and file name go on
            made = MetaTensor(self.forward(image.as_tensor()))
            made.copy_meta_from(image)
            made.is_batch = image.is_batch
            return made
        volumes = image[:, 0].round().to(torch.uint8)
        model = self.model
        if isinstance(model, Translates):
            return model.translate(volumes).float()
        if isinstance(model, Restores):
            return model.restore(volumes).float()
        if isinstance(model, Recognises):  # what is no structure is no sulcus
            logits = model.recognise(volumes).float()
            nothing = torch.zeros_like(logits)
            nothing[:, 0] = NO_SULCUS
            return torch.where((volumes > self.void).unsqueeze(1), logits, nothing)
        assert isinstance(model, Decodes)
        told = self.condition.expand(len(volumes), -1) if self.condition.numel() else None
        return model.decode(model.encode(volumes, told), told).float()


def volumes_in(folder: str | Path, dataset_dir: str | Path) -> list[dict[str, SourceVolume]]:
    """What a bundle can take of a Morphologist tree, a folder of NIfTI files, a file, or a table.

    Args:
        folder: of the bundle.
        dataset_dir: where to look.

    Returns:
        ``{"image": volume}`` for each.
    """
    _, scheme, _ = _input_of(RunFolder.open(Path(folder)))
    found, problems = find_volumes([Source.parse(str(dataset_dir))], scheme.stem)
    if not found:
        reason = f" ({problems[0].reason})" if problems else ""
        raise InputError(f"no volume to take{reason}: {dataset_dir}")
    return [{"image": volume} for volume in found]


class PreparedVolumed(MapTransform):
    """A file → class numbers as the model was trained on, in the box that it was trained on.

    Translations keep all that a volume holds; they go by windows.

    Args:
        keys: of `SourceVolume` entries.
        folder: of the bundle.
    """

    def __init__(self, keys: KeysCollection, folder: str | Path) -> None:
        super().__init__(keys)
        self.preparation, self.scheme, self.translates = _input_of(RunFolder.open(Path(folder)))
        described = Cohort.describe(Path(folder) / LAYOUT_FOLDER)["Cohort"]
        self.off_mask = described["preparation"]["off_mask"]
        self.crop = CropSpec.of_record(described["preparation"])
        self.layout = Layout.of_cohort(Path(folder) / LAYOUT_FOLDER)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the dictionary with (1, I, J, K) float32 volumes, whose affines are true."""
        changed = dict(data)
        for key in self.key_iterator(changed):
            source = changed[key]
            prepared = prepare_volume(source, self.preparation)
            classes, affine = prepared.classes, prepared.affine
            if not self.translates:
                target = self.layout.target_of(prepared.grid, self.crop)
                classes = self.layout.packed(
                    classes, prepared.at, target, self.scheme, self.off_mask
                )
                steps = [b - a for a, b in zip(prepared.at.start, target.start, strict=True)]
                affine = affine.copy()
                affine[:3, 3] += affine[:3, :3] @ np.array(steps)
            changed[key] = MetaTensor(
                torch.from_numpy(classes[None].astype(np.float32)),
                affine=torch.from_numpy(affine),
                meta={"filename_or_obj": f"{source.key}.nii.gz"},
            )
        return changed


class LabelValuesd(MapTransform):
    """Class numbers → the label values that other tools of the family read.

    Args:
        keys: of (1, I, J, K) class numbers.
        folder: of the bundle.
    """

    def __init__(self, keys: KeysCollection, folder: str | Path) -> None:
        super().__init__(keys)
        _, values = _output_of(RunFolder.open(Path(folder)))
        self.values = torch.tensor(values, dtype=torch.int32)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the dictionary with label values."""
        changed = dict(data)
        for key in self.key_iterator(changed):
            volume = changed[key]
            labels = self.values[volume.as_tensor().long().cpu()]
            changed[key] = MetaTensor(labels, meta=volume.meta)
        return changed


def _input_of(run: RunFolder) -> tuple[Preparation, LabelScheme, bool]:
    """How a volume is prepared for a model, its scheme, and whether the model translates."""
    preparation = Preparation.from_dict(run.data["preparation"])
    model = build_model(run.config["model"])  # its kind; weights are not needed
    translates = isinstance(model, Translates)
    if isinstance(model, Translates) and model.reverse:
        preparation = preparation.of_pairs()
    return replace(preparation, pair=None, folds="none"), preparation.scheme, translates


def _output_of(run: RunFolder) -> tuple[list[str], list[int]]:
    """Names of the classes that come out, and the label value of each."""
    preparation = Preparation.from_dict(run.data["preparation"])
    model = build_model(run.config["model"])  # its kind; weights are not needed
    if isinstance(model, Recognises):
        names = ["none", *model.sulci]
        return names, list(range(len(names)))
    scheme = preparation.scheme
    if isinstance(model, Translates) and not model.reverse:
        assert preparation.pair is not None
        scheme = preparation.pair
    return scheme.names, scheme.canonical_values.tolist()


def _shareable(data: Mapping[str, Any]) -> dict[str, Any]:
    """What a run records, without paths and names."""
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
        for known in data.get("before", [])
    ]
    return {**kept, "participants": participants, "before": before, "salt": salt}


def _check_same(run: RunFolder, bundle: RunFolder) -> None:
    """Both must give the same logits of one volume."""
    shape, classes = run.data["shape"], len(run.data["preparation"]["scheme"]["classes"])
    volume = torch.arange(int(np.prod(shape))).reshape(1, 1, *shape) % classes
    with torch.no_grad():
        ours, theirs = (BundleNetwork(r.folder)(volume) for r in (run, bundle))
    if not torch.equal(ours, theirs):
        raise InputError(f"the bundle does not give what the run gives: {bundle.folder}")


def _inference(model: nn.Module, run: RunFolder) -> dict[str, Any]:
    """``inference.json``: from files to label volumes, by ``monai.bundle run``."""
    inferer: dict[str, Any] = {"_target_": "SimpleInferer"}
    if isinstance(model, Translates):
        inferer = {
            "_target_": "SlidingWindowInferer", "roi_size": run.data["shape"],
            "overlap": OVERLAP, "mode": "gaussian",
        }  # fmt: skip
    ours = "foldnorm.pipeline.bundle"
    return {
        "bundle_root": ".",
        "dataset_dir": "$@bundle_root + '/input'",
        "output_dir": "$@bundle_root + '/output'",
        "given": {},
        "device": "$torch.device('cuda:0' if torch.cuda.is_available() else 'cpu')",
        "network_def": {
            "_target_": f"{ours}.BundleNetwork", "folder": "@bundle_root", "given": "@given",
        },
        "network": "$@network_def.to(@device)",
        "data": {
            "_target_": f"{ours}.volumes_in",
            "folder": "@bundle_root",
            "dataset_dir": "@dataset_dir",
        },
        "preprocessing": {
            "_target_": "Compose",
            "transforms": [
                {"_target_": f"{ours}.PreparedVolumed", "keys": "image", "folder": "@bundle_root"}
            ],
        },
        "dataset": {"_target_": "Dataset", "data": "@data", "transform": "@preprocessing"},
        "dataloader": {"_target_": "DataLoader", "dataset": "@dataset", "batch_size": 1},
        "inferer": inferer,
        "postprocessing": {
            "_target_": "Compose",
            "transforms": [
                {"_target_": "AsDiscreted", "keys": "pred", "argmax": True},
                {"_target_": f"{ours}.LabelValuesd", "keys": "pred", "folder": "@bundle_root"},
                {
                    "_target_": "SaveImaged", "keys": "pred", "output_dir": "@output_dir",
                    "output_postfix": "pred", "separate_folder": False, "resample": False,
                    "output_dtype": "$np.int16",
                },
            ],
        },
        "evaluator": {
            "_target_": "SupervisedEvaluator",
            "device": "@device",
            "val_data_loader": "@dataloader",
            "network": "@network",
            "inferer": "@inferer",
            "postprocessing": "@postprocessing",
        },
        "run": ["$@evaluator.run()"],
    }  # fmt: skip


def _metadata(model: nn.Module, run: RunFolder) -> dict[str, Any]:
    """``metadata.json``, as MONAI's schema wants it."""
    source, (names, _) = _input_of(run)[1], _output_of(run)
    shape = [int(side) for side in run.data["shape"]]
    name = type(model).__name__
    kinds = {Translates: "translation", Restores: "restoration", Recognises: "sulci"}
    made = next((what for kind, what in kinds.items() if isinstance(model, kind)), "reconstruction")
    kind = "phantoms drawn by a program" if run.data["phantom"] else "label volumes"
    participants = run.data["participants"]
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
        "task": f"{made} of cortical {source.name} volumes",
        "description": f"{name} of foldnorm, trained on {len(participants['train'])} participants "
        f"({kind})",
        "authors": "see docs/README.md",
        "copyright": "see LICENSE",
        "data_source": "see docs/README.md",
        "data_type": "nibabel",
        "intended_use": "research on cortical folding; not for diagnosis",
        "references": [],
        "network_data_format": {
            "inputs": {"image": _format(source.names, 1, shape, {"0": "class number"})},
            "outputs": {
                "pred": _format(
                    names, len(names), shape, {str(n): label for n, label in enumerate(names)}
                )
            },
        },
    }  # fmt: skip


def _format(
    names: list[str], channels: int, shape: list[int], definition: dict[str, str]
) -> dict[str, Any]:
    return {
        "type": "image" if channels == 1 else "probabilities",
        "format": "labels" if channels == 1 else "segmentation",
        "modality": "n/a",
        "num_channels": channels,
        "spatial_shape": shape,
        "dtype": "float32",
        "value_range": [0, len(names) - 1] if channels == 1 else [],
        "is_patch_data": False,
        "channel_def": definition,
    }


def _how_to_use(model: nn.Module, run: RunFolder) -> str:
    told = [column.name for column in run.conditions.columns]
    given = f"\nIt is told {', '.join(told)}: `--given \"{{'{told[0]}': …}}\"`.\n" if told else ""
    scores = (
        "foldnorm preprocess INPUT cohort --like .\n"
        "foldnorm score . cohort scores --reference TRAINING_COHORT"
    )
    if isinstance(model, Translates):
        use = "foldnorm translate . INPUT OUT"
    elif isinstance(model, Recognises):
        use = f"foldnorm recognise . INPUT OUT --reference TRAINING_COHORT\n{scores}"
    elif isinstance(model, Restores):
        use = f"{scores} --maps"
    else:
        use = f"{scores}\nfoldnorm embed . cohort codes"
    return f"""## How to use

In this folder, with foldnorm:

```
{use}
```

With MONAI (`pip install 'foldnorm[bundle]'`); INPUT is a Morphologist tree, a folder of NIfTI
files, or one file, and label volumes come out in the grid of the model:

```
python -m monai.bundle run --config_file configs/inference.json --dataset_dir INPUT --output_dir OUT
```
{given}
The weights stand in `{BUNDLED_WEIGHTS}`, and the same ones in `{TORCH_WEIGHTS}`. The classes,
voxel size and box of the training cohort stand in `data.json` and `{LAYOUT_FOLDER}/`.
"""
