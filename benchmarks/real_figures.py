"""Figures of `anomaly_real.py`: AUROC, hits and sensitivity by size, means over sites and seeds."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from anomaly_statistics import auroc
from real_alterations import HEALTHY, LARGE, SHAM, SIZES
from real_scorers import ALARM, CONTROLS, read_scores

from foldnorm.pipeline.metrics.bootstrap import INTERVAL, bootstrap_interval, drawn_weights
from foldnorm.preprocessing.core.files import read_json

BOOTSTRAPS = 500
WHAT = ("auroc", "hit", "found_at_5pct")
QUESTIONS = {  # name of the figure: kind, sizes, what it is compared with
    **{f"auroc_{size}": ("fold", (size,), HEALTHY) for size in SIZES},
    **{f"{kind}_{size}": (kind, (size,), HEALTHY)
       for kind in ("interrupt", "displace", "add") for size in LARGE},
    **{f"refill_{size}": ("refill", (size,), "deform") for size in LARGE},
    **{kind: (kind, LARGE, HEALTHY) for kind in ("scar", "rim", "deform")},
    SHAM: (SHAM, ("0",), HEALTHY),
}  # fmt: skip
# Name in the figures: the model, the score, and whether it is asked about more than erased folds.
SCORES = {
    "restorer": ("restorer", "evidence_component", True),
    "void": ("void", "void_component", True),
    "fewer_voxels": ("baselines", "baseline_fewer_voxels", False),
    "prevalence": ("baselines", "baseline_prevalence", False),
    "pca": ("baselines", "baseline_pca_residual", False),
    **{
        f"{model}_{name}": (model, score, False)
        for model in ("hypersphere_classifier", "beta_vae", "wgan_gp", "thin_wgan_gp")
        for name, score in (
            ("latent_map", "latent_map_component"),
            ("latent_distance", "latent_centre"),
            ("latent_knn", "latent_knn"),
            ("reconstruction", "reconstruction_missing_local"),
        )
        if not (model.startswith("hyper") and name == "reconstruction")
    },
}


def auroc_by_size(table: Mapping[str, np.ndarray], name: str) -> dict[str, float]:
    """AUROC of brains without a fold of each size against intact ones, with its interval.

    Args:
        table: of a site, see `real_scorers.read_scores`.
        name: that keys begin with.
    """
    found = {}
    for size in LARGE:
        rows = measured(table, "fold", (size,), HEALTHY)
        low, high = np.percentile(rows[1:, 0], (2.5, 97.5))
        key = f"{name}_auroc_{size}"
        found |= {key: rows[0, 0], f"{key}_low": low, f"{key}_high": high}
    return found


def measured(
    table: Mapping[str, np.ndarray], kind: str, sizes: Sequence[str], against: str
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
    rows = []
    for weights in (np.ones(len(families)), *drawn_weights(families, BOOTSTRAPS)):
        times = weights.astype(int)
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


def summarise(
    folder: Path, names: Mapping[str, Sequence[str]], *, suffix: str = ""
) -> dict[str, float]:
    """Means over sites and seeds of every question, printed; hits are those of the first maps.

    Args:
        folder: of all sites.
        names: of the tables of each site.
        suffix: of the runs that are asked about, see `Run`; none for those of all hemispheres.
    """
    figures: dict[str, float] = {}
    for title, (model, score, asks_all) in SCORES.items():
        tables = {
            site: [read_scores(folder / site / f"{name}.tsv", score) for name in own
                   if _is_of(name, model, suffix)]
            for site, own in names.items()
        }  # fmt: skip
        if not all(tables.values()):
            continue
        print(f"\n{title}{suffix}: AUROC, hits, sensitivity at 5 % false alarms; AUROC by site")
        for question, (kind, sizes, against) in QUESTIONS.items():
            if kind not in ("fold", SHAM) and not asks_all:
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
            of_seeds = [
                np.mean([measured(own[n], kind, sizes, against)[0, 0] for own in tables.values()])
                for n in range(min(map(len, tables.values())))
            ]
            asked = question.removeprefix("auroc_")
            if len(of_seeds) > 1:
                figures[f"{title}_auroc_{asked}{suffix}_sd_of_seeds"] = float(np.std(of_seeds))
            for n, what in enumerate(WHAT):
                key = f"{title}_{what}_{asked}{suffix}"
                if what == "hit" and not score.endswith("_component"):
                    continue  # of the map, which this score does not look at
                if np.isfinite(over[0, n]):
                    figures |= {key: over[0, n], f"{key}_low": low[n], f"{key}_high": high[n]}
    return {name: round(float(value), 3) for name, value in figures.items()}


def _is_of(name: str, model: str, suffix: str) -> bool:
    """Say if a table is of a model: of any seed, if it was trained."""
    trained, _, seed = name.partition("-")
    return trained == model and seed.lstrip("0123456789") == suffix


def region_sizes(
    folder: Path, names: Mapping[str, Sequence[str]], *, suffix: str = ""
) -> dict[str, float]:
    """Median size of the strongest region, and share of it at the erased fold, where it touches it.

    Over the hemispheres of all sites and all seeds; intervals draw families. Arguments are those of
    `summarise`.
    """
    figures = {}
    for title in ("restorer", "void"):
        model, score, _ = SCORES[title]
        tables = [read_scores(folder / site / f"{name}.tsv", score) for site, own in names.items()
                  for name in own if _is_of(name, model, suffix)]  # fmt: skip
        for size, what in ((size, what) for size in SIZES for what in ("cm3", "near") if tables):
            chosen = [(t["kind"] == "fold") & (t["size"] == size) & (t["hit"] == 1)
                      for t in tables]  # fmt: skip
            values = np.concatenate([t[what][c] for t, c in zip(tables, chosen, strict=True)])
            owners = np.concatenate([t["family"][c] for t, c in zip(tables, chosen, strict=True)])
            if not np.isfinite(values).all() or not len(values):
                continue  # scored before sizes were kept

            def median(weights: np.ndarray, values: np.ndarray = values) -> float:
                return float(np.median(np.repeat(values, weights.astype(int))))

            low, high = bootstrap_interval(median, owners, BOOTSTRAPS)
            key = f"{title}_region_{what}_{size}{suffix}"
            figures |= {key: float(np.median(values)), f"{key}_low": low, f"{key}_high": high}
            print(f"{key} {np.median(values):.2f} [{low:.2f}, {high:.2f}]")
    return {name: round(float(value), 3) for name, value in figures.items()}


def same_scans(folder: Path, names: Mapping[str, Sequence[str]]) -> dict[str, float]:
    """Difference of the scores of two copies of a scan, in standard deviations over people."""
    figures = {}
    for title in ("restorer", "void"):
        model, score, _ = SCORES[title]
        apart = []
        for site, tables in names.items():
            for name in (n for n in tables if n == model or n.startswith(f"{model}-")):
                table = read_scores(folder / site / f"{name}.tsv", score)
                intact = table["kind"] == HEALTHY
                values, families = np.log1p(table["score"][intact]), table["family"][intact]
                sides = np.array([v[-1] for v in table["volume"][intact]])
                for family in {f for f in families if f.startswith("family ")}:
                    for side in "LR":
                        pair = values[(families == family) & (sides == side)]
                        if len(pair) == 2:
                            apart.append(abs(pair[0] - pair[1]) / values.std())
        if apart:
            figures[f"same_scan_{title}"] = round(float(np.median(apart)), 3)
    return figures


def mean_alarms(folder: Path, names: Mapping[str, Sequence[str]]) -> dict[str, float]:
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
