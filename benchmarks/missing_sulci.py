"""Missing sulci of real brains by name: one sulcus taken out of a hemisphere at a time.

DATA and OUT are those of `real_cohort.py`; OUT/2mm is made first where it is not there, or the
cohort of --size, whose figures lie in OUT/missing-1mm. Which folds
a sulcus has is said by manual gyri (sixteen groups of the DKT protocol, `missing_namings.SULCI`);
which sulcus is missing is found by the maps of DATA/sulcal_masks, an atlas of other brains in
another nomenclature, so that no name is its own judge: by the names of folds and by voids together,
as score sulci does. DATA/dkt_sulci.tsv leads from one to the
other. A hemisphere is compared with the healthy ones of its side, its own family left out: with the
mean of its own site and the spread of all three. Settings were chosen on MMRR-21; figures are means
over the two other sites, HLN-12 and NKI, and beside them of MMRR (``_mmrr``).

    missing_void       AUROC of hemispheres without a sulcus against intact ones of other families;
                       its folds are erased with their junctions, the hull stays
    missing_refill     the same, and its neighbours drawn half-way to where it was
    deform             the same deformation, and the sulcus stays: no missing sulcus
    sham               nothing is erased, by the code path that erases: .5
    …_named, _named3   share where the most missing sulcus is one of the group that is gone, or one
                       of the three most missing groups is
    …_panel            the ten groups of most stable manual size at MMRR, by the panel of the atlas
    …_found_at_5pct    sensitivity at the threshold that 5 % of intact brains of the site pass
    unnamed_…, void_…  the same by names alone, by voids where the atlas has each sulcus alone
    fewer_voxels_…     the trivial baseline: how few voxels of sheet a hemisphere has
    void_map_…         distance to the nearest fold, as score void has it; named by the atlas
                       where the heaviest region lies; of the first --void-rounds
    size_only_…        each sulcus alone, by how small it is and how unsure its name
    null_without       healthy hemispheres of one site against those of the two others, compared
                       with these; null_16_controls: against sixteen of their own among them
    searched_mm        by how much a search from further away moves a hemisphere, at most

Of the sulci of a hemisphere --rounds are taken out in a random order, from at most --per-site
hemispheres of a site; --void-rounds 0 leaves void_map out, --draws 0 null. OUT/missing
keeps volumes, alignments, measures, voids and areas of null; what is there is not made again. Ends
with one line of JSON, which OUT/missing/figures.json holds with commit, date and machine.
"""

import argparse
import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from anomaly_statistics import auroc
from figures import write_figures
from missing_namings import (
    DEFORM,
    HEALTHY,
    PER_SITE,
    REFILL,
    SEARCHED,
    SHAM,
    SITES,
    SULCI,
    VOID,
    Item,
    Namings,
    planned,
    save,
)
from missing_void import Voids, void_rows
from real_cohort import SIZES, make, run
from real_figures import measured

from foldnorm.pipeline.artifacts import SULCUS_EVIDENCE
from foldnorm.pipeline.metrics.bootstrap import INTERVAL
from foldnorm.pipeline.scoring.atlas_labeller import AtlasLabeller
from foldnorm.pipeline.scoring.sulcus_scores import SulcusScores
from foldnorm.preprocessing.cohort.cohort import Cohort, family_of, row_key
from foldnorm.preprocessing.core.files import read_tsv
from foldnorm.preprocessing.naming.atlas import SulcusAtlas
from foldnorm.preprocessing.naming.sulcus_names import sulcus_name

SETTLED, *OTHERS = SITES
STABLE_GROUPS = 10
CONTROLS = 8  # people, both hemispheres of each
Row = dict[str, Any]


def groups_of(data: Path, atlas: SulcusAtlas) -> np.ndarray:
    """DKT group of each sulcus of the atlas, (n,); empty where it has none."""
    groups = {
        name: row["group"]
        for row in read_tsv(data / "dkt_sulci.tsv") for name in row["BrainVISA_names"].split()
    }  # fmt: skip
    return np.array([groups.get(name, "") for name in atlas.names])


def stable_groups(cohort: Cohort, site: str) -> list[str]:
    """Return the ten of `SULCI` whose manual size varies least over the hemispheres of a site."""
    keys = {row_key(row): 0.0 for row in cohort.rows if row["site"] == site}
    manual = {name: dict(keys) for name in SULCI}
    for row in cohort.fold_table:
        name = sulcus_name(row["name"], both_sides=False)
        if name in manual and row_key(row) in keys:
            manual[name][row_key(row)] += float(row["size"])
    values = {name: np.array(list(own.values())) for name, own in manual.items()}
    variation = {name: own.std() / own.mean() for name, own in values.items()}
    return sorted(SULCI, key=lambda name: variation[name])[:STABLE_GROUPS]


def healthy_of(voids: Voids, indices: Sequence[int], n_local: int = 0) -> SulcusScores:
    """Fit scores on the healthy hemispheres of voids, the last ones of the site that is scored."""
    labeller = voids.namings.labeller
    every = [voids.measured(n, Item(HEALTHY))[0] for n in indices]
    rows = [labeller.cohort.rows[n] for n in indices]
    scores = SulcusScores(labeller.cohort, labeller.atlas, void=voids.scores)
    return scores.fit_measured(every, rows, n_local)


def first_groups(z: np.ndarray, groups: np.ndarray) -> list[str]:
    """Order groups by their most missing sulcus, (n,) z."""
    return list(dict.fromkeys(groups[np.argsort(-z, kind="stable")]))


def scored(
    voids: Voids, scores: SulcusScores, groups: np.ndarray, items: Iterable[tuple[int, Item]]
) -> list[Row]:
    """Scores of hemispheres after deletions, a row each."""
    found = []
    for index, item in sorted(items):
        row = voids.cohort.rows[index]
        own, voxels = voids.measured(index, item)
        compared = scores.compared(own, row)
        order = first_groups(compared.z["missing"], groups)
        norms = scores.norms_of(row)
        sizes, sure = np.sqrt(own.measures[:, 0]), np.nan_to_num(own.measures[:, 1])
        regressors = scores.design_.encode([row], np.array([True]))
        covariates = None if regressors is None else regressors[0]
        alone = -norms.size.z(sizes, covariates) - 0.5 * norms.confidence.z(sure, covariates)
        found.append({
            "kind": item.kind, "size": "all", "sulcus": item.sulcus, "site": row["site"],
            "family": family_of(row), "score": compared.scores["sulcus_missing"],
            "panel": compared.scores["sulcus_missing_panel"], "fewer_voxels": -voxels,
            "size_only": float(alone.max()),
            "size_only_hit": first_groups(alone, groups)[0] == item.sulcus,
            "hit": order[0] == item.sulcus, "hit3": item.sulcus in order[:3],
            **{kind: compared.scores[f"sulcus_{kind}"] for kind in SULCUS_EVIDENCE},
            **{f"{kind}_hit": first_groups(compared.z[kind], groups)[0] == item.sulcus
               for kind in SULCUS_EVIDENCE},
        })  # fmt: skip
    return found


def table_of(rows: Sequence[Row], score: str, hit: str) -> dict[str, np.ndarray]:
    """Columns of rows as `real_figures.measured` takes them."""
    found = {key: np.array([row[key] for row in rows]) for key in ("kind", "size", "family")}
    found["score"] = np.array([row[score] for row in rows], dtype=np.float64)
    found["hit"] = np.array([row[hit] for row in rows], dtype=np.float64)
    return found


def over_sites(
    rows: Sequence[Row], kind: str, score: str, hit: str, sites: Sequence[str]
) -> np.ndarray:
    """AUROC, hits and sensitivity, (3, 3): mean over sites, and both ends of their intervals."""
    by_site = [
        measured(table_of([row for row in rows if row["site"] == site], score, hit),
                 kind, ("all",), HEALTHY) for site in sites
    ]  # fmt: skip
    over = np.mean([own[: min(map(len, by_site))] for own in by_site], axis=0)
    return np.array([over[0], *np.percentile(over[1:], INTERVAL, axis=0)])


def summarise(rows: Sequence[Row], stable: Sequence[str]) -> dict[str, float]:
    """Figures of all questions, printed."""
    figures: dict[str, float] = {}
    panel = [row for row in rows if row["sulcus"] in ("", *stable)]
    questions = {
        "missing_{}": (rows, "score", {"": 0, "_named": 1, "_found_at_5pct": 2}, "hit"),
        "missing_{}_of_three": (rows, "score", {"_named3": 1}, "hit3"),
        "missing_{}_panel": (panel, "panel", {"": 0, "_named": 1}, "hit"),
        **{
            f"{part}_{{}}": (rows, part, {"": 0, "_named": 1, "_found_at_5pct": 2}, f"{part}_hit")
            for part in SULCUS_EVIDENCE
        },
        "fewer_voxels_{}": (rows, "fewer_voxels", {"": 0}, "hit"),
        "size_only_{}": (rows, "size_only", {"": 0, "_named": 1}, "size_only_hit"),
    }
    for end, sites in (("", OTHERS), ("_mmrr", [SETTLED])):
        for name, (some, score, what, hit) in questions.items():
            for kind in (VOID, REFILL):
                values = over_sites(some, kind, score, hit, sites)
                for suffix, column in what.items():
                    key = name.format(kind).removesuffix("_of_three") + suffix + end
                    figures |= _with_interval(key, values[:, column])
        for kind in (DEFORM, SHAM):
            figures |= _with_interval(
                kind + end, over_sites(rows, kind, "score", "hit", sites)[:, 0]
            )
    return figures


def _with_interval(key: str, values: np.ndarray) -> dict[str, float]:
    print(f"  {key:<34} {values[0]:.3f} [{values[1]:.3f}, {values[2]:.3f}]")
    return dict(zip((key, f"{key}_low", f"{key}_high"), map(float, values), strict=True))


def by_sulcus(rows: Sequence[Row]) -> dict[str, dict[str, float]]:
    """Share that is named right of each sulcus, over all sites, and how often it was taken out."""
    found: dict[str, dict[str, float]] = defaultdict(dict)
    for sulcus in SULCI:
        for kind in (VOID, REFILL):
            hits = [row["hit"] for row in rows if row["sulcus"] == sulcus and row["kind"] == kind]
            if hits:
                share = round(float(np.mean(hits)), 3)
                found[sulcus] |= {kind: share, f"n_{kind}": len(hits)}
    return dict(found)


def null(namings: Namings, site: str, draws: int) -> dict[str, float]:
    """AUROC of the healthy of one site against healthy ones that they are compared with."""
    rows = namings.labeller.cohort.rows
    there = [n for n, row in enumerate(rows) if row["site"] in SITES and row["site"] != site]
    here = [n for n, row in enumerate(rows) if row["site"] == site]
    people = sorted({family_of(rows[n]) for n in here})
    rng, areas = np.random.default_rng(0), []
    without = null_area(namings, f"{site}-without", there, len(there), here)
    for number in range(draws):
        chosen = set(rng.permutation(people)[:CONTROLS])
        controls = [n for n in here if family_of(rows[n]) in chosen]
        others = [n for n in here if family_of(rows[n]) not in chosen]
        key = f"{site}-{number}"
        areas.append(null_area(namings, key, there + controls, len(controls), others))
    low, high = np.percentile(areas, INTERVAL)
    return {"without": without, "16_controls": float(np.mean(areas)), "16_controls_low": low,
            "16_controls_high": high}  # fmt: skip


def null_area(
    namings: Namings, key: str, healthy: Sequence[int], n_local: int, others: Sequence[int]
) -> float:
    """AUROC of other healthy hemispheres against the local ones, the last of the healthy."""
    path = namings.folder / "null" / f"{key}.npz"
    if not path.is_file():
        voids = Voids(namings, healthy, n_local)
        scores = healthy_of(voids, healthy, n_local)
        local = healthy[len(healthy) - n_local :]
        of_others, of_local = (
            np.array([
                scores.compared(
                    voids.measured(n, Item(HEALTHY))[0], voids.cohort.rows[n]
                ).scores["sulcus_missing"]
                for n in some
            ]) for some in (others, local)
        )  # fmt: skip
        save(path, area=auroc(of_others, of_local))
    with np.load(path) as kept:
        return float(kept["area"])


def searched(namings: Namings, items: Sequence[tuple[int, Item]]) -> float:
    """Compute by how many mm a search from further away moves a hemisphere, at most."""
    apart = [0.0]
    for index, item in items:
        if item.kind == SEARCHED:
            brain = namings.deletions.brain(index, item)
            ways = [
                namings.alignment(brain, index, Item(kind)).matrix for kind in (SEARCHED, HEALTHY)
            ]
            corners = np.array(np.meshgrid([-70, 0], [-110, 80], [-50, 80], [1])).reshape(4, -1)
            apart.append(float(np.linalg.norm((ways[0] - ways[1]) @ corners, axis=0).max()))
    return max(apart)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path, metavar="DATA")
    parser.add_argument("out", type=Path, metavar="OUT", help="folder that keeps everything")
    parser.add_argument("--rounds", type=int, default=len(SULCI))
    parser.add_argument("--void-rounds", type=int, default=2)
    parser.add_argument("--draws", type=int, default=10, help="of the controls of null")
    parser.add_argument("--size", choices=tuple(SIZES), default="2mm", help="of voxels")
    parser.add_argument("--per-site", type=int, default=PER_SITE, help="hemispheres altered")
    arguments = parser.parse_args()
    data, out, size = arguments.data.absolute(), arguments.out.absolute(), arguments.size
    if not (out / size / "volumes.npy").is_file():
        make(data, out, sizes=(size,))
    folder = out / ("missing" if size == "2mm" else f"missing-{size}")
    cohort = Cohort.open(out / size)
    if not (folder / "atlas.npz").is_file():
        run("atlas", data / "sulcal_masks", "-o", folder / "atlas.npz", "--quiet")
    atlas = SulcusAtlas.open(folder / "atlas.npz")
    namings = Namings(AtlasLabeller(atlas, cohort, by_place=True), folder)
    items = list(planned(cohort, arguments.rounds, arguments.per_site))
    for number, (index, item) in enumerate(items):
        namings.measured(index, item)
        if number % 100 == 0:
            print(f"  {number} of {len(items)}", flush=True)
    groups = groups_of(data, atlas)
    healthy = [n for n, item in items if item.kind == HEALTHY]
    voids = Voids(namings, healthy, kept_in="voids")
    rows = scored(voids, healthy_of(voids, healthy), groups, items)
    stable = stable_groups(cohort, SETTLED)
    figures: Row = dict(summarise(rows, stable))
    of_void: list[Row] = []
    if arguments.void_rounds:
        of_void = list(void_rows(namings, groups, OTHERS, arguments.void_rounds))
    for kind in (VOID, REFILL) if of_void else ():
        values = over_sites(of_void, kind, "void", "void_hit", OTHERS)
        figures |= _with_interval(f"void_map_{kind}", values[:, 0])
        figures |= _with_interval(f"void_map_{kind}_named", values[:, 1])
    for site in SITES if arguments.draws else ():
        for key, value in null(namings, site, arguments.draws).items():
            figures[f"null_{site.lower()}_{key}"] = value
    ends = ("without", "16_controls", "16_controls_low", "16_controls_high")
    for key in ends if arguments.draws else ():
        figures[f"null_{key}"] = float(np.mean([figures[f"null_{s.lower()}_{key}"] for s in SITES]))
    figures["searched_mm"] = searched(namings, items)
    figures = {key: round(float(value), 3) for key, value in figures.items()}
    people = {site: len({r["family"] for r in rows if r["site"] == site}) for site in SITES}
    counts = {site: sum(r["site"] == site and r["kind"] == VOID for r in rows) for site in SITES}
    figures |= {
        "people": people, "sulci_taken_out": counts, "sulci": list(SULCI), "panel": stable,
        "named_by_sulcus": by_sulcus(rows),
    }  # fmt: skip
    write_figures(folder / "figures.json", figures)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
