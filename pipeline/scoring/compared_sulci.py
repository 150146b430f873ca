"""Sulci of a hemisphere as they are measured, and beside those of healthy ones."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from foldnorm.pipeline.scoring.atlas_labeller import AtlasNamedBrain
from foldnorm.pipeline.scoring.sulcus_measures import Measures

Row = Mapping[str, str]


class Measured(NamedTuple):
    """A hemisphere as its sulci are measured in the space of the atlas.

    Attributes:
        measures: (n, `len(MEASURES)`), see `NamedBrain.measure`.
        lost: (n, n), see `AtlasNamedBrain.lost`.
        voids: (n,), see `void_by_sulcus`; None if voids are not looked at.
    """

    measures: Measures
    lost: NDArray[np.float64]
    voids: NDArray[np.float64] | None = None

    @classmethod
    def of(cls, named: AtlasNamedBrain, voids: NDArray[np.float64] | None = None) -> "Measured":
        """Measure a brain whose voxels are named."""
        return cls(named.measure(named.to_atlas), named.lost(), voids)


@dataclass(frozen=True)
class ComparedSulci:
    """Sulci of a hemisphere beside those of healthy ones.

    Attributes:
        row: of ``participants.tsv``.
        measures: (n, `len(MEASURES)`), in the space of the atlas.
        z: (n,) departures by kind.
        p: (n,) by kind: share of healthy hemispheres of that side whose same sulcus departs as far.
        scores: of the hemisphere, by name.
    """

    row: Row
    measures: Measures
    z: Mapping[str, NDArray[np.float64]]
    p: Mapping[str, NDArray[np.float64]]
    scores: Mapping[str, float]


OnSulci = Callable[[ComparedSulci], None]


def sulcus_columns(compared: ComparedSulci, *, is_judged: bool) -> list[dict[str, Any]]:
    """Columns ``z_…`` of each sulcus of a hemisphere and, if it is judged, ``p_…``."""
    found: list[dict[str, Any]] = []
    for n in range(len(compared.measures)):
        row = {f"z_{kind}": float(z[n]) for kind, z in compared.z.items()}
        if is_judged:
            row |= {f"p_{kind}": float(p[n]) for kind, p in compared.p.items()}
        found.append(row)
    return found
