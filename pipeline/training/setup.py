"""State of one training process: model, optimisers, batches and run, built anew or resumed."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from lightning.fabric import Fabric
from torch import Tensor, nn

from foldnorm.models.blocks import as_channels_last
from foldnorm.models.grids import ShapeError
from foldnorm.models.named_networks import named_networks_of
from foldnorm.models.noise import seed_of
from foldnorm.models.protocols import Conditioned, HasFirstStage, Trainable, networks_of
from foldnorm.pipeline.artifacts import RUN_METRICS
from foldnorm.pipeline.data.batches import Batches, Draws, workers_for
from foldnorm.pipeline.data.conditions import Conditions
from foldnorm.pipeline.runs.config import build_model, spelt_out, training_options
from foldnorm.pipeline.runs.leakage import refuse_leak
from foldnorm.pipeline.runs.metrics_log import MetricsLog
from foldnorm.pipeline.runs.options import TrainingOptions
from foldnorm.pipeline.runs.run_folder import RunFolder
from foldnorm.pipeline.runs.trained_model import TrainedModel
from foldnorm.pipeline.training.compiled import compile_networks
from foldnorm.pipeline.training.distributed import Group
from foldnorm.pipeline.training.messages import told_by_first
from foldnorm.pipeline.training.registry import task_of
from foldnorm.pipeline.training.task import Task
from foldnorm.pipeline.training.weight_average import WeightAverage
from foldnorm.preprocessing.cohort.cohort import Cohort
from foldnorm.preprocessing.cohort.each_volume import fault_of_volumes
from foldnorm.preprocessing.core.errors import InputError

SEEN_WITHIN = 60.0  # seconds in which what one node has written is seen by the others
PAUSE = 0.5  # seconds between two looks


@dataclass
class TrainingState:
    """State of a training that a checkpoint holds beside the weights.

    Attributes:
        step: steps finished.
        best: best value of the monitored figure so far.
        validations_without_improvement: since the best value.
        seconds: spent training, over all sessions.
    """

    step: int = 0
    best: float = float("inf")
    validations_without_improvement: int = 0
    seconds: float = 0.0

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> "TrainingState":
        """Build the state that a checkpoint holds; release 0.1 had another name in it."""
        current = dict(record)
        if "waited" in current:
            current["validations_without_improvement"] = current.pop("waited")
        return cls(**current)


@dataclass
class Training:
    """State of one process while it trains."""

    fabric: Fabric
    model: nn.Module
    conditions: Conditions
    options: TrainingOptions
    task: Task
    run: RunFolder
    optimizers: Mapping[str, torch.optim.Optimizer]
    batches: Batches
    metrics: MetricsLog
    writer: Any = None
    state: TrainingState = field(default_factory=TrainingState)
    average: WeightAverage | None = None
    # Seconds a step of this session, from one row of metrics.csv to the next: between them the
    # device works while the process is ahead.
    paces: list[float] = field(default_factory=list)
    # The first phase of all whose loss was not finite, or -1 (see `train.MAX_PHASES`); on the
    # device, so that looking at every loss does not wait for it.
    diverged: Tensor | None = None

    @property
    def eval_model(self) -> TrainedModel:
        """The model that is validated: the average of its weights, if one is kept."""
        model = self.model if self.average is None else self.average.module
        config = {"training": {"noise": self.options.noise}}
        return TrainedModel(model, self.fabric.device, self.conditions, config=config)

    @property
    def is_over(self) -> bool:
        """True if the last step is done, or the monitored figure has not improved for too long."""
        patience = self.options.patience
        ended = patience is not None and self.state.validations_without_improvement >= patience
        return ended or self.state.step >= self.options.steps


def set_up(
    config: Mapping[str, Any],
    cohort: Cohort,
    out: Path,
    *,
    fabric: Fabric,
    resume: bool,
    weights: Path | None = None,
    group: Group | None = None,
) -> Training:
    """Build the model, its optimisers and the run folder, or take them up where they were."""
    options = training_options(config)
    torch.manual_seed(seed_of(options.seed, "weights"))
    model = build_model(config["model"])
    _check_networks(model, options, cohort.shape)
    if not isinstance(model, Trainable):
        raise InputError(f"{type(model).__name__} has no phases to train")
    init_from = None if weights is None else _start_from(weights, model, config, cohort)
    task = task_of(model, cohort)
    _refuse_unreadable(cohort, fabric)
    optimizers, average = _to_device(model, options, fabric, len(cohort.shape))
    compile_networks(model, options.compile, fabric.device)
    run = RunFolder(out)
    conditions, state = _conditions(model, cohort, init_from), TrainingState()
    if options.monitor_mode == "max":
        state.best = -float("inf")
    if resume and resumes(run, fabric):
        run.check_model(config["model"])
        run.check_cohort(cohort)
        conditions = run.conditions
        state = load_state(run, model, optimizers, average)
    elif fabric.is_global_zero:
        run.remove_training()
        run.write_data(cohort, conditions, init_from)
    if fabric.is_global_zero:
        run.write_config(config)  # again on resume: it may train for longer
        run.write_environment()
    return Training(
        fabric,
        model,
        conditions,
        options,
        task,
        run,
        optimizers,
        _batches(draws_of(task, options, conditions), options, fabric, group or Group()),
        MetricsLog(out / RUN_METRICS, up_to=state.step),
        _tensorboard(out) if options.tensorboard and fabric.is_global_zero else None,
        state,
        average,
    )


def resumes(run: RunFolder, fabric: Fabric) -> bool:
    """Say if the first process goes on from a checkpoint; the others wait until they see that one.

    Raises:
        InputError: this process still sees none, or another, after `SEEN_WITHIN` seconds.
    """
    seen, begin = run.reached, time.monotonic()
    step = told_by_first(fabric, seen)
    while seen != step:
        if time.monotonic() - begin > SEEN_WITHIN:
            raise InputError(
                f"the first process of this training goes on from step {step}, and process "
                f"{fabric.global_rank} sees a checkpoint of step {seen}: all nodes must see the "
                f"same run folder: {run.folder}"
            )
        time.sleep(PAUSE)
        seen = run.reached
    return step > 0


def _refuse_unreadable(cohort: Cohort, fabric: Fabric) -> None:
    """Have one process read what is trained and validated on, not when its turn comes, hours later.

    Raises:
        InputError: in all processes, a volume cannot be read.
    """
    fault = fault_of_volumes(cohort, "train", "validation") if fabric.is_global_zero else ""
    if fault := told_by_first(fabric, fault):
        raise InputError(fault)


def _check_networks(model: nn.Module, options: TrainingOptions, shape: Sequence[int]) -> None:
    """Let zeros through networks by class path: patches, if it learns from them, and whole volumes.

    Raises:
        InputError: sides, channels or what comes out do not suit.
    """
    try:
        for network in named_networks_of(model):
            for sides in {tuple(options.patch or shape), tuple(shape)}:
                network.check(sides, min(options.batch_size, 2))
    except ShapeError as error:
        raise InputError(str(error)) from None


def _to_device(
    model: nn.Module, options: TrainingOptions, fabric: Fabric, dims: int
) -> tuple[dict[str, torch.optim.Optimizer], WeightAverage | None]:
    """Bring the model to its device; an optimiser for each network, and the average of weights."""
    assert isinstance(model, Trainable)
    model.to(fabric.device)
    if options.precision != "bf16":
        # In bf16 it takes longer: a tenth on an H100 (V-Net, WGAN-GP; gpu_h100.json), a quarter for
        # a restorer on CPUs.
        as_channels_last(model, dims)
    optimizers: dict[str, torch.optim.Optimizer] = {
        network: torch.optim.Adam(
            getattr(model, network).parameters(),
            betas=options.betas,
            # One kernel for all parameters. On CPUs its numbers are others than those of old runs.
            fused=True if fabric.device.type == "cuda" else None,
        )
        for network in networks_of(model)
    }
    average = None
    if options.ema:
        average = WeightAverage(model, options.ema)
    return optimizers, average


def draws_of(task: Task, options: TrainingOptions, conditions: Conditions) -> Draws:
    """Training volumes, with what the task puts beside them and does to them."""
    task.check_options(options)
    cohort = task.cohort
    return Draws(
        cohort.volumes,
        task.training_indices(),
        seed=options.seed,
        auxiliary=task.auxiliary,
        paired=task.model.input_kind != "unpaired",
        conditions=conditions.encode(cohort.rows) if conditions.size else None,
        transforms=task.transforms(options),
        keys=task.keys,
    )


def _batches(draws: Draws, options: TrainingOptions, fabric: Fabric, group: Group) -> Batches:
    """Build the batches of this process."""
    return Batches(
        draws,
        options.batch_size,
        rank=fabric.global_rank,
        world_size=fabric.world_size,
        workers=workers_for(options.workers, fabric.device, group.local),
        pin=fabric.device.type == "cuda",
    )


def _start_from(
    weights: Path, model: nn.Module, config: Mapping[str, Any], cohort: Cohort
) -> RunFolder:
    """Give a model the weights of a trained run, of it or of its first stage, and return that."""
    run = RunFolder.open(weights)
    trained = run.load().model
    later = (
        model if isinstance(model, HasFirstStage) and type(trained) is model.first_stage else None
    )
    own = config["model"] if later is None else spelt_out(later.first_stage_config(config["model"]))
    differing = run.differs_in(own, is_first_stage=later is not None)
    if "class_path" in differing:
        differing = ["class_path"]  # and so in all that follows from it
    if differing:
        raise InputError(
            f"--weights: expected {type(model).__name__} with the arguments of the configuration, "
            f"got {type(trained).__name__} (differs in {', '.join(differing)}): {weights}"
        )
    run.check_cohort(cohort)
    held_out = {cohort.rows[i]["participant_id"] for i in cohort.indices("validation", "test")}
    refuse_leak(run.trained_on(held_out), "held out of this training", weights)
    if later is None:
        model.load_state_dict(trained.state_dict())
    else:
        later.load_first_stage(trained.state_dict())
    return run


def _conditions(model: nn.Module, cohort: Cohort, init_from: RunFolder | None) -> Conditions:
    """Return the model's conditions: those of earlier weights, or fitted on the training split."""
    if init_from is not None:
        return init_from.conditions
    names = model.condition if isinstance(model, Conditioned) else ()
    return Conditions.fit(names, [cohort.rows[i] for i in cohort.indices("train")])


def load_state(
    run: RunFolder,
    model: nn.Module,
    optimizers: Mapping[str, torch.optim.Optimizer],
    average: WeightAverage | None = None,
) -> TrainingState:
    """Take up model, optimisers and average from the last checkpoint.

    Of an optimiser all but how it computes: a run may go on where another kind of Adam is faster.
    """
    checkpoint = run.load_checkpoint("last", ("model", "optimizers", "state"))
    try:
        model.load_state_dict(checkpoint["model"])
        if average is not None:
            average.module.load_state_dict(checkpoint["average"])
            average.has_begun = checkpoint["state"]["step"] > 0
        for name, optimizer in optimizers.items():
            load_optimizer(optimizer, checkpoint["optimizers"][name])
        return TrainingState.from_dict(checkpoint["state"])
    except (KeyError, RuntimeError, ValueError, TypeError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(
            f"checkpoint does not fit the configuration ({reason}): {run.checkpoint('last')}"
        ) from error


def load_optimizer(optimizer: torch.optim.Optimizer, saved: Mapping[str, Any]) -> None:
    """Take up the state of an optimiser of any device; a fused one counts its steps on its own."""
    own = {name: optimizer.param_groups[0][name] for name in ("fused", "foreach")}
    groups = [{**group, **own} for group in saved["param_groups"]]
    optimizer.load_state_dict({**saved, "param_groups": groups})


def _tensorboard(out: Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise InputError(
            "tensorboard is not installed: pip install foldnorm[tensorboard]"
        ) from None
    return SummaryWriter(str(out / "tensorboard"))
