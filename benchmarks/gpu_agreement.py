"""One step on the CPU and on the device; a resumed training beside an unbroken one."""

import warnings
from functools import partial
from pathlib import Path
from typing import Any

import torch
from gpu_session import Session, arithmetic
from gpu_waiting import synchronisations
from torch import Tensor

from foldnorm.models.noise import StepNoise
from foldnorm.models.protocols import Trainable
from foldnorm.pipeline.runs.config import resolve_for
from foldnorm.pipeline.runs.options import TrainingPrecision
from foldnorm.pipeline.runs.run_folder import RunFolder
from foldnorm.pipeline.training import train as train_module
from foldnorm.pipeline.training.arithmetic import mixed, of_backward

CONFIGS = ("restorer", "hypersphere_classifier", "vnet", "wgan_gp", "unit")
KINDS: tuple[tuple[TrainingPrecision, bool], ...]
KINDS = (("32", False), ("32", True), ("bf16", True))  # precision, TF32


def agreement(session: Session) -> None:
    for config in CONFIGS:
        for precision, tf32 in KINDS if session.is_gpu else KINDS[:1]:
            row = {"config": config, "precision": precision, "tf32": tf32}
            session.measure(row, partial(_one_step, session), at_most=40, rows="one_step")
    for config in ("vnet", "wgan_gp"):
        for deterministic in (True, False):
            row = {"config": config, "deterministic": deterministic}
            session.measure(row, partial(_resume, session), at_most=60, rows="resume")


def _one_step(session: Session, row: dict[str, Any]) -> None:
    """By phase: relative difference of loss and gradient from those of a CPU in float32."""
    with arithmetic(tf32=row["tf32"], deterministic=True):
        ours = _gradients(session, row["config"], "cpu", "32")
        theirs = _gradients(session, row["config"], session.device.type, row["precision"])
    row["phases"] = {
        phase: {
            "loss": loss,
            "loss_relative": abs(theirs[phase][0] - loss) / max(abs(loss), 1e-12),
            "gradient_relative": float(
                (theirs[phase][1] - gradient).norm() / gradient.norm().clamp(min=1e-30)
            ),
        }
        for phase, (loss, gradient) in ours.items()
    }


def _gradients(
    session: Session, config: str, device: str, precision: TrainingPrecision
) -> dict[str, tuple[float, Tensor]]:
    """Loss and gradient of each phase, float64 on the CPU."""
    training = session.training(
        config, session.cohorts["small"], batch=2, precision=precision, device=device
    )
    model, found = training.model.train(), {}
    assert isinstance(model, Trainable)
    try:
        for n, phase in enumerate(dict.fromkeys(model.phase_order(0))):
            train_module._freeze_all_but(model, phase)
            model.zero_grad(set_to_none=True)
            there = training.fabric.device
            noise = StepNoise((0, 0, n), 2, there, source="cpu")
            volumes = training.batches.batch(n).to(there)
            with mixed(precision, there):
                loss = model.loss(phase, volumes, noise)["loss"]
            with of_backward(model.phases[phase], there):
                loss.backward()
            gradients = [p.grad for p in model.parameters() if p.grad is not None]
            flat = torch.cat([gradient.flatten().double().cpu() for gradient in gradients])
            found[phase] = float(loss.detach()), flat
    finally:
        training.batches.close()
    return found


def _resume(session: Session, row: dict[str, Any]) -> None:
    """Four steps against two, a checkpoint, and two more."""
    config, cohort = row["config"], session.cohorts["small"]
    words = ["--training.steps=4", "--training.log_every=1", "--training.validate_every=2",
             "--training.validation_volumes=1", "--training.batch_size=2",
             "--training.decay=none"]  # fmt: skip
    place = session.place / "resume" / f"{config}-{row['deterministic']}"
    with (
        warnings.catch_warnings(record=True) as heard,
        arithmetic(deterministic=row["deterministic"]),
    ):
        warnings.simplefilter("always")
        whole = _weights(session, config, place / "whole", [words])
        parts = _weights(
            session, config, place / "parts", [[*words, "--training.session_steps=2"], words]
        )
    row["bit_exact"] = all(torch.equal(whole[name], parts[name]) for name in whole)
    row["largest_difference"] = max(
        float((whole[name].double() - parts[name].double()).abs().max()) for name in whole
    )
    row["nondeterministic"] = sorted(
        {str(w.message).split(" does not")[0][:120] for w in heard
         if "deterministic" in str(w.message)}
    )  # fmt: skip
    resumed = session.training(
        config, cohort, batch=2, out=place / "parts", resume=True, words=words[:1]
    )
    row["adam_steps_on"] = sorted(
        {str(s["step"].device) for o in resumed.optimizers.values() for s in o.state.values()}
    )
    if session.is_gpu:
        row["syncs_after_resume"] = sum(synchronisations(resumed).values())
    resumed.batches.close()


def _weights(
    session: Session, config: str, out: Path, sessions: list[list[str]]
) -> dict[str, Tensor]:
    """Return the weights after a training in one session or several."""
    cohort = session.cohorts["small"]
    for words in sessions:
        code = train_module.train(
            resolve_for(cohort, config, words), cohort, out, device=session.device.type,
            resume=True, quiet=True,
        )  # fmt: skip
        if code not in (0, 75):
            raise RuntimeError(f"exit code {code}")
    found: dict[str, Tensor] = RunFolder(out).load_checkpoint("last")["model"]
    return found
