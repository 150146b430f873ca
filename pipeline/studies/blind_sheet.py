"""A contact sheet of synthetic and real volumes in random order, for a reader who is told less."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from foldnorm.pipeline.artifacts import BLIND_KEY, BLIND_SHEET
from foldnorm.pipeline.studies.synthetic_volumes import VolumeSet
from foldnorm.preprocessing.cohort.cohort import Cohort
from foldnorm.preprocessing.cohort.pictures import contact_sheet, png, volume_slices
from foldnorm.preprocessing.core.files import write_bytes, write_tsv

COLUMNS = 8  # volumes side by side
SYNTHETIC, REAL = "synthetic", "real"


@dataclass(frozen=True)
class BlindSheet:
    """Contact sheet, and which of its volumes are synthetic.

    Attributes:
        picture: PNG, `COLUMNS` volumes a row, the middle slice of each axis of a volume.
        key: a row a volume, in the order of the sheet, row by row.
    """

    picture: bytes
    key: list[dict[str, Any]]

    @classmethod
    def from_sets(
        cls, cohort: Cohort, synthetic: VolumeSet, real: VolumeSet, rng: np.random.Generator
    ) -> "BlindSheet":
        """Lay out the volumes of two sets in random order.

        Args:
            cohort: says how volumes are drawn as pictures.
            synthetic: volumes, and their names.
            real: volumes, and whose each is.
            rng: of the order.
        """
        volumes = [*synthetic.volumes, *real.volumes]
        names = [*synthetic.groups, *real.groups]
        order = rng.permutation(len(volumes)).tolist()
        cells = [contact_sheet([volume_slices(cohort, volumes[n])], scale=1) for n in order]
        key = [
            {
                "row": place // COLUMNS + 1,
                "column": place % COLUMNS + 1,
                "kind": SYNTHETIC if n < len(synthetic.groups) else REAL,
                "volume": names[n],
            }
            for place, n in enumerate(order)
        ]
        rows = [cells[n : n + COLUMNS] for n in range(0, len(cells), COLUMNS)]
        return cls(png(contact_sheet(rows)), key)

    def save(self, out: Path) -> None:
        """Write ``blind_sheet.png`` and ``blind_sheet_key.tsv``."""
        write_bytes(out / BLIND_SHEET, self.picture)
        write_tsv(out / BLIND_KEY, self.key, tuple(BLIND_KEY.columns))
