"""Volumes in which a named sulcus never formed, and others fill its place: a MONAI transform.

A network that has only seen healthy brains finds each of its sulci in any brain: it names what lies
in the place of one that is missing. So some are taken out of training volumes, and their place is
filled with small folds of the same brain, mirrored and moved there, that are no named sulcus.
"""

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
from monai.config import KeysCollection
from monai.transforms import MapTransform
from numpy.typing import NDArray

from foldnorm.pipeline.data.items import GeneratorTransform, class_numbers, fold_numbers, like
from foldnorm.preprocessing.io.schemes import LabelScheme, load_scheme

FEWEST_VOXELS = 20  # of a sulcus that is taken out, and of a fold that takes its place
FILLERS = 2, 6  # folds that fill a place
NEAR = 3.0  # voxels from the old course at most, at which a filler is centred
UNNAMED = 0


class RandReplaceSulcusd(GeneratorTransform, MapTransform):
    """Take a named sulcus out of a label volume at random, and fill its place with other folds.

    Args:
        keys: of a (1, I, J, K) label volume.
        sulci_key: of the number of the sulcus that each voxel belongs to, (1, I, J, K); 0: of none
            that has a name.
        folds_key: of fold labels, (1, I, J, K); 0: of no fold.
        prob: share of the volumes that it is done to.
        scheme: label scheme of the volume, its name, or a YAML file.
        allow_missing_keys: whether a dictionary may lack a key.

    Example:
        >>> import numpy as np
        >>> volume = np.ones((1, 24, 24, 24), np.uint8)  # inside
        >>> folds = np.zeros((1, 24, 24, 24), np.uint16)
        >>> for fold, i in enumerate((6, 12), start=1):
        ...     volume[0, i, 4:20, 4:20], folds[0, i, 4:20, 4:20] = 2, fold
        >>> item = {"image": volume, "folds": folds, "sulci": (folds == 1).astype(np.uint8)}
        >>> replace = RandReplaceSulcusd("image", prob=1.0).set_random_state(seed=0)
        >>> replaced = replace(item)
        >>> bool(replaced["sulci"].any()), bool((replaced["image"][folds == 2] == 2).all())
        (False, True)
    """

    stream = "substitution"

    def __init__(
        self,
        keys: KeysCollection,
        sulci_key: Hashable = "sulci",
        folds_key: Hashable = "folds",
        *,
        prob: float = 0.5,
        scheme: LabelScheme | str = "skeleton",
        allow_missing_keys: bool = False,
    ) -> None:
        MapTransform.__init__(self, keys, allow_missing_keys)
        GeneratorTransform.__init__(self, prob)
        self.sulci_key, self.folds_key = sulci_key, folds_key
        self.scheme = load_scheme(scheme) if isinstance(scheme, str) else scheme

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the dictionary with volume and sulci altered, or as they are."""
        changed = dict(data)
        for key in self.key_iterator(changed):
            self.randomize(None)
            if not self._do_transform:
                continue
            volume, sulci = changed[key], changed[self.sulci_key]
            folds = fold_numbers(changed[self.folds_key])
            replaced, left = self.replaced(class_numbers(volume), class_numbers(sulci), folds)
            changed[key], changed[self.sulci_key] = (
                like(volume, replaced[None]),
                like(sulci, left[None]),
            )
        return changed

    def replaced(
        self, volume: NDArray[np.uint8], sulci: NDArray[np.uint8], folds: NDArray[np.integer]
    ) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Draw a sulcus and what fills its place.

        Args:
            volume: (I, J, K) class numbers.
            sulci: (I, J, K) numbers of sulci.
            folds: (I, J, K) fold labels.

        Returns:
            The volume, and the sulci of its voxels.
        """
        rng, sulcus = self.rng, self.scheme.foreground(volume)
        counts = np.bincount(sulci[sulcus], minlength=1)
        counts[UNNAMED] = 0
        large = np.flatnonzero(counts >= FEWEST_VOXELS)
        if not len(large):
            return volume, sulci
        old = sulcus & (sulci == rng.choice(large))
        volume, sulci = volume.copy(), sulci.copy()
        volume[old], sulci[old] = self.scheme.void, UNNAMED
        course = np.argwhere(old)
        fillers = _unnamed_folds(self.scheme.foreground(volume) & (sulci == UNNAMED), folds)
        for _ in range(int(rng.integers(*FILLERS)) if fillers else 0):
            places = fillers[int(rng.integers(len(fillers)))]
            places = (places - places.mean(axis=0)) * rng.choice([-1, 1], 3)
            middle = course[rng.integers(len(course))] + rng.uniform(-NEAR, NEAR, 3)
            places = np.rint(places + middle).astype(int)
            places = places[((places >= 0) & (places < volume.shape)).all(axis=1)]
            free = volume[tuple(places.T)] == self.scheme.void
            volume[tuple(places[free].T)] = self.scheme.top
        return volume, sulci


def _unnamed_folds(
    unnamed: NDArray[np.bool_], folds: NDArray[np.integer]
) -> list[NDArray[np.int64]]:
    """Voxels of each fold, (n, 3), that is no named sulcus and no part of the hull."""
    numbers = folds[unnamed]
    places = np.argwhere(unnamed)
    order = np.argsort(numbers, kind="stable")
    cuts = np.flatnonzero(np.diff(numbers[order])) + 1
    groups = np.split(order, cuts)
    return [places[g] for g in groups if len(g) >= FEWEST_VOXELS and numbers[g[0]]]
