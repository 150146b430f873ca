"""Missing folds of real brains, one site left out at a time.

DATA and OUT are those of `real_cohort.py`; OUT/2mm is made first where it is not there. For each of
the four sites, models are trained on the hemispheres of the other three, and every hemisphere of
the site left out is altered in one place at a time and scored:

    fold       a fold erased with its junctions, the hull kept: every one over 200 mm² (or
               --per-size of each size), and some of 100 to 200 mm²
    refill     the same, and its neighbours drawn half-way to where it was, over 8 mm; compared with
    deform     the same deformation around a fold that stays
    interrupt, displace, add
    scar, rim  what touches a fold is cut and the fold stays: no score may see that
    sham       nothing is erased, by the code path that erases

by the restorer of each seed, by `void` (no network), by the trivial baselines, and by the latent
spaces of models that learned from edits. A brain is compared with the other brains of its site as
controls, together with brains of the other sites that the network was not trained on; its own
family is left out. Settings of the scores and trainings were chosen on MMRR, and on no other site.

Printed and written by size: AUROC of altered brains against intact ones of other families, how
often the strongest region, outlined at half of its peak, touches the fold, and sensitivity at the
threshold that 5 % of the site's intact brains pass; means over sites and seeds, with intervals that
draw families. Also how many healthy brains are called unusual (p < .05), with controls of their
site or without, and how far two copies of one scan lie apart. With --hemispheres, the restorer is
also trained on the first so many: the learning curve.

OUT/anomaly keeps every score; what is there is not made again, and a hemisphere is scored by one
process: several can share a site by --share. Ends with one line of JSON, which
OUT/anomaly/figures.json holds with commit, date and machine.
"""

import argparse
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from figures import write_figures
from real_alterations import SITES, left_out
from real_cohort import make, run
from real_figures import mean_alarms, region_sizes, same_scans, summarise
from real_scorers import Families, false_alarms, fitted, join_tables, score_hemispheres

from foldnorm.pipeline.scoring.map_scores import MapScores
from foldnorm.preprocessing.cohort.cohort import Cohort
from foldnorm.preprocessing.core.files import read_json, write_json

RESTORER = "restorer"
OF_FOLDS = "--model.init_args.edits=[folds]"
GAN_OF_FOLDS = ("wgan_gp", OF_FOLDS, "--training.steps=300")
MODELS: dict[str, tuple[str, ...]] = {  # name → configuration, and what is said beside it
    RESTORER: (RESTORER,),
    "hypersphere_classifier": ("hypersphere_classifier", OF_FOLDS),
    "beta_vae": ("beta_vae", OF_FOLDS, "--training.steps=1500"),
    "wgan_gp": GAN_OF_FOLDS,
    # Of few channels and of few phases a round: some minutes of a core.
    "thin_wgan_gp": (*GAN_OF_FOLDS, "--training.batch_size=2",
                     "--model.init_args.channels=[24,48]",
                     "--model.init_args.critic_channels=[16,32]",
                     "--model.init_args.critic_steps=2",
                     "--model.init_args.reconstruction_steps=3",
                     "--model.init_args.sampling_rounds=1"),
}  # fmt: skip
AT_THE_END = 10**6  # steps: no checkpoint is chosen by the brains that others are compared with
FREE = ("void", "baselines")  # need no model


@dataclass(frozen=True)
class Run:
    """One training.

    Attributes:
        model: one of `MODELS`.
        seed: of it.
        hemispheres: that it is trained on; 0 for all.
    """

    model: str
    seed: int
    hemispheres: int = 0

    @property
    def name(self) -> str:
        """``restorer-0``, or ``restorer-0-of-16``."""
        return f"{self.model}-{self.seed}{_suffix(self.hemispheres)}"

    def train(self, cohort: Cohort, site: str, folder: Path, device: str) -> None:
        """Train on all sites but one, if it is not there."""
        out = folder / f"run-{self.name}"
        if (out / "cost.json").is_file():
            return
        place = folder / f"cohort{_suffix(self.hemispheres)}"
        place = left_out(cohort, site, place, self.hemispheres).folder
        config, *words = MODELS[self.model]
        run("train", config, place, "-o", out, "--resume", "auto",
            "--device", device, "--training.seed", self.seed, "--training.validation_volumes", 8,
            "--training.validate_every", AT_THE_END, *words, "--quiet")  # fmt: skip


def _suffix(hemispheres: int) -> str:
    return f"-of-{hemispheres}" if hemispheres else ""


def runs_of(arguments: argparse.Namespace) -> Iterator[Run]:
    """All trainings that were asked for, of each site."""
    for model in arguments.models:
        yield from (Run(model, seed) for seed in arguments.seeds)
    for hemispheres in arguments.hemispheres:
        yield Run(RESTORER, arguments.seeds[0], hemispheres)


def score_site(
    cohort: Cohort, runs: Sequence[Run], folder: Path, arguments: argparse.Namespace
) -> bool:
    """Score a site by all that is not there yet; False if other processes have more to do."""
    free = [name for name in FREE if not (folder / f"{name}.tsv").is_file()]
    waiting = [own.name for own in runs if not join_tables(cohort, folder, own.name)]
    if not free and not waiting:
        return True
    print(f"{folder.name}: {len(cohort.indices('test'))} hemispheres", flush=True)
    paths = {name: folder / f"run-{name}" for name in waiting}
    scorers = fitted(cohort, paths, torch.device(arguments.device), free=free)
    parts = folder / "hemispheres"
    score_hemispheres(cohort, scorers, parts, arguments.per_size, arguments.share)
    joined = [join_tables(cohort, folder, name) for name in (*free, *waiting)]
    return all(joined)


def count_false_alarms(
    cohort: Cohort, first: Sequence[Run], folder: Path, arguments: argparse.Namespace
) -> None:
    """Count healthy brains that void and the first model call unusual, if that is not done."""
    path = folder / "false_alarms.json"
    known = read_json(path) if path.is_file() else {}
    paths = {own.name: folder / f"run-{own.name}" for own in first if own.model not in known}
    free = [name for name in ("void",) if name not in known]
    scorers = fitted(cohort, paths, torch.device(arguments.device), free=free)
    found = {
        name.partition("-")[0]: false_alarms(cohort, _maps(own), is_network=name != "void")
        for name, own in scorers.items()
    }
    if found:
        write_json(path, known | found)


def _maps(families: Families) -> MapScores:
    return next(own for own in families if isinstance(own, MapScores))


def scored_sites(arguments: argparse.Namespace, cohort: Cohort, folder: Path) -> dict[str, list]:
    """Train and score every site; names of the tables that are complete, by site."""
    names: dict[str, list[str]] = {}
    runs = list(runs_of(arguments))
    for site in arguments.sites:
        own = left_out(cohort, site, folder / site / "cohort")
        for each in runs:
            each.train(cohort, site, folder / site, arguments.device)
        if arguments.only == "train":
            continue
        if score_site(own, runs, folder / site, arguments):
            names[site] = [*FREE, *(each.name for each in runs)]
            if not arguments.only:
                count_false_alarms(own, runs[:1], folder / site, arguments)
    return names


def share(text: str) -> tuple[int, int]:
    """Read n/N."""
    number, total = (int(part) for part in text.split("/"))
    return number, total


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path, metavar="DATA")
    parser.add_argument("out", type=Path, metavar="OUT", help="folder that keeps everything")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--models", nargs="*", choices=MODELS, default=list(MODELS))
    parser.add_argument("--hemispheres", type=int, nargs="*", default=[8, 16, 32, 64])
    parser.add_argument("--sites", nargs="+", choices=SITES, default=list(SITES))
    parser.add_argument("--per-size", type=int, help="erased folds of each size and hemisphere")
    parser.add_argument("--only", choices=("train", "score", "figures"),
                        help="stop after this; figures are then without false alarms")  # fmt: skip
    parser.add_argument("--share", type=share, default=(0, 1), metavar="n/N")
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "2")))
    out = arguments.out.absolute()
    if not (out / "2mm" / "volumes.npy").is_file():
        make(arguments.data.absolute(), out, sizes=("2mm",))
    folder = out / "anomaly"
    names = scored_sites(arguments, Cohort.open(out / "2mm"), folder)
    if arguments.only in ("train", "score") or len(names) < len(arguments.sites):
        return
    figures: dict[str, Any] = summarise(folder, names)
    if not arguments.only:
        figures |= mean_alarms(folder, names)
    for suffix in map(_suffix, arguments.hemispheres):
        figures |= summarise(folder, names, suffix=suffix)
        figures |= region_sizes(folder, names, suffix=suffix)
    figures |= same_scans(folder, names) | region_sizes(folder, names)
    for model in arguments.models:
        costs = [
            read_json(folder / site / f"run-{Run(model, seed).name}" / "cost.json")["seconds"]
            for site in names for seed in arguments.seeds
        ]  # fmt: skip
        figures[f"{model}_minutes_of_training"] = round(float(np.median(costs)) / 60, 1)
    trained = [len(Cohort.open(folder / site / "cohort").indices("train")) for site in names]
    figures["hemispheres"] = int(np.median(trained))
    figures |= {"sites_left_out": arguments.sites, "seeds": arguments.seeds}
    write_figures(folder / "figures.json", figures)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
