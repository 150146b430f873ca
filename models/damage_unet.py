"""A U-Net that finds damage in images, and says what was there before.

Ronneberger et al. 2015 (arXiv:1505.04597), MONAI's network. Only what it takes for damage is
replaced, so whatever is whole stays as it is.
"""

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from monai.networks.nets import BasicUNet
from torch import Tensor, nn

from foldnorm.models.noise import StepNoise
from foldnorm.models.protocols import DamageKind, Phase, Reads
from foldnorm.models.volume_networks import ShapeError

LEVELS = 4  # of the network, that halve the sides
SMOOTH = 1.0  # pixels, of the soft Dice


class DamageUNet(nn.Module):
    """Damaged image → probability of damage, and the image without it.

    Args:
        shape: sides, 2-D or 3-D; taken from the cohort by ``foldnorm train``.
        damage: kinds of what is done to training images: ``straight``, ``broken`` and ``curved``
            strokes, ``blobs``, ``noise``.
        most_damage: pieces of it in an image, at most.
        widths: of strokes, smallest and largest, pixels.
        channels: of the first level; each of the four below doubles them, up to eight times.
        content_weight: of the mean absolute error inside the mask.
    """

    reads: Reads = "damaged"

    def __init__(
        self,
        shape: Sequence[int],
        damage: Sequence[DamageKind] = ("straight", "broken", "curved"),
        most_damage: int = 12,
        widths: Sequence[float] = (1.5, 6.0),
        channels: int = 16,
        content_weight: float = 1.0,
    ) -> None:
        super().__init__()
        if not damage or most_damage < 1 or len(widths) != 2 or not 0 < widths[0] <= widths[1]:
            raise ValueError(
                "expected some damage of 0 < smallest ≤ largest width, got "
                f"{list(damage)}, at most {most_damage}, widths {list(widths)}"
            )
        if any(side % 2**LEVELS for side in shape):
            raise ShapeError(
                f"images of {tuple(shape)}: each side must be a multiple of {2**LEVELS}"
            )
        self.damage, self.most_damage, self.widths = tuple(damage), most_damage, tuple(widths)
        self.content_weight = content_weight
        own = tuple(channels * factor for factor in (1, 2, 4, 8, 8, 1))
        self.network = BasicUNet(
            len(shape), 1, 2, features=own, act=("leakyrelu", {"negative_slope": 0.1}),
            norm=("group", {"num_groups": 8}),
        )  # fmt: skip
        self.phases: Mapping[str, Phase] = {"restoration": Phase(("network",))}

    def phase_order(self, step: int) -> Sequence[str]:
        """One step of the network."""
        del step
        return ("restoration",)

    def loss(
        self, phase: str, volumes: Tensor, noise: StepNoise, condition: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Cross entropy and soft Dice of the mask, absolute error of the content inside it.

        (B, 3, *sides): damaged, its mask, and as it was.
        """
        del phase, noise, condition
        entropy, dice, content = (term.mean() for term in self._terms(volumes))
        return {
            "cross_entropy": entropy,
            "dice_loss": dice,
            "content": content,
            "loss": entropy + dice + self.content_weight * content,
        }

    def validation_loss(self, volumes: Tensor, condition: Tensor | None = None) -> Tensor:
        """The loss of each image, (B,)."""
        del condition
        entropy, dice, content = self._terms(volumes)
        return entropy + dice + self.content_weight * content

    def find_damage(self, images: Tensor) -> Tensor:
        """(B, *sides) float32 from −1 to 1 → probability of damage, (B, *sides)."""
        return torch.sigmoid(self._both(images)[0])

    def repair(self, images: Tensor) -> Tensor:
        """(B, *sides) float32 from −1 to 1, likewise out: damage replaced, the rest as it was."""
        logits, content = self._both(images)
        return torch.where(logits > 0, content.clamp(-1, 1), images)

    def _both(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of damage, and what was there before, (B, *sides) each."""
        logits, content = self.network(images.unsqueeze(1)).float().unbind(1)
        return logits, content

    def _terms(self, volumes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Cross entropy, Dice loss and error of the content of each image, (B,) each."""
        damaged, mask, clean = volumes.unbind(1)
        logits, content = self._both(damaged)
        entropy = F.binary_cross_entropy_with_logits(logits, mask, reduction="none")
        likely, m = torch.sigmoid(logits).flatten(1), mask.flatten(1)
        both, total = (likely * m).sum(1), likely.sum(1) + m.sum(1)
        dice = 1 - (2 * both + SMOOTH) / (total + SMOOTH)
        error = ((content - clean).abs() * mask).flatten(1).sum(1) / m.sum(1).clamp(min=1)
        return entropy.flatten(1).mean(1), dice, error
