"""Autoencoders of images: dense or convolutional, plain or denoising.

Hinton & Salakhutdinov 2006 (doi:10.1126/science.1127647); Vincent et al. 2008
(doi:10.1145/1390156.1390294) for learning to take noise away.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from math import prod
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from foldnorm.models.blocks import conv_block
from foldnorm.models.noise import StepNoise
from foldnorm.models.protocols import InputKind, Phase


class ImageAutoencoder(nn.Module):
    """Image → code → image.

    Args:
        shape: sides, 2-D or 3-D; taken from the cohort by ``foldnorm train``.
        architecture: ``dense``, or ``convolutional``: each level halves the sides.
        widths: units of the layers before the code, or channels of each level.
        latent_dim: numbers of the code of a dense one; channels of the code's map of a
            convolutional one.
        noise_factor: standard deviation of the noise that it learns to take away, as a share of
            the range of intensities; 0 for none. Noise goes onto both images alike in training
            and in validation.
    """

    input_kind: InputKind = "noisy"

    def __init__(
        self,
        shape: Sequence[int],
        architecture: Literal["dense", "convolutional"] = "convolutional",
        widths: Sequence[int] = (32, 64),
        latent_dim: int = 8,
        noise_factor: float = 0.0,
    ) -> None:
        super().__init__()
        if not widths or latent_dim < 1:
            raise ValueError(f"expected widths and a code, got {list(widths)} and {latent_dim}")
        if not 0 <= noise_factor < 10:
            raise ValueError(f"noise_factor: expected 0 to 10, got {noise_factor:g}")
        self.noise_factor, self.shape = noise_factor, tuple(shape)
        parts = _dense if architecture == "dense" else _convolutional
        self.encoder, self.decoder, self.grid = parts(self.shape, widths, latent_dim)
        self.latent_dim = prod(self.grid)
        self.phases: Mapping[str, Phase] = {"reconstruction": Phase(("encoder", "decoder"))}

    def phase_order(self, step: int) -> Sequence[str]:
        """One step of both networks."""
        del step
        return ("reconstruction",)

    def loss(
        self, phase: str, volumes: Tensor, noise: StepNoise, condition: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Mean squared error; (B, 2, *sides): under noise, and as it was."""
        del phase, noise, condition
        error = self.validation_loss(volumes).mean()
        return {"squared_error": error, "loss": error}

    def validation_loss(self, volumes: Tensor, condition: Tensor | None = None) -> Tensor:
        """Mean squared error of each image, (B,)."""
        del condition
        noisy, clean = volumes.unbind(1)
        return (self.repair(noisy) - clean).square().flatten(1).mean(dim=1)

    def encode(self, volumes: Tensor, condition: Tensor | None = None) -> Tensor:
        """(B, *sides) float32 → (B, latent_dim)."""
        del condition
        return self.encoder(volumes.unsqueeze(1)).flatten(1).float()

    def repair(self, images: Tensor) -> Tensor:
        """(B, *sides) float32 from −1 to 1, likewise out."""
        made = self.decoder(self.encode(images).view(-1, *self.grid))
        return torch.tanh(made.float()).view(-1, *self.shape)


class _Double(nn.Module):
    """Brings a map to twice its sides, or to one less where that was odd, and convolves."""

    def __init__(self, sides: Sequence[int], inputs: int, outputs: int) -> None:
        super().__init__()
        self.sides = tuple(sides)
        self.mix = conv_block(len(sides), inputs, outputs, norm=True)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, *coarse) → (B, outputs, *sides)."""
        return self.mix(F.interpolate(x, size=self.sides, mode="nearest"))


def _dense(
    shape: Sequence[int], widths: Sequence[int], latent_dim: int
) -> tuple[nn.Module, nn.Module, tuple[int, ...]]:
    """Build dense encoder and decoder; return them with the shape of a code."""
    down: list[nn.Module] = [nn.Flatten()]
    for inputs, outputs in pairwise([prod(shape), *widths]):
        down += [nn.Linear(inputs, outputs), nn.ReLU()]
    up: list[nn.Module] = []
    for inputs, outputs in pairwise([latent_dim, *reversed(widths)]):
        up += [nn.Linear(inputs, outputs), nn.ReLU()]
    encoder = nn.Sequential(*down, nn.Linear(widths[-1], latent_dim))
    return encoder, nn.Sequential(*up, nn.Linear(widths[0], prod(shape))), (latent_dim,)


def _convolutional(
    shape: Sequence[int], widths: Sequence[int], latent_dim: int
) -> tuple[nn.Module, nn.Module, tuple[int, ...]]:
    """Build convolutional encoder and decoder; return them with the shape of a code."""
    dims = len(shape)
    sides = [tuple(shape)]
    for _ in widths:
        sides.append(tuple(-(-side // 2) for side in sides[-1]))
    down = [conv_block(dims, a, b, stride=2, norm=True) for a, b in pairwise([1, *widths])]
    up = [
        _Double(own, a, b)
        for own, (a, b) in zip(
            reversed(sides[:-1]), pairwise([*reversed(widths), widths[0]]), strict=True
        )
    ]
    convolution = nn.Conv2d if dims == 2 else nn.Conv3d
    encoder = nn.Sequential(*down, convolution(widths[-1], latent_dim, 1))
    decoder = nn.Sequential(
        conv_block(dims, latent_dim, widths[-1], norm=True),
        *up,
        convolution(widths[0], 1, 3, padding=1),
    )
    return encoder, decoder, (latent_dim, *sides[-1])
