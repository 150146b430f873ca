"""Classes, probabilities and volumes from a model's logits: pure functions of a batch."""

import torch
from torch import Tensor

from foldnorm.models.classes import to_classes
from foldnorm.models.label_autoencoder import LabelAutoencoder
from foldnorm.models.protocols import Decodes, Recognises, Translates
from foldnorm.preprocessing.cohort import Cohort
from foldnorm.preprocessing.schemes import LabelScheme


def target_scheme(model: Translates, cohort: Cohort) -> LabelScheme:
    """Scheme of what a model translates into."""
    assert cohort.pair_scheme is not None
    return cohort.scheme if model.reverse else cohort.pair_scheme


def structure_probability(logits: Tensor, scheme: LabelScheme) -> Tensor:
    """Probability of what a deletion can take (sulcus, in a skeleton), (B, I, J, K)."""
    return torch.softmax(logits.float(), dim=1)[:, scheme.void + 1 :].sum(dim=1)


def recognise(model: Recognises, volumes: Tensor, scheme: LabelScheme) -> Tensor:
    """Likeliest sulcus of each voxel of structure, 0 elsewhere: (B, I, J, K) uint8."""
    return to_classes(model.recognise(volumes)) * (volumes > scheme.void)


def decoded(model: Decodes, codes: Tensor, condition: Tensor | None = None) -> Tensor:
    """Volumes of codes: (B, *sides) uint8 class numbers; of images, float32 from −1 to 1."""
    logits = model.decode(codes, condition)
    return model.finished(logits) if isinstance(model, LabelAutoencoder) else to_classes(logits)
