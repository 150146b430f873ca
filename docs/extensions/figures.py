"""Figures of `benchmarks/results/*.json` in pages: nothing that was measured is typed.

The directive ``figures`` makes a table::

    ```{figures} anomaly_real.json
    columns:
      AUROC: "{}_auroc_{size}"
      found at 5 %: "{}_found_at_5pct_{size}"
    each: {size: [200, 500, 800]}
    intervals: [AUROC]
    rows:
      restorer: restorer
      "*baseline*: fewer voxels": fewer_voxels
    ```

A cell's key is the column's, with the row's text for ``{}``; where it names one of ``each``, the
values are joined by " / ". A row may also have its key for each column (``AUROC: …``), and a key
the name of another file before it. A key that is not in the file is an error; a cell is empty where
a row has none of a column's keys. A figure among others under one key is ``key/its key``, of a list
``key/0``. The role ``figure`` puts one figure into a sentence:
``{figure}`anomaly_real.json restorer_auroc_200 3```, with 3 digits; ``±`` adds its interval. Below
a table stands where it comes from.

README, which is no page of Sphinx, has the same between two comments; this file, run as a program,
writes its tables anew (`make results`).
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from decimal import ROUND_HALF_EVEN, Decimal
from pathlib import Path
from typing import Any

import yaml
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective, SphinxRole

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks/results"
IN_INTERVAL = re.compile(r" (?=\[[-.\d])|(?<=\d,) (?=[-.\d]+\])")  # no line may end there
IN_README = re.compile(r"(<!-- figures\n(.*?)-->\n)(.*?)(<!-- end of figures -->)", re.DOTALL)


class UnknownFigure(LookupError):
    """A page asks for a figure that its file does not hold."""


@dataclass(frozen=True)
class Table:
    """Table of figures, as a page asks for it.

    Attributes:
        columns: pattern of the keys of each column.
        rows: what stands for ``{}`` in them, or a pattern for each column.
        each: by name, values that a pattern stands for, one after the other.
        intervals: columns whose intervals are shown.
        digits: after the point.
        corner: head of the first column.
        file: of keys that name none.
    """

    columns: Mapping[str, str]
    rows: Mapping[str, Any]
    each: Mapping[str, list[Any]] = field(default_factory=dict)
    intervals: tuple[str, ...] = ()
    digits: int = 2
    corner: str = ""
    file: str = ""

    def to_markdown(self) -> str:
        """Write it.

        Raises:
            UnknownFigure: a key is not in its file.
        """
        body = [
            [label, *(self._cell(column, row) for column in self.columns)]
            for label, row in self.rows.items()
        ]
        return markdown([self.corner, *self.columns], body)

    def _cell(self, column: str, row: Any) -> str:
        own = isinstance(row, Mapping)
        pattern = row.get(column, "") if own else self.columns[column].replace("{}", str(row))
        if not pattern:
            return "–"
        name, _, pattern = f"{self.file} {pattern}".rpartition(" ")
        figures = load(name.split()[-1])["figures"]
        keys = [pattern]
        for word, values in self.each.items():
            if f"{{{word}}}" in pattern:
                keys = [key.replace(f"{{{word}}}", str(v)) for key in keys for v in values]
        unknown = [key for key in keys if key not in figures]
        is_known_row = not own and any(key.startswith(str(row)) for key in figures)
        if unknown == keys and is_known_row:
            return "–"
        if unknown:
            raise UnknownFigure(f"no figure {unknown} in {name}")
        interval = column in self.intervals
        return " / ".join(shown(figures, key, interval, self.digits) for key in keys)


def load(name: str) -> dict[str, Any]:
    """Read a file of results; figures that stand in others have a path as their key."""
    record: dict[str, Any] = json.loads((RESULTS / name).read_text(encoding="utf-8"))
    return {**record, "figures": dict(leaves(record["figures"]))}


def leaves(figures: Mapping[str, Any] | list[Any], path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield each figure with its path.

    Example:
        >>> dict(leaves({"a": 1, "b": {"c": [2, 3]}}))
        {'a': 1, 'b/c/0': 2, 'b/c/1': 3}
    """
    for key, value in figures.items() if isinstance(figures, Mapping) else enumerate(figures):
        if isinstance(value, Mapping | list):
            yield from leaves(value, f"{path}{key}/")
        else:
            yield f"{path}{key}", value


def shown(figures: Mapping[str, Any], key: str, interval: bool = False, digits: int = 2) -> str:
    """Write a figure, and its interval where it is asked for and known."""
    text = number(figures[key], digits)
    ends = [figures.get(f"{key}_{end}") for end in ("low", "high")]
    if interval and None not in ends:
        text += f" [{', '.join(number(end, digits) for end in ends)}]"
    return text


def number(value: Any, digits: int = 2) -> str:
    """Write a number as papers do: .94 for a share, 1.00 for a whole one, 12,345 for a count."""
    if isinstance(value, str):
        return value
    if value is None:  # not finite
        return "–"
    if isinstance(value, int) or abs(value) >= 1000:
        return f"{value:,.0f}"
    if abs(value) >= 10:
        return f"{value:.1f}"
    place = Decimal(10) ** -digits
    rounded = Decimal(str(value)).quantize(place, ROUND_HALF_EVEN)
    text = f"{rounded or abs(rounded)}"  # 0 has no sign
    return text.replace("0.", ".", 1) if text.startswith(("0.", "-0.")) else text


def provenance(name: str) -> str:
    """Say where figures come from, in a line."""
    record = load(name)
    machine = record.get("machine", {})
    made = f"{machine.get('cpus')} cores of {machine.get('processor')}"
    device = record["figures"].get("device")
    if isinstance(device, str):
        made = f"{device}, {made}"
    return f"{name}: {record['date']}, commit {record['commit']}, {made}"


def markdown(header: list[str], body: list[list[str]]) -> str:
    """Write a table in Markdown."""
    lines = [header, ["---"] * len(header), *body]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def with_tables(text: str) -> str:
    """Return a text like README with its tables of figures written anew."""

    def written(found: re.Match[str]) -> str:
        asked, begin, end = yaml.safe_load(found[2]), found[1], found[4]
        return f"{begin}\n{Table(**asked).to_markdown()}\n\n{end}"

    return IN_README.sub(written, text)


class Figures(SphinxDirective):
    """Table of figures of one file."""

    has_content = True
    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Make the table and the line below it."""
        name = self.arguments[0]
        self.env.note_dependency(str(RESULTS / name))
        try:
            text = Table(**yaml.safe_load("\n".join(self.content)), file=name).to_markdown()
            text = IN_INTERVAL.sub("\N{NO-BREAK SPACE}", text)
        except UnknownFigure as error:
            raise self.error(str(error)) from None
        below = nodes.paragraph("", "", nodes.emphasis(text=provenance(name)))
        return [*self.parse_text_to_nodes(text), below]


class Figure(SphinxRole):
    """One figure in a sentence."""

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        """Make the text."""
        name, key, *more = self.text.split()
        self.env.note_dependency(str(RESULTS / name))
        figures = load(name)["figures"]
        if key not in figures:
            return [], [self.inliner.reporter.error(f"no figure {key!r} in {name}")]
        digits = next((int(word) for word in more if word.isdigit()), 2)
        return [nodes.Text(shown(figures, key, "±" in more, digits))], []


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directive and the role."""
    app.add_directive("figures", Figures)
    app.add_role("figure", Figure())
    return {"parallel_read_safe": True, "parallel_write_safe": True}


if __name__ == "__main__":
    readme = ROOT / "README.md"
    readme.write_text(with_tables(readme.read_text(encoding="utf-8")), encoding="utf-8")
