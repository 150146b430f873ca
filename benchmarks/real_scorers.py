"""Scores of real brains, intact and altered, for `anomaly_real.py`; what is there is kept."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from real_alterations import HEALTHY, SHAM, altered, planned, ways_to_alter
from scipy import ndimage

from foldnorm.pipeline.runs.run_folder import RunFolder
from foldnorm.pipeline.scoring.baselines import Baselines
from foldnorm.pipeline.scoring.families import ScoreFamily
from foldnorm.pipeline.scoring.latent_distance import conformal_p
from foldnorm.pipeline.scoring.map_scores import NEIGHBOURS, Map, MapScores
from foldnorm.pipeline.scoring.model_families import unfitted_model_families
from foldnorm.pipeline.scoring.regions import strongest_regions
from foldnorm.pipeline.scoring.void import VoidScores
from foldnorm.preprocessing.alteration.fold_kinds import Parts
from foldnorm.preprocessing.cohort.cohort import Brain, Cohort, family_of, row_key
from foldnorm.preprocessing.core.files import read_tsv, write_tsv

# Of a model, that are looked at.
FAMILIES = ("shortfall", "evidence", "latent_map", "latent", "reconstruction")
ASKED_ALL = ("restorer", "void")  # others are asked about erased folds alone
OF_ALL = (HEALTHY, SHAM, "fold")
ALARM = 0.05
CONTROLS, DRAWS = (8, 16, 32), 10  # people, and how often they are drawn
CHUNK = 8
# The strongest region: does it touch the fold, its size, the share within a voxel of the fold.
OF_REGION = ("hit", "cm3", "near")
COLUMNS = ("kind", "size", "volume", "family", "label", "mm2", *OF_REGION)
Families = Sequence[ScoreFamily]


def fitted(
    cohort: Cohort, runs: Mapping[str, Path], device: torch.device, *, free: Sequence[str] = ()
) -> dict[str, Families]:
    """Families of scores of a site, fitted, by name.

    Args:
        cohort: with the site left out as its test split.
        runs: run folder of each trained model.
        device: to compute on.
        free: of ``void`` and ``baselines``, which need no model, those to be fitted.
    """
    families: dict[str, Families] = {}
    if "void" in free:
        families["void"] = [VoidScores(cohort.scheme, cohort.voxel_size)]
    if "baselines" in free:
        families["baselines"] = [Baselines(cohort.scheme)]
    for name, path in runs.items():
        trained = RunFolder.open(path).load(device).for_scoring("auto")
        every = unfitted_model_families(trained, cohort, ())
        families[name] = [own for family, own in every.items() if family in FAMILIES]
    train, unseen, own = (cohort.select(split) for split in ("train", "validation", "test"))
    for family in (own_family for each in families.values() for own_family in each):
        if isinstance(family, VoidScores):
            family.fit(train + unseen + own, len(own))
        elif isinstance(family, MapScores):
            family.fit(unseen + own, len(own))
        else:
            family.fit(train)
    return families


def score_hemispheres(
    cohort: Cohort,
    scorers: Mapping[str, Families],
    folder: Path,
    per_size: int | None,
    share: tuple[int, int],
) -> None:
    """Score hemispheres of the site left out, those of one process of several.

    Args:
        cohort: with the site as its test split.
        scorers: see `fitted`.
        folder: a table for each scorer and hemisphere.
        per_size: see `planned`.
        share: n of N: every Nth hemisphere from the nth on.
    """
    ways = ways_to_alter(cohort)
    for index in cohort.indices("test")[share[0] :: share[1]].tolist():
        key = row_key(cohort.rows[index])
        waiting = {n: s for n, s in scorers.items() if not (folder / n / f"{key}.tsv").is_file()}
        if waiting:
            tables = _score_hemisphere(cohort, ways, waiting, index, per_size)
            for name, rows in tables.items():
                write_table(folder / name / f"{key}.tsv", rows)
            print(f"  {key}: {max(map(len, tables.values()))}", flush=True)


def _score_hemisphere(
    cohort: Cohort, ways: Any, scorers: Mapping[str, Families], index: int, per_size: int | None
) -> dict[str, list[dict[str, Any]]]:
    row = cohort.rows[index]
    known = {"volume": row_key(row), "family": family_of(row)}
    assert cohort.folds is not None
    parts = Parts.from_volume(
        np.array(cohort.volumes[index]), np.array(cohort.folds[index]), cohort.scheme
    )
    plan = list(planned(cohort, ways, index, per_size))
    parted = [[item for item in plan if (item[0] in OF_ALL) == of_all] for of_all in (True, False)]
    tables: dict[str, list[dict[str, Any]]] = {name: [] for name in scorers}
    nothing = [dict.fromkeys(OF_REGION, "")] * CHUNK
    for some in (part[n : n + CHUNK] for part in parted for n in range(0, len(part), CHUNK)):
        brains = [cohort.brain(index, altered(cohort, ways, index, kind, d)) for kind, _, d in some]
        places = [parts.fold(d.label) for *_, d in some]
        for name, families in scorers.items():
            if some[0][0] not in OF_ALL and name.partition("-")[0] not in ASKED_ALL:
                continue
            regions, scores = scored(families, brains, places, cohort.voxel_size)
            tables[name] += [
                {**known, "kind": kind, "size": size, "label": d.label, "mm2": d.size,
                 **(regions or nothing)[n], **{k: v[n] for k, v in scores.items()}}
                for n, (kind, size, d) in enumerate(some)
            ]  # fmt: skip
    return tables


def scored(
    families: Families,
    brains: Sequence[Brain],
    places: Sequence[np.ndarray],
    voxel_size: Sequence[float],
) -> tuple[list[dict[str, Any]], dict[str, np.ndarray]]:
    """Score brains: what `OF_REGION` says of each by the first family with maps, and the scores."""
    regions: list[dict[str, Any]] = []
    scores: dict[str, np.ndarray] = {}
    for family in families:
        if not isinstance(family, MapScores):
            scores |= family.score(brains)
            continue
        found: list[dict[str, Any]] = []
        scores |= family.score(brains, _strongest(family.THRESHOLD, places, voxel_size, found))
        regions = regions or found
    return regions, scores


def _strongest(
    threshold: float,
    places: Sequence[np.ndarray],
    voxel_size: Sequence[float],
    regions: list[dict[str, Any]],
) -> Any:
    affine = np.diag([*voxel_size, 1.0])

    def on_map(z: Map) -> None:
        found = strongest_regions(z[0], affine, threshold)
        place = places[len(regions)]
        if not found:
            regions.append({"hit": 0, "cm3": "", "near": ""})
            return
        voxels = tuple(found[0]["voxels"].T)
        near = ndimage.binary_dilation(place, NEIGHBOURS)[voxels].mean()
        regions.append(
            {"hit": int(place[voxels].any()), "cm3": found[0]["mm3"] / 1000, "near": float(near)}
        )

    return on_map


def write_table(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows of scores."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_tsv(path, rows, list(COLUMNS) + [c for c in rows[0] if c not in COLUMNS])


def join_tables(cohort: Cohort, folder: Path, name: str) -> bool:
    """Join the tables of all hemispheres of a site to NAME.tsv; False if some are missing."""
    if (folder / f"{name}.tsv").is_file():
        return True
    keys = [row_key(cohort.rows[n]) for n in cohort.indices("test")]
    paths = [folder / "hemispheres" / name / f"{key}.tsv" for key in keys]
    if not all(path.is_file() for path in paths):
        return False
    write_table(folder / f"{name}.tsv", [row for path in paths for row in read_tsv(path)])
    return True


class Remembered(MapScores):
    """Scores of maps that are at hand, as another scorer made them."""

    KINDS = ("component",)

    def __init__(self, like: MapScores, maps: dict[str, Map]) -> None:
        super().__init__()
        self.PREFIX, self.THRESHOLD = like.PREFIX, like.THRESHOLD  # type: ignore[misc]
        self.scheme, own = like.scheme, like.normative
        self.normative = type(own)(own.floor, own.smoothing, own.clip, own.ridge)
        self._maps = maps

    def raw_maps(self, brains: Iterable[Brain]) -> Iterator[Map]:
        """Map of each brain, found by its row."""
        for brain in brains:
            yield self._maps[row_key(brain.row)]

    def _scores(self, z: Map, raw: Map, direction: int, family: str) -> list[float]:
        return super()._scores(z, raw, direction, family)[:1]


def false_alarms(cohort: Cohort, scorer: MapScores, *, is_network: bool) -> dict[str, float]:
    """Share of a site's intact brains with p < .05: controls of other sites, or of their own."""
    unseen, own = cohort.select("validation"), cohort.select("test")
    if not is_network:
        unseen = cohort.select("train", "validation")
    both = [*unseen, *own]
    maps = {row_key(b.row): m[:1] for b, m in zip(both, scorer.raw_maps(both), strict=True)}
    there, here = both[: len(unseen)], both[len(unseen) :]
    (name,) = Remembered(scorer, maps).names
    elsewhere = Remembered(scorer, maps).fit(there)
    p = conformal_p(elsewhere.score(here)[name], elsewhere.score(there)[name])
    found = {"none": float((p < ALARM).mean())}
    people = sorted({family_of(b.row) for b in here})
    rng = np.random.default_rng(0)
    for number in CONTROLS:
        shares = []
        for _ in range(DRAWS if number < len(people) else 0):
            chosen = set(rng.permutation(people)[:number])
            controls = [b for b in here if family_of(b.row) in chosen]
            others = [b for b in here if family_of(b.row) not in chosen]
            local = Remembered(scorer, maps).fit(there + controls, len(controls))
            p = conformal_p(local.score(others)[name], local.score(controls)[name])
            shares.append((p < ALARM).mean())
        if shares:
            found[str(number)] = float(np.mean(shares))
    return found


def read_scores(path: Path, score: str) -> dict[str, np.ndarray]:
    """Kind, size, family, volume, `OF_REGION` and score of every row; tables may lack sizes."""
    rows = read_tsv(path)
    found = {
        key: np.array([row[key] for row in rows]) for key in ("kind", "size", "family", "volume")
    }
    found["score"] = np.array([float(row[score]) for row in rows])
    for key in OF_REGION:
        found[key] = np.array([float(row.get(key) or "nan") for row in rows])
    return found
