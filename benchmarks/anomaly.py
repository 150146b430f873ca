"""Find the missing fold: deleted folds and truly absent sulci on phantoms, by score and size.

1. Phantoms of 80 mm around the superior temporal branches: 455 to train, 185 for validation (half
   to compare with, half to calibrate), 600 others to test (300 altered, 300 controls). Restorers
   at 1 mm, trained on erased folds (the kind that the benchmark deletes) and on slabs
   (another kind); a hypersphere classifier; and at 2 mm (40³) β-VAE and WGAN-GP, plain and with the
   classifier's loss joined to theirs. AUROC by size with the size-0 control, false alarms at
   p < 0.05, where the evidence points, and how well validation brains are brought back.
2. Recognition at 2 mm: 450 phantoms in which a sulcus never formed and its neighbours fill the
   place, those of them where it would have over 500 mm² in the crop; controls are healthy phantoms
   of others. AUROC, the sulcus named first, a given one, the panel of size-stable ones, Dice; the
   same for sulci erased, interrupted, displaced and added, per sulcus; and what restorers see of
   absent ones. The same for whole hemispheres, with three sulci more, one seed.
3. Folds added, seen by a restorer that learned of added folds too; crops from elsewhere, by the
   joined β-VAE.

OUT keeps everything; what is there is not made again, so that --seeds can be given one at a time,
and --only train stops before the tests. With --models, only these of part 1, on the test phantoms
that it needs (in an OUT of its own). Scores and settings were fixed on validation brains. Ends
with one line of JSON, which OUT/figures.json holds.
"""

import argparse
import json
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from anomaly_recognition import (
    ABSENT_FROM,
    CONTROLS,
    CROP,
    EACH,
    EACH_OTHER,
    FIRST_TEST,
    HEMISPHERE,
    OUTSIDE_THE_CROP,
    SULCI,
    altered_brains,
    recognition,
    report_recognition,
)
from anomaly_statistics import BOOTSTRAPS, INTERVAL, auroc, interval_of
from figures import write_figures
from scipy.stats import binom
from tables import of_training

from foldnorm.pipeline.artifacts import BENCHMARK, BENCHMARK_SUBJECTS, LOCALISATION
from foldnorm.pipeline.cli import main as foldnorm
from foldnorm.pipeline.scoring.brain_scores import BrainScores
from foldnorm.pipeline.scoring.latent_distance import conformal_p
from foldnorm.pipeline.scoring.out_of_distribution import OutOfDistributionDetector
from foldnorm.pipeline.scoring.regions import strongest_regions
from foldnorm.pipeline.scoring.setup import set_up_scoring
from foldnorm.preprocessing.alteration.alteration import alter
from foldnorm.preprocessing.alteration.deletion import SizeRange
from foldnorm.preprocessing.cohort.cohort import Brain, Cohort
from foldnorm.preprocessing.core.files import read_json, read_tsv

BOX = ["--crop", "mm:-76,4,-70,10,-40,40"]
COHORTS = {"1": ["--voxel-size", "1", *BOX], "2": ["--voxel-size", "2", *BOX],
           "h": ["--voxel-size", "2"]}  # fmt: skip
TRAINED, TESTED = 640, 600  # phantoms; of the former a third validates
SIZES = ["200", "500", "800"]
OTHER, BOTH = "[slabs]", "[folds, copies]"
CLASSIFIER = ["hypersphere_classifier"]
VAE = ["beta_vae", "--training.steps", "1500"]
GAN = ["wgan_gp", "--training.steps", "200"]
MODELS: dict[str, tuple[str, list[str]]] = {  # cohort, words of `train`
    "folds": ("c1", ["restorer"]),
    "other": ("c1", ["restorer", "--model.init_args.edits", OTHER]),
    "latent": ("c1", CLASSIFIER),
    "vae": ("c2", VAE),
    "gan": ("c2", GAN),
    "joined": ("c2", [*VAE, "--model.init_args.edits", "[folds]"]),
    "joined_other": ("c2", [*VAE, "--model.init_args.edits", OTHER]),
    "joined_gan": ("c2", [*GAN, "--model.init_args.edits", "[folds]"]),
    "vae_distance": ("c2", [*VAE, "--model.init_args.encoder_input", "distance"]),
    "latent_other": ("c1", [*CLASSIFIER, "--model.init_args.edits", OTHER]),
    "both": ("c1", ["restorer", "--model.init_args.edits", BOTH]),
    "sulci": ("c2", ["sulcus_segmenter"]),
    "hemisphere": ("ch", ["sulcus_segmenter", "--training.batch_size", "2"]),
}
# Models of other questions, for which one seed is enough.
ONCE = ("vae", "gan", "vae_distance", "latent_other", "both", "hemisphere")
# Settled on validation brains: the score that stands for each model in the JSON.
SCORE = {
    "folds": "evidence_pooled",
    "other": "evidence_pooled",
    "latent": "latent_centre",
    "vae": "latent_one_class",
    "gan": "latent_one_class",
    "joined": "latent_one_class",
    "joined_other": "latent_one_class",
    "joined_gan": "latent_one_class",
    "vae_distance": "latent_one_class",
    "latent_other": "latent_centre",
}
BASELINE = "baseline_pca_residual"


def run(*words: object) -> None:
    code = foldnorm([*map(str, words), "--quiet"])
    assert code == 0, (code, words)


def prepare_deletions(out: Path, models: Iterable[str]) -> None:
    """Phantoms to train and to test these models of part 1, and cohorts of them."""
    ends = sorted({MODELS[name][0][1] for name in models})
    if not all((out / f"t{end}/volumes.npy").is_file() for end in ends):
        run("phantom", "-o", out / "phantoms", "--first", 0, "--subjects", TRAINED)
        run("phantom", "-o", out / "test", "--first", FIRST_TEST, "--subjects", TESTED)
    for end in ends:
        prepare_cohorts(out, end, COHORTS[end])


def prepare_cohorts(out: Path, end: str, words: list[str]) -> list[object]:
    """Training and test cohorts of one layout, if they are not there; words to lay out others."""
    like = ["--layout-from", out / f"c{end}", "--split-fractions", 0, 0, 1]
    if not (out / f"t{end}/volumes.npy").is_file():
        run("preprocess", out / "phantoms", "-o", out / f"c{end}",
            "--split-fractions", ".68", ".32", "0", *words)  # fmt: skip
        run("preprocess", out / "test", "-o", out / f"t{end}", *like)
    return like


def prepare(out: Path) -> None:
    """Phantoms, and cohorts of them: the crop at 1 and 2 mm, whole hemispheres at 2 mm."""
    number = ABSENT_FROM - FIRST_TEST + EACH * len(SULCI)
    more = EACH * len(OUTSIDE_THE_CROP)
    trees = {"phantoms": (0, TRAINED), "test": (FIRST_TEST, number),
             "extra": (FIRST_TEST + number, more)}  # fmt: skip
    if not (out / "absenth/volumes.npy").is_file():
        for tree, (first, subjects) in trees.items():
            run("phantom", "-o", out / tree, "--first", first, "--subjects", subjects)
    for end, words in COHORTS.items():
        like = prepare_cohorts(out, end, words)
        sulci = SULCI + (OUTSIDE_THE_CROP if end == HEMISPHERE.end else [])
        for kind in CROP.kinds if end == CROP.end else ("absent",):
            if (out / f"{kind}{end}/volumes.npy").is_file():
                continue
            for n, sulcus in enumerate(sulci):
                subjects = EACH if kind == "absent" else EACH_OTHER
                run("phantom", "-o", out / kind / sulcus, "--first", ABSENT_FROM + EACH * n,
                    "--subjects", subjects, "--variant", f"{kind}:{sulcus}")  # fmt: skip
            run("preprocess", *(out / kind / s for s in sulci), "-o", out / f"{kind}{end}", *like)


def train(out: Path, seed: int, steps: int | None, models: Iterable[str] = tuple(MODELS)) -> None:
    for name in models:
        cohort, words = MODELS[name]
        if seed and name in ONCE:
            continue
        folder = run_folder(out, name, seed)
        if not (folder / "cost.json").is_file():
            more = [] if steps is None else ["--training.steps", steps]
            run("train", *words, out / cohort, "-o", folder, "--seed", seed,
                "--resume", "auto", "--device", "cpu", *more)  # fmt: skip
        cost = read_json(folder / "cost.json")
        print(f"{name} seed {seed}: {cost['seconds'] / 60:.1f} min", flush=True)


def run_folder(out: Path, name: str, seed: int) -> Path:
    return out / "runs" / f"{name}-{seed}"


def deletions(out: Path, name: str, seed: int, kind: str = "fold") -> dict[str, Any]:
    """Run the deletion benchmark of one model; return the figures of its tables."""
    folder = out / "results" / (f"{name}-{seed}" + ("" if kind == "fold" else f"-{kind}"))
    cohort = MODELS[name][0]
    first = [row["participant_id"] for row in Cohort.open(out / f"t{cohort[1]}").rows][:TESTED]
    test = out / f"test{cohort[1]}"
    if not (test / "volumes.npy").is_file():
        run("preprocess", out / "test", "-o", test, "--layout-from", out / cohort,
            "--split-fractions", 0, 0, 1, "--participant-label", *first)  # fmt: skip
    if not (folder / BENCHMARK).is_file():
        run("benchmark", run_folder(out, name, seed), test, "-o", folder, "--kind", kind,
            "--size", *SIZES, "--draws", 1, "--seed", seed, "--reference", out / cohort,
            "--device", "cpu", "--overwrite")  # fmt: skip
    return {
        "table": read_tsv(folder / BENCHMARK),
        "subjects": read_tsv(folder / BENCHMARK_SUBJECTS),
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


def report_others(out: Path) -> dict[str, list[float]]:
    """Print the lab's other protocols.

    Folds added, by a restorer that learned of them too; crops from elsewhere, which are no matter
    of single folds, by a latent space.
    """
    figures = {}
    for name, kind in (("both", "fold"), ("both", "add"), ("joined", "random")):
        result = deletions(out, name, 0, kind)
        rows = [row for row in result["table"] if row["size"] != "0"]
        print(f"\nkind {kind}, {name}: AUROC, paired share")
        for row in rows:
            shown = [float(row[name]) for name in ("auroc", "auroc_low", "auroc_high", "paired")]
            print(f"  {row['size']:>4} {row['score']:<28} {shown[0]:.3f} "
                  f"[{shown[1]:.3f}, {shown[2]:.3f}] {shown[3]:.2f}")  # fmt: skip
            if kind == "add" and row["score"] == "unexpected_top":
                figures[f"added_{row['size']}"] = shown[:3]
            if kind == "random" and row["score"] == SCORE[name]:
                figures["random_crop"] = shown[:3]
    return figures


def _false_alarm(result: dict[str, Any], score: str) -> float:
    (row,) = [r for r in result["table"] if r["score"] == score and r["size"] == "0"]
    return float(row["false_alarm"])


def report_deletions(
    out: Path, seeds: list[int], models: Iterable[str] = tuple(SCORE)
) -> dict[str, list[float]]:
    """Print every score of these models; returns the figures for the JSON."""
    figures: dict[str, list[float]] = {}
    for name in models:
        own = [0] if name in ONCE else seeds
        results = [deletions(out, name, seed) for seed in own]
        scores = list(dict.fromkeys(row["score"] for row in results[0]["table"]))
        print(f"\n{name}: AUROC by size, {len(own)} seeds")
        for score in scores:
            found = [pooled_auroc(results, score, size) for size in ("0", *SIZES)]
            print(f"  {score:<28}", *(f"{a:.3f} [{b:.3f}, {c:.3f}]" for a, b, c in found))
            figures |= {f"{name}_{score}_{s}": f for s, f in zip(("0", *SIZES), found, strict=True)}
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
            error = np.median([float(r["error_mm"]) for r in rows if r["error_mm"]])
            shown = interval_of(hit)
            print(f"  > {size}: top region hits {shown[0]:.3f} [{shown[1]:.3f}, {shown[2]:.3f}], "
                  f"Dice {dice:.2f}, error {error:.1f} mm")  # fmt: skip
            figures[f"localised_{size}" + ("" if name == "folds" else f"_{name}")] = shown
    if "folds_false_alarm" in figures:
        figures["false_alarm_5pct"] = figures.pop("folds_false_alarm")
    return figures


def write(out: Path, figures: dict[str, list[float]], flat: dict[str, float]) -> None:
    """Write figures, points and their intervals, beside what has none."""
    for name, (point, low, high) in figures.items():
        flat |= {name: point, f"{name}_low": low, f"{name}_high": high}
    flat = {name: round(value, 4) for name, value in flat.items()}
    write_figures(out / "figures.json", flat)
    print(json.dumps(flat))


def report_fused(out: Path, seeds: list[int], draws: int = 10) -> None:
    """Print what joining p-values of restorer and classifier gives (Fisher), AUROC.

    Half of the controls calibrate, the others are compared with; halves are drawn anew.
    """
    joined = {"folds": SCORE["folds"], "latent": SCORE["latent"]}
    found: dict[str, list[float]] = {size: [] for size in ("0", *SIZES)}
    for seed in seeds:
        rows = {name: {(r["size"], r["volume"]): r for r in deletions(out, name, seed)["subjects"]}
                for name in joined}  # fmt: skip
        for size, areas in found.items():
            keys = [key for key in rows["folds"] if key[0] == size and key in rows["latent"]]
            altered = np.array([rows["folds"][key]["altered"] == "1" for key in keys])
            scores = [np.array([float(rows[name][key][score]) for key in keys])
                      for name, score in joined.items()]  # fmt: skip
            for draw in range(draws):
                healthy = np.random.default_rng(draw).permutation(np.flatnonzero(~altered))
                known, others = np.array_split(healthy, 2)
                logs = [-np.log(conformal_p(own, own[known])) for own in scores]
                statistic = np.sum(logs, axis=0)
                areas.append(auroc(statistic[altered], statistic[others]))
    print("\nrestorer and classifier, p-values joined, AUROC:",
          *(f"{size} {np.mean(areas):.3f}" for size, areas in found.items()))  # fmt: skip


def report_flags(out: Path, brains: int = 200) -> None:
    """Print how many phantoms a model of such phantoms would refuse to judge."""
    training, tested = Cohort.open(out / "c2"), Cohort.open(out / "t2")
    detector = OutOfDistributionDetector(training.scheme).fit(training)
    absent = Cohort.open(out / "absent2")
    deleted = alter(tested, range(brains), SizeRange(800), kind="fold", seed=0)
    groups = {
        "healthy": tested.brains(range(brains)),
        "folds over 800 mm² deleted": (Brain(a.volume, tested.rows[a.index]) for a in deleted),
        "absent sulci": absent.brains(range(0, len(absent.rows), 3)),
    }
    for name, group in groups.items():
        reasons = list(detector.flags(group))
        print(f"{name}: {sum(map(bool, reasons))} of {len(reasons)} are flagged")


def report_restored(out: Path, seeds: list[int]) -> None:
    """Print what restorers see of absent sulci: voids are what they look for."""
    healthy, absent = Cohort.open(out / "t1"), Cohort.open(out / "absent1")
    rows = [n for n, _ in altered_brains(out, "absent")]
    found = []
    for seed in seeds:
        setup = set_up_scoring(run_folder(out, "folds", seed), out / "t1", out / "c1", "cpu")
        scores = BrainScores(setup.trained).fit(setup.reference)
        low, high = scores.score(healthy.brains(CONTROLS)), scores.score(absent.brains(rows))
        found.append({name: auroc(high[name], low[name]) for name in low})
    print("\nabsent sulci by restorers, AUROC")
    for name in found[0]:
        print(f"  {name:<28} {np.mean([f[name] for f in found]):.3f}")


def cost(out: Path, brains: int = 20) -> float:
    """Seconds for one crop of 80³ on one core after loading: all scores, maps and regions."""
    torch.set_num_threads(1)
    setup = set_up_scoring(run_folder(out, "folds", 0), out / "t1", out / "c1", "cpu")
    scorer, cohort = BrainScores(setup.trained).fit(setup.reference), setup.cohort
    threshold = scorer.map_scores[0].THRESHOLD
    times = []
    for first in range(0, brains, 4):
        begin = time.perf_counter()
        four = range(first, first + 4)
        scorer.score(
            cohort.brains(four), lambda z: strongest_regions(z[0], cohort.affine, threshold)
        )
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
    parser.add_argument("--models", nargs="+", choices=SCORE, help="of part 1, and no other part")
    arguments = parser.parse_args()
    if arguments.models:
        prepare_deletions(arguments.out, arguments.models)
        for seed in arguments.seeds:
            train(arguments.out, seed, arguments.steps, arguments.models)
        if not arguments.only:
            found = report_deletions(arguments.out, arguments.seeds, arguments.models)
            flat: dict[str, float] = {"seeds": len(arguments.seeds), "tested": TESTED}
            for name in arguments.models:
                flat |= of_training(run_folder(arguments.out, name, arguments.seeds[0]), name)
            write(arguments.out, found, flat)
        return
    prepare(arguments.out)
    for seed in arguments.seeds:
        train(arguments.out, seed, arguments.steps)
    if arguments.only:
        return
    figures = report_deletions(arguments.out, arguments.seeds)
    for region, seeds in ((CROP, arguments.seeds), (HEMISPHERE, [0])):
        runs = {seed: run_folder(arguments.out, region.name, seed) for seed in seeds}
        results = [recognition(arguments.out, run, region, seed) for seed, run in runs.items()]
        figures |= report_recognition(results, region)
    figures |= report_others(arguments.out)
    report_restored(arguments.out, arguments.seeds)
    report_fused(arguments.out, arguments.seeds)
    report_flags(arguments.out)
    write(arguments.out, figures, {"seconds_per_crop": cost(arguments.out)})


if __name__ == "__main__":
    main()
