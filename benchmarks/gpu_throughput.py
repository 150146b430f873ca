"""Volumes a second, memory and utilisation over networks, sides, batches and arithmetic.

Arithmetic: ``32`` is float32 throughout; ``tf32`` rounds what convolutions and matrix products take
to 10 bits, as PyTorch does for convolutions unless it is told otherwise; ``bf16`` is
``--training.precision bf16``.
"""

import contextlib
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from gpu_session import Session, arithmetic, replaced, step
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from foldnorm.models.protocols import Trainable
from foldnorm.pipeline.training import setup as training_setup
from foldnorm.pipeline.training.setup import Training, networks_of

# Dense peaks of the SXM cards, FLOP/s, by a part of the device's name.
PEAKS = {
    "H100": {"bf16": 989e12, "tf32": 494.7e12, "32": 66.9e12},
    "H200": {"bf16": 989e12, "tf32": 494.7e12, "32": 66.9e12},
    "A100": {"bf16": 312e12, "tf32": 156e12, "32": 19.5e12},
}
DOUBLE_BACKWARD = ("critic", "critics")  # torch.compile cannot differentiate these twice
CONFIGS = ("vnet", "wgan_gp")
KINDS = ("bf16", "tf32", "32")
IN_ALL_KINDS = (1, 2, 16, 64)  # batches; others in bf16 only
BATCHES = (16, 1, 4, 64, 32)  # what tells most comes first
PLAIN = {"channels_last": True, "compile": False, "benchmark": False}


class Flops(TorchDispatchMode):
    """Counts FLOPs of convolutions and matrix products, of second-order gradients too."""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Do what is asked, and count it."""
        out = func(*args, **(kwargs or {}))
        counted: Callable[..., int] | None = flop_registry.get(func._overloadpacket)
        if counted is not None:
            self.total += counted(*args, **(kwargs or {}), out_val=out)
        return out


def throughput(session: Session) -> None:
    _measure_all(session, _plan(session))


def compiling(session: Session) -> None:
    batch, side = (1 if session.tiny else BATCHES[0]), "middle"
    _measure_all(session, [
        {**PLAIN, "config": config, "side": side, "batch": batch, "kind": "bf16", "compile": True,
         "channels_last": last}
        for config in CONFIGS for last in (True, False)
    ])  # fmt: skip


def _plan(session: Session) -> list[dict[str, Any]]:
    """Cases, in the order in which they tell something."""
    sides = [name for name in ("middle", "large") if name in session.cohorts]
    batches = (1, 2) if session.tiny else BATCHES
    plan = [
        {**PLAIN, "config": config, "side": side, "batch": batch, "kind": kind}
        for batch in batches for side in sides for config in CONFIGS
        for kind in (KINDS if batch in IN_ALL_KINDS else KINDS[:1])
    ]  # fmt: skip
    if session.tiny:
        return plan
    layouts: list[dict[str, Any]] = []
    for config in CONFIGS:
        one = {**PLAIN, "config": config, "side": sides[0], "batch": batches[0]}
        layouts += [{**one, "kind": kind, "channels_last": False} for kind in KINDS]
        layouts += [{**one, "kind": "bf16", "benchmark": True, "channels_last": last}
                    for last in (True, False)]  # fmt: skip
    first = sum(1 for case in plan if case["batch"] == batches[0])
    return [*plan[:first], *layouts, *plan[first:]]


def _measure_all(session: Session, plan: list[dict[str, Any]]) -> None:
    flops = session.part["flops_per_volume_and_step"] = {}
    too_large: dict[tuple[str, ...], int] = {}
    for case in plan:
        key = (case["config"], case["side"], case["kind"])
        if case["batch"] >= too_large.get(key, case["batch"] + 1):
            session.part.setdefault("did_not_fit", []).append(case)
            continue
        row = dict(case)
        session.measure(
            row, partial(_measure, session, case, flops), at_most=90 if case["compile"] else 30
        )
        if "OutOfMemory" in row.get("error", ""):
            too_large[key] = case["batch"]


def _measure(
    session: Session, case: Mapping[str, Any], flops: dict[str, int], row: dict[str, Any]
) -> None:
    config, batch, kind = case["config"], case["batch"], case["kind"]
    cohort = session.cohorts[case["side"]]
    layout = contextlib.nullcontext() if case["channels_last"] else replaced(
        training_setup, "as_channels_last", lambda module, dims: module)  # fmt: skip
    name = f"{config} {'x'.join(map(str, cohort.shape))}"
    with arithmetic(tf32=kind != "32", benchmark=case["benchmark"]), layout:
        if name not in flops:
            one = session.training(config, cohort, batch=1)
            with Flops() as count:
                step(one)
            one.batches.close()
            del one
            flops[name] = count.total
        precision = "bf16" if kind == "bf16" else "32"
        training = session.training(config, cohort, batch=batch, precision=precision)
        try:
            if case["compile"]:
                row |= _compile(session, training)
            seconds, steps, peak = session.timed(training, seconds=0.2 if session.tiny else 1.2)
        finally:
            training.batches.close()
    assert isinstance(training.model, Trainable)
    phases = len(training.model.phase_order(0))
    rate = flops[name] * batch / seconds
    peaks = next((p for n, p in PEAKS.items() if n in session.device_name), None)
    row |= {
        "seconds_per_step": round(seconds, 5), "steps": steps, "phases": phases,
        "volumes_per_second": round(phases * batch / seconds, 2),
        "peak_memory_gib": None if peak is None else round(peak / 2**30, 3),
        "tflops": round(rate / 1e12, 3),
        "utilisation": None if peaks is None else round(rate / peaks[kind], 4),
    }  # fmt: skip


def _compile(session: Session, training: Training) -> dict[str, Any]:
    """Compile what is differentiated once only."""
    assert isinstance(training.model, Trainable)
    began = time.perf_counter()
    names = [name for name in networks_of(training.model) if name not in DOUBLE_BACKWARD]
    for name in names:
        getattr(training.model, name).compile()
    step(training)
    session.wait()
    return {"compiled": names, "seconds_to_compile": round(time.perf_counter() - began, 1)}
