"""Network that names folds by their features, one by one."""

import torch.nn.functional as F
from torch import Tensor, nn

HIDDEN = 128
DROPOUT = 0.3


class FoldNamer(nn.Module):
    """Three rectified layers and a linear one.

    Its layers are those that `foldnorm.preprocessing.naming.learned_names` applies without torch.

    Args:
        n_features: of a fold.
        n_classes: names, and none.
    """

    def __init__(self, n_features: int, n_classes: int) -> None:
        super().__init__()
        self.first = nn.Linear(n_features, HIDDEN)
        self.second = nn.Linear(HIDDEN, HIDDEN)
        self.third = nn.Linear(HIDDEN, HIDDEN)
        self.last = nn.Linear(HIDDEN, n_classes)

    def forward(self, features: Tensor) -> Tensor:
        """Logits of the classes, (B, C).

        Args:
            features: (B, k), of the order of one.
        """
        for layer in (self.first, self.second, self.third):
            features = F.dropout(layer(features).relu(), DROPOUT, self.training)
        logits: Tensor = self.last(features)
        return logits
