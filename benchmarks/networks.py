"""Networks of MONAI in the place of ours: translation and restoration of phantoms, same budget.

80 phantoms at 2 mm, 32³ around the superior temporal branches: 48 to train on, 16 for validation,
16 to test. Each network is trained twice: in `vnet` (skeleton → grey and white matter) and in
`restorer` (folds erased and brought back), with the steps, batches, rates and seed of ours. Nothing
is tuned for any: sizes are the smallest usual ones. Figures are of the best checkpoint by
validation loss: Dice of grey and of white matter on validation brains; cross entropy of what was
erased, likewise, and AUROC of test brains without a fold of 500 mm² against the same brains whole.

OUT keeps everything; what is there is not made again. Ends with one line of JSON, which is also
written to RESULT.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from figures import write_figures

from foldnorm.pipeline.artifacts import BENCHMARK, RUN_COST, RUN_METRICS
from foldnorm.pipeline.cli import main as foldnorm
from foldnorm.pipeline.runs.metrics_log import MetricsLog
from foldnorm.pipeline.runs.run_folder import RunFolder
from foldnorm.preprocessing.core.files import read_tsv

PHANTOMS = 80
LAYOUT = ("--voxel-size", 2, "--crop", "mm:-72,-8,-70,-6,-28,36",
          "--split-fractions", ".6", ".2", ".2")  # fmt: skip
SIZE, SCORE = "500", "evidence_component"
LEVELS: dict[str, Any] = {"channels": [16, 32, 64], "strides": [2, 2]}
# Of MONAI, in the place of ours. SwinUNETR's deepest map of 32³ is one voxel: no instance norm.
NETWORKS: dict[str, dict[str, Any]] = {
    "SegResNet": {"init_filters": 16},
    "DynUNet": {"kernel_size": [3, 3, 3], "strides": [1, 2, 2], "upsample_kernel_size": [2, 2],
                "filters": [16, 32, 64]},
    "SwinUNETR": {"feature_size": 12, "norm_name": ["group", {"num_groups": 4}]},
    "UNet": {**LEVELS, "num_res_units": 2},
    "VNet": {"in_channels": 8},
    "AttentionUnet": LEVELS,
}  # fmt: skip
TASKS = ("vnet", "restorer")
# Ours, and ours without the stem that makes 2×2×2 voxels channels; half as many channels a level.
OURS: dict[str, dict[str, tuple[str, ...]]] = {
    "ours": {},
    "ours_without_stem": {
        "vnet": ("--model.init_args.stem=1", "--model.init_args.channels=[16,32,64]"),
        "restorer": ("--model.init_args.stem=1", "--model.init_args.channels=[8,16,32,64]"),
    },
}


def run(*words: object) -> None:
    code = foldnorm([*map(str, words), "--quiet"])
    assert code == 0, (code, words)


def trained(out: Path, cohort: Path, task: str, network: str, steps: int) -> RunFolder:
    """Run of a network in a task, trained if it is not there."""
    folder = out / f"{task}_{network}"
    if not (folder / RUN_COST).is_file():
        words = ["--training.steps", steps, "--training.validate_every", max(steps // 4, 1),
                 "--training.batch_size", 2, "--training.precision", 32]  # fmt: skip
        if network in NETWORKS:
            named = {"class_path": f"monai.networks.nets.{network}", "init_args": NETWORKS[network]}
            words.append(f"--model.init_args.network={json.dumps(named)}")
        words += OURS.get(network, {}).get(task, ())
        run("train", task, cohort, "-o", folder, "--device", "cpu", "--resume", "auto",
            *words)  # fmt: skip
    return RunFolder.open(folder)


def figures_of(out: Path, cohort: Path, network: str, steps: int) -> dict[str, float]:
    """Figures of a network, its parameters, and its pace."""
    found: dict[str, float] = {}
    for task in TASKS:
        folder = trained(out, cohort, task, network, steps)
        _, best = folder.best_metrics(MetricsLog(folder.folder / RUN_METRICS, up_to=steps))
        found |= {f"{task}_{name}": value for name, value in best.items()}
        found[f"{task}_parameters"] = folder.cost["parameters"]
        found[f"{task}_seconds_a_step"] = folder.cost["seconds_per_step"]
    tested = out / f"benchmark_{network}"
    if not (tested / BENCHMARK).is_file():
        run("benchmark", out / f"restorer_{network}", cohort, "-o", tested, "--size", SIZE,
            "--draws", 1, "--device", "cpu")  # fmt: skip
    for row in read_tsv(tested / BENCHMARK):
        if row["score"] == SCORE and row["size"] == SIZE:
            found["restorer_auroc"] = float(row["auroc"])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path, metavar="OUT")
    parser.add_argument("result", type=Path, metavar="RESULT", help="JSON")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--phantoms", type=int, default=PHANTOMS)
    parser.add_argument("--networks", nargs="+", default=[*OURS, *NETWORKS])
    arguments = parser.parse_args()
    out, cohort = arguments.out, arguments.out / "cohort"
    if not (out / "phantoms").is_dir():
        run("phantom", "-o", out / "phantoms", "--subjects", arguments.phantoms, "--voxel-size", 2)
    if not (cohort / "volumes.npy").is_file():
        run("preprocess", out / "phantoms", "-o", cohort, "--pair", "grey-white", *LAYOUT)
    figures: dict[str, Any] = {"steps": arguments.steps, "phantoms": arguments.phantoms}
    for network in arguments.networks:
        own = figures_of(out, cohort, network, arguments.steps)
        print(f"{network}: {json.dumps(own)}", flush=True)
        figures |= {f"{network}_{name}": value for name, value in own.items()}
        write_figures(arguments.result, figures)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
