"""Voids of `missing_sulci.py`: by sulcus, and the baseline that names the heaviest one."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from missing_namings import HEALTHY, REFILL, SITES, VOID, Item, Namings, planned, save

from foldnorm.pipeline.scoring.compared_sulci import Measured
from foldnorm.pipeline.scoring.map_scores import Map
from foldnorm.pipeline.scoring.regions import strongest_regions
from foldnorm.pipeline.scoring.sulcus_voids import void_by_sulcus
from foldnorm.pipeline.scoring.void import VoidScores
from foldnorm.preprocessing.cohort.cohort import family_of, row_key
from foldnorm.preprocessing.core.files import read_tsv, write_tsv
from foldnorm.preprocessing.naming.alignment import fold_means, transformed
from foldnorm.preprocessing.naming.atlas import AtlasSide

COLUMNS = ("kind", "size", "sulcus", "site", "family", "void", "void_hit")
Row = dict[str, Any]


class Voids:
    """Voids of hemispheres by sulcus, against healthy ones, the own family left out.

    Args:
        namings: of the hemispheres.
        indices: of the healthy ones.
        n_local: so many of them, the last ones, are of the site that is scored.
        kept_in: name of the folder that keeps what was found; empty keeps nothing.
    """

    def __init__(
        self,
        namings: Namings,
        indices: Sequence[int],
        n_local: int = 0,
        kept_in: str = "",
    ) -> None:
        cohort = namings.labeller.cohort
        self.namings, self.cohort, self.kept_in = namings, cohort, kept_in
        self._known: dict[tuple[int, Item], tuple[Measured, int]] = {}
        self.scores = VoidScores(cohort.scheme, cohort.voxel_size)
        self.scores.fit(cohort.view(indices), n_local)

    def measured(self, index: int, item: Item) -> tuple[Measured, int]:
        """Name and measure a hemisphere after a deletion, and its voids; see `Namings.measured`."""
        if (index, item) not in self._known:
            own, voxels = self.namings.measured(index, item)
            self._known[index, item] = own._replace(voids=self._voids(index, item)), voxels
        return self._known[index, item]

    def _voids(self, index: int, item: Item) -> np.ndarray:
        path = self.namings.path(self.kept_in, index, item)
        if self.kept_in and path.is_file():
            with np.load(path) as kept:
                return np.asarray(kept["voids"])
        labeller = self.namings.labeller
        brain = self.cohort.brain(index, self.namings.volume(index, item))
        side = labeller.side(brain.row)
        to_mni = self.cohort.affine_of(brain.row)
        to_atlas = self.namings.alignment(brain, index, item).matrix @ to_mni
        (z,) = self.scores.maps([brain])
        voids = void_by_sulcus(z[0], side, to_atlas, labeller.sulci)
        if self.kept_in:
            save(path, voids=voids)
        return voids


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
