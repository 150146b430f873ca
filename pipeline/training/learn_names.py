"""Learning of the names of folds from people whose folds have names.

What a fold looks like in an atlas is seen as for somebody new: in an atlas of other people. People
are therefore put into `PARTS` parts, and the folds of each are aligned with and described in an
atlas of the others, which is made twice: of folds where they lie in MNI space, and where the first
one aligns them. Networks that were trained on the others name them as well, which says how often
names are right, and at which temperature a posterior says so itself: that of networks that saw
fewer people than those that are kept, see `_of_all`.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax
from torch import Tensor

from foldnorm.models.fold_namer import FoldNamer
from foldnorm.preprocessing.cohort.cohort import Cohort, family_of, row_key
from foldnorm.preprocessing.core.arrays import read_row
from foldnorm.preprocessing.core.errors import InputError
from foldnorm.preprocessing.naming.alignment import Points, transformed
from foldnorm.preprocessing.naming.atlas import AtlasSide, SulcusAtlas, count_brain, mni_grid
from foldnorm.preprocessing.naming.fold_features import FoldFeatures
from foldnorm.preprocessing.naming.learned_names import (
    LearnedNames,
    aligned,
    class_probabilities,
    features_at,
    warn_of_coarse_voxels,
)
from foldnorm.preprocessing.naming.named_folds import names_by_label, with_families
from foldnorm.preprocessing.spatial.space import Matrix

MIN_PEOPLE = 8  # whose folds have names: of fewer, how folds vary cannot be learned
PARTS = 3
MEMBERS = 2  # networks whose mean names folds
STEPS, BATCH = 1500, 1024  # of training; folds of a step
LEARNING_RATE, WEIGHT_DECAY = 3e-3, 1e-3
LEAST_SPREAD = 0.01  # of a feature, which is of the order of one
TEMPERATURES = (0.5, 5.0)  # least and most


@dataclass(frozen=True)
class NamedFolds:
    """Folds of a hemisphere and their names.

    Attributes:
        person: whose; two files of one person have one.
        hemi: ``L`` or ``R``.
        points: (N, 3), MNI mm of their voxels, mirrored to the left.
        folds: (N,), fold of each point, from 0 to F − 1.
        classes: (F,), number of each fold's sulcus; that after the last one if it has no name.
    """

    person: str
    hemi: str
    points: Points = field(repr=False)
    folds: NDArray[np.int64] = field(repr=False)
    classes: NDArray[np.int64] = field(repr=False)


@dataclass(frozen=True)
class Example:
    """Folds as a network sees them, and their names.

    Attributes:
        person: whose they are.
        features: of the folds.
        classes: (F,), see `NamedFolds`.
        n_classes: names, and none.
    """

    person: str
    features: FoldFeatures = field(repr=False)
    classes: NDArray[np.int64] = field(repr=False)
    n_classes: int


def learned_atlas(cohort: Cohort, without: Sequence[str] = ()) -> SulcusAtlas:
    """Make an atlas of a cohort, and learn to name folds by it.

    Args:
        cohort: of hemispheres in MNI space, whose table of folds has names.
        without: participants to leave out, with all of their families.

    Raises:
        InputError: no atlas can be made of it, or there are too few people to learn from.
    """
    atlas = SulcusAtlas.from_cohort(cohort, without)
    hemispheres = list(_named_folds(cohort, atlas.names, with_families(cohort, without)))
    people = sorted({own.person for own in hemispheres})
    if len(people) < MIN_PEOPLE:
        raise InputError(
            f"learning names requires at least {MIN_PEOPLE} people whose folds have names, got "
            f"{len(people)} (without --learn an atlas of them is made): {cohort.folder}"
        )
    warn_of_coarse_voxels(cohort.voxel_size, cohort.folder)
    parts = [set(people[n::PARTS]) for n in range(PARTS)]
    counter = PlaceCounter(atlas.names, *mni_grid(cohort.voxel_size))
    hemispheres = [
        replace(own, points=aligned(places, own.points, own.folds))
        for own, places in _each_with_others(hemispheres, parts, counter)
    ]
    examples = [
        _example(own, places) for own, places in _each_with_others(hemispheres, parts, counter)
    ]
    likely = _cross_fitted(examples, parts)
    temperature = _of_all(_temperature(likely, examples))
    classes, sizes = _classes_and_sizes(examples)
    right = likely.argmax(axis=1) == classes
    about = {
        "temperature": temperature,
        "people": len(people),
        "hemispheres": len(hemispheres),
        "right_share_of_people_left_out": float(np.average(right, weights=sizes)),
    }
    weights = train_fold_namer(examples)
    learned = LearnedNames(counter.places(hemispheres), weights, temperature, about)
    return replace(atlas, learned=learned, about={**atlas.about, "learned": about})


def _named_folds(cohort: Cohort, names: Sequence[str], without: set[str]) -> Iterable[NamedFolds]:
    """Folds of every hemisphere of which at least one has a name."""
    tables = names_by_label(cohort)
    number_of = {name: n for n, name in enumerate(names)}
    for index, row in enumerate(cohort.rows):
        own = tables.get(row_key(row), {})
        if row["participant_id"] in without or not own or cohort.folds is None:
            continue
        volume = read_row(cohort.folds, index)
        points = transformed(np.argwhere(volume), cohort.affine_of(row))
        labels, folds = np.unique(volume[volume > 0], return_inverse=True)
        classes = np.array([number_of.get(own.get(int(n), ""), len(names)) for n in labels])
        left = points * (-1.0 if row["hemi"] == "R" else 1.0, 1, 1)
        yield NamedFolds(family_of(row), row["hemi"], left, folds, classes)


@dataclass(frozen=True)
class PlaceCounter:
    """Counter of where the folds of each name, and of none, lie.

    Attributes:
        names: of the sulci.
        grid: (4, 4), voxel → MNI mm.
        shape: its sides.
    """

    names: tuple[str, ...]
    grid: Matrix
    shape: NDArray[np.int64]

    def places(self, hemispheres: Iterable[NamedFolds]) -> AtlasSide:
        """Return a left side of an atlas, whose last, empty name is that of folds without one."""
        counts = np.zeros((len(self.names) + 1, *self.shape), dtype=np.uint16)
        to_grid: Any = np.linalg.inv(self.grid)
        for own in hemispheres:
            count_brain(counts, own.classes[own.folds], transformed(own.points, to_grid))
        return AtlasSide((*self.names, ""), counts, self.grid).cropped()


def _each_with_others(
    hemispheres: Sequence[NamedFolds], parts: Sequence[set[str]], counter: PlaceCounter
) -> Iterator[tuple[NamedFolds, AtlasSide]]:
    """Yield each hemisphere, with where the folds of people of the other parts lie."""
    for part in parts:
        places = counter.places(own for own in hemispheres if own.person not in part)
        yield from ((own, places) for own in hemispheres if own.person in part)


def _example(own: NamedFolds, places: AtlasSide) -> Example:
    points = aligned(places, own.points, own.folds)
    features = features_at(places, points, own.folds, is_right=own.hemi == "R")
    return Example(own.person, features, own.classes, len(places.names))


def _cross_fitted(examples: Sequence[Example], parts: Sequence[set[str]]) -> NDArray[np.float64]:
    """Probabilities of the classes of every fold, by networks that saw none of its part."""
    likely = {}
    for part in parts:
        weights = train_fold_namer([own for own in examples if own.person not in part])
        for n, own in enumerate(examples):
            if own.person in part:
                likely[n] = class_probabilities(weights, own.features)
    return np.concatenate([likely[n] for n in range(len(examples))])


def _classes_and_sizes(
    examples: Sequence[Example],
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Class and size of every fold."""
    return (
        np.concatenate([own.classes for own in examples]),
        np.concatenate([own.features.sizes for own in examples]),
    )


def train_fold_namer(examples: Sequence[Example]) -> dict[str, NDArray[Any]]:
    """Train networks on the folds of hemispheres.

    Returns:
        The arrays of `LearnedNames.weights`.
    """
    values = np.concatenate([own.features.values for own in examples])
    mean, spread = values.mean(axis=0), values.std(axis=0) + np.float32(LEAST_SPREAD)
    classes, sizes = _classes_and_sizes(examples)
    tensors = (
        torch.from_numpy((values - mean) / spread),
        torch.from_numpy(classes),
        # Between folds alike and voxels alike: large folds matter more, but there are few of them.
        torch.from_numpy(np.sqrt(sizes).astype(np.float32)),
    )
    found = [_fitted(*tensors, examples[0].n_classes, seed) for seed in range(MEMBERS)]
    weights = {name: np.stack([own[name].numpy() for own in found]) for name in found[0]}
    return {"mean": mean, "spread": spread, **weights}


def _fitted(
    values: Tensor, classes: Tensor, weights: Tensor, n_classes: int, seed: int
) -> dict[str, Tensor]:
    """Minimise the cross-entropy of the names by AdamW, on folds drawn at random."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = FoldNamer(values.shape[1], n_classes)
        optimizer = torch.optim.AdamW(
            network.parameters(), LEARNING_RATE, weight_decay=WEIGHT_DECAY
        )
        rates = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, STEPS)
        for _ in range(STEPS):
            drawn = torch.randint(len(values), (BATCH,))
            costs = F.cross_entropy(network(values[drawn]), classes[drawn], reduction="none")
            loss = weights[drawn] @ costs / weights[drawn].sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            rates.step()
    return network.state_dict()


def _temperature(likely: NDArray[np.float64], examples: Sequence[Example]) -> float:
    """Temperature under which the names of people left out are most likely, by size of folds."""
    log = np.log(likely)
    classes, sizes = _classes_and_sizes(examples)

    def cost(temperature: float) -> float:
        own = log_softmax(log / temperature, axis=1)[np.arange(len(classes)), classes]
        return float(-(sizes * own).sum())

    return float(minimize_scalar(cost, bounds=TEMPERATURES, method="bounded").x)


def _of_all(temperature: float) -> float:
    """Temperature of networks trained on all people, from that of networks that lacked one part.

    What they are too sure of falls with the number of people, as its reciprocal: of the 21 people
    of one site, log T is 0.62 with networks that saw 14 of them, and 0.50 with 18.
    """
    return float(temperature ** (1 - 1 / PARTS))
