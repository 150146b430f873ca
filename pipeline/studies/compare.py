"""Models compared fairly: one cohort, one split, one budget, several seeds, one table.

Each training is a process of its own, so that its peak memory is its own. A finished one is not
made again.
"""

import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from foldnorm.models.protocols import Decodes
from foldnorm.pipeline.artifacts import (
    COMPARISON,
    COMPARISON_ASKED,
    COMPARISON_MEASURED,
    COMPARISON_RUNS,
    COMPARISON_SIDECAR,
    RUN_COST,
    RUN_METRICS,
)
from foldnorm.pipeline.metrics.latent import active_share, silhouette
from foldnorm.pipeline.metrics.sheets import mean_panel
from foldnorm.pipeline.runs.config import config_path, resolve_for
from foldnorm.pipeline.runs.devices import choose_device
from foldnorm.pipeline.runs.metrics_log import MetricsLog
from foldnorm.pipeline.runs.run_folder import RunFolder
from foldnorm.pipeline.scoring.brain_scores import BrainScores
from foldnorm.pipeline.studies.benchmark import BenchmarkOptions, benchmark
from foldnorm.pipeline.training.signals import INTERRUPTED, STOPPED
from foldnorm.preprocessing.alteration.deletion import HALF_WAY, Refilling, SizeRange
from foldnorm.preprocessing.alteration.kinds import DEFORMING
from foldnorm.preprocessing.cohort.cohort import Cohort
from foldnorm.preprocessing.cohort.each_volume import refuse_unreadable
from foldnorm.preprocessing.core.errors import InputError, Stopped
from foldnorm.preprocessing.core.files import numbers_of, read_json, write_json, write_tsv
from foldnorm.preprocessing.core.problems import Problem

PACING_STEPS = 4  # of a trial run that finds out how long a step takes
FIRST_COLUMNS = ("model", "seeds")


@dataclass(frozen=True)
class CompareOptions:
    """Options of a comparison of models: training time, seeds and deleted folds.

    Attributes:
        minutes: of training steps each; a trial run finds how many steps that is, so learning
            rates decay to their end.
        steps: or so many steps each.
        seeds: trainings of each model, with seeds 0 to ``seeds`` − 1.
        sizes: of deleted folds.
        kind: of deletion.
        refilling: how far neighbours are drawn, where the kind draws any.
        overrides: ``--key value`` for every model.
        device: to train on.
    """

    minutes: float | None = None
    steps: int | None = None
    seeds: int = 1
    sizes: tuple[SizeRange, ...] = ()
    kind: str = "fold"
    refilling: Refilling = HALF_WAY
    overrides: tuple[str, ...] = ()
    device: str = "auto"

    def __post_init__(self) -> None:
        if (self.minutes is None) == (self.steps is None):
            raise InputError("give --minutes or --steps, one of the two")


@dataclass(frozen=True)
class ComparisonResult:
    """Figures of models that were trained alike.

    Attributes:
        table: a row a configuration and each baseline, with the mean of every figure, and its range
            over seeds.
        runs: a row a training.
        about: content of ``comparison.json``.
        failed: test brains that could not be read, scored or altered, and why.
    """

    table: list[dict[str, Any]]
    runs: list[dict[str, Any]]
    about: Mapping[str, Any]
    failed: list[Problem]

    def save(self, out: Path) -> None:
        """Write ``comparison.tsv``, ``comparison_runs.tsv`` and ``comparison.json``."""
        _write_runs(out, self.runs)
        names = dict.fromkeys(k for row in self.table for k in row if k not in FIRST_COLUMNS)
        write_tsv(out / COMPARISON, self.table, [*FIRST_COLUMNS, *names])
        write_json(out / COMPARISON_SIDECAR, self.about)


def compare(
    configs: Sequence[str], cohort: Cohort, out: Path, options: CompareOptions
) -> ComparisonResult:
    """Train and measure each configuration.

    Args:
        configs: YAML files or shipped names.
        cohort: to train and measure on.
        out: folder of the runs, a folder a configuration and seed. After each,
            ``comparison_runs.tsv`` tells how far the comparison is.
        options: the budget.

    Raises:
        InputError: a training failed, or ``out`` holds one with other settings.
        Stopped: a signal came, and the state of the training is saved; the same call goes on.
    """
    if not len(cohort.indices("validation")):
        raise InputError(f"no validation brains to compare on: {cohort.folder}")
    refuse_unreadable(cohort, "train", "validation")
    for config in configs:  # what is wrong with the last is said before the first is trained
        resolve_for(cohort, config, options.overrides)
    runs, failed = [], list[Problem]()
    for config in configs:
        name = Path(config).stem
        steps = options.steps or _steps_in(options.minutes or 0.0, config, cohort, out, options)
        for seed in range(options.seeds):
            folder = out / name / f"seed-{seed}"
            _train(config, cohort, folder, steps, seed, options)
            figures = _measured(folder, cohort, options, failed)
            runs.append({"model": name, "seed": seed, "steps": steps, **figures})
            _write_runs(out, runs)
    return ComparisonResult(
        table=[*_baselines(cohort), *_summary(runs)],
        runs=runs,
        about={
            "cohort": str(cohort.folder.resolve()),
            "phantom": cohort.is_phantom,
            "configs": list(configs),
            "minutes": options.minutes,
            "steps": options.steps,
            "seeds": options.seeds,
            "sizes": [str(size) for size in options.sizes],
            "kind": options.kind,
            **(asdict(options.refilling) if options.kind in DEFORMING else {}),
            "overrides": list(options.overrides),
            "note": "validation brains for reconstructions and translations, test brains for "
            "deletions; _low and _high are the range over seeds",
        },
        failed=list(dict.fromkeys(failed)),
    )


def _measured(
    folder: Path, cohort: Cohort, options: CompareOptions, failed: list[Problem]
) -> dict[str, float]:
    """`measure`, or what it found before."""
    asked: dict[str, Any] = {"sizes": [str(s) for s in options.sizes], "kind": options.kind}
    if options.kind in DEFORMING:
        asked |= asdict(options.refilling)
    path = folder / COMPARISON_MEASURED
    if path.is_file() and (known := read_json(path))["asked"] == asked:
        failed += [Problem(**problem) for problem in known.get("failed", [])]
        return numbers_of(known["figures"])
    own: list[Problem] = []
    figures = measure(folder, cohort, options, own)
    record = {"asked": asked, "figures": figures, "failed": [asdict(problem) for problem in own]}
    write_json(path, record)
    failed += own
    return figures


def measure(
    folder: Path, cohort: Cohort, options: CompareOptions, failed: list[Problem]
) -> dict[str, float]:
    """Figures of one finished run, by name.

    Args:
        folder: of the run.
        cohort: to measure on.
        options: of the comparison.
        failed: to which test brains are added that take no part, and why.
    """
    run, device = RunFolder.open(folder), choose_device(options.device)
    _, panel = run.best_metrics(MetricsLog(folder / RUN_METRICS, up_to=2**62))
    trained = run.load(device)
    figures: dict[str, float] = {**run.cost, **panel}
    if not isinstance(trained.model, Decodes):
        return figures
    codes = trained.encode(cohort.brains(cohort.indices("validation")))
    figures |= {
        "latent_dim": float(trained.model.latent_dim),
        "active_share": active_share(codes),
        "silhouette": silhouette(codes),
    }
    if options.sizes and len(cohort.indices("test")):
        found = benchmark(
            BrainScores(trained).fit(cohort),
            cohort,
            BenchmarkOptions(options.sizes, kind=options.kind, refilling=options.refilling),
        )
        found.save(folder / "benchmark")
        failed += found.failed
        figures |= {f"auroc_{row['score']}_{row['size']}": row["auroc"] for row in found.table}
    return figures


def _steps_in(
    minutes: float, config: str, cohort: Cohort, out: Path, options: CompareOptions
) -> int:
    """Estimate, by a trial run, the training steps that fit into so many minutes here."""
    trial = out / Path(config).stem / "trial"
    _train(config, cohort, trial, PACING_STEPS, 0, options)
    return max(int(minutes * 60 / RunFolder(trial).cost["seconds_per_step"]), 1)


def _train(
    config: str, cohort: Cohort, folder: Path, steps: int, seed: int, options: CompareOptions
) -> None:
    words = [
        "train", config, str(cohort.folder), "-o", str(folder),
        "--device", options.device, "--resume", "auto", "--quiet",
        f"--training.steps={steps}", f"--training.seed={seed}",
        f"--training.validate_every={max(steps // 5, 1)}", *options.overrides,
    ]  # fmt: skip
    # A finished training with other settings is no part of this table, and an unfinished one must
    # not go on with these.
    path = folder / COMPARISON_ASKED
    asked = {"words": words, "config": config_path(config).read_text(encoding="utf-8")}
    if path.is_file() and _read_asked(path) != asked:
        raise InputError(f"holds a training with other settings; give another --out: {folder}")
    write_json(path, asked)
    if (folder / RUN_COST).is_file():
        return
    command = [sys.executable, "-m", "foldnorm.pipeline.cli", *words]
    code, said = _finished(command)
    if code in (STOPPED, INTERRUPTED):
        raise Stopped(code)
    if code:
        lines = said.strip().splitlines() or [f"exit code {code}"]
        raise InputError(f"training of {config} failed: {lines[-1]}")


def _finished(command: Sequence[str]) -> tuple[int, str]:
    """Run a training to its end; returns its exit code and what it wrote to stderr.

    Whatever ends this process early is passed on to the training, which saves its state first.
    """
    null, pipe = subprocess.DEVNULL, subprocess.PIPE
    with subprocess.Popen(command, stdout=null, stderr=pipe, text=True) as training:
        try:
            _, said = training.communicate()
        except BaseException:
            training.terminate()
            training.communicate()
            raise
        return training.returncode, said


def _read_asked(path: Path) -> dict[str, Any]:
    """Read the settings of a training that was begun; release 0.1 wrote its inputs as flags."""
    asked: dict[str, Any] = read_json(path)
    match asked["words"]:
        case ["train", "--config", config, "--cohort", cohort, "--out", *others]:
            asked["words"] = ["train", config, cohort, "-o", *others]
    return asked


def _summary(runs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Mean over seeds of every figure of a model, and its range if there are several."""
    rows = []
    for name in dict.fromkeys(run["model"] for run in runs):
        own = [run for run in runs if run["model"] == name]
        row: dict[str, Any] = {"model": name, "seeds": len(own)}
        for key in own[0]:
            if key in ("model", "seed"):
                continue
            values = [run[key] for run in own]
            row[key] = float(np.mean(values))
            if len(own) > 1:
                row |= {f"{key}_low": min(values), f"{key}_high": max(values)}
        rows.append(row)
    return rows


def _baselines(cohort: Cohort) -> list[dict[str, Any]]:
    """Compute the baseline: the training brain that overlaps most with each validation brain."""
    top = cohort.scheme.foreground
    training = [top(cohort.volumes[index]) for index in cohort.indices("train")]
    pairs = []
    for index in cohort.indices("validation"):
        true = top(cohort.volumes[index])
        pairs.append((max(training, key=lambda other: int((other & true).sum())), true))
    return [{"model": "(nearest training brain)", "seeds": 0, **mean_panel(pairs)}]


def _write_runs(out: Path, runs: list[dict[str, Any]]) -> None:
    names = list(dict.fromkeys(key for run in runs for key in run))
    write_tsv(out / COMPARISON_RUNS, runs, names)
