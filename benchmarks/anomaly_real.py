"""Missing folds of real brains, one site left out at a time.

DATA and OUT are those of `real_cohort.py`; OUT/2mm is made first where it is not there. For each of
the four sites, restorers are trained on the hemispheres of the other three, and every hemisphere of
the site left out is altered in one place at a time and scored:

    fold       a fold erased with its junctions, the hull kept: every one over 200 mm² (or
               --per-bin of each size), and some of 100 to 200 mm²
    refill     the same, and its neighbours drawn half-way to where it was, over 8 mm; compared with
    deform     the same deformation around a fold that stays
    interrupt, displace, add
    scar, rim  what touches a fold is cut and the fold stays: no score may see that

by the restorer of each seed, by `void` (no network), and by the trivial baselines. A brain is
compared with the other brains of its site as controls, together with brains of the other sites that
the network was not trained on; its own family is left out. Settings of the scores were chosen on
MMRR with a first restorer, and on no other site.

Printed and written by size: AUROC of altered brains against intact ones of other families, how
often the strongest region, outlined at half of its peak, touches the fold, and sensitivity at the
threshold that 5 % of the site's intact brains pass; means over sites and seeds, with intervals that
draw families. Also how many healthy brains are called unusual (p < .05), with controls of their
site or without, and how far two copies of one scan lie apart.

OUT/anomaly keeps every score; what is there is not made again. Ends with one line of JSON, which
OUT/anomaly/figures.json holds with commit, date and machine.
"""

import argparse
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from anomaly_statistics import auroc
from figures import write_figures
from real_cohort import make, run

from foldnorm.pipeline.detection_metrics import INTERVAL
from foldnorm.pipeline.run_folder import RunFolder
from foldnorm.pipeline.scores import conformal_p
from foldnorm.pipeline.scoring.baselines import Baselines
from foldnorm.pipeline.scoring.evidence import EvidenceScores
from foldnorm.pipeline.scoring.map_scores import Map, MapScores
from foldnorm.pipeline.scoring.regions import strongest_regions
from foldnorm.pipeline.scoring.void import VoidScores
from foldnorm.preprocessing.alteration_kinds import DEFORMING, KINDS, AlterationKind
from foldnorm.preprocessing.cohort import Brain, Cohort, family_of, row_key, write_participants
from foldnorm.preprocessing.deletion import HALF_WAY, Deletion, SizeRange, subject_rng
from foldnorm.preprocessing.files import read_json, read_tsv, write_json, write_tsv
from foldnorm.preprocessing.fold_kinds import Parts

SITES = ("HLN", "MMRR", "NKI", "SynthSeg")
COMPARED = 18  # of a hundred people of the other sites, who are not trained on
SIZES = {"100": SizeRange(100, 150), "150": SizeRange(150, 200), "200": SizeRange(200, 500),
         "500": SizeRange(500, 800), "800": SizeRange(800)}  # fmt: skip
FEW = 1  # alterations of each size and hemisphere, of kinds other than erased folds
SMALL = 3  # erased folds of 100 to 200 mm², likewise
SOME_KINDS = ("refill", "deform", "interrupt", "displace", "add", "scar", "rim")
MIN_SHARE = 0.5  # of a fold that lies in the box
ALARM = 0.05
CONTROLS, DRAWS = (8, 16, 32), 10  # people, and how often they are drawn
BOOTSTRAPS = 500
CHUNK = 8
CPU = torch.device("cpu")
HEALTHY = "healthy"
COLUMNS = ("kind", "size", "volume", "family", "label", "mm2", "hit")


def left_out(cohort: Cohort, site: str, folder: Path) -> Cohort:
    """The cohort again: the site to test, the others to train on and to compare with."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in cohort.folder.iterdir():
        if path.is_file() and path.name != "participants.tsv":
            (folder / path.name).unlink(missing_ok=True)
            os.link(path, folder / path.name)
    rows = [
        {
            **row,
            "split": "test" if row["site"] == site else "validation" if held_out(row) else "train",
        }
        for row in cohort.rows
    ]
    write_participants(folder, rows)
    return Cohort.open(folder)


def held_out(row: Mapping[str, str]) -> bool:
    """Say if a brain of another site is compared with, and not trained on: about one in six."""
    person = row["participant_id"] if row["family"] in ("", "n/a") else row["family"]
    return int(hashlib.sha256(person.encode()).hexdigest()[:8], 16) % 100 < COMPARED


def train(cohort: Cohort, out: Path, seed: int, steps: int) -> None:
    if not (out / "cost.json").is_file():
        run("train", "--config", "restorer", "--cohort", cohort.folder, "--out", out, "--resume",
            "auto", "--device", "cpu", "--training.seed", seed, "--training.steps", steps,
            "--training.validate_every", steps, "--training.validation_volumes", 8,
            "--quiet")  # fmt: skip


def ways_to_alter(cohort: Cohort) -> dict[str, AlterationKind]:
    return {
        kind: KINDS[kind](cohort, **({"refilling": HALF_WAY} if kind in DEFORMING else {}))
        for kind in ("fold", *SOME_KINDS)
    }


def planned(
    cohort: Cohort, ways: dict[str, AlterationKind], index: int, per_bin: int | None
) -> Iterator[tuple[str, str, Deletion]]:
    """Alterations of one volume: kind, size, and what is done."""
    key = row_key(cohort.rows[index])
    face = float(np.prod(cohort.voxel_size)) ** (2 / 3)
    rows = [row for row in cohort.fold_table if row_key(row) == key]
    held = [r for r in rows if int(r["voxels"]) * face >= MIN_SHARE * float(r["size"])]
    rng = subject_rng(0, f"every fold/{key}")
    for size, limits in SIZES.items():
        found = [row for row in held if limits.holds(float(row["size"]))]
        most = per_bin or (SMALL if limits.high <= 200 else len(found))
        for n in rng.permutation(len(found))[:most]:
            row = found[int(n)]
            yield "fold", size, Deletion("fold", int(row["label"]), "", float(row["size"]))
    for kind in SOME_KINDS:
        for size in ("200", "500", "800"):
            for draw in range(min(FEW, per_bin or FEW)):
                rng = subject_rng(draw, f"{kind}/{key}")
                deletion = ways[kind].draw(index, SIZES[size], rng)
                if deletion is not None:
                    yield kind, size, deletion


def score_site(
    cohort: Cohort, scorers: dict[str, MapScores | Baselines], folder: Path, per_bin: int | None
) -> None:
    """Score every hemisphere of the site left out, intact and altered, by what is not there yet."""
    waiting = {n: s for n, s in scorers.items() if not (folder / f"{n}.tsv").is_file()}
    if not waiting:
        return
    tables: dict[str, list[dict[str, Any]]] = {name: [] for name in waiting}
    ways = ways_to_alter(cohort)
    for index in cohort.indices("test"):
        row = cohort.rows[int(index)]
        known = {"volume": row_key(row), "family": family_of(row)}
        volume, folds = np.array(cohort.volumes[index]), np.array(cohort.folds[index])  # type: ignore[index]
        parts = Parts.of(volume, folds, cohort.scheme)
        plan = [(HEALTHY, "0", Deletion("none")), *planned(cohort, ways, int(index), per_bin)]
        for first in range(0, len(plan), CHUNK):
            some = plan[first : first + CHUNK]
            brains = [
                cohort.brain(
                    int(index), volume if kind == HEALTHY else ways[kind].apply(int(index), d)
                )
                for kind, _, d in some
            ]
            for name, scorer in waiting.items():
                if name == "baselines" and not any(kind in ("fold", HEALTHY) for kind, *_ in some):
                    continue
                hits, scores = scored(scorer, brains, [parts.fold(d.label) for *_, d in some])
                tables[name] += [
                    {**known, "kind": kind, "size": size, "label": d.label, "mm2": d.size,
                     "hit": hits[n] if hits else "", **{k: v[n] for k, v in scores.items()}}
                    for n, (kind, size, d) in enumerate(some)
                ]  # fmt: skip
        print(f"  {row_key(row)}: {len(plan)}", flush=True)
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in tables.items():
        write_tsv(
            folder / f"{name}.tsv", rows, list(COLUMNS) + [c for c in rows[0] if c not in COLUMNS]
        )


def scored(
    scorer: MapScores | Baselines, brains: Sequence[Brain], places: Sequence[np.ndarray]
) -> tuple[list[int], dict[str, np.ndarray]]:
    """Score brains: whether the strongest region of each touches its place, and the scores."""
    if isinstance(scorer, Baselines):
        return [], scorer.score(brains)
    hits: list[int] = []

    def on_map(z: Map) -> None:
        found = strongest_regions(z[0], np.eye(4), scorer.THRESHOLD)
        place = places[len(hits)]
        hits.append(int(bool(found) and bool(place[tuple(found[0]["voxels"].T)].any())))

    with torch.autocast("cpu", torch.bfloat16):
        scores = scorer.score(brains, on_map)
    return hits, scores


def fitted(cohort: Cohort, site: str, runs: dict[str, Path]) -> dict[str, MapScores | Baselines]:
    """Scorers of a site: those that need no network, and one a run."""
    train_split = cohort.view(cohort.indices("train"))
    unseen, own = (cohort.view(cohort.indices(split)) for split in ("validation", "test"))
    found: dict[str, MapScores | Baselines] = {
        "void": VoidScores(cohort.scheme, cohort.voxel_size).fit(
            train_split + unseen + own, len(own)
        ),
        "baselines": Baselines(cohort.scheme).fit(train_split),
    }
    for name, path in runs.items():
        evidence = EvidenceScores(RunFolder.open(path).load(CPU), cohort.scheme)
        with torch.autocast("cpu", torch.bfloat16):
            found[name] = evidence.fit(unseen + own, len(own))
    return found


class Remembered(MapScores):
    """Scores of maps that are at hand, as another scorer made them."""

    KINDS = ("component",)

    def __init__(self, like: MapScores, maps: dict[str, Map]) -> None:
        super().__init__()
        self.PREFIX, self.THRESHOLD = like.PREFIX, like.THRESHOLD  # type: ignore[misc]
        own = like.normative
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
    unseen, own = (cohort.view(cohort.indices(split)) for split in ("validation", "test"))
    if not is_network:
        unseen = cohort.view(cohort.indices("train", "validation"))
    both = [*unseen, *own]
    with torch.autocast("cpu", torch.bfloat16):
        raw = scorer.raw_maps(both)
        maps = {row_key(b.row): m[:1] for b, m in zip(both, raw, strict=True)}
    bare = [Brain(np.zeros((1, 1, 1), np.uint8), b.row) for b in both]  # maps stand for volumes
    there, here = bare[: len(unseen)], bare[len(unseen) :]
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
    """Kind, size, family, volume, hit and score of every row."""
    rows = read_tsv(path)
    found = {
        key: np.array([row[key] for row in rows]) for key in ("kind", "size", "family", "volume")
    }
    found["score"] = np.array([float(row[score]) for row in rows])
    found["hit"] = np.array([float(row["hit"] or "nan") for row in rows])
    return found


def measured(
    table: dict[str, np.ndarray], kind: str, sizes: Sequence[str], against: str
) -> np.ndarray:
    """AUROC, hits, and sensitivity at 5 % false alarms of a site; rows of these, bootstrapped.

    No brain is compared with one of its own family: drawn twice, the two would be compared as if
    they were strangers.

    Returns:
        (1 + `BOOTSTRAPS`, 3); the first row is of all families once.
    """
    positive = (table["kind"] == kind) & np.isin(table["size"], sizes)
    negative = table["kind"] == against
    if against != HEALTHY:
        negative &= np.isin(table["size"], sizes)
    families = np.unique(table["family"])
    if not positive.any():
        return np.empty((0, 3))
    high, low = ([np.flatnonzero(rows & (table["family"] == f)) for f in families]
                 for rows in (positive, negative))  # fmt: skip
    scores, pairs = table["score"], np.outer([len(h) for h in high], [len(n) for n in low])
    np.fill_diagonal(pairs, 0)
    wins = np.zeros(pairs.shape)
    for a, b in zip(*np.nonzero(pairs), strict=True):
        wins[a, b] = pairs[a, b] * auroc(scores[high[a]], scores[low[b]])
    rng, rows = np.random.default_rng(0), []
    for n in range(BOOTSTRAPS + 1):
        times = np.ones(len(families), dtype=int)
        if n:
            times = rng.multinomial(len(families), np.full(len(families), 1 / len(families)))
        above, intact = (
            np.concatenate([np.repeat(own, t) for own, t in zip(which, times, strict=True)])
            for which in (high, low)
        )
        if not len(above) or not len(intact) or not times @ pairs @ times:
            continue
        threshold = np.quantile(scores[intact], 1 - ALARM)
        hits = table["hit"][above]
        hit = float(np.nanmean(hits)) if np.isfinite(hits).any() else np.nan
        area = (times @ wins @ times) / (times @ pairs @ times)
        rows.append((area, hit, float((scores[above] > threshold).mean())))
    return np.array(rows)


QUESTIONS = {  # name of the figure: kind, sizes, what it is compared with
    **{f"auroc_{size}": ("fold", (size,), HEALTHY) for size in SIZES},
    **{f"{kind}_{size}": (kind, (size,), HEALTHY)
       for kind in ("interrupt", "displace", "add") for size in ("200", "500", "800")},
    **{f"refill_{size}": ("refill", (size,), "deform") for size in ("200", "500", "800")},
    **{f"{kind}": (kind, ("200", "500", "800"), HEALTHY) for kind in ("scar", "rim", "deform")},
}  # fmt: skip


def summarise(folder: Path, names: dict[str, list[str]]) -> dict[str, float]:
    """Means over sites and seeds of every question, printed."""
    figures: dict[str, float] = {}
    for model, score in (("restorer", "evidence_component"), ("void", "void_component"),
                         ("fewer_voxels", "baseline_fewer_voxels"),
                         ("prevalence", "baseline_prevalence"),
                         ("pca", "baseline_pca_residual")):  # fmt: skip
        print(f"\n{model}: AUROC, hits, sensitivity at 5 % false alarms; then AUROC by site")
        tables = {
            site: [read_scores(folder / site / f"{name}.tsv", score)
                   for name in ([n for n in own if n.startswith("restorer")] if model == "restorer"
                                else ["void" if model == "void" else "baselines"])]
            for site, own in names.items()
        }  # fmt: skip
        for question, (kind, sizes, against) in QUESTIONS.items():
            if kind != "fold" and model not in ("restorer", "void"):
                continue
            by_site = [
                np.mean([measured(table, kind, sizes, against) for table in own], axis=0)
                for own in tables.values()
            ]
            if not all(len(rows) for rows in by_site):
                continue
            over = np.mean([rows[: min(map(len, by_site))] for rows in by_site], axis=0)
            low, high = np.percentile(over[1:], INTERVAL, axis=0)
            print(f"  {question:<16}", *(f"{v:.3f} [{a:.3f}, {b:.3f}]" for v, a, b in
                                        zip(over[0], low, high, strict=True)),
                  " ", *(f"{rows[0, 0]:.2f}" for rows in by_site))  # fmt: skip
            for n, what in enumerate(("auroc", "hit", "found_at_5pct")):
                key = f"{model}_{what}_{question.removeprefix('auroc_')}"
                if np.isfinite(over[0, n]):
                    figures |= {key: over[0, n], f"{key}_low": low[n], f"{key}_high": high[n]}
    return {name: round(float(value), 3) for name, value in figures.items()}


def same_scans(folder: Path, names: dict[str, list[str]]) -> dict[str, float]:
    """Difference of the scores of two copies of a scan, in standard deviations over people."""
    figures = {}
    for model, score in (("restorer-0", "evidence_component"), ("void", "void_component")):
        apart = []
        for site in names:
            table = read_scores(folder / site / f"{model}.tsv", score)
            intact = table["kind"] == HEALTHY
            values, families = np.log1p(table["score"][intact]), table["family"][intact]
            sides = np.array([v[-1] for v in table["volume"][intact]])
            for family in {f for f in families if f.startswith("family ")}:
                for side in "LR":
                    pair = values[(families == family) & (sides == side)]
                    if len(pair) == 2:
                        apart.append(abs(pair[0] - pair[1]) / values.std())
        if apart:
            figures[f"same_scan_{model.removesuffix('-0')}"] = round(float(np.median(apart)), 3)
    return figures


def scored_sites(arguments: argparse.Namespace, cohort: Cohort, folder: Path) -> dict[str, list]:
    """Train and score every site; names of the scorers by site."""
    names: dict[str, list[str]] = {}
    for site in arguments.sites:
        own = left_out(cohort, site, folder / site / "cohort")
        runs = {f"restorer-{seed}": folder / site / f"run-{seed}" for seed in arguments.seeds}
        for seed, path in zip(arguments.seeds, runs.values(), strict=True):
            train(own, path, seed, arguments.steps)
        if arguments.only == "train":
            continue
        print(f"{site}: {len(own.indices('test'))} hemispheres", flush=True)
        names[site] = ["void", "baselines", *runs]
        if not all((folder / site / f"{name}.tsv").is_file() for name in names[site]):
            score_site(own, fitted(own, site, runs), folder / site, arguments.per_bin)
        alarms = folder / site / "false_alarms.json"
        if not alarms.is_file():
            first = dict(list(runs.items())[:1])
            found = {
                name.partition("-")[0]: false_alarms(own, scorer, is_network=name != "void")
                for name, scorer in fitted(own, site, first).items()
                if isinstance(scorer, MapScores)
            }
            write_json(alarms, found)
    return names


def mean_alarms(folder: Path, names: dict[str, list]) -> dict[str, float]:
    """Share of healthy brains called unusual, by number of controls; printed by site."""
    every = {site: read_json(folder / site / "false_alarms.json") for site in names}
    figures = {}
    for model in next(iter(every.values())):
        for number in ("none", *map(str, CONTROLS)):
            known = {
                site: own[model][number] for site, own in every.items() if number in own[model]
            }
            print(f"p < {ALARM:g} of healthy brains by {model}, {number} controls:", known)
            if known:
                mean = round(float(np.mean(list(known.values()))), 3)
                figures[f"{model}_false_alarm_5pct_{number}_controls"] = mean
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path, metavar="DATA")
    parser.add_argument("out", type=Path, metavar="OUT", help="folder that keeps everything")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=1400, help="of each training")
    parser.add_argument("--sites", nargs="+", choices=SITES, default=list(SITES))
    parser.add_argument("--per-bin", type=int, help="erased folds of each size and hemisphere")
    parser.add_argument("--only", choices=("train", "score"), help="stop after this")
    arguments = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "2")))
    out = arguments.out.absolute()
    if not (out / "2mm" / "volumes.npy").is_file():
        make(arguments.data.absolute(), out, sizes=("2mm",))
    folder = out / "anomaly"
    names = scored_sites(arguments, Cohort.open(out / "2mm"), folder)
    if arguments.only:
        return
    figures = {**summarise(folder, names), **mean_alarms(folder, names)}
    figures |= same_scans(folder, names)
    runs = (folder / site / f"run-{seed}" for site in names for seed in arguments.seeds)
    costs = [read_json(run_folder / "cost.json")["seconds"] / 60 for run_folder in runs]
    figures["minutes_of_training"] = round(float(np.median(costs)), 1)
    write_figures(folder / "figures.json", figures)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
