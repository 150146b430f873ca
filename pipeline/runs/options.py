"""The ``training`` section of a configuration."""

import math
from dataclasses import dataclass, field
from typing import Literal

from foldnorm.models.noise import NoiseSource
from foldnorm.models.precision import TrainingPrecision
from foldnorm.pipeline.data.augmentation import AugmentationOptions
from foldnorm.preprocessing.core.errors import InputError

Compile = bool | Literal["reduce-overhead"]
DECAY_FLOOR = 0.05  # of the learning rate, at the last step of a cosine decay


@dataclass
class TrainingOptions:
    """Options of training, the same for every model.

    Attributes:
        steps: rounds through the model's phases.
        batch_size: volumes a phase, over all processes.
        learning_rate: of Adam.
        learning_rates: of single networks (``critic``), where they differ.
        decay: of all learning rates over the steps: ``none``, ``linear`` or ``cosine`` to a
            twentieth.
        warmup_steps: over which learning rates rise from 0.
        gradient_clip: largest norm of the gradient of a phase; 0 leaves it as it is.
        ema: decay of an exponential moving average of the weights, such as 0.999; it is what is
            validated and what a finished run is. 0: the weights themselves.
        patience: validations without a better monitored figure after which training ends; null:
            never.
        betas: of Adam.
        seed: of weights, order and noise.
        augmentation: of training volumes.
        patch: sides of the part of each training volume that is learned from, voxels, drawn so that
            it holds some structure; null: whole volumes. Whole ones are validated, and scored in
            windows of that size.
        workers: processes beside each that trains, which read, move and edit volumes ahead of it;
            0: none. null: one on a CPU, all of the machine's beside a GPU. What is learned does not
            depend on it.
        precision: ``32`` is float32 everywhere; ``tf32`` lets a GPU multiply in TF32, and is ``32``
            on a CPU; ``bf16`` is mixed, the rest in TF32 (on a CPU convolutions of small maps stay
            in float32, see `foldnorm.models.small_maps`). Critics are trained in full float32. A
            GPU on which the model is used later multiplies alike.
        compile: have PyTorch compile the networks, but those whose gradient is penalised;
            ``reduce-overhead`` also makes them CUDA graphs on a GPU. The first step of each phase
            then takes up to minutes, and results are the same but for rounding (and dropout, which
            is drawn otherwise). Validation is not compiled.
        noise: where it is drawn: on the ``device`` that trains, on a GPU for each volume by itself;
            ``cpu`` gives a GPU the numbers of a CPU, to compare the two, and takes longer.
        log_every: steps between rows of metrics.csv.
        validate_every: steps between validations, checkpoints and sample pictures.
        validation_volumes: at most so many for the panel of sheet metrics.
        monitor: column of metrics.csv that decides which checkpoint is ``best``.
        monitor_mode: whether it is to go down (``min``) or up (``max``).
        session_steps: stop after so many steps with exit code 75, to be resumed; null: never.
        tensorboard: also write TensorBoard events (needs the extra ``tensorboard``).
    """

    steps: int = 2000
    batch_size: int = 8
    learning_rate: float = 2e-4
    learning_rates: dict[str, float] = field(default_factory=dict)
    decay: Literal["none", "linear", "cosine"] = "none"
    warmup_steps: int = 0
    gradient_clip: float = 0.0
    ema: float = 0.0
    patience: int | None = None
    betas: tuple[float, float] = (0.5, 0.9)
    seed: int = 0
    augmentation: AugmentationOptions = field(default_factory=AugmentationOptions)
    patch: tuple[int, int, int] | None = None
    workers: int | None = None
    precision: TrainingPrecision = "tf32"
    compile: Compile = False
    noise: NoiseSource = "device"
    log_every: int = 10
    validate_every: int = 200
    validation_volumes: int = 32
    monitor: str = "validation/loss"
    monitor_mode: Literal["min", "max"] = "min"
    session_steps: int | None = None
    tensorboard: bool = False

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "log_every", "validate_every", "validation_volumes"):
            if getattr(self, name) < 1:
                raise InputError(f"training.{name}: expected at least 1, got {getattr(self, name)}")
        for name in ("warmup_steps", "gradient_clip"):
            if not getattr(self, name) >= 0:
                raise InputError(f"training.{name}: expected 0 or more, got {getattr(self, name)}")
        if not 0 <= self.ema < 1:
            raise InputError(f"training.ema: expected at least 0 and below 1, got {self.ema}")
        if self.patience is not None and self.patience < 1:
            raise InputError(f"training.patience: expected at least 1, got {self.patience}")
        if self.workers is not None and self.workers < 0:
            raise InputError(f"training.workers: expected 0 or more, got {self.workers}")
        if not self.learning_rate > 0:
            raise InputError(f"training.learning_rate: expected above 0, got {self.learning_rate}")

    def rate(self, network: str, step: int) -> float:
        """Learning rate of a network at a step."""
        rate = self.learning_rates.get(network, self.learning_rate)
        if step < self.warmup_steps:
            rate *= (step + 1) / self.warmup_steps
        if self.decay == "none":
            return rate
        done = min(step / self.steps, 1.0)
        left = 1 - done if self.decay == "linear" else 0.5 * (1 + math.cos(math.pi * done))
        return rate * (DECAY_FLOOR + (1 - DECAY_FLOOR) * left)
