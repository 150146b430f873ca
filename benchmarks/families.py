"""Models of images: digits told apart and denoised, slices drawn and restored.

DATA holds `mnist` (idx archives) and `brain_slices`.

1. Digits are split by the hash of their number: about 7,600 to train on, 400 for validation and
   2,000 to test. Accuracies with 95 % intervals and the commonest class beside them; gain of PSNR
   at a noise of half the range.
2. Slices of 64², split by participant: diffusion of a small network (8,000 steps of eight, some
   hours of one core; the shipped configuration is for GPUs), drawn in 50 steps of DDIM and in 1,000
   of DDPM, beside the floor of held-out slices; and how long each takes.
3. Slices of 128², split by participant: strokes are found and replaced by a U-Net, IoU of the mask
   for each kind of stroke; beside it biharmonic inpainting with the mask that the U-Net finds, and
   with the true one.

OUT keeps everything; what is there is not made again. Ends with one line of JSON.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

from foldnorm.pipeline.cli import main as foldnorm
from foldnorm.preprocessing.files import read_json, write_json

SPLIT = (".76", ".04", ".2")
NOISE = 0.5  # of the range
SLICE_SPLIT = (".7", ".1", ".2")
DRAWN, DRAWN_SLOWLY = 200, 24  # images, by DDIM and by all steps
DIFFUSION = {
    "training.steps": "8000",
    "training.validate_every": "1000",
    "training.batch_size": "8",
    "training.learning_rate": "4e-4",
    "model.init_args.channels": "[32,64,64]",
    "model.init_args.attention": "[false,false,false]",
    "model.init_args.residual_blocks": "1",
}
STROKES = ("straight", "broken", "curved")


def run(*words: object) -> None:
    code = foldnorm([*map(str, words), "--quiet"])
    assert code == 0, (code, words)


def trained(out: Path, config: str, cohort: Path, *words: str) -> Path:
    if not (out / "cost.json").is_file():
        run("train", "--config", config, "--cohort", cohort, "--out", out, "--resume", "auto",
            "--device", "cpu", *words)  # fmt: skip
    minutes = read_json(out / "cost.json")["seconds"] / 60
    print(f"{config}: {minutes:.1f} minutes of training", flush=True)
    return out


def of_digits(data: Path, out: Path) -> dict[str, float]:
    """Classifiers and autoencoders on MNIST."""
    cohort = out / "digits"
    if not (cohort / "volumes.npy").is_file():
        run("images", data / "mnist", cohort, "--split", *SPLIT)
    figures: dict[str, float] = {}
    for kind in ("cnn", "mlp"):
        folder = trained(out / f"digits_{kind}", f"{kind}_classifier", cohort)
        run("classify", folder, cohort, folder / "told", "--split", "test", "--overwrite")
        told = read_json(folder / "told/classes.json")
        figures |= {f"mnist_{kind}_{name}": told[name]
                    for name in ("accuracy", "accuracy_low", "accuracy_high")}  # fmt: skip
        low, high = told["accuracy_low"], told["accuracy_high"]
        print(f"  {told['tested']} digits: {told['accuracy']:.4f} [{low:.4f}, {high:.4f}], "
              f"commonest class {told['commonest_class']:.3f}")  # fmt: skip
    words = ["--model.init_args.noise_factor", str(NOISE)]
    for config in ("denoising_autoencoder", "dense_autoencoder"):
        folder = trained(out / f"digits_{config}", config, cohort, *words)
        repaired = restored(folder, cohort)
        psnr, gain = repaired["psnr"], repaired["psnr_gain"]
        print(f"  noise {NOISE:g}: PSNR {psnr:.2f} dB, {gain:+.2f} dB, SSIM {repaired['ssim']:.3f}")
        if config == "denoising_autoencoder":
            figures["denoise_gain_db"] = repaired["psnr_gain"]
    return figures


def restored(folder: Path, cohort: Path) -> dict[str, Any]:
    run("restore", folder, cohort, folder / "restored", "--split", "test", "--degrade",
        "--overwrite")  # fmt: skip
    return read_json(folder / "restored/restored.json")


def of_diffusion(data: Path, out: Path) -> dict[str, float]:
    """Drawn brain slices, and what DDIM saves."""
    cohort = out / "slices64"
    if not (cohort / "volumes.npy").is_file():
        run("images", data / "brain_slices", cohort, "--size", 64, "--split", *SLICE_SPLIT)
    sizes = [word for name, value in DIFFUSION.items() for word in (f"--{name}", value)]
    folder = trained(out / "slices64_ddpm", "ddpm", cohort, *sizes)
    seconds, figures = {}, {}
    for sampler, number in (("ddim", DRAWN), ("ddpm", DRAWN_SLOWLY)):
        made = folder / f"drawn_{sampler}"
        if not (made / "seconds.json").is_file():
            begin = time.perf_counter()
            run("generate", folder, made, "--number", number, "--sampler", sampler, "--device",
                "cpu", "--overwrite")  # fmt: skip
            write_json(made / "seconds.json", {"each": (time.perf_counter() - begin) / number})
        seconds[sampler] = read_json(made / "seconds.json")["each"]
        run("quality", cohort, made, folder / f"quality_{sampler}", "--overwrite")
        found = read_json(folder / f"quality_{sampler}/quality.json")["figures"]
        print(f"  {sampler}: {seconds[sampler]:.2f} s each, {number} drawn; synthetic / held out")
        for name, values in found.items():
            print(f"    {name:<20} {values['synthetic']:.3f} / {values['held_out']:.3f}")
            figures[f"{sampler}_{name}"] = values["synthetic"]
            figures[f"{sampler}_{name}_floor"] = values["held_out"]
    return {"ddim_speedup": seconds["ddpm"] / seconds["ddim"], **figures}


def of_slices(data: Path, out: Path) -> dict[str, float]:
    """Restoration of brain slices."""
    cohort = out / "slices"
    if not (cohort / "volumes.npy").is_file():
        run("images", data / "brain_slices", cohort, "--split", *SLICE_SPLIT)
    folder = trained(out / "slices_damage_unet", "damage_unet", cohort)
    figures, ways = {}, {kind: ("--damage", kind) for kind in STROKES}
    for name, words in {"all": (), **ways}.items():
        for method in ("model", "biharmonic", "true-mask") if name == "all" else ("model",):
            told = folder / f"restored_{name}_{method}"
            if not (told / "restored.json").is_file():
                run("restore", folder, cohort, told, "--split", "test", "--degrade", "--method",
                    method, *words)  # fmt: skip
            found = read_json(told / "restored.json")
            figures[f"{name}_{method}"] = found
            before = found["psnr"] - found["psnr_gain"]
            print(f"  {name}, {method}: PSNR {before:.2f} -> {found['psnr']:.2f} dB, SSIM "
                  f"{found['ssim']:.3f}, inside {found['psnr_inside']:.2f} dB, IoU "
                  f"{found['mask_iou']:.3f}", flush=True)  # fmt: skip
    whole = figures["all_model"]
    return {
        "mask_iou": min(figures[f"{kind}_model"]["mask_iou"] for kind in STROKES),
        "restored_psnr": whole["psnr"],
        "restored_ssim": whole["ssim"],
        "inpainting_gain_db": whole["psnr_inside"] - figures["all_true-mask"]["psnr_inside"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path, metavar="DATA")
    parser.add_argument("out", type=Path, metavar="OUT", help="folder that keeps everything")
    arguments = parser.parse_args()
    data, out = arguments.data.absolute(), arguments.out.absolute()
    figures = of_digits(data, out) | of_slices(data, out) | of_diffusion(data, out)
    print(json.dumps({name: round(value, 4) for name, value in figures.items()}))


if __name__ == "__main__":
    main()
