"""Conditions of conditioned models: columns of ``participants.tsv`` as numbers.

Categories become one number each, quantities are scaled, both as the training volumes say; a run
keeps the rule. A value that is missing says nothing: zeros, which is the mean of a quantity.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foldnorm.preprocessing.core.errors import InputError
from foldnorm.preprocessing.core.files import UNKNOWN_CELLS

Row = Mapping[str, str]
CATEGORY = ":category"  # behind a column's name: its numbers are names


@dataclass(frozen=True)
class Column:
    """One column and how it becomes numbers.

    Attributes:
        name: of the column.
        levels: of a category; empty for a quantity.
        shares: of the levels among training volumes.
        mean: of a quantity over training volumes.
        sd: likewise.
    """

    name: str
    levels: tuple[str, ...] = ()
    shares: tuple[float, ...] = ()
    mean: float = 0.0
    sd: float = 1.0

    @property
    def size(self) -> int:
        """Numbers that the column becomes."""
        return len(self.levels) or 1

    def encode(self, value: str) -> list[float]:
        """Numbers of one value.

        Raises:
            InputError: a category that training did not have, or no finite number.
        """
        if value in UNKNOWN_CELLS:
            return [0.0] * self.size
        if not self.levels:
            if not _is_number(value):
                raise InputError(f"{self.name}: expected a number, got {value!r}")
            return [(float(value) - self.mean) / self.sd]
        if value not in self.levels:
            raise InputError(
                f"{self.name}: expected one of {', '.join(self.levels)}, as in training, got "
                f"{value!r}"
            )
        return [float(level == value) for level in self.levels]

    def draw(self, rng: np.random.Generator) -> list[float]:
        """Numbers of a value as training volumes have them."""
        if not self.levels:
            return [float(rng.standard_normal())]
        return self.encode(str(rng.choice(self.levels, p=self.shares)))


@dataclass(frozen=True)
class Conditions:
    """The columns that a model is told.

    Attributes:
        columns: in order; none if it is told nothing.
    """

    columns: tuple[Column, ...] = ()

    @classmethod
    def fit(cls, names: Sequence[str], rows: Sequence[Row]) -> "Conditions":
        """Learn the rule of each column.

        A column of numbers is a quantity, unless ``:category`` stands behind its name; any other is
        a category.

        Args:
            names: columns, each perhaps with ``:category``.
            rows: of training volumes.

        Raises:
            InputError: there is no such column, or it is the same for all volumes.
        """
        return cls(tuple(_fitted(name, rows) for name in names))

    @classmethod
    def from_dicts(cls, columns: Sequence[Mapping[str, Any]]) -> "Conditions":
        """Read what `as_dicts` gave."""
        return cls(
            tuple(
                Column(
                    column["name"],
                    tuple(column["levels"]),
                    tuple(column["shares"]),
                    column["mean"],
                    column["sd"],
                )
                for column in columns
            )
        )

    def as_dicts(self) -> list[dict[str, Any]]:
        """As JSON holds them."""
        return [asdict(column) for column in self.columns]

    @property
    def size(self) -> int:
        """Numbers of a condition."""
        return sum(column.size for column in self.columns)

    def encode(self, rows: Sequence[Row]) -> NDArray[np.float32]:
        """Conditions of volumes, (N, size) float32.

        Args:
            rows: of ``participants.tsv``.

        Raises:
            InputError: a column is not there, or a value does not suit it.
        """
        found = np.zeros((len(rows), self.size), dtype=np.float32)
        for n, row in enumerate(rows):
            try:
                found[n] = [x for c in self.columns for x in c.encode(_value(row, c.name))]
            except InputError as error:
                raise InputError(f"{row.get('participant_id', f'row {n + 1}')}: {error}") from None
        return found

    def draw(
        self, count: int, rng: np.random.Generator, given: Mapping[str, str]
    ) -> NDArray[np.float32]:
        """Conditions to sample under, (count, size) float32.

        Args:
            count: how many.
            rng: draws what is not given, each column by itself, as training volumes have it.
            given: values of columns, the same for all.

        Raises:
            InputError: the model is not told a column that is given.
        """
        names = [column.name for column in self.columns]
        for name in given:
            if name not in names:
                told = ", ".join(names) or "nothing"
                raise InputError(f"{name}={given[name]}: the model is told {told}, not {name}")
        rows = [
            [x for c in self.columns for x in (
                c.encode(given[c.name]) if c.name in given else c.draw(rng)
            )]
            for _ in range(count)
        ]  # fmt: skip
        return np.array(rows, dtype=np.float32).reshape(count, self.size)


def _fitted(name: str, rows: Sequence[Row]) -> Column:
    column, category = name.removesuffix(CATEGORY), name.endswith(CATEGORY)
    values = [value for row in rows if (value := _value(row, column)) not in UNKNOWN_CELLS]
    levels = sorted(set(values))
    if len(levels) < 2:
        known = f"is {levels[0]!r}" if levels else "is missing"
        raise InputError(f"condition {column!r} {known} for all training volumes")
    n_numbers = sum(map(_is_number, values))
    if not category and len(values) / 2 < n_numbers < len(values):
        odd = next(value for value in levels if not _is_number(value))
        raise InputError(
            f"condition {column!r}: {n_numbers} of {len(values)} values are numbers, but not "
            f"{odd!r}; expected numbers and n/a, or {column}{CATEGORY} for words"
        )
    if not category and n_numbers == len(values):
        numbers = np.array([float(value) for value in values])
        if (numbers == numbers[0]).all():  # as 1 and 1.0 are
            raise InputError(f"condition {column!r} is {numbers[0]:g} for all training volumes")
        return Column(column, mean=float(numbers.mean()), sd=float(numbers.std()))
    shares = tuple(values.count(level) / len(values) for level in levels)
    return Column(column, tuple(levels), shares)


def _value(row: Row, column: str) -> str:
    if column not in row:
        raise InputError(f"no column {column!r} in participants.tsv, which has {', '.join(row)}")
    return row[column]


def _is_number(text: str) -> bool:
    """Say if a text is a finite number."""
    try:
        return bool(np.isfinite(float(text)))
    except ValueError:
        return False
