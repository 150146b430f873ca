"""Folders that were given to `view`, told apart by the files in them, and never left by a link."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from foldnorm.pipeline.artifacts import (
    CODES,
    CODES_SIDECAR,
    CODES_TABLE,
    PAGE_ARRAYS,
    PAGES_SIDECAR,
    REGIONS,
    RUN_CONFIG,
    RUN_DATA,
    SCORES,
    SCORES_SIDECAR,
    SULCI_SIDECAR,
)
from foldnorm.preprocessing.cohort.cohort import DESCRIPTION, PAIRS, PARTICIPANTS, VOLUMES, Cohort
from foldnorm.preprocessing.core.errors import InputError, making_sense_of
from foldnorm.preprocessing.core.files import read_json, refuse_missing


@dataclass
class GivenFolders:
    """Folders of cohorts, models, scores, names of sulci and codes.

    Attributes:
        roots: all of them, resolved; no file outside is read.
        cohorts: opened, in the order they were given.
        runs: of models.
        scores: by the folder of their cohort.
        named: folders that name sulci, by that of their cohort.
        codes: by the folders of run and cohort.
    """

    roots: list[Path]
    cohorts: list[Cohort] = field(default_factory=list)
    runs: list[Path] = field(default_factory=list)
    scores: dict[Path, list[Path]] = field(default_factory=dict)
    named: dict[Path, list[Path]] = field(default_factory=dict)
    codes: dict[tuple[Path, Path], Path] = field(default_factory=dict)

    @classmethod
    def sort(cls, paths: Sequence[Path]) -> "GivenFolders":
        """Tell folders apart.

        Raises:
            InputError: one is none of these, or reaches out of itself by a link, or there is no
                cohort.
        """
        given = cls([path.resolve() for path in paths])
        for path in paths:
            with making_sense_of(path):
                given._add(path)
        if not given.cohorts:
            raise InputError("nothing to look at: expected a cohort folder among "
                             + ", ".join(map(str, paths)))  # fmt: skip
        return given

    def _add(self, path: Path) -> None:
        if (path / DESCRIPTION).is_file():
            files = (DESCRIPTION, PARTICIPANTS, VOLUMES, PAIRS)
            self.check_inside(*(path / name for name in files))
            self.cohorts.append(Cohort.open(path))
        elif (path / SCORES).is_file():
            of_scores = (SCORES, SCORES_SIDECAR, REGIONS, Path(PAGE_ARRAYS).parent, PAGES_SIDECAR)
            self.check_inside(*(path / name for name in of_scores))
            cohort = Path(read_json(path / SCORES_SIDECAR)["cohort"]).resolve()
            self.scores.setdefault(cohort, []).append(path)
        elif (path / SULCI_SIDECAR).is_file():
            self.check_inside(path / SULCI_SIDECAR)
            cohort = Path(read_json(path / SULCI_SIDECAR)["cohort"]).resolve()
            self.named.setdefault(cohort, []).append(path)
        elif (path / CODES).is_file():
            self.check_inside(*(path / name for name in (CODES, CODES_TABLE, CODES_SIDECAR)))
            sidecar = read_json(path / CODES_SIDECAR)
            self.codes[Path(sidecar["run"]), Path(sidecar["cohort"])] = path
        elif (path / RUN_CONFIG).is_file():
            weights = [own for own in (path / "checkpoints", path / "models") if own.is_dir()]
            self.check_inside(path / RUN_CONFIG, path / RUN_DATA, *weights)
            self.check_inside(*(file for own in weights for file in own.iterdir()))
            self.runs.append(path)
        else:
            refuse_missing(path)
            raise InputError(f"neither a cohort, a run, scores, named sulci nor codes: {path}")

    def check_inside(self, *files: Path) -> None:
        """Refuse files that lie outside of the given folders, once links are followed.

        Raises:
            InputError: one does.
        """
        for file in files:
            place = file.resolve()
            if not any(place.is_relative_to(root) for root in self.roots):
                raise InputError(f"leads out of the folders that were given, to {place}: {file}")
