"""Batches by number: any step's batch can be had without the ones before it.

Each epoch is a permutation keyed by (seed, epoch), so resuming needs no state, and processes
share one epoch without talking.
"""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from foldnorm.models.noise import seed_of
from foldnorm.preprocessing.errors import InputError


class Batches:
    """Batches of volumes out of a memory map, read one ahead.

    Args:
        volumes: (N, I, J, K) uint8, usually a memory map: many processes share one copy.
        indices: volumes to draw from.
        batch_size: volumes a batch, over all processes.
        seed: of the permutations.
        rank: of this process.
        world_size: processes; it divides the batch.
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
    ) -> None:
        if not len(indices):
            raise InputError("no volume to train on: the training split is empty")
        if batch_size % world_size:
            raise InputError(
                f"batch_size {batch_size} must be a multiple of the {world_size} processes"
            )
        self.volumes, self.indices = volumes, indices
        self.batch_size, self.seed = batch_size, seed
        self.own = batch_size // world_size
        self.first = rank * self.own
        self._reader = ThreadPoolExecutor(1)
        self._ahead: tuple[int, object] | None = None

    def indices_of(self, number: int) -> NDArray[np.int64]:
        """Volumes of batch ``number`` of this process, (batch_size / world_size,)."""
        drawn = np.arange(number * self.batch_size, (number + 1) * self.batch_size)
        drawn = drawn[self.first : self.first + self.own]
        return np.array([self._draw(int(n)) for n in drawn])

    def batch(self, number: int) -> Tensor:
        """Batch ``number`` of this process, (B, I, J, K) uint8 on the CPU."""
        if self._ahead is not None and self._ahead[0] == number:
            batch = self._ahead[1].result()  # type: ignore[attr-defined]
        else:
            batch = self._read(number)
        self._ahead = (number + 1, self._reader.submit(self._read, number + 1))
        return batch

    def epoch_of(self, number: int) -> float:
        """How often every volume had been seen before batch ``number``."""
        return number * self.batch_size / len(self.indices)

    def close(self) -> None:
        """Stop reading ahead."""
        self._reader.shutdown(cancel_futures=True)

    def _draw(self, n: int) -> int:
        epoch, place = divmod(n, len(self.indices))
        return int(self.indices[self._permutation(epoch)[place]])

    def _permutation(self, epoch: int) -> NDArray[np.int64]:
        if getattr(self, "_epoch", None) != epoch:
            rng = np.random.default_rng(seed_of(self.seed, "epoch", epoch))
            self._epoch, self._order = epoch, rng.permutation(len(self.indices))
        return self._order

    def _read(self, number: int) -> Tensor:
        return torch.from_numpy(self.volumes[np.asarray(self.indices_of(number))])
