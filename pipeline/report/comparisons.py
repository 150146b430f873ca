"""Report sections of `foldnorm compare` and `foldnorm search`."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from foldnorm.pipeline.artifacts import (
    COMPARISON,
    COMPARISON_RUNS,
    COMPARISON_SIDECAR,
    SEARCH_SIDECAR,
    TRIALS,
)
from foldnorm.pipeline.report import figures
from foldnorm.preprocessing.core.counts import counted
from foldnorm.preprocessing.core.files import number, read_json, read_tsv

# Columns of the comparison, in groups; those that no model has are left out.
GROUPS = {
    "Reconstructions and translations of validation brains": (
        "loss", "dice", "precision", "recall", "volume_ratio", "opening_excess", "surface_dice",
        "assd", "mean_dice", "dice_grey", "dice_white",
    ),
    "Latent space": ("latent_dim", "active_share", "silhouette"),
    "Cost": ("steps", "seconds", "seconds_per_step", "parameters", "peak_memory_mib"),
}  # fmt: skip
DOTS = ("dice", "mean_dice", "volume_ratio", "opening_excess", "active_share")
AUROC = "auroc_"
AUROC_PREFIXES = ("auroc_latent_mahalanobis_", "auroc_reconstruction_missing_local_",
                "auroc_baseline_fewer_voxels_")  # fmt: skip
MAX_TRIALS = 30


def comparison_section(path: Path) -> dict[str, Any]:
    """Build the report section of a comparison folder."""
    rows, runs = read_tsv(path / COMPARISON), read_tsv(path / COMPARISON_RUNS)
    sidecar = read_json(path / COMPARISON_SIDECAR)
    groups = [
        (title, [name for name in names if any(row.get(name) for row in rows)])
        for title, names in GROUPS.items()
    ]
    aurocs = [name for name in rows[0] if name.startswith(AUROC_PREFIXES) and _is_figure(name)]
    if aurocs:
        groups.insert(2, ("Deletion benchmark on test brains, AUROC", aurocs))
    minutes, steps = sidecar["minutes"], sidecar["steps"]
    budget = f"{minutes:g} minutes of training" if minutes else counted(steps, "step")
    return {
        "title": f"Comparison: {path.name}",
        "phantom": sidecar["phantom"],
        "facts": {
            "models": ", ".join(dict.fromkeys(run["model"] for run in runs)),
            "budget": f"{budget} each",
            "seeds": sidecar["seeds"],
            "deleted": ", ".join(sidecar["sizes"]) or "nothing",
        },
        "groups": [
            (title, names, [(row["model"], [_cell(row, name) for name in names]) for row in rows])
            for title, names in groups
            if names
        ],
        "note": sidecar["note"],
        "dots": figures.dots_by_model(runs, [name for name in DOTS if name in runs[0]]),
        "settings": json.dumps(sidecar, indent=2, ensure_ascii=False),
    }


def search_section(path: Path) -> dict[str, Any]:
    """Build the report section of a search folder."""
    rows, sidecar = read_tsv(path / TRIALS), read_json(path / SEARCH_SIDECAR)
    keys, lowest = list(sidecar["vary"]), sidecar["monitor_mode"] == "min"
    done = [row for row in rows if row["value"]]
    done.sort(key=lambda row: number(row, "value"), reverse=not lowest)
    states = [row["state"] for row in rows]
    warnings = [] if done else [f"{path.name}: no trial has finished"]
    return {
        "title": f"Search: {path.name}",
        "phantom": sidecar["phantom"],
        "warnings": warnings,
        "facts": {
            "configuration": sidecar["config"],
            "trials": ", ".join(f"{states.count(s)} {s}" for s in dict.fromkeys(states)),
            "decides": f"{sidecar['monitor']}, the {'lowest' if lowest else 'highest'}",
        },
        "parameters": keys,
        "monitor": sidecar["monitor"],
        "rows": done[:MAX_TRIALS],
        "left_out": max(len(done) - MAX_TRIALS, 0),
        "slices": figures.parameter_slices(done, keys, sidecar["monitor"], lowest=lowest)
        if done
        else None,
        "settings": json.dumps(sidecar, indent=2, ensure_ascii=False),
    }


def _is_figure(name: str) -> bool:
    return not name.endswith(("_low", "_high"))


def _cell(row: Mapping[str, str], name: str) -> tuple[str, str]:
    """Format a figure and its range over seeds as text."""
    ends = [_text(row, end) for end in (f"{name}_low", f"{name}_high")]
    return _text(row, name), " – ".join(filter(None, ends))


def _text(row: Mapping[str, str], name: str) -> str:
    if not row.get(name):
        return ""
    value = number(row, name)
    return f"{value:,.0f}" if abs(value) >= 1000 or value.is_integer() else f"{value:.3g}"


def titles_of(names: Sequence[str]) -> list[str]:
    """Column heads that can break between words."""
    return [name.removeprefix(AUROC).replace("_", " ") for name in names]
