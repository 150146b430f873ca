"""Parts of bundles of all kinds: contents beside the weights, and output of classifiers."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform
from torch import Tensor

from foldnorm.pipeline.runs.run_folder import RunFolder
from foldnorm.preprocessing.core.files import write_json

ADDRESS = "foldnorm.bundle"  # of what a bundle names; it stays where modules move


@dataclass(frozen=True)
class Contents:
    """Description of a bundle's model.

    Attributes:
        task: in a few words.
        data: what the model was trained on, in a few words.
        inputs: of the network, as MONAI's schema describes them.
        outputs: likewise.
        steps: of ``inference.json``: ``network_def``, ``data``, ``preprocessing``, ``inferer`` and
            ``postprocessing``.
        commands: of foldnorm, that use the bundle; lines.
        takes: what `volumes_in` or `images_in` find, and what comes out; a sentence without a full
            stop.
        example: an input of the network.
    """

    task: str
    data: str
    inputs: Mapping[str, Any]
    outputs: Mapping[str, Any]
    steps: Mapping[str, Any]
    commands: str
    takes: str
    example: Tensor


def data_format(
    kind: str,
    written: str,
    shape: Sequence[int],
    channels: Sequence[str],
    value_range: Sequence[float] = (),
) -> dict[str, Any]:
    """Describe an input or output of a network as MONAI's schema of bundles does.

    Args:
        kind: ``image`` or ``probabilities``.
        written: ``labels``, ``segmentation``, ``magnitude`` or ``classes``.
        shape: sides; none for what has no place.
        channels: what each holds.
        value_range: lowest and highest; empty if there are none.
    """
    return {
        "type": kind,
        "format": written,
        "modality": "n/a",
        "num_channels": len(channels),
        "spatial_shape": list(shape),
        "dtype": "float32",
        "value_range": list(value_range),
        "is_patch_data": False,
        "channel_def": {str(n): channel for n, channel in enumerate(channels)},
    }


def levels_of(run: RunFolder) -> tuple[str, ...]:
    """Levels of the column that a classifier tells."""
    (column,) = run.conditions.columns
    return column.levels


def class_steps() -> list[dict[str, Any]]:
    """Postprocessing of a classifier."""
    return [
        {"_target_": "Activationsd", "keys": "pred", "softmax": True},
        {
            "_target_": f"{ADDRESS}.ToldClassd", "keys": "pred", "folder": "@bundle_root",
            "output_dir": "@output_dir",
        },
    ]  # fmt: skip


class ToldClassd(MapTransform):
    """Probabilities of classes → a JSON file of each volume or image, beside the class told.

    Args:
        keys: of (n,) probabilities.
        folder: of the bundle.
        output_dir: folder to write to.
    """

    def __init__(self, keys: KeysCollection, folder: str | Path, output_dir: str | Path) -> None:
        super().__init__(keys)
        self.levels = levels_of(RunFolder.open(Path(folder)))
        self.output_dir = Path(output_dir)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Write ``KEY_class.json``; the dictionary comes back as it is."""
        for key in self.key_iterator(dict(data)):
            likely = torch.as_tensor(data[key]).flatten().tolist()
            told = self.levels[max(range(len(likely)), key=likely.__getitem__)]
            shares = dict(zip(self.levels, (round(p, 6) for p in likely), strict=True))
            stem = Path(data[key].meta["filename_or_obj"]).name.partition(".")[0]
            write_json(
                self.output_dir / f"{stem}_class.json", {"class": told, "probabilities": shares}
            )
        return dict(data)
