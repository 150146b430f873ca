"""Classes, probabilities and volumes from a model's logits: pure functions of a batch."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from foldnorm.models.classes import to_classes
from foldnorm.models.grids import coordinates
from foldnorm.models.label_autoencoder import LabelAutoencoder
from foldnorm.models.protocols import (
    Decodes,
    DrawsThickSheets,
    Generates,
    Recognises,
    Restores,
    Translates,
)
from foldnorm.preprocessing.cohort.cohort import Cohort
from foldnorm.preprocessing.cohort.preparation import Preparation
from foldnorm.preprocessing.core.errors import InputError
from foldnorm.preprocessing.io.schemes import LabelScheme
from foldnorm.preprocessing.topology.mending import mend_sheets

OVERLAP = 0.25  # of windows of a restorer; with half, evidence was the same in twice the time
OVERLAP_OF_TRANSLATION = 0.5
N_WINDOWS = 4  # predicted together


def target_scheme(model: Translates, cohort: Cohort) -> LabelScheme:
    """Return the label scheme of what a model translates into."""
    assert cohort.pair_scheme is not None
    return cohort.scheme if model.reverse else cohort.pair_scheme


def structure_probability(logits: Tensor, scheme: LabelScheme) -> Tensor:
    """Compute the probability of what a deletion can take (sulcus, in a skeleton), (B, I, J, K)."""
    return torch.softmax(logits.float(), dim=1)[:, scheme.void + 1 :].sum(dim=1)


def restored_in_windows(model: Restores, volumes: Tensor, sides: Sequence[int]) -> Tensor:
    """Restore volumes by a model that was trained on patches: logits, (B, C, I, J, K) float32.

    Its norms are those of a patch: shown a whole brain, with more outside, it answers otherwise.
    Windows overlap by a quarter; there logits are averaged, those of a window's middle weigh more.

    Args:
        model: takes patches.
        volumes: (B, I, J, K) uint8 class numbers.
        sides: of the patches.
    """
    from monai.inferers import sliding_window_inference  # seconds, for such models only

    where = coordinates(volumes.shape[1:]).to(volumes.device)
    shown = torch.cat([volumes[:, None].float(), where.expand(len(volumes), -1, -1, -1, -1)], dim=1)

    def restore(windows: Tensor) -> Tensor:
        ends = [windows[:, 1:, n, n, n] for n in (0, -1)]  # coordinates of first and last voxel
        return model.restore(windows[:, 0].to(torch.uint8), torch.cat(ends, dim=1)).float()

    logits = sliding_window_inference(
        shown, sides, N_WINDOWS, restore, overlap=OVERLAP, mode="gaussian"
    )
    assert isinstance(logits, Tensor)
    return logits


def recognise(model: Recognises, volumes: Tensor, scheme: LabelScheme) -> Tensor:
    """Label each voxel of structure with its likeliest sulcus, others 0: (B, I, J, K) uint8."""
    return to_classes(model.recognise(volumes)) * (volumes > scheme.void)


def decoded(model: Decodes, codes: Tensor, condition: Tensor | None = None) -> Tensor:
    """Decode codes: (B, *sides) uint8 class numbers; of images, float32 from −1 to 1."""
    logits = model.decode(codes, condition)
    return model.to_output(logits) if isinstance(model, LabelAutoencoder) else to_classes(logits)


def drawn(
    model: Generates,
    count: int,
    generator: torch.Generator,
    condition: Tensor | None,
    preparation: Callable[[], Preparation],
) -> NDArray[Any]:
    """Draw volumes; where the model draws thick sheets, mend and thin them.

    Args:
        model: draws.
        count: how many.
        generator: of all that is drawn.
        condition: (count, condition_size), or None.
        preparation: gives that of the volumes; not asked of images.

    Returns:
        (count, I, J, K) uint8 class numbers; of images, float32 from −1 to 1.
    """
    made = model.sample(count, generator, condition).cpu().numpy()
    if not isinstance(model, DrawsThickSheets) or not model.sheet_margin:
        return made
    scheme, has_hull = preparation().scheme, preparation().has_hull
    inside = scheme.void if has_hull else scheme.fill
    return np.stack([mend_sheets(v, scheme.top, scheme.fill, inside) for v in made])


def translated(model: Translates, volumes: Tensor, sides: Sequence[int], fill: int) -> Tensor:
    """Translate volumes, in windows where they are not of the sides that were trained on.

    Windows overlap by half; there logits are averaged, those of a window's middle weigh more.

    Args:
        model: takes volumes of these sides, and perhaps of others.
        volumes: (B, I, J, K) uint8 class numbers.
        sides: of the training volumes.
        fill: class number of what lies outside.

    Returns:
        (B, I, J, K) uint8 class numbers of the other volume.
    """
    window = [int(side) for side in sides]
    shape = list(volumes.shape[1:])
    is_smaller = all(side <= most for side, most in zip(shape, window, strict=True))
    if shape == window or (is_smaller and model.any_sides):
        return to_classes(model.translate(volumes))

    def predict(windows: Tensor) -> Tensor:
        return model.translate(windows[:, 0].to(torch.uint8)).float()

    from monai.inferers import sliding_window_inference  # seconds, for the largest volumes only

    logits = sliding_window_inference(
        volumes[:, None].float(), window, 1, predict, overlap=OVERLAP_OF_TRANSLATION,
        mode="gaussian", cval=float(fill),
    )  # fmt: skip
    assert isinstance(logits, Tensor)
    return to_classes(logits)


def joined(made: Sequence[Tensor]) -> NDArray[Any]:
    """Join what was made of batches, (N, …) in memory.

    Raises:
        InputError: there is none.
    """
    if not made:
        raise InputError("expected at least one brain, got none")
    return torch.cat(list(made)).cpu().numpy()
