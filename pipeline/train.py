"""The one training loop: it reads as the algorithm box of a paper.

For each step, for each phase of the model: a batch, one loss, one backward, one optimiser step.
Every draw is keyed by (seed, step, phase), so a resumed run equals an unbroken one bit for bit on
the CPU. Gradients are averaged over processes by hand after the one backward of a phase: with
alternating networks and a gradient penalty that is simpler than a wrapper around each network,
and it is exactly the gradient of the whole batch.
"""

import resource
import statistics
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from lightning.fabric import Fabric
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm import tqdm

from foldnorm.models.noise import StepNoise, seed_of
from foldnorm.models.protocols import Conditioned, Constrains, Trainable
from foldnorm.models.volume_networks import as_channels_last
from foldnorm.pipeline.batches import Batches
from foldnorm.pipeline.conditions import Conditions
from foldnorm.pipeline.configuration import build_model, training_options
from foldnorm.pipeline.launch import launch, leave
from foldnorm.pipeline.memory import available_bytes, held_by_one, warning_of
from foldnorm.pipeline.metrics_table import MetricsTable
from foldnorm.pipeline.model_card import write_model_card
from foldnorm.pipeline.run_folder import METRICS, RunFolder
from foldnorm.pipeline.signals import STOPPED, StopFlag, stop_on_signals
from foldnorm.pipeline.task import Task
from foldnorm.pipeline.tasks import task_of
from foldnorm.pipeline.trained_model import TrainedModel
from foldnorm.pipeline.training_options import TrainingOptions
from foldnorm.pipeline.validation import sample_picture, validate
from foldnorm.preprocessing.cohort import Cohort
from foldnorm.preprocessing.errors import InputError
from foldnorm.preprocessing.files import write_bytes
from foldnorm.preprocessing.pictures import png


@dataclass
class TrainingState:
    """What a checkpoint holds beside the weights.

    Attributes:
        step: steps finished.
        best: best value of the monitored figure so far.
        waited: validations since then.
        seconds: spent training, over all sessions.
    """

    step: int = 0
    best: float = float("inf")
    waited: int = 0
    seconds: float = 0.0


@dataclass
class Training:
    """Everything one process needs while it trains."""

    fabric: Fabric
    model: nn.Module
    conditions: Conditions
    options: TrainingOptions
    task: Task
    run: RunFolder
    optimizers: Mapping[str, torch.optim.Optimizer]
    batches: Batches
    metrics: MetricsTable
    writer: Any = None
    state: TrainingState = field(default_factory=TrainingState)
    average: AveragedModel | None = None
    durations: list[float] = field(default_factory=list)  # of the steps of this session, seconds
    # (first step whose loss was not finite, number of its phase), or -1 twice; on the device, so
    # that looking at every loss does not wait for it.
    diverged: Tensor | None = None

    @property
    def shown(self) -> TrainedModel:
        """The model that is validated: the average of its weights, if one is kept."""
        model = self.model if self.average is None else self.average.module
        return TrainedModel(model, self.fabric.device, self.conditions)

    @property
    def is_over(self) -> bool:
        """Whether the last step is done, or nothing has become better for too long."""
        patience = self.options.patience
        ended = patience is not None and self.state.waited >= patience
        return ended or self.state.step >= self.options.steps


def train(
    config: Mapping[str, Any],
    cohort: Cohort,
    out: Path,
    *,
    device: str = "auto",
    resume: bool = False,
    weights: Path | None = None,
    quiet: bool = False,
) -> int:
    """Train a model on a cohort and write a run folder.

    Args:
        config: as `foldnorm.pipeline.configuration.resolve` returns it.
        cohort: its training split is trained on, its validation split validated on.
        out: the run folder.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``; under torchrun or srun, the local one.
        resume: continue from the last checkpoint, if there is one.
        weights: a trained run of the same model, or an exported one, to start from.
        quiet: no progress bar.

    Returns:
        0 when all steps are done, 75 or 130 when a signal stopped it with its state saved.
    """
    with stop_on_signals() as stop:
        training = set_up(config, cohort, out, device=device, resume=resume, weights=weights)
        try:
            return fit(training, stop, quiet=quiet)
        finally:
            training.batches.close()
            if training.writer is not None:
                training.writer.close()
            leave()


def set_up(
    config: Mapping[str, Any],
    cohort: Cohort,
    out: Path,
    *,
    device: str,
    resume: bool,
    weights: Path | None = None,
) -> Training:
    """Build the model, its optimisers and the run folder, or take them up where they were."""
    options = training_options(config)
    fabric = launch(device)
    torch.manual_seed(seed_of(options.seed, "weights"))
    model = build_model(config["model"])
    if not isinstance(model, Trainable):
        raise InputError(f"{type(model).__name__} has no phases to train")
    before = None if weights is None else _start_from(weights, model, config, cohort)
    task = task_of(model, cohort)
    model.to(fabric.device)
    if fabric.device.type == "cuda" or options.precision == "32":
        # Not for bf16 on CPUs: there torch 2.13 gives weight gradients that are not finite.
        as_channels_last(model, len(cohort.shape))
    optimizers = {
        network: torch.optim.Adam(getattr(model, network).parameters(), betas=options.betas)
        for network in _networks(model)
    }
    average = None
    if options.ema:
        average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(options.ema))
    run, state = RunFolder(out), TrainingState()
    conditions = _conditions(model, cohort) if before is None else before.conditions
    if options.monitor_mode == "max":
        state.best = -float("inf")
    if resume and run.checkpoint("last").is_file():
        run.check_model(config["model"])
        run.check_cohort(cohort)
        conditions = run.conditions
        state = load_state(run, model, optimizers, fabric.device, average)
    elif fabric.is_global_zero:
        run.write_data(cohort, conditions, before)
    if fabric.is_global_zero:
        run.write_config(config)  # again on resume: it may train for longer
        run.write_environment()
    batches = Batches(
        cohort.volumes,
        cohort.indices("train"),
        batch_size=options.batch_size,
        seed=options.seed,
        rank=fabric.global_rank,
        world_size=fabric.world_size,
        second=task.second,
        paired=model.reads != "unpaired",
        conditions=conditions.encode(cohort.rows) if conditions.size else None,
        augment=task.alter(options),
    )
    metrics = MetricsTable(out / METRICS, up_to=state.step)
    writer = _tensorboard(out) if options.tensorboard and fabric.is_global_zero else None
    return Training(
        fabric,
        model,
        conditions,
        options,
        task,
        run,
        optimizers,
        batches,
        metrics,
        writer,
        state,
        average,
    )


def _start_from(
    weights: Path, model: nn.Module, config: Mapping[str, Any], cohort: Cohort
) -> RunFolder:
    """Give a model the weights of a trained run, and return that."""
    run = RunFolder.open(weights)
    run.check_model(config["model"])
    run.check_cohort(cohort)
    held_out = {cohort.rows[i]["participant_id"] for i in cohort.indices("validation", "test")}
    leaked = run.trained_on(held_out)
    if leaked:
        raise InputError(
            f"the weights to start from were fitted to {len(leaked)} brains that are held out here "
            f"(such as {leaked[0]}): {weights}"
        )
    model.load_state_dict(run.load().model.state_dict())
    return run


def _conditions(model: nn.Module, cohort: Cohort) -> Conditions:
    """What the model is told of each brain, as the training split has it."""
    names = model.condition if isinstance(model, Conditioned) else ()
    return Conditions.fit(names, [cohort.rows[i] for i in cohort.indices("train")])


def fit(training: Training, stop: StopFlag, *, quiet: bool) -> int:
    """Train to the last step, or until a signal; returns the exit code."""
    options, state, fabric = training.options, training.state, training.fabric
    hidden = quiet or not fabric.is_global_zero or not sys.stderr.isatty()
    if fabric.is_global_zero:
        _warn_of_memory(training)
    bar = tqdm(initial=state.step, total=options.steps, desc="train", unit="step", disable=hidden)
    begin, before, first = time.perf_counter(), state.seconds, state.step
    with bar:
        while not training.is_over:
            started = time.perf_counter()
            terms = train_step(training)
            training.durations.append(time.perf_counter() - started)
            state.step += 1
            state.seconds = before + time.perf_counter() - begin
            last = state.step == options.steps
            if options.session_steps and state.step - first == options.session_steps:
                stop.code = stop.code or STOPPED
            validates = state.step % options.validate_every == 0 or last
            logs = state.step % options.log_every == 0 or last
            code = _largest(fabric, stop.code)
            if validates or logs or code:
                _check_finite(training, terms)
            if logs:
                _log(training, terms)
            if validates:
                _validate_and_save(training)
            elif code:
                _save(training)
            bar.update()
            if code and not training.is_over:
                return code
    if fabric.is_global_zero:
        training.run.write_cost(cost_of(training))
        write_model_card(training.run, training.metrics)
    return 0


def _warn_of_memory(training: Training) -> None:
    """Say before the first step, if what it takes may not be there."""
    model, batches, options = training.model, training.batches, training.options
    device = training.fabric.device
    held = held_by_one(model, batches, training.state.step, options.seed, device)
    warning = warning_of(held, batches.own, model, available_bytes(device))
    if warning:
        print(f"foldnorm: warning: {warning}", file=sys.stderr)


def cost_of(training: Training) -> dict[str, float]:
    """What a run took: parameters, pace, and the peak memory of this process or of its GPU."""
    device = training.fabric.device
    if device.type == "cuda":
        peak = torch.cuda.max_memory_allocated(device) / 2**20
    else:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    pace = statistics.median(training.durations) if training.durations else float("nan")
    return {
        "parameters": sum(p.numel() for p in training.model.parameters()),
        "seconds_per_step": round(pace, 6),
        "seconds": round(training.state.seconds, 2),
        "peak_memory_mib": round(peak, 1),
    }


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
        volumes = training.batches.batch(number).to(fabric.device)
        condition = training.batches.condition(number)
        condition = None if condition is None else condition.to(fabric.device)
        noise = StepNoise(
            (options.seed, step, n),
            len(volumes),
            fabric.device,
            fabric.global_rank,
            fabric.world_size,
        )
        _freeze_all_but(model, phase)
        with torch.autocast(
            fabric.device.type, dtype=torch.bfloat16, enabled=options.precision == "bf16"
        ):
            phase_terms = model.loss(phase, volumes, noise, condition)
        optimizers = {n: training.optimizers[n] for n in model.phases[phase].networks}
        for network, optimizer in optimizers.items():
            optimizer.zero_grad(set_to_none=True)
            optimizer.param_groups[0]["lr"] = options.rate(network, step)
        phase_terms["loss"].backward()
        for optimizer in optimizers.values():
            average_gradients(fabric, optimizer)
        if options.gradient_clip:
            clip_gradients(optimizers.values(), options.gradient_clip)
        for optimizer in optimizers.values():
            optimizer.step()
        if isinstance(model, Constrains):
            model.after_step(phase)
        _note_divergence(training, phase_terms["loss"].detach(), n)
        terms.update({f"{phase}/{name}": term.detach() for name, term in phase_terms.items()})
    if training.average is not None:
        training.average.update_parameters(model)
    return terms


def _note_divergence(training: Training, loss: Tensor, phase: int) -> None:
    """Remember the first loss that is not finite, without waiting for it."""
    if training.diverged is None:
        training.diverged = torch.full((2,), -1, device=loss.device)
    here = torch.tensor([training.state.step, phase], device=loss.device)
    is_first = (training.diverged[0] < 0) & ~torch.isfinite(loss)
    training.diverged = torch.where(is_first, here, training.diverged)


def _check_finite(training: Training, terms: Mapping[str, Tensor]) -> None:
    """Stop before anything is saved, if a loss or a weight of any process is not finite.

    Raises:
        InputError: with the step and the terms.
    """
    assert training.diverged is not None
    step, phase = (int(x) for x in training.diverged)
    is_finite = all(bool(torch.isfinite(p).all()) for p in training.model.parameters())
    bad = sorted(name for name, value in terms.items() if not torch.isfinite(value))
    if _largest(training.fabric, int(step >= 0 or not is_finite)):
        assert isinstance(training.model, Trainable)
        what = f"{', '.join(bad) or 'a weight'} is not finite"
        if step >= 0:
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


def clip_gradients(optimizers: Iterable[torch.optim.Optimizer], bound: float) -> None:
    """Shorten the gradient of all these optimisers together to at most ``bound``."""
    groups = [group for optimizer in optimizers for group in optimizer.param_groups]
    parameters = [p for group in groups for p in group["params"]]
    torch.nn.utils.clip_grad_norm_(parameters, bound)


def average_gradients(fabric: Fabric, optimizer: torch.optim.Optimizer) -> None:
    """Replace each gradient by its mean over processes, in one message."""
    if fabric.world_size == 1:
        return
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
    flat = torch.cat([g.flatten() for g in gradients])
    flat = mean_over_processes(fabric, flat)
    for p, g in zip(parameters, flat.split([p.numel() for p in parameters]), strict=True):
        p.grad = g.view_as(p)


def mean_over_processes(fabric: Fabric, tensor: Tensor) -> Tensor:
    """Mean of a tensor over all processes; the tensor itself if there is one."""
    if fabric.world_size == 1:
        return tensor
    mean = fabric.all_reduce(tensor, reduce_op="mean")
    assert isinstance(mean, Tensor)
    return mean


def load_state(
    run: RunFolder,
    model: nn.Module,
    optimizers: Mapping[str, torch.optim.Optimizer],
    device: torch.device,
    average: AveragedModel | None = None,
) -> TrainingState:
    """Take up model, optimisers and average from the last checkpoint."""
    checkpoint = run.load_checkpoint("last", device)
    try:
        model.load_state_dict(checkpoint["model"])
        if average is not None:
            average.module.load_state_dict(checkpoint["average"])
            average.n_averaged.fill_(checkpoint["state"]["step"])
        for name, optimizer in optimizers.items():
            optimizer.load_state_dict(checkpoint["optimizers"][name])
        return TrainingState(**checkpoint["state"])
    except (KeyError, RuntimeError, ValueError, TypeError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(
            f"checkpoint does not fit the configuration ({reason}): {run.checkpoint('last')}"
        ) from error


def _networks(model: Trainable) -> list[str]:
    """Names of all networks that some phase trains."""
    return sorted({name for phase in model.phases.values() for name in phase.networks})


def _freeze_all_but(model: Trainable, phase: str) -> None:
    """Only the phase's networks take gradients; others still pass them through."""
    for name in _networks(model):
        getattr(model, name).requires_grad_(name in model.phases[phase].networks)


def _validate_and_save(training: Training) -> None:
    """Validate, keep the checkpoint as last and perhaps best, draw samples."""
    fabric = training.fabric
    fabric.barrier()
    if fabric.is_global_zero:
        figures = validate(training.task, training.shown, training.options.validation_volumes)
        _record(training, figures)
        options, state = training.options, training.state
        row = training.metrics.rows[state.step]
        value = row.get(options.monitor)
        sign = 1 if options.monitor_mode == "min" else -1
        is_best = value is not None and sign * value < sign * state.best
        state.waited = 0 if is_best else state.waited + 1
        if is_best and value is not None:
            state.best = value
        _save(training)
        if is_best:
            training.run.save_checkpoint("best", _checkpoint(training))
        picture = sample_picture(training.task, training.shown)
        if picture is not None:
            path = training.run.samples / f"step-{state.step:07d}.png"
            write_bytes(path, png(picture))
    if fabric.world_size > 1:  # all processes stop together; only the first has validated
        training.state.waited = int(fabric.broadcast(training.state.waited))


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
    figures = {name: float(mean_over_processes(training.fabric, t)) for name, t in terms.items()}
    if training.fabric.is_global_zero:
        assert isinstance(training.model, Trainable)
        number = training.state.step * len(training.model.phase_order(training.state.step))
        _record(training, {"epoch": training.batches.epoch_of(number), **figures})


def _record(training: Training, figures: dict[str, float]) -> None:
    training.metrics.add(training.state.step, figures)
    if training.writer is not None:
        for name, value in figures.items():
            training.writer.add_scalar(name, value, training.state.step)


def _largest(fabric: Fabric, code: int) -> int:
    """Largest code over all processes, so that they stop together."""
    if fabric.world_size == 1:
        return code
    codes = fabric.all_gather(torch.tensor(code, device=fabric.device))
    return int(torch.as_tensor(codes).max())


def _tensorboard(out: Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise InputError(
            "tensorboard is not installed: pip install foldnorm[tensorboard]"
        ) from None
    return SummaryWriter(str(out / "tensorboard"))
