"""Denoising diffusion: noise is added to images step by step, and a network learns to take it away.

Ho et al. 2020 (arXiv:2006.11239); fewer steps: Song et al. 2021 (arXiv:2010.02502). Network and
schedules are MONAI's.
"""

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import torch
from monai.networks.nets import DiffusionModelUNet
from monai.networks.schedulers import DDIMScheduler, DDPMScheduler
from torch import Tensor, nn

from foldnorm.models.blocks import pixelshuffle, pixelunshuffle
from foldnorm.models.checkpointed import Checkpointed
from foldnorm.models.class_paths import ClassPath
from foldnorm.models.classes import as_channels, to_classes
from foldnorm.models.grids import ShapeError
from foldnorm.models.named_networks import NamedNoisePredictor
from foldnorm.models.noise import StepNoise, normal_of
from foldnorm.models.protocols import InputKind, Phase

N_VALIDATION_STEPS = 8  # of the noise, evenly spaced, at which a validation image is looked at


class DDPM(nn.Module):
    """Noise → images (or label volumes), in many steps.

    Args:
        shape: sides, 2-D or 3-D; taken from the cohort by ``foldnorm train``.
        n_channels: 1 for images, the number of classes for label volumes; taken from the cohort.
        channels: of the U-Net, a level each; each level below the first halves the sides.
        attention: of each level, whether it has self-attention.
        residual_blocks: of each level.
        patch: side of the blocks of pixels that become channels, so that the U-Net works on maps of
            a patch-th of the sides; 1 for none.
        norm_groups: of the group norm; 1 is layer norm over channels and places.
        activation: ``gelu`` or ``silu``.
        checkpointing: keep only what goes into each residual block for the backward pass, and
            compute the rest again there: less memory, more time.
        diffusion_steps: n, from image to noise.
        beta_min: variance of the noise of the first step.
        beta_max: of the last; between them it grows linearly.
        sampler: ``ddpm``, every step; or ``ddim``, few and without noise.
        sampling_steps: of ddim.
        condition: columns of ``participants.tsv`` that the network is told.
        condition_size: numbers they amount to; taken from the cohort.
        network: by class path, such as ``monai.networks.nets.SegResNet``, in the place of this
            U-Net; ``channels`` to ``activation``, but not ``patch``, then mean nothing.
    """

    input_kind: InputKind = "images"

    def __init__(
        self,
        shape: Sequence[int],
        n_channels: int = 1,
        channels: Sequence[int] = (32, 64, 128),
        attention: Sequence[bool] = (False, False, True),
        residual_blocks: int = 2,
        patch: int = 1,
        norm_groups: int = 1,
        activation: Literal["gelu", "silu"] = "gelu",
        checkpointing: bool = False,
        diffusion_steps: int = 1000,
        beta_min: float = 1e-4,
        beta_max: float = 0.02,
        sampler: Literal["ddpm", "ddim"] = "ddim",
        sampling_steps: int = 50,
        condition: Sequence[str] = (),
        condition_size: int = 0,
        network: ClassPath | None = None,
    ) -> None:
        super().__init__()
        levels = len(channels) if network is None else 1
        _check(shape, channels, attention, patch, diffusion_steps, beta_min, beta_max, levels)
        if not 1 <= sampling_steps <= diffusion_steps:
            raise ValueError(
                f"sampling_steps: expected 1 to {diffusion_steps}, got {sampling_steps}"
            )
        self.shape, self.n_channels, self.patch = tuple(shape), n_channels, patch
        self.condition = tuple(condition)
        self.sampler: Literal["ddpm", "ddim"] = sampler
        self.sampling_steps = sampling_steps
        blocks = n_channels * patch ** len(shape)  # channels of a block of pixels
        if network is None:
            self.network: nn.Module = _unet(
                len(shape),
                blocks,
                channels,
                attention,
                residual_blocks,
                norm_groups,
                activation,
                checkpointing,
                condition_size,
            )
            self.checkpointing = checkpointing
        else:
            sides = [side // patch for side in shape]
            self.network = NamedNoisePredictor(
                network, sides, blocks, diffusion_steps, condition_size
            )
        betas: dict[str, Any] = {"beta_start": beta_min, "beta_end": beta_max}
        # Not networks of this model: they hold constants. Those of the samplers stay on the CPU;
        # to add noise moves them to where the images are, so that has a scheduler of its own.
        self.schedulers: Mapping[str, Any] = {
            "ddpm": DDPMScheduler(diffusion_steps, "linear_beta", **betas),
            "ddim": DDIMScheduler(diffusion_steps, "linear_beta", **betas),
            "adding": DDPMScheduler(diffusion_steps, "linear_beta", **betas),
        }
        self.diffusion_steps = diffusion_steps
        self.phases: Mapping[str, Phase] = {"diffusion": Phase(("network",))}

    def phase_order(self, step: int) -> Sequence[str]:
        """One step of the network."""
        del step
        return ("diffusion",)

    def loss(
        self, phase: str, volumes: Tensor, noise: StepNoise, condition: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Mean squared error of the noise (eq. 14) at a step drawn for each image."""
        del phase
        images = self.to_clean_input(volumes, condition, noise)
        steps = (noise.uniform() * self.diffusion_steps).long()
        error = self._error(images, steps, noise.normal(*images.shape[1:]), condition).mean()
        return {"squared_error": error, "loss": error}

    def validation_loss(self, volumes: Tensor, condition: Tensor | None = None) -> Tensor:
        """Mean squared error of the noise, the same noise each time, (B,)."""
        images = self.to_clean_input(volumes, condition)
        generator = torch.Generator().manual_seed(0)
        errors = []
        for n in range(N_VALIDATION_STEPS):
            step = (2 * n + 1) * self.diffusion_steps // (2 * N_VALIDATION_STEPS)
            added = torch.randn(images.shape[1:], generator=generator).to(images)
            steps = torch.full((len(images),), step, device=images.device)
            errors.append(self._error(images, steps, added.expand_as(images), condition))
        return torch.stack(errors).mean(dim=0)

    def diffuse(
        self,
        volumes: Tensor,
        share: float,
        generator: torch.Generator,
        condition: Tensor | None = None,
    ) -> Tensor:
        """Add the noise of a share of the diffusion steps, from 0 to 1, to images; (B, *sides).

        Label volumes come back as the likeliest class of each voxel.
        """
        images = self.to_clean_input(volumes, condition)
        if share <= 0:
            return self.to_output(images, condition)
        step = min(round(share * self.diffusion_steps), self.diffusion_steps) - 1
        added = normal_of(generator, images.shape, images.device)
        steps = torch.full((len(images),), max(step, 0), device=images.device)
        return self.to_output(self.schedulers["adding"].add_noise(images, added, steps), condition)

    @property
    def num_inference_steps(self) -> int:
        """Number of steps from noise to an image."""
        return self.diffusion_steps if self.sampler == "ddpm" else self.sampling_steps

    def sample(
        self, count: int, generator: torch.Generator, condition: Tensor | None = None
    ) -> Tensor:
        """Draw images.

        Args:
            count: how many.
            generator: of all noise, on the CPU or where the model is.
            condition: (count, condition_size), for a model that takes one.

        Returns:
            (count, *sides), float32 from −1 to 1, or uint8 class numbers.
        """
        (last,) = deque(self._denoised(count, generator, condition), maxlen=1)
        return self.to_output(last, condition)

    def sample_trajectory(
        self, count: int, generator: torch.Generator, condition: Tensor | None = None
    ) -> Iterator[Tensor]:
        """Yield the images after each denoising step of `sample`, which has the same arguments."""
        for x in self._denoised(count, generator, condition):
            yield self.to_output(x, condition)

    def _denoised(
        self, count: int, generator: torch.Generator, condition: Tensor | None
    ) -> Iterator[Tensor]:
        """(count, n_channels, *sides) after each step.

        Each has noise of its own, so that it is the same however many are drawn with it.
        """
        where = generator.device
        seeds = torch.randint(2**62, (count,), generator=generator, device=where).tolist()
        own = [torch.Generator(where).manual_seed(seed) for seed in seeds]
        device = next(self.network.parameters()).device
        condition = None if condition is None else condition.to(device)
        scheduler = self.schedulers[self.sampler]
        scheduler.set_timesteps(self.num_inference_steps)
        sides = (1, self.n_channels, *self.shape)
        x = torch.cat([normal_of(each, sides, device) for each in own])
        for step in scheduler.timesteps.tolist():
            steps = torch.full((count,), step, device=device)
            with torch.no_grad():
                noise_pred = self._predict_noise(x, steps, condition)
            if self.sampler == "ddim":
                x = scheduler.step(noise_pred, step, x)[0]
            else:
                x, deviation = _posterior(scheduler, noise_pred, step, x)
                if step > 0:
                    added = torch.cat([normal_of(each, sides, device) for each in own])
                    x = x + deviation * added
            yield x

    def _error(
        self, images: Tensor, steps: Tensor, added: Tensor, condition: Tensor | None
    ) -> Tensor:
        noisy = self.schedulers["adding"].add_noise(images, added, steps)
        noise_pred = self._predict_noise(noisy, steps, condition)
        return (noise_pred - added).square().flatten(1).mean(dim=1)

    def _predict_noise(self, x: Tensor, steps: Tensor, condition: Tensor | None) -> Tensor:
        """Predict the noise in (B, n_channels, *sides) at the steps (B,)."""
        dims = len(self.shape)
        blocks = pixelunshuffle(x, dims, self.patch)  # (B, n_channels · patch^d, *sides / patch)
        noise_pred = self.network(blocks, steps, class_labels=condition)
        return pixelshuffle(noise_pred.float(), dims, self.patch)

    def to_clean_input(
        self, volumes: Tensor, condition: Tensor | None, noise: StepNoise | None = None
    ) -> Tensor:
        """Turn a batch, (B, *sides), into what noise is added to, (B, n_channels, *sides)."""
        del condition, noise
        return as_channels(volumes, self.n_channels)

    def to_output(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        """Turn (B, n_channels, *sides) without noise into images or label volumes, (B, *sides)."""
        del condition
        return x[:, 0].clamp(-1, 1) if self.n_channels == 1 else to_classes(x)


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


def _check(
    shape: Sequence[int],
    channels: Sequence[int],
    attention: Sequence[bool],
    patch: int,
    diffusion_steps: int,
    beta_min: float,
    beta_max: float,
    levels: int,
) -> None:
    """Refuse arguments that do not go together."""
    if len(attention) != len(channels):
        raise ValueError(f"attention: expected {len(channels)} levels, got {len(attention)}")
    if diffusion_steps < 2 or not 0 < beta_min <= beta_max < 1:
        raise ValueError(
            "expected 0 < beta_min ≤ beta_max < 1 and two diffusion_steps or more, got "
            f"{beta_min:g}, {beta_max:g} and {diffusion_steps}"
        )
    if patch < 1:
        raise ValueError(f"patch: expected 1 or more, got {patch}")
    factor = patch * 2 ** (levels - 1)
    if any(side % factor for side in shape):
        raise ShapeError(
            f"images of {tuple(shape)} do not suit {levels} levels of patches of "
            f"{patch}: each side must be a multiple of {factor}"
        )


def _unet(
    dims: int,
    blocks: int,
    channels: Sequence[int],
    attention: Sequence[bool],
    residual_blocks: int,
    norm_groups: int,
    activation: str,
    checkpointing: bool,
    condition_size: int,
) -> DiffusionModelUNet:
    """Build the network; arguments as of `DDPM`, ``blocks`` being its channels in and out."""
    network = DiffusionModelUNet(
        spatial_dims=dims,
        in_channels=blocks,
        out_channels=blocks,
        num_res_blocks=residual_blocks,
        channels=channels,
        attention_levels=attention,
        norm_num_groups=norm_groups,
        num_head_channels=min(channels),
        num_class_embeds=condition_size or None,
    )
    if condition_size:
        # MONAI embeds the number of a class; ours are the numbers of any columns.
        network.class_embedding = nn.Linear(  # type: ignore[assignment]
            condition_size, 4 * channels[0]
        )
    if activation == "gelu":
        _replace_silu(network)
    if checkpointing:
        for level in (*network.down_blocks, *network.up_blocks):
            for n, block in enumerate(level.resnets):
                level.resnets[n] = Checkpointed(block)
    return network


def _replace_silu(module: nn.Module) -> None:
    """GELU (Hendrycks & Gimpel 2016, arXiv:1606.08415) wherever there is SiLU."""
    for name, child in module.named_children():
        if isinstance(child, nn.SiLU):
            setattr(module, name, nn.GELU())
        else:
            _replace_silu(child)
