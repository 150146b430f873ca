"""Noise keyed by (seed, step, phase), drawn for the whole batch and shared out over processes.

So a resumed run draws what an unbroken one would have, and two processes with half a batch each
draw what one process with the whole batch would.
"""

import hashlib
from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass
class StepNoise:
    """Random numbers of one phase of one step.

    Attributes:
        key: seed, step and phase.
        batch: volumes in this process.
        device: where the noise is wanted; it is drawn on the CPU, the same on every device.
        rank: of this process.
        world_size: processes.
    """

    key: tuple[int | str, ...]
    batch: int
    device: torch.device
    rank: int = 0
    world_size: int = 1
    generator: torch.Generator = field(init=False)

    def __post_init__(self) -> None:
        self.generator = torch.Generator().manual_seed(seed_of(*self.key))

    def normal(self, *shape: int) -> Tensor:
        """Draw standard normal noise, (batch, *shape) float32."""
        return self._local_slice(torch.randn(self._global_batch, *shape, generator=self.generator))

    def uniform(self, *shape: int) -> Tensor:
        """Draw uniform noise in [0, 1), (batch, *shape) float32."""
        return self._local_slice(torch.rand(self._global_batch, *shape, generator=self.generator))

    @property
    def step(self) -> int:
        """Step of the training, from 0; the second part of the key."""
        return int(self.key[1])

    @property
    def _global_batch(self) -> int:
        return self.batch * self.world_size

    def _local_slice(self, whole: Tensor) -> Tensor:
        first = self.rank * self.batch
        return whole[first : first + self.batch].to(self.device)


def seed_of(*key: int | str) -> int:
    """Return a 63-bit seed of any key, the same on every machine."""
    digest = hashlib.sha256("/".join(map(str, key)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
