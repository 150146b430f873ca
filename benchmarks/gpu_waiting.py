"""Share of a step that is spent on data, on noise, and on waiting for the device."""

import time
import warnings
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from gpu_session import Session, arithmetic, replaced, step
from torch import Tensor

from foldnorm.models.noise import StepNoise
from foldnorm.pipeline.data.batches import Batches
from foldnorm.pipeline.training.setup import Training

CASES: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("restorer", ("--model.init_args.edits=[folds]",)),
    ("hypersphere_classifier", ("--model.init_args.edits=[folds]",)),
    ("restorer", ("--model.init_args.edits=[balls,slabs]",)),
    ("vnet", ()),
    ("vnet", ("--training.augmentation.rotation=5",)),
    ("vnet", ("--training.augmentation.elastic=2",)),
    ("wgan_gp", ()),
)


def waiting(session: Session) -> None:
    for config, words in CASES:
        row = {"config": config, "words": list(words)}
        session.measure(row, partial(_wait, session), at_most=45)


def _wait(session: Session, row: dict[str, Any]) -> None:
    batch, brief = (2, 0.2) if session.tiny else (16, 1.5)
    row["batch"] = batch
    with arithmetic(tf32=True):
        training = session.training(
            row["config"], session.cohorts["middle"], batch=batch, words=row["words"],
            precision="bf16" if session.is_gpu else "32",
        )  # fmt: skip
        try:
            row |= _with_waiting(session, training, brief)
            row |= _without(session, training, brief)
            row["share_lost_to_data_and_noise"] = round(
                1 - row["seconds_per_step_without_waiting"] / row["seconds_per_step"], 4
            )
            if session.is_gpu:
                row["syncs_in_a_step"] = synchronisations(training)
        finally:
            training.batches.close()


def _with_waiting(session: Session, training: Training, seconds: float) -> dict[str, float]:
    """Time a step as it is, and the shares of it that reading and drawing take."""
    spent: Counter[str] = Counter()

    def clocked(name: str, function: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def call(*given: Any, **named: Any) -> Tensor:
            now = time.perf_counter()
            found = function(*given, **named)
            spent[name] += time.perf_counter() - now
            return found

        return call

    with replaced(Batches, "batch", clocked("batch", Batches.batch)), \
            replaced(torch, "randn", clocked("noise", torch.randn)):  # fmt: skip
        step(training)
        session.wait()
        spent.clear()
        began = time.perf_counter()
        real, _, _ = session.timed(training, seconds=seconds, warm_up=0, most=20)
        whole = time.perf_counter() - began
    return {
        "seconds_per_step": round(real, 5),
        "share_in_batch": round(spent["batch"] / whole, 4),
        "share_drawing_noise": round(spent["noise"] / whole, 4),
    }


def _without(session: Session, training: Training, seconds: float) -> dict[str, float]:
    """Time a step that waits for nothing: batches are on the device, noise is kept."""
    kept = training.batches.batch(0).to(session.device)
    noise: dict[tuple[Any, ...], Tensor] = {}

    def drawn_once(make: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def draw(own: StepNoise, *shape: int) -> Tensor:
            key = (make.__name__, own.batch, shape)
            if key not in noise:
                noise[key] = make(own.batch, *shape).to(own.device)
            return noise[key]

        return draw

    with replaced(Batches, "batch", lambda own, number: kept), \
            replaced(StepNoise, "normal", drawn_once(torch.randn)), \
            replaced(StepNoise, "uniform", drawn_once(torch.rand)):  # fmt: skip
        ideal, _, _ = session.timed(training, seconds=seconds, warm_up=1, most=20)
    return {"seconds_per_step_without_waiting": round(ideal, 5)}


def synchronisations(training: Training) -> dict[str, int]:
    """Count calls of one step that wait for the device, by the line that made them."""
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            step(training)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    places = Counter(
        f"{'/'.join(Path(w.filename).parts[-2:])}:{w.lineno}"
        for w in heard
        if "synchroniz" in str(w.message)
    )
    return dict(places.most_common(12))
