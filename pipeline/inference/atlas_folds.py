"""Names that an atlas gives to folds, and why some folds get none."""

from collections.abc import Collection

import numpy as np
from numpy.typing import NDArray

from foldnorm.pipeline.inference.results import Row
from foldnorm.pipeline.scoring.atlas_labeller import AtlasNamedBrain

# Probability of a name below which none is given. Of the voxels of four hemispheres with names,
# those from .3 to .5 are right in .6, and hardly any lies below.
LEAST_PROBABILITY = 0.3
SURE = 0.9  # from here on nine of ten voxels are right
NO_SULCUS, UNSURE, INSIDE = "no sulcus of the atlas there", "unsure", "inside a gyrus"
NO_NAME = "like folds without a name"  # by what was learned


def why_unnamed(
    brain: AtlasNamedBrain, least: float, inside: Collection[int], *, by_gyri: bool
) -> list[str]:
    """Say of each fold why it gets no name; nothing of those that get one.

    Names by gyri are of sulci between them: no fold inside a gyrus is one. The nomenclature of fold
    graphs has sulci inside gyri, too (intermediate frontal, occipital): there a fold inside one
    gets the name that the atlas is sure of, and no other.

    Args:
        brain: whose folds an atlas has named.
        least: probability of a name from which on it is given.
        inside: labels of the folds that lie inside one gyrus.
        by_gyri: the sulci of the atlas are those between gyri.
    """
    folds, found = brain.folds, []
    is_known = np.asarray(folds.posterior.any(axis=1))
    for label, known, likely in zip(folds.labels, is_known, folds.probabilities(), strict=True):
        why = ""
        if int(label) in inside and (by_gyri or likely < max(least, SURE)):
            why = INSIDE
        elif not known:
            why = NO_SULCUS
        elif likely == 0:
            why = NO_NAME
        elif likely < least:
            why = UNSURE
        found.append(why)
    return found


def known_share(brain: AtlasNamedBrain) -> float:
    """Return the share of the voxels of folds that lie where a sulcus of the atlas runs."""
    folds = brain.fold_labels[brain.fold_labels > 0]
    known = brain.folds.labels[brain.folds.posterior.any(axis=1)]
    return float(np.isin(folds, known).mean())


def named_labels(brain: AtlasNamedBrain, unnamed: list[str]) -> NDArray[np.uint8]:
    """Return the number of the sulcus of each voxel, (I, J, K), 0 where its fold has no name."""
    labels = brain.labels
    without = brain.folds.labels[[bool(why) for why in unnamed]]
    labels[tuple(brain.places[np.isin(brain.fold_labels, without)].T)] = 0
    return labels


def fold_rows(brain: AtlasNamedBrain, unnamed: list[str]) -> list[Row]:
    """Rows of ``folds.tsv``, largest fold first."""
    folds = brain.folds
    voxels = np.bincount(brain.fold_labels, minlength=int(folds.labels.max()) + 1)[folds.labels]
    likeliest = folds.names()
    columns = {
        "fold": folds.labels.tolist(),
        "voxels": voxels.tolist(),
        "sulcus": ["" if why else name for name, why in zip(likeliest, unnamed, strict=True)],
        "unnamed": unnamed,
        "likeliest": likeliest,
        "probability": np.round(folds.probabilities(), 3).tolist(),
        "second": folds.names(1),
        "second_probability": np.round(folds.probabilities(1), 3).tolist(),
    }
    rows = [dict(zip(columns, cells, strict=True)) for cells in zip(*columns.values(), strict=True)]
    return sorted(rows, key=lambda row: -row["voxels"])
