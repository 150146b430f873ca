"""Report sections of what is unusual about brains: scores, joined scores."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from foldnorm.pipeline.artifacts import (
    BOTH_SIDES,
    FUSED,
    FUSED_SIDECAR,
    REGIONS,
    SCORES,
    SCORES_SIDECAR,
    SULCUS_SCORES,
    USUAL_SCORES,
)
from foldnorm.pipeline.report import figures
from foldnorm.preprocessing.core.counts import counted
from foldnorm.preprocessing.core.errors import InputError
from foldnorm.preprocessing.core.files import number, read_json, read_tsv

MAX_LISTED = 15  # brains and regions
MAX_MAPPED = 60  # brains in the picture of missing sulci
RESEARCH = "These are research figures, not a diagnosis."


def scores_section(path: Path) -> dict[str, Any]:
    """Build the report section of a folder that `foldnorm score` wrote."""
    rows, sidecar = read_tsv(path / SCORES), read_json(path / SCORES_SIDECAR)
    if rows and "flag" not in rows[0]:
        raise InputError(
            f"expected a column flag; scores of an earlier version, score again: {path / SCORES}"
        )
    judged = [row for row in rows if not row["used_for"] and not row["flag"]]
    flagged = [row for row in rows if row["flag"]]
    columns = [name for name in rows[0] if name.startswith("p_")]
    key = next((f"p_{name}" for name in USUAL_SCORES if f"p_{name}" in columns), columns[0])
    judged.sort(key=lambda row: number(row, key))
    warnings = []
    if not judged:
        warnings.append(f"{path.name}: no brain has a p-value")
    if flagged:
        brains = counted(len(flagged), "brain")
        warnings.append(f"{path.name}: {brains} cannot be judged by this model")
    both = [row for row in _rows_if_any(path / BOTH_SIDES) if row[key]]
    both.sort(key=lambda row: number(row, key))
    regions = _rows_if_any(path / REGIONS)
    regions.sort(key=lambda row: -number(row, "mass"))
    return {
        "title": f"Scores: {path.name}",
        "phantom": sidecar["phantom"],
        "warnings": warnings,
        "sentence": f"{sidecar['sentence']} {RESEARCH}",
        "facts": {
            "brains": sidecar["brains"],
            "the model learned from": sidecar.get("learned_from", "not recorded"),
            "with a p-value": len(judged),
            "cannot be judged": len(flagged),
            f"{key[2:]}, q ≤ {sidecar['unusual_at_q']['q']:g}": sidecar["unusual_at_q"]["brains"][
                key[2:]
            ],
        },
        "columns": columns,
        "rows": judged[:MAX_LISTED],
        "flagged": flagged[:MAX_LISTED],
        "warned": [row for row in rows if row.get("warning")][:MAX_LISTED],
        "regions": regions[:MAX_LISTED],
        "sulci": _sulci_of_scores(path / SULCUS_SCORES),
        "sorted_by": key,
        "both_sides": both[:MAX_LISTED],
        "both_sides_calibrated_on": sidecar.get("both_sides_calibrated_on", 0),
        "histograms": figures.p_value_histograms(judged) if judged else None,
        "settings": json.dumps(sidecar, indent=2, ensure_ascii=False),
    }


def _rows_if_any(path: Path) -> list[dict[str, str]]:
    """Rows of a table that not every folder of scores has."""
    return read_tsv(path) if path.is_file() else []


def fusion_section(path: Path) -> dict[str, Any]:
    """Build the report section of a folder that `foldnorm combine` wrote."""
    rows, sidecar = read_tsv(path / FUSED), read_json(path / FUSED_SIDECAR)
    judged = [row for row in rows if row["p_fused"]]
    judged.sort(key=lambda row: number(row, "p_fused"))
    return {
        "title": f"Joined scores: {path.name}",
        "phantom": sidecar["phantom"],
        "warnings": [] if judged else [f"{path.name}: no brain has a p-value"],
        "sentence": f"{' and '.join(sidecar['scores'])}, joined ({sidecar['method']}) and "
        f"calibrated anew on {counted(sidecar['calibrated_on'], 'healthy brain')}; no p-value "
        f"can be below {sidecar['smallest_p']:.3g}. {RESEARCH}",
        "facts": {"brains": len(rows), "with a p-value": len(judged)},
        "columns": [name for name in rows[0] if name.startswith(("p_", "q_"))],
        "rows": judged[:MAX_LISTED],
        "histograms": figures.p_value_histograms(judged) if judged else None,
        "settings": json.dumps(sidecar, indent=2, ensure_ascii=False),
    }


def _sulci_of_scores(path: Path) -> dict[str, Any]:
    """Build what a section of scores shows of named sulci; empty where an atlas named none.

    Brains with a flag are left out: names of a turned one are of other sulci, and all would be
    missing most.
    """
    rows = [row for row in _rows_if_any(path) if not row["flag"]]
    sulci = list(dict.fromkeys(row["sulcus"] for row in rows))
    if not rows:
        return {}
    most = sorted(rows, key=lambda row: -number(row, "z_missing"))[:MAX_LISTED]
    return {"picture": picture_of_missing(rows, sulci), "rows": most}


def picture_of_missing(rows: Sequence[Mapping[str, str]], sulci: Sequence[str]) -> str:
    """Picture of what is missing, the brains with the strongest departures at the top.

    Args:
        rows: one a brain and sulcus.
        sulci: in the order in which each brain has them.
    """
    z = np.array([number(row, "z_missing") for row in rows]).reshape(-1, len(sulci))
    brains = [f"{row['participant_id']} {row['hemi']}" for row in rows[:: len(sulci)]]
    order = np.argsort(-z.max(axis=1), kind="stable")[:MAX_MAPPED]
    return figures.sulci_by_brain(z[order], [brains[n] for n in order], sulci)
