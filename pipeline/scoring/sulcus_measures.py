"""Measures of recognised sulci: size, confidence, place, depth and pieces of each."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import cKDTree

from foldnorm.pipeline.data.sulcus_labels import SulcusLabels, named_indices
from foldnorm.pipeline.scoring.fitted import Fitted, State
from foldnorm.preprocessing.cohort.cohort import Brain, Cohort
from foldnorm.preprocessing.io.schemes import LabelScheme
from foldnorm.preprocessing.spatial.space import Matrix

# Columns of `measure`.
MEASURES = ("size_mm2", "confidence", "x", "y", "z", "depth_mm", "pieces")
MIN_PIECE_VOXELS = 5  # voxels; less is not counted as a piece
Labels = NDArray[np.uint8]
Measures = NDArray[np.float64]


class NamesVoxels(Protocol):
    """Interface of whatever names each voxel of structure after a sulcus."""

    sulci: tuple[str, ...]

    def named(self, brains: Iterable[Brain]) -> Iterator["NamedBrain"]:
        """Yield each brain with its voxels named."""


class NamedBrain:
    """A brain whose voxels are named.

    Args:
        volume: (I, J, K) uint8 class numbers.
        probabilities: (n + 1, V) of the names of its voxels of structure, in the order of
            ``np.argwhere``; the first is any other sulcus.
        scheme: of the volume.
    """

    def __init__(
        self, volume: Labels, probabilities: NDArray[np.float32], scheme: LabelScheme
    ) -> None:
        self.volume, self.probabilities, self.scheme = volume, probabilities, scheme
        self.places = np.argwhere(scheme.foreground(volume))

    @property
    def labels(self) -> Labels:
        """Number of the likeliest sulcus of each voxel, (I, J, K) uint8; 0 for none of them."""
        labels = np.zeros(self.volume.shape, dtype=np.uint8)
        labels[tuple(self.places.T)] = self.probabilities.argmax(axis=0)
        return labels

    def measure(self, affine: Matrix) -> Measures:
        """Measure each sulcus, (n, `len(MEASURES)`).

        Args:
            affine: (4, 4), voxel index → world mm.

        Returns:
            ``size_mm2``: voxels times the mean face of one, those that may be of another sulcus
            counted by their probability; ``confidence``: mean probability of the name over that
            size; ``x``, ``y``, ``z``: its centre; ``depth_mm``: of its deepest voxel below the
            outside; ``pieces``: 26-connected components of at least `MIN_PIECE_VOXELS` voxels.
            NaN where there is nothing to measure.
        """
        sides = np.linalg.norm(affine[:3, :3], axis=0)
        points = self.places @ affine[:3, :3].T + affine[:3, 3]
        found = np.full((len(self.probabilities) - 1, len(MEASURES)), np.nan)
        for n, likely in enumerate(self.probabilities[1:]):  # one at a time: they may be many
            own = likely.astype(np.float64)
            voxels = own.sum()
            weights = own / max(voxels, 1e-9)
            found[n, 0] = voxels * face_of(affine)
            found[n, 1] = (weights * own).sum()
            if voxels > 0.5:
                found[n, 2:5] = weights @ points
        labels = self.labels
        outside = self.volume == self.scheme.fill
        if outside.any():
            deepest = np.full(len(self.probabilities), -np.inf)
            own = labels[tuple(self.places.T)]
            np.maximum.at(deepest, own, _distances(self.places, outside, sides))
            found[:, 5] = np.where(np.isfinite(deepest), deepest, np.nan)[1:]
        boxes = ndimage.find_objects(labels, max_label=len(found))
        for number, box in enumerate(boxes, start=1):
            found[number - 1, 6] = 0 if box is None else _pieces(labels[box] == number)
        return found


class AtlasTemplate(Fitted):
    """Atlas that names voxels by where training brains have each sulcus.

    Args:
        sulci: names.
        scheme: of the volumes.
        spread: mm by which the labels of training brains are smoothed.

    Attributes:
        share_: (n + 1, I, J, K) float32, of the training brains; the first is any other sulcus.
    """

    def __init__(self, sulci: tuple[str, ...], scheme: LabelScheme, spread: float = 4.0) -> None:
        self.sulci, self.scheme, self.spread = sulci, scheme, spread

    def fit(self, cohort: Cohort) -> Self:
        """Count sulci in the training brains of a cohort whose folds have names."""
        sulci = SulcusLabels(cohort, self.sulci)
        counts = np.zeros((len(self.sulci) + 1, *cohort.shape), dtype=np.float32)
        for index in named_indices(cohort, "train"):
            structure = self.scheme.foreground(cohort.volumes[index])
            places = np.nonzero(structure)
            counts[(sulci[int(index)][places], *places)] += 1
        sigma = [self.spread / side for side in cohort.voxel_size]
        smooth = np.stack([ndimage.gaussian_filter(count, sigma) for count in counts]) + 1e-6
        self.share_ = smooth / smooth.sum(axis=0)
        return self

    def state_dict(self) -> State:
        """Return the shares of the training brains."""
        return {"share": self.share_}

    def load_state_dict(self, state: Mapping[str, Any]) -> Self:
        """Take what `state_dict` gave."""
        self.share_ = state["share"]
        return self

    def named(self, brains: Iterable[Brain]) -> Iterator[NamedBrain]:
        """Yield each brain with its voxels named."""
        for brain in brains:
            structure = self.scheme.foreground(brain.volume)
            yield NamedBrain(brain.volume, self.share_[:, structure], self.scheme)


def _distances(
    places: NDArray[np.int64], mask: NDArray[np.bool_], sides: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Distance of each of (V, 3) voxels off a mask to the nearest of the mask, mm, (V,).

    A distance transform of the whole volume would need 40 bytes a voxel.
    """
    border = np.argwhere(mask & ndimage.binary_dilation(~mask))
    return np.asarray(cKDTree(border * sides).query(places * sides)[0])


def face_of(affine: Matrix) -> float:
    """Mean face of a voxel, mm²."""
    return float(np.linalg.norm(affine[:3, :3], axis=0).prod() ** (2 / 3))


def _pieces(mask: NDArray[np.bool_]) -> int:
    labels, count = ndimage.label(mask, np.ones((3, 3, 3)))
    sizes = np.bincount(labels.ravel(), minlength=count + 1)[1:]
    return int((sizes >= MIN_PIECE_VOXELS).sum())
