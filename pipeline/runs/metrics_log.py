"""``metrics.csv``: one row a logged step, columns by name."""

import csv
import io
import time
from math import isnan, nan
from pathlib import Path

from foldnorm.preprocessing.core.files import number, read_tsv, whole_number, write_text

WRITE_EVERY = 10.0  # seconds at least, of a training that logs often


class MetricsLog:
    """Rows of figures by step, rewritten whole so that the file is never half a row.

    Rows reach the file with each checkpoint, and before that some seconds after they were logged:
    a long training shows where it is. What was logged after the last checkpoint is dropped when
    the run is resumed from that.

    Args:
        path: of the CSV file.
        up_to: keep only the rows of a former run up to this step.
    """

    def __init__(self, path: Path, up_to: int = 0) -> None:
        self.path = path
        self.rows: dict[int, dict[str, float]] = {}
        self._written = time.monotonic()
        if up_to and path.is_file():
            for row in read_tsv(path):
                step = whole_number(row, "step")
                if step <= up_to:
                    figures = {k: number(row, k) for k, v in row.items() if k != "step" and v}
                    self.rows[step] = figures

    def add(self, step: int, figures: dict[str, float]) -> None:
        """Add figures to the row of ``step``; write the file if that was not done lately."""
        self.rows.setdefault(step, {}).update(figures)
        if time.monotonic() - self._written >= WRITE_EVERY:
            self.save()

    def column(self, name: str) -> tuple[list[int], list[float]]:
        """Return the steps and values of one column, where it has a value that is known."""
        rows = sorted(self.rows.items())
        pairs = [(step, row[name]) for step, row in rows if not isnan(row.get(name, nan))]
        return [step for step, _ in pairs], [value for _, value in pairs]

    @property
    def columns(self) -> list[str]:
        """Names of all columns, in the order they first came."""
        names: dict[str, None] = {}
        for _, row in sorted(self.rows.items()):
            names.update(dict.fromkeys(row))
        return list(names)

    def save(self) -> None:
        """Write the file atomically."""
        stream = io.StringIO()
        writer = csv.DictWriter(stream, ["step", *self.columns], lineterminator="\n")
        writer.writeheader()
        for step, row in sorted(self.rows.items()):
            writer.writerow({"step": step, **{k: f"{v:.8g}" for k, v in row.items()}})
        write_text(self.path, stream.getvalue())
        self._written = time.monotonic()
