"""What the analyses write: one folder for any of them, read again by the report."""

from collections.abc import Sequence
from pathlib import Path

from foldnorm.pipeline.latent.clusters import ClusterAnalysis
from foldnorm.pipeline.latent.probes import Probe
from foldnorm.pipeline.latent.space import LatentSpace
from foldnorm.preprocessing.files import write_json, write_tsv

SIDECAR = "latent.json"
CLUSTERS, CLUSTERED, CLUSTERS_SIDECAR = "clusters.tsv", "clusters_brains.tsv", "clusters.json"
PROBES, PROBED = "probes.tsv", "probes_brains.tsv"


def write_sidecar(space: LatentSpace, out: Path, run_folder: Path, splits: Sequence[str]) -> None:
    """Write ``latent.json``: of which model and brains the analyses are."""
    write_json(
        out / SIDECAR,
        {
            "run": str(run_folder.resolve()),
            "cohort": str(space.cohort.folder.resolve()),
            "splits": list(splits) or ["train", "validation", "test"],
            "phantom": space.cohort.is_phantom,
            "brains": len(space.codes),
            "latent_dim": space.codes.shape[1],
        },
    )


def write_clusters(space: LatentSpace, found: ClusterAnalysis, out: Path) -> None:
    """Write ``clusters.tsv`` (a row a k), ``clusters_brains.tsv``, ``clusters.json``."""
    rows = [clustering.as_row() for clustering in found.clusterings]
    write_tsv(out / CLUSTERS, rows, list(rows[0]))
    brains = []
    for n, row in enumerate(space.rows):
        figures: dict[str, float] = {}
        for c in found.clusterings[1:]:
            figures[f"cluster_{c.k}"] = int(c.labels[n])
            figures[f"silhouette_{c.k}"] = float(c.silhouettes[n])
        brains.append({"participant_id": row["participant_id"], "hemi": row["hemi"], **figures})
    write_tsv(out / CLUSTERED, brains, list(brains[0]))
    write_json(
        out / CLUSTERS_SIDECAR,
        {
            "sentence": found.sentence,
            "best_k": found.best.k,
            "gap_k": found.gap_k,
            "p_one_cloud": found.p_one_cloud,
        },
    )


def write_probes(space: LatentSpace, probes: Sequence[Probe], out: Path) -> None:
    """Write ``probes.tsv`` (a row a column) and ``probes_brains.tsv`` (held-out predictions)."""
    names = ("column", "measure", "value", "low", "high", "chance", "p", "brains")
    write_tsv(out / PROBES, [{n: getattr(p, n) for n in names} for p in probes], names)
    brains = [
        {
            "column": p.column,
            "participant_id": space.rows[index]["participant_id"],
            "hemi": space.rows[index]["hemi"],
            "predicted": float(value),
        }
        for p in probes
        for index, value in zip(p.indices, p.predictions, strict=True)
    ]
    write_tsv(out / PROBED, brains, ("column", "participant_id", "hemi", "predicted"))
