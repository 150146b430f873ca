"""Batches of volumes or pairs by number: any step's batch can be had without those before it.

Each epoch is a permutation keyed by (seed, epoch), and what is drawn of a volume is keyed by the
number of the draw. So resuming needs no state, processes share one epoch without talking, and a
batch is the same whichever worker of a `torch.utils.data.DataLoader` reads it.
"""

import ctypes
import itertools
import os
import signal
import sys
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from multiprocessing.sharedctypes import RawValue
from types import FrameType
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from foldnorm.models.noise import seed_of
from foldnorm.preprocessing.core.errors import InputError


class Beside(Protocol):
    """Arrays that accompany the volumes: a memory map, or something that is read like one."""

    def __getitem__(self, index: Any, /) -> NDArray[np.integer]:
        """(I, J, K) of one volume, or (B, I, J, K) of several."""


class Drawn(NamedTuple):
    """A training volume, and what the model is told of it, if anything.

    Attributes:
        volume: (*sides), or (2 or 3, *sides) of pairs and of what was made of a volume.
        told: (n,) float32.
    """

    volume: Tensor
    told: Tensor | None


class Draws(Dataset["Drawn | InputError"]):
    """Training volumes by the number of their draw, without end.

    Args:
        volumes: (N, I, J, K) uint8, usually a memory map: many processes share one copy.
        indices: volumes to draw from.
        seed: of the permutations.
        second: (N, I, J, K), what lies beside each volume: second of a pair, folds, sulci.
        paired: row n of ``second`` goes with row n of ``volumes``; otherwise second volumes are
            drawn by a permutation of their own.
        conditions: (N, n) float32, what the model is told of each volume.
        place: called with (1 or 2, I, J, K) volumes and the number of the draw, which no other
            draw of any process has; gives (n,) float32, what the model is told instead: which part
            of the volume ``augment`` cuts out.
        augment: called likewise; gives (1 or 2, *sides) uint8.
    """

    def __init__(
        self,
        volumes: NDArray[np.uint8],
        indices: NDArray[np.int64],
        *,
        seed: int = 0,
        second: Beside | None = None,
        paired: bool = True,
        conditions: NDArray[np.float32] | None = None,
        place: Callable[[NDArray[Any], int], NDArray[np.float32]] | None = None,
        augment: Callable[[NDArray[Any], int], NDArray[np.uint8]] | None = None,
    ) -> None:
        if not len(indices):
            raise InputError("no volume to train on: the training split is empty")
        self.volumes, self.indices, self.seed = volumes, indices, seed
        self.second, self.paired, self.augment = second, paired, augment
        self.conditions, self.place = conditions, place
        self._orders: dict[str, tuple[int, NDArray[np.int64]]] = {}

    def index(self, draw: int) -> int:
        """Return the index of the volume of a draw."""
        return self._index(draw, "epoch")

    def second_index(self, draw: int) -> int:
        """Return the index of the row of ``second`` that goes with the volume of a draw."""
        return self.index(draw) if self.paired else self._index(draw, "second epoch")

    def read(self, draw: int) -> Drawn:
        """Read a volume, with what lies beside it, and alter it."""
        index = self.index(draw)
        read: list[NDArray[np.integer]] = [self.volumes[index]]
        if self.second is not None:
            read.append(self.second[self.second_index(draw)])
        volumes = np.stack(read)  # (1 or 2, I, J, K)
        told = None if self.conditions is None else self.conditions[index]
        if self.place is not None:
            told = self.place(volumes, draw)
        if self.augment is not None:
            volumes = self.augment(volumes, draw)
        volume = torch.from_numpy(volumes if len(volumes) > 1 else volumes[0])
        return Drawn(volume, None if told is None else torch.from_numpy(told))

    def __getitem__(self, draw: int) -> "Drawn | InputError":
        try:
            return self.read(draw)
        except InputError as error:  # raised in a worker, it would arrive with a traceback
            return error

    def _index(self, draw: int, kind: str) -> int:
        epoch, place = divmod(draw, len(self.indices))
        known, order = self._orders.get(kind, (-1, None))
        if known != epoch or order is None:
            rng = np.random.default_rng(seed_of(self.seed, kind, epoch))
            order = rng.permutation(len(self.indices))
            self._orders[kind] = (epoch, order)
        return int(self.indices[order[place]])


class BatchNumbers(Sampler[list[int]]):
    """Draws of one batch after the other, of one process, without end.

    Args:
        batch_size: draws a batch, over all processes.
        rank: of this process.
        world_size: processes; it divides the batch.
        start: number of the first batch.
    """

    def __init__(self, batch_size: int, rank: int, world_size: int, start: int = 0) -> None:
        self.batch_size, self.rank, self.start = batch_size, rank, start
        self.own = batch_size // world_size

    def draws(self, number: int) -> range:
        """Draws of this process in a batch."""
        first = number * self.batch_size + self.rank * self.own
        return range(first, first + self.own)

    def __iter__(self) -> Iterator[list[int]]:
        return (list(self.draws(number)) for number in itertools.count(self.start))


class Batches:
    """Batches of one process by number, read ahead by workers.

    Args:
        draws: training volumes.
        batch_size: volumes a batch, over all processes.
        rank: of this process.
        world_size: processes; it divides the batch.
        workers: processes that read ahead; 0 reads in this one, when a batch is asked for.
        pin: into memory that a GPU copies from without a wait.
    """

    def __init__(
        self,
        draws: Draws,
        batch_size: int,
        *,
        rank: int = 0,
        world_size: int = 1,
        workers: int = 0,
        pin: bool = False,
    ) -> None:
        if world_size > len(draws.indices):
            raise InputError(
                f"{world_size} processes for {len(draws.indices)} training volumes: start at most "
                "as many"
            )
        if batch_size % world_size:
            raise InputError(
                f"batch_size {batch_size} must be a multiple of the {world_size} processes"
            )
        self.data, self.batch_size, self.workers, self.pin = draws, batch_size, workers, pin
        self.numbers = BatchNumbers(batch_size, rank, world_size)
        self.own = self.numbers.own
        self._loaded: Iterator[Drawn | InputError] | None = None
        self._over: Any = None  # shared with the workers: whether they may end
        self._next = -1  # number of the batch that the loader gives next
        self._held: tuple[int, Drawn] | None = None

    def indices_of(self, number: int) -> NDArray[np.int64]:
        """Volumes of batch ``number`` of this process, (batch_size / world_size,)."""
        return np.array([self.data.index(draw) for draw in self.numbers.draws(number)])

    def second_indices_of(self, number: int) -> NDArray[np.int64]:
        """Second volumes of that batch, likewise."""
        return np.array([self.data.second_index(draw) for draw in self.numbers.draws(number)])

    def batch(self, number: int) -> Tensor:
        """Batch ``number`` of this process on the CPU: uint8, or float32 of images.

        Batches that are asked for in order are read ahead.

        Returns:
            (B, *sides); of pairs, and of volumes beside what was made of them, (B, 2 or 3, *sides).

        Raises:
            InputError: a volume cannot be read or altered, or a worker has ended.
        """
        return self._of(number).volume

    def condition(self, number: int) -> Tensor | None:
        """Return the condition of each volume of batch ``number``, (B, n) float32, if any."""
        return self._of(number).told

    def first_of(self, number: int) -> Drawn:
        """Read the first volume of a batch, as a batch of one; nothing is read ahead."""
        return _batch_of([self.data.read(self.numbers.draws(number)[0])])

    def epoch_of(self, number: int) -> float:
        """Return the number of epochs completed before batch ``number``, with its fraction."""
        return number * self.batch_size / len(self.data.indices)

    def close(self) -> None:
        """Stop reading ahead."""
        if self._over is not None:
            self._over.value = True
        self._loaded, self._next = None, -1

    def _of(self, number: int) -> Drawn:
        if self._held is not None and self._held[0] == number:
            return self._held[1]
        if number != self._next or self._loaded is None:
            self._loaded, self._next = self._loader(number), number
        try:
            drawn = next(self._loaded)
        except (RuntimeError, ConnectionError, EOFError) as error:
            if isinstance(error, RuntimeError) and "DataLoader worker" not in str(error):
                raise
            reason = (str(error) or type(error).__name__).splitlines()[0]
            raise InputError(
                f"a process that reads training volumes has ended ({reason}): memory, or "
                "shared memory (/dev/shm), may have run out; --training.workers 0 needs none"
            ) from error
        self._next += 1
        if isinstance(drawn, InputError):
            raise drawn
        self._held = number, drawn
        return drawn

    def _loader(self, start: int) -> "Iterator[Drawn | InputError]":
        """Return batches from one on, stacked where read, so that what is pinned is sent."""
        self.close()
        self.numbers.start = start
        self._over = RawValue(ctypes.c_bool, False)
        weakref.finalize(self, setattr, self._over, "value", True)  # at exit, too
        loader = DataLoader(
            self.data,
            batch_sampler=self.numbers,
            num_workers=self.workers,
            # What alters volumes holds functions, which cannot be sent to a new process.
            multiprocessing_context="fork" if self.workers else None,
            collate_fn=_batch_or_error,
            pin_memory=self.pin,
            worker_init_fn=partial(_leave_signals, self._over),
        )
        before = signal.getsignal(signal.SIGCHLD)
        loaded = iter(loader)
        if threading.current_thread() is threading.main_thread():
            # PyTorch's handler raises wherever Python is when a worker ends, in the middle of a
            # step; without it, the batch that does not come says so.
            signal.signal(signal.SIGCHLD, before)
        return loaded


def workers_for(asked: int | None, device: torch.device, processes: int) -> int:
    """Choose how many processes read training volumes for each process that trains.

    Args:
        asked: None: one beside a CPU that trains, which computes with all others; beside a GPU as
            many as there are CPUs for each; none where processes cannot be forked safely.
        device: that trains.
        processes: that train on this machine.
    """
    if asked is not None or sys.platform != "linux":
        return asked or 0
    cpus = len(os.sched_getaffinity(0))  # of this job, on a cluster
    return 1 if device.type == "cpu" else max(cpus // processes, 1)


def _batch_or_error(drawn: "Sequence[Drawn | InputError]") -> "Drawn | InputError":
    """Stack what was drawn, or return the first error."""
    errors = [each for each in drawn if isinstance(each, InputError)]
    return errors[0] if errors else _batch_of([each for each in drawn if isinstance(each, Drawn)])


def _batch_of(drawn: Sequence[Drawn]) -> Drawn:
    told = [each.told for each in drawn if each.told is not None]
    return Drawn(torch.stack([each.volume for each in drawn]), torch.stack(told) if told else None)


def _leave_signals(over: Any, worker: int) -> None:
    """Leave it to the process that trains to stop: schedulers signal all processes of a job.

    Args:
        over: shared with that process: whether a worker may end.
        worker: number of this one.
    """
    del worker

    def end_if_over(number: int, frame: FrameType | None) -> None:
        del number, frame
        if over.value:
            os._exit(0)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, end_if_over)
