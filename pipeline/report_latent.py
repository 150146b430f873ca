"""Report section of `foldnorm latent`."""

import json
from pathlib import Path
from typing import Any

from foldnorm.pipeline import report_figures as figures
from foldnorm.pipeline.latent import tables
from foldnorm.preprocessing.files import read_json, read_tsv


def latent_section(path: Path) -> dict[str, Any]:
    """What the report shows of a folder of latent analyses."""
    sidecar = read_json(path / tables.SIDECAR)
    section: dict[str, Any] = {
        "title": f"Latent space: {path.name}",
        "phantom": sidecar["phantom"],
        "facts": {
            "model": Path(sidecar["run"]).name,
            "brains": f"{sidecar['brains']} ({', '.join(sidecar['splits'])})",
            "dimensions": sidecar["latent_dim"],
        },
        "clusters": None,
        "probes": [],
        "settings": json.dumps(sidecar, indent=2, ensure_ascii=False),
    }
    if (path / tables.CLUSTERS).is_file():
        section["clusters"] = {
            **read_json(path / tables.CLUSTERS_SIDECAR),
            "rows": read_tsv(path / tables.CLUSTERS),
            "silhouettes": figures.silhouettes_by_k(read_tsv(path / tables.CLUSTERED)),
        }
    if (path / tables.PROBES).is_file():
        section["probes"] = read_tsv(path / tables.PROBES)
    return section
