"""Every shipped configuration trained, stopped, resumed and used, in both precisions."""

from pathlib import Path
from typing import Any

import numpy as np
from gpu_session import Session, command
from torch import nn

from foldnorm.models import WGANGP, BetaVAE, ImageVAE
from foldnorm.models.protocols import (
    Classifies,
    Decodes,
    Encodes,
    Generates,
    Recognises,
    Restores,
    RestoresImages,
    Translates,
)
from foldnorm.pipeline.runs.config import shipped_configs
from foldnorm.pipeline.runs.run_folder import RunFolder
from foldnorm.pipeline.view.library import Library
from foldnorm.preprocessing.cohort.cohort import Cohort

FIRST = ("restorer", "hypersphere_classifier", "vnet", "wgan_gp")
OF_IMAGES = {
    "cnn_classifier", "mlp_classifier", "damage_unet", "multi_domain_vae", "image_vae",
    "image_wgan_gp", "denoising_autoencoder", "convolutional_autoencoder", "dense_autoencoder",
}  # fmt: skip
EVERY_STEP = ("--model.init_args.sampler=ddpm", "--model.init_args.diffusion_steps=10")
# Ways through the code that no shipped configuration takes by itself.
VARIANTS = {
    "ddpm every-step": EVERY_STEP,
    "latent_ddpm every-step": EVERY_STEP,
    "wgan_gp ema-edits": (
        "--training.ema=0.9", "--model.init_args.edits=[folds,balls]",
        "--model.init_args.encoder_input=distance", "--training.warmup_steps=2",
        "--model.init_args.class_weights=[1,1,2]",
    ),
    "image_vae told": ("--model.init_args.condition=[class]",),
    "vqvae_transformer windows": ("--model.init_args.window=[3,4,5]",),
    "vnet weighted": (
        "--model.init_args.class_weights=[1,1,2]", "--model.init_args.dice_weight=1",
        "--training.augmentation.rotation=5",
    ),
}  # fmt: skip
OF_CODES = (BetaVAE, ImageVAE, WGANGP)  # the analyses of codes take longer, and are of no model
SMALL_DIFFUSION = ("--model.init_args.channels=[8,16]", "--model.init_args.attention=[false,false]")
DIFFUSION = ("ddpm", "latent_ddpm", "rectified_flow", "latent_flow")
# Smaller networks, for a CPU.
SMALLER = {
    **dict.fromkeys(DIFFUSION, SMALL_DIFFUSION),
    "damage_unet": ("--model.init_args.channels=8", "--model.init_args.tta_flips=false"),
    "vqvae_transformer": ("--model.init_args.width=16", "--model.init_args.depth=1"),
    "wgan_gp_report": ("--model.init_args.latent_dim=16",),
}

BF16 = " bf16"  # after the name of a configuration that is also trained so
# One of each kind of network; the others differ in theirs.
IN_BF16 = ("vnet", "wgan_gp", "unit", "f_anogan", "damage_unet", "ddpm", "restorer")
# Kinds of models that a bundle can be made of.
EXPORTED = (Decodes, Translates, Restores, RestoresImages, Recognises, Classifies)
# What `device_simulation` goes through.
CASES = [*sorted(shipped_configs()), *VARIANTS, *(name + BF16 for name in IN_BF16)]


def smoke(session: Session) -> None:
    shipped = sorted(shipped_configs(), key=lambda name: (name not in FIRST, name))
    chosen = [c for c in [*shipped, *VARIANTS] if not session.configs or c in session.configs]
    for precision in ["32"] if session.tiny else ["bf16", "32"]:
        for config in chosen:
            row = {"config": config, "precision": precision}
            session.measure(row, lambda row: through(session, row), at_most=60)
    session.part["failed"] = [
        f"{row['config']} {row['precision']}"
        for row in session.part.get("rows", [])
        if "error" in row or any(row["codes"].values()) or not row["finite"]
    ]


def through(session: Session, row: dict[str, Any]) -> None:
    """Train a configuration in two sessions and use it; ``row`` gets exit codes by command."""
    config, _, variant = row["config"].partition(" ")
    name = f"{config}-{variant}-{row['precision']}"
    cohort = session.cohorts["images" if config in OF_IMAGES else "small"]
    run = session.place / "runs" / name
    device = ("--device", session.device.type)
    words: list[object] = [
        "train", config, cohort.folder, "-o", run, "--resume", "auto",
        *device, "--training.precision", row["precision"], "--training.batch_size", 2,
        "--training.steps", 4, "--training.log_every", 2, "--training.validate_every", 2,
        "--training.validation_volumes", 2, *VARIANTS.get(row["config"], ()),
    ]  # fmt: skip
    if config in DIFFUSION:
        words += ["--model.init_args.sampling_steps", 3]
    if session.tiny:
        words += SMALLER.get(config, ())
    codes, said = row.setdefault("codes", {}), row.setdefault("said", {})
    row["finite"] = True
    code, said["train"] = command(*words, "--training.session_steps", 2)
    codes["train"] = 0 if code == 75 else code or "did not stop"
    if codes["train"]:
        return
    codes["resume"], said["resume"] = command(*words)
    if codes["resume"]:
        return
    lines = (run / "metrics.csv").read_text(encoding="utf-8").splitlines()[1:]
    figures = [float(value) for line in lines for value in line.split(",") if value]
    row["finite"] = bool(np.isfinite(figures).all())
    model = RunFolder.open(run).load().model
    for asked in _uses(model, [run, cohort.folder, session.place / "used" / name], cohort):
        code, line = command(*asked, *device)
        # 2: too few phantoms to calibrate with and the like; no matter of the device.
        codes[str(asked[0])], said[str(asked[0])] = (0 if code == 2 else code), line
    if isinstance(model, EXPORTED):
        words = ["export", run, "-o", session.place / "bundles" / name]
        codes["export"], said["export"] = command(*words)
    if isinstance(model, (Decodes, Restores, RestoresImages, Translates)):
        _view(run, cohort, session.device.type)
        codes["view"], said["view"] = 0, ""  # or it has raised


def _view(run: Path, cohort: Cohort, device: str) -> None:
    """Make what the walk in a browser shows of the first brain."""
    library = Library([cohort.folder, run], device)
    if cohort.holds_images:
        assert library.repaired(0, 0, 0, 0)
    else:
        assert library.made(0, 0, 0)
        assert library.difference(0, 0, 0)


def _uses(model: nn.Module, where: list[object], cohort: Cohort) -> list[list[object]]:
    """Commands for a trained model of its kind; ``where``: run, cohort, output."""
    run, folder, out = where
    for kind, name in ((Translates, "translate"), (Recognises, "label-sulci"),
                       (Classifies, "classify")):  # fmt: skip
        if isinstance(model, kind):
            return [[name, run, folder, "-o", out]]
    if cohort.holds_images and isinstance(model, RestoresImages):
        return [["restore", run, folder, "-o", out]]
    found: list[list[object]] = []
    if isinstance(model, (Decodes, Restores, Encodes)):
        found.append(["score", run, folder, "-o", out, "--maps"])
    if isinstance(model, Encodes):
        found.append(["embed", run, folder, "-o", f"{out}-codes"])
        if isinstance(model, OF_CODES):
            found.append(["latent", run, folder, "-o", f"{out}-latent"])
            if not cohort.holds_images:
                found.append(["benchmark", run, folder, "-o", f"{out}-benchmark", "--size", 100])
    if isinstance(model, Generates):
        found.append(["generate", run, "-o", f"{out}-drawn", "--num", 2])
    return found
