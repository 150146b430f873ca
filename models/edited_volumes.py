"""Base class and checks of models that learn from edited healthy volumes."""

from collections.abc import Sequence

from torch import nn

from foldnorm.models.protocols import EditKind, InputKind


class EditedVolumes(nn.Module):
    """Base of models that read edited volumes, beside what they were.

    Args:
        edits: kinds of edits of training volumes, one drawn for each. ``folds`` are whole
            folds of that brain, erased: the kind that the deletion benchmark makes, so that a score
            of such a model stands apart from one of ``balls``, ``slabs`` and ``noise``. ``copies``
            of its folds, moved, and ``sheets`` are added: what is to be taken away.
        max_edits: edits of a volume, at most; some volumes have none.
        radii: smallest and largest of balls, slabs, noise and sheets, mm.
    """

    input_kind: InputKind = "edits"

    def __init__(self, edits: Sequence[EditKind], max_edits: int, radii: Sequence[float]) -> None:
        super().__init__()
        check_edits(edits, max_edits, radii)
        self.edits, self.max_edits, self.radii = tuple(edits), max_edits, tuple(radii)


def check_edits(edits: Sequence[EditKind], max_edits: int, radii: Sequence[float]) -> None:
    """Refuse edits that nothing can be learned from.

    Raises:
        ValueError: no edits, or radii that are none.
    """
    if not edits or max_edits < 1:
        raise ValueError(
            f"expected some edits to learn from, got {list(edits)}, at most {max_edits} of them"
        )
    if len(radii) != 2 or not 0 < radii[0] <= radii[1]:
        raise ValueError(f"radii: expected 0 < smallest ≤ largest, got {list(radii)}")
