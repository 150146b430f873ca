"""Scores of named sulci: which of them is missing, or unlike that of healthy brains.

Deleting a fold leaves a void. Where a sulcus never formed, its neighbours fill the place, and
nothing but its name is missing: a network that looks for voids does not see it. Each sulcus of a
brain is compared with the same sulcus of healthy brains that the network was not trained on.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from foldnorm.pipeline.scoring.fitted import Fitted, State
from foldnorm.pipeline.scoring.healthy import Group
from foldnorm.pipeline.scoring.normative import NormativeMap
from foldnorm.pipeline.scoring.sulcus_measures import MEASURES, AtlasTemplate, Measures, NamesVoxels
from foldnorm.preprocessing.cohort.cohort import Brain, Cohort
from foldnorm.preprocessing.core.errors import InputError
from foldnorm.preprocessing.spatial.space import Matrix

MIN_HEALTHY = 8  # brains to compare with
STABLE = 0.25  # coefficient of variation of a sulcus's size, below which it is one of the panel
# Floors of the spread of a sulcus's measures over brains (see `NormativeMap`): root of its voxels,
# confidence, pieces, and what is in standard deviations already.
SIZE_FLOOR, CONFIDENCE_FLOOR, PIECES_FLOOR, Z_FLOOR = 0.5, 0.02, 0.25, 0.1
UNSURE = 0.5  # weight of confidence beside size; settled on validation brains
DEPARTURES = ("missing", "large", "displaced", "interrupted")
Departures = NDArray[np.float64]


class RecognitionScores(Fitted):
    """Scores of brains by their named sulci; a high score means unusual.

    Of each sulcus, in standard deviations of healthy brains: ``missing``, how small it is and how
    unsure the network is of it, together; ``large``; ``displaced``, Mahalanobis distance of its
    centre; ``interrupted``, its pieces. A brain's score is that of its most unusual sulcus;
    ``…_panel`` looks only at those whose size varies little among healthy brains (`STABLE`).

    Args:
        names: what names the voxels.
        affine: (4, 4) of the volumes, voxel index → mm.
        prefix: of the names of the scores.
    """

    FITTED_ON: ClassVar[Group] = "compared"

    def __init__(self, names: NamesVoxels, affine: Matrix, prefix: str = "sulci") -> None:
        self.names, self.affine = names, affine
        self.columns = (*(f"{prefix}_{kind}" for kind in DEPARTURES), f"{prefix}_missing_panel")
        self.size, self.confidence = NormativeMap(SIZE_FLOOR), NormativeMap(CONFIDENCE_FLOOR)
        self.absence, self.pieces = NormativeMap(Z_FLOOR), NormativeMap(PIECES_FLOOR)

    def fit(self, healthy: Sequence[Brain]) -> Self:
        """Learn what healthy brains that the model was not trained on are like.

        Raises:
            InputError: there are too few.
        """
        return self.fit_measures(self.measures(healthy))

    def fit_measures(self, measures: Measures, kind: str = "validation") -> Self:
        """Learn what healthy brains are like by the `measures` of their sulci.

        Args:
            measures: (N, n, `len(MEASURES)`).
            kind: of healthy brains, for the message.

        Raises:
            InputError: there are too few.
        """
        if len(measures) < MIN_HEALTHY:
            raise InputError(
                f"sulci are compared with those of at least {MIN_HEALTHY} {kind} brains, got "
                f"{len(measures)}"
            )
        sizes, confidence = np.sqrt(measures[:, :, 0]), measures[:, :, 1]
        self.size.fit(lambda: sizes)
        self.confidence.fit(lambda: confidence)
        absence = self._absence(sizes, confidence)
        self.absence.fit(lambda: absence)
        self.pieces.fit(lambda: measures[:, :, 6])
        places = (measures[:, n, 2:5] for n in range(len(self.names.sulci)))
        self.centres_ = [_Centre().fit(own) for own in places]
        variation = measures[:, :, 0].std(axis=0) / measures[:, :, 0].mean(axis=0)
        self.panel_ = variation < STABLE
        return self

    def state_dict(self) -> State:
        """Return sums over the healthy brains, sulcus by sulcus."""
        kept = ("size", "confidence", "absence", "pieces")
        state: State = {name: getattr(self, name).state_dict() for name in kept}
        state["panel"] = self.panel_
        state["centres"] = {str(n): own.state_dict() for n, own in enumerate(self.centres_)}
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> Self:
        """Take what `state_dict` gave."""
        for name in ("size", "confidence", "absence", "pieces"):
            getattr(self, name).load_state_dict(state[name])
        self.panel_ = state["panel"]
        states = (state["centres"][str(n)] for n in range(len(self.names.sulci)))
        self.centres_ = [_Centre().load_state_dict(own) for own in states]
        return self

    def measures(self, brains: Iterable[Brain]) -> Measures:
        """(N, n, `len(MEASURES)`) of brains; see `NamedBrain.measure`."""
        found = [brain.measure(self.affine) for brain in self.names.named(brains)]
        return np.array(found).reshape(-1, len(self.names.sulci), len(MEASURES))

    def departures(self, measures: Measures) -> dict[str, Departures]:
        """Compute departures of sulci from healthy ones by kind, (N, n) standard deviations."""
        sizes = np.sqrt(measures[:, :, 0])
        missing = self.absence.z(self._absence(sizes, measures[:, :, 1]))
        away = [own.z(measures[:, n, 2:5]) for n, own in enumerate(self.centres_)]
        found: dict[str, NDArray[np.floating]] = {
            "missing": missing,
            "large": self.size.z(sizes),
            "displaced": np.stack(away, axis=1),
            "interrupted": self.pieces.z(measures[:, :, 6]),
        }
        return {kind: np.nan_to_num(z).astype(np.float64) for kind, z in found.items()}

    def _absence(self, sizes: NDArray[np.float64], confidence: NDArray[np.float64]) -> Departures:
        """Compute how far sulci are smaller, and named with less confidence, than healthy ones."""
        unsure = -self.size.z(sizes) - UNSURE * self.confidence.z(confidence)
        return unsure.astype(np.float64)

    def score(self, brains: Iterable[Brain]) -> dict[str, NDArray[np.float64]]:
        """Scores of each brain by name, (N,) each."""
        return self.scores_of_departures(self.departures(self.measures(brains)))

    def scores_of_departures(
        self, departures: dict[str, Departures]
    ) -> dict[str, NDArray[np.float64]]:
        """Scores of brains whose sulci depart so, (N,) each."""
        found = [departures[kind].max(axis=1) for kind in DEPARTURES]
        panel = departures["missing"][:, self.panel_]
        found.append(panel.max(axis=1) if self.panel_.any() else np.zeros(len(panel)))
        return dict(zip(self.columns, found, strict=True))


class AtlasScores(RecognitionScores):
    """Scores of sulci named by an atlas of the training brains: the baseline to beat.

    Args:
        sulci: names.
        cohort: whose training split the atlas is fitted on.
    """

    def __init__(self, sulci: tuple[str, ...], cohort: Cohort) -> None:
        self.atlas, self.cohort = AtlasTemplate(sulci, cohort.scheme), cohort
        super().__init__(self.atlas, cohort.affine, "baseline_atlas")

    def fit(self, healthy: Sequence[Brain]) -> Self:
        """Fit the atlas on the training split, and compare with healthy brains."""
        self.atlas.fit(self.cohort)
        return super().fit(healthy)

    def state_dict(self) -> State:
        """Return sums over the healthy brains, and the atlas."""
        return {**super().state_dict(), "atlas": self.atlas.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> Self:
        """Take what `state_dict` gave."""
        self.atlas.load_state_dict(state["atlas"])
        return super().load_state_dict(state)


class _Centre(Fitted):
    """Distribution of the centre of a sulcus in healthy brains."""

    def fit(self, places: NDArray[np.float64]) -> Self:
        known = places[~np.isnan(places).any(axis=1)]
        self.mean_ = known.mean(axis=0) if len(known) else np.zeros(3)
        covariance = np.cov(known.T) if len(known) > 3 else np.eye(3)
        self.inverse_ = np.linalg.inv(covariance + 0.25 * np.eye(3))  # half a millimetre at least
        distances = self._distance(known)[:, None]
        self.usual_ = NormativeMap(Z_FLOOR).fit(lambda: distances) if len(known) else None
        return self

    def state_dict(self) -> State:
        usual = None if self.usual_ is None else self.usual_.state_dict()
        return {"mean": self.mean_, "inverse": self.inverse_, "usual": usual}

    def load_state_dict(self, state: Mapping[str, Any]) -> Self:
        self.mean_, self.inverse_ = state["mean"], state["inverse"]
        known = state["usual"]
        self.usual_ = None if known is None else NormativeMap(Z_FLOOR).load_state_dict(known)
        return self

    def z(self, places: NDArray[np.float64]) -> NDArray[np.floating]:
        if self.usual_ is None:
            return np.full(len(places), np.nan)
        return self.usual_.z(self._distance(places)[:, None])[:, 0]

    def _distance(self, places: NDArray[np.float64]) -> NDArray[np.float64]:
        apart = places - self.mean_
        return np.sqrt(np.einsum("ni,ij,nj->n", apart, self.inverse_, apart))
