"""The study's nine errors, each put back alone into our training.

Crops of phantoms at 2 mm (40³), those of `anomaly.py`, whose OUT may be given: WGAN-GP on 455,
tested on 600 others. Rows are the errors: what reconstructions are like (Dice, volume ratio, share
of sheet voxels in 2×2×2 blocks over that of real ones), and the AUROC of latent Mahalanobis
distance with folds over 500 voxels deleted, beside the control. Errors that are none of the WGAN-GP
have figures of their own: pairs of different subjects (V-Net, Dice), test subjects in training,
maps of t-SNE fitted apart, and loops over voxels (seconds). OUT keeps everything. Ends with one
line of JSON, which OUT/ablation/figures.json holds with commit, date and machine.
"""

import argparse
import csv
import json
import os
import shutil
import time
from collections import deque
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from anomaly import COHORTS, TESTED, prepare_deletions
from anomaly import run as foldnorm
from anomaly_statistics import auroc
from figures import flattened, write_figures
from sklearn.manifold import TSNE

from foldnorm.models.classes import to_classes
from foldnorm.pipeline.artifacts import BENCHMARK
from foldnorm.pipeline.metrics.sheets import mean_panel
from foldnorm.pipeline.runs.config import config_path
from foldnorm.pipeline.runs.run_folder import RunFolder
from foldnorm.pipeline.scoring.brain_scores import BrainScores
from foldnorm.pipeline.studies.benchmark import halves
from foldnorm.preprocessing.alteration.alteration import alter
from foldnorm.preprocessing.alteration.deletion import SizeRange
from foldnorm.preprocessing.cohort.cohort import Brain, Cohort
from foldnorm.preprocessing.cohort.discretise import discretise
from foldnorm.preprocessing.core.files import read_tsv, write_text
from foldnorm.preprocessing.io.schemes import SKELETON

CPU = torch.device("cpu")
DELETED = 500
SCORE = "latent_mahalanobis"
SHOWN = 60  # test volumes whose reconstructions are measured
WEIGHTS = [1.0, 1.0, 15.0]
ROWS: dict[str, tuple[str, dict[str, Any]]] = {  # class in place of WGANGP, arguments
    "none": ("foldnorm.models.WGANGP", {}),
    "1 encoder never trains": ("ablation_networks.EncoderNeverTrains", {}),
    "2 critic sees argmax": ("ablation_networks.CriticSeesNumbers", {}),
    "3 blocks of voxels, tanh": ("ablation_networks.BlocksOfVoxels", {}),
    "4 sulci weigh 15": ("foldnorm.models.WGANGP", {"class_weights": WEIGHTS}),
    "(batch norm, evaluated)": ("ablation_networks.BatchNorm", {}),
    "5 eval never called": ("ablation_networks.NeverEval", {}),
    "9 batch norm, ReLU on codes": ("ablation_networks.DeadDimensions", {}),
}
APART = 5  # draws of t-SNE
POINTS = 100  # brains of each group in it


def of_networks(out: Path, steps: int) -> dict[str, dict[str, float]]:
    """Errors of the WGAN-GP: one training each."""
    tested = out / "test2"
    if not (tested / "volumes.npy").is_file():
        first = [row["participant_id"] for row in Cohort.open(out / "t2").rows][:TESTED]
        foldnorm("preprocess", out / "test", "-o", tested, "--layout-from", out / "c2",
                 "--split-fractions", 0, 0, 1, "--participant-label", *first)  # fmt: skip
    found = {}
    for name, (class_path, more) in ROWS.items():
        folder = out / "ablation" / name.strip("()").replace(" ", "_").replace(",", "")
        if not (folder / "run/cost.json").is_file():
            config = yaml.safe_load(config_path("wgan_gp").read_text(encoding="utf-8"))
            config["model"]["class_path"] = class_path
            config["model"]["init_args"] |= more
            write_text(folder / "config.yaml", yaml.safe_dump(config))
            foldnorm("train", folder / "config.yaml", out / "c2",
                     "-o", folder / "run", "--resume", "auto", "--device", "cpu",
                     "--training.steps", steps, "--training.validate_every", steps)  # fmt: skip
        if not (folder / BENCHMARK).is_file():
            foldnorm("benchmark", folder / "run", tested, "-o", folder, "--size", DELETED,
                     "--draws", 1, "--reference", out / "c2", "--device", "cpu")  # fmt: skip
        found[name] = figures_of(folder, Cohort.open(tested))
        shown(name, found[name])
    return found


def figures_of(folder: Path, tested: Cohort) -> dict[str, float]:
    """Panel of reconstructions, AUROC, and dimensions that are the same in all brains."""
    table = {
        (row["size"], row["score"]): float(row["auroc"]) for row in read_tsv(folder / BENCHMARK)
    }
    model = RunFolder.open(folder / "run").load(CPU).model
    pairs, codes = [], []
    with torch.no_grad():
        for index in range(SHOWN):
            volume = np.array(tested.volumes[index])
            codes.append(model.encode(torch.from_numpy(volume)[None]))
            made = to_classes(model.decode(codes[-1]))[0].numpy()
            pairs.append((tested.scheme.foreground(made), tested.scheme.foreground(volume)))
    panel = mean_panel(pairs)
    spread = torch.cat(codes).std(dim=0)
    latent = [score for size, score in table if size == "0" and score.startswith("latent")]
    return {
        **{name: panel[name] for name in ("dice", "precision", "recall", "volume_ratio",
                                          "opening_excess")},
        "dead": float((spread < 1e-4).float().mean()),
        "auroc": table[str(DELETED), SCORE],
        "control": table["0", SCORE],
        "best_latent": max(table[str(DELETED), score] for score in latent),
    }  # fmt: skip


def of_pairs(out: Path, steps: int) -> dict[str, float]:
    """Error 6: V-Net on pairs of different subjects; mean Dice on held-out brains."""
    right, wrong = out / "c2pairs", out / "c2shuffled"
    if not (right / "volumes.npy").is_file():
        foldnorm("preprocess", out / "phantoms", "-o", right,
                 "--split-fractions", ".68", ".32", "0",
                 "--pair", "grey-white", *COHORTS["2"])  # fmt: skip
    if not wrong.is_dir():
        wrong.mkdir()
        for path in right.iterdir():
            if path.is_file() and path.suffix != ".npy":
                shutil.copyfile(path, wrong / path.name)
            elif path.suffix == ".npy" and path.name != "pairs.npy":
                (wrong / path.name).symlink_to(path.resolve())
        pairs, own = np.load(right / "pairs.npy"), Cohort.open(right).indices("train")
        pairs[own] = pairs[np.roll(own, 1)]
        np.save(wrong / "pairs.npy", pairs)
    found = {}
    for name, cohort in (("right", right), ("6 pairs of different subjects", wrong)):
        folder = out / "ablation" / f"vnet_{cohort.name}"
        if not (folder / "cost.json").is_file():
            foldnorm("train", "vnet", cohort, "-o", folder,
                     "--resume", "auto", "--device", "cpu", "--training.steps", steps,
                     "--training.batch_size", 4, "--training.validate_every", steps)  # fmt: skip
        with (folder / "metrics.csv").open(encoding="utf-8") as lines:
            (last,) = deque(csv.DictReader(lines), maxlen=1)
        found[name] = float(last["validation/mean_dice"])
        print(f"V-Net, {name:<40} mean Dice {found[name]:.3f}", flush=True)
    return found


def of_known_brains(out: Path) -> dict[str, float]:
    """Error 6 too: splits drawn anew, so that tested brains were trained on."""
    reference = Cohort.open(out / "c2")
    trained = RunFolder.open(out / "ablation/none/run").load(CPU)
    scorer = BrainScores(trained).fit(reference)
    found = {}
    for name in ("train", "validation"):
        indices = reference.indices(name)
        chosen = halves(len(indices), 0)
        low = scorer.score(reference.brains(indices[~chosen]))
        high = scorer.score(deleted(reference, indices[chosen]))
        unseen = scorer.score(reference.brains(reference.indices("validation")))
        found[name] = auroc(high[SCORE], low[SCORE])
        found[f"{name}_untouched"] = auroc(low[SCORE], unseen[SCORE])
    print(f"tested on brains trained on: AUROC {found['train']:.3f}, on others "
          f"{found['validation']:.3f}; untouched trained brains against unseen ones "
          f"{found['train_untouched']:.3f}", flush=True)  # fmt: skip
    return found


def deleted(cohort: Cohort, indices: Any, size: int = DELETED) -> Any:
    altered = alter(cohort, indices, SizeRange(size), kind="fold", seed=0)
    return (Brain(a.volume, cohort.rows[a.index]) for a in altered)


def of_maps(out: Path) -> dict[str, list[float]]:
    """Error 7: distance from the middle of healthy brains in maps of t-SNE, AUROC by size."""
    trained = RunFolder.open(out / "ablation/none/run").load(CPU)
    cohort = Cohort.open(out / "test2")
    healthy = trained.encode(cohort.brains(range(POINTS)))
    groups = {"0": trained.encode(cohort.brains(range(POINTS, 2 * POINTS)))}
    for n, size in enumerate((200, 500, 800), start=2):
        groups[str(size)] = trained.encode(
            deleted(cohort, range(n * POINTS, (n + 1) * POINTS), size)
        )
    found: dict[str, list[list[float]]] = {"one map": [], "7 maps fitted apart": []}
    for seed in range(APART):
        whole = embedded([healthy, *groups.values()], seed)
        apart = [embedded([healthy, group], seed + k) for k, group in enumerate(groups.values())]
        overlaid = [apart[0][0], *(own for _, own in apart)]  # healthy brains as the first has them
        for name, points in (("one map", whole), ("7 maps fitted apart", overlaid)):
            middle = points[0].mean(axis=0)
            away = [np.linalg.norm(own - middle, axis=1) for own in points]
            found[name].append([auroc(own, away[0]) for own in away[1:]])
    for name, draws in found.items():
        table = np.array(draws)
        shown = [f"{size} {column.mean():.2f} ({column.min():.2f} to {column.max():.2f})"
                 for size, column in zip(groups, table.T, strict=True)]  # fmt: skip
        print(f"t-SNE, {name:<22}", *shown, flush=True)
    return {name: np.mean(draws, axis=0).tolist() for name, draws in found.items()}


def embedded(groups: list[np.ndarray], seed: int) -> list[np.ndarray]:
    points = TSNE(perplexity=30, init="random", random_state=seed).fit_transform(np.vstack(groups))
    return np.split(points, np.cumsum([len(group) for group in groups])[:-1])


def of_loops(side: int = 48) -> dict[str, float]:
    """Error 8: seconds of a loop over voxels, and of ours, for 260×311×260."""
    raw = np.random.default_rng(0).choice([0, 11, 60, 30], (side,) * 3).astype(np.int16)
    begin = time.perf_counter()
    looped = np.empty(raw.shape, np.uint8)
    for i in range(side):
        for j in range(side):
            for k in range(side):
                value = raw[i, j, k]
                looped[i, j, k] = 0 if value == 11 else 1 if value == 0 else 2
    of_loop = (time.perf_counter() - begin) * 260 * 311 * 260 / side**3
    assert np.array_equal(looped, discretise(raw, SKELETON, path=Path("drawn")))
    large = np.resize(raw, (260, 311, 260))
    begin = time.perf_counter()
    discretise(large, SKELETON, path=Path("drawn"))
    ours = time.perf_counter() - begin
    print(f"8 loops over voxels: {of_loop:.0f} s a volume, ours {ours:.3f} s", flush=True)
    return {"loop_seconds": of_loop, "ours_seconds": ours}


def shown(name: str, figures: dict[str, float]) -> None:
    print(f"{name:<28}", "  ".join(f"{k} {v:.3f}" for k, v in figures.items()), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int, nargs=2, default=[120, 100], metavar=("GAN", "VNET"))
    arguments = parser.parse_args()
    os.environ["FOLDNORM_TRUST"] = "ablation_networks"
    out, (steps, vnet_steps) = arguments.out, arguments.steps
    prepare_deletions(out, ["gan"])
    figures: dict[str, Any] = {"rounds": steps, "vnet_steps": vnet_steps}
    figures |= of_networks(out, steps)
    figures["pairs"] = of_pairs(out, vnet_steps)
    figures["known_brains"] = of_known_brains(out)
    figures["maps"] = of_maps(out)
    figures["loops"] = of_loops()
    write_figures(out / "ablation/figures.json", flattened(figures))
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
