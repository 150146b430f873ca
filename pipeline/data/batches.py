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
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from multiprocessing.sharedctypes import RawValue
from types import FrameType
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from foldnorm.models.noise import seed_of
from foldnorm.pipeline.data.items import Item, ItemTransform, stacked, transformed
from foldnorm.preprocessing.core.arrays import VolumeArray, read_row
from foldnorm.preprocessing.core.counts import counted
from foldnorm.preprocessing.core.errors import InputError
from foldnorm.preprocessing.core.resources import available_cores


class Drawn(NamedTuple):
    """A training volume, and its condition, if the model has any.

    Attributes:
        volume: (*sides), or (2 or 3, *sides) of pairs and of what was made of a volume.
        condition: (n,) float32.
    """

    volume: Tensor
    condition: Tensor | None


class Draws(Dataset["Drawn | InputError"]):
    """Training volumes by the number of their draw, without end.

    Args:
        volumes: (N, I, J, K) uint8, usually in a file: many processes share one copy.
        indices: volumes to draw from.
        seed: of the permutations.
        auxiliary: by name, what lies beside each volume: second of a pair, folds, sulci.
        paired: row n of these goes with row n of ``volumes``; otherwise their rows are drawn by a
            permutation of their own.
        conditions: (N, n) float32, the condition of each volume.
        transforms: of an item (see `foldnorm.pipeline.data.items`), one after the other: a
            dictionary with the volume as ``image`` and auxiliary arrays by name, (1, …) each, and
            its ``condition``, if any. What is random in them is keyed by the number of the draw.
        keys: of the item, in the order in which the model reads them; those that are not there are
            passed over. None: the volume and all auxiliary arrays.
    """

    def __init__(
        self,
        volumes: VolumeArray,
        indices: NDArray[np.int64],
        *,
        seed: int = 0,
        auxiliary: Mapping[str, VolumeArray] | None = None,
        paired: bool = True,
        conditions: NDArray[np.float32] | None = None,
        transforms: Sequence[ItemTransform] = (),
        keys: Sequence[str] | None = None,
    ) -> None:
        if not len(indices):
            raise InputError("no volume to train on: the training split is empty")
        self.volumes, self.indices, self.seed = volumes, indices, seed
        self.auxiliary, self.paired = auxiliary or {}, paired
        self.conditions, self.transforms = conditions, transforms
        self.keys = ("image", *self.auxiliary) if keys is None else keys
        self._orders: dict[str, tuple[int, NDArray[np.int64]]] = {}

    def index(self, draw: int) -> int:
        """Return the index of the volume of a draw."""
        return self._index(draw, "epoch")

    def read(self, draw: int) -> Drawn:
        """Read a volume, with what lies beside it, and alter it."""
        index = self.index(draw)
        item: Item = {"image": read_row(self.volumes, index)[None]}
        other = index if self.paired else self._index(draw, "second epoch")
        item |= {name: read_row(array, other)[None] for name, array in self.auxiliary.items()}
        if self.conditions is not None:
            item["condition"] = self.conditions[index]
        item = transformed(item, self.transforms, self.seed, draw)
        condition = item.get("condition")
        volume = torch.from_numpy(stacked(item, self.keys))
        return Drawn(volume, None if condition is None else torch.from_numpy(condition))

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
        self.local_batch_size = batch_size // world_size

    def draws(self, number: int) -> range:
        """Draws of this process in a batch."""
        first = number * self.batch_size + self.rank * self.local_batch_size
        return range(first, first + self.local_batch_size)

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
            volumes = counted(len(draws.indices), "training volume")
            raise InputError(f"{world_size} processes for {volumes}: start at most as many")
        if batch_size % world_size:
            raise InputError(
                f"batch_size {batch_size} must be a multiple of the {world_size} processes"
            )
        self.data, self.batch_size, self.workers, self.pin = draws, batch_size, workers, pin
        self.numbers = BatchNumbers(batch_size, rank, world_size)
        self.local_batch_size = self.numbers.local_batch_size
        self._prefetched: Iterator[Drawn | InputError] | None = None
        self._closed: Any = None  # shared with the workers: whether they may end
        self._next = -1  # number of the batch that the loader gives next
        self._current: tuple[int, Drawn] | None = None

    def indices_of(self, number: int) -> NDArray[np.int64]:
        """Volumes of batch ``number`` of this process, (batch_size / world_size,)."""
        return np.array([self.data.index(draw) for draw in self.numbers.draws(number)])

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
        return self._of(number).condition

    def first_of(self, number: int) -> Drawn:
        """Read the first volume of a batch, as a batch of one; nothing is read ahead."""
        return _batch_of([self.data.read(self.numbers.draws(number)[0])])

    def epoch_of(self, number: int) -> float:
        """Return the number of epochs completed before batch ``number``, with its fraction."""
        return number * self.batch_size / len(self.data.indices)

    def close(self) -> None:
        """Stop reading ahead."""
        if self._closed is not None:
            self._closed.value = True
        self._prefetched, self._next = None, -1

    def _of(self, number: int) -> Drawn:
        if self._current is not None and self._current[0] == number:
            return self._current[1]
        if number != self._next or self._prefetched is None:
            self._prefetched, self._next = self._loader(number), number
        try:
            drawn = next(self._prefetched)
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
        self._current = number, drawn
        return drawn

    def _loader(self, start: int) -> "Iterator[Drawn | InputError]":
        """Return batches from one on, stacked where read, so that what is pinned is sent."""
        self.close()
        self.numbers.start = start
        self._closed = RawValue(ctypes.c_bool, False)
        weakref.finalize(self, setattr, self._closed, "value", True)  # at exit, too
        loader = DataLoader(
            self.data,
            batch_sampler=self.numbers,
            num_workers=self.workers,
            # What alters volumes holds functions, which cannot be sent to a new process.
            multiprocessing_context="fork" if self.workers else None,
            collate_fn=_batch_or_error,
            pin_memory=self.pin,
            worker_init_fn=partial(_leave_signals, self._closed),
        )
        if not self.workers or threading.current_thread() is not threading.main_thread():
            return iter(loader)
        # PyTorch's handler raises wherever Python is when a worker ends, in the middle of a step;
        # without it, the batch that does not come says so.
        before = signal.getsignal(signal.SIGCHLD)
        loaded = iter(loader)
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
    return 1 if device.type == "cpu" else max(available_cores() // processes, 1)


def _batch_or_error(drawn: "Sequence[Drawn | InputError]") -> "Drawn | InputError":
    """Stack what was drawn, or return the first error."""
    errors = [each for each in drawn if isinstance(each, InputError)]
    return errors[0] if errors else _batch_of([each for each in drawn if isinstance(each, Drawn)])


def _batch_of(drawn: Sequence[Drawn]) -> Drawn:
    conditions = [each.condition for each in drawn if each.condition is not None]
    volumes = torch.stack([each.volume for each in drawn])
    return Drawn(volumes, torch.stack(conditions) if conditions else None)


def _leave_signals(closed: Any, worker: int) -> None:
    """Leave it to the process that trains to stop: schedulers signal all processes of a job.

    Args:
        closed: shared with that process: whether a worker may end.
        worker: number of this one.
    """
    del worker

    def end_if_closed(number: int, frame: FrameType | None) -> None:
        del number, frame
        if closed.value:
            os._exit(0)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, end_if_closed)
