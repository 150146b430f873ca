"""Losses of label volumes that a configuration names by class path, in the place of ours."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from foldnorm.models.class_paths import LOSSES, ClassPath, ClassPathError, build, first_line

# Those of MONAI take logits and class numbers with these.
FILLED = {"softmax": True, "to_onehot_y": True}
PROBED = 8  # sides of the volume that a loss is tried on


class NamedLoss(nn.Module):
    """A loss by class path, such as ``monai.losses.DiceCELoss``, averaged over volumes.

    Each volume is looked at by itself, so that processes may share a batch.

    Args:
        named: class and arguments; softmax and one-hot targets are filled in.
        n_classes: of the volumes.
        dims: 2 or 3.

    Raises:
        ClassPathError: the class may not be imported, its arguments are wrong, or it is no loss of
            logits and class numbers.
    """

    def __init__(self, named: ClassPath, n_classes: int, dims: int = 3) -> None:
        super().__init__()
        if n_classes < 2:
            raise ClassPathError("a loss by class path is one of label volumes, not of images")
        self.loss = build(named, LOSSES, FILLED)
        sides = [PROBED] * dims
        try:
            self(torch.zeros(1, n_classes, *sides), torch.zeros(1, *sides).byte())
        except Exception as error:  # whatever a class of others raises
            raise ClassPathError(f"{named['class_path']}: {first_line(error)}") from error

    def forward(self, logits: Tensor, volumes: Tensor) -> Tensor:
        """(B, C, *sides) logits and (B, *sides) class numbers → a scalar."""
        pairs = zip(logits.float().split(1), volumes.long().unsqueeze(1).split(1), strict=True)
        return torch.stack([self.loss(made, wanted) for made, wanted in pairs]).mean()


def named_loss(
    named: ClassPath | None,
    n_classes: int,
    dims: int,
    dice_weight: float,
    class_weights: Sequence[float] | None,
) -> NamedLoss | None:
    """Build the loss that a configuration names; None if it names none, and ours is taken.

    Raises:
        ClassPathError: see `NamedLoss`; or weights of ours are given beside it.
    """
    if named is None:
        return None
    if dice_weight or class_weights is not None:
        raise ClassPathError("loss_function takes the place of dice_weight and class_weights")
    return NamedLoss(named, n_classes, dims)
