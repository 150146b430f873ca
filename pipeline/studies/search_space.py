"""Parameters that a search varies, and options of the search."""

from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Literal

import yaml

from foldnorm.preprocessing.core.errors import InputError

if TYPE_CHECKING:  # an extra: only searching needs it, not what reads a search
    import optuna

Sampler = Literal["grid", "random", "tpe"]
Value = int | float | str | bool | None


@dataclass(frozen=True)
class Axis:
    """One parameter and where it may lie.

    Attributes:
        key: of the configuration, ``training.learning_rate``.
        values: to choose from; empty for a range.
        low: end of a range.
        high: end of a range.
        log: whether the range is even in the logarithm.
    """

    key: str
    values: tuple[Value, ...] = ()
    low: float = 0.0
    high: float = 0.0
    log: bool = False

    @classmethod
    def parse(cls, text: str) -> "Axis":
        """Read ``KEY=1,2,3`` (values as in YAML), ``KEY=1..10`` or ``KEY=1e-4..1e-2:log``."""
        key, equals, rest = text.partition("=")
        low, dots, high = rest.partition("..")
        try:
            if not key or not equals or not rest:
                raise ValueError(text)
            if not dots:
                return cls(key, tuple(_number(part) for part in rest.split(",")))
            high, colon, kind = high.partition(":")
            if colon and kind != "log":
                raise ValueError(kind)
            ends = _number(low), _number(high)
            if not all(isinstance(end, (int, float)) for end in ends) or ends[0] >= ends[1]:  # type: ignore[operator]
                raise ValueError(ends)
            return cls(key, (), ends[0], ends[1], kind == "log")  # type: ignore[arg-type]
        except (ValueError, TypeError, yaml.YAMLError):
            raise InputError(
                f"--vary: expected KEY=A,B,… or KEY=LOW..HIGH[:log], got {text!r}"
            ) from None

    def suggest(self, trial: "optuna.Trial") -> Value:
        """Draw a value for a trial."""
        if self.values:
            return trial.suggest_categorical(self.key, self.values)
        if isinstance(self.low, int) and isinstance(self.high, int):
            return trial.suggest_int(self.key, self.low, self.high, log=self.log)
        return trial.suggest_float(self.key, self.low, self.high, log=self.log)


@dataclass(frozen=True)
class SearchOptions:
    """Options of a search.

    Attributes:
        axes: what varies.
        sampler: ``grid`` (all combinations of lists), ``random``, or ``tpe``.
        trials: to make now, by this process; all that are left of a grid if None.
        prune: end trials early that are worse than the median of others at the same step.
        seed: of the sampler; every trial trains with the configuration's own seed.
        overrides: ``--key value`` for every trial.
        device: to train on.
    """

    axes: tuple[Axis, ...]
    sampler: Sampler = "tpe"
    trials: int | None = None
    prune: bool = False
    seed: int = 0
    overrides: tuple[str, ...] = ()
    device: str = "auto"

    def __post_init__(self) -> None:
        if not self.axes:
            raise InputError("nothing to search: give --vary KEY=…")
        if self.sampler == "grid" and not all(axis.values for axis in self.axes):
            raise InputError("--sampler grid needs values, KEY=A,B,…; it takes no range")
        if self.sampler != "grid" and self.trials is None:
            raise InputError(f"--sampler {self.sampler} needs --trials")

    @property
    def grid(self) -> list[dict[str, Value]]:
        """All combinations of lists, in order."""
        keys = [axis.key for axis in self.axes]
        combinations = product(*[axis.values for axis in self.axes])
        return [dict(zip(keys, values, strict=True)) for values in combinations]


def _number(text: str) -> Value:
    value = yaml.safe_load(text)
    if isinstance(value, str):  # YAML takes 1e-4 for a word
        try:
            return float(value)
        except ValueError:
            return value
    if value is not None and not isinstance(value, (int, float, bool)):
        raise ValueError(text)
    return value
