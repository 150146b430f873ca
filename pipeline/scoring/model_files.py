"""A trained model as files beside a scorer: configuration, and weights as safetensors."""

from pathlib import Path

import safetensors.torch
import torch

from foldnorm.pipeline.artifacts import BUNDLE_WEIGHTS, RUN_DATA
from foldnorm.pipeline.runs.devices import choose_device
from foldnorm.pipeline.runs.run_folder import RunFolder
from foldnorm.pipeline.runs.trained_model import TrainedModel
from foldnorm.preprocessing.core.errors import InputError
from foldnorm.preprocessing.core.files import write_bytes, write_json

KEPT = ("preparation", "shape", "voxel_size", "phantom")  # of what a run records of its cohort


def save_model(trained: TrainedModel, folder: Path) -> None:
    """Write what `load_model` reads, without who the model was trained on.

    Raises:
        InputError: the model was not loaded from a run, which alone knows its configuration.
    """
    if not trained.config:
        raise InputError(
            f"only a model that was loaded from a run can be saved with a scorer, got a "
            f"{type(trained.model).__name__} without its configuration: {folder}"
        )
    RunFolder(folder).write_config(trained.config)
    kept = {name: trained.data[name] for name in KEPT}
    write_json(folder / RUN_DATA, {**kept, "conditions": trained.conditions.as_dicts()})
    state = {name: own.cpu().contiguous() for name, own in trained.model.state_dict().items()}
    write_bytes(folder / BUNDLE_WEIGHTS, safetensors.torch.save(state))


def load_model(folder: Path, device: torch.device | str) -> TrainedModel:
    """Read what `save_model` has written, in evaluation mode.

    Raises:
        InputError: the files are not there, or unreadable.
    """
    chosen = choose_device(device) if isinstance(device, str) else device
    return RunFolder.open(folder).load(chosen)
