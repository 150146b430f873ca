"""Search of hyper-parameters with Optuna, whose journal file several processes or nodes share.

Every trial is an ordinary run, trained in stretches of ``validate_every`` steps, so that it can be
pruned, stopped and gone on with. What counts is the monitored figure of the *validation* split; the
test split is not touched.
"""

import json
import os
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from foldnorm.pipeline.artifacts import (
    RUN_METRICS,
    SEARCH_BEST,
    SEARCH_JOURNAL,
    SEARCH_SIDECAR,
    TRIALS,
)
from foldnorm.pipeline.runs.config import resolve_for, training_options
from foldnorm.pipeline.runs.metrics_log import MetricsLog
from foldnorm.pipeline.runs.options import TrainingOptions
from foldnorm.pipeline.runs.run_folder import RunFolder
from foldnorm.pipeline.studies.search_journal import open_journal, sampler_of, worker_number
from foldnorm.pipeline.studies.search_space import SearchOptions, Value
from foldnorm.pipeline.training.signals import STOPPED
from foldnorm.pipeline.training.train import train
from foldnorm.preprocessing.cohort.cohort import Cohort
from foldnorm.preprocessing.cohort.each_volume import refuse_unreadable
from foldnorm.preprocessing.core.errors import InputError, Stopped
from foldnorm.preprocessing.core.files import (
    is_alive,
    json_content,
    read_json,
    write_json,
    write_tsv,
)
from foldnorm.preprocessing.core.yaml_files import write_yaml

STUDY = "foldnorm"
# Marks of a trial: that a signal stopped it, which other it goes on with, who makes it, and where.
INTERRUPTED, AGAIN, PROCESS, FOLDER = "interrupted", "again", "process", "folder"
REASON = "reason"  # why a trial failed
STARTUP_TRIALS = 4  # that are never pruned


def search(config: str, cohort: Cohort, out: Path, options: SearchOptions) -> list[dict[str, Any]]:
    """Run trials, and write what is known of all of them so far.

    Writes ``trials.tsv``, ``best.yaml`` (the best trial's configuration), and a run folder a trial
    under ``trials``. May be called by several processes at once, and again.

    Returns:
        Rows of ``trials.tsv``.

    Raises:
        InputError: the folder belongs to another search, or a volume cannot be read.
        Stopped: a signal came; the same call goes on.
    """
    base = resolve_for(cohort, config, options.overrides)
    training = training_options(base)
    for axis in options.axes:  # before the first trial: a key that is not there, or a wrong value
        for value in axis.values or (axis.low, axis.high):
            resolve_for(cohort, config, [*options.overrides, *_words({axis.key: value})])
    refuse_unreadable(cohort, "train", "validation")  # once, not by trial after trial
    _check_same_search(out, config, cohort, options, training)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with worker_number(out) as worker:
        return _search(config, cohort, out, options, training, worker)


def _search(
    config: str,
    cohort: Cohort,
    out: Path,
    options: SearchOptions,
    training: TrainingOptions,
    worker: int,
) -> list[dict[str, Any]]:
    """Run the trials of one process."""
    study = optuna.create_study(
        storage=open_journal(out / SEARCH_JOURNAL),
        study_name=STUDY,
        pruner=optuna.pruners.MedianPruner(n_startup_trials=STARTUP_TRIALS)
        if options.prune
        else optuna.pruners.NopPruner(),
        direction="minimize" if training.monitor_mode == "min" else "maximize",
        load_if_exists=True,
    )
    study.sampler = sampler_of(options.sampler, options.seed, worker, len(study.get_trials()))
    _begin_again(study)
    if options.sampler == "grid":
        _enqueue_grid(study, options.grid)
    made = 0
    try:
        while options.trials is None or made < options.trials:
            if options.sampler == "grid" and not study.get_trials(states=(TrialState.WAITING,)):
                break
            study.optimize(
                lambda trial: _measured(trial, config, cohort, out, options),
                n_trials=1,
                catch=(InputError,),
            )
            made += 1
    finally:
        rows = _write_trials(study, config, cohort, out, options)
    return rows


def _measured(
    trial: optuna.Trial, config: str, cohort: Cohort, out: Path, options: SearchOptions
) -> float:
    """Train and measure a trial; what cannot be trained remembers why."""
    try:
        return _objective(trial, config, cohort, out, options)
    except InputError as error:
        trial.set_user_attr(REASON, str(error))
        raise


def _objective(
    trial: optuna.Trial, config: str, cohort: Cohort, out: Path, options: SearchOptions
) -> float:
    chosen = {axis.key: axis.suggest(trial) for axis in options.axes}
    trial.set_user_attr(PROCESS, [socket.gethostname(), os.getpid()])
    if options.sampler == "grid" and _is_double(trial, chosen):
        raise optuna.TrialPruned
    folder = out / "trials" / trial.user_attrs.get(FOLDER, f"{trial.number:04d}")
    trial.set_user_attr(FOLDER, folder.name)
    resolved = resolve_for(cohort, config, [*options.overrides, *_words(chosen)])
    every = resolved["training"]["validate_every"]
    resolved["training"]["session_steps"] = every
    monitor = resolved["training"]["monitor"]
    reached = RunFolder(folder).reached
    while True:
        try:
            code = train(resolved, cohort, folder, device=options.device, resume=True, quiet=True)
            before, reached = reached, RunFolder(folder).reached
            if code not in (0, STOPPED) or (code == STOPPED and reached - before < every):
                raise Stopped(code)
        except Stopped:
            trial.set_user_attr(INTERRUPTED, True)
            raise
        steps, values = MetricsLog(folder / RUN_METRICS, up_to=2**62).column(monitor)
        if not steps:
            raise InputError(f"the monitored figure {monitor!r} was never measured: {folder}")
        trial.report(values[-1], steps[-1])
        if code == 0:
            best = min if resolved["training"]["monitor_mode"] == "min" else max
            return best(values)
        if trial.should_prune():
            raise optuna.TrialPruned


def _begin_again(study: optuna.Study) -> None:
    """Enqueue trials that a signal stopped, or whose process on this machine is gone."""
    begun = {trial.user_attrs.get(AGAIN) for trial in study.get_trials()}
    for trial in study.get_trials(states=(TrialState.RUNNING, TrialState.FAIL)):
        if trial.number in begun:
            continue
        lost = trial.state == TrialState.RUNNING and _is_gone(trial)
        if lost:
            study.tell(trial.number, state=TrialState.FAIL)
        if lost or trial.user_attrs.get(INTERRUPTED):
            marks = {AGAIN: trial.number}
            if FOLDER in trial.user_attrs:
                marks[FOLDER] = trial.user_attrs[FOLDER]
            study.enqueue_trial(trial.params, user_attrs=marks)


def _enqueue_grid(study: optuna.Study, grid: Sequence[Mapping[str, Value]]) -> None:
    """Enqueue the combinations that no trial has had yet."""
    had = [_params_of(trial) for trial in study.get_trials()]
    for combination in grid:
        if combination not in had:
            study.enqueue_trial(dict(combination))


def _is_double(trial: optuna.Trial, chosen: Mapping[str, Value]) -> bool:
    """Return whether an earlier trial, enqueued by another process, has the same parameters."""
    return any(
        _params_of(other) == chosen
        for other in trial.study.get_trials(
            states=(TrialState.RUNNING, TrialState.COMPLETE, TrialState.PRUNED)
        )
        if other.number < trial.number
    )


def _params_of(trial: FrozenTrial) -> dict[str, Any]:
    """Parameters of a trial, also of one that waits."""
    return trial.params or dict(trial.system_attrs.get("fixed_params", {}))


def _is_gone(trial: FrozenTrial) -> bool:
    host, process = trial.user_attrs.get(PROCESS, [None, 0])
    if host != socket.gethostname():
        return False  # another node may well be at it
    return int(process) == os.getpid() or not is_alive(int(process))


def _check_same_search(
    out: Path, config: str, cohort: Cohort, options: SearchOptions, training: TrainingOptions
) -> None:
    asked = {
        "config": config,
        "vary": {axis.key: vars(axis) | {"values": list(axis.values)} for axis in options.axes},
        "overrides": list(options.overrides),
        "monitor": training.monitor,
        "monitor_mode": training.monitor_mode,
        "phantom": cohort.is_phantom,
    }
    asked = json_content(asked)
    path = out / SEARCH_SIDECAR
    if path.is_file() and json_content(read_json(path)) != asked:
        raise InputError(f"the folder belongs to a search with other settings: {path}")
    write_json(path, asked)


def _write_trials(
    study: optuna.Study, config: str, cohort: Cohort, out: Path, options: SearchOptions
) -> list[dict[str, Any]]:
    rows = []
    for trial in study.get_trials():
        value = trial.value if trial.state == TrialState.COMPLETE else None
        steps = max(trial.intermediate_values, default=0)
        rows.append(
            {
                "number": trial.number, "state": trial.state.name.lower(),
                "value": "" if value is None else value, "steps": steps,
                "folder": trial.user_attrs.get(FOLDER, ""),
                "reason": trial.user_attrs.get(REASON, ""), **trial.params,
            }
        )  # fmt: skip
    keys = [name for name in TRIALS.columns if name != "*"]
    write_tsv(out / TRIALS, rows, [*keys, *(axis.key for axis in options.axes)])
    if study.get_trials(states=(TrialState.COMPLETE,)):
        words = _words(study.best_trial.params)
        best = resolve_for(cohort, config, [*options.overrides, *words])
        write_yaml(out / SEARCH_BEST, best)
    return rows


def _words(chosen: Mapping[str, Any]) -> list[str]:
    """Words of a command line; text is not quoted there, or the quotes would be part of it."""
    return [
        f"--{key}={value if isinstance(value, str) else json.dumps(value)}"
        for key, value in chosen.items()
    ]
