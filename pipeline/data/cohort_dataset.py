"""A cohort as a PyTorch ``Dataset`` of dictionaries, for loaders and transforms of one's own."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from numpy.typing import NDArray
from torch.utils.data import Dataset

from foldnorm.preprocessing.cohort.cohort import Cohort, row_key
from foldnorm.preprocessing.core.arrays import read_row


class CohortDataset(Dataset[Any]):
    """Volumes of a cohort as dictionaries that any ``DataLoader`` and MONAI transform takes.

    Each holds ``image``, a ``MetaTensor`` (1, I, J, K) uint8 of class numbers with the affine of
    the cohort (of images, (1, *sides) float32 from −1 to 1); ``pair``, likewise, where the cohort
    has second volumes; ``folds``, (1, I, J, K) int32, where it has fold labels; and the columns of
    ``participants.tsv`` as strings, but those of these names.

    Args:
        cohort: opened.
        indices: of its volumes.
        transform: of each dictionary; None: none.
    """

    def __init__(
        self,
        cohort: Cohort,
        indices: Sequence[int] | NDArray[np.integer],
        transform: Callable[[dict[str, Any]], Any] | None = None,
    ) -> None:
        self.cohort, self.transform = cohort, transform
        self.indices = [int(index) for index in indices]

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, number: int) -> Any:
        cohort, index = self.cohort, self.indices[number]
        item: dict[str, Any] = dict(cohort.rows[index])
        item["image"] = self._tensor(cohort.to_model_input(read_row(cohort.volumes, index)), index)
        if cohort.pairs is not None:
            item["pair"] = self._tensor(read_row(cohort.pairs, index), index)
        if cohort.folds is not None:
            item["folds"] = self._tensor(cohort.folds[index].astype(np.int32), index)
        return item if self.transform is None else self.transform(item)

    def _tensor(self, volume: NDArray[Any], index: int) -> MetaTensor:
        affine = torch.from_numpy(self.cohort.affine)
        meta = {"filename_or_obj": row_key(self.cohort.rows[index])}
        return MetaTensor(torch.from_numpy(volume)[None], affine=affine, meta=meta)

    def __getstate__(self) -> dict[str, Any]:
        # Workers open the memory maps anew, rather than being sent what is in them.
        return {**self.__dict__, "cohort": replace(self.cohort)}
