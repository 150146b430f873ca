"""Damaged images brought to the domain of whole ones: a VAE for each domain, and one latent space.

Wan et al. 2020 (arXiv:2004.09484): whole images (X), images that we damaged (Y), of which it is
known what they were, and images that came damaged (Z), of which it is not. Each domain has its own
encoder and decoder; whole again is what the decoder of X makes of the code of a damaged one. Z has
no pairs: its encoder learns to bring its own images back, and to make whole those of Y, so that the
two share what they mean by a code.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from math import prod
from typing import Literal

import torch
from torch import Tensor, nn

from foldnorm.models.blocks import Up, conv_block, convolution, pixelshuffle, pixelunshuffle
from foldnorm.models.grids import STEM, code_grid
from foldnorm.models.label_autoencoder import draw_code
from foldnorm.models.losses import gaussian_nll_of_error
from foldnorm.models.noise import StepNoise
from foldnorm.models.protocols import DamageKind, InputKind, Phase
from foldnorm.models.volume_networks import soft_bound

N_MAPPING_BLOCKS = 3
Variant = Literal["plain", "skip", "residual"]


class MultiDomainVAE(nn.Module):
    """Damaged image → code → whole image.

    Args:
        shape: sides, 2-D or 3-D; taken from the cohort by ``foldnorm train``.
        variant: ``plain``: all goes through the code; ``skip``: the decoder also gets the maps of
            the encoder's levels; ``residual``: that, residual blocks in both, and more of them that
            map codes of damaged images to codes of whole ones.
        damage: kinds of what is done to training images.
        max_damage: pieces of it in an image, at most.
        widths: of strokes, smallest and largest, pixels.
        damaged_column: ``COLUMN=VALUE`` of ``participants.tsv`` that says which training images
            came damaged; none if empty, and then there is no third domain.
        channels: of each level; each level below the first halves the sides.
        code_channels: of the map that is the code.
        domain_weights: of what each domain, X, Y and Z, adds to the loss; those of Y and Z also say
            how their encoders share in a repair.
        kl_weight: β of KL(code ‖ N(0, I)), which all domains' codes are to be near.
        kl_annealing: share of the training over which β grows to that.
        training_steps: taken from ``training.steps``.
    """

    input_kind: InputKind = "damaged"

    def __init__(
        self,
        shape: Sequence[int],
        variant: Variant = "skip",
        damage: Sequence[DamageKind] = ("straight", "broken", "curved"),
        max_damage: int = 12,
        widths: Sequence[float] = (1.5, 6.0),
        damaged_column: str = "",
        channels: Sequence[int] = (32, 64, 128),
        code_channels: int = 16,
        domain_weights: Sequence[float] = (1.0, 1.0, 1.0),
        kl_weight: float = 0.1,
        kl_annealing: float = 0.2,
        training_steps: int = 1,
    ) -> None:
        super().__init__()
        counted = domain_weights[1:] if damaged_column else domain_weights[1:2]
        if len(domain_weights) != 3 or min(domain_weights) < 0 or not sum(counted):
            raise ValueError(
                "domain_weights: expected three that are not negative, and something of damaged "
                f"images, got {list(domain_weights)}"
            )
        if damaged_column and not all(damaged_column.partition("=")[::2]):
            raise ValueError(f"damaged_column: expected COLUMN=VALUE, got {damaged_column!r}")
        self.damage, self.max_damage, self.widths = tuple(damage), max_damage, tuple(widths)
        self.damaged_column, self.variant = damaged_column, variant
        self.domain_weights = tuple(domain_weights)
        self.kl_weight, self.annealing_steps = kl_weight, kl_annealing * training_steps
        code_grid(shape, len(channels) - 1)  # refuses sides that do not suit
        self.pixels = prod(shape)
        domains = "xyz" if damaged_column else "xy"
        sizes = (len(shape), channels, code_channels, variant)
        self.encoders = nn.ModuleDict({name: _Encoder(*sizes) for name in domains})
        self.decoders = nn.ModuleDict({name: _Decoder(*sizes) for name in domains})
        blocks = [_Residual(len(shape), code_channels) for _ in range(N_MAPPING_BLOCKS)]
        self.mapping = nn.Sequential(*blocks if variant == "residual" else [])
        self.phases: Mapping[str, Phase] = {
            "restoration": Phase(("encoders", "decoders", *["mapping"] * bool(len(self.mapping))))
        }

    def phase_order(self, step: int) -> Sequence[str]:
        """One step of all networks."""
        del step
        return ("restoration",)

    def loss(
        self, phase: str, volumes: Tensor, noise: StepNoise, condition: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Negative log likelihood of each domain's images, of what Y and Z restore, and KL.

        In nats a pixel, under the likeliest variance of each image (Rybkin et al. 2021,
        arXiv:2006.13202). (B, 3, *sides): damaged, its mask, and as it was.
        """
        del phase, condition
        damaged, mask, clean = volumes.unbind(1)
        known = (mask.flatten(1)[:, 0] >= 0).float()  # of what it was
        of_x, of_y, of_z = self.domain_weights
        x, kl_x = self._drawn("x", clean, noise)
        y, kl_y = self._drawn("y", damaged, noise)
        terms = {
            "whole": of_x * known * _gaussian_nll(self.decoders["x"](*x), clean),
            "damaged": of_y * known * _gaussian_nll(self.decoders["y"](*y), damaged),
            "restored": of_y * known * _gaussian_nll(self._decode_whole(y), clean),
        }
        kl = known * (of_x * kl_x + of_y * kl_y)
        if self.damaged_column:
            z, kl_z = self._drawn("z", damaged, noise)
            back = _gaussian_nll(self.decoders["z"](*z), damaged)
            terms["truly_damaged"] = of_z * (1 - known) * back
            kl = kl + of_z * (1 - known) * kl_z
            terms["shared"] = of_z * known * _gaussian_nll(self._decode_whole(z), clean)
        means = {name: term.mean() for name, term in terms.items()}
        share = min((noise.step + 1) / max(self.annealing_steps, 1), 1)
        loss = sum(means.values()) + self.kl_weight * share * kl.mean()
        return {**means, "kl": kl.mean(), "loss": loss}

    def validation_loss(self, volumes: Tensor, condition: Tensor | None = None) -> Tensor:
        """Mean squared error of what is restored, (B,); 0 where nobody knows what it was."""
        del condition
        damaged, mask, clean = volumes.unbind(1)
        error = (self.repair(damaged) - clean).square().flatten(1).mean(dim=1)
        return error * (mask.flatten(1)[:, 0] >= 0)

    def repair(self, images: Tensor) -> Tensor:
        """Restore (B, *sides) float32 from −1 to 1: the decoder of X on codes of damaged images.

        The codes are of the encoders of Y and Z; images are mixed by their domains' weights.
        """
        shares = [
            (weight, self.encoders[name])
            for name, weight in zip("yz", self.domain_weights[1:], strict=True)
            if name in self.encoders and weight
        ]
        total = sum(weight for weight, _ in shares)
        made = torch.zeros_like(images)
        for weight, encoder in shares:
            mean, _, maps = encoder(images)
            made = made + weight / total * self._decode_whole((mean, maps))
        return made.clamp(-1, 1)

    def _decode_whole(self, encoded: tuple[Tensor, list[Tensor]]) -> Tensor:
        """Make the whole image, (B, *sides), of a damaged one's code and its encoder's maps."""
        code, maps = encoded
        return self.decoders["x"](self.mapping(code), maps)

    def _drawn(
        self, domain: str, images: Tensor, noise: StepNoise
    ) -> tuple[tuple[Tensor, list[Tensor]], Tensor]:
        """Draw a code, with the encoder's maps; KL of each image, nats a pixel, (B,)."""
        mean, log_variance, maps = self.encoders[domain](images)
        drawn = draw_code(mean, log_variance, noise.normal(*mean.shape[1:]))
        nats = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance)
        return (drawn, maps), nats.flatten(1).sum(dim=1) / self.pixels


class _Encoder(nn.Module):
    """Image → mean and log-variance of its code, and the map of each level above it."""

    def __init__(
        self, dims: int, channels: Sequence[int], code_channels: int, variant: Variant
    ) -> None:
        super().__init__()
        self.dims = dims
        widths = [STEM**dims, *channels]
        self.levels = nn.ModuleList(
            [
                _level(dims, conv_block(dims, a, b, stride=1 + (n > 0), norm=n > 0), b, variant)
                for n, (a, b) in enumerate(pairwise(widths))
            ]
        )
        self.to_code = convolution(dims, channels[-1], 2 * code_channels, 1)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, list[Tensor]]:
        """(B, *sides) → (B, code_channels, *grid) twice, and maps, the largest first."""
        x = pixelunshuffle(images.unsqueeze(1), self.dims, STEM)
        maps = []
        for level in self.levels:
            x = level(x)
            maps.append(x)
        mean, log_variance = self.to_code(x).float().chunk(2, dim=1)
        return mean, soft_bound(log_variance), maps[:-1]


class _Decoder(nn.Module):
    """Code, and the maps of an encoder → image."""

    def __init__(
        self, dims: int, channels: Sequence[int], code_channels: int, variant: Variant
    ) -> None:
        super().__init__()
        self.dims, self.skips = dims, variant != "plain"
        width = channels[-1]
        self.enter = _level(dims, conv_block(dims, code_channels, width, norm=True), width, variant)
        self.levels = nn.ModuleList(
            [_level(dims, Up(dims, b, a, norm=True), a, variant) for a, b in pairwise(channels)]
        )
        taken = (lambda n: 2 * n) if self.skips else (lambda n: n)
        self.mixes = nn.ModuleList(
            [conv_block(dims, taken(width), width, norm=True) for width in channels[:-1]]
        )
        self.head = convolution(dims, channels[0], STEM**dims, 3)

    def forward(self, code: Tensor, maps: Sequence[Tensor]) -> Tensor:
        """(B, code_channels, *grid), and maps, the largest first → (B, *sides)."""
        x = self.enter(code)
        for n in reversed(range(len(self.levels))):
            x = self.levels[n](x)  # twice the sides
            x = self.mixes[n](torch.cat([x, maps[n]], dim=1) if self.skips else x)
        return pixelshuffle(self.head(x).float(), self.dims, STEM)[:, 0]


class _Residual(nn.Module):
    """Two convolutions, and what went in added to what comes out."""

    def __init__(self, dims: int, width: int) -> None:
        super().__init__()
        self.convolutions = nn.Sequential(
            conv_block(dims, width, width, norm=True), conv_block(dims, width, width, norm=True)
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, width, *sides), likewise out."""
        return x + self.convolutions(x)


def _level(dims: int, step: nn.Module, width: int, variant: Variant) -> nn.Module:
    """Build a step to other sides, with a residual block behind it if the form has them."""
    return nn.Sequential(step, _Residual(dims, width)) if variant == "residual" else step


def _gaussian_nll(made: Tensor, images: Tensor) -> Tensor:
    """Compute the nats a pixel of (B, *sides) images under the likeliest variance of each; (B,)."""
    return gaussian_nll_of_error((made - images).square().flatten(1).mean(dim=1))
