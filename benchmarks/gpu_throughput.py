"""Volumes a second, memory and utilisation over networks, sides, batches and arithmetic.

Arithmetic: ``32`` is float32 throughout; ``tf32`` rounds what convolutions and matrix products take
to 10 bits, as PyTorch does for convolutions unless it is told otherwise; ``bf16`` is
``--training.precision bf16``. Other settings of a case are those of a training unless it says that
they are not: channels last where `set_up` has them, cuDNN racing its algorithms, nothing compiled.
"""

import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from gpu_session import Session, arithmetic, replaced, step
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from foldnorm.models.blocks import as_channels_last
from foldnorm.models.protocols import Trainable
from foldnorm.pipeline.training import setup as training_setup
from foldnorm.pipeline.training.compiled import compiled_parts
from foldnorm.pipeline.training.setup import Training

# Dense peaks of the SXM cards, FLOP/s, by a part of the device's name.
PEAKS = {
    "H100": {"bf16": 989e12, "tf32": 494.7e12, "32": 66.9e12},
    "H200": {"bf16": 989e12, "tf32": 494.7e12, "32": 66.9e12},
    "A100": {"bf16": 312e12, "tf32": 156e12, "32": 19.5e12},
}
CONFIGS = ("vnet", "wgan_gp")
KINDS = ("bf16", "tf32", "32")
IN_ALL_KINDS = (1, 2, 16, 64)  # batches; others in bf16 only
BATCHES = (16, 1, 4, 64, 32)  # what tells most comes first
COMPILED: tuple[bool | str, ...] = (True, "reduce-overhead")  # as `training.compile` has them


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
        packet = func._overloadpacket
        counted: Callable[..., int] | None = flop_registry.get(packet)
        if counted is not None:
            self.add(counted(*args, **(kwargs or {}), out_val=out), packet, args, out)
        return out

    def add(self, flops: int, packet: Any, args: tuple[Any, ...], out: Any) -> None:
        """Count the operations of one call of an operator, with what it was given and made."""
        del packet, args, out
        self.total += flops


def throughput(session: Session) -> None:
    _measure_all(session, _plan(session))


def compiling(session: Session) -> None:
    batch, hows = (1, COMPILED[:1]) if session.tiny else (BATCHES[0], COMPILED)
    cases = [_case(config, "middle", batch, "bf16", compile=how)
             for how in hows for config in CONFIGS]  # fmt: skip
    other = [{**case, "channels_last": not case["channels_last"]} for case in cases]
    _measure_all(session, [*cases, *other])


def _case(config: str, side: str, batch: int, kind: str, **others: Any) -> dict[str, Any]:
    """Return a case as a training is by default, but for the others."""
    return {"channels_last": kind != "bf16", "compile": False, "benchmark": True, "config": config,
            "side": side, "batch": batch, "kind": kind, **others}  # fmt: skip


def _plan(session: Session) -> list[dict[str, Any]]:
    """Cases, in the order in which they tell something."""
    sides = [name for name in ("middle", "large") if name in session.cohorts]
    batches = (1, 2) if session.tiny else BATCHES
    plan = [
        _case(config, side, batch, kind)
        for batch in batches for side in sides for config in CONFIGS
        for kind in (KINDS if batch in IN_ALL_KINDS else KINDS[:1])
    ]  # fmt: skip
    if session.tiny:
        return plan
    layouts: list[dict[str, Any]] = []
    for config in CONFIGS:
        of_kinds = [_case(config, sides[0], batches[0], kind) for kind in KINDS]
        layouts += [{**case, "channels_last": not case["channels_last"]} for case in of_kinds]
        layouts += [{**of_kinds[0], "benchmark": False}]
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
        session.figures |= by_name(row)


def by_name(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the figures of a case under one name each, as pages ask for them; none if it failed.

    Such as ``vnet_middle_16_bf16_volumes_per_second``: config, side, batch and kind, and
    ``channels_last``, ``raced`` (algorithms of cuDNN), ``compiled`` or ``graphs`` where it is so.
    """
    compiled = {False: "", True: "compiled"}.get(row["compile"], "graphs")
    words = [row["config"], row["side"], str(row["batch"]), row["kind"],
             "channels_last" * row["channels_last"], "raced" * row["benchmark"],
             compiled]  # fmt: skip
    name = "_".join(filter(None, words))
    asked = ("volumes_per_second", "utilisation", "peak_memory_gib", "seconds_to_compile")
    return {f"{name}_{figure}": row[figure] for figure in asked if row.get(figure) is not None}


def _measure(
    session: Session, case: Mapping[str, Any], flops: dict[str, int], row: dict[str, Any]
) -> None:
    config, batch, kind = case["config"], case["batch"], case["kind"]
    cohort = session.cohorts[case["side"]]
    as_made = replaced(training_setup, "as_channels_last", lambda module, dims: module)
    name = f"{config} {'x'.join(map(str, cohort.shape))}"
    with arithmetic(tf32=kind != "32", benchmark=case["benchmark"]), as_made:
        if name not in flops:
            one = session.training(config, cohort, batch=1)
            with Flops() as count:
                step(one)
            one.batches.close()
            del one
            flops[name] = count.total
        precision = "bf16" if kind == "bf16" else "32"
        words = [f"--training.compile={str(case['compile']).lower()}"]
        training = session.training(config, cohort, batch=batch, precision=precision, words=words)
        if case["channels_last"]:
            as_channels_last(training.model, len(cohort.shape))
        try:
            if case["compile"]:
                row |= _first_step(session, training)
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


def _first_step(session: Session, training: Training) -> dict[str, Any]:
    """Say what is compiled, and how long the step takes in which it is."""
    assert isinstance(training.model, Trainable)
    began = time.perf_counter()
    step(training)
    session.wait()
    return {"compiled": list(compiled_parts(training.model)),
            "seconds_to_compile": round(time.perf_counter() - began, 1)}  # fmt: skip
