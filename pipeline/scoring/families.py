"""The interface of a score family: scores that are fitted and saved together."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import ClassVar, Protocol

from foldnorm.pipeline.scoring.healthy import Group
from foldnorm.pipeline.scoring.map_scores import ScoreTable
from foldnorm.preprocessing.cohort.cohort import Brain

EVIDENCE = "evidence"  # name of a family, of models that restore
LATENT_MAP = "latent_map"  # name of a family, of models whose code is a map
SHORTFALL = "shortfall"  # name of a family, of models that say what they expect


class ScoreFamily(Protocol):
    """Scores that belong together; a high score means unusual.

    Attributes:
        FITTED_ON: which healthy brains.
    """

    FITTED_ON: ClassVar[Group]

    def fit(self, healthy: Sequence[Brain]) -> object:
        """Fit on healthy brains."""

    def score(self, brains: Iterable[Brain]) -> ScoreTable:
        """Scores by name, (N,) each."""

    def save(self, folder: Path) -> None:
        """Write what was learned."""

    def load(self, folder: Path) -> object:
        """Read what was written."""
