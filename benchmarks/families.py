"""Models of images: digits told apart and denoised, slices drawn and restored.

DATA holds `mnist` (idx archives) and `brain_slices`.

1. Digits are split by the hash of their number: about 7,600 to train on, 400 for validation and
   2,000 to test. Accuracies with 95 % intervals and the commonest class beside them; gain of PSNR
   at a noise of half the range.
2. Slices of 64², split by participant: diffusion and a rectified flow of a small network (10,000
   steps of eight, half an hour of one core; the shipped configurations are for GPUs), drawn in 50
   steps of DDIM, in 1,000 of DDPM and in 20 of the flow, and how long each takes; a VAE and a
   WGAN-GP; all beside the floor of held-out slices.
3. Phantoms, 40³ at 2 mm around the superior temporal branches: β-VAE, WGAN-GP and latent diffusion,
   likewise beside held-out phantoms.
4. Slices of 128², split by participant: strokes are found and replaced by U-Nets, IoU of the mask
   for each kind of stroke, and in JPEGs; beside it biharmonic inpainting with the mask that they
   find, and with the true one; and multi-domain VAEs in their three forms.
5. Slices of 64², strokes of at most 6 pixels and wider ones: what the rectified flow draws where
   U-Nets find damage, beside what they put there, and beside biharmonic inpainting.

OUT keeps everything; what is there is not made again. With --parts, only some of this. Ends with
one line of JSON, which OUT/figures.json holds with commit, date and machine.
"""

import argparse
import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from figures import write_figures
from PIL import Image

from foldnorm.pipeline.cli import main as foldnorm
from foldnorm.preprocessing.core.files import numbers_of, read_json, write_json

SPLIT = (".76", ".04", ".2")
NOISE = 0.5  # of the range
SLICE_SPLIT = (".7", ".1", ".2")
DRAWN, DRAWN_SLOWLY = 200, 24  # images, by DDIM and by all steps
WIDTHS = {"thin": (1.5, 6), "wide": (6, 12)}  # of strokes, pixels
SMALL = {
    "training.steps": "10000",
    "training.validate_every": "1000",
    "training.batch_size": "8",
    "training.learning_rate": "4e-4",
    "model.init_args.channels": "[32,64,64]",
    "model.init_args.attention": "[false,false,false]",
    "model.init_args.residual_blocks": "1",
    "model.init_args.patch": "2",
}
CROP = ("--voxel-size", "2", "--crop", "mm:-76,4,-70,10,-40,40")
CROP_STEPS = {"wgan_gp": ("--training.steps", "200"), "beta_vae": ("--training.steps", "1500"),
              "latent_ddpm": ("--training.steps", "3000")}  # fmt: skip
SLICE_STEPS = {"image_wgan_gp": ("--training.steps", "1000")}
VARIANTS = ("plain", "skip", "residual")  # of the multi-domain VAE
STROKES = ("straight", "broken", "curved")
JPEGS = (95, 75)  # quality


def run(*words: object) -> None:
    code = foldnorm([*map(str, words), "--quiet"])
    assert code == 0, (code, words)


def trained(out: Path, config: str, cohort: Path, *words: str) -> Path:
    if not (out / "cost.json").is_file():
        run("train", config, cohort, "-o", out, "--resume", "auto",
            "--device", "cpu", *words)  # fmt: skip
    minutes = read_json(out / "cost.json")["seconds"] / 60
    print(f"{config}: {minutes:.1f} minutes of training", flush=True)
    return out


def digits(data: Path, out: Path) -> Path:
    """Cohort of MNIST's test digits."""
    cohort = out / "digits"
    if not (cohort / "volumes.npy").is_file():
        run("images", data / "mnist", "-o", cohort, "--split-fractions", *SPLIT)
    return cohort


def of_digits(kind: str, data: Path, out: Path) -> dict[str, float]:
    """Classifier of digits, ``cnn`` or ``mlp``."""
    cohort = digits(data, out)
    folder = trained(out / f"digits_{kind}", f"{kind}_classifier", cohort)
    run("classify", folder, cohort, "-o", folder / "told", "--split", "test", "--overwrite")
    told = read_json(folder / "told/classes.json")
    low, high = told["accuracy_low"], told["accuracy_high"]
    print(f"  {told['tested']} digits: {told['accuracy']:.4f} [{low:.4f}, {high:.4f}], "
          f"commonest class {told['commonest_class']:.3f}")  # fmt: skip
    names = ("accuracy", "accuracy_low", "accuracy_high", "commonest_class", "tested")
    return {f"mnist_{kind}_{name}": told[name] for name in names}


def of_noise(data: Path, out: Path) -> dict[str, float]:
    """Autoencoders that take noise from digits."""
    cohort = digits(data, out)
    words = ["--model.init_args.noise_factor", str(NOISE)]
    figures: dict[str, float] = {}
    for config in ("denoising_autoencoder", "dense_autoencoder"):
        folder = trained(out / f"digits_{config}", config, cohort, *words)
        repaired = restored(folder, cohort)
        psnr, gain = repaired["psnr"], repaired["psnr_gain"]
        print(f"  noise {NOISE:g}: PSNR {psnr:.2f} dB, {gain:+.2f} dB, SSIM {repaired['ssim']:.3f}")
        figures |= {f"{config}_psnr": psnr, f"{config}_psnr_before": psnr - gain,
                    f"{config}_ssim": repaired["ssim"]}  # fmt: skip
    return figures


def restored(folder: Path, cohort: Path) -> dict[str, Any]:
    run("restore", folder, cohort, "-o", folder / "restored", "--split", "test", "--degrade",
        "--overwrite")  # fmt: skip
    return read_json(folder / "restored/restored.json")


def of_diffusion(data: Path, out: Path) -> dict[str, float]:
    """Drawn brain slices, and what fewer steps save."""
    cohort = small_slices(data, out)
    folder = diffusion(out, "ddpm", cohort)
    figures = {}
    for sampler, number in (("ddpm", DRAWN_SLOWLY), ("ddim", DRAWN_SLOWLY), ("ddim", DRAWN)):
        words = ("--scheduler", sampler, "--num", number)
        figures |= drawn(cohort, folder, f"{sampler}_{number}", words)
    each = [figures[f"{sampler}_{DRAWN_SLOWLY}_seconds"] for sampler in ("ddpm", "ddim")]
    flow = diffusion(out, "rectified_flow", cohort)
    figures |= drawn(cohort, flow, "rectified_flow", ("--num", DRAWN))
    for config in ("image_vae", "image_wgan_gp"):
        folder = trained(out / f"slices64_{config}", config, cohort, *SLICE_STEPS.get(config, ()))
        figures |= drawn(cohort, folder, config, ("--num", DRAWN))
    return {"ddim_speedup": each[0] / each[1], **figures}


def small_slices(data: Path, out: Path) -> Path:
    """Cohort of slices of 64²."""
    cohort = out / "slices64"
    if not (cohort / "volumes.npy").is_file():
        run("images", data / "brain_slices", "-o", cohort, "--shape", 64, "--split-fractions",
            *SLICE_SPLIT)  # fmt: skip
    return cohort


def diffusion(out: Path, config: str, cohort: Path) -> Path:
    """Run folder of a diffusion model of small slices."""
    sizes = [word for name, value in SMALL.items() for word in (f"--{name}", value)]
    return trained(out / f"slices64_{config}", config, cohort, *sizes)


def of_inpainting(data: Path, out: Path) -> dict[str, float]:
    """Small slices whose damage a rectified flow draws anew."""
    cohort = small_slices(data, out)
    prior = diffusion(out, "rectified_flow", cohort)
    sizes = ["--model.init_args.widths", f"[{WIDTHS['thin'][0]},{WIDTHS['wide'][1]}]",
             "--model.init_args.max_damage", "3"]  # fmt: skip
    folder = trained(out / "slices64_damage_unet", "damage_unet", cohort, *sizes)
    figures: dict[str, float] = {}
    for name, widths in WIDTHS.items():
        for method in ("model", "biharmonic", "true-mask", "diffusion"):
            told = folder / f"restored_{name}_{method}"
            words = ("--prior", prior) if method == "diffusion" else ()
            if not (told / "restored.json").is_file():
                run("restore", folder, cohort, "-o", told, "--split", "test", "--degrade",
                    "--widths", *widths, "--method", method, "--device", "cpu",
                    *words)  # fmt: skip
            found = read_json(told / "restored.json")
            print(f"  {name}, {method}: inside {found['psnr_inside']:.2f} dB, all "
                  f"{found['psnr']:.2f} dB, IoU {found['mask_iou']:.3f}", flush=True)  # fmt: skip
            for figure in ("psnr", "ssim", "psnr_inside", "mask_iou"):
                figures[f"inpainting_{name}_{method}_{figure}"] = found[figure]
    return figures


def of_crops(data: Path, out: Path) -> dict[str, float]:
    """Drawn crops of phantoms, for which no data are needed."""
    del data
    cohort = out / "crops"
    if not (cohort / "volumes.npy").is_file():
        run("phantom", "-o", out / "phantoms", "--subjects", 640)
        run("preprocess", out / "phantoms", "-o", cohort, "--split-fractions", ".68", ".32", "0",
            *CROP)  # fmt: skip
    figures = {}
    for config in ("beta_vae", "wgan_gp", "latent_ddpm"):
        folder = trained(out / f"crops_{config}", config, cohort, *CROP_STEPS.get(config, ()))
        figures |= drawn(cohort, folder, config, ("--num", DRAWN))
    return figures


def drawn(cohort: Path, folder: Path, name: str, words: tuple[object, ...]) -> dict[str, float]:
    """Compare drawn volumes with held-out ones, and measure the time that drawing one takes."""
    made, told = folder / f"drawn_{name}", folder / f"quality_{name}"
    if not (made / "seconds.json").is_file():
        begin = time.perf_counter()
        run("generate", folder, "-o", made, *words, "--device", "cpu", "--overwrite")
        number = len(list(made.glob("synthetic-*")))
        write_json(made / "seconds.json", {"each": (time.perf_counter() - begin) / number})
    seconds = read_json(made / "seconds.json")["each"]
    if not (told / "quality.json").is_file():
        run("evaluate-synthetic", cohort, made, "-o", told)
    found = read_json(told / "quality.json")
    print(f"  {name}: {seconds:.2f} s each, {found['volumes_of_each_set']} of each set; "
          "synthetic / held out")  # fmt: skip
    figures = {f"{name}_seconds": seconds}
    for figure, known in found["figures"].items():
        values = numbers_of(known)
        print(f"    {figure:<28} {values['synthetic']:.3f} / {values['held_out']:.3f}", flush=True)
        figures[f"{name}_{figure}"] = values["synthetic"]
        figures[f"{name}_{figure}_floor"] = values["held_out"]
    return figures


def of_slices(data: Path, out: Path) -> dict[str, float]:
    """Restoration of brain slices."""
    cohort = out / "slices"
    if not (cohort / "volumes.npy").is_file():
        run("images", data / "brain_slices", "-o", cohort, "--split-fractions", *SLICE_SPLIT)
    folder = trained(out / "slices_damage_unet", "damage_unet", cohort)
    figures, ways = {}, {kind: ("--damage", kind) for kind in STROKES}
    for name, words in {"all": (), **ways}.items():
        for method in ("model", "biharmonic", "true-mask") if name == "all" else ("model",):
            told = folder / f"restored_{name}_{method}"
            if not (told / "restored.json").is_file():
                run("restore", folder, cohort, "-o", told, "--split", "test", "--degrade",
                    "--method", method, *words)  # fmt: skip
            found = read_json(told / "restored.json")
            figures[f"{name}_{method}"] = found
            before = found["psnr"] - found["psnr_gain"]
            print(f"  {name}, {method}: PSNR {before:.2f} -> {found['psnr']:.2f} dB, SSIM "
                  f"{found['ssim']:.3f}, inside {found['psnr_inside']:.2f} dB, IoU "
                  f"{found['mask_iou']:.3f}", flush=True)  # fmt: skip
    in_jpegs = {f"mask_iou_jpeg_{quality}": found_in_jpegs(folder, quality) for quality in JPEGS}
    for variant in VARIANTS:
        words = ["--model.init_args.variant", variant, "--training.steps", "600"]
        folder = trained(out / f"slices_vae_{variant}", "multi_domain_vae", cohort, *words)
        found = restored(folder, cohort)
        print(f"  {variant}: PSNR {found['psnr']:.2f} dB, SSIM {found['ssim']:.3f}, inside "
              f"{found['psnr_inside']:.2f} dB", flush=True)  # fmt: skip
        figures[f"multi_domain_{variant}"] = found
    whole = figures["all_model"]
    return {
        "mask_iou": min(figures[f"{kind}_model"]["mask_iou"] for kind in STROKES),
        "restored_psnr": whole["psnr"],
        "restored_ssim": whole["ssim"],
        "inpainting_gain_db": whole["psnr_inside"] - figures["all_true-mask"]["psnr_inside"],
        **in_jpegs,
        **{
            f"multi_domain_{variant}_psnr": figures[f"multi_domain_{variant}"]["psnr"]
            for variant in VARIANTS
        },
    }


def found_in_jpegs(folder: Path, quality: int) -> float:
    """IoU of the masks found in the degraded test images once they are JPEGs."""
    degraded = sorted((folder / "restored_all_model").glob("*_desc-degraded.png"))
    source, told = folder / f"jpegs_{quality}", folder / f"restored_jpegs_{quality}"
    if not (told / "restored.json").is_file():
        source.mkdir(exist_ok=True)
        for n, path in enumerate(degraded):
            Image.open(path).save(source / f"{n:04d}.jpg", quality=quality)
        run("restore", folder, source, "-o", told)
    ious = []
    for n, path in enumerate(degraded):
        (found,) = told.glob(f"sub-{n:04d}_*desc-found.png")
        true = path.with_name(path.name.replace("degraded", "mask"))
        ours, theirs = (np.asarray(Image.open(p)) > 0 for p in (found, true))
        ious.append((ours & theirs).sum() / max((ours | theirs).sum(), 1))
    print(f"  JPEG of quality {quality}: IoU {np.mean(ious):.3f}", flush=True)
    return float(np.mean(ious))


PARTS: dict[str, Callable[[Path, Path], dict[str, float]]] = {
    "cnn": partial(of_digits, "cnn"),
    "mlp": partial(of_digits, "mlp"),
    "noise": of_noise,
    "slices": of_slices,
    "diffusion": of_diffusion,
    "inpainting": of_inpainting,
    "crops": of_crops,
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path, metavar="DATA")
    parser.add_argument("out", type=Path, metavar="OUT", help="folder that keeps everything")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    arguments = parser.parse_args()
    data, out = arguments.data.absolute(), arguments.out.absolute()
    figures: dict[str, float] = {}
    for part in arguments.parts:
        figures |= PARTS[part](data, out)
    figures = {name: round(value, 4) for name, value in figures.items()}
    write_figures(out / "figures.json", figures)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
