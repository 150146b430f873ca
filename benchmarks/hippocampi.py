"""Real hippocampi: a ball taken out of each, by size, found by what learned from such balls or not.

DATA holds `hippocampus`, 160 label volumes of three classes (Medical Segmentation Decathlon): half
to train on, 15 % for validation, 35 % tested, half of which are altered. Three models: WGAN-GP of
healthy hippocampi alone; a restorer and a hypersphere classifier that learned from balls as the
benchmark takes out, the classifier also in a quarter of the steps. One seed.

OUT keeps everything; what is there is not made again. Ends with one line of JSON, which is also
written to RESULT.
"""

import argparse
import json
from pathlib import Path

from families import run, trained
from figures import write_figures
from tables import of_benchmark, of_training

from foldnorm.pipeline.artifacts import BENCHMARK
from foldnorm.preprocessing.cohort.cohort import Cohort
from foldnorm.preprocessing.core.files import write_text

SCHEME = """\
name: hippocampus
classes:
- {name: background, values: [0]}
- {name: anterior, values: [1]}
- {name: posterior, values: [2]}
"""
SPLIT = (".5", ".15", ".35")
SIZES = ("100", "200", "400")  # mm³
BALLS = ("--model.init_args.edits", "[balls]", "--model.init_args.radii", "[2, 6]",
         "--model.init_args.max_edits", "2")  # fmt: skip
# By the name of their figures: configuration, and what is changed in it.
MODELS = {
    "wgan_gp": ("wgan_gp", "--training.steps", "200"),
    "restorer": ("restorer", *BALLS, "--training.steps", "1000"),
    "hypersphere_classifier": ("hypersphere_classifier", *BALLS, "--training.steps", "3200"),
    "hypersphere_classifier_short": ("hypersphere_classifier", *BALLS, "--training.steps", "800"),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path, metavar="DATA")
    parser.add_argument("out", type=Path, metavar="OUT", help="folder that keeps everything")
    parser.add_argument("result", type=Path, metavar="RESULT", help="JSON")
    arguments = parser.parse_args()
    out, cohort = arguments.out, arguments.out / "cohort"
    if not (cohort / "volumes.npy").is_file():
        write_text(out / "hippocampus.yaml", SCHEME)
        run("preprocess", arguments.data / "hippocampus", "-o", cohort, "--scheme",
            out / "hippocampus.yaml", "--pad", "multiple:8", "--split-fractions",
            *SPLIT)  # fmt: skip
    opened = Cohort.open(cohort)
    figures: dict[str, float] = {
        split: len(opened.indices(split)) for split in ("train", "validation", "test")
    }
    for name, (config, *words) in MODELS.items():
        folder, told = trained(out / name, config, cohort, *words), out / f"benchmark_{name}"
        if not (told / BENCHMARK).is_file():
            run("benchmark", folder, cohort, "-o", told, "--kind", "ball", "--size", *SIZES,
                "--device", "cpu")  # fmt: skip
        figures |= of_training(folder, name) | of_benchmark(told, name)
    write_figures(arguments.result, figures)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
