"""Real brains: models trained on phantoms meet them, and models are trained on them.

DATA is a folder with brain_labels (14 whole-brain maps) and morphologist/archi/001. The maps are
skeletonised, aligned to MNI space, right hemispheres mirrored, and cut to 60 mm at 1.5 mm (40³);
phantoms, stretched to the same outer planes, likewise. Then

1. WGAN-GP and V-Net are trained on 178 phantoms and tested on the 28 real hemispheres;
2. leave-one-brain-out: trained on 24 real hemispheres with augmentation (two others stop the
   training), tested on the two of the brain left out;
3. V-Nets of 2. on archi/001, with our skeleton of it and with Morphologist's.

Printed: the sheet panel of reconstructions, the Dice of translations beside the most frequent class
of each voxel, the deletion benchmark, and every fold over 500 mm² taken out of its brain. OUT keeps
everything; what is there is not made again. Ends with one line of JSON, which OUT/figures.json
holds with commit, date and machine.
"""

import argparse
import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from figures import write_figures

from foldnorm.models.classes import to_classes
from foldnorm.pipeline.cli import main as foldnorm
from foldnorm.pipeline.inference.translate import Translator
from foldnorm.pipeline.metrics.classes import class_dice
from foldnorm.pipeline.metrics.sheets import mean_panel
from foldnorm.pipeline.runs.run_folder import RunFolder
from foldnorm.pipeline.scoring.brain_scores import BrainScores
from foldnorm.pipeline.studies.leave_one_fold_out import FoldScores, leave_one_fold_out
from foldnorm.preprocessing.alteration.deletion import SizeRange
from foldnorm.preprocessing.cohort.cohort import Cohort
from foldnorm.preprocessing.cohort.cohort_files import write_participants
from foldnorm.preprocessing.core.files import read_tsv, write_text

CPU = torch.device("cpu")
CROP = "mm:-66,-6,-60,0,-30,30"
LAYOUT = ["--space", "mni", "--voxel-size", "1.5", "--thin", "--mirror-right", "--crop", CROP,
          "--pair", "grey-white"]  # fmt: skip
LARGE = SizeRange(500)
AUGMENTED = ["--training.augmentation.rotation", "5", "--training.augmentation.stretch", "0.05",
             "--training.augmentation.shift", "2"]  # fmt: skip
BATCH = ["--training.batch_size", "4"]  # of V-Net, whose configuration has 1
SEGMENTATION = "t1mri/default_acquisition/default_analysis/segmentation"


def run(*words: object) -> None:
    code = foldnorm([*map(str, words), "--quiet"])
    assert code == 0, (code, words)


def prepare(data: Path, out: Path, phantoms: int) -> None:
    if not (out / "real").is_dir():
        run("skeletonise", data / "brain_labels", "-o", out / "skeletons")
        run("template", out / "skeletons", "-o", out / "template.nii.gz")
        rows = ["participant_id\themi\tpath"]
        archi = data / "morphologist/archi/001" / SEGMENTATION
        rows += [f"001\t{side}\t{archi}/{side}grey_white_001.nii.gz" for side in "LR"]
        write_text(out / "archi.tsv", "\n".join(rows) + "\n")
        run("skeletonise", out / "archi.tsv", "-o", out / "archi", "--align",
            out / "template.nii.gz")  # fmt: skip
        run("phantom", "-o", out / "phantoms", "--subjects", phantoms, "--seed", 0)
        run("preprocess", out / "phantoms", "-o", out / "phantom_cohort", *LAYOUT,
            "--split-fractions", ".6", ".15", ".25")  # fmt: skip
        run("preprocess", out / "skeletons", "-o", out / "real",
            "--layout-from", out / "phantom_cohort",
            "--split-fractions", "0", "0", "1")  # fmt: skip
        for name, source in (("archi_ours", out / "archi"),
                             ("archi_theirs", data / "morphologist/archi")):  # fmt: skip
            run("preprocess", source, "-o", out / name, "--layout-from", out / "phantom_cohort",
                "--split-fractions", "0", "0", "1")  # fmt: skip


def train(config: str, cohort: Path, out: Path, steps: int, *more: str) -> Path:
    if not (out / "MODEL_CARD.md").is_file():
        run("train", config, cohort, "-o", out, "--resume", "auto",
            "--device", "cpu", "--training.steps", steps, "--training.validate_every",
            max(steps // 4, 1), *more)  # fmt: skip
    return out


def reconstructions(model_of: Path, cohort: Cohort, split: str) -> list[tuple]:
    """Reconstructed and true sulci of each volume of a split."""
    model = RunFolder.open(model_of).load(CPU).model
    pairs = []
    with torch.no_grad():
        for index in cohort.indices(split):
            volume = np.array(cohort.volumes[index])
            codes = model.encode(torch.from_numpy(volume)[None])
            made = to_classes(model.decode(codes))[0].numpy()
            pairs.append((cohort.scheme.foreground(made), cohort.scheme.foreground(volume)))
    return pairs


def nearest_training(cohort: Cohort, split: str) -> list[tuple]:
    """Pair each volume with the training volume whose sulci overlap most, as a baseline."""
    others = [np.array(cohort.volumes[i]) == cohort.scheme.top for i in cohort.indices("train")]
    pairs = []
    for index in cohort.indices(split):
        true = np.array(cohort.volumes[index]) == cohort.scheme.top
        pairs.append((max(others, key=lambda other: int((other & true).sum())), true))
    return pairs


def most_frequent(training: Cohort, tested: Cohort, split: str) -> list[dict[str, float]]:
    """Dice of the most frequent class of each voxel among training pairs."""
    assert training.pairs is not None
    assert tested.pairs is not None
    assert training.pair_scheme is not None
    known = np.array(training.pairs[training.indices("train")])
    counts = np.stack([(known == n).sum(axis=0) for n in range(training.pair_scheme.n_classes)])
    guess = counts.argmax(axis=0).astype(np.uint8)
    return [
        class_dice(guess, np.array(tested.pairs[i]), training.pair_scheme)
        for i in tested.indices(split)
    ]


def leave_out(real: Cohort, participant: str, watched: str, folder: Path) -> Cohort:
    """Split the real cohort anew: one brain for testing, one to stop the training."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in real.folder.iterdir():
        if path.is_file() and path.name != "participants.tsv":
            (folder / path.name).unlink(missing_ok=True)
            if path.suffix == ".npy":
                (folder / path.name).symlink_to(path.resolve())
            else:
                shutil.copyfile(path, folder / path.name)
    chosen = {participant: "test", watched: "validation"}
    rows = [{**row, "split": chosen.get(row["participant_id"], "train")} for row in real.rows]
    write_participants(folder, rows)
    return Cohort.open(folder)


def mean_of(rows: list[dict], names: tuple[str, ...]) -> dict[str, float]:
    return {name: float(np.mean([row[name] for row in rows])) for name in names}


def shown(title: str, figures: dict[str, float]) -> None:
    print(f"{title:<34}", "  ".join(f"{k} {v:.3f}" for k, v in figures.items()), flush=True)


PANEL = ("dice", "precision", "recall", "volume_ratio", "opening_excess", "surface_dice")
DICE = ("dice_background", "dice_grey", "dice_white", "mean_dice")


def panel_of(pairs: list[tuple]) -> dict[str, float]:
    return {name: value for name, value in mean_panel(pairs).items() if name in PANEL}


def from_phantoms(out: Path, steps: int, vnet_steps: int) -> dict[str, float]:
    phantoms, real = Cohort.open(out / "phantom_cohort"), Cohort.open(out / "real")
    gan = train("wgan_gp", phantoms.folder, out / "phantom_gan", steps)
    vnet = train("vnet", phantoms.folder, out / "phantom_vnet", vnet_steps, *BATCH, *AUGMENTED)
    figures = {}
    for name, cohort in (("phantoms", phantoms), ("real", real)):
        panel = panel_of(reconstructions(gan, cohort, "test"))
        shown(f"phantom GAN on {name}", panel)
        figures[f"phantom_gan_{name}_dice"] = panel["dice"]
        folder = out / f"phantom_vnet_on_{name}"
        dice = mean_of(translated_rows(Translator.open(vnet, CPU), cohort, folder, ["test"]), DICE)
        shown(f"phantom V-Net on {name}", dice)
        figures[f"phantom_vnet_{name}_mean_dice"] = dice["mean_dice"]
        shown("  most frequent class", mean_of(most_frequent(phantoms, cohort, "test"), DICE))
    folder = out / "phantom_gan_benchmark"
    if not (folder / "benchmark.tsv").is_file():
        run("benchmark", gan, real.folder, "-o", folder, "--leave-one-fold-out", "500", "--draws",
            "10")  # fmt: skip
    for row in read_tsv(folder / "benchmark.tsv"):
        low, high = float(row["auroc_low"]), float(row["auroc_high"])
        print(f"  {row['size']:>4} {row['score']:<30} {float(row['auroc']):.2f} "
              f"[{low:.2f}, {high:.2f}]")  # fmt: skip
    print_every_fold("phantom GAN on real", read_tsv(folder / "every_fold_summary.tsv"))
    return figures


def translated_rows(
    translator: Translator, cohort: Cohort, out: Path, splits: Sequence[str] = ()
) -> list[dict]:
    """Translate a cohort into a folder, and return the figures of each volume."""
    result = translator.translate(cohort, splits)
    result.save(out)
    return result.table


def print_every_fold(title: str, rows: list[dict]) -> None:
    print(f"{title}: every fold > 500, {rows[0]['folds']} of {rows[0]['participants']} brains")
    for row in rows:
        share, low, high = (float(row[f"paired{end}"]) for end in ("", "_low", "_high"))
        print(f"       {row['score']:<30} {share:.2f} [{low:.2f}, {high:.2f}]", flush=True)


def leave_one_out(out: Path, steps: int, vnet_steps: int) -> dict[str, float]:
    real = Cohort.open(out / "real")
    brains = sorted({row["participant_id"] for row in real.rows})
    archi = {name: Cohort.open(out / name) for name in ("archi_ours", "archi_theirs")}
    made, nearest, translated, frequent = [], [], [], []
    on_archi: dict[str, list] = {name: [] for name in archi}
    folds: FoldScores | None = None
    for n, brain in enumerate(brains):
        folder = out / "left_out" / brain
        cohort = leave_out(real, brain, brains[(n + 1) % len(brains)], folder / "cohort")
        gan = train("wgan_gp", cohort.folder, folder / "gan", steps, *AUGMENTED)
        vnet = train("vnet", cohort.folder, folder / "vnet", vnet_steps, *BATCH, *AUGMENTED)
        made += reconstructions(gan, cohort, "test")
        nearest += nearest_training(cohort, "test")
        translator = Translator.open(vnet, CPU)
        translated += translated_rows(translator, cohort, folder / "translated", ["test"])
        frequent += most_frequent(cohort, cohort, "test")
        for name, other in archi.items():
            on_archi[name] += translated_rows(translator, other, folder / name)
        scorer = BrainScores(RunFolder.open(gan).load(CPU)).fit(cohort)
        found = leave_one_fold_out(scorer, cohort, cohort.indices("test"), LARGE)
        folds = found if folds is None else folds.join(found)
        shown(f"left out {brain}", {"gan": mean_panel(made[-2:])["dice"],
              "vnet": mean_of(translated[-2:], DICE)["mean_dice"]})  # fmt: skip
    assert folds is not None
    panel = panel_of(made)
    shown("GAN, brains left out", panel)
    shown("  nearest training hemisphere", panel_of(nearest))
    dice = mean_of(translated, DICE)
    shown("V-Net, brains left out", dice)
    shown("  most frequent class", mean_of(frequent, DICE))
    for name, rows in on_archi.items():
        shown(f"V-Net, {name}", mean_of(rows, DICE))
    print_every_fold("GAN, brains left out", folds.summary())
    return {
        "left_out_gan_dice": panel["dice"],
        "left_out_gan_volume_ratio": panel["volume_ratio"],
        "left_out_vnet_mean_dice": dice["mean_dice"],
        **{f"vnet_{name}_mean_dice": mean_of(rows, DICE)["mean_dice"]
           for name, rows in on_archi.items()},
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path, metavar="DATA")
    parser.add_argument("out", type=Path, metavar="OUT", help="folder that keeps everything")
    parser.add_argument("--phantoms", type=int, default=300)
    parser.add_argument("--steps", type=int, nargs=2, default=(500, 600), metavar=("GAN", "VNET"))
    parser.add_argument(
        "--real-steps", type=int, nargs=2, default=(200, 300), metavar=("GAN", "VNET"),
        help="of each of the 14 trainings that leave a brain out",
    )  # fmt: skip
    arguments = parser.parse_args()
    out = arguments.out.absolute()
    out.mkdir(parents=True, exist_ok=True)
    prepare(arguments.data.absolute(), out, arguments.phantoms)
    figures = from_phantoms(out, *arguments.steps)
    figures |= leave_one_out(out, *arguments.real_steps)
    rounded = {name: round(value, 3) for name, value in figures.items()}
    write_figures(out / "figures.json", rounded)
    print(json.dumps(rounded))


if __name__ == "__main__":
    main()
