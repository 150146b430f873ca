"""What is looked at while a model trains: figures and pictures of validation volumes."""

from collections.abc import Iterator, Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from foldnorm.models.classes import to_classes
from foldnorm.models.protocols import Encodes, Restores, Samples, Trainable, Translates
from foldnorm.pipeline.class_metrics import class_dice
from foldnorm.pipeline.sheet_metrics import compare_populations, mean_panel
from foldnorm.pipeline.trained_model import TrainedModel
from foldnorm.pipeline.training_edits import TrainingEdits
from foldnorm.preprocessing.cohort import Cohort
from foldnorm.preprocessing.errors import InputError
from foldnorm.preprocessing.pictures import contact_sheet, middle_slices
from foldnorm.preprocessing.schemes import LabelScheme

VALIDATION_SEED = 0  # of what is erased from validation volumes
PICTURED = 4  # validation volumes in a sample picture
DRAWN = 8  # volumes drawn from the model at a validation
Labels = NDArray[np.uint8]


def validate(trained: TrainedModel, cohort: Cohort, at_most: int) -> dict[str, float]:
    """Loss and figures of what a model makes of validation volumes.

    Args:
        trained: its model is put in evaluation mode.
        cohort: whose validation split is looked at.
        at_most: volumes.

    Returns:
        Means under ``validation/…``: the sheet panel of reconstructions if the model encodes, the
        Dice of each class if it translates, the mean probability of structure where some was erased
        (``restored``) and where there never was any (``invented``) if it restores; and under
        ``samples/…``, drawn volumes beside real ones, if it draws. Empty if there is no validation
        volume.
    """
    model = trained.model.eval()
    assert isinstance(model, Trainable)
    losses, real, pairs, dice, restored = [], [], [], [], []
    foreground = cohort.scheme.foreground
    with torch.no_grad():
        for volumes, row in _volumes(model, cohort, at_most):
            batch = torch.from_numpy(volumes)[None].to(trained.device)
            condition = trained.condition([row])
            losses.append(float(model.validation_loss(batch, condition)))
            if isinstance(model, Translates):
                source, target = _parted(model, volumes)
                scheme = target_scheme(model, cohort)
                dice.append(class_dice(_translated(model, source, trained.device), target, scheme))
                continue
            if isinstance(model, Restores):
                restored.append(_restored(model, batch, cohort.scheme))
                continue
            real.append(foreground(volumes))
            if isinstance(model, Encodes):
                pairs.append((foreground(_reconstruct(model, batch, condition)), real[-1]))
    if not losses:
        return {}
    figures = {"loss": float(np.mean(losses)), **mean_panel(pairs)}
    if dice:
        figures |= {name: float(np.nanmean([d[name] for d in dice])) for name in dice[0]}
    if restored:
        shares = np.nanmean(restored, axis=0)
        figures |= dict(zip(("restored", "invented"), map(float, shares), strict=True))
    figures = {f"validation/{name}": value for name, value in figures.items()}
    if isinstance(model, Samples):
        drawn = [foreground(volume) for volume in _samples(trained, cohort)]
        compared = compare_populations(drawn, real)
        figures |= {f"samples/{name}": value for name, value in compared.items()}
    return figures


def sample_picture(trained: TrainedModel, cohort: Cohort) -> Labels | None:
    """Rows of slices: validation volumes beside what the model makes of them, then drawn ones.

    Returns:
        An (H, W, 3) picture: volume and reconstruction, or volume, translation and true second
        volume, or edited, restored and as it was, or drawn volumes; None if it makes nothing.
    """
    model = trained.model.eval()
    n = cohort.scheme.n_classes
    rows = []
    with torch.no_grad():
        if isinstance(model, Translates):
            others = target_scheme(model, cohort).n_classes
            for volumes, _ in _volumes(model, cohort, PICTURED):
                source, target = _parted(model, volumes)
                made = _translated(model, source, trained.device)
                shown = [(source, n), (made, others), (target, others)]
                rows.append([s for volume, m in shown for s in middle_slices(volume, m)])
        elif isinstance(model, Restores):
            for volumes, _ in _volumes(model, cohort, PICTURED):
                batch = torch.from_numpy(volumes)[None, 0].to(trained.device)
                back = to_classes(model.restore(batch))[0].cpu().numpy()
                shown_edits = (volumes[0], back, volumes[1])
                rows.append([s for volume in shown_edits for s in middle_slices(volume, n)])
        elif isinstance(model, Encodes):
            for original, row in _volumes(model, cohort, PICTURED):
                batch = torch.from_numpy(original)[None].to(trained.device)
                decoded = _reconstruct(model, batch, trained.condition([row]))
                rows.append([*middle_slices(original, n), *middle_slices(decoded, n)])
        if isinstance(model, Samples):
            drawn = _samples(trained, cohort)
            for first, second in zip(drawn[::2], drawn[1::2], strict=False):
                rows.append([*middle_slices(first, n), *middle_slices(second, n)])
    return contact_sheet(rows) if rows else None


def second_volumes(model: nn.Module, cohort: Cohort) -> NDArray[np.integer] | None:
    """Second volumes of the cohort's pairs, or fold labels, if the model reads any.

    Raises:
        InputError: it does, and the cohort has none.
    """
    assert isinstance(model, Trainable)
    if model.reads == "volumes":
        return None
    if isinstance(model, Restores):
        return _fold_labels(model, cohort)
    if cohort.pairs is None:
        raise InputError(
            f"{type(model).__name__} needs pairs, and the cohort has none; preprocess it with "
            f"--pair grey-white: {cohort.folder}"
        )
    return cohort.pairs


def _fold_labels(model: Restores, cohort: Cohort) -> NDArray[np.integer] | None:
    if "folds" not in model.edits:
        return None
    if cohort.folds is None:
        raise InputError(
            "to erase whole folds the cohort needs fold labels, and has none; train with "
            f"--model.init_args.edits '[balls, slabs, noise]': {cohort.folder}"
        )
    return cohort.folds


def training_edits(model: Restores, cohort: Cohort, seed: int) -> TrainingEdits:
    """What is erased from the volumes that a model learns from."""
    return TrainingEdits(model.edits, model.most_edits, cohort.scheme, seed)


def target_scheme(model: Translates, cohort: Cohort) -> LabelScheme:
    """Scheme of what a model translates into."""
    assert cohort.pair_scheme is not None
    return cohort.scheme if model.reverse else cohort.pair_scheme


def _volumes(
    model: nn.Module, cohort: Cohort, at_most: int
) -> Iterator[tuple[Labels, Mapping[str, str]]]:
    """Validation volumes, (I, J, K), or pairs or edits, (2, I, J, K), and their rows."""
    second = second_volumes(model, cohort)
    for index in cohort.indices("validation")[:at_most]:
        volume = np.array(cohort.volumes[index])
        volumes = volume[None] if second is None else np.stack([volume, second[index]])
        if isinstance(model, Restores):  # the same at every validation
            volumes = training_edits(model, cohort, VALIDATION_SEED)(volumes, int(index))
        yield volumes if len(volumes) > 1 else volume, cohort.rows[index]


def _parted(model: Translates, pair: Labels) -> tuple[Labels, Labels]:
    """What is translated, and what should come out."""
    first, second = pair
    return (second, first) if model.reverse else (first, second)


def _samples(trained: TrainedModel, cohort: Cohort) -> Labels:
    """Draw the same volumes at every validation, (DRAWN, I, J, K): progress is then seen.

    A conditioned model is told what the cohort's first volumes are.
    """
    assert isinstance(trained.model, Samples)
    rows = [cohort.rows[n % len(cohort.rows)] for n in range(DRAWN)]
    generator = torch.Generator().manual_seed(0)
    return trained.model.sample(DRAWN, generator, trained.condition(rows)).cpu().numpy()


def _reconstruct(model: Encodes, batch: Tensor, condition: Tensor | None) -> Labels:
    codes = model.encode(batch, condition)
    return to_classes(model.decode(codes, condition))[0].cpu().numpy()


def _restored(model: Restores, batch: Tensor, scheme: LabelScheme) -> tuple[float, float]:
    """Mean probability of structure where it was erased, and where there was none."""
    edited, healthy = batch[:, 0], batch[0, 1]
    likely = structure_probability(model.restore(edited), scheme)[0]
    first = scheme.void + 1
    erased, empty = (healthy >= first) & (edited[0] < first), healthy == scheme.void
    return float(likely[erased].mean()), float(likely[empty].mean())


def structure_probability(logits: Tensor, scheme: LabelScheme) -> Tensor:
    """Probability of what a deletion can take (sulcus, in a skeleton), (B, I, J, K)."""
    return torch.softmax(logits.float(), dim=1)[:, scheme.void + 1 :].sum(dim=1)


def _translated(model: Translates, source: Labels, device: torch.device) -> Labels:
    batch = torch.from_numpy(source)[None].to(device)
    return to_classes(model.translate(batch))[0].cpu().numpy()
