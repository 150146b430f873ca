"""Find the missing fold: deleted folds and truly absent sulci on phantoms, by score and size.

1. Phantoms of 80 mm around the superior temporal branches: 455 to train, 185 for validation (half
   to compare with, half to calibrate), 600 others to test (300 altered, 300 controls). Restorers
   at 1 mm, trained on erased folds (the kind that the benchmark deletes) and on slabs
   (another kind); a hypersphere classifier. AUROC by size with the size-0 control, false alarms at
   p < 0.05, and where the evidence points.
2. Recognition at 2 mm: 450 phantoms in which a sulcus never formed and its neighbours fill the
   place, those of them where it would have over 500 mm² in the crop; controls are healthy phantoms
   of others. AUROC, the sulcus named first, a given one, the panel of size-stable ones, Dice; the
   same for sulci erased, interrupted, displaced and added, per sulcus; and what restorers see of
   absent ones.

OUT keeps everything; what is there is not made again, so that --seeds can be given one at a time,
and --only train stops before the tests. Scores and settings were fixed on validation brains. Ends
with one line of JSON.
"""

import argparse
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import binom

from foldnorm.pipeline.benchmark import LOCALISATION, SUBJECTS, TABLE
from foldnorm.pipeline.class_metrics import sulcus_dice
from foldnorm.pipeline.cli import main as foldnorm
from foldnorm.pipeline.detection_metrics import INTERVAL
from foldnorm.pipeline.evidence_maps import regions
from foldnorm.pipeline.recognition_scores import RecognitionScores
from foldnorm.pipeline.run_folder import RunFolder
from foldnorm.pipeline.scorer import held_out_halves
from foldnorm.pipeline.scoring_setup import set_up_scoring
from foldnorm.pipeline.sulci import NamedVolumes, names_of, sulcus_voxels
from foldnorm.pipeline.sulcus_measures import AtlasTemplate, Recognition
from foldnorm.preprocessing.cohort import Cohort, row_key
from foldnorm.preprocessing.files import read_json, read_tsv

CROP = ["--crop", "mm:-76,4,-70,10,-40,40"]
FIRST_TEST, TESTED, ABSENT_FROM, EACH = 10000, 600, 10300, 45
SIZES = ["200", "500", "800"]
# Those that have over 500 mm² of the crop in many phantoms.
SULCI = ["calcarine", "callosal", "central", "collateral", "inferior_temporal", "intraparietal",
         "lateral_fissure", "parieto_occipital", "postcentral", "superior_temporal"]  # fmt: skip
# What is done to a sulcus, and by which of its departures that is looked for.
VARIANTS = {"absent": "missing", "erased": "missing", "interrupted": "interrupted",
            "displaced": "displaced", "added": "large"}  # fmt: skip
LEAST = 500  # mm² that the healthy phantom has of a sulcus for its absence to count
OTHER = "[slabs]"
MODELS: dict[str, tuple[str, list[str]]] = {  # cohort, words of `train`
    "folds": ("c1", ["--config", "restorer"]),
    "other": ("c1", ["--config", "restorer", "--model.init_args.edits", OTHER]),
    "latent": ("c1", ["--config", "hypersphere_classifier"]),
    "sulci": ("c2", ["--config", "recogniser"]),
}
# Settled on validation brains: the score that stands for each model in the JSON.
SCORE = {"folds": "evidence_pooled", "other": "evidence_pooled", "latent": "latent_centre"}
BASELINE = "baseline_pca_residual"
BOOTSTRAPS = 1000


def run(*words: object) -> None:
    code = foldnorm([*map(str, words), "--quiet"])
    assert code == 0, (code, words)


def prepare(out: Path) -> None:
    """Phantoms, and cohorts of them at 1 and 2 mm."""
    number = ABSENT_FROM - FIRST_TEST + EACH * len(SULCI)
    for folder, first, subjects in (("phantoms", 0, 640), ("test", FIRST_TEST, number)):
        if not (out / "t2/volumes.npy").is_file():
            run("phantom", out / folder, "--first", first, "--subjects", subjects)
    for size in (1, 2):
        like = ["--like", out / f"c{size}", "--split", 0, 0, 1]
        if not (out / f"t{size}/volumes.npy").is_file():
            run("preprocess", out / "phantoms", out / f"c{size}", "--voxel-size", size,
                "--split", ".68", ".32", "0", *CROP)  # fmt: skip
            run("preprocess", out / "test", out / f"t{size}", *like)
        for kind in VARIANTS:
            if (out / f"{kind}{size}/volumes.npy").is_file() or (size == 1 and kind != "absent"):
                continue
            trees = [out / kind / sulcus for sulcus in SULCI]
            for n, (tree, sulcus) in enumerate(zip(trees, SULCI, strict=True)):
                run("phantom", tree, "--first", ABSENT_FROM + EACH * n, "--subjects", EACH,
                    "--variant", f"{kind}:{sulcus}")  # fmt: skip
            run("preprocess", *trees, out / f"{kind}{size}", *like)


def train(out: Path, seed: int, steps: int | None) -> None:
    for name, (cohort, words) in MODELS.items():
        folder = run_folder(out, name, seed)
        if not (folder / "cost.json").is_file():
            more = [] if steps is None else ["--training.steps", steps]
            run("train", *words, "--cohort", out / cohort, "--out", folder, "--seed", seed,
                "--resume", "auto", "--device", "cpu", *more)  # fmt: skip
        cost = read_json(folder / "cost.json")
        print(f"{name} seed {seed}: {cost['seconds'] / 60:.1f} min", flush=True)


def run_folder(out: Path, name: str, seed: int) -> Path:
    return out / "runs" / f"{name}-{seed}"


def deletions(out: Path, name: str, seed: int) -> dict[str, Any]:
    """The deletion benchmark of one model: what its tables say."""
    folder, cohort = out / "results" / f"{name}-{seed}", MODELS[name][0]
    first = [row["participant_id"] for row in Cohort.open(out / f"t{cohort[1]}").rows][:TESTED]
    test = out / f"test{cohort[1]}"
    if not (test / "volumes.npy").is_file():
        run("preprocess", out / "test", test, "--like", out / cohort, "--split", 0, 0, 1,
            "--participant-label", *first)  # fmt: skip
    if not (folder / TABLE).is_file():
        run("benchmark", run_folder(out, name, seed), test, folder, "--sizes", *SIZES,
            "--draws", 1, "--seed", seed, "--reference", out / cohort, "--device", "cpu",
            "--overwrite")  # fmt: skip
    return {
        "table": read_tsv(folder / TABLE),
        "subjects": read_tsv(folder / SUBJECTS),
        "places": read_tsv(folder / LOCALISATION) if (folder / LOCALISATION).is_file() else [],
    }


def pooled_auroc(results: list[dict[str, Any]], score: str, size: str) -> list[float]:
    """AUROC averaged over seeds, with its interval over subjects (and the seeds' own draws)."""
    rng = np.random.default_rng(0)
    groups = []
    for result in results:
        rows = [row for row in result["subjects"] if row["size"] == size]
        values = np.array([float(row[score]) for row in rows])
        altered = np.array([row["altered"] == "1" for row in rows])
        groups.append((values[altered], values[~altered]))
    point = np.mean([auroc(*group) for group in groups])
    drawn = [
        np.mean([auroc(rng.choice(a, len(a)), rng.choice(b, len(b))) for a, b in groups])
        for _ in range(BOOTSTRAPS)
    ]
    # Seeds share their test brains, so they are not independent: the interval is that of one.
    spread = (np.percentile(drawn, INTERVAL) - point) * np.sqrt(len(groups))
    return [float(point), float(point + spread[0]), float(point + spread[1])]


def auroc(positive: np.ndarray, negative: np.ndarray) -> float:
    order = np.sort(negative)
    below = np.searchsorted(order, positive, "left")
    ties = np.searchsorted(order, positive, "right") - below
    return float((below + 0.5 * ties).mean() / len(negative))


def interval_of(values: np.ndarray) -> list[float]:
    """Mean over brains, with its bootstrap interval."""
    rng = np.random.default_rng(0)
    drawn = [rng.choice(values, len(values)).mean() for _ in range(BOOTSTRAPS)]
    return [float(values.mean()), *map(float, np.percentile(drawn, INTERVAL))]


def _false_alarm(result: dict[str, Any], score: str) -> float:
    (row,) = [r for r in result["table"] if r["score"] == score and r["size"] == "0"]
    return float(row["false_alarm"])


def report_deletions(out: Path, seeds: list[int]) -> dict[str, list[float]]:
    """Print every score of every model; returns the figures for the JSON."""
    figures: dict[str, list[float]] = {}
    for name in ("folds", "other", "latent"):
        results = [deletions(out, name, seed) for seed in seeds]
        scores = list(dict.fromkeys(row["score"] for row in results[0]["table"]))
        print(f"\n{name}: AUROC by size, {len(seeds)} seeds")
        for score in scores:
            found = [pooled_auroc(results, score, size) for size in ("0", *SIZES)]
            print(f"  {score:<28}", *(f"{a:.3f} [{b:.3f}, {c:.3f}]" for a, b, c in found))
            prefix = {"folds": "evidence_same", "other": "evidence_other"}.get(name, name)
            if score == SCORE[name]:
                figures |= {f"{prefix}_{s}": f for s, f in zip(SIZES, found[1:], strict=True)}
                if name == "folds":
                    figures["control"] = found[0]
            if score == BASELINE and name == "folds":
                figures |= {f"baseline_{s}": f for s, f in zip(SIZES, found[1:], strict=True)}
        alarms = float(np.mean([_false_alarm(result, SCORE[name]) for result in results]))
        low, high = (float(binom.ppf(q, TESTED, alarms)) / TESTED for q in (0.025, 0.975))
        figures[f"{name}_false_alarm"] = [alarms, low, high]
        print(f"  false alarms at p < 0.05: {alarms:.3f} [{low:.3f}, {high:.3f}]")
        places = [row for result in results for row in result["places"]]
        for size in SIZES if places else []:
            rows = [row for row in places if row["size"] == size]
            hit = np.array([float(row["hit"]) for row in rows])
            dice = np.mean([float(row["dice"]) for row in rows])
            error = np.median([float(r["error_mm"]) for r in rows if r["error_mm"] != "n/a"])
            shown = interval_of(hit)
            print(f"  > {size}: top region hits {shown[0]:.3f} [{shown[1]:.3f}, {shown[2]:.3f}], "
                  f"Dice {dice:.2f}, error {error:.1f} mm")  # fmt: skip
            figures[f"localised_{size}" + ("" if name == "folds" else f"_{name}")] = shown
    figures["false_alarm_5pct"] = figures.pop("folds_false_alarm")
    return figures


def altered_brains(out: Path, kind: str) -> Iterator[tuple[int, str]]:
    """Row in the cohort of a kind, and the sulcus, where it counts."""
    altered, healthy = Cohort.open(out / f"{kind}2"), Cohort.open(out / "t1")
    sizes = sulcus_voxels(healthy)
    for n, row in enumerate(altered.rows):
        sulcus = row["variant"].split(":")[1]
        if sizes[row_key(row)].get(sulcus, 0) > LEAST:
            yield n, sulcus


def recognition(out: Path, seed: int) -> dict[str, Any]:
    """Departures of sulci in altered and healthy brains, by the model and by the atlas."""
    path = out / "results" / f"sulci-{seed}.npz"
    healthy = Cohort.open(out / "t2")
    own = RunFolder.open(run_folder(out, "sulci", seed))
    if not path.is_file():
        reference = own.training_cohort(out / "c2")
        model = Recognition(own.load(torch.device("cpu")), reference.scheme)
        compared, _ = held_out_halves(reference)
        kept: dict[str, Any] = {}
        controls = list(range(ABSENT_FROM - FIRST_TEST))  # no one of whom is altered
        for who, names in (("model", model), ("atlas", AtlasTemplate(reference, model.sulci))):
            scores = RecognitionScores(names, reference.affine)
            scores.fit(lambda: reference.brains(compared))
            kept[f"{who}_panel"] = scores.panel
            groups = {"healthy": (healthy, controls)}
            for kind in VARIANTS:
                rows = [n for n, _ in altered_brains(out, kind)]
                groups[kind] = Cohort.open(out / f"{kind}2"), rows
            for group, (cohort, rows) in groups.items():
                measures = scores.measures(lambda c=cohort, r=rows: c.brains(r))  # type: ignore[misc]
                for departure, z in scores.departures(measures).items():
                    kept[f"{who}_{group}_{departure}"] = z
        named = NamedVolumes(healthy, model.sulci)
        brains = model.named(lambda: healthy.brains(controls))
        kept["dice"] = np.array(
            [
                sulcus_dice(brain.labels, names_of(named[n]), len(model.sulci))
                for n, brain in zip(controls, brains, strict=True)
            ]
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez(path, **kept)
    sulci = list(own.config["model"]["init_args"]["sulci"])
    truth = {k: [sulci.index(s) for _, s in altered_brains(out, k)] for k in VARIANTS}
    return {**np.load(path), "sulci": sulci, "truth": truth}


def report_recognition(out: Path, seeds: list[int]) -> dict[str, list[float]]:
    """Print what becomes of altered sulci; returns the figures for the JSON."""
    figures: dict[str, list[float]] = {}
    results = [recognition(out, seed) for seed in seeds]
    for who in ("model", "atlas"):
        for kind in VARIANTS:
            for panel in (False, True) if kind in ("absent", "erased") else (False,):
                found = [found_of(result, who, kind, panel=panel) for result in results]
                mean = {key: np.mean([f[key] for f in found], axis=0).tolist() for key in found[0]}
                number = int(mean.pop("n")[0])
                label = f"{who}, {kind}{', panel' if panel else ''}, {number} brains"
                shown = [f"{k} {v[0]:.3f} [{v[1]:.3f}, {v[2]:.3f}]" for k, v in mean.items()]
                print(f"{label:<36}", *shown)
                if who == "model" and kind == "absent":
                    end = "_panel" if panel else ""
                    names = {"500": "AUROC", "named": "named", "given": "given"}
                    figures |= {f"absent_{n}{end}": mean[key] for n, key in names.items()}
    print("each sulcus alone, AUROC:", *VARIANTS)
    for n, sulcus in enumerate(results[0]["sulci"]):
        shown = [np.mean([alone(result, kind, n) for result in results]) for kind in VARIANTS]
        if not np.isnan(shown).all():
            print(f"  {sulcus:<36}", *(f"{value:.2f}" for value in shown))
    dice = np.nanmean([np.nanmean(result["dice"], axis=1) for result in results], axis=0)
    figures["recognition_dice"] = interval_of(dice)
    print(f"Dice of sulci, healthy test brains: {np.mean(dice):.3f}")
    return figures


def alone(result: dict[str, Any], kind: str, sulcus: int) -> float:
    """AUROC of one sulcus, asked about by its name; NaN where it is never altered so."""
    z, low = (result[f"model_{group}_{VARIANTS[kind]}"][:, sulcus] for group in (kind, "healthy"))
    own = np.array(result["truth"][kind]) == sulcus
    return auroc(z[own], low) if own.any() else float("nan")


def found_of(result: dict[str, Any], who: str, kind: str, *, panel: bool) -> dict[str, list[float]]:
    """Whether altered brains stand out, and whether their sulcus is the one that does."""
    columns = np.flatnonzero(result[f"{who}_panel"]) if panel else np.arange(len(result["sulci"]))
    truth, departure = np.array(result["truth"][kind]), VARIANTS[kind]
    counted = np.isin(truth, columns)
    altered = result[f"{who}_{kind}_{departure}"][counted][:, columns]
    healthy = result[f"{who}_healthy_{departure}"][:, columns]
    place = np.searchsorted(columns, truth[counted])
    rank = np.argsort(-altered, axis=1)
    given = [(healthy[:, t] < z[t]).mean() for z, t in zip(altered, place, strict=True)]
    top, low = altered.max(axis=1), healthy.max(axis=1)
    rng = np.random.default_rng(0)
    drawn = [auroc(rng.choice(top, len(top)), rng.choice(low, len(low))) for _ in range(BOOTSTRAPS)]
    return {
        "n": [float(counted.sum())],
        "AUROC": [auroc(top, low), *map(float, np.percentile(drawn, INTERVAL))],
        "named": interval_of((rank[:, 0] == place).astype(float)),
        "among three": interval_of((rank[:, :3] == place[:, None]).any(axis=1).astype(float)),
        "given": interval_of(np.array(given)),
    }


def report_restored(out: Path, seeds: list[int]) -> None:
    """Print what restorers see of absent sulci: voids are what they look for."""
    healthy, absent = Cohort.open(out / "t1"), Cohort.open(out / "absent1")
    rows = [n for n, _ in altered_brains(out, "absent")]
    controls = range(ABSENT_FROM - FIRST_TEST)  # no one of whom is altered
    found = []
    for seed in seeds:
        setup = set_up_scoring(run_folder(out, "folds", seed), out / "t1", out / "c1", "cpu")
        low = setup.scorer.score(lambda: healthy.brains(controls))
        high = setup.scorer.score(lambda: absent.brains(rows))
        found.append({name: auroc(high[name], low[name]) for name in low})
    print("\nabsent sulci by restorers, AUROC")
    for name in found[0]:
        print(f"  {name:<28} {np.mean([f[name] for f in found]):.3f}")


def cost(out: Path, brains: int = 20) -> float:
    """Seconds for one crop of 80³ on one core after loading: all scores, maps and regions."""
    torch.set_num_threads(1)
    setup = set_up_scoring(run_folder(out, "folds", 0), out / "t1", out / "c1", "cpu")
    scorer, cohort = setup.scorer, setup.cohort
    assert scorer.evidence is not None
    times = []
    for first in range(0, brains, 4):
        begin = time.perf_counter()
        four = range(first, first + 4)
        scorer.score(lambda four=four: cohort.brains(four))  # type: ignore[misc]
        for maps in scorer.evidence.maps(lambda four=four: cohort.brains(four)):  # type: ignore[misc]
            regions(maps[0], cohort.affine)
        times.append((time.perf_counter() - begin) / 4)
    seconds = float(np.median(times))
    print(f"one crop of 80³, all scores, maps and regions: {seconds:.2f} s on one core")
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--steps", type=int, help="of every training, instead of its own")
    parser.add_argument("--only", choices=("train",), help="stop before the tests")
    arguments = parser.parse_args()
    prepare(arguments.out)
    for seed in arguments.seeds:
        train(arguments.out, seed, arguments.steps)
    if arguments.only:
        return
    figures = report_deletions(arguments.out, arguments.seeds)
    figures |= report_recognition(arguments.out, arguments.seeds)
    report_restored(arguments.out, arguments.seeds)
    flat = {"seconds_per_crop": cost(arguments.out)}
    for name, (point, low, high) in figures.items():
        flat |= {name: point, f"{name}_low": low, f"{name}_high": high}
    print(json.dumps({name: round(value, 4) for name, value in flat.items()}))


if __name__ == "__main__":
    main()
