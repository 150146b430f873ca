"""The baseline of `missing_sulci.py` that looks at voids and names them by where they lie."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from missing_namings import HEALTHY, REFILL, SITES, VOID, Item, Namings, planned

from foldnorm.pipeline.scoring.map_scores import Map
from foldnorm.pipeline.scoring.regions import strongest_regions
from foldnorm.pipeline.scoring.void import VoidScores
from foldnorm.preprocessing.cohort.cohort import family_of, row_key
from foldnorm.preprocessing.core.files import read_tsv, write_tsv
from foldnorm.preprocessing.naming.alignment import fold_means, transformed
from foldnorm.preprocessing.naming.atlas import AtlasSide

COLUMNS = ("kind", "size", "sulcus", "site", "family", "void", "void_hit")
Row = dict[str, Any]


def void_rows(
    namings: Namings, groups: np.ndarray, sites: Sequence[str], rounds: int
) -> Iterator[Row]:
    """Scores by `VoidScores`, and whether the atlas names the heaviest region by the group gone."""
    cohort = namings.labeller.cohort
    items = [item for item in planned(cohort, rounds) if item[1].kind in (HEALTHY, VOID, REFILL)]
    for site in sites:
        path = namings.folder / f"void-{site}-{rounds}.tsv"
        if not path.is_file():
            own = [item for item in items if cohort.rows[item[0]]["site"] == site]
            write_tsv(path, list(_of_site(namings, groups, site, own)), COLUMNS)
        for row in read_tsv(path):
            yield {**row, "void": float(row["void"]), "void_hit": float(row["void_hit"])}


def _of_site(
    namings: Namings, groups: np.ndarray, site: str, items: Sequence[tuple[int, Item]]
) -> Iterator[Row]:
    cohort, atlas = namings.labeller.cohort, namings.labeller.atlas
    there, here = (
        cohort.view(n for n, row in enumerate(cohort.rows)
                    if row["site"] in SITES and (row["site"] == site) == is_here)
        for is_here in (False, True)
    )  # fmt: skip
    scores = VoidScores(cohort.scheme, cohort.voxel_size).fit(there + here, len(here))
    for index, item in sorted(items):
        brain = namings.deletions.brain(index, item)
        maps: list[Map] = []
        found = scores.score([brain], maps.append)
        region = next(iter(strongest_regions(maps[0][0], np.eye(4), scores.THRESHOLD)), None)
        name = ""
        if region is not None:
            side = namings.labeller.side(brain.row)
            to_atlas = namings.alignment(brain, index, item).matrix @ cohort.affine_of(brain.row)
            named = _likeliest(side, transformed(region["voxels"], to_atlas))
            name = str(groups[atlas.names.index(named)])
        yield {
            "kind": item.kind, "size": "all", "sulcus": item.sulcus, "site": site,
            "family": family_of(brain.row), "void": float(found["void_component"][0]),
            "void_hit": int(bool(name) and name == item.sulcus),
        }  # fmt: skip
    print(f"  void: {row_key(brain.row)}, the last of {site}", flush=True)


def _likeliest(side: AtlasSide, points: np.ndarray) -> str:
    """Name the sulcus that runs through points of the atlas, (N, 3) mm, in most brains."""
    voxels = transformed(points, side.to_voxel).astype(np.float32)
    means = fold_means(side.log_density, voxels, np.zeros(len(points), dtype=np.int64), 1)
    return side.names[int(means[0].argmax())]
