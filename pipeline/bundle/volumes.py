"""Contents of the bundle of a model of label volumes.

The classes and functions that its ``inference.json`` names are here, too.
"""

import logging
from collections.abc import Hashable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform
from torch import Tensor, nn

from foldnorm.models.protocols import Classifies, Decodes, Recognises, Restores, Translates
from foldnorm.pipeline.bundle.common import ADDRESS, Contents, class_steps, data_format, levels_of
from foldnorm.pipeline.runs.config import build_model
from foldnorm.pipeline.runs.predict import OVERLAP_OF_TRANSLATION
from foldnorm.pipeline.runs.run_folder import RunFolder
from foldnorm.preprocessing.cohort.cohort import Cohort
from foldnorm.preprocessing.cohort.layout import LAYOUT_FOLDER, Layout
from foldnorm.preprocessing.cohort.preparation import Preparation
from foldnorm.preprocessing.cohort.prepare_volume import prepare_volume
from foldnorm.preprocessing.core.choices import Orientation
from foldnorm.preprocessing.core.errors import InputError
from foldnorm.preprocessing.io.schemes import LabelScheme
from foldnorm.preprocessing.io.source_volume import SourceVolume
from foldnorm.preprocessing.io.sources import Source, find_volumes
from foldnorm.preprocessing.io.volumes import label_dtype
from foldnorm.preprocessing.spatial.crop_spec import CropSpec

LOG = logging.getLogger(__name__)
NO_SULCUS = 1e4  # logit of what is no structure


def contents_of(model: nn.Module, run: RunFolder) -> Contents:
    """Describe a model of label volumes for its bundle.

    Raises:
        InputError: the model makes no label volumes and is no classifier.
    """
    if not isinstance(model, (Decodes, Translates, Restores, Recognises, Classifies)):
        raise InputError(
            f"a bundle makes label volumes or tells classes, {type(model).__name__} does neither: "
            f"{run.folder}"
        )
    source, shape = _input_of(run)[1], [int(side) for side in run.data["shape"]]
    kinds = {Translates: "translation", Restores: "restoration", Recognises: "sulci",
             Classifies: "classes"}  # fmt: skip
    made = next((what for kind, what in kinds.items() if isinstance(model, kind)), "reconstruction")
    if isinstance(model, Classifies):
        outputs = data_format("probabilities", "classes", [], levels_of(run))
        written, out = class_steps(), "a JSON file of classes comes out for each"
    else:
        names, values = _output_of(run)
        outputs = data_format("probabilities", "segmentation", shape, names)
        written, out = _label_steps(values), "label volumes come out in the grid of the model"
    inferer: dict[str, Any] = {"_target_": "SimpleInferer"}
    if isinstance(model, Translates):
        inferer = {
            "_target_": "SlidingWindowInferer", "roi_size": run.data["shape"],
            "overlap": OVERLAP_OF_TRANSLATION, "mode": "gaussian",
        }  # fmt: skip
    highest = len(source.names) - 1
    return Contents(
        task=f"{made} of cortical {source.name} volumes",
        data="synthetic volumes" if run.data["phantom"] else "label volumes",
        inputs=data_format("image", "labels", shape, ["class number"], [0, highest]),
        outputs=outputs,
        steps={
            "network_def": {
                "_target_": f"{ADDRESS}.BundleNetwork", "folder": "@bundle_root",
                # The column of a classifier is what it tells, not what it is told.
                **({} if isinstance(model, Classifies) else {"given": "@given"}),
            },
            "data": {
                "_target_": f"{ADDRESS}.volumes_in", "folder": "@bundle_root",
                "dataset_dir": "@dataset_dir", "assume": "@assume",
            },
            "preprocessing": [
                {
                    "_target_": f"{ADDRESS}.PreparedVolumed", "keys": "image",
                    "folder": "@bundle_root",
                }
            ],
            "inferer": inferer,
            "postprocessing": written,
        },
        commands=_commands(model),
        takes=f"a Morphologist tree, a folder of NIfTI files, or one file, and {out}",
        example=torch.arange(int(np.prod(shape))).reshape(1, 1, *shape) % len(source.names),
    )  # fmt: skip


class BundleNetwork(nn.Module):
    """The bundled model from volume to class logits.

    Of its reconstruction, its translation, the volume of a healthy brain, its sulci; or of the
    levels of the column that it tells.

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
        told = [] if isinstance(self.model, Classifies) else trained.conditions.columns
        names = [column.name for column in told]
        row = dict.fromkeys(names, "") | {k: str(v) for k, v in (given or {}).items()}
        unknown = sorted(set(row) - set(names))
        if unknown:
            raise InputError(f"given: the model is told {', '.join(names) or 'nothing'}, "
                             f"not {unknown[0]}")  # fmt: skip
        condition = torch.from_numpy(replace(trained.conditions, columns=tuple(told)).encode([row]))
        self.condition: Tensor
        self.register_buffer("condition", condition, persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        """(B, 1, I, J, K) class numbers, of any type → (B, C, I, J, K) or (B, n) float32 logits."""
        if isinstance(image, MetaTensor):  # whose affine and file name go on
            made = MetaTensor(self.forward(image.as_tensor()))
            made.copy_meta_from(image)
            made.is_batch = image.is_batch
            return made
        volumes = image[:, 0].round().to(torch.uint8)
        model = self.model
        if isinstance(model, Classifies):
            return model.classify(volumes).float()
        if isinstance(model, Translates):
            return model.translate(volumes).float()
        told = self.condition.expand(len(volumes), -1) if self.condition.numel() else None
        if isinstance(model, Restores):
            return model.restore(volumes, told).float()
        if isinstance(model, Recognises):  # what is no structure is no sulcus
            logits = model.recognise(volumes).float()
            nothing = torch.zeros_like(logits)
            nothing[:, 0] = NO_SULCUS
            return torch.where((volumes > self.void).unsqueeze(1), logits, nothing)
        assert isinstance(model, Decodes)
        return model.decode(model.encode(volumes, told), told).float()


def volumes_in(
    folder: str | Path, dataset_dir: str | Path, assume: Orientation | None = None
) -> list[dict[str, SourceVolume]]:
    """List the volumes that a bundle can take.

    Args:
        folder: of the bundle.
        dataset_dir: a Morphologist tree, a folder of NIfTI files, a file, or a table.
        assume: directions that voxels run in, ``ras`` or ``las``, where a header does not say.

    Returns:
        ``{"image": volume}`` for each.
    """
    _, scheme, _ = _input_of(RunFolder.open(Path(folder)))
    found = find_volumes([Source.parse(str(dataset_dir))], scheme.stem, assume=assume)
    found.log()
    if not found.items:
        reason = f" ({found.problems[0].reason})" if found.problems else ""
        raise InputError(f"no volume to take{reason}: {dataset_dir}")
    return [{"image": volume} for volume in found.items]


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
        self.crop = CropSpec.from_record(described["preparation"])
        self.layout = Layout.from_cohort(Path(folder) / LAYOUT_FOLDER)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the dictionary with (1, I, J, K) float32 volumes, whose affines are true."""
        changed = dict(data)
        for key in self.key_iterator(changed):
            source = changed[key]
            prepared = prepare_volume(source, self.preparation)
            for warning in prepared.source.warnings:
                LOG.warning("%s: %s", source.key, warning)
            classes, affine = prepared.classes, prepared.affine
            if not self.translates:
                target = self.layout.target_of(prepared.field_of_view, self.crop)
                classes = self.layout.packed(
                    classes, prepared.bounds, target, self.scheme, self.off_mask
                )
                steps = [b - a for a, b in zip(prepared.bounds.start, target.start, strict=True)]
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
    """Return the preparation of a model's input, its scheme, and whether the model translates."""
    preparation = Preparation.from_dict(run.data["preparation"])
    model = build_model(run.config["model"])  # its kind; weights are not needed
    translates = isinstance(model, Translates)
    if isinstance(model, Translates) and model.reverse:
        preparation = preparation.for_second_volume()
    return replace(preparation, pair=None, fold_labels="none"), preparation.scheme, translates


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


def _label_steps(values: list[int]) -> list[dict[str, Any]]:
    """Postprocessing of class logits of voxels, each class to its label value."""
    return [
        {"_target_": "AsDiscreted", "keys": "pred", "argmax": True},
        {"_target_": f"{ADDRESS}.LabelValuesd", "keys": "pred", "folder": "@bundle_root"},
        {
            "_target_": "SaveImaged", "keys": "pred", "output_dir": "@output_dir",
            "output_postfix": "pred", "separate_folder": False, "resample": False,
            "output_dtype": f"$np.{label_dtype(np.array(values))}",
        },
    ]  # fmt: skip


def _commands(model: nn.Module) -> str:
    """Return commands of foldnorm that use the bundle."""
    prepare = "foldnorm preprocess INPUT -o cohort --layout-from ."
    scores = f"{prepare}\nfoldnorm score . cohort -o scores --reference TRAINING_COHORT"
    if isinstance(model, Classifies):
        return f"{prepare}\nfoldnorm classify . cohort -o classes"
    if isinstance(model, Translates):
        return "foldnorm translate . INPUT -o OUT"
    if isinstance(model, Recognises):
        return f"foldnorm label-sulci . INPUT -o OUT --reference TRAINING_COHORT\n{scores}"
    if isinstance(model, Restores):
        return f"{scores} --maps"
    return f"{scores}\nfoldnorm embed . cohort -o codes"
