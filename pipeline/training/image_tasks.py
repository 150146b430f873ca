"""Training tasks of models of images: images as they are, by class, or degraded."""

from typing import Any

import numpy as np
from monai.transforms import Lambdad
from numpy.typing import NDArray
from torch import Tensor, nn

from foldnorm.models.protocols import (
    Classifies,
    FindsDamage,
    LearnsFromTrueDamage,
    RestoresImages,
)
from foldnorm.pipeline.data.damage import DEGRADED, LIKELY, came_damaged, degradation_of
from foldnorm.pipeline.data.image_affine import RandImageAffined
from foldnorm.pipeline.data.items import ItemTransform
from foldnorm.pipeline.metrics.images import iou, repair_figures
from foldnorm.pipeline.runs.options import TrainingOptions
from foldnorm.pipeline.training.task import Slices, Task
from foldnorm.preprocessing.cohort.cohort import Cohort
from foldnorm.preprocessing.cohort.pictures import image_slices, volume_slices
from foldnorm.preprocessing.core.errors import InputError
from foldnorm.preprocessing.core.files import UNKNOWN_CELLS

N_PICTURED = 4  # drawn images a row


class ImageTask(Task):
    """Images as they are; or label volumes, for a model that takes both."""

    def check(self) -> None:
        """Refuse label volumes for a model that restores images; any other cohort will do.

        Raises:
            InputError: it is of label volumes.
        """
        if isinstance(self.model, RestoresImages) and not self.cohort.holds_images:
            raise InputError(
                f"{type(self.model).__name__} reads images, and this is a cohort of label volumes: "
                f"{self.cohort.folder}"
            )

    def check_options(self, options: TrainingOptions) -> None:
        """Refuse options that make no sense for the model.

        Raises:
            InputError: kinds of augmentation that are for label volumes, or patches.
        """
        limits = options.augmentation
        if self.cohort.holds_images and (limits.elastic or limits.dropout):
            raise InputError(
                "training.augmentation: images are turned, stretched and shifted; elastic and "
                "dropout are for label volumes"
            )
        super().check_options(options)

    def transforms(self, options: TrainingOptions) -> list[ItemTransform]:
        """Bring what is stored to the range that models see, and move it at random."""
        if not self.cohort.holds_images:
            return super().transforms(options)
        limits = options.augmentation
        to_input = Lambdad("image", self.cohort.to_model_input)
        if not limits.moves and not limits.mirror:
            return [to_input]
        moved = RandImageAffined(
            "image", limits.rotation, limits.stretch, limits.shift, mirror=limits.mirror
        )
        return [to_input, moved]

    def figures(self, batch: Tensor, condition: Tensor | None) -> dict[str, float]:
        """Compute PSNR in dB and SSIM of a restored image, if the model restores any."""
        del condition
        if not isinstance(self.model, RestoresImages):
            return {}
        image, back = batch[0].cpu().numpy(), self.model.repair(batch)[0].cpu().numpy()
        return repair_figures(back, image, image)

    def picture(self, batch: Tensor, condition: Tensor | None) -> Slices:
        """Show an image beside its repair or reconstruction, if the model makes either.

        Of a diffusion model, the image after shares of the steps to noise.
        """
        if isinstance(self.model, RestoresImages):
            shown = [batch[0], self.model.repair(batch)[0]]
            return [s for image in shown for s in volume_slices(self.cohort, image.cpu().numpy())]
        left = self.diffused(batch, condition)
        return [s for volume in left for s in volume_slices(self.cohort, volume)]

    def drawn_figures(self, drawn: NDArray[Any], at_most: int) -> dict[str, float]:
        """Compare mean and spread of drawn images with those of validation images."""
        if not self.cohort.holds_images:
            return super().drawn_figures(drawn, at_most)
        indices = self.cohort.indices("validation")[:at_most]
        real = self.cohort.to_model_input(np.array(self.cohort.volumes[indices]))
        return {
            "mean_difference": float(drawn.mean() - real.mean()),
            "spread_ratio": float(drawn.std() / real.std()),
        }

    def drawn_pictures(self, drawn: NDArray[Any]) -> list[Slices]:
        """Show drawn images; of a diffusion model, first how one comes out of noise."""
        rows = self.out_of_noise()
        for n in range(0, len(drawn), N_PICTURED):
            part = drawn[n : n + N_PICTURED]
            rows.append([s for volume in part for s in volume_slices(self.cohort, volume)])
        return rows


class DegradationTask(ImageTask):
    """Images under noise, or damaged ones and the mask of the damage, beside what they were.

    The true content of images that came damaged is unknown: their mask is −1.
    """

    keys = DEGRADED

    def __init__(self, model: nn.Module, cohort: Cohort) -> None:
        super().__init__(model, cohort)
        self.auxiliary = {"came_damaged": came_damaged(cohort.rows, model)}

    def check(self) -> None:
        """Refuse what has no intensities, or nothing that the model wants to learn from.

        Raises:
            InputError: it is of label volumes; or no training image came damaged, or all did, where
                a model learns from such ones.
        """
        super().check()
        if isinstance(self.model, LearnsFromTrueDamage) and self.model.damaged_column:
            known = self.cohort.indices("train")
            count = int(came_damaged([self.cohort.rows[i] for i in known], self.model).sum())
            if not 0 < count < len(known):
                raise InputError(
                    f"damaged_column: expected some training images of {self.model.damaged_column} "
                    f"and some others, got {count} of {len(known)}: {self.cohort.folder}"
                )

    def transforms(self, options: TrainingOptions) -> list[ItemTransform]:
        """Degrade training images, in another way at each draw."""
        return [*super().transforms(options), *self.validation_transforms()]

    def validation_transforms(self) -> list[ItemTransform]:
        """Degrade an image; one that came damaged stays as it came."""
        return degradation_of(self.model, came_damaged_key="came_damaged")

    def figures(self, batch: Tensor, condition: Tensor | None) -> dict[str, float]:
        """Compute PSNR in dB, its gain and SSIM of a restored image; IoU of the damage found."""
        del condition
        if batch.shape[1] == 3 and (batch[0, 1] < 0).all():
            return {}  # nobody knows what it was
        given, clean = batch[:, 0], batch[0, -1].cpu().numpy()
        repaired = self.model.repair(given)[0].cpu().numpy()
        found = repair_figures(repaired, given[0].cpu().numpy(), clean)
        if isinstance(self.model, FindsDamage):
            likely = self.model.find_damage(given)[0].cpu().numpy() > LIKELY
            found["mask_iou"] = iou(likely, batch[0, 1].cpu().numpy() > 0)
        return found

    def picture(self, batch: Tensor, condition: Tensor | None) -> Slices:
        """Show an image as given, restored, and as it was; and the mask of damage as found."""
        del condition
        given = batch[:, 0]
        shown = [given, self.model.repair(given), batch[:, -1]]
        if isinstance(self.model, FindsDamage):
            shown.insert(1, 2 * self.model.find_damage(given) - 1)
        return [s for images in shown for s in image_slices(images[0].cpu().numpy())]


class ClassificationTask(ImageTask):
    """Images or label volumes, to be told apart by a column of ``participants.tsv``."""

    def check(self) -> None:
        """Refuse a column that holds no classes.

        Raises:
            InputError: it has a value for every second training volume.
        """
        target, rows = (
            self.model.target,
            [self.cohort.rows[i] for i in self.cohort.indices("train")],
        )
        levels = {row.get(target, "") for row in rows} - UNKNOWN_CELLS
        if len(levels) > max(len(rows) / 2, 2):
            raise InputError(
                f"{target!r} has {len(levels)} values in {len(rows)} training volumes: no classes "
                f"that can be learned: {self.cohort.folder}"
            )

    def training_indices(self) -> NDArray[np.int64]:
        """Leave out volumes whose class is not known: a batch is then a mean of as many, always."""
        rows, target = self.cohort.rows, self.model.target
        indices = super().training_indices()
        return indices[[rows[i].get(target, "") not in UNKNOWN_CELLS for i in indices]]

    def figures(self, batch: Tensor, condition: Tensor | None) -> dict[str, float]:
        """Return the accuracy of one volume, 1 or 0; NaN if its class is not known."""
        assert isinstance(self.model, Classifies)
        assert condition is not None
        if not condition.any():  # its class is not known
            return {"accuracy": float("nan")}
        told = self.model.classify(batch).argmax(dim=1)
        return {"accuracy": float((told == condition.argmax(dim=1)).float().mean())}

    def picture(self, batch: Tensor, condition: Tensor | None) -> Slices:
        """Show nothing: classification draws no pictures."""
        del batch, condition
        return []
