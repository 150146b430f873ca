"""Report section of `foldnorm label-sulci`: each sulcus of each brain, by person and by sulcus."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from foldnorm.pipeline.artifacts import SULCI, SULCI_SIDECAR, SULCUS_DEPARTURES, SULCUS_PICTURE
from foldnorm.pipeline.report.layers import in_script
from foldnorm.pipeline.report.scores import MAX_LISTED, RESEARCH, picture_of_missing
from foldnorm.preprocessing.cohort.cohort import row_key
from foldnorm.preprocessing.cohort.colours import many_colours
from foldnorm.preprocessing.cohort.pictures import inline_png
from foldnorm.preprocessing.core.counts import counted
from foldnorm.preprocessing.core.files import number, read_json, read_tsv

LARGE_MM2 = 200.0  # of a sulcus, whose name is then worth a look
PICTURES_BUDGET = 8_000_000  # characters that pictures of brains have in the page
Row = Mapping[str, str]


def recognition_section(path: Path) -> dict[str, Any]:
    """Build the report section of a folder that `foldnorm label-sulci` wrote."""
    rows, sidecar = read_tsv(path / SULCI), read_json(path / SULCI_SIDECAR)
    sulci, is_compared = sidecar["sulci"], "smallest_p" in sidecar
    keys = list(dict.fromkeys(map(row_key, rows)))
    place = {key: n for n, key in enumerate(keys)}
    brains = [f"{row['participant_id']} {row['hemi']}" for row in rows[:: len(sulci)]]
    listed = sorted(rows, key=_largest_z if is_compared else _confidence)
    if not is_compared:  # small ones, of which nobody is sure, come last
        listed.sort(key=lambda row: number(row, "size_mm2") < LARGE_MM2)
    cells = [_cells(row, is_compared=is_compared) for row in listed]
    colours = [f"rgb({r} {g} {b})" for r, g, b in many_colours(len(sulci))[1:-1].tolist()]
    numbers = [sulci.index(row["sulcus"]) for row in listed]
    pictures = _pictures(path, keys)
    flags = {f"{r['participant_id']} {r['hemi']}: {r['flag']}" for r in rows if r["flag"]}
    data = {
        "rows": cells,
        "sulci": numbers,
        "brains": [place[row_key(row)] for row in listed],
        "colours": colours,
        "pictures": pictures,
        "listed": MAX_LISTED,
    }
    return {
        "title": f"Sulci: {path.name}",
        "phantom": sidecar["phantom"],
        "warnings": sorted(flags),
        "sentence": _sentence(sidecar, len(brains)),
        "facts": {"brains": len(brains), "sulci": len(sulci)},
        "picture": picture_of_missing(rows, sulci) if is_compared else None,
        "heading": "Sulci that depart most" if is_compared else "Least certain large sulci",
        "brains": brains,
        "sulci": sulci,
        "pictured": sum(picture is not None for picture in pictures),
        "columns": _columns(is_compared=is_compared),
        "rows": [(own, colours[n]) for own, n in zip(cells, numbers, strict=True)][:MAX_LISTED],
        "json": in_script(data),
        "note": "Sorted by the largest z of a sulcus, whatever departs: its size (missing: small; "
        "large), its place or the number of its pieces; p is that of this z."
        if is_compared
        else f"Sorted by confidence, the mean probability of the name over the sulcus; those below "
        f"{LARGE_MM2:.0f} mm² last.",
        "settings": json.dumps(sidecar, indent=2, ensure_ascii=False),
    }


def _sentence(sidecar: Mapping[str, Any], brains: int) -> str:
    said = f"{counted(len(sidecar['sulci']), 'sulcus', 'sulci')} of {counted(brains, 'brain')}"
    if "atlas" in sidecar:
        said += (
            f", named by an atlas ({sidecar['atlas']['vocabulary']}). Names are likely, not "
            "certain: folds.tsv has the probability of each"
        )
    if "smallest_p" in sidecar:
        said += (
            ". Each sulcus is compared with the same one of healthy brains; no p-value can be "
            f"below {sidecar['smallest_p']:.3g}, and none is corrected for the number of sulci"
        )
    return f"{said}. {RESEARCH}"


def _confidence(row: Row) -> float:
    return number(row, "confidence") if row["confidence"] else 0.0


def _departs(row: Row) -> tuple[str, float]:
    """Departure of a sulcus that is the largest, and its z; none where nothing is known."""
    # Not every column that begins so: z_mni is a place.
    known = {k: number(row, f"z_{k}") for k in SULCUS_DEPARTURES if row.get(f"z_{k}")}
    best = max(known, key=lambda kind: known[kind], default="")
    return best, known.get(best, -np.inf)


def _largest_z(row: Row) -> float:
    return -_departs(row)[1]


def _columns(*, is_compared: bool) -> list[str]:
    more = ["departs", "z", "p"] if is_compared else []
    return ["person", "hemi", "sulcus", *more, "mm²", "confidence", "pieces", "depth (mm)"]


def _cells(row: Row, *, is_compared: bool) -> list[str]:
    """Text of each of `_columns`."""
    kind, z = _departs(row)
    p = row.get(f"p_{kind}", "")
    away = [kind, f"{z:.1f}" if kind else "–", f"{float(p):.3f}" if p else "–"]
    return [
        row["participant_id"],
        row["hemi"],
        row["sulcus"],
        *(away if is_compared else []),
        _text(row, "size_mm2", ".0f"),
        _text(row, "confidence", ".2f"),
        row["pieces"],
        _text(row, "depth_mm", ".0f"),
    ]


def _text(row: Row, column: str, form: str) -> str:
    return format(number(row, column), form) if row.get(column) else "–"


def _pictures(path: Path, keys: Sequence[str]) -> list[str | None]:
    """Picture of each brain, as many as fit into the page."""
    found: list[str | None] = []
    left = PICTURES_BUDGET
    for key in keys:
        file = path / SULCUS_PICTURE.of(brain=key)
        picture = inline_png(file.read_bytes()) if file.is_file() else None
        left -= len(picture or "")
        found.append(picture if left >= 0 else None)
    return found
