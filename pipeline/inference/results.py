"""Results that hold volumes, which are made one at a time and never kept."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from foldnorm.preprocessing.core.locks import held
from foldnorm.preprocessing.core.problems import Problem

Row = dict[str, Any]


class Made(Protocol):
    """A volume that a model made, and what the table says of it."""

    @property
    def rows(self) -> Sequence[Row]:
        """Rows of the table about this volume."""


M = TypeVar("M", bound=Made, covariant=True)


@dataclass
class VolumeResult(ABC, Generic[M]):
    """Result whose volumes are too large to be kept: they are made while it is iterated over.

    Each pass makes them anew, one at a time, however many there are. The table is kept from the
    first whole pass; `save` is one, so that a result that is only saved is computed once.

    Attributes:
        failed: volumes that nothing could be made of in the last pass, and why.
    """

    failed: list[Problem] = field(default_factory=list, init=False, repr=False)
    _rows: list[Row] | None = field(default=None, init=False, repr=False)

    @abstractmethod
    def _make(self) -> Iterator[M]:
        """Make the volumes, in the order of the input."""

    @abstractmethod
    def _write(self, out: Path) -> None:
        """Write the volumes as they are made, then the table and its sidecar."""

    def save(self, out: Path) -> None:
        """Write the volumes as they are made, then the table and its sidecar.

        Raises:
            InputError: nothing could be made, or another process writes to that folder.
        """
        with held(out):
            self._write(out)

    def __iter__(self) -> Iterator[M]:
        rows: list[Row] = []
        self.failed = []
        for made in self._make():
            rows += made.rows
            yield made
        self._rows = rows

    @property
    def table(self) -> list[Row]:
        """Rows of the table; the first time, all volumes are made for it."""
        if self._rows is None:
            for _ in self:
                pass
        assert self._rows is not None
        return self._rows
