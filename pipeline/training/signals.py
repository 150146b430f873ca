"""Stopping cleanly: a signal only raises a flag, and the loop stops after its step."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

from foldnorm.preprocessing.core.errors import Stopped

STOPPED = 75  # "try again later": the exit code schedulers requeue on
INTERRUPTED = 130
# By which schedulers say that time is short, and go on otherwise; Windows has none.
OF_SCHEDULERS = (signal.SIGUSR1,) if hasattr(signal, "SIGUSR1") else ()


@dataclass
class StopFlag:
    """Request to stop, as an exit code; 0 while there is no reason to stop.

    Attributes:
        code: of the exit.
        by_signal: a signal asked for it.
    """

    code: int = 0
    by_signal: bool = False


@contextmanager
def stop_on_signals(*numbers: int, flag: StopFlag | None = None) -> Iterator[StopFlag]:
    """Turn signals into a flag; a second SIGINT interrupts at once.

    Within `ended_by_signals`, the end of this block, where the state is saved, ends that one too.

    Args:
        numbers: of the signals.
        flag: to raise; None: a new one.

    Raises:
        Stopped: a signal came, within `ended_by_signals`.
    """
    flag = flag or StopFlag()

    def request(number: int, frame: FrameType | None) -> None:
        del frame
        if number == signal.SIGINT and flag.code:
            raise KeyboardInterrupt
        flag.code, flag.by_signal = _code_of(number), True

    before = {number: signal.signal(number, request) for number in numbers}
    try:
        yield flag
    finally:
        for number, handler in before.items():
            if signal.getsignal(number) is request:
                signal.signal(number, handler)
    if flag.by_signal and _end in before.values():
        raise Stopped(flag.code)


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """Let signals end a block of several trainings: at once, but in a training after its step.

    Raises:
        Stopped: a signal came; by Ctrl-C or a scheduler.
    """
    numbers = (signal.SIGINT, signal.SIGTERM, *OF_SCHEDULERS)
    before = {number: signal.signal(number, _end) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _end(number: int, frame: FrameType | None) -> None:
    del frame
    raise Stopped(_code_of(number))


def _code_of(number: int) -> int:
    return INTERRUPTED if number == signal.SIGINT else STOPPED


def ignore(*numbers: int) -> None:
    """Ignore signals from here to the end of the process, which is at its end.

    A launcher signals the other processes when the first has left; they have saved their state by
    then, and leave with the same exit code.
    """
    for number in numbers:
        signal.signal(number, signal.SIG_IGN)
