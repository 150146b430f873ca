"""Training tasks of models of label volumes: pairs, edited volumes, and names of sulci."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from foldnorm.models.classes import to_classes
from foldnorm.models.protocols import (
    OF_FOLDS,
    Decodes,
    LearnsFromEdits,
    Recognises,
    Restores,
    TakesPatches,
)
from foldnorm.pipeline.data.augmentation import Augmentation
from foldnorm.pipeline.data.edits import TrainingEdits
from foldnorm.pipeline.data.patches import Patches
from foldnorm.pipeline.data.substitutions import Substitutions
from foldnorm.pipeline.data.sulcus_labels import NamedVolumes, folds_of, names_of
from foldnorm.pipeline.metrics.classes import class_dice, sulcus_dice
from foldnorm.pipeline.runs.options import TrainingOptions
from foldnorm.pipeline.runs.predict import recognise, structure_probability, target_scheme
from foldnorm.pipeline.training.task import VALIDATION_SEED, Alter, Labels, Place, Slices, Task
from foldnorm.preprocessing.cohort.cohort import Cohort
from foldnorm.preprocessing.cohort.pictures import many_colours, middle_slices
from foldnorm.preprocessing.core.errors import InputError

# Voxels around a patch that are moved and edited with it, then cut off: there sheets are thinned,
# the hull is told by what is outside, and junctions by the folds that meet there.
PATCH_MARGIN = 4


class TranslationTask(Task):
    """Pairs of volumes, one of which is translated into the other."""

    def __init__(self, model: nn.Module, cohort: Cohort) -> None:
        super().__init__(model, cohort)
        if cohort.pairs is None:
            raise InputError(
                f"{type(model).__name__} needs pairs, and the cohort has none; preprocess it with "
                f"--pair grey-white: {cohort.folder}"
            )
        self.targets = cohort.pairs

    def alter(self, options: TrainingOptions) -> Alter | None:
        """Move both volumes of a pair alike; cubes are dropped from the one that is translated."""
        if options.augmentation.dropout and self.model.input_kind != "pairs":
            return super().alter(options)
        assert self.preparation.pair is not None
        return self.augmentation(options, int(self.model.reverse), self.preparation.pair.fill)

    def figures(self, batch: Tensor, condition: Tensor | None) -> dict[str, float]:
        """Compute the Dice of each class of the translation."""
        del condition
        source, target = self._split_pair(batch)
        made = to_classes(self.model.translate(source))[0].cpu().numpy()
        return class_dice(made, target[0].cpu().numpy(), target_scheme(self.model, self.cohort))

    def picture(self, batch: Tensor, condition: Tensor | None) -> Slices:
        """Show a volume, its translation, and the true translation."""
        del condition
        source, target = self._split_pair(batch)
        n, others = self.cohort.scheme.n_classes, target_scheme(self.model, self.cohort).n_classes
        made = to_classes(self.model.translate(source))
        shown = [(source, n), (made, others), (target, others)]
        return [s for volume, m in shown for s in middle_slices(volume[0].cpu().numpy(), m)]

    def _split_pair(self, batch: Tensor) -> tuple[Tensor, Tensor]:
        """Split a batch of pairs into the volumes to translate and their true translations."""
        first, second = batch.unbind(1)
        return (second, first) if self.model.reverse else (first, second)


class EditTask(Task):
    """Edited volumes, beside what they were."""

    def __init__(self, model: nn.Module, cohort: Cohort) -> None:
        super().__init__(model, cohort)
        assert isinstance(model, LearnsFromEdits)
        if OF_FOLDS.intersection(model.edits):
            if cohort.folds is None:
                raise InputError(
                    "to edit whole folds the cohort needs fold labels, and has none; train with "
                    f"--model.init_args.edits '[balls, slabs, noise]': {cohort.folder}"
                )
            self.targets = cohort.folds

    def alter(self, options: TrainingOptions) -> Alter | None:
        """Move volume and fold labels, then erase something.

        In this order, because a volume that is moved with and without a fold is thinned twice:
        the differences around the gap would tell the network where it is. Of a patch, only what
        comes into it is moved, and what is erased are folds that lie there.
        """
        if options.augmentation.dropout:
            raise InputError(
                "training.augmentation.dropout: not for models that learn from what is erased; "
                "their model.init_args.edits say what is"
            )
        edits, moved = self._edits(options.seed), self.augmentation(options)
        if options.patch is not None:
            return self._of_patches(options, edits, moved)
        if moved is None:
            return edits
        return lambda volumes, n: edits(moved.with_folds(volumes, n), n)

    def place(self, options: TrainingOptions) -> Place | None:
        """Return the function that locates patches, for a model that takes them."""
        if options.patch is None or not isinstance(self.model, TakesPatches):
            return super().place(options)
        return self._patches(options).place

    def _patches(self, options: TrainingOptions) -> Patches:
        assert options.patch is not None
        return Patches(options.patch, self.cohort.shape, self.cohort.scheme, options.seed)

    def _of_patches(
        self, options: TrainingOptions, edits: TrainingEdits, moved: Augmentation | None
    ) -> Alter:
        """Move and edit what lies in a patch of a volume."""
        patches, inner = self._patches(options), slice(PATCH_MARGIN, -PATCH_MARGIN)

        def alter(volumes: NDArray[Any], draw: int) -> Labels:
            window = patches.window(volumes, draw).wider(PATCH_MARGIN)
            part = moved.with_folds(volumes, draw, window) if moved else window.of(volumes)
            return edits(part, draw)[:, inner, inner, inner]

        return alter

    def for_validation(self, volumes: NDArray[Any], index: int) -> Labels:
        """Edit volumes alike at every validation; not for a model that is judged by its codes."""
        if isinstance(self.model, Decodes):
            return volumes[:1].astype(np.uint8)
        return self._edits(VALIDATION_SEED)(volumes, index)

    def _edits(self, seed: int) -> TrainingEdits:
        cohort, model = self.cohort, self.model
        low, high = model.radii
        return TrainingEdits(
            model.edits,
            model.max_edits,
            cohort.scheme,
            cohort.voxel_size,
            (low, high),
            seed,
            has_hull=cohort.has_hull,
        )

    def figures(self, batch: Tensor, condition: Tensor | None) -> dict[str, float]:
        """Compute the mean probability of structure, where it was erased and where none was."""
        if isinstance(self.model, Decodes):
            return super().figures(batch, condition)
        if not isinstance(self.model, Restores):
            return {}
        scheme, (edited, healthy) = self.cohort.scheme, batch[0]
        likely = structure_probability(self.model.restore(batch[:, 0]), scheme)[0]
        first = scheme.void + 1
        erased, empty = (healthy >= first) & (edited < first), healthy == scheme.void
        return {"restored": float(likely[erased].mean()), "invented": float(likely[empty].mean())}

    def picture(self, batch: Tensor, condition: Tensor | None) -> Slices:
        """Show a volume as edited, as restored, and as it was."""
        if isinstance(self.model, Decodes):
            return super().picture(batch, condition)
        if not isinstance(self.model, Restores):
            return []
        edited, healthy = batch.unbind(1)
        shown = (edited, to_classes(self.model.restore(edited)), healthy)
        n = self.cohort.scheme.n_classes
        return [s for volume in shown for s in middle_slices(volume[0].cpu().numpy(), n)]


class SulcusTask(Task):
    """Volumes, beside the sulcus that each of their voxels belongs to."""

    def __init__(self, model: nn.Module, cohort: Cohort) -> None:
        super().__init__(model, cohort)
        assert isinstance(model, Recognises)
        self.targets = NamedVolumes(cohort, model.sulci)

    def alter(self, options: TrainingOptions) -> Alter:
        """Take out sulci and fill their place, then move both volumes alike."""
        substitute = Substitutions(self.model.substitutes, self.cohort.scheme, options.seed)
        moved = super().alter(options)

        def alter(volumes: NDArray[Any], draw: int) -> Labels:
            volume, beside = volumes[0].astype(np.uint8), volumes[1].astype(np.uint16)
            both = np.stack(substitute(volume, names_of(beside), folds_of(beside), draw))
            return both if moved is None else moved(both, draw)

        return alter

    def for_validation(self, volumes: NDArray[Any], index: int) -> Labels:
        """Leave out the fold numbers that lie beside the names of sulci."""
        del index
        return np.stack([volumes[0], names_of(volumes[1])]).astype(np.uint8)

    def figures(self, batch: Tensor, condition: Tensor | None) -> dict[str, float]:
        """Compute the mean Dice of the sulci."""
        del condition
        named = recognise(self.model, batch[:, 0], self.cohort.scheme)[0].cpu().numpy()
        dice = sulcus_dice(named, batch[0, 1].cpu().numpy(), len(self.model.sulci))
        return {"sulcus_dice": float(np.nanmean(dice))}

    def picture(self, batch: Tensor, condition: Tensor | None) -> Slices:
        """Show sulci as recognised, and as named by the cohort."""
        del condition
        shown = (recognise(self.model, batch[:, 0], self.cohort.scheme), batch[:, 1])
        colours = many_colours(len(self.model.sulci))
        # What is sulcus but not named is grey; its number is the last.
        rows = []
        for named in shown:
            sulcus = batch[0, 0].cpu().numpy() > self.cohort.scheme.void
            labels = named[0].cpu().numpy().astype(np.int64)
            labels[sulcus & (labels == 0)] = len(colours) - 1
            rows += middle_slices(labels, len(colours), colours)
        return rows
