"""Denoising diffusion: noise is added to images step by step, and a network learns to take it away.

Ho et al. 2020 (arXiv:2006.11239); fewer steps: Song et al. 2021 (arXiv:2010.02502). The schedules
are MONAI's.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from monai.networks.schedulers import DDIMScheduler, DDPMScheduler
from torch import Tensor

from foldnorm.models.diffusion import Diffusion
from foldnorm.models.noise import StepNoise


class DDPM(Diffusion):
    """The network learns which noise was added.

    Args:
        shape: see `Diffusion`; likewise what is not named here.
        n_channels: see there.
        diffusion_steps: n, from image to noise.
        beta_min: variance of the noise of the first step.
        beta_max: of the last; between them it grows linearly.
        sampler: ``ddpm``, every step; or ``ddim``, few and without noise.
        others: see `Diffusion`; ``sampling_steps`` are those of ddim.
    """

    samplers: Sequence[str] = ("ddpm", "ddim")

    def __init__(
        self,
        shape: Sequence[int],
        n_channels: int = 1,
        diffusion_steps: int = 1000,
        beta_min: float = 1e-4,
        beta_max: float = 0.02,
        sampler: Literal["ddpm", "ddim"] = "ddim",
        **others: Any,
    ) -> None:
        if diffusion_steps < 2 or not 0 < beta_min <= beta_max < 1:
            raise ValueError(
                "expected 0 < beta_min ≤ beta_max < 1 and two diffusion_steps or more, got "
                f"{beta_min:g}, {beta_max:g} and {diffusion_steps}"
            )
        super().__init__(shape, n_channels, diffusion_steps=diffusion_steps, **others)
        self.sampler = sampler
        betas: dict[str, Any] = {"beta_start": beta_min, "beta_end": beta_max}
        # Not networks of this model: they hold constants. Those of the samplers stay on the CPU;
        # to add noise moves them to where the images are, so that has a scheduler of its own.
        self.schedulers: Mapping[str, Any] = {
            "ddpm": DDPMScheduler(diffusion_steps, "linear_beta", **betas),
            "ddim": DDIMScheduler(diffusion_steps, "linear_beta", **betas),
            "adding": DDPMScheduler(diffusion_steps, "linear_beta", **betas),
        }

    @property
    def num_inference_steps(self) -> int:
        """Number of steps from noise to an image."""
        return self.diffusion_steps if self.sampler == "ddpm" else self.sampling_steps

    def draw_steps(self, noise: StepNoise) -> Tensor:
        """Draw the step at which each training image is looked at, (B,): each as often."""
        return (noise.uniform() * self.diffusion_steps).long()

    def step_at(self, share: float) -> int:
        """Return the step at a share, from 0 to 1, of the way from image to noise."""
        return min(int(share * self.diffusion_steps), self.diffusion_steps - 1)

    def add_noise(self, images: Tensor, added: Tensor, steps: Tensor) -> Tensor:
        """Add to images, (B, n_channels, *sides), the noise of the steps, (B,)."""
        return self.schedulers["adding"].add_noise(images, added, steps)

    def target(self, images: Tensor, added: Tensor) -> Tensor:
        """Return what the network is to say of images under noise: the noise (eq. 14)."""
        del images
        return added

    def way(self) -> Sequence[float]:
        """Return the steps of the sampler; −1 stands for no noise."""
        scheduler = self.schedulers[self.sampler]
        scheduler.set_timesteps(self.num_inference_steps)
        return [*scheduler.timesteps.tolist(), -1]

    def shares(self, step: float) -> tuple[float, float]:
        """Return what an image and noise are multiplied by at a step (eq. 4)."""
        if step < 0:
            return 1.0, 0.0
        of_image = self.schedulers["ddpm"].alphas_cumprod[int(step)].item()
        return of_image**0.5, (1 - of_image) ** 0.5

    def move(
        self,
        x: Tensor,
        step: float,
        following: float,
        predict: Callable[[Tensor, float], Tensor],
        draw: Callable[[], Tensor],
    ) -> Tensor:
        """Take noise away; see `Diffusion.move`."""
        scheduler, at = self.schedulers[self.sampler], int(step)
        noise_pred = predict(x, at)
        if self.sampler == "ddim":
            return scheduler.step(noise_pred, at, x)[0]
        x, deviation = _posterior(scheduler, noise_pred, at, x)
        return x if following < 0 else x + deviation * draw()


def _posterior(scheduler: Any, noise_pred: Tensor, step: int, x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and deviation of images before a step, given those after it (Ho et al. 2020, eq. 7).

    That is MONAI's ``step`` without its noise, which it would draw for all images together. The
    schedule stays on the CPU, from where a GPU takes single numbers without a copy.
    """
    alpha_bar = scheduler.alphas_cumprod[step]
    before = scheduler.alphas_cumprod[step - 1] if step > 0 else scheduler.one
    clean = (x - (1 - alpha_bar) ** 0.5 * noise_pred) / alpha_bar**0.5
    clean = clean.clamp(*scheduler.clip_sample_values)
    of_clean = before**0.5 * scheduler.betas[step] / (1 - alpha_bar)
    of_x = scheduler.alphas[step] ** 0.5 * (1 - before) / (1 - alpha_bar)
    variance = ((1 - before) / (1 - alpha_bar) * scheduler.betas[step]).clamp(min=1e-20)
    return of_clean * clean + of_x * x, variance**0.5
