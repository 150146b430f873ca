"""Drawn crops of real hemispheres beside real ones, and what is unlikely in a brain.

OUT is that of `real_cohort.py` (skeletons of 72 brains of three sites and others). OUT/generation
gets crops of 80 mm at 2 mm (40³) of the 72 brains, one site (HLN) left out, and two generators
trained on the others: a `vqvae_transformer` that starts from the weights of a `vqvae`, and a
`latent_flow` that starts from those of a `distance_autoencoder`. Measured on the site left out: the
sheet panel of reconstructions and the codes in use; drawn crops beside training ones, with real
held-out crops as the floor (`evaluate-synthetic`); and, of the transformer, scores of hemispheres
with one fold erased against intact ones, as `anomaly_real.py` has them, with how much of the fold
is drawn anew. Figures of the flow are in a file of their own, OUT/generation/flow/figures.json.
With `--only hemispheres`: the same transformer of whole hemispheres, SynthSeg's brains among them,
read in windows and told which side each is of; what is drawn is measured, and whether it is of the
side that was asked for, in OUT/generation/hemispheres/figures.json.
Settings of the scores were chosen on MMRR
brains that were not trained on, and on no others.

OUT/generation keeps everything; what is there is not made again. Ends with one line of JSON.
"""

import argparse
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from anomaly_real import AT_THE_END
from figures import write_figures
from real_alterations import LARGE, SIZES, altered, left_out, planned, ways_to_alter
from real_cohort import run
from real_figures import auroc_by_size
from real_scorers import fitted, join_tables, read_scores, score_hemispheres
from scipy import ndimage
from scipy.stats import mannwhitneyu

from foldnorm.models.classes import to_classes
from foldnorm.models.vqvae import VQVAE
from foldnorm.pipeline.metrics.sheets import compare_populations, mean_panel
from foldnorm.pipeline.runs.run_folder import RunFolder
from foldnorm.pipeline.runs.trained_model import TrainedModel
from foldnorm.preprocessing.alteration.fold_kinds import Parts
from foldnorm.preprocessing.cohort.cohort import Cohort
from foldnorm.preprocessing.cohort.pictures import contact_sheet, png, volume_slices
from foldnorm.preprocessing.core.files import read_json, read_tsv, write_bytes, write_json
from foldnorm.preprocessing.io.volumes import read_labels

LEFT_OUT = "HLN"
LAYOUT = ["--space", "mni", "--mirror-right", "--thin", "--voxel-size", "2"]
BOX = {"crops": ["--crop", "mm:-72,8,-58,22,-6,74"],
       "hemispheres": ["--crop", "mm:-80,16,-122,86,-66,94", "--pad", "multiple:8"]}  # fmt: skip
MODELS = {
    "vqvae": (),
    "vqvae_transformer": ("--training.batch_size=2",),
    "distance_autoencoder": (),
    "latent_flow": (),
}
FIRST_STAGE = {"vqvae_transformer": "vqvae", "latent_flow": "distance_autoencoder"}
STEPS = (4000, 8000, 6000, 2600)
STEPS_OF_HEMISPHERES = (1000, 3600)
HEMISPHERES = "hemispheres"
IN_WINDOWS = ("--model.init_args.window=[10,10,10]", "--model.init_args.top_p=1.0")
TOLD = ("--model.init_args.condition=[hemi]",)  # of whole hemispheres, both stages
# Folder in OUT/generation of the drawn crops of each generator, and of its figures.
GENERATORS = {"vqvae_transformer": "", "latent_flow": "flow"}
SCORES = {"shortfall": "shortfall_component", "reconstruction": "reconstruction_missing_local",
          "latent_knn": "latent_knn", "void": "void_component"}  # fmt: skip
WITHIN = 1  # voxels
SHEET = 32  # drawn crops, and as many real ones, that a person is to tell apart
SIDES = ("L", "R")
SEEN = 2.0  # voxels, sd by which sheets are smoothed where their side is told
SHOWN = 6  # drawn crops, and real ones below


def prepared(out: Path, place: Path, box: str) -> Cohort:
    """Cohort with one site as its test split; of crops it has the 72 brains, else all."""
    if not (place / box / "volumes.npy").is_file():
        rows = read_tsv(out / "skeletons/participants.tsv")
        without = None if box == HEMISPHERES else "SynthSeg"
        brains = [row["participant_id"] for row in rows if row["site"] != without]
        run("preprocess", out / "skeletons", "-o", place / box, *LAYOUT, *BOX[box],
            "--participant-label", *brains, "--n-procs", 1, "--quiet")  # fmt: skip
    return left_out(Cohort.open(place / box), LEFT_OUT, place / "cohort")


def trained(
    cohort: Cohort, place: Path, steps: Mapping[str, int], *, whole: bool
) -> dict[str, Path]:
    """Train an autoencoder, then the model of its codes, in windows of whole hemispheres."""
    runs = {name: place / name for name in steps}
    for name, path in runs.items():
        if (path / "cost.json").is_file():
            continue
        weights: tuple[object, ...] = ()
        if name in FIRST_STAGE:
            weights = ("--weights", runs[FIRST_STAGE[name]], *(IN_WINDOWS if whole else ()))
        run("train", name, cohort.folder, "-o", path, "--resume", "auto", "--device", "cpu",
            "--training.steps", steps[name], "--training.validate_every", AT_THE_END,
            "--training.validation_volumes", 2, "--training.workers", 0,
            *weights, *MODELS[name], *(TOLD if whole else ()), "--quiet")  # fmt: skip
    return runs


def reconstructions(cohort: Cohort, model: TrainedModel) -> dict[str, float]:
    """Sheet panel of the site left out."""
    indices, structure = cohort.indices("test"), cohort.scheme.foreground
    made = model.reconstruct(cohort.brains(indices))
    panel = mean_panel(
        (structure(own), structure(np.array(cohort.volumes[n])))
        for own, n in zip(made, indices, strict=True)
    )
    return {f"reconstruction_{name}": value for name, value in panel.items()}


def codes_in_use(cohort: Cohort, model: TrainedModel) -> dict[str, float]:
    """Share of the entries of codebooks that are used on the site left out, and at all."""
    assert isinstance(model.model, VQVAE)
    brains = cohort.brains(cohort.indices("test"))
    with torch.no_grad():
        tokens = torch.cat([model.model.tokens(v) for v, _ in model.batches(brains)])
    books = model.model.codebooks
    used = [len(part.unique()) / books.size for part in tokens.unbind(1)]
    return {"codes_in_use": float(np.mean(used)), "codes_alive": float(books.in_use)}


def sheets_of_drawn(cohort: Cohort, path: Path, place: Path, count: int) -> dict[str, float]:
    """Compare voxels, pieces and thickness of drawn sheets with real ones; what a crop costs."""
    structure, folder = cohort.scheme.foreground, place / "drawn"
    begin = time.process_time()
    if not (folder / "synthetic.json").is_file():
        run("generate", path, "-o", folder, "--num", count, "--device", "cpu", "--quiet")
        write_json(place / "cost_of_drawn.json", {"cpu_seconds": time.process_time() - begin})
    made = [read_labels(file).data for file in sorted(folder.glob("*.nii.gz"))]
    real = [np.array(cohort.volumes[n]) for n in cohort.indices("test")]
    found = compare_populations([structure(v) for v in made], [structure(v) for v in real])
    seconds = read_json(place / "cost_of_drawn.json")["cpu_seconds"] / len(made)
    return {**{f"drawn_{name}": value for name, value in found.items()},
            "cpu_seconds_to_draw_one": seconds}  # fmt: skip


def compared(cohort: Cohort, place: Path) -> dict[str, float]:
    """Compare drawn crops with training ones, beside the floor of real held-out ones."""
    out = place / "quality"
    if not (out / "quality.json").is_file():
        run("evaluate-synthetic", cohort.folder, place / "drawn", "-o", out, "--device", "cpu",
            "--blind-sheet", SHEET, "--quiet")  # fmt: skip
    quality = read_json(out / "quality.json")
    sets = ("synthetic", "held_out", "training")
    found = {f"{kind}_{name}": float(values[kind])
             for name, values in quality["figures"].items()
             for kind in sets if values.get(kind) is not None}  # fmt: skip
    return {**found, "volumes_of_each_set": quality["volumes_of_each_set"]}


def scores(cohort: Cohort, path: Path, place: Path, per_size: int) -> dict[str, float]:
    """AUROC of hemispheres with a fold erased against intact ones of other families, by size."""
    device = torch.device("cpu")
    free = ["void"]
    if not _joined(cohort, place, (path.name, *free)):
        scorers = fitted(cohort, {path.name: path}, device, free=free)
        score_hemispheres(cohort, scorers, place / "scores/hemispheres", per_size, (0, 1))
        assert _joined(cohort, place, (path.name, *free))
    found = {}
    for title, score in SCORES.items():
        name = "void" if title == "void" else path.name
        found |= auroc_by_size(read_scores(place / "scores" / f"{name}.tsv", score), title)
    return found


def _joined(cohort: Cohort, place: Path, names: Sequence[str]) -> bool:
    """Join the tables of all hemispheres of each scorer; False if some are missing."""
    return all(join_tables(cohort, place / "scores", name) for name in names)


def _erased(cohort: Cohort, per_size: int) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Size class, volume without a fold, and where that was, of the site left out."""
    ways = ways_to_alter(cohort)
    for index in cohort.indices("test").tolist():
        volume, folds = np.array(cohort.volumes[index]), np.array(cohort.folds[index])
        parts = Parts.from_volume(volume, folds, cohort.scheme)
        for kind, size, deletion in planned(cohort, ways, index, per_size):
            if kind == "fold" and size in LARGE:
                without = altered(cohort, ways, index, kind, deletion)
                yield size, without, (without != volume) & parts.fold(deletion.label)


def refilled(cohort: Cohort, model: TrainedModel, per_size: int) -> dict[str, float]:
    """Share of the voxels of erased folds that a restored volume has within a voxel, by size."""
    near: dict[str, list[float]] = {size: [] for size in SIZES}
    for size, without, where in _erased(cohort, per_size):
        with torch.no_grad():
            restored = to_classes(model.model.restore(torch.from_numpy(without)[None]))[0].numpy()
        added = cohort.scheme.foreground(restored) & ~cohort.scheme.foreground(without)
        reach = ndimage.binary_dilation(added, np.ones((3, 3, 3)), iterations=WITHIN)
        near[size].append(float(reach[where].mean()))
    return {f"refilled_{size}": float(np.mean(own)) for size, own in near.items() if own}


def of_generator(cohort: Cohort, path: Path, place: Path, count: int) -> Iterator[dict[str, float]]:
    """Yield figures of reconstructions and of drawn crops, which go to a folder."""
    model = RunFolder.open(path).load(torch.device("cpu"))
    yield reconstructions(cohort, model)
    yield sheets_of_drawn(cohort, path, place, count)
    yield compared(cohort, place)
    write_bytes(place / "drawn_and_real.png", picture(cohort, model))


def of_anomalies(
    cohort: Cohort, path: Path, place: Path, per_size: int
) -> Iterator[dict[str, float]]:
    """Yield figures of the codes of a `vqvae_transformer`, and of what is unlikely to it."""
    model = RunFolder.open(path).load(torch.device("cpu"))
    yield codes_in_use(cohort, model)
    yield refilled(cohort, model, per_size)
    yield scores(cohort, path, place, per_size)


def sides_told(cohort: Cohort, model: TrainedModel, count: int) -> dict[str, float]:
    """AUROC of left against right, of hemispheres left out and of drawn ones that are to be either.

    What tells them is ridge regression of the side on smoothed sheets of the training hemispheres.
    """

    def seen(volume: np.ndarray) -> np.ndarray:
        sheets = cohort.scheme.foreground(volume).astype(np.float32)
        return ndimage.gaussian_filter(sheets, SEEN)[::2, ::2, ::2].ravel()

    def real(split: str) -> dict[str, np.ndarray]:
        chosen = cohort.indices(split).tolist()
        return {side: np.stack([seen(np.array(cohort.volumes[n])) for n in chosen
                                if cohort.rows[n]["hemi"] == side])
                for side in SIDES}  # fmt: skip

    known = real("train")
    of_side = np.concatenate([np.full(len(known[side]), n) for n, side in enumerate(SIDES)])
    shown = np.concatenate(list(known.values()))
    mean = shown.mean(axis=0)
    products = (shown - mean) @ (shown - mean).T
    ridge = np.trace(products) / len(products) * np.eye(len(products))
    line = (shown - mean).T @ np.linalg.solve(products + ridge, of_side - of_side.mean())

    def auroc(given: Mapping[str, np.ndarray]) -> float:
        right, left = (given[side] @ line for side in reversed(SIDES))
        return mannwhitneyu(right, left).statistic / (len(right) * len(left))

    def drawn(side: str) -> np.ndarray:
        return np.stack([seen(v) for v in model.sample(count // 2, seed=1, given={"hemi": side})])

    return {"side_auroc_held_out": auroc(real("test")),
            "side_auroc_drawn": auroc({side: drawn(side) for side in SIDES})}  # fmt: skip


def of_conditions(cohort: Cohort, path: Path, count: int) -> Iterator[dict[str, float]]:
    """Yield figures of what a model is told."""
    yield sides_told(cohort, RunFolder.open(path).load(torch.device("cpu")), count)


def picture(cohort: Cohort, model: TrainedModel) -> bytes:
    """Drawn crops above, real ones of the site left out below."""
    real = [np.array(cohort.volumes[n]) for n in cohort.indices("test")[:SHOWN]]
    rows = [[s for volume in volumes for s in volume_slices(cohort, volume)]
            for volumes in (model.sample(SHOWN, seed=0), real)]  # fmt: skip
    return png(contact_sheet(rows))


def measure(
    out: Path, name: str, steps: Mapping[str, int], drawn: int, per_size: int
) -> dict[str, Any]:
    """Train a generator and its autoencoder, measure it, and write its figures."""
    whole = name == HEMISPHERES
    place = out / "generation" / (HEMISPHERES if whole else "")
    cohort = prepared(out, place, HEMISPHERES if whole else "crops")
    runs = trained(cohort, place, steps, whole=whole)
    model = runs[list(runs)[-1]]
    figures: dict[str, Any] = {
        **{f"steps_{stage}": number for stage, number in steps.items()},
        **{f"minutes_{stage}": read_json(path / "cost.json")["seconds"] / 60
           for stage, path in runs.items()},
        "volumes_trained_on": len(cohort.indices("train")),
        "volumes_left_out": len(cohort.indices("test")),
    }  # fmt: skip
    folder = place / GENERATORS.get(name, "")
    parts = of_generator(cohort, model, folder, drawn)
    if name == "vqvae_transformer":
        parts = chain(parts, of_anomalies(cohort, model, place, per_size))
    if whole:
        parts = chain(parts, of_conditions(cohort, model, drawn))
    for part in parts:
        figures |= {key: round(float(value), 4) for key, value in part.items()}
        write_figures(folder / "figures.json", figures)
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path, metavar="OUT")
    parser.add_argument("--steps", type=int, nargs=len(MODELS), default=list(STEPS), metavar="N",
                        help=f"of {', '.join(MODELS)}")  # fmt: skip
    parser.add_argument("--steps-of-hemispheres", type=int, nargs=2, metavar="N",
                        default=list(STEPS_OF_HEMISPHERES),
                        help="of vqvae and vqvae_transformer")  # fmt: skip
    parser.add_argument("--only", choices=[*GENERATORS, HEMISPHERES], metavar="GENERATOR",
                        help=f"measure this one, not {' and '.join(GENERATORS)}: one of them, "
                             f"or {HEMISPHERES}")  # fmt: skip
    parser.add_argument("--drawn", type=int, default=32)
    parser.add_argument("--per-size", type=int, default=1)
    arguments = parser.parse_args()
    every = dict(zip(MODELS, arguments.steps, strict=True))
    steps = {name: {stage: every[stage] for stage in (FIRST_STAGE[name], name)}
             for name in GENERATORS}  # fmt: skip
    steps[HEMISPHERES] = dict(
        zip(("vqvae", "vqvae_transformer"), arguments.steps_of_hemispheres, strict=True)
    )
    figures = {
        name: measure(
            arguments.out.absolute(), name, steps[name], arguments.drawn, arguments.per_size
        )
        for name in ([arguments.only] if arguments.only else GENERATORS)
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
