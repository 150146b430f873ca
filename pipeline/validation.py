"""What is looked at while a model trains: figures and pictures of validation volumes."""

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from foldnorm.models.classes import to_classes
from foldnorm.models.protocols import Encodes, Samples, Trainable
from foldnorm.pipeline.sheet_metrics import compare_populations, mean_panel
from foldnorm.preprocessing.cohort import Cohort
from foldnorm.preprocessing.pictures import contact_sheet, middle_slices

PICTURED = 4  # validation volumes in a sample picture
DRAWN = 8  # volumes drawn from the model at a validation
Labels = NDArray[np.uint8]


def validate(
    model: nn.Module, cohort: Cohort, device: torch.device, at_most: int
) -> dict[str, float]:
    """Loss and sheet panel of the reconstructions of validation volumes, and drawn beside real.

    Args:
        model: it is put in evaluation mode.
        cohort: whose validation split is reconstructed.
        device: where the model is.
        at_most: volumes.

    Returns:
        Means under ``validation/…``, and under ``samples/…`` if the model draws; empty if there
        is no validation volume.
    """
    model.eval()
    assert isinstance(model, Trainable)
    losses, pairs, real, foreground = [], [], [], cohort.scheme.foreground
    with torch.no_grad():
        for original, batch in _volumes(cohort, device, at_most):
            losses.append(float(model.validation_loss(batch)))
            real.append(foreground(original))
            if isinstance(model, Encodes):
                reconstruction = _reconstruct(model, batch)
                pairs.append((foreground(reconstruction), real[-1]))
    if not losses:
        return {}
    figures = {"validation/loss": float(np.mean(losses))}
    figures |= {f"validation/{name}": value for name, value in mean_panel(pairs).items()}
    if isinstance(model, Samples):
        drawn = [foreground(volume) for volume in _samples(model)]
        compared = compare_populations(drawn, real)
        figures |= {f"samples/{name}": value for name, value in compared.items()}
    return figures


def sample_picture(model: nn.Module, cohort: Cohort, device: torch.device) -> Labels | None:
    """Validation volumes beside their reconstructions, then volumes drawn from the prior.

    Returns:
        An (H, W, 3) picture; None if the model neither encodes nor samples.
    """
    model.eval()
    n = cohort.scheme.n_classes
    rows = []
    with torch.no_grad():
        if isinstance(model, Encodes):
            for original, batch in _volumes(cohort, device, PICTURED):
                decoded = _reconstruct(model, batch)
                rows.append([*middle_slices(original, n), *middle_slices(decoded, n)])
        if isinstance(model, Samples):
            drawn = _samples(model)
            for first, second in zip(drawn[::2], drawn[1::2], strict=False):
                rows.append([*middle_slices(first, n), *middle_slices(second, n)])
    return contact_sheet(rows) if rows else None


def _volumes(
    cohort: Cohort, device: torch.device, at_most: int
) -> Iterator[tuple[Labels, torch.Tensor]]:
    for index in cohort.indices("validation")[:at_most]:
        volume = np.array(cohort.volumes[index])
        yield volume, torch.from_numpy(volume)[None].to(device)


def _samples(model: Samples) -> Labels:
    """Draw the same volumes at every validation, (DRAWN, I, J, K): progress is then seen."""
    return model.sample(DRAWN, torch.Generator().manual_seed(0)).cpu().numpy()


def _reconstruct(model: Encodes, batch: torch.Tensor) -> Labels:
    return to_classes(model.decode(model.encode(batch)))[0].cpu().numpy()
