"""The training loop of all models, written like the algorithm box of a paper.

For each step, for each phase of the model: a batch, one loss, one backward, one optimiser step.
Every draw is keyed by (seed, step, phase), so a resumed run equals an unbroken one bit for bit on
the CPU. Gradients are averaged over processes by hand after the one backward of a phase: with
alternating networks and a gradient penalty that is simpler than a wrapper around each network,
and it is exactly the gradient of the whole batch.
"""

import signal
import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from foldnorm.models.noise import StepNoise, seed_of
from foldnorm.models.protocols import HasPostStep, Trainable, networks_of
from foldnorm.pipeline.artifacts import RUN_CONFIG, RUN_SAMPLE
from foldnorm.pipeline.runs.model_card import write_model_card
from foldnorm.pipeline.training.arithmetic import arithmetic, mixed, of_backward
from foldnorm.pipeline.training.compiled import (
    compiler_errors_are_said,
    not_compiled,
    uses_graphs,
)
from foldnorm.pipeline.training.distributed import (
    Group,
    clip_gradients,
    launch,
    lost_peers_are_said,
)
from foldnorm.pipeline.training.memory import cost_of, warn_of_memory
from foldnorm.pipeline.training.messages import (
    average_gradients,
    max_over_ranks,
    mean_over_ranks,
    told_by_first,
    wait_for_others,
)
from foldnorm.pipeline.training.setup import Training, set_up
from foldnorm.pipeline.training.signals import (
    OF_SCHEDULERS,
    STOPPED,
    StopFlag,
    ignore,
    stop_on_signals,
)
from foldnorm.pipeline.training.validation import validate
from foldnorm.preprocessing.cohort.cohort import Cohort
from foldnorm.preprocessing.cohort.pictures import png
from foldnorm.preprocessing.core.errors import InputError
from foldnorm.preprocessing.core.files import write_bytes
from foldnorm.preprocessing.core.locks import held

MAX_PHASES = 2**16  # of a step, so that one number says which phase of which step


def refuse_existing_run(out: Path, *, resume: bool, overwrite: bool) -> None:
    """Refuse to start anew in the folder of another run."""
    if (out / RUN_CONFIG).exists() and not (resume or overwrite):
        raise InputError(f"run exists (--resume auto continues, --overwrite replaces): {out}")


def train(
    config: Mapping[str, Any],
    cohort: Cohort,
    out: Path,
    *,
    device: str = "auto",
    resume: bool = False,
    weights: Path | None = None,
    quiet: bool = False,
    group: Group | None = None,
) -> int:
    """Train a model on a cohort and write a run folder.

    Args:
        config: as `foldnorm.pipeline.runs.config.resolve` returns it.
        cohort: its training split is trained on, its validation split validated on.
        out: the run folder.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``; of several processes, each takes its own.
        resume: continue from the last checkpoint, if there is one.
        weights: a trained run of the same model, or an exported one, to start from.
        quiet: no progress bar.
        group: processes that train together; None: this one alone, whoever started it. Of several,
            each ignores signals from the end of its training on: their launcher then ends them.

    Returns:
        0 when all steps are done, 75 or 130 when a signal stopped it with its state saved.

    Raises:
        InputError: configuration and cohort do not go together, or another process trains there.
        ConnectionError: another process of the group has ended.
    """
    group = group or Group()
    with ExitStack() as stack:
        stop = stack.enter_context(stop_on_signals(*OF_SCHEDULERS))
        stack.enter_context(lost_peers_are_said(group))
        stack.enter_context(compiler_errors_are_said())
        fabric = launch(device, group)
        if fabric.is_global_zero:
            stack.enter_context(held(out))
        training = set_up(
            config, cohort, out, fabric=fabric, resume=resume, weights=weights, group=group
        )
        stack.callback(_close, training)
        stack.enter_context(arithmetic(training.options.precision, fabric.device))
        # Nothing is lost before: SIGTERM ends a process that waits for others, too.
        stack.enter_context(stop_on_signals(signal.SIGINT, signal.SIGTERM, flag=stop))
        code = fit(training, stop, quiet=quiet)
        wait_for_others(fabric)  # the first may still be writing
        if group.size > 1:
            ignore(*OF_SCHEDULERS, signal.SIGINT, signal.SIGTERM)
        return code


def _close(training: Training) -> None:
    training.batches.close()
    if training.writer is not None:
        training.writer.close()


def fit(training: Training, stop: StopFlag, *, quiet: bool) -> int:
    """Train to the last step, or until a signal; returns the exit code."""
    options, state, fabric = training.options, training.state, training.fabric
    hidden = quiet or not fabric.is_global_zero or not sys.stderr.isatty()
    if fabric.is_global_zero:
        warn_of_memory(training)
    bar = tqdm(initial=state.step, total=options.steps, desc="train", unit="step", disable=hidden)
    begin, before, first = time.perf_counter(), state.seconds, state.step
    since, reached = begin, first
    with bar:
        while not training.is_over:
            terms = train_step(training)
            state.step += 1
            state.seconds = before + time.perf_counter() - begin
            last = state.step == options.steps
            if options.session_steps and state.step - first == options.session_steps:
                stop.code = stop.code or STOPPED
            validates = state.step % options.validate_every == 0 or last
            logs = state.step % options.log_every == 0 or last
            code = max_over_ranks(fabric, stop.code)
            if validates or logs or code:
                _check_finite(training, terms)  # waits for the device
                pace = (time.perf_counter() - since) / (state.step - reached)
                training.paces.append(pace)
                _write(training, terms, logs=logs, validates=validates, stops=code > 0)
                since, reached = time.perf_counter(), state.step
            bar.update()
            if code and not training.is_over:
                return code
    if fabric.is_global_zero:
        training.run.write_cost(cost_of(training))
        write_model_card(training.run, training.metrics)
    return 0


def train_step(training: Training) -> dict[str, Tensor]:
    """Run all phases of one step once; returns the terms by ``phase/name``."""
    fabric, model, options = training.fabric, training.model, training.options
    assert isinstance(model, Trainable)
    model.train()
    terms: dict[str, Tensor] = {}
    step = training.state.step
    order = model.phase_order(step)
    for n, phase in enumerate(order):
        number = step * len(order) + n
        volumes = training.batches.batch(number).to(fabric.device, non_blocking=True)
        condition = training.batches.condition(number)
        condition = None if condition is None else condition.to(fabric.device, non_blocking=True)
        noise = StepNoise(
            (options.seed, step, n),
            len(volumes),
            fabric.device,
            fabric.global_rank,
            fabric.world_size,
            options.noise,
        )
        # Dropout, too, is what it would have been in an unbroken run.
        torch.manual_seed(seed_of(options.seed, "dropout", step, n, fabric.global_rank))
        _freeze_all_but(model, phase)
        if uses_graphs(options.compile, fabric.device):
            torch.compiler.cudagraph_mark_step_begin()  # what the last phase has made is done with
        with mixed(options.precision, fabric.device):
            phase_terms = model.loss(phase, volumes, noise, condition)
        optimizers = {n: training.optimizers[n] for n in model.phases[phase].networks}
        for network, optimizer in optimizers.items():
            optimizer.zero_grad(set_to_none=True)
            optimizer.param_groups[0]["lr"] = options.rate(network, step)
        with of_backward(model.phases[phase], fabric.device):
            phase_terms["loss"].backward()
        average_gradients(fabric, optimizers.values())
        if options.gradient_clip:
            clip_gradients(optimizers.values(), options.gradient_clip)
        for optimizer in optimizers.values():
            optimizer.step()
        if isinstance(model, HasPostStep):
            model.after_step(phase)
        _note_divergence(training, phase_terms["loss"].detach(), step * MAX_PHASES + n)
        terms.update({f"{phase}/{name}": term.detach() for name, term in phase_terms.items()})
    if training.average is not None:
        training.average.update(model)
    return terms


def _note_divergence(training: Training, loss: Tensor, phase: int) -> None:
    """Remember the first phase whose loss is not finite, by step · `MAX_PHASES` + its place there.

    Nothing is waited for: the number goes to the device as an argument of a kernel, not as a copy.
    """
    if training.diverged is None:
        training.diverged = torch.full((), -1, device=loss.device)
    is_first = (training.diverged < 0) & ~torch.isfinite(loss)
    training.diverged = torch.where(is_first, phase, training.diverged)


def _check_finite(training: Training, terms: Mapping[str, Tensor]) -> None:
    """Stop before anything is saved, if a loss or a weight of any process is not finite.

    Raises:
        InputError: with the step and the terms.
    """
    assert training.diverged is not None
    looked_at = [*terms.values(), *training.model.parameters()]
    finite = torch.stack([torch.isfinite(values).all() for values in looked_at])
    # All at once: each number that is read waits for the device.
    first, *each = torch.cat([training.diverged.view(1), finite.long()]).tolist()
    is_finite = all(each[len(terms) :])
    bad = sorted(name for name, good in zip(terms, each, strict=False) if not good)
    if max_over_ranks(training.fabric, int(first >= 0 or not is_finite)):
        assert isinstance(training.model, Trainable)
        what = f"{', '.join(bad) or 'a weight'} is not finite"
        if first >= 0:
            step, phase = divmod(first, MAX_PHASES)
            name = training.model.phase_order(step)[phase]
            what = f"at step {step + 1}, first in phase {name}: {what}"
        else:
            what = f"before step {training.state.step + 1}: {what}"
        kept = training.run.checkpoint("last")
        raise InputError(
            f"training diverged {what}; lower the learning rate or bound the gradient "
            f"(training.gradient_clip)" + (f"; the last good state is kept in {kept}"
                                           if kept.is_file() else "")
        )  # fmt: skip


def _freeze_all_but(model: Trainable, phase: str) -> None:
    """Let only the phase's networks take gradients; others still pass them through."""
    for name in networks_of(model):
        getattr(model, name).requires_grad_(name in model.phases[phase].networks)


def _write(
    training: Training, terms: Mapping[str, Tensor], *, logs: bool, validates: bool, stops: bool
) -> None:
    """Write a row, or validate; save the state if the training was validated, or stops."""
    if logs:
        _log(training, terms)
    if validates:
        _validate_and_save(training)
    elif stops:
        _save(training)


def _validate_and_save(training: Training) -> None:
    """Validate together; the first process keeps the checkpoint as last and perhaps best."""
    fabric, options, state = training.fabric, training.options, training.state
    with not_compiled():
        found = validate(
            training.task,
            training.eval_model,
            options.validation_volumes,
            fabric=fabric,
            name=f"validation {state.step}",
        )
    if fabric.is_global_zero:
        _record(training, found.figures)
        value = training.metrics.rows[state.step].get(options.monitor)
        sign = 1 if options.monitor_mode == "min" else -1
        is_best = value is not None and sign * value < sign * state.best
        state.validations_without_improvement = (
            0 if is_best else state.validations_without_improvement + 1
        )
        if is_best and value is not None:
            state.best = value
        _save(training)
        if is_best:
            training.run.save_checkpoint("best", _checkpoint(training))
        if found.picture is not None:
            path = training.run.folder / RUN_SAMPLE.of(step=state.step)
            write_bytes(path, png(found.picture))
    # They stop together, and wait here for the first to have saved.
    state.validations_without_improvement = told_by_first(
        fabric, state.validations_without_improvement
    )


def _save(training: Training) -> None:
    if training.fabric.is_global_zero:
        training.metrics.save()
        training.run.save_checkpoint("last", _checkpoint(training))


def _checkpoint(training: Training) -> dict[str, Any]:
    average = training.average
    return {
        "model": training.model.state_dict(),
        **({} if average is None else {"average": average.module.state_dict()}),
        "optimizers": {name: o.state_dict() for name, o in training.optimizers.items()},
        "state": vars(training.state),
    }


def _log(training: Training, terms: Mapping[str, Tensor]) -> None:
    fabric = training.fabric
    values = torch.stack([term.to(fabric.device) for term in terms.values()])
    figures = dict(zip(terms, mean_over_ranks(fabric, values).tolist(), strict=True))
    if fabric.is_global_zero:
        assert isinstance(training.model, Trainable)
        number = training.state.step * len(training.model.phase_order(training.state.step))
        _record(training, {"epoch": training.batches.epoch_of(number), **figures})


def _record(training: Training, figures: dict[str, float]) -> None:
    training.metrics.add(training.state.step, figures)
    if training.writer is not None:
        for name, value in figures.items():
            training.writer.add_scalar(name, value, training.state.step)
