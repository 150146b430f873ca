"""Classes, probabilities and volumes from a model's logits: pure functions of a batch."""

from collections.abc import Sequence

import torch
from torch import Tensor

from foldnorm.models.classes import to_classes
from foldnorm.models.label_autoencoder import LabelAutoencoder
from foldnorm.models.protocols import Decodes, Recognises, Restores, Translates
from foldnorm.models.volume_networks import coordinates
from foldnorm.preprocessing.cohort.cohort import Cohort
from foldnorm.preprocessing.io.schemes import LabelScheme

OVERLAP = 0.25  # of windows; with half, evidence was the same and took twice the time
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
