"""The ``training`` section of a configuration."""

from dataclasses import dataclass, field
from typing import Literal

from foldnorm.preprocessing.errors import InputError


@dataclass
class TrainingOptions:
    """How a model is trained; the same names for every model.

    Attributes:
        steps: rounds through the model's phases.
        batch_size: volumes a phase, over all processes.
        learning_rate: of Adam.
        learning_rate_of: of single phases, by name, where it differs.
        betas: of Adam.
        seed: of weights, order and noise.
        precision: ``32``, or ``bf16`` (mixed).
        log_every: steps between rows of metrics.csv.
        validate_every: steps between validations, checkpoints and sample pictures.
        validation_volumes: at most so many for the panel of sheet metrics.
        monitor: column of metrics.csv that decides which checkpoint is ``best``.
        monitor_mode: whether it is to go down (``min``) or up (``max``).
        tensorboard: also write TensorBoard events (needs the extra ``tensorboard``).
    """

    steps: int = 2000
    batch_size: int = 8
    learning_rate: float = 2e-4
    learning_rate_of: dict[str, float] = field(default_factory=dict)
    betas: tuple[float, float] = (0.5, 0.9)
    seed: int = 0
    precision: Literal["32", "bf16"] = "32"
    log_every: int = 10
    validate_every: int = 200
    validation_volumes: int = 32
    monitor: str = "validation/loss"
    monitor_mode: Literal["min", "max"] = "min"
    tensorboard: bool = False

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "log_every", "validate_every", "validation_volumes"):
            if getattr(self, name) < 1:
                raise InputError(f"training.{name}: expected at least 1, got {getattr(self, name)}")
        if not self.learning_rate > 0:
            raise InputError(f"training.learning_rate: expected above 0, got {self.learning_rate}")
