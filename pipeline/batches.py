"""Batches of volumes or pairs by number: any step's batch can be had without those before it.

Each epoch is a permutation keyed by (seed, epoch), so resuming needs no state, and processes
share one epoch without talking.
"""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from foldnorm.models.noise import seed_of
from foldnorm.preprocessing.errors import InputError


class Beside(Protocol):
    """What lies beside volumes: a memory map, or something that is read like one."""

    def __getitem__(self, index: Any, /) -> NDArray[np.integer]:
        """(I, J, K) of one volume, or (B, I, J, K) of several."""


class _Batch(NamedTuple):
    """Volumes of a batch, and what the model is told of them, if anything."""

    volumes: Tensor
    condition: Tensor | None


class Batches:
    """Batches of volumes out of a memory map, read one ahead.

    Args:
        volumes: (N, I, J, K) uint8, usually a memory map: many processes share one copy.
        indices: volumes to draw from.
        batch_size: volumes a batch, over all processes.
        seed: of the permutations.
        rank: of this process.
        world_size: processes; it divides the batch.
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
        batch_size: int,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        second: Beside | None = None,
        paired: bool = True,
        conditions: NDArray[np.float32] | None = None,
        place: Callable[[NDArray[Any], int], NDArray[np.float32]] | None = None,
        augment: Callable[[NDArray[Any], int], NDArray[np.uint8]] | None = None,
    ) -> None:
        if not len(indices):
            raise InputError("no volume to train on: the training split is empty")
        if world_size > len(indices):
            raise InputError(
                f"{world_size} processes for {len(indices)} training volumes: start at most as many"
            )
        if batch_size % world_size:
            raise InputError(
                f"batch_size {batch_size} must be a multiple of the {world_size} processes"
            )
        self.volumes, self.indices = volumes, indices
        self.second, self.paired, self.augment = second, paired, augment
        self.conditions, self.place = conditions, place
        self.batch_size, self.seed = batch_size, seed
        self.own = batch_size // world_size
        self.first = rank * self.own
        self._reader = ThreadPoolExecutor(1)
        self._reads: dict[int, Future[_Batch]] = {}  # of a batch, and of the one after it
        self._orders: dict[str, tuple[int, NDArray[np.int64]]] = {}

    def indices_of(self, number: int) -> NDArray[np.int64]:
        """Volumes of batch ``number`` of this process, (batch_size / world_size,)."""
        return np.array([self._draw(n, "epoch") for n in self._draws(number)])

    def second_indices_of(self, number: int) -> NDArray[np.int64]:
        """Second volumes of that batch, likewise."""
        if self.paired:
            return self.indices_of(number)
        return np.array([self._draw(n, "second epoch") for n in self._draws(number)])

    def batch(self, number: int) -> Tensor:
        """Batch ``number`` of this process on the CPU: uint8, or float32 of images.

        Returns:
            (B, *sides); of pairs, and of volumes beside what was made of them, (B, 2 or 3, *sides).
        """
        return self._of(number).volumes

    def condition(self, number: int) -> Tensor | None:
        """What the model is told of the volumes of that batch, (B, n) float32."""
        return self._of(number).condition

    def epoch_of(self, number: int) -> float:
        """How often every volume had been seen before batch ``number``."""
        return number * self.batch_size / len(self.indices)

    def close(self) -> None:
        """Stop reading ahead."""
        self._reader.shutdown(cancel_futures=True)

    def _draws(self, number: int) -> range:
        first = number * self.batch_size + self.first
        return range(first, first + self.own)

    def _draw(self, n: int, kind: str) -> int:
        epoch, place = divmod(n, len(self.indices))
        return int(self.indices[self._permutation(kind, epoch)[place]])

    def _permutation(self, kind: str, epoch: int) -> NDArray[np.int64]:
        known, order = self._orders.get(kind, (-1, None))
        if known != epoch or order is None:
            rng = np.random.default_rng(seed_of(self.seed, kind, epoch))
            order = rng.permutation(len(self.indices))
            self._orders[kind] = (epoch, order)
        return order

    def _of(self, number: int) -> _Batch:
        """A batch, while the one after it is being read."""
        self._reads = {
            n: self._reads.get(n) or self._reader.submit(self._read, n)
            for n in (number, number + 1)
        }
        return self._reads[number].result()

    def _read(self, number: int) -> _Batch:
        indices, draws = self.indices_of(number), self._draws(number)
        read: list[NDArray[np.integer]] = [self.volumes[indices]]
        if self.second is not None:
            read.append(self.second[self.second_indices_of(number)])
        batch = np.stack(read, axis=1)  # (B, 1 or 2, I, J, K)
        told = None if self.conditions is None else self.conditions[indices]
        if self.place is not None:
            told = np.stack([self.place(v, n) for v, n in zip(batch, draws, strict=True)])
        if self.augment is not None:
            batch = np.stack([self.augment(v, n) for v, n in zip(batch, draws, strict=True)])
        volumes = torch.from_numpy(batch if batch.shape[1] > 1 else batch[:, 0])
        return _Batch(volumes, None if told is None else torch.from_numpy(told))
