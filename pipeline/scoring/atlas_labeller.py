"""An atlas of sulci as the namer of voxels, in place of a network."""

import logging
from collections.abc import Iterable, Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from foldnorm.pipeline.scoring.sulcus_measures import Labels, NamedBrain, face_of
from foldnorm.preprocessing.cohort.cohort import Brain, Cohort, row_key
from foldnorm.preprocessing.cohort.cut_folds import cut_into_folds
from foldnorm.preprocessing.core.errors import InputError
from foldnorm.preprocessing.io.schemes import LabelScheme
from foldnorm.preprocessing.naming.alignment import Alignment, transformed
from foldnorm.preprocessing.naming.atlas import SIDES, AtlasSide, SulcusAtlas
from foldnorm.preprocessing.naming.atlas_names import AtlasFoldNames, name_by_atlas
from foldnorm.preprocessing.naming.learned_names import warn_of_coarse_voxels
from foldnorm.preprocessing.spatial.space import Matrix

LOG = logging.getLogger(__name__)
LEAST_VOXELS = 100  # of folds: less is no hemisphere


class AtlasNamedBrain(NamedBrain):
    """A brain whose voxels are named by an atlas.

    Args:
        volume: see `NamedBrain`.
        probabilities: see `NamedBrain`.
        scheme: see `NamedBrain`.
        folds: that were named.
        fold_labels: (V,) of the voxels of structure; 0 for those of no fold.
        is_placed: a transform to MNI space was known.
        to_atlas: (4, 4), packed voxel → mm of the atlas.
    """

    def __init__(
        self,
        volume: Labels,
        probabilities: NDArray[np.float32],
        scheme: LabelScheme,
        folds: AtlasFoldNames,
        fold_labels: NDArray[np.integer],
        is_placed: bool,
        to_atlas: Matrix,
    ) -> None:
        super().__init__(volume, probabilities, scheme)
        self.folds, self.fold_labels, self.is_placed = folds, fold_labels, is_placed
        self.to_atlas = to_atlas

    def lost(self) -> NDArray[np.float64]:
        """Size of each sulcus that goes if all folds are gone whose likeliest name is one of them.

        Returns:
            (n, n) mm² in the space of the atlas; row: the sulcus after which folds are named.
        """
        named = self.probabilities.argmax(axis=0)
        voxels = np.zeros((len(self.probabilities),) * 2)
        for n in np.unique(named):
            voxels[n] = self.probabilities[:, named == n].sum(axis=1)
        return voxels[1:, 1:] * face_of(self.to_atlas)


class AtlasLabeller:
    """Names the voxels of a cohort's brains by the folds that they belong to.

    Folds are named by what was learned with the atlas, or, without, by their place in it alone.

    Folds are those of the cohort's labels; without any, the skeleton is cut into simple surfaces,
    and what lies at the border of the brain is hull.

    Args:
        atlas: of sulci.
        cohort: of hemispheres.
        by_place: name folds by where the affine map of the hemisphere puts them alone: no sulcus is
            shifted to its folds, and nothing learned is used.

    Attributes:
        mirrored: sides of the cohort that the atlas lacks, for which its other one is mirrored.

    Raises:
        InputError: the cohort holds whole brains, or images.
    """

    def __init__(self, atlas: SulcusAtlas, cohort: Cohort, *, by_place: bool = False) -> None:
        if cohort.preparation.get("whole_brain"):
            raise InputError(
                "expected hemispheres, got both in one volume (preprocess without --whole-brain): "
                f"{cohort.folder}"
            )
        self.atlas, self.cohort, self.scheme = atlas, cohort, cohort.scheme
        self.by_place = by_place
        self.sulci = atlas.names
        if atlas.learned is not None and not by_place:
            warn_of_coarse_voxels(cohort.voxel_size, cohort.folder)
        self.mirrored = sorted({row.get("hemi", "") for row in cohort.rows} - {"", *atlas.sides})
        for hemi in self.mirrored:
            LOG.warning(
                "the atlas has no %s side: its %s one is mirrored for the %s hemispheres of %s",
                SIDES[hemi],
                SIDES[atlas.sides[0]],
                SIDES[hemi],
                cohort.folder,
            )
        self._sides: dict[str, AtlasSide] = {}

    def named(self, brains: Iterable[Brain]) -> Iterator[AtlasNamedBrain]:
        """Yield each brain with its voxels named.

        Raises:
            InputError: a brain has no side, or hardly any fold.
        """
        for brain in brains:
            yield self.name(brain)

    def name(self, brain: Brain, alignment: Alignment | None = None) -> AtlasNamedBrain:
        """Name the voxels of a brain.

        Args:
            brain: prepared as the cohort was.
            alignment: of its folds with the atlas, if it is known already.

        Raises:
            InputError: it has no side, or hardly any fold.
        """
        side = self.side(brain.row)
        structure = self.scheme.foreground(brain.volume)
        labels = self._fold_labels(brain)[structure]
        places = np.argwhere(structure)[labels > 0]
        if len(places) < LEAST_VOXELS:
            raise InputError(
                f"{len(places)} voxels of folds, expected a hemisphere: {row_key(brain.row)}"
            )
        to_mni = None if brain.to_mni is None else brain.to_mni()
        matrix = self.cohort.affine_of(brain.row) if to_mni is None else to_mni
        points = transformed(places, matrix)
        found = name_by_atlas(
            side,
            points,
            labels[labels > 0],
            is_placed=to_mni is not None,
            learned=None if self.by_place else self.atlas.learned,
            hemi=brain.row["hemi"],
            alignment=alignment,
            shifts=not self.by_place,
        )
        likely = np.zeros((len(self.sulci) + 1, len(labels)), dtype=np.float32)
        rows = np.searchsorted(found.labels, labels[labels > 0])
        for n, name in enumerate(found.sulci):
            likely[1 + self.sulci.index(name), labels > 0] = found.posterior[rows, n]
        likely[0] = 1 - likely[1:].sum(axis=0)
        return AtlasNamedBrain(
            brain.volume,
            likely,
            self.scheme,
            found,
            labels,
            is_placed=to_mni is not None,
            to_atlas=found.to_atlas @ matrix,
        )

    def side(self, row: Mapping[str, str]) -> AtlasSide:
        """Return the side of the atlas that a row of ``participants.tsv`` is of.

        Raises:
            InputError: it is of no side.
        """
        hemi = row.get("hemi", "")
        if not hemi:
            raise InputError(f"an atlas names left or right hemispheres, got: {row_key(row)}")
        if hemi not in self._sides:
            self._sides[hemi] = self.atlas.side(hemi)
        return self._sides[hemi]

    def _fold_labels(self, brain: Brain) -> NDArray[np.integer]:
        if brain.folds is not None:
            return brain.folds()
        return cut_into_folds(brain.volume, self.scheme)
