"""Report section of `foldnorm latent`."""

import json
from pathlib import Path
from typing import Any

from foldnorm.pipeline import report_figures as figures
from foldnorm.pipeline.latent import outputs
from foldnorm.pipeline.report_viewers import latent_viewers, projection_points
from foldnorm.preprocessing.files import read_json, read_tsv
from foldnorm.preprocessing.pictures import inline_png

LISTED_DIMENSIONS = 20


def latent_section(path: Path) -> dict[str, Any]:
    """What the report shows of a folder of latent analyses."""
    sidecar = read_json(path / outputs.SIDECAR)
    section: dict[str, Any] = {
        "title": f"Latent space: {path.name}",
        "phantom": sidecar["phantom"],
        "facts": {
            "model": "/".join(Path(sidecar["run"]).parts[-2:]),
            "brains": f"{sidecar['brains']} ({', '.join(sidecar['splits'])})",
            "dimensions": sidecar["latent_dim"],
        },
        "clusters": None,
        "probes": [],
        "neighbours": [],
        "interpolation": None,
        "pictures": dict.fromkeys(("mean", "neighbours", "interpolation", "dimensions")),
        "dimensions": [],
        "volumes": latent_viewers(path) if sidecar["classes"] else {},
        "points": None,
        "projection": None,
        "highest": sidecar["classes"][-1] if sidecar["classes"] else None,
        "spreads": None,
        "settings": json.dumps(sidecar, indent=2, ensure_ascii=False),
    }
    if (path / outputs.CLUSTERS).is_file():
        section["clusters"] = {
            **read_json(path / outputs.CLUSTERS_SIDECAR),
            "rows": read_tsv(path / outputs.CLUSTERS),
            "silhouettes": figures.silhouettes_by_k(read_tsv(path / outputs.CLUSTERED)),
        }
    if (path / outputs.PROBES).is_file():
        section["probes"] = read_tsv(path / outputs.PROBES)
    for name in ("MEAN", "NEIGHBOURS", "INTERPOLATION", "DIMENSIONS"):
        picture = path / getattr(outputs, f"{name}_PICTURE")
        if picture.is_file():
            section["pictures"][name.lower()] = inline_png(picture.read_bytes())
    if (path / outputs.NEIGHBOURS).is_file():
        section["neighbours"] = read_tsv(path / outputs.NEIGHBOURS)
    if (path / outputs.INTERPOLATION).is_file():
        section["interpolation"] = read_json(path / outputs.INTERPOLATION)
    if (path / outputs.DIMENSIONS).is_file():
        section["dimensions"] = read_tsv(path / outputs.DIMENSIONS)[:LISTED_DIMENSIONS]
        section["spreads"] = figures.spreads(read_tsv(path / outputs.DIMENSION_VALUES))
    if (path / outputs.PROJECTION).is_file():
        section["points"] = projection_points(path)
        section["projection"] = read_json(path / outputs.PROJECTION_SIDECAR)
    return section
