"""The design that healthy brains are compared by: covariates, the site that is scored, sites."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foldnorm.pipeline.data.conditions import Conditions
from foldnorm.preprocessing.core.files import UNKNOWN_CELLS

Row = Mapping[str, str]


@dataclass(frozen=True)
class Design:
    """Regressors of the mean of healthy brains, as numbers.

    Attributes:
        conditions: columns of ``participants.tsv``, such as age.
        is_mixed: some healthy brains are of the site that is scored and others are not, so that
            these move the mean towards theirs.
        sites: each of which moves the mean of its brains, if there are several.
    """

    conditions: Conditions
    is_mixed: bool
    sites: tuple[str, ...] = ()

    @classmethod
    def fit(
        cls, covariates: Sequence[str], rows: Sequence[Row], n_local: int, min_of_site: int = 0
    ) -> "Design":
        """Learn the rule of healthy brains.

        Args:
            covariates: columns, see `Conditions.fit`.
            rows: of the healthy brains.
            n_local: so many of them, the last ones, are of the site that is scored.
            min_of_site: brains that a site needs for a mean of its own; 0: none has one.
        """
        is_mixed = 0 < n_local < len(rows)
        sites: tuple[str, ...] = ()
        if min_of_site and not n_local:
            sites = large_sites(rows, min_of_site)
            if len({row.get("site", "") for row in rows} - UNKNOWN_CELLS) < 2:
                sites = ()
        return cls(Conditions.fit(covariates, rows), is_mixed, sites)

    def encode(
        self, rows: Sequence[Row], is_local: NDArray[np.bool_]
    ) -> NDArray[np.float64] | None:
        """Regressors of brains, (N, p); None if there are none.

        What is not known of a brain is NaN, which is taken as the mean of the healthy ones.

        Args:
            rows: of ``participants.tsv``.
            is_local: (N,), of the site that is scored.
        """
        columns: list[NDArray[np.floating]] = []
        if self.conditions.size:
            columns.append(self._conditions(rows))
        if self.is_mixed:
            columns.append(is_local[:, None].astype(np.float64))
        if self.sites:
            columns.append(np.array([self._site(row) for row in rows]))
        return np.hstack(columns).astype(np.float64) if columns else None

    def _conditions(self, rows: Sequence[Row]) -> NDArray[np.float64]:
        """Encode the covariates, (N, size)."""
        encoded, first = self.conditions.encode(rows).astype(np.float64), 0
        for column in self.conditions.columns:
            unknown = [row[column.name] in UNKNOWN_CELLS for row in rows]
            encoded[unknown, first : first + column.size] = np.nan
            first += column.size
        return encoded

    def _site(self, row: Row) -> list[float]:
        """Indicate a brain's site; NaN, which is taken as the mean, if it is none of them."""
        site = row.get("site", "")
        if site not in self.sites:
            return [float("nan")] * len(self.sites)
        return [float(site == own) for own in self.sites]

    def as_dict(self) -> dict[str, Any]:
        """As JSON holds it."""
        return {
            "conditions": self.conditions.as_dicts(),
            "is_mixed": self.is_mixed,
            "sites": list(self.sites),
        }

    @classmethod
    def from_dict(cls, known: Mapping[str, Any]) -> "Design":
        """Read what `as_dict` gave; of earlier releases without sites."""
        conditions = Conditions.from_dicts(known["conditions"])
        return cls(conditions, known["is_mixed"], tuple(known.get("sites", ())))


def large_sites(rows: Sequence[Row], least: int) -> tuple[str, ...]:
    """Return the sites that at least so many brains are of."""
    counts = Counter(row.get("site", "") for row in rows)
    return tuple(sorted(s for s, n in counts.items() if s not in UNKNOWN_CELLS and n >= least))
