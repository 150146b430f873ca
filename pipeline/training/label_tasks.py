"""Training tasks of models of label volumes: pairs, edited volumes, and names of sulci."""

import logging

import numpy as np
from monai.transforms import CopyItemsd, Lambdad
from numpy.typing import NDArray
from torch import Tensor, nn

from foldnorm.models.classes import to_classes
from foldnorm.models.protocols import (
    OF_FOLDS,
    Decodes,
    LearnsFromEdits,
    Recognises,
    Restores,
)
from foldnorm.pipeline.data.edits import RandEditFoldsd
from foldnorm.pipeline.data.items import ItemTransform
from foldnorm.pipeline.data.patches import RandStructureWindowd
from foldnorm.pipeline.data.sheet_affine import RandCubeDropoutd
from foldnorm.pipeline.data.sulcus_labels import SulcusLabels, named_indices
from foldnorm.pipeline.data.sulcus_replacement import RandReplaceSulcusd
from foldnorm.pipeline.metrics.classes import class_dice, sulcus_dice
from foldnorm.pipeline.runs.options import TrainingOptions
from foldnorm.pipeline.runs.predict import recognise, structure_probability, target_scheme
from foldnorm.pipeline.training.task import Slices, Task
from foldnorm.preprocessing.cohort.cohort import Cohort
from foldnorm.preprocessing.cohort.colours import many_colours
from foldnorm.preprocessing.cohort.pictures import middle_slices
from foldnorm.preprocessing.core.counts import counted
from foldnorm.preprocessing.core.errors import InputError

LOG = logging.getLogger(__name__)
# Voxels around a patch that are moved and edited with it, then cut off: there sheets are thinned,
# the hull is told by what is outside, and junctions by the folds that meet there.
PATCH_MARGIN = 4


class TranslationTask(Task):
    """Pairs of volumes, one of which is translated into the other."""

    keys = ("image", "pair")

    def __init__(self, model: nn.Module, cohort: Cohort) -> None:
        super().__init__(model, cohort)
        if cohort.pairs is None:
            raise InputError(
                f"{type(model).__name__} needs pairs, and the cohort has none; preprocess it with "
                f"--pair grey-white: {cohort.folder}"
            )
        self.auxiliary = {"pair": cohort.pairs}

    def transforms(self, options: TrainingOptions) -> list[ItemTransform]:
        """Both volumes of a pair alike; cubes are dropped from what is translated."""
        limits, first, second = options.augmentation, self.cohort.scheme, self.preparation.pair
        assert second is not None
        moved = self.augmentation(options, nearest_keys="pair", nearest_fill=second.fill)
        if not limits.dropout:
            return moved
        source, scheme = ("pair", second) if self.model.reverse else ("image", first)
        drop = RandCubeDropoutd(source, limits.dropout, limits.dropout_side, scheme=scheme)
        return [*moved, drop]

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

    keys = ("image", "healthy")

    def __init__(self, model: nn.Module, cohort: Cohort) -> None:
        super().__init__(model, cohort)
        assert isinstance(model, LearnsFromEdits)
        if OF_FOLDS.intersection(model.edits):
            if cohort.folds is None:
                raise InputError(
                    "to edit whole folds the cohort needs fold labels, and has none; train with "
                    f"--model.init_args.edits '[balls, slabs, noise]': {cohort.folder}"
                )
            self.auxiliary = {"folds": cohort.folds}

    def check_options(self, options: TrainingOptions) -> None:
        """Refuse options that make no sense for the model.

        Raises:
            InputError: patches, cubes that are dropped, or mirror images that it is not for.
        """
        if options.augmentation.dropout:
            raise InputError(
                "training.augmentation.dropout: not for models that learn from what is erased; "
                "their model.init_args.edits say what is"
            )
        super().check_options(options)

    def transforms(self, options: TrainingOptions) -> list[ItemTransform]:
        """Move volume and fold labels, then erase something.

        In this order, because a volume that is moved with and without a fold is thinned twice:
        the differences around the gap would tell the network where it is. Of a patch, only what
        comes into it is moved, and what is erased are folds that lie there.
        """
        edits, folds_key = self._edits(), "folds" if self.auxiliary else None
        if options.patch is None:
            return [*self.augmentation(options, folds_key=folds_key), *edits]
        cohort, inner = self.cohort, (slice(None), *[slice(PATCH_MARGIN, -PATCH_MARGIN)] * 3)
        window = RandStructureWindowd(
            "image", options.patch, cohort.shape, scheme=cohort.scheme, margin=PATCH_MARGIN
        )
        moved = self.augmentation(options, folds_key=folds_key, window_key="window")
        return [window, *moved, *edits, Lambdad(self.keys, lambda volume: volume[inner])]

    def validation_transforms(self) -> list[ItemTransform]:
        """Erase the same at every validation; nothing for a model that is judged by its codes."""
        return [] if isinstance(self.model, Decodes) else self._edits()

    def _edits(self) -> list[ItemTransform]:
        """Return the transforms that keep a volume as healthy, and edit it."""
        cohort, model = self.cohort, self.model
        low, high = model.radii
        edit = RandEditFoldsd(
            "image", model.edits, model.max_edits, (low, high), voxel_size=cohort.voxel_size,
            scheme=cohort.scheme, has_hull=cohort.has_hull,
            folds_key="folds" if self.auxiliary else None,
        )  # fmt: skip
        return [CopyItemsd("image", names="healthy"), edit]

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

    keys = ("image", "sulci")

    def __init__(self, model: nn.Module, cohort: Cohort) -> None:
        super().__init__(model, cohort)
        assert isinstance(model, Recognises)
        sulci = SulcusLabels(cohort, model.sulci)
        self.auxiliary = {"sulci": sulci, "folds": sulci.folds}

    def training_indices(self) -> NDArray[np.int64]:
        """Leave out volumes whose folds have no names: they would teach that no sulcus is there."""
        indices, every = named_indices(self.cohort, "train"), super().training_indices()
        if len(indices) < len(every):
            LOG.warning(
                "%d of %s to train on have no fold with a name, and are left out: %s",
                len(every) - len(indices),
                counted(len(every), "volume"),
                self.cohort.folder,
            )
        return indices

    def validation_indices(self) -> NDArray[np.int64]:
        """Leave out volumes whose folds have no names."""
        return named_indices(self.cohort, "validation")

    def transforms(self, options: TrainingOptions) -> list[ItemTransform]:
        """Take out sulci and fill their place, then move both volumes alike."""
        replace = RandReplaceSulcusd(
            "image", prob=self.model.substitutes, scheme=self.cohort.scheme
        )
        return [replace, *self.augmentation(options, nearest_keys="sulci")]

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
