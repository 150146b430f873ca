"""Volumes drawn from the codes of a WGAN-GP: from its prior, after rounds of coding, by a flow.

OUT is that of `generation.py`, with its crops of real hemispheres, HLN left out. A WGAN-GP with an
encoder of few channels is trained on them (`wgan_gp`, with fewer phases a round), then a
`latent_flow` of its codes, whose first stage it is. Volumes drawn from N(0, I), from there after
ten rounds of encoding and decoding, and by the flow, are compared with crops of the site left out:
voxels and pieces of sulci, drawn by real, and the excess of opening.

OUT/gan_prior keeps everything; what is there is not made again. Ends with one line of JSON, which
is also written to OUT/gan_prior/figures.json.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from anomaly_real import AT_THE_END
from figures import write_figures
from real_cohort import run

from foldnorm.pipeline.metrics.sheets import compare_populations, mean_panel
from foldnorm.pipeline.runs.run_folder import RunFolder
from foldnorm.pipeline.runs.trained_model import TrainedModel
from foldnorm.preprocessing.cohort.cohort import Cohort
from foldnorm.preprocessing.core.files import read_json

SHARED = ("--device", "cpu", "--quiet", "--training.validate_every", AT_THE_END,
          "--training.validation_volumes", 2, "--training.workers", 0)  # fmt: skip
GAN = (
    "--training.batch_size=4",
    "--model.init_args.channels=[48]",
    "--model.init_args.critic_channels=[16,32]",
    "--model.init_args.critic_steps=2",
    "--model.init_args.reconstruction_steps=3",
    "--model.init_args.sampling_rounds=0",
)
ROUNDS = 10  # of encoding and decoding, as `wgan_gp` is shipped


def trained(cohort: Cohort, place: Path, steps: list[int]) -> dict[str, Path]:
    """Train the WGAN-GP, then the flow of its codes; run folders by name."""
    runs = {"wgan_gp": place / "wgan_gp", "flow": place / "flow"}
    if not (runs["wgan_gp"] / "cost.json").is_file():
        run("train", "wgan_gp", cohort.folder, "-o", runs["wgan_gp"], "--resume", "auto",
            "--training.steps", steps[0], *GAN, *SHARED)  # fmt: skip
    if not (runs["flow"] / "cost.json").is_file():
        run("train", "latent_flow", cohort.folder, "-o", runs["flow"], "--resume", "auto",
            "--weights", runs["wgan_gp"], "--training.steps", steps[1], *SHARED)  # fmt: skip
    return runs


def drawn(cohort: Cohort, model: TrainedModel, count: int, title: str) -> dict[str, float]:
    """Compare drawn volumes with those of the site left out."""
    structure = cohort.scheme.foreground
    real = [structure(np.array(cohort.volumes[n])) for n in cohort.indices("test")]
    found = compare_populations([structure(v) for v in model.sample(count, seed=0)], real)
    return {f"{title}_{name}": value for name, value in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path, metavar="OUT")
    parser.add_argument("--steps", type=int, nargs=2, default=[400, 1200], metavar="N",
                        help="rounds of the WGAN-GP, steps of the flow")  # fmt: skip
    parser.add_argument("--drawn", type=int, default=24)
    arguments = parser.parse_args()
    place = arguments.out.absolute() / "gan_prior"
    cohort = Cohort.open(arguments.out.absolute() / "generation/cohort")
    runs = trained(cohort, place, arguments.steps)
    gan, flow = (RunFolder.open(path).load("cpu") for path in runs.values())
    structure, indices = cohort.scheme.foreground, cohort.indices("test")
    made = gan.reconstruct(cohort.brains(indices))
    panel = mean_panel(
        (structure(own), structure(np.array(cohort.volumes[n])))
        for own, n in zip(made, indices, strict=True)
    )
    figures: dict[str, Any] = {
        **dict(zip(("rounds_of_wgan_gp", "steps_of_flow"), arguments.steps, strict=True)),
        **{f"minutes_of_{name}": read_json(path / "cost.json")["seconds"] / 60
           for name, path in runs.items()},
        "drawn": arguments.drawn,
        **{f"reconstruction_{name}": value for name, value in panel.items()},
        **drawn(cohort, gan, arguments.drawn, "prior"),
    }  # fmt: skip
    gan.model.sampling_rounds = ROUNDS  # type: ignore[assignment]
    figures |= drawn(cohort, gan, arguments.drawn, "rounds")
    figures |= drawn(cohort, flow, arguments.drawn, "flow")
    rounded = {name: round(float(value), 4) for name, value in figures.items()}
    write_figures(place / "figures.json", rounded)
    print(json.dumps(rounded))


if __name__ == "__main__":
    main()
