"""V-Net: one label volume of a pair out of the other, such as skeleton → grey and white matter.

Milletari, Navab & Ahmadi 2016 (arXiv:1606.04797): residual stages, convolutions that halve and
double the sides, skips between them. MONAI's VNet has one width, input channels that divide 16, and
batch norm, with which a batch shared out over processes is another batch.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from foldnorm.models.blocks import convolution, pixelshuffle, pixelunshuffle
from foldnorm.models.class_paths import ClassPath
from foldnorm.models.classes import one_hot
from foldnorm.models.losses import class_cross_entropy, class_weights_of, soft_dice_loss
from foldnorm.models.named_losses import named_loss
from foldnorm.models.named_networks import NamedNetwork
from foldnorm.models.noise import StepNoise
from foldnorm.models.protocols import InputKind, Phase


class VNet(nn.Module):
    """First volume of a pair → class logits of the second.

    Volumes may have any sides: at the far end of each axis the last voxels are repeated up to the
    next multiple of ``stem`` · 2^(levels − 1), and the logits are cut back.

    Args:
        n_classes: of the cohort's volumes; taken from it by ``foldnorm train``.
        n_pair_classes: of their pairs; likewise.
        reverse: translate the second volume of a pair into the first.
        channels: a level each; each level below the first halves the sides.
        convolutions: of each level's residual stage.
        kernel_size: of them; the paper has 5.
        stem: side of the block of voxels that becomes channels at the first level; 1 is the paper.
        norm: group norm after each convolution.
        dice_weight: of the soft Dice loss, averaged over classes; 0 leaves it out.
        class_weights: of the cross entropy, by class.
        network: by class path, such as ``monai.networks.nets.SegResNet``, in the place of ours. It
            is shown volumes of the sides of the training cohort only, larger ones in windows.
        loss_function: by class path, such as ``monai.losses.DiceCELoss``, in the place of cross
            entropy and Dice.

    Attributes:
        any_sides: whether volumes may have others than those of the training cohort.
    """

    input_kind: InputKind = "pairs"

    def __init__(
        self,
        n_classes: int = 3,
        n_pair_classes: int = 3,
        reverse: bool = False,
        channels: Sequence[int] = (32, 64, 128),
        convolutions: Sequence[int] = (1, 2, 2),
        kernel_size: int = 3,
        stem: int = 2,
        norm: bool = True,
        dice_weight: float = 0.0,
        class_weights: Sequence[float] | None = None,
        network: ClassPath | None = None,
        loss_function: ClassPath | None = None,
    ) -> None:
        super().__init__()
        self.reverse = reverse
        self.classes_in, self.classes_out = (
            (n_pair_classes, n_classes) if reverse else (n_classes, n_pair_classes)
        )
        self.dice_weight = dice_weight
        weights = class_weights_of(class_weights, self.classes_out)
        self.class_weights: Tensor | None
        self.register_buffer("class_weights", weights, persistent=False)
        self.loss_function = named_loss(
            loss_function, self.classes_out, 3, dice_weight, class_weights
        )
        self.any_sides = network is None
        self.network = (
            VNetwork(
                self.classes_in, self.classes_out, channels, convolutions, kernel_size, stem, norm
            )
            if network is None
            else NamedNetwork(network, inputs=self.classes_in, outputs=self.classes_out)
        )
        self.phases: Mapping[str, Phase] = {"translation": Phase(("network",))}

    def phase_order(self, step: int) -> Sequence[str]:
        """One step of the network."""
        del step
        return ("translation",)

    def loss(
        self, phase: str, volumes: Tensor, noise: StepNoise, condition: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Cross entropy, and Dice if it has a weight, or the loss by class path.

        (B, 2, I, J, K) uint8 pairs in.
        """
        del phase, noise, condition
        source, target = self._split_pair(volumes)
        logits = self.translate(source).float()
        if self.loss_function is not None:
            unlike = self.loss_function(logits, target)
            return {"loss_function": unlike, "loss": unlike}
        entropy = class_cross_entropy(logits, target, self.class_weights).mean()
        terms = {"cross_entropy": entropy}
        loss = entropy
        if self.dice_weight:
            wanted, found = one_hot(target, self.classes_out), torch.softmax(logits, dim=1)
            losses = [soft_dice_loss(found[:, n], wanted[:, n]) for n in range(self.classes_out)]
            terms["dice_loss"] = torch.stack(losses).mean()
            loss = loss + self.dice_weight * terms["dice_loss"]
        return {**terms, "loss": loss}

    def validation_loss(self, volumes: Tensor, condition: Tensor | None = None) -> Tensor:
        """Cross entropy of the translation of each pair, nats a voxel, (B,)."""
        del condition
        source, target = self._split_pair(volumes)
        return class_cross_entropy(self.translate(source).float(), target)

    def translate(self, volumes: Tensor) -> Tensor:
        """(B, I, J, K) uint8 class numbers → (B, C, I, J, K) class logits of the other volume."""
        return self.network(one_hot(volumes, self.classes_in))

    def _split_pair(self, pairs: Tensor) -> tuple[Tensor, Tensor]:
        """Split (B, 2, I, J, K) pairs into the volumes to translate and their true translations."""
        first, second = pairs.unbind(1)
        return (second, first) if self.reverse else (first, second)


class VEncoder(nn.Module):
    """The way down of `VNet`'s network: (B, C, *sides) channels → the map of each level."""

    def __init__(
        self,
        inputs: int,
        channels: Sequence[int],
        convolutions: Sequence[int],
        kernel_size: int,
        stem: int,
        norm: bool,
    ) -> None:
        super().__init__()
        if len(channels) != len(convolutions):
            raise ValueError(
                f"channels and convolutions: one number a level each, got {list(channels)} and "
                f"{list(convolutions)}"
            )
        self.stem, self.factor = stem, stem * 2 ** (len(channels) - 1)
        self.enter = _conv(inputs * stem**3, channels[0], kernel_size, norm=norm)
        self.down = nn.ModuleList(
            [_conv(a, b, 2, stride=2, norm=norm) for a, b in pairwise(channels)]
        )
        self.left = nn.ModuleList(
            [
                _Stage(width, width, count, kernel_size, norm=norm)
                for width, count in zip(channels, convolutions, strict=True)
            ]
        )

    def maps(self, volume: Tensor) -> list[Tensor]:
        """(B, channels[n], *sides / (stem · 2ⁿ)) of each level n, of the padded sides."""
        sides = volume.shape[2:]
        extra = [n for side in reversed(sides) for n in (0, -side % self.factor)]
        x = F.pad(volume, extra, mode="replicate")
        x = self.left[0](self.enter(pixelunshuffle(x, 3, self.stem) if self.stem > 1 else x))
        found = [x]
        for down, stage in zip(self.down, self.left[1:], strict=True):
            found.append(stage(down(found[-1])))  # half the sides
        return found


class VNetwork(VEncoder):
    """The network of `VNet`: (B, C, *sides) channels → (B, classes, *sides) logits."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        channels: Sequence[int],
        convolutions: Sequence[int],
        kernel_size: int,
        stem: int,
        norm: bool,
    ) -> None:
        super().__init__(inputs, channels, convolutions, kernel_size, stem, norm)
        self.up = nn.ModuleList([nn.ConvTranspose3d(b, a, 2, 2) for a, b in pairwise(channels)])
        self.right = nn.ModuleList(
            [
                _Stage(2 * width, width, count, kernel_size, norm=norm)
                for width, count in zip(channels[:-1], convolutions[:-1], strict=True)
            ]
        )
        self.leave = convolution(3, channels[0], outputs * stem**3, 1)

    def forward(self, volume: Tensor, maps: Sequence[Tensor] | None = None) -> Tensor:
        """(B, C, *sides) → (B, classes, *sides); ``maps`` of the volume, if they are known."""
        sides, skips = volume.shape[2:], maps or self.maps(volume)
        x = skips[-1]
        for level in reversed(range(len(self.up))):
            x = torch.cat([self.up[level](x), skips[level]], dim=1)  # twice the sides
            x = self.right[level](x)
        x = self.leave(x)
        x = pixelshuffle(x, 3, self.stem) if self.stem > 1 else x
        return x[..., : sides[0], : sides[1], : sides[2]]


class _Stage(nn.Module):
    """Convolutions, and what went in added to what comes out."""

    def __init__(
        self, inputs: int, outputs: int, count: int, kernel_size: int, *, norm: bool
    ) -> None:
        super().__init__()
        self.straight = nn.Identity() if inputs == outputs else convolution(3, inputs, outputs, 1)
        widths = [inputs, *[outputs] * count]
        self.convolutions = nn.Sequential(
            *[_conv(a, b, kernel_size, norm=norm) for a, b in pairwise(widths)]
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, *sides) → (B, outputs, *sides)."""
        return self.straight(x) + self.convolutions(x)


def _conv(inputs: int, outputs: int, kernel_size: int, *, stride: int = 1, norm: bool) -> nn.Module:
    """Convolution, group norm if any, and a PReLU, as in the paper."""
    groups = nn.GroupNorm(min(8, outputs), outputs) if norm else None
    return convolution(3, inputs, outputs, kernel_size, stride=stride, norm=groups, act=nn.PReLU())
