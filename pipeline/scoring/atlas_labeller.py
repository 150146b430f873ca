"""An atlas of sulci as the namer of voxels, in place of a network."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foldnorm.pipeline.scoring.latent_distance import conformal_p
from foldnorm.pipeline.scoring.recognition import RecognitionScores
from foldnorm.pipeline.scoring.sulcus_measures import Labels, NamedBrain
from foldnorm.preprocessing.cohort.cohort import Brain, Cohort, family_of, row_key, same_preparation
from foldnorm.preprocessing.cohort.input_space import InputSpace
from foldnorm.preprocessing.core.errors import InputError
from foldnorm.preprocessing.io.schemes import LabelScheme
from foldnorm.preprocessing.naming.alignment import transformed
from foldnorm.preprocessing.naming.atlas import AtlasSide, SulcusAtlas
from foldnorm.preprocessing.naming.atlas_names import AtlasFoldNames, name_by_atlas
from foldnorm.preprocessing.spatial.space import Matrix
from foldnorm.preprocessing.topology.simple_surfaces import simple_surfaces

SIZES = ("scheme", "voxel_size", "factor", "method", "thin")  # preparation that sizes depend on
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


class AtlasLabeller:
    """Names the voxels of a cohort's brains by the folds that they belong to.

    Folds are named by what was learned with the atlas, or, without, by their place in it alone.

    Folds are those of the cohort's labels; without any, the skeleton is cut into simple surfaces,
    and what lies at the border of the brain is hull.

    Args:
        atlas: of sulci.
        cohort: of hemispheres.

    Raises:
        InputError: the cohort holds whole brains, or images.
    """

    def __init__(self, atlas: SulcusAtlas, cohort: Cohort) -> None:
        if cohort.preparation.get("whole_brain"):
            raise InputError(
                "expected hemispheres, got both in one volume (preprocess without --whole-brain): "
                f"{cohort.folder}"
            )
        self.atlas, self.cohort, self.scheme = atlas, cohort, cohort.scheme
        self.sulci = atlas.names
        self._sides: dict[str, AtlasSide] = {}

    def named(self, brains: Iterable[Brain]) -> Iterator[AtlasNamedBrain]:
        """Yield each brain with its voxels named.

        Raises:
            InputError: a brain has no side, or hardly any fold.
        """
        for brain in brains:
            yield self.name(brain)

    def name(self, brain: Brain) -> AtlasNamedBrain:
        """Name the voxels of a brain.

        Raises:
            InputError: it has no side, or hardly any fold.
        """
        side = self.side(brain.row)
        structure = self.scheme.foreground(brain.volume)
        labels = self._fold_labels(brain, structure)[structure]
        places = np.argwhere(structure)[labels > 0]
        if len(places) < LEAST_VOXELS:
            raise InputError(
                f"{len(places)} voxels of folds, expected a hemisphere: {row_key(brain.row)}"
            )
        to_mni = _to_mni(self.cohort, brain.row)
        matrix = self.cohort.affine_of(brain.row) if to_mni is None else to_mni
        points = transformed(places, matrix)
        found = name_by_atlas(
            side,
            points,
            labels[labels > 0],
            is_placed=to_mni is not None,
            learned=self.atlas.learned,
            hemi=brain.row["hemi"],
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

    def _fold_labels(self, brain: Brain, structure: NDArray[np.bool_]) -> NDArray[np.integer]:
        if brain.folds is not None:
            return brain.folds()
        outside = np.pad(self.scheme.outside(brain.volume), 1, constant_values=True)
        inner = (slice(1, -1),) * 3
        touched = np.zeros(structure.shape, dtype=np.bool_)
        for axis in range(3):
            for step in (-1, 1):
                touched |= np.roll(outside, step, axis)[inner]
        return simple_surfaces(structure, structure & touched)


def _to_mni(cohort: Cohort, row: Mapping[str, str]) -> Matrix | None:
    """(4, 4), packed voxel → MNI mm; None if no transform leads there."""
    if cohort.preparation["space"] == "mni":
        return cohort.affine_of(row)
    return InputSpace.from_row(cohort, row).to_mni


class HealthySulci:
    """Sulci of healthy hemispheres, each with those of its side, in the space of the atlas.

    Sizes are as they are there, so that a large brain is none with large sulci. Half of the people
    are what others are compared with, the other half gives the p-values.

    Args:
        atlas: of sulci.
        cohort: of healthy hemispheres.

    Attributes:
        people: participants of the cohort, who have no p-value in it.

    Raises:
        InputError: there are too few of a side, or the cohort holds no hemispheres.
    """

    def __init__(self, atlas: SulcusAtlas, cohort: Cohort) -> None:
        names, self.cohort = AtlasLabeller(atlas, cohort), cohort
        self.people = {row["participant_id"] for row in cohort.rows}
        found: dict[str, dict[str, list[Any]]] = {}
        for brain in cohort.brains(cohort.indices()):
            named = names.name(brain)
            of_side = found.setdefault(brain.row["hemi"], {})
            of_side.setdefault(family_of(brain.row), []).append(named.measure(named.to_atlas))
        self.scores: dict[str, RecognitionScores] = {}
        self.calibration: dict[str, dict[str, NDArray[np.float64]]] = {}
        for hemi, of_side in found.items():
            people = [np.array(of_side[key]) for key in sorted(of_side)]
            own = RecognitionScores(names, np.eye(4))
            compared = np.concatenate(people[::2])
            others = np.concatenate(people[1::2]) if len(people) > 1 else compared[:0]
            self.scores[hemi] = own.fit_measures(compared, f"healthy {hemi} (half of those given)")
            self.calibration[hemi] = own.departures(others)

    @property
    def calibrated_on(self) -> int:
        """Number of hemispheres that p-values of a side are counted in, the least of the sides."""
        return min(len(own["missing"]) for own in self.calibration.values())

    def check(self, cohort: Cohort) -> None:
        """Refuse brains whose sheets were made otherwise: their sizes would be others.

        Raises:
            InputError: what is unlike.
        """
        unlike = same_preparation(
            *({key: own.preparation.get(key) for key in SIZES} for own in (self.cohort, cohort))
        )
        if unlike:
            raise InputError(
                f"prepared otherwise ({', '.join(unlike)}) than {self.cohort.folder}: "
                f"{cohort.folder}"
            )

    def compared(self, named: AtlasNamedBrain, hemi: str) -> list[dict[str, float]]:
        """Columns ``z_…`` and ``p_…`` of each sulcus; empty if no healthy brain is of that side."""
        if hemi not in self.scores:
            return [{} for _ in named.probabilities[1:]]
        departures = self.scores[hemi].departures(named.measure(named.to_atlas)[None])
        known = self.calibration[hemi]
        rows: list[dict[str, float]] = [{} for _ in departures["missing"][0]]
        for kind, z in departures.items():
            for n, row in enumerate(rows):
                row[f"z_{kind}"] = float(z[0, n])
                row[f"p_{kind}"] = float(conformal_p(z[:, n], known[kind][:, n])[0])
        return rows
