"""All models on phantoms nobody trained on, and V-Net on the real pair archi/001.

1. V-Net, whole hemispheres at 2 mm: Dice of each class on test phantoms, and with the same weights
   on both hemispheres of DATA/morphologist/archi/001 (left out without DATA), beside the most
   frequent class of each voxel.
2. Reconstruction of crops (60 mm at 1.5 mm, 40³): GANs and autoencoders in the same minutes as the
   network of the 2021 study (errors corrected), and PCA with as many dimensions as the training
   brains allow. Sulci of test brains, with the hull and without it, and of training brains; and
   what finds erased folds above 500 mm².
3. Translation of the same crops, both ways: V-Net, UNIT, and the most frequent class.

OUT keeps everything; what is there is not made again. Ends with one line of JSON, which
OUT/figures.json holds with commit, date and machine.
"""

import argparse
import json
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
import yaml
from figures import write_figures
from scipy.ndimage import binary_dilation, generate_binary_structure
from sklearn.decomposition import PCA

from foldnorm.models.classes import to_classes
from foldnorm.pipeline.cli import main as foldnorm
from foldnorm.pipeline.inference.translate import Translator
from foldnorm.pipeline.metrics.classes import class_dice
from foldnorm.pipeline.metrics.latent import active_share
from foldnorm.pipeline.metrics.sheets import mean_panel
from foldnorm.pipeline.runs.config import config_path
from foldnorm.pipeline.runs.run_folder import RunFolder
from foldnorm.pipeline.studies.compare import CompareOptions, compare
from foldnorm.preprocessing.alteration.deletion import SizeRange
from foldnorm.preprocessing.cohort.cohort import Cohort
from foldnorm.preprocessing.core.files import write_text

CPU = torch.device("cpu")
CROP = "mm:-66,-6,-60,0,-30,30"
SPLIT = ["--split-fractions", ".6", ".15", ".25"]
PAIRS = ["--pair", "grey-white"]
HULL = 2  # voxels: what lies as near to the outside counts as hull
PANEL = ("dice", "precision", "recall", "volume_ratio", "opening_excess", "inner_dice")
RECONSTRUCTING = ("wgan_gp", "beta_vae", "autoencoder", "wgan", "dcgan", "f_anogan", "gan", "study")
ERASED = SizeRange(500)
SCORES = ("reconstruction_missing", "latent_mahalanobis", "baseline_fewer_voxels")
STUDY = {
    "model": {"class_path": "study_network.CorrectedStudy"},
    "training": {"batch_size": 4, "learning_rate": 2e-4, "betas": [0.5, 0.999]},
}


def run(*words: object) -> None:
    code = foldnorm([*map(str, words), "--quiet"])
    assert code == 0, (code, words)


def prepare(data: Path | None, out: Path, phantoms: int) -> None:
    if not (out / "phantoms").is_dir():
        run("phantom", "-o", out / "phantoms", "--subjects", phantoms, "--seed", 0)
    for name, layout in (
        ("whole", ["--voxel-size", 2, "--pad", "multiple:8"]),
        ("crops", ["--voxel-size", 1.5, "--crop", CROP]),
    ):
        if not (out / name / "volumes.npy").is_file():
            run("preprocess", out / "phantoms", "-o", out / name, *layout, *SPLIT, *PAIRS)
    if data is not None and not (out / "archi/volumes.npy").is_file():
        run("preprocess", data / "morphologist/archi", "-o", out / "archi", "--voxel-size", 2,
            "--mirror-right", "--pad", "multiple:8", "--split-fractions", 0, 0, 1,
            *PAIRS)  # fmt: skip
    write_text(out / "study.yaml", yaml.safe_dump(STUDY))
    reverse = yaml.safe_load(config_path("vnet").read_text(encoding="utf-8"))
    reverse["model"]["init_args"]["reverse"] = True
    write_text(out / "vnet_reverse.yaml", yaml.safe_dump(reverse))


def pairs_of(cohort: Cohort, reverse: bool, *splits: str) -> Iterator[tuple]:
    assert cohort.pairs is not None
    for index in cohort.indices(*splits):
        pair = np.array(cohort.volumes[index]), np.array(cohort.pairs[index])
        yield pair[::-1] if reverse else pair


def dice(translate, cohort: Cohort, reverse: bool) -> dict[str, float]:
    """Mean over test volumes of the Dice of each class of what ``translate`` makes of them."""
    scheme = cohort.scheme if reverse else cohort.pair_scheme
    found = [
        class_dice(translate(source), target, scheme)
        for source, target in pairs_of(cohort, reverse, "test")
    ]
    return {name: float(np.nanmean([f[name] for f in found])) for name in found[0]}


def most_frequent(cohort: Cohort, reverse: bool) -> np.ndarray:
    targets = [target for _, target in pairs_of(cohort, reverse, "train")]
    counts = [
        np.sum([t == c for t in targets], axis=0) for c in range(1 + max(map(np.max, targets)))
    ]
    return np.argmax(counts, axis=0).astype(np.uint8)


def shown(name: str, figures: dict[str, float]) -> None:
    print(f"  {name:<34}" + "  ".join(f"{key} {value:.3f}" for key, value in figures.items()))


def whole_hemispheres(data: Path | None, out: Path, steps: int) -> dict[str, float]:
    cohort, folder = Cohort.open(out / "whole"), out / "vnet"
    if not (folder / "cost.json").is_file():
        run("train", "vnet", out / "whole", "-o", folder, "--resume",
            "auto", "--device", "cpu", "--training.steps", steps,
            "--training.validate_every", max(steps // 4, 1))  # fmt: skip
    cost = RunFolder(folder).cost
    print(f"1. V-Net, whole hemispheres at 2 mm, {steps} steps: {cost['seconds'] / 60:.1f} min")
    translator = Translator.open(folder, CPU)
    ours = dice(translator.trained.translate_volume, cohort, False)
    shown(f"test phantoms ({len(cohort.indices('test'))})", ours)
    frequent = most_frequent(cohort, False)
    theirs = dice(lambda _: frequent, cohort, False)
    shown("most frequent class", theirs)
    found = {f"vnet_whole_{key}": value for key, value in ours.items()}
    found |= {f"frequent_whole_{key}": value for key, value in theirs.items()}
    if data is not None:
        archi = Cohort.open(out / "archi")
        real = dice(translator.trained.translate_volume, archi, False)
        shown("archi/001, both hemispheres", real)
        found |= {f"vnet_real_{key}": value for key, value in real.items()}
    return {**found, "vnet_whole_steps": steps, "vnet_whole_minutes": cost["seconds"] / 60}


def without_hull(volume: np.ndarray) -> np.ndarray:
    """Return where a volume is no hull: more than `HULL` voxels under the outside."""
    structure = generate_binary_structure(3, 1)
    return ~binary_dilation(volume == 0, structure, iterations=HULL)


def panels(made: Sequence[np.ndarray], true: Sequence[np.ndarray]) -> dict[str, float]:
    """Sheet panel with the hull, and under ``inner_…`` without it."""
    masks = [(m == 2, t == 2) for m, t in zip(made, true, strict=True)]
    inside = [without_hull(t) for t in true]
    inner = [(m & i, t & i) for (m, t), i in zip(masks, inside, strict=True)]
    return mean_panel(masks) | {f"inner_{k}": v for k, v in mean_panel(inner).items()}


def volumes_of(cohort: Cohort, split: str, at_most: int = 75) -> list[np.ndarray]:
    return [brain.volume for brain in cohort.brains(cohort.indices(split)[:at_most])]


def reconstructed(folder: Path, volumes: Sequence[np.ndarray]) -> list[np.ndarray]:
    model = RunFolder.open(folder).load(CPU).model
    with torch.no_grad():
        return [
            to_classes(model.decode(model.encode(torch.from_numpy(v)[None])))[0].numpy()
            for v in volumes
        ]


def principal_components(cohort: Cohort, volumes: Sequence[np.ndarray]) -> tuple[int, list]:
    """Reconstructions by all components that the training brains have."""
    training = np.stack([np.eye(3, dtype=np.float32)[v].ravel()
                         for v in volumes_of(cohort, "train", 10**6)])  # fmt: skip
    pca = PCA(len(training) - 1).fit(training)
    made = []
    for volume in volumes:
        flat = np.eye(3, dtype=np.float32)[volume].ravel()[None]
        back = pca.inverse_transform(pca.transform(flat)).reshape(*volume.shape, 3)
        made.append(back.argmax(-1).astype(np.uint8))
    return len(training) - 1, made


def reconstruction(cohort: Cohort, out: Path) -> dict[str, float]:
    names = ("dice", "precision", "recall", "volume_ratio", "opening_excess")
    names = (*names, *(f"inner_{name}" for name in names))
    test, training = volumes_of(cohort, "test"), volumes_of(cohort, "train")
    found: dict[str, float] = {}
    print("2. Reconstruction of crops, sulci (inner: without the hull)")
    for name in RECONSTRUCTING:
        folder = out / "runs" / name / "seed-0"
        run_folder = RunFolder.open(folder)
        codes = run_folder.load(CPU).encode(cohort.brains(cohort.indices("test")))
        panel = panels(reconstructed(folder, test), test)
        panel["active_share"] = active_share(codes)
        own = panels(reconstructed(folder, training), training)
        own["steps"] = steps = run_folder.config["training"]["steps"]
        minutes = run_folder.cost["seconds"] / 60
        print(f" {name}: {steps} steps, {minutes:.1f} min, {codes.shape[1]} dimensions, "
              f"{panel['active_share']:.2f} of them active")  # fmt: skip
        shown("test", {key: panel[key] for key in names})
        shown("training", {key: own[key] for key in names})
        found |= {f"{name}_{key}": panel[key] for key in (*PANEL, "active_share")}
        found |= {f"{name}_steps": steps, f"{name}_training_dice": own["dice"]}
    for split, volumes in (("test", test), ("training", training)):
        dimensions, made = principal_components(cohort, volumes)
        panel = panels(made, volumes)
        shown(f"PCA, {dimensions} dimensions, {split}", {key: panel[key] for key in names})
        if split == "test":
            found |= {f"pca_{key}": panel[key] for key in PANEL}
    return found


def translation(cohort: Cohort, out: Path) -> dict[str, float]:
    found: dict[str, float] = {}
    print("3. Translation of crops, test phantoms")
    for way, reverse in (("skeleton → grey-white", False), ("grey-white → skeleton", True)):
        vnet = Translator.open(out / "runs" / ("vnet_reverse" if reverse else "vnet") / "seed-0",
                                CPU)  # fmt: skip
        unit = Translator.open(out / "runs/unit/seed-0", CPU)
        unit.model.reverse = reverse
        frequent = most_frequent(cohort, reverse)
        for name, translate in (
            ("vnet", vnet.trained.translate_volume),
            ("unit", unit.trained.translate_volume),
            ("frequent", lambda _, f=frequent: f),
        ):
            figures = dice(translate, cohort, reverse)
            shown(f"{way}: {name}", figures)
            kind = f"{name}{'_back' if reverse else ''}_crop"
            found |= {f"{kind}_{key}": value for key, value in figures.items()}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path, metavar="OUT")
    parser.add_argument("--data", type=Path, metavar="DATA", help="folder with morphologist/archi")
    parser.add_argument("--phantoms", type=int, default=300)
    parser.add_argument("--minutes", type=float, default=3.0, help="of training a model, on crops")
    parser.add_argument("--vnet-steps", type=int, default=2400, help="on whole hemispheres")
    arguments = parser.parse_args()
    os.environ["FOLDNORM_TRUST"] = "study_network"
    out = arguments.out
    print(__doc__.splitlines()[0])
    begin = time.perf_counter()
    prepare(arguments.data, out, arguments.phantoms)
    found = whole_hemispheres(arguments.data, out, arguments.vnet_steps)
    # Trainings are processes of their own: they too must find the study's network.
    os.environ["PYTHONPATH"] = os.pathsep.join(
        [str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
    )
    cohort = Cohort.open(out / "crops")
    written = {path.stem: str(path) for path in (out / "study.yaml", out / "vnet_reverse.yaml")}
    configs = [written.get(n, n) for n in (*RECONSTRUCTING, "vnet", "unit", "vnet_reverse")]
    options = CompareOptions(arguments.minutes, sizes=(ERASED,), device="cpu")
    compared = compare(configs, cohort, out / "runs", options)
    found["minutes"] = arguments.minutes
    for row in compared.table:
        name = row["model"].strip("()").replace(" ", "_")
        kept = ("silhouette", *PANEL, *(f"auroc_{score}_{ERASED}" for score in SCORES))
        found |= {f"{name}_{key}": row[key] for key in kept if key in row}
    found |= reconstruction(cohort, out) | translation(cohort, out)
    print(f"{(time.perf_counter() - begin) / 60:.0f} minutes in all")
    figures = {key: round(value, 4) for key, value in found.items()}
    write_figures(arguments.out / "figures.json", figures)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
