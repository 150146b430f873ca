"""Participants that a scorer was fitted and calibrated on: no brain is judged by itself."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from foldnorm.preprocessing.cohort.cohort import Cohort, family_of
from foldnorm.preprocessing.core.files import hashed, sha256

ROLES = {"train": "training", "validation": "calibration"}
Row = Mapping[str, str]


@dataclass(frozen=True)
class Participants:
    """Roles of participants, and families that maps are compared with.

    Attributes:
        roles: participant → ``training`` or ``calibration``; hashes if there is a salt.
        families: of the healthy brains that maps are compared with; likewise.
        salt: of the hashes; empty for names as they are.
    """

    roles: Mapping[str, str]
    families: frozenset[str]
    salt: str = ""

    @classmethod
    def from_cohorts(
        cls, reference: Cohort, calibration: Sequence[Row], families: Iterable[str]
    ) -> "Participants":
        """Collect the participants of a training cohort and of the brains that calibrate."""
        used = [reference.rows[n] for n in reference.indices()]
        roles = {row["participant_id"]: ROLES.get(row["split"], "") for row in used}
        roles |= {row["participant_id"]: "calibration" for row in calibration}
        kept = {name: role for name, role in roles.items() if role}
        return cls(kept, frozenset(family for family in families if family))

    def role(self, row: Row) -> str:
        """Name what a brain was used for: ``training``, ``calibration``, or nothing."""
        return self.roles.get(self._name(row["participant_id"]), "")

    def flag(self, row: Row) -> str:
        """Return why a brain cannot be compared with the healthy ones; empty where it can.

        With the healthy brains at hand its family is left out of them. A scorer that was loaded
        holds sums over all of them.
        """
        if not self.salt or self._name(family_of(row)) not in self.families:
            return ""
        return (
            "is of a family that is among the healthy brains of this saved scorer, which cannot "
            "leave it out: score it with their cohort"
        )

    def without_names(self) -> "Participants":
        """Return these participants with salted hashes in the place of names."""
        if self.salt:
            return self
        # The salt follows from the participants: scorers of one cohort share it, so that their
        # calibration brains can be matched (see `foldnorm combine`).
        salt = sha256("\n".join(sorted({*self.roles, *self.families})).encode())[:32]
        return Participants(
            {hashed(name, salt): role for name, role in sorted(self.roles.items())},
            frozenset(hashed(family, salt) for family in self.families),
            salt,
        )

    def as_dict(self) -> dict[str, Any]:
        """Return the participants as plain JSON types."""
        return {"salt": self.salt, "roles": dict(self.roles), "families": sorted(self.families)}

    @classmethod
    def from_dict(cls, known: Mapping[str, Any]) -> "Participants":
        """Read what `as_dict` gave."""
        return cls(known["roles"], frozenset(known["families"]), known["salt"])

    def _name(self, name: str) -> str:
        return hashed(name, self.salt) if self.salt else name
