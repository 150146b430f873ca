"""Rectified flow: a network learns the straight way from noise to images, taken in few steps.

Liu et al. 2023 (arXiv:2209.03003); which times are looked at: Esser et al. 2024 (arXiv:2403.03206).
MONAI's
`RFlowScheduler` draws times from PyTorch's own random numbers, which no resumed run would repeat.
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from foldnorm.models.diffusion import Diffusion
from foldnorm.models.noise import StepNoise

STEPS = 1000  # from image to noise, as the network is told them; times between them are trained on


class RectifiedFlow(Diffusion):
    """The network learns the velocity, image − noise, at every point of the line between the two.

    Args:
        shape: see `Diffusion`; likewise what is not named here.
        n_channels: see there.
        times: that training images are looked at: ``uniform``, or ``logit-normal``, more of those
            in the middle, where it is open what will come out.
        sampler: ``euler``; or ``heun``, which asks the network twice a step, but for the last,
            and errs less.
        sampling_steps: of either.
        others: see `Diffusion`.
    """

    samplers: Sequence[str] = ("euler", "heun")

    def __init__(
        self,
        shape: Sequence[int],
        n_channels: int = 1,
        times: Literal["uniform", "logit-normal"] = "logit-normal",
        sampler: Literal["euler", "heun"] = "heun",
        sampling_steps: int = 20,
        **others: Any,
    ) -> None:
        super().__init__(
            shape, n_channels, diffusion_steps=STEPS, sampling_steps=sampling_steps, **others
        )
        self.times, self.sampler = times, sampler

    def draw_steps(self, noise: StepNoise) -> Tensor:
        """Draw the time at which each training image is looked at, (B,), 0 to `STEPS`."""
        if self.times == "uniform":
            return STEPS * noise.uniform()
        return STEPS * torch.sigmoid(noise.normal())

    def step_at(self, share: float) -> float:
        """Return the time at a share, from 0 to 1, of the way from image to noise."""
        return STEPS * share

    def add_noise(self, images: Tensor, added: Tensor, steps: Tensor) -> Tensor:
        """Mix images, (B, n_channels, *sides), with noise in the shares of the times, (B,)."""
        share = steps.view(-1, *[1] * (images.ndim - 1)) / STEPS
        return images + share * (added - images)

    def target(self, images: Tensor, added: Tensor) -> Tensor:
        """Return what the network is to say of images under noise: the velocity (eq. 1)."""
        return images - added

    def way(self) -> Sequence[float]:
        """Return the times of the sampler, evenly spaced; 0 is an image."""
        return [STEPS * (1 - n / self.sampling_steps) for n in range(self.sampling_steps + 1)]

    def shares(self, step: float) -> tuple[float, float]:
        """Return what an image and noise are multiplied by at a time."""
        return 1 - step / STEPS, step / STEPS

    def move(
        self,
        x: Tensor,
        step: float,
        following: float,
        predict: Callable[[Tensor, float], Tensor],
        draw: Callable[[], Tensor],
    ) -> Tensor:
        """Take noise away; see `Diffusion.move`."""
        del draw
        length, velocity = (step - following) / STEPS, predict(x, step)
        if self.sampler == "heun" and following > 0:  # an image itself says nothing of noise
            velocity = (velocity + predict(x + length * velocity, following)) / 2
        return x + length * velocity
