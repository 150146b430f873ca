"""Volumes drawn from the codes of a WGAN-GP: from its prior, after rounds of coding, by a flow.

OUT is that of `generation.py`, with its crops of real hemispheres, HLN left out. A WGAN-GP with an
encoder of few channels is trained on them (`wgan_gp`, with fewer phases a round), then a
`latent_flow` of its codes, whose first stage it is. Volumes drawn from N(0, I), from there after
ten rounds of encoding and decoding, and by the flow, are compared with crops of the site left out:
voxels and pieces of sulci, drawn by real, and the excess of opening. The latter two are mended and
thinned, and compared with training crops, too (`evaluate-synthetic`).
With `--phantoms`, crops of as many phantom hemispheres take their place.

OUT/gan_prior, or OUT/gan_prior_phantoms, keeps everything; what is there is not made again. Ends
with one line of JSON, which is also written to figures.json there.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from anomaly_real import AT_THE_END
from figures import write_figures
from generation import BOX, LAYOUT, compared, reconstructions, sheets_of_drawn
from real_cohort import run

from foldnorm.pipeline.metrics.sheets import compare_populations
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
)
FLOW = "--model.init_args.sheet_margin=1.3"
PHANTOMS = 72
SPLIT = (0.68, 0.15, 0.17)


def of_phantoms(place: Path) -> Cohort:
    """Cohort of crops of phantom hemispheres, laid out as the real ones are."""
    if not (place / "cohort/volumes.npy").is_file():
        run("phantom", "-o", place / "source", "--subjects", PHANTOMS, "--hemi", "L", "R",
            "--quiet", "--overwrite")  # fmt: skip
        run("preprocess", place / "source", "-o", place / "cohort", *LAYOUT, *BOX["crops"],
            "--split-fractions", *SPLIT, "--quiet")  # fmt: skip
    return Cohort.open(place / "cohort")


def trained(cohort: Cohort, place: Path, steps: list[int]) -> dict[str, Path]:
    """Train the WGAN-GP, then the flow of its codes; run folders by name."""
    runs = {"wgan_gp": place / "wgan_gp", "flow": place / "flow"}
    if not (runs["wgan_gp"] / "cost.json").is_file():
        run("train", "wgan_gp", cohort.folder, "-o", runs["wgan_gp"], "--resume", "auto",
            "--training.steps", steps[0], *GAN, *SHARED)  # fmt: skip
    if not (runs["flow"] / "cost.json").is_file():
        run("train", "latent_flow", cohort.folder, "-o", runs["flow"], "--resume", "auto",
            "--weights", runs["wgan_gp"], "--training.steps", steps[1], FLOW, *SHARED)  # fmt: skip
    return runs


def from_prior(cohort: Cohort, gan: TrainedModel, count: int) -> dict[str, float]:
    """Compare what the generator makes of N(0, I), and nothing more, with crops left out."""
    gan.model.sampling_rounds, gan.model.sheet_margin = 0, 0.0  # type: ignore[assignment]
    structure = cohort.scheme.foreground
    real = [structure(np.array(cohort.volumes[n])) for n in cohort.indices("test")]
    return compare_populations([structure(v) for v in gan.sample(count, seed=0)], real)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path, metavar="OUT")
    parser.add_argument("--steps", type=int, nargs=2, default=[1500, 2400], metavar="N",
                        help="rounds of the WGAN-GP, steps of the flow")  # fmt: skip
    parser.add_argument("--drawn", type=int, default=32)
    parser.add_argument("--phantoms", action="store_true")
    arguments = parser.parse_args()
    out = arguments.out.absolute()
    place = out / ("gan_prior_phantoms" if arguments.phantoms else "gan_prior")
    cohort = of_phantoms(place) if arguments.phantoms else Cohort.open(out / "generation/cohort")
    runs = trained(cohort, place, arguments.steps)
    gan = RunFolder.open(runs["wgan_gp"]).load(torch.device("cpu"))
    figures: dict[str, Any] = {
        **dict(zip(("rounds_of_wgan_gp", "steps_of_flow"), arguments.steps, strict=True)),
        **{f"minutes_of_{name}": read_json(path / "cost.json")["seconds"] / 60
           for name, path in runs.items()},
        "drawn": arguments.drawn,
        **reconstructions(cohort, gan),
        **{f"prior_{k}": v for k, v in from_prior(cohort, gan, arguments.drawn).items()},
    }  # fmt: skip
    for title, path in {"rounds": runs["wgan_gp"], "flow": runs["flow"]}.items():
        folder = place / f"drawn_{title}"
        drawn = sheets_of_drawn(cohort, path, folder, arguments.drawn)
        found = {k.removeprefix("drawn_"): v for k, v in drawn.items()}
        found |= compared(cohort, folder)
        figures |= {f"{title}_{name}": value for name, value in found.items()}
    rounded = {name: value if isinstance(value, int) else round(float(value), 4)
               for name, value in figures.items()}  # fmt: skip
    write_figures(place / "figures.json", rounded)
    print(json.dumps(rounded))


if __name__ == "__main__":
    main()
