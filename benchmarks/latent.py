"""Cost of looking into a latent space, of opening a report, and of walking through a cohort.

1. Ranking 1,728 dimensions by wgan_gp_report.yaml at 80³, beside the decoder alone doing the same
   passes, in turns; weights are drawn, as they do not change the time. A few brains stand for 100.
2. The dimensions of RUN over 100 brains of COHORT, most foretold and the first measured: seconds,
   and how the two agree.
3. A report of 1,000 brains (those of COHORT, again and again): size, and seconds until Chromium
   shows its projection.
4. foldnorm view on 10,000 brains: seconds from the command to the first volume, and to the next.

Ends with one line of JSON, which OUT/figures.json holds.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
import yaml
from figures import write_figures

from foldnorm.models.wgan_gp import WGANGP
from foldnorm.pipeline.cli import main as foldnorm
from foldnorm.pipeline.latent.dimensions import (
    BATCH,
    STEP,
    measure_effects,
    predict_effects,
    rank_dimensions,
)
from foldnorm.pipeline.latent.space import LatentSpace
from foldnorm.pipeline.runs.config import config_path
from foldnorm.pipeline.runs.trained_model import TrainedModel
from foldnorm.preprocessing.cohort.cohort import VOLUMES, Brain, Cohort
from foldnorm.preprocessing.cohort.cohort_files import write_description, write_participants
from foldnorm.preprocessing.core.arrays import write_array

SIDE = 80
TURN = 64  # dimensions, of decoder and ranking in turns: the machine is noisy
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = ["--no-sandbox", "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader",
         "--disable-background-networking", "--disable-component-update"]  # fmt: skip


def seconds(work: Callable[[], object]) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def report_space(brains: int) -> LatentSpace:
    """Build the model of the study's sizes, with drawn weights and drawn brains."""
    arguments = yaml.safe_load(config_path("wgan_gp_report").read_text(encoding="utf-8"))
    model = WGANGP(shape=(SIDE,) * 3, n_classes=3, **arguments["model"]["init_args"]).eval()
    rng = np.random.default_rng(0)
    volumes = rng.integers(0, 3, (brains, SIDE, SIDE, SIDE), dtype=np.uint8)
    cohort = SimpleNamespace(brains=lambda places: (Brain(volumes[n], {}) for n in places))
    codes = rng.standard_normal((brains, model.latent_dim))
    trained = TrainedModel(model, torch.device("cpu"))
    return LatentSpace(trained, cohort, np.arange(brains), codes, np.ones(brains, dtype=bool))


@torch.no_grad()
def decode_only(space: LatentSpace, dimensions: np.ndarray) -> None:
    """Make the passes of the decoder that ranking needs, and nothing else."""
    decode = space.trained.encodes.decode
    code = torch.from_numpy(space.codes[0].astype(np.float32))
    decode(code[None])
    for sign in (1, -1):
        for chosen in torch.from_numpy(dimensions).split(BATCH):
            codes = code.repeat(len(chosen), 1)
            codes[torch.arange(len(chosen)), chosen] += sign * STEP
            decode(codes)


def ranking(brains: int) -> dict[str, float]:
    """Rank all dimensions, as the command does with --dimensions 1728; in turns of 64."""
    space = report_space(brains)
    d = space.codes.shape[1]
    foretold = seconds(lambda: predict_effects(space, brains=brains)) / brains
    ours, alone = [], []
    for place in range(brains):
        one = LatentSpace(space.trained, space.cohort, space.indices[[place]],
                          space.codes[[place]], space.training[[place]])  # fmt: skip
        for some in np.array_split(np.arange(d), d // TURN):
            alone.append(seconds(lambda s=some, o=one: decode_only(o, s)))
            ours.append(seconds(lambda s=some, o=one: measure_effects(o, s, brains=1)))
    turns = d // TURN
    share = foretold / (np.median(alone) * turns)
    ratio = float(np.median(np.array(ours) / alone) + share)
    hours = 100 * (np.median(ours) * turns + foretold) / 3600
    print(f"  {len(ours)} turns of {TURN} dimensions: decoder {np.median(alone):.2f} s, ranking "
          f"{np.median(ours):.2f} s; to foretell takes {share:.3f} of the decoder: {ratio:.3f}\n"
          f"  100 brains: {hours:.1f} h on this machine; foretelling alone {foretold * 100:.0f} s"
          )  # fmt: skip
    return {
        "ranking_vs_decoder": ratio,
        "ranking_hours_100": float(hours),
        "foretold_seconds_100": foretold * 100,
    }


def default_ranking(run: Path, cohort: Path, measured: int) -> dict[str, float]:
    space = LatentSpace.open(run, cohort, [], "cpu")
    foretold = seconds(lambda: predict_effects(space, brains=100))
    taken = seconds(lambda: rank_dimensions(space, measured=measured, brains=100))
    # Whether what is foretold ranks well among all, not only the first: on some drawn of all.
    drawn = np.sort(np.random.default_rng(0).choice(space.codes.shape[1], 100, replace=False))
    ranked = rank_dimensions(space, measured=measured, brains=20)
    known = measure_effects(space, drawn, brains=20)
    ranks = [np.argsort(np.argsort(values)) for values in (ranked.predicted_effect[drawn], known)]
    agreement = float(np.corrcoef(*ranks)[0, 1])
    print(f"  {space.codes.shape[1]} dimensions, 100 brains: foretold in {foretold:.0f} s, with "
          f"{measured} measured {taken:.0f} s; rank correlation of foretold and measured "
          f"{ranked.agreement:.2f} among the first, {agreement:.2f} over all")  # fmt: skip
    return {
        "default_seconds": taken,
        "default_agreement": agreement,
        "default_agreement_first": ranked.agreement,
    }


def again_and_again(cohort: Cohort, folder: Path, count: int) -> Path:
    """Write a cohort of ``count`` brains, repeating those of another under new names."""
    if (folder / VOLUMES).is_file():
        return folder
    own = cohort.indices("validation", "test").tolist() + cohort.indices("train").tolist()
    places = [own[n % len(own)] for n in range(count)]
    volumes = (np.array(cohort.volumes[n]) for n in places)
    write_array(folder / VOLUMES, volumes, shape=(count, *cohort.shape), dtype=np.dtype(np.uint8))
    rows = []
    for n, place in enumerate(places):
        first = n < len(own)  # only these keep their names, and with them that they were trained on
        name = cohort.rows[place]["participant_id"] if first else f"sub-again{n:05d}"
        split = cohort.rows[place]["split"] if first else "test"
        rows.append({**cohort.rows[place], "participant_id": name, "split": split})
    write_participants(folder, rows)
    write_description(folder, folder.name, cohort.description["Cohort"])
    return folder


def call(*words: object) -> None:
    code = foldnorm([*map(str, words), "--quiet"])
    assert code == 0, (code, words)


def report(run: Path, cohort: Path, out: Path) -> dict[str, float]:
    from playwright.sync_api import sync_playwright

    latent, page = out / "latent", out / "report.html"
    brains = Cohort.open(cohort).keys()
    call("latent", "projection", run, cohort, "-o", latent, "--reduction", "tsne", "--overwrite")
    call("latent", "mean", run, cohort, "-o", latent, "--overwrite")
    call("latent", "clusters", run, cohort, "-o", latent, "--overwrite")
    call("latent", "neighbours", run, cohort, "-o", latent, "--brain", brains[0], "--overwrite")
    call("latent", "interpolate", run, cohort, "-o", latent, "--brain", brains[0],
         "--to", brains[1], "--overwrite")  # fmt: skip
    call("latent", "dimensions", run, cohort, "-o", latent, "--dimensions", 20, "--overwrite")
    written = seconds(lambda: call("report", cohort, run, latent, "-o", page))
    opened = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=FLAGS)
        for _ in range(5):
            tab = browser.new_page(viewport={"width": 1200, "height": 900})
            begin = time.perf_counter()
            tab.goto(page.resolve().as_uri())
            tab.wait_for_selector("figure.points[data-shown]")
            opened.append(time.perf_counter() - begin)
            tab.close()
        browser.close()
    megabytes = page.stat().st_size / 1e6
    print(f"  {megabytes:.1f} MB, written in {written:.1f} s, opened in {np.median(opened):.2f} s")
    return {"report_mb_1000": megabytes, "report_open_seconds": float(np.median(opened))}


def view(cohort: Path) -> dict[str, float]:
    from playwright.sync_api import sync_playwright

    first, following = [], []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=FLAGS)
        for _ in range(3):
            begin = time.perf_counter()
            words = [sys.executable, "-m", "foldnorm.pipeline.cli", "view", str(cohort)]
            served = subprocess.Popen([*words, "--no-browser"], stdout=subprocess.PIPE, text=True,
                                      env=os.environ)  # fmt: skip
            tab = browser.new_page(viewport={"width": 1200, "height": 900})
            tab.goto(served.stdout.readline().split()[0])
            tab.wait_for_selector("#input[data-shown]")
            first.append(time.perf_counter() - begin)
            for brain in range(1, 11):
                begin = time.perf_counter()
                tab.keyboard.press("ArrowRight")
                tab.wait_for_selector(f'#input[data-shown="0/{brain}/-1"]')
                following.append(time.perf_counter() - begin)
            tab.close()
            served.terminate()
            served.wait()
        browser.close()
    print(f"  from the command to the first volume {np.median(first):.2f} s, "
          f"to the next one {np.median(following):.2f} s")  # fmt: skip
    return {
        "view_open_seconds": float(np.median(first)),
        "view_volume_seconds": float(np.median(following)),
    }


def chromium() -> str:
    return next(filter(None, map(shutil.which, NAMES)))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="of wgan_gp.yaml")
    parser.add_argument("cohort", type=Path, metavar="COHORT", help="that it was trained on")
    parser.add_argument("out", type=Path, metavar="OUT")
    parser.add_argument("--brains", type=int, default=3, help="that stand for 100 in 1.")
    parser.add_argument("--dimensions", type=int, default=200, help="measured in 2.")
    arguments = parser.parse_args()
    print(__doc__.splitlines()[0])
    print("1. Ranking 1,728 dimensions at 80³")
    found = ranking(arguments.brains)
    print("2. Ranking at the default configuration")
    found |= default_ranking(arguments.run, arguments.cohort, arguments.dimensions)
    print("3. Report of 1,000 brains")
    cohort = Cohort.open(arguments.cohort)
    thousand = again_and_again(cohort, arguments.out / "thousand", 1000)
    found |= report(arguments.run, thousand, arguments.out)
    print("4. foldnorm view of 10,000 brains")
    found |= view(again_and_again(cohort, arguments.out / "ten_thousand", 10_000))
    figures = {key: round(value, 4) for key, value in found.items()}
    write_figures(arguments.out / "figures.json", figures)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
