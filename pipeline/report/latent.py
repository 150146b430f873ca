"""Report section of `foldnorm latent`."""

import json
from pathlib import Path
from typing import Any

from foldnorm.pipeline import artifacts
from foldnorm.pipeline.report import figures
from foldnorm.pipeline.report.viewers import latent_viewers, projection_points
from foldnorm.preprocessing.cohort.pictures import inline_png
from foldnorm.preprocessing.core.files import read_json, read_tsv

N_DIMENSIONS = 20  # rows of the table
OLD_COLUMNS = {"foretold": "predicted_effect"}  # of dimensions.tsv, as release 0.1 wrote it
PICTURES = {
    "mean": artifacts.MEAN_PICTURE,
    "neighbours": artifacts.NEIGHBOURS_PICTURE,
    "interpolation": artifacts.INTERPOLATION_PICTURE,
    "dimensions": artifacts.DIMENSIONS_PICTURE,
}


def latent_section(path: Path) -> dict[str, Any]:
    """Build the report section of a folder of latent analyses."""
    sidecar = read_json(path / artifacts.LATENT_SIDECAR)
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
        "pictures": dict.fromkeys(PICTURES),
        "dimensions": [],
        "volumes": latent_viewers(path) if sidecar["classes"] else {},
        "points": None,
        "projection": None,
        "highest": sidecar["classes"][-1] if sidecar["classes"] else None,
        "spreads": None,
        "settings": json.dumps(sidecar, indent=2, ensure_ascii=False),
    }
    if (path / artifacts.CLUSTERS).is_file():
        section["clusters"] = {
            **read_json(path / artifacts.CLUSTERS_SIDECAR),
            "rows": read_tsv(path / artifacts.CLUSTERS),
            "silhouettes": figures.silhouettes_by_k(read_tsv(path / artifacts.CLUSTERED)),
        }
    if (path / artifacts.PROBES).is_file():
        section["probes"] = read_tsv(path / artifacts.PROBES)
    for name, picture in PICTURES.items():
        if (path / picture).is_file():
            section["pictures"][name] = inline_png((path / picture).read_bytes())
    if (path / artifacts.NEIGHBOURS).is_file():
        section["neighbours"] = read_tsv(path / artifacts.NEIGHBOURS)
    if (path / artifacts.INTERPOLATION).is_file():
        section["interpolation"] = read_json(path / artifacts.INTERPOLATION)
    if (path / artifacts.DIMENSIONS).is_file():
        rows = read_tsv(path / artifacts.DIMENSIONS)[:N_DIMENSIONS]
        section["dimensions"] = [
            {OLD_COLUMNS.get(column, column): value for column, value in row.items()}
            for row in rows
        ]
        section["spreads"] = figures.spreads(read_tsv(path / artifacts.DIMENSION_VALUES))
    if (path / artifacts.PROJECTION).is_file():
        section["points"] = projection_points(path)
        projection = read_json(path / artifacts.PROJECTION_SIDECAR)
        shares = [
            "n/a" if share is None else round(share, 3) for share in projection.get("explained", [])
        ]
        section["projection"] = {**projection, "explained": shares}
    return section
