"""U-Nets that find damage in images, and say what was there before.

Ronneberger et al. 2015 (arXiv:1505.04597), MONAI's network. Only what is taken for damage is
replaced, so whatever is whole stays as it is; and who fills it in does not see the damage, only
where it was, as in inpainting (Liu et al. 2018, arXiv:1804.07723).
"""

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from monai.networks.nets import BasicUNet
from torch import Tensor, nn

from foldnorm.models.noise import StepNoise
from foldnorm.models.protocols import DamageKind, Phase, Reads
from foldnorm.models.volume_networks import ShapeError

LEVELS = 4  # of each network, that halve the sides
SMOOTH = 1.0  # pixels, of the soft Dice
MARGIN = 1  # pixels beyond the damage that was found, that are filled in too


class DamageUNet(nn.Module):
    """Damaged image → probability of damage, and the image without it.

    Args:
        shape: sides, 2-D or 3-D; taken from the cohort by ``foldnorm train``.
        damage: kinds of what is done to training images: ``straight``, ``broken`` and ``curved``
            strokes, ``blobs``, ``noise``.
        most_damage: pieces of it in an image, at most.
        widths: of strokes, smallest and largest, pixels.
        channels: of the first level; each of the four below doubles them, up to eight times.
    """

    reads: Reads = "damaged"

    def __init__(
        self,
        shape: Sequence[int],
        damage: Sequence[DamageKind] = ("straight", "broken", "curved"),
        most_damage: int = 12,
        widths: Sequence[float] = (1.5, 6.0),
        channels: int = 16,
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
        self.finder = _network(len(shape), 1, channels)
        self.filler = _network(len(shape), 2, channels)
        self.phases: Mapping[str, Phase] = {
            "finding": Phase(("finder",)),
            "filling": Phase(("filler",)),
        }

    def phase_order(self, step: int) -> Sequence[str]:
        """One step of each network."""
        del step
        return ("finding", "filling")

    def loss(
        self, phase: str, volumes: Tensor, noise: StepNoise, condition: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Cross entropy and soft Dice of the mask; or absolute error of what fills it in.

        (B, 3, *sides): damaged, its mask, and as it was.
        """
        del noise, condition
        damaged, mask, clean = volumes.unbind(1)
        if phase == "finding":
            entropy, dice = (term.mean() for term in self._found(damaged, mask))
            return {"cross_entropy": entropy, "dice_loss": dice, "loss": entropy + dice}
        error = self._filled(damaged, mask, clean).mean()
        return {"error": error, "loss": error}

    def validation_loss(self, volumes: Tensor, condition: Tensor | None = None) -> Tensor:
        """Both losses of each image, (B,)."""
        del condition
        damaged, mask, clean = volumes.unbind(1)
        entropy, dice = self._found(damaged, mask)
        return entropy + dice + self._filled(damaged, mask, clean)

    def find_damage(self, images: Tensor) -> Tensor:
        """(B, *sides) float32 from −1 to 1 → probability of damage, (B, *sides)."""
        return torch.sigmoid(self._logits(images))

    def repair(self, images: Tensor) -> Tensor:
        """(B, *sides) float32 from −1 to 1, likewise out: damage replaced, the rest as it was."""
        found = _widened(self._logits(images) > 0)
        return torch.where(found, self._content(images, found).clamp(-1, 1), images)

    def _logits(self, images: Tensor) -> Tensor:
        return self.finder(images.unsqueeze(1))[:, 0].float()

    def _content(self, images: Tensor, mask: Tensor) -> Tensor:
        """What was there, where a mask (bool) says that it is not to be seen."""
        hidden = torch.where(mask, torch.zeros_like(images), images)
        return self.filler(torch.stack([hidden, mask.to(images)], dim=1))[:, 0].float()

    def _found(self, damaged: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Cross entropy and Dice loss of the mask of each image, (B,) each."""
        logits = self._logits(damaged)
        entropy = F.binary_cross_entropy_with_logits(logits, mask, reduction="none")
        likely, m = torch.sigmoid(logits).flatten(1), mask.flatten(1)
        both, total = (likely * m).sum(1), likely.sum(1) + m.sum(1)
        return entropy.flatten(1).mean(1), 1 - (2 * both + SMOOTH) / (total + SMOOTH)

    def _filled(self, damaged: Tensor, mask: Tensor, clean: Tensor) -> Tensor:
        """Mean absolute error of what fills the mask and its margin, (B,)."""
        hidden = _widened(mask > 0)
        error = (self._content(damaged, hidden) - clean).abs() * hidden
        return error.flatten(1).sum(1) / hidden.flatten(1).sum(1).clamp(min=1)


def _network(dims: int, inputs: int, channels: int) -> nn.Module:
    widths = tuple(channels * factor for factor in (1, 2, 4, 8, 8, 1))
    act, norm = ("leakyrelu", {"negative_slope": 0.1}), ("group", {"num_groups": 8})
    return BasicUNet(dims, inputs, 1, features=widths, act=act, norm=norm)


def _widened(mask: Tensor) -> Tensor:
    """(B, *sides) bool, and all within `MARGIN` of it."""
    pool = F.max_pool2d if mask.ndim == 3 else F.max_pool3d
    return pool(mask.float().unsqueeze(1), 2 * MARGIN + 1, 1, MARGIN).squeeze(1) > 0
