"""What drawn brains are worth: a restorer that learns from real crops, from drawn ones, from both.

OUT is that of `generation.py` and `gan_prior.py`, which have trained generators on crops of real
hemispheres, HLN left out. As many crops are drawn by each as it was trained on
(`generate --cohort`). Restorers, as they are shipped, learn from real crops, from drawn ones of
each generator, and from both together, in the same number of steps, and are asked about folds
erased from crops of the site left out, as in `anomaly_real.py`; the healthy crops of other sites
that brains are compared with are real.

OUT/drawn_training keeps everything; what is there is not made again. Ends with one line of JSON,
which is also written to OUT/drawn_training/figures.json.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from anomaly_real import AT_THE_END
from figures import write_figures
from real_cohort import run
from real_figures import auroc_by_size
from real_scorers import fitted, join_tables, read_scores, score_hemispheres

from foldnorm.preprocessing.cohort.cohort import (
    FOLD_COLUMNS,
    FOLD_TABLE,
    FOLDS,
    VOLUMES,
    Cohort,
    row_key,
)
from foldnorm.preprocessing.cohort.cohort_files import write_description, write_participants
from foldnorm.preprocessing.core.arrays import read_row, write_array
from foldnorm.preprocessing.core.files import read_json, write_tsv

RUNS = {
    "vqvae_transformer": "generation/vqvae_transformer",
    "latent_flow": "generation/latent_flow",
    "flow_of_wgan_gp": "gan_prior/flow",
}
REAL = "real"
SCORE = "evidence_component"


def drawn_by(path: Path, cohort: Cohort, out: Path) -> Cohort:
    """Draw as many volumes as a generator was trained on."""
    if not (out / "dataset_description.json").is_file():
        run("generate", path, "-o", out, "--cohort", cohort.folder, "--num",
            len(cohort.indices("train")), "--seed", 1, "--device", "cpu", "--quiet")  # fmt: skip
    return Cohort.open(out)


def cohort_of(real: Cohort, others: Sequence[Cohort], out: Path, *, with_real: bool) -> Cohort:
    """Write the real cohort with drawn volumes beside its training split, or in its place."""
    if (out / "dataset_description.json").is_file():
        return Cohort.open(out)
    kept = [n for n, row in enumerate(real.rows) if with_real or row["split"] != "train"]
    sources = [(real, kept), *((own, list(range(len(own.rows)))) for own in others)]
    parts = [(own, n) for own, indices in sources for n in indices]
    shape = (len(parts), *real.shape)
    for name, dtype in ((VOLUMES, np.uint8), (FOLDS, np.uint16)):
        rows = (read_row(_array(own, name), n) for own, n in parts)
        write_array(out / name, rows, shape=shape, dtype=np.dtype(dtype))
    keys = {row_key(own.rows[n]) for own, n in parts}
    table = [row for own, _ in sources for row in own.fold_table if row_key(row) in keys]
    write_tsv(out / FOLD_TABLE, table, FOLD_COLUMNS)
    columns = set(real.rows[0])
    write_participants(
        out, [{name: own.rows[n].get(name, "") for name in columns} for own, n in parts]
    )
    write_description(out, out.name, real.description["Cohort"])
    return Cohort.open(out)


def _array(cohort: Cohort, name: str):  # type: ignore[no-untyped-def]
    return cohort.volumes if name == VOLUMES else cohort.folds


def trained(cohort: Cohort, out: Path, steps: int, seed: int) -> Path:
    """Train a restorer, if it is not there."""
    if not (out / "cost.json").is_file():
        run("train", "restorer", cohort.folder, "-o", out, "--resume", "auto", "--device", "cpu",
            "--training.steps", steps, "--training.seed", seed, "--training.workers", 0,
            "--training.validate_every", AT_THE_END, "--training.validation_volumes", 2,
            "--quiet")  # fmt: skip
    return out


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path, metavar="OUT")
    parser.add_argument("--generators", nargs="+", choices=list(RUNS), default=[*RUNS])
    parser.add_argument("--steps", type=int, default=1400, help="of each restorer")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--per-size", type=int, default=2)
    arguments = parser.parse_args()
    out = arguments.out.absolute()
    place, real = out / "drawn_training", Cohort.open(out / "generation/cohort")
    cohorts = {REAL: real}
    for name in arguments.generators:
        drawn = [drawn_by(out / RUNS[name], real, place / f"{name}_drawn")]
        cohorts[name] = cohort_of(real, drawn, place / name, with_real=False)
        cohorts[f"{REAL}_and_{name}"] = cohort_of(
            real, drawn, place / f"{REAL}_and_{name}", with_real=True
        )
    runs = {
        name: trained(own, place / f"run_{name}", arguments.steps, arguments.seed)
        for name, own in cohorts.items()
    }
    scorers = fitted(real, runs, torch.device("cpu"))
    score_hemispheres(real, scorers, place / "scores/hemispheres", arguments.per_size, (0, 1))
    figures: dict[str, float] = {
        "steps": arguments.steps,
        "crops_of_each_kind": len(real.indices("train")),
        "minutes_of_a_restorer": read_json(runs[REAL] / "cost.json")["seconds"] / 60,
    }
    for name in runs:
        assert join_tables(real, place / "scores", name)
        table = read_scores(place / "scores" / f"{name}.tsv", SCORE)
        figures |= auroc_by_size(table, name)
    rounded = {name: round(float(value), 4) for name, value in figures.items()}
    write_figures(place / "figures.json", rounded)
    print(json.dumps(rounded))


if __name__ == "__main__":
    main()
