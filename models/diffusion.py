"""Base class of diffusion models: a network, told how much noise is left, takes it away in steps.

Conditions may be left out for a share of the training volumes, so that what is drawn can be led
away from what the network draws without them: classifier-free guidance (Ho & Salimans 2022,
arXiv:2207.12598).
"""

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn

from foldnorm.models.blocks import pixelshuffle, pixelunshuffle
from foldnorm.models.class_paths import ClassPath
from foldnorm.models.classes import as_channels, to_classes
from foldnorm.models.diffusion_unet import diffusion_unet
from foldnorm.models.grids import ShapeError
from foldnorm.models.named_networks import NamedNoisePredictor
from foldnorm.models.noise import StepNoise, normal_of
from foldnorm.models.protocols import InputKind, Phase

N_VALIDATION_STEPS = 8  # of the noise, evenly spaced, at which a validation image is looked at
REPEATS = 5  # of each step where images are inpainted


class Diffusion(nn.Module):
    """Noise → images (or label volumes), in many steps; base class of what says which.

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
        sampling_steps: in which an image is drawn.
        condition: columns of ``participants.tsv`` that the network is told.
        condition_size: numbers they amount to; taken from the cohort.
        condition_dropout: share of the training volumes of which the network is told nothing.
        guidance: how far a drawn volume follows its condition: 1 as the network does that is told,
            above 1 beyond; it needs a ``condition_dropout``.
        network: by class path, such as ``monai.networks.nets.SegResNet``, in the place of this
            U-Net; ``channels`` to ``activation``, but not ``patch``, then mean nothing.
    """

    input_kind: InputKind = "images"
    samplers: Sequence[str] = ()

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
        sampling_steps: int = 50,
        condition: Sequence[str] = (),
        condition_size: int = 0,
        condition_dropout: float = 0.0,
        guidance: float = 1.0,
        network: ClassPath | None = None,
    ) -> None:
        super().__init__()
        _check(shape, channels, attention, patch, 1 if network else len(channels))
        if not 1 <= sampling_steps <= diffusion_steps:
            raise ValueError(
                f"sampling_steps: expected 1 to {diffusion_steps}, got {sampling_steps}"
            )
        _check_guidance(condition, condition_dropout, guidance)
        self.shape, self.n_channels, self.patch = tuple(shape), n_channels, patch
        self.condition = tuple(condition)
        self.condition_dropout, self.guidance = condition_dropout, guidance
        self.diffusion_steps, self.sampling_steps = diffusion_steps, sampling_steps
        self.sampler = self.samplers[-1]
        blocks = n_channels * patch ** len(shape)  # channels of a block of pixels
        if network is None:
            self.network: nn.Module = diffusion_unet(
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
        self.phases: Mapping[str, Phase] = {"diffusion": Phase(("network",))}

    def draw_steps(self, noise: StepNoise) -> Tensor:
        """Draw the step at which each training image is looked at, (B,)."""
        raise NotImplementedError

    def step_at(self, share: float) -> float:
        """Return the step at a share, from 0 to 1, of the way from image to noise."""
        raise NotImplementedError

    def add_noise(self, images: Tensor, added: Tensor, steps: Tensor) -> Tensor:
        """Add to images, (B, n_channels, *sides), the noise of the steps, (B,)."""
        raise NotImplementedError

    def target(self, images: Tensor, added: Tensor) -> Tensor:
        """Return what the network is to say of images under noise, likewise."""
        raise NotImplementedError

    def way(self) -> Sequence[float]:
        """Return the steps from noise to an image, and the one at which no noise is left."""
        raise NotImplementedError

    def shares(self, step: float) -> tuple[float, float]:
        """Return what an image and standard normal noise are multiplied by at a step."""
        raise NotImplementedError

    def move(
        self,
        x: Tensor,
        step: float,
        following: float,
        predict: Callable[[Tensor, float], Tensor],
        draw: Callable[[], Tensor],
    ) -> Tensor:
        """Take noise away, from one step of the way to the next.

        Args:
            x: (B, n_channels, *sides) at the step.
            step: where it is.
            following: where it goes.
            predict: gives what the network says of such images at a step.
            draw: gives standard normal noise of that shape.
        """
        raise NotImplementedError

    def phase_order(self, step: int) -> Sequence[str]:
        """One step of the network."""
        del step
        return ("diffusion",)

    def loss(
        self, phase: str, volumes: Tensor, noise: StepNoise, condition: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Mean squared error of what the network says, at a step drawn for each image."""
        del phase
        images = self.to_clean_input(volumes, condition, noise)
        steps = self.draw_steps(noise)
        added = noise.normal(*images.shape[1:])
        if condition is not None and self.condition_dropout:
            is_told = noise.uniform(1) >= self.condition_dropout
            condition = condition * is_told  # zeros, as where nothing is known
        error = self._error(images, steps, added, condition).mean()
        return {"squared_error": error, "loss": error}

    def validation_loss(self, volumes: Tensor, condition: Tensor | None = None) -> Tensor:
        """Mean squared error of what the network says, the same noise each time, (B,)."""
        images = self.to_clean_input(volumes, condition)
        generator = torch.Generator().manual_seed(0)
        errors = []
        for n in range(N_VALIDATION_STEPS):
            step = self.step_at((2 * n + 1) / (2 * N_VALIDATION_STEPS))
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
        added = normal_of(generator, images.shape, images.device)
        steps = torch.full((len(images),), self.step_at(share), device=images.device)
        return self.to_output(self.add_noise(images, added, steps), condition)

    @property
    def num_inference_steps(self) -> int:
        """Number of steps from noise to an image."""
        return self.sampling_steps

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

    @torch.no_grad()
    def inpaint(
        self,
        images: Tensor,
        missing: Tensor,
        generator: torch.Generator,
        condition: Tensor | None = None,
    ) -> Tensor:
        """Draw what is missing of images, given the rest.

        Whenever the network is asked, what is known takes the place of what was drawn there, with
        the noise of the step. Each step is taken `REPEATS` times, noise added in between, so that
        what is drawn goes with what is known (Lugmayr et al. 2022, RePaint, arXiv:2201.09865).

        Args:
            images: (B, *sides), as in a batch; where something is missing, anything.
            missing: (B, *sides) bool.
            generator: of all noise.
            condition: (B, condition_size), for a model that takes one.

        Returns:
            (B, *sides) as `sample` returns them; what is known is as it was.

        Raises:
            ShapeError: what the network works on are no images of these sides, but their codes.
        """
        if tuple(missing.shape[1:]) != self.shape:
            raise ShapeError(
                f"to inpaint: expected images of {self.shape}, got {tuple(missing.shape[1:])}"
            )
        known, here = self.to_clean_input(images, condition), missing.unsqueeze(1)
        draw, predict = self._noise(len(images), generator), self._predictor(condition)
        x = draw()
        for step, following in pairwise(self.way()):
            for again in range(REPEATS, 0, -1):
                added = draw()

                def given_known(x: Tensor, step: float, added: Tensor = added) -> Tensor:
                    of_image, of_noise = self.shares(step)
                    return predict(torch.where(here, x, of_image * known + of_noise * added), step)

                x = self.move(x, step, following, given_known, draw)
                if again > 1:  # back to the step
                    (image, noise), (before, own) = self.shares(step), self.shares(following)
                    kept = image / before
                    x = kept * x + max(noise**2 - (kept * own) ** 2, 0.0) ** 0.5 * draw()
        return torch.where(missing, self.to_output(x, condition), images)

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

    def _denoised(
        self, count: int, generator: torch.Generator, condition: Tensor | None
    ) -> Iterator[Tensor]:
        """(count, n_channels, *sides) after each step."""
        draw, predict = self._noise(count, generator), self._predictor(condition)
        x = draw()
        for step, following in pairwise(self.way()):
            x = self.move(x, step, following, predict, draw)
            yield x

    def _noise(self, count: int, generator: torch.Generator) -> Callable[[], Tensor]:
        """Return what draws (count, n_channels, *sides) of standard normal noise.

        Each image has noise of its own, so that it is the same however many are drawn with it.
        """
        where = generator.device
        seeds = torch.randint(2**62, (count,), generator=generator, device=where).tolist()
        own = [torch.Generator(where).manual_seed(seed) for seed in seeds]
        device = next(self.network.parameters()).device
        sides = (1, self.n_channels, *self.shape)
        return lambda: torch.cat([normal_of(each, sides, device) for each in own])

    def _predictor(self, condition: Tensor | None) -> Callable[[Tensor, float], Tensor]:
        """Return what asks the network about images at a step, under a condition."""
        device = next(self.network.parameters()).device
        condition = None if condition is None else condition.to(device)

        def predict(x: Tensor, step: float) -> Tensor:
            with torch.no_grad():
                return self._guided(x, torch.full((len(x),), step, device=device), condition)

        return predict

    def _guided(self, x: Tensor, steps: Tensor, condition: Tensor | None) -> Tensor:
        """Predict as `_predict` does, and beyond what the condition changes (arXiv:2207.12598)."""
        if condition is None or self.guidance == 1:
            return self._predict(x, steps, condition)
        twice = torch.cat([condition, torch.zeros_like(condition)])
        told, untold = self._predict(torch.cat([x, x]), steps.repeat(2), twice).chunk(2)
        return untold + self.guidance * (told - untold)

    def _error(
        self, images: Tensor, steps: Tensor, added: Tensor, condition: Tensor | None
    ) -> Tensor:
        found = self._predict(self.add_noise(images, added, steps), steps, condition)
        return (found - self.target(images, added)).square().flatten(1).mean(dim=1)

    def _predict(self, x: Tensor, steps: Tensor, condition: Tensor | None) -> Tensor:
        """Ask the network about (B, n_channels, *sides) at the steps (B,); likewise out."""
        dims = len(self.shape)
        blocks = pixelunshuffle(x, dims, self.patch)  # (B, n_channels · patch^d, *sides / patch)
        found = self.network(blocks, steps, class_labels=condition)
        return pixelshuffle(found.float(), dims, self.patch)


def _check(
    shape: Sequence[int],
    channels: Sequence[int],
    attention: Sequence[bool],
    patch: int,
    levels: int,
) -> None:
    """Refuse arguments that do not go together."""
    if len(attention) != len(channels):
        raise ValueError(f"attention: expected {len(channels)} levels, got {len(attention)}")
    if patch < 1:
        raise ValueError(f"patch: expected 1 or more, got {patch}")
    factor = patch * 2 ** (levels - 1)
    if any(side % factor for side in shape):
        raise ShapeError(
            f"a grid of {tuple(shape)} does not suit {levels} levels of patches of {patch}: each "
            f"side must be a multiple of {factor}",
            factor,
        )


def _check_guidance(condition: Sequence[str], condition_dropout: float, guidance: float) -> None:
    """Refuse to lead away from what the network says without a condition, if it never learns it."""
    if not 0 <= condition_dropout < 1:
        raise ValueError(f"condition_dropout: expected 0 to below 1, got {condition_dropout:g}")
    if guidance != 1 and not (condition and condition_dropout):
        raise ValueError(
            f"guidance: expected 1 of a model without condition and condition_dropout, got "
            f"{guidance:g}"
        )
