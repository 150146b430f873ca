"""Names of folds by what was learned from folds with names: place, shape, and the folds around.

A small network looks at each fold, by its log density under each name in an atlas and by its shape,
and at the means of these over the folds that touch it and over those around. Its weights are plain
arrays in the file of the atlas, applied by NumPy: `foldnorm.pipeline.training.learn_names` makes
them.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax, softmax

from foldnorm.preprocessing.core.errors import InputError
from foldnorm.preprocessing.naming.alignment import Points, align_near, fold_means, transformed
from foldnorm.preprocessing.naming.atlas import AtlasSide
from foldnorm.preprocessing.naming.fold_features import (
    TOUCHING_MM,
    FoldFeatures,
    fold_features,
)

LAYERS = ("first", "second", "third", "last")
WEIGHTS = ("mean", "spread", *(f"{name}.{kind}" for name in LAYERS for kind in ("weight", "bias")))
PLACES = ("counts", "affine")
PREFIX = "learned."  # of the names of these arrays in the file of an atlas
COARSEST_MM = 2.0  # voxels in which folds side by side touch, see `TOUCHING_MM`
LOG = logging.getLogger(__name__)
Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class LearnedNames:
    """Namer of folds that lie in the space of an atlas.

    Attributes:
        places: a left side, of left and mirrored right hemispheres: where the folds of each name
            lie; the last name is empty, for folds that have none.
        weights: of the networks, m of them, each array (m, …): `WEIGHTS`. ``mean`` and ``spread``
            (k,) bring features to the order of one.
        temperature: of the posterior, by which it says how often it is right on people who were
            not learned from.
        about: ``temperature``, numbers of ``people`` and ``hemispheres`` that it was learned from,
            and ``right_share_of_people_left_out``, of folds by size.
    """

    places: AtlasSide = field(repr=False)
    weights: Arrays = field(repr=False)
    temperature: float
    about: Mapping[str, Any] = field(default_factory=dict)

    @property
    def names(self) -> tuple[str, ...]:
        """Sulci."""
        return self.places.names[:-1]

    def posterior(
        self, points: Points, folds: NDArray[np.integer], hemi: str
    ) -> NDArray[np.float64]:
        """Probability of each sulcus, (F, n); what is missing to 1 is that of no name.

        Args:
            points: (N, 3), mm in the space of the atlas.
            folds: (N,), fold of each point, from 0 to F − 1; none is without points.
            hemi: ``L`` or ``R``.
        """
        is_right = hemi == "R"
        left = points * (-1.0 if is_right else 1.0, 1, 1)
        left = aligned(self.places, left, folds)
        features = features_at(self.places, left, folds, is_right=is_right)
        log = np.log(class_probabilities(self.weights, features))
        return softmax(log / self.temperature, axis=1)[:, :-1]

    @classmethod
    def in_arrays(
        cls, arrays: Arrays, names: tuple[str, ...], about: Mapping[str, Any], path: Path
    ) -> "LearnedNames | None":
        """Return the learned part of an atlas, None if there is none.

        Args:
            arrays: of the file.
            names: of the sulci of the atlas.
            about: of the atlas.
            path: of the file.

        Raises:
            InputError: it is damaged.
        """
        if "learned" not in about:
            return None
        try:
            own = dict(about["learned"])
            weights = {name: arrays[PREFIX + name] for name in WEIGHTS}
            counts, affine = (arrays[PREFIX + name] for name in PLACES)
            places = AtlasSide((*names, ""), counts, affine.astype(np.float64))
            _check(places, weights)
            temperature = float(own["temperature"])
            if not temperature > 0:
                raise ValueError(f"temperature {temperature}")
            return cls(places, weights, temperature, own)
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise InputError(
                f"expected learned names as foldnorm atlas --learn writes them, got {error}: {path}"
            ) from error

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return what `in_arrays` reads."""
        own = {**self.weights, "counts": self.places.counts, "affine": self.places.affine}
        return {PREFIX + name: array for name, array in own.items()}


def warn_of_coarse_voxels(voxel_size: Sequence[float], folder: Path) -> None:
    """Warn where folds that touch cannot be told from others, by which they are named, too.

    Args:
        voxel_size: mm.
        folder: of the cohort.
    """
    if max(voxel_size) > COARSEST_MM:
        LOG.warning(
            "learned names go by which folds touch, within %g mm: expected voxels of at most %g "
            "mm, got %g mm, in which few do and names are less sure: %s",
            TOUCHING_MM,
            COARSEST_MM,
            max(voxel_size),
            folder,
        )


def aligned(places: AtlasSide, points: Points, folds: NDArray[np.integer]) -> Points:
    """Align folds that lie near with the places of a learned namer, those without a name too.

    Args:
        places: see `LearnedNames`.
        points: (N, 3), mm, mirrored to the left.
        folds: (N,), fold of each point.
    """
    return transformed(points, align_near(places, points, folds).matrix)


def features_at(
    places: AtlasSide, points: Points, folds: NDArray[np.integer], *, is_right: bool
) -> FoldFeatures:
    """Describe the folds of a hemisphere in the space of an atlas.

    Args:
        places: see `LearnedNames`.
        points: (N, 3), mm, mirrored to the left.
        folds: (N,), fold of each point, from 0 to F − 1; none is without points.
        is_right: the hemisphere is a right one.
    """
    voxels = transformed(points, places.to_voxel).astype(np.float32)
    density = fold_means(places.log_density, voxels, folds, int(folds.max()) + 1)
    return fold_features(density, points, folds, is_right=is_right)


def class_probabilities(weights: Arrays, features: FoldFeatures) -> NDArray[np.float64]:
    """Mean over the networks of the probabilities of the classes, (F, n + 1), all above 0."""
    given = (features.values - weights["mean"]) / weights["spread"]
    found = []
    for m in range(len(weights["last.bias"])):
        values = given
        for name in LAYERS:
            if name != LAYERS[0]:
                values = np.maximum(values, 0)
            values = values @ weights[f"{name}.weight"][m].T + weights[f"{name}.bias"][m]
        found.append(log_softmax(values.astype(np.float64), axis=1))
    return np.maximum(np.exp(found).mean(axis=0), np.finfo(np.float32).tiny)


def _check(places: AtlasSide, weights: Arrays) -> None:
    """Raise ValueError unless these arrays can name folds."""
    if places.counts.ndim != 4 or len(places.counts) != len(places.names):
        raise ValueError(f"counts of shape {places.counts.shape}")
    if places.affine.shape != (4, 4) or not np.isfinite(places.affine).all():
        raise ValueError("no affine matrix")
    if not (weights["spread"] > 0).all():
        raise ValueError("a feature without any spread")
    alone = np.zeros((1, 3)), np.zeros(1, dtype=np.int64)
    density = np.zeros((1, len(places.names)), dtype=np.float32)
    likely = class_probabilities(weights, fold_features(density, *alone, is_right=False))
    if likely.shape != density.shape or not np.isfinite(likely).all():
        raise ValueError("weights of another network")
