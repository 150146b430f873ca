"""Noise keyed by (seed, step, phase), the same however many processes share the batch.

So a resumed run draws what an unbroken one would have, and two processes with half a batch each
draw what one process with the whole batch would.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

NoiseSource = Literal["device", "cpu"]


@dataclass
class StepNoise:
    """Random numbers of one phase of one step.

    On a CPU they are drawn for the whole batch of all processes, of which each takes its part. On a
    GPU each volume has a generator there, keyed by its number in the whole batch: nothing is drawn
    that is another process's, and nothing is waited for. The two differ in their numbers, not in
    their law.

    Attributes:
        key: seed, step and phase.
        batch: volumes in this process.
        device: where the noise is wanted.
        rank: of this process.
        world_size: processes.
        source: ``cpu`` draws a CPU's numbers for a GPU, too, to compare the two.
    """

    key: tuple[int | str, ...]
    batch: int
    device: torch.device
    rank: int = 0
    world_size: int = 1
    source: NoiseSource = "device"
    generators: list[torch.Generator] = field(init=False)

    def __post_init__(self) -> None:
        if self._is_on_gpu:
            first = self.rank * self.batch
            self.generators = [
                torch.Generator(self.device).manual_seed(seed_of(*self.key, "volume", n))
                for n in range(first, first + self.batch)
            ]
        else:
            self.generators = [torch.Generator().manual_seed(seed_of(*self.key))]

    def normal(self, *shape: int) -> Tensor:
        """Draw standard normal noise, (batch, *shape) float32."""
        return self._drawn(torch.randn, shape)

    def uniform(self, *shape: int) -> Tensor:
        """Draw uniform noise in [0, 1), (batch, *shape) float32."""
        return self._drawn(torch.rand, shape)

    @property
    def step(self) -> int:
        """Step of the training, from 0; the second part of the key."""
        return int(self.key[1])

    @property
    def _is_on_gpu(self) -> bool:
        return self.source == "device" and self.device.type == "cuda"

    def _drawn(self, draw: Callable[..., Tensor], shape: tuple[int, ...]) -> Tensor:
        if self._is_on_gpu:
            own = [draw(shape, generator=g, device=self.device) for g in self.generators]
            return torch.stack(own)
        (generator,) = self.generators
        whole = draw(self.batch * self.world_size, *shape, generator=generator)
        first = self.rank * self.batch
        return whole[first : first + self.batch].to(self.device)


def generator_on(
    device: torch.device, seed: int, source: NoiseSource = "device"
) -> torch.Generator:
    """Make a generator for what a model draws on a device; ``cpu`` draws a CPU's numbers there."""
    on_gpu = source == "device" and device.type == "cuda"
    return torch.Generator(device if on_gpu else "cpu").manual_seed(seed)


def normal_of(generator: torch.Generator, shape: tuple[int, ...], device: torch.device) -> Tensor:
    """Draw standard normal noise where the generator is, float32, and bring it to a device."""
    return torch.randn(shape, generator=generator, device=generator.device).to(device)


def seed_of(*key: int | str) -> int:
    """Return a 63-bit seed of any key, the same on every machine."""
    digest = hashlib.sha256("/".join(map(str, key)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
