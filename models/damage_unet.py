"""U-Nets that find damage in images, and say what was there before.

Ronneberger et al. 2015 (arXiv:1505.04597), MONAI's network, twice. The first also sees where an
image is flat, which paint is and tissue is not. What it takes for damage is filled in smoothly
(`biharmonic_fill`), and the second says by how much that is wrong: it begins where classical
inpainting ends. Only what is taken for damage is replaced, so whatever is whole stays as it is.
"""

import math
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import torch
import torch.nn.functional as F
from monai.networks.nets import BasicUNet
from torch import Tensor, nn

from foldnorm.models.class_paths import ClassPath
from foldnorm.models.grids import ShapeError
from foldnorm.models.inpainting import biharmonic_fill
from foldnorm.models.named_networks import NamedNetwork
from foldnorm.models.noise import StepNoise
from foldnorm.models.protocols import DamageKind, InputKind, Phase

N_LEVELS = 4  # of each network, that halve the sides of its first map
SMOOTH = 1.0  # pixels, of the soft Dice
MIN_FILLED_PROBABILITY = 0.3  # of damage, to fill a pixel in; low, as a false alarm costs less
TRUE_MASK_SHARE = 0.5  # share of the training images whose true mask is filled in
FLOOR = 1e-4  # of the squared error: beyond 46 dB nothing is won
SIDE = 2**N_LEVELS
QUANTUM = 2 / 255  # of intensities in 8 bits
GRAIN = 0.004, 0.06  # standard deviation of that of scans, smallest and largest
BLUR = -0.15, 0.25  # share of a pixel that each neighbour gets in scans; none below 0


class DamageUNet(nn.Module):
    """Damaged image → probability of damage, and the image without it.

    Args:
        shape: sides, 2-D or 3-D; taken from the cohort by ``foldnorm train``.
        damage: kinds of what is done to training images: ``straight``, ``broken`` and ``curved``
            strokes, ``blobs``, ``noise``.
        max_damage: pieces of it in an image, at most.
        widths: of strokes, smallest and largest, pixels.
        channels: of the first level of each network; those below have up to eight times as many.
        content_weight: of the error of what is filled in.
        scan_prob: share of the training images that look as if scanned, blurred a little and with
            grain. On clean images flatness says all; on JPEGs and photographs little is left of it.
        tta_flips: whether what is found and filled in is the mean over the image and its mirror
            images, 2^dims of them (test-time augmentation).
        network: by class path, such as ``monai.networks.nets.SegResNet``, in the place of each of
            the two.
    """

    input_kind: InputKind = "damaged"

    def __init__(
        self,
        shape: Sequence[int],
        damage: Sequence[DamageKind] = ("straight", "broken", "curved"),
        max_damage: int = 12,
        widths: Sequence[float] = (1.5, 6.0),
        channels: int = 16,
        content_weight: float = 1.0,
        scan_prob: float = 0.5,
        tta_flips: bool = True,
        network: ClassPath | None = None,
    ) -> None:
        super().__init__()
        if not damage or max_damage < 1 or len(widths) != 2 or not 0 < widths[0] <= widths[1]:
            raise ValueError(
                "expected some damage of 0 < smallest ≤ largest width, got "
                f"{list(damage)}, at most {max_damage}, widths {list(widths)}"
            )
        if not 0 <= scan_prob <= 1:
            raise ValueError(f"scan_prob: expected 0 to 1, got {scan_prob:g}")
        if network is None and any(side % SIDE for side in shape):
            raise ShapeError(f"images of {tuple(shape)}: each side must be a multiple of {SIDE}")
        self.damage, self.max_damage, self.widths = tuple(damage), max_damage, tuple(widths)
        self.content_weight, self.scan_prob = content_weight, scan_prob
        axes = range(1, len(shape) + 1)
        self.tta_flips = (
            [list(own) for n in range(len(shape) + 1) for own in combinations(axes, n)]
            if tta_flips
            else [[]]
        )  # axes of (B, *sides), of each mirror image
        inputs = 1 + len(shape), 4  # see `_seen` and `_content`
        if network is None:
            self.finder: nn.Module = _unet(len(shape), inputs[0], 1, channels)
            filler = _unet(len(shape), inputs[1], 2, channels)
            for parameter in filler.final_conv.parameters():
                nn.init.zeros_(parameter)  # so it begins with the smooth fill
            self.filler: nn.Module = filler
        else:
            sides: dict[str, Any] = {"sides": shape, "dims": len(shape)}
            self.finder = NamedNetwork(network, inputs=inputs[0], outputs=1, **sides)
            self.filler = _FromZero(NamedNetwork(network, inputs=inputs[1], outputs=2, **sides))
        self.phases: Mapping[str, Phase] = {"restoration": Phase(("finder", "filler"))}

    def phase_order(self, step: int) -> Sequence[str]:
        """One step of both networks."""
        del step
        return ("restoration",)

    def loss(
        self, phase: str, volumes: Tensor, noise: StepNoise, condition: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Cross entropy and soft Dice of the mask, and the error of what was filled in.

        That error is the logarithm of the mean square, of which PSNR is a multiple (Chen et al.
        2022, arXiv:2204.04676). (B, 3, *sides): damaged, its mask, and as it was.
        """
        del phase, condition
        damaged, mask, clean = volumes.unbind(1)
        scanned = torch.stack([as_scanned(damaged, noise, self.scan_prob), mask, clean], dim=1)
        entropy, dice, content = (term.mean() for term in self._terms(scanned, noise.uniform()))
        return {
            "cross_entropy": entropy,
            "dice_loss": dice,
            "content": content,
            "loss": entropy + dice + self.content_weight * content,
        }

    def validation_loss(self, volumes: Tensor, condition: Tensor | None = None) -> Tensor:
        """Compute the loss of each image, (B,), with the damage that was found filled in."""
        del condition
        found = torch.ones(len(volumes), device=volumes.device)
        entropy, dice, content = self._terms(volumes, found)
        return entropy + dice + self.content_weight * content

    def find_damage(self, images: Tensor) -> Tensor:
        """(B, *sides) float32 from −1 to 1 → probability of damage, (B, *sides)."""
        found = [self._logits(images.flip(axes)).sigmoid().flip(axes) for axes in self.tta_flips]
        return torch.stack(found).mean(dim=0)

    def repair(self, images: Tensor) -> Tensor:
        """(B, *sides) float32 from −1 to 1, likewise out: damage replaced, the rest as it was."""
        likely = self.find_damage(images)
        hole = likely > MIN_FILLED_PROBABILITY
        made = [
            self._content(*(part.flip(axes) for part in (images, likely, hole))).flip(axes)
            for axes in self.tta_flips
        ]
        return torch.where(hole, torch.stack(made).mean(dim=0).clamp(-1, 1), images)

    def _logits(self, images: Tensor) -> Tensor:
        return self.finder(_finder_input(images))[:, 0].float()

    def _content(self, images: Tensor, likely: Tensor, hole: Tensor) -> Tensor:
        """Estimate the undamaged image, (B, *sides): smooth fill, mixed with the image, corrected.

        Noise lies everywhere and leaves nothing to fill in from: there the image itself says more.
        """
        smooth = biharmonic_fill(images, hole)
        # The filler sees the filled image, what was damaged, how surely, and where it was filled.
        told = torch.stack([smooth, images, likely, hole.float()], dim=1)
        mixed, correction = self.filler(told).float().unbind(1)
        share = torch.sigmoid(4 - mixed)  # nearly all of the fill at first
        return share * smooth + (1 - share) * images + correction

    def _terms(self, volumes: Tensor, drawn: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Cross entropy, Dice loss and error of the content of each image, (B,) each.

        Args:
            volumes: (B, 3, *sides).
            drawn: (B,) from 0 to 1; below `TRUE_MASK_SHARE` the true mask is filled in, else the
                found one.
        """
        damaged, mask, clean = volumes.unbind(1)
        logits = self._logits(damaged)
        entropy = F.binary_cross_entropy_with_logits(logits, mask, reduction="none")
        likely, m = torch.sigmoid(logits).flatten(1), mask.flatten(1)
        both, total = (likely * m).sum(1), likely.sum(1) + m.sum(1)
        dice = 1 - (2 * both + SMOOTH) / (total + SMOOTH)
        found = likely.detach().view_as(mask)
        is_true = (drawn < TRUE_MASK_SHARE).view(-1, *[1] * (mask.ndim - 1))
        # Whatever the second network does, it does not teach the first.
        hole = torch.where(is_true, mask > 0, found > MIN_FILLED_PROBABILITY)
        content = self._content(damaged, torch.where(is_true, mask, found), hole)
        error = torch.where(hole, content - clean, 0.0).square().flatten(1).sum(1)
        mean = error / hole.flatten(1).sum(1).clamp(min=1)
        return entropy.flatten(1).mean(1), dice, torch.log10(mean + FLOOR)


class _FromZero(nn.Module):
    """A network times a weight that is 0 at first (Bachlechner et al. 2021, arXiv:2003.04887).

    So a network by class path begins with the smooth fill, too.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network, self.weight = network, nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, *sides), as the network."""
        return self.weight * self.network(x)


def as_scanned(images: Tensor, noise: StepNoise, share: float) -> Tensor:
    """Blur some of (B, *sides) images a little, each in its own measure, and lay grain on them.

    Args:
        images: float32 from −1 to 1.
        noise: that all is drawn from.
        share: of the images; the others come back as they are.
    """
    dims = images.ndim - 1
    chosen, strength, width = noise.uniform(3).view(-1, 3, *[1] * dims).unbind(1)
    low, high = (math.log(end) for end in GRAIN)
    grain = torch.exp(low + (high - low) * strength)
    spread = (BLUR[0] + (BLUR[1] - BLUR[0]) * width).clamp(min=0)
    blurred = images
    for axis in range(1, images.ndim):
        side = images.shape[axis]
        first, last = blurred.narrow(axis, 0, 1), blurred.narrow(axis, side - 1, 1)
        wide = torch.cat([first, blurred, last], dim=axis)
        neighbours = wide.narrow(axis, 0, side) + wide.narrow(axis, 2, side)
        blurred = (1 - 2 * spread) * blurred + spread * neighbours
    noisy = blurred + grain * noise.normal(*images.shape[1:])
    return torch.where(chosen < share, noisy.clamp(-1, 1), images)


def _finder_input(images: Tensor) -> Tensor:
    """Stack images and their differences along each axis, (B, 1 + dims, *sides), for the finder.

    Paint is flat, tissue is not: differences between neighbours are shown on a logarithmic scale on
    which one grey of 8 bits counts.
    """
    steps = [
        images.diff(dim=axis, prepend=images.narrow(axis, 0, 1)) for axis in range(1, images.ndim)
    ]
    shown = [step.sign() * torch.log1p(step.abs() / QUANTUM) / 4 for step in steps]
    return torch.stack([images, *shown], dim=1)


def _unet(dims: int, inputs: int, outputs: int, channels: int) -> BasicUNet:
    return BasicUNet(
        dims,
        inputs,
        outputs,
        features=tuple(channels * factor for factor in (1, 2, 4, 8, 8, 1)),
        act=("leakyrelu", {"negative_slope": 0.1}),
        norm=("group", {"num_groups": 8}),
    )
