"""Shared parts of the GPU benchmark: deadlines, figures on disk, flags, single steps."""

import contextlib
import gc
import io
import shutil
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch
from figures import write_figures
from torch import Tensor

from foldnorm.pipeline.cli import main as foldnorm
from foldnorm.pipeline.runs.config import resolve_for
from foldnorm.pipeline.training import train as train_module
from foldnorm.pipeline.training.distributed import launch
from foldnorm.pipeline.training.setup import Training, set_up
from foldnorm.preprocessing.cohort.cohort import Cohort

BEGIN = time.perf_counter()


class OutOfTime(BaseException):
    """A measurement took too long; no `Exception`, so that foldnorm itself lets it through."""


@dataclass
class Session:
    """State that all parts of the benchmark share.

    Attributes:
        place: of cohorts and runs; taken away afterwards.
        out: where `figures` are written to.
        device: that is measured.
        tiny: small enough for a CPU.
        configs: that the smoke test is confined to; none for all.
        figures: that were made so far.
        cohorts: by name.
        part: figures of the part that runs.
        until: when that has to end, on the clock of `time.perf_counter`.
    """

    place: Path
    out: Path
    device: torch.device
    tiny: bool
    configs: Sequence[str] = ()
    figures: dict[str, Any] = field(default_factory=lambda: {"parts": {}})
    cohorts: dict[str, Cohort] = field(default_factory=dict)
    part: dict[str, Any] = field(default_factory=dict)
    until: float = 0.0

    @property
    def device_name(self) -> str:
        """As the driver says it."""
        return torch.cuda.get_device_name(self.device) if self.is_gpu else "CPU"

    @property
    def is_gpu(self) -> bool:
        """True if the device is a GPU."""
        return self.device.type == "cuda"

    @property
    def left(self) -> float:
        """Seconds of the part that runs."""
        return self.until - time.perf_counter()

    def save(self) -> None:
        """Write all figures."""
        write_figures(self.out / "gpu.json", self.figures)

    def measure(
        self,
        row: dict[str, Any],
        work: Callable[[dict[str, Any]], None],
        *,
        at_most: float,
        rows: str = "rows",
    ) -> bool:
        """Let ``work`` fill in a row of the part, or say what went wrong; False: no time left."""
        if self.left < 3:
            self.part.setdefault("not_reached", []).append(row)
            return False
        begin = time.perf_counter()
        try:
            with deadline(min(at_most, self.left)):
                work(row)
        except (Exception, OutOfTime) as error:
            row["error"] = short(error)
        row["seconds"] = round(time.perf_counter() - begin, 2)
        self.part.setdefault(rows, []).append(row)
        self.save()
        say(str(row))
        tidy()
        return True

    def training(
        self,
        config: str,
        cohort: Cohort,
        *,
        batch: int,
        precision: str = "32",
        words: Sequence[str] = (),
        device: str | None = None,
        out: Path | None = None,
        resume: bool = False,
    ) -> Training:
        """Set up a training as `foldnorm train` does, in a folder of its own."""
        out = out or self.place / "trainings" / config
        if not resume:
            shutil.rmtree(out, ignore_errors=True)
        options = [f"--training.batch_size={batch}", f"--training.precision={precision}",
                   "--training.steps=1000", "--training.decay=none", *words]  # fmt: skip
        resolved = resolve_for(cohort, config, options)
        return set_up(
            resolved, cohort, out, fabric=launch(device or self.device.type), resume=resume
        )

    def wait(self) -> None:
        """Until the device has done what it was told to."""
        if self.is_gpu:
            torch.cuda.synchronize(self.device)

    def timed(
        self, training: Training, *, seconds: float, most: int = 50, warm_up: int = 2
    ) -> tuple[float, int, int | None]:
        """Seconds a step (median), how many steps, and peak memory in bytes."""
        for _ in range(warm_up):
            step(training)
        self.wait()
        if self.is_gpu:
            torch.cuda.reset_peak_memory_stats(self.device)
        durations: list[float] = []
        begin = time.perf_counter()
        while len(durations) < 2 or (
            time.perf_counter() - begin < seconds and len(durations) < most
        ):
            now = time.perf_counter()
            step(training)
            self.wait()
            durations.append(time.perf_counter() - now)
        peak = torch.cuda.max_memory_allocated(self.device) if self.is_gpu else None
        return float(np.median(durations)), len(durations), peak


def step(training: Training) -> Mapping[str, Tensor]:
    """One step, as `foldnorm.pipeline.training.train.fit` makes it."""
    terms = train_module.train_step(training)
    training.state.step += 1
    return terms


def say(text: str) -> None:
    """With the seconds since the start."""
    print(f"[{time.perf_counter() - BEGIN:6.1f} s] {text}", flush=True)


def short(error: BaseException) -> str:
    """Kind and first line of an error."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:300] if lines else ''}"


def command(*words: object) -> tuple[int, str]:
    """Exit code of a foldnorm command in this process, and the last line of what it says."""
    heard = io.StringIO()
    with contextlib.redirect_stderr(heard), contextlib.redirect_stdout(io.StringIO()):
        try:
            code = foldnorm([*map(str, words), "--quiet"])
        except SystemExit as error:
            code = error.code if isinstance(error.code, int) else 1
    lines = [line for line in heard.getvalue().strip().splitlines() if line.startswith("foldnorm:")]
    return code, (lines or [""])[-1][:300]


@contextlib.contextmanager
def deadline(seconds: float) -> Iterator[None]:
    """Raise `OutOfTime` in a block of the main thread that takes longer."""

    def ring(number: int, frame: FrameType | None) -> None:
        raise OutOfTime

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, max(seconds, 0.1))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextlib.contextmanager
def replaced(owner: Any, name: str, value: object) -> Iterator[None]:
    """Another thing under a name that the code looks up, within a block."""
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)


@contextlib.contextmanager
def arithmetic(
    *, tf32: bool = False, deterministic: bool = False, benchmark: bool = False
) -> Iterator[None]:
    """Set flags of cuDNN and cuBLAS; afterwards they are as before."""
    cudnn = torch.backends.cudnn
    before = cudnn.allow_tf32, cudnn.deterministic, cudnn.benchmark
    matmul = torch.get_float32_matmul_precision()
    cudnn.allow_tf32, cudnn.deterministic, cudnn.benchmark = tf32, deterministic, benchmark
    torch.set_float32_matmul_precision("high" if tf32 else "highest")
    torch.use_deterministic_algorithms(deterministic, warn_only=True)
    try:
        yield
    finally:
        cudnn.allow_tf32, cudnn.deterministic, cudnn.benchmark = before
        torch.set_float32_matmul_precision(matmul)
        torch.use_deterministic_algorithms(False)


def tidy() -> None:
    """Give memory back, the device's too."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
