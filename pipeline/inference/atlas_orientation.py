"""Orientation of hemispheres, as an atlas of sulci sees it."""

from collections.abc import Mapping

import numpy as np

from foldnorm.pipeline.scoring.atlas_labeller import AtlasLabeller, AtlasNamedBrain
from foldnorm.preprocessing.naming.alignment import align, roughly_placed, transformed
from foldnorm.preprocessing.naming.atlas import SIDES

TURNS = {
    "": (1, 1, 1),
    " turned back to front": (1, -1, 1),
    " turned upside down": (1, 1, -1),
    " turned back to front and upside down": (1, -1, -1),
}
CLEARLY = 0.1  # in mean log likelihood of a fold
# What a hemisphere loses in the mirrored atlas of the other side: .015 on average, sd .013, in 42
# hemispheres of one site. Of a mirrored one it is as much less; so few are told apart alone, and
# many together: the sum over n of them, over √n, is below this in none, three sd away.
MIRRORED = -0.03
MAX_LOOKED_AT = 16  # hemispheres: enough to tell a mirrored cohort


def fits_as(names: AtlasLabeller, brain: AtlasNamedBrain, row: Mapping[str, str]) -> str:
    """Say as what a hemisphere clearly fits the atlas better; empty if as nothing else.

    Args:
        names: with the atlas.
        brain: as it was named.
        row: of ``participants.tsv``.
    """
    known = brain.folds.alignment.likelihood - names.side(row).expected
    fits = {
        f"a {SIDES[hemi]} hemisphere{turn}": gain(names, brain, hemi, signs)
        for hemi in SIDES
        for turn, signs in TURNS.items()
        if turn or hemi != row["hemi"]
    }
    best = max(fits, key=fits.__getitem__)
    return best if fits[best] > known + CLEARLY else ""


def gain(
    names: AtlasLabeller, brain: AtlasNamedBrain, hemi: str, signs: tuple[int, int, int]
) -> float:
    """Likelihood of a hemisphere as one of a side, above what the atlas expects.

    Axes with the sign −1 are turned round: x about the middle of the head, as left and right are
    exchanged, others about that of the hemisphere.
    """
    voxels = brain.places[brain.fold_labels > 0]
    given = np.linalg.inv(brain.folds.to_atlas) @ brain.to_atlas
    points = transformed(voxels, given)
    middle = (points.min(axis=0) + points.max(axis=0)) / 2
    middle[0] = 0
    turned = (points - middle) * np.array(signs) + middle
    side = names.side({"hemi": hemi})
    start = np.eye(4) if brain.is_placed else roughly_placed(side, turned)
    labels = brain.fold_labels[brain.fold_labels > 0]
    return align(side, transformed(turned, start), labels).likelihood - side.expected


class MirrorCheck:
    """Comparison of hemispheres with the atlas, and with its mirror image.

    A hemisphere and the mirror image of the other one differ by little. What a single brain does
    not show, the first hemispheres of a cohort show together.

    Attributes:
        losses: in mean log likelihood of a fold, of each that was looked at.
    """

    def __init__(self, names: AtlasLabeller) -> None:
        self.names = names
        self.losses: list[float] = []

    def look(self, brain: AtlasNamedBrain, row: Mapping[str, str]) -> None:
        """Compare one more hemisphere, if there are not enough."""
        if len(self.losses) < MAX_LOOKED_AT and len(self.names.atlas.sides) == len(SIDES):
            (other,) = set(SIDES) - {row["hemi"]}
            known = brain.folds.alignment.likelihood - self.names.side(row).expected
            self.losses.append(known - gain(self.names, brain, other, (-1, 1, 1)))

    @property
    def is_mirrored(self) -> bool:
        """True if the hemispheres are likelier the mirror images of what they are said to be."""
        count = len(self.losses)
        return count > 0 and sum(self.losses) / count**0.5 < MIRRORED
