"""Names by a network that looks at voxels, beside those of folds; people of a site left out.

COHORTS is the OUT of `real_cohort.py`, whose folds are named by manual gyri, and NAMES that of
`learned_names.py`: what was learned from two sites, and how it names the folds of the third at
1 mm. The network (``foldnorm train sulcus_segmenter``) learns from NKI alone, in voxels of
--voxel-size: MMRR says how much it counts beside what was learned, and HLN is what figures are of.
Folds are named by

    learned    what was learned of the two other sites
    network    the network: mean over the voxels of a fold of its log probabilities
    both       learned and network: Σ weight · log probability, weights of the largest likelihood at
               MMRR

Classes, truth and rates are those of `learned_names.py`. ``gain_…`` is what both has more than
learned; ``voxels_rate`` the share of the network's own voxels with the right class, without a vote
over each fold.

OUT keeps cohort and run. Ends with one line of JSON, which OUT/figures.json holds with commit, date
and machine.
"""

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from figures import write_figures
from learned_names import DRAWS, Arrays, rates
from real_alterations import left_out
from real_cohort import LAYOUT, run
from scipy import optimize
from scipy.special import log_softmax

from foldnorm.pipeline.metrics.bootstrap import bootstrap_interval
from foldnorm.pipeline.runs.run_folder import RunFolder
from foldnorm.preprocessing.cohort.cohort import Cohort, family_of, row_key
from foldnorm.preprocessing.naming.named_folds import names_by_label

# The network names what is there: no sulcus is taken out in training, as where one may be missing.
TRAINING = (
    "--model.init_args.substitutes=0", "--training.warmup_steps=50", "--training.betas=[0.9,0.99]",
    "--training.ema=0.99", "--training.precision=bf16", "--training.augmentation.shift=1",
    "--training.validation_volumes=6", "--training.workers=0",
    "--training.validate_every=1000000",
)  # fmt: skip
STEPS, VOXEL_SIZE = 500, 4.0
LEARNED, WEIGHED, TESTED = "NKI", "MMRR", "HLN"  # sites
WAYS = ("learned", "network", "both")
UNLIKELY = 1e-6  # a probability that is not less


class ByNetwork:
    """Folds as a trained network names them.

    Args:
        folder: of the run.
        cohort: that it can look at.
        names: of the sulci, n of them, in the order of the classes.
    """

    def __init__(self, folder: Path, cohort: Cohort, names: list[str]) -> None:
        self.trained = RunFolder.open(folder).load(torch.device("cpu"))
        sulci = self.trained.recognises.sulci
        self.order = [1 + sulci.index(name) for name in names] + [0]
        self.cohort, self.names, self.tables = cohort, names, names_by_label(cohort)
        self.index = {row_key(row): n for n, row in enumerate(cohort.rows)}
        # A fold that is too small for the voxels of the network has no name by it.
        self.nothing = log_softmax(np.append(np.zeros(len(names)), -np.log(UNLIKELY)))

    def named(self, key: str, labels: np.ndarray) -> tuple[np.ndarray, float]:
        """Log probabilities of folds, (F, n + 1), and the share of voxels with the right class."""
        assert self.cohort.folds is not None
        index = self.index[key]
        (few,) = self.trained.passes(self.cohort.view([index]))
        folds = np.array(self.cohort.folds[index])
        of_voxels = folds[folds > 0]
        log = log_softmax(few.recognised[0][self.order].float().numpy()[:, folds > 0], axis=0).T
        own = self.tables[key]
        number_of = {own_name: n for n, own_name in enumerate(self.names)}
        true = [number_of.get(own.get(int(n), ""), len(self.names)) for n in of_voxels]
        of_folds = [
            log[of_voxels == n].mean(axis=0) if (of_voxels == n).any() else self.nothing
            for n in labels
        ]
        return np.array(of_folds), float((log.argmax(axis=1) == true).mean())


def of_site(fine: Cohort, names: Path, site: str, network: ByNetwork) -> tuple[Arrays, float]:
    """Folds of a site as `learned_names.py` left them, and as the network names them."""
    folds = dict(np.load(names / f"{site}.npz", allow_pickle=False))
    log, shares = np.empty(folds["likely"].shape), []
    assert fine.folds is not None
    for index, row in enumerate(fine.rows):
        own = folds["hemisphere"] == row_key(row)
        if not own.any():
            continue
        volume = np.array(fine.folds[index])
        log[own], share = network.named(row_key(row), np.unique(volume[volume > 0]))
        shares.append(share)
    folds |= {"log_learned": np.log(np.maximum(folds["likely"], UNLIKELY)), "log_network": log}
    return folds, float(np.mean(shares))


def pooled(folds: Arrays, weights: np.ndarray) -> np.ndarray:
    """Log probabilities of both, (F, n + 1)."""
    both = weights[0] * folds["log_learned"] + weights[1] * folds["log_network"]
    return np.asarray(log_softmax(both, axis=1))


def fitted_weights(folds: Arrays) -> np.ndarray:
    """Weights of learned and network under which the truth is likeliest, by voxels."""

    def cost(weights: np.ndarray) -> float:
        own = pooled(folds, weights)[np.arange(len(folds["truth"])), folds["truth"]]
        return -float(np.average(own, weights=folds["voxels"]))

    return np.asarray(optimize.minimize(cost, [0.5, 0.5], method="Nelder-Mead").x)


def gain(folds: Arrays, given: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Rate of both less that of learned, with its interval over people."""
    people, rows = np.unique(folds["person"], return_inverse=True)
    both, learned = (given[way] == folds["truth"] for way in ("both", "learned"))
    more = np.bincount(rows, folds["voxels"] * (both.astype(float) - learned))
    total = np.bincount(rows, folds["voxels"])
    low, high = bootstrap_interval(lambda w: (w @ more) / (w @ total), people, DRAWS)
    value = float(more.sum() / total.sum())
    return {"gain_rate": value, "gain_rate_low": low, "gain_rate_high": high}


def figures_of(weighed: Arrays, folds: Arrays) -> dict[str, Any]:
    """Compute the figures of folds, with weights from others."""
    weights, n_classes = fitted_weights(weighed), folds["likely"].shape[1]
    given = {way: folds[f"log_{way}"].argmax(axis=1) for way in ("learned", "network")}
    given["both"] = pooled(folds, weights).argmax(axis=1)
    found = {
        f"{way}_{key}": value
        for way in WAYS for key, value in rates(folds, given[way], n_classes).items()
        if not key.endswith("by_class")
    }  # fmt: skip
    found |= gain(folds, given)
    return found | {"weight_learned": weights[0], "weight_network": weights[1]}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("cohorts", type=Path, metavar="COHORTS")
    parser.add_argument("names", type=Path, metavar="NAMES")
    parser.add_argument("out", type=Path, metavar="OUT")
    parser.add_argument("--steps", type=int, default=STEPS, help="of the network")
    parser.add_argument("--voxel-size", type=float, default=VOXEL_SIZE, help="of it, mm")
    arguments = parser.parse_args()
    cohorts, out = arguments.cohorts.absolute(), arguments.out.absolute()
    if not (out / "cohort" / "volumes.npy").is_file():
        run("preprocess", cohorts / "skeletons", "-o", out / "cohort", "--voxel-size",
            arguments.voxel_size, *LAYOUT, "--quiet")  # fmt: skip
    coarse = left_out(Cohort.open(out / "cohort"), TESTED, out / "split", others=[LEARNED])
    sulci = sorted({name for own in names_by_label(coarse).values() for name in own.values()})
    run("train", "sulcus_segmenter", coarse.folder, "-o", out / "run", "--resume", "auto",
        "--device", "cpu", "--training.steps", arguments.steps,
        f"--model.init_args.sulci=[{','.join(sulci)}]", *TRAINING, "--quiet")  # fmt: skip
    network = ByNetwork(out / "run", coarse, sulci)
    fine = Cohort.open(cohorts / "1mm")
    weighed, _ = of_site(fine, arguments.names, WEIGHED, network)
    tested, share = of_site(fine, arguments.names, TESTED, network)
    figures = {key: value if isinstance(value, int) else round(float(value), 3)
               for key, value in figures_of(weighed, tested).items()}  # fmt: skip
    people = {family_of(row) for row in coarse.rows if row["split"] == "train"}
    figures |= {"voxels_rate": round(share, 3), "voxel_size": arguments.voxel_size,
                "steps": arguments.steps, "trained_on_people": len(people)}  # fmt: skip
    write_figures(out / "figures.json", figures)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
