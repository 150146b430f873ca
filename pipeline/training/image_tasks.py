"""Training tasks of models of images: images as they are, by class, or degraded."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from foldnorm.models.noise import seed_of
from foldnorm.models.protocols import (
    Classifies,
    FindsDamage,
    LearnsFromTrueDamage,
    RestoresImages,
)
from foldnorm.pipeline.data.augmentation import ImageAugmentation
from foldnorm.pipeline.data.conditions import MISSING
from foldnorm.pipeline.data.damage import LIKELY, came_damaged, degrader
from foldnorm.pipeline.metrics.images import iou, repair_figures
from foldnorm.pipeline.runs.options import TrainingOptions
from foldnorm.pipeline.training.task import VALIDATION_SEED, Alter, Slices, Task
from foldnorm.preprocessing.cohort.cohort import Cohort
from foldnorm.preprocessing.cohort.pictures import image_slices, volume_slices
from foldnorm.preprocessing.core.errors import InputError

N_PICTURED = 4  # drawn images a row
Image = NDArray[np.float32]


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

    def alter(self, options: TrainingOptions) -> Alter | None:
        """Bring what is stored to the range that models see, and move it at random."""
        if not self.cohort.holds_images:
            return super().alter(options)
        to_input = self.cohort.to_model_input
        if not options.augmentation:
            return lambda volumes, draw: to_input(volumes)
        moved = ImageAugmentation(options.augmentation, options.seed)
        return lambda volumes, draw: moved(to_input(volumes), draw)

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

    def __init__(self, model: nn.Module, cohort: Cohort) -> None:
        super().__init__(model, cohort)
        self.came_damaged = came_damaged(cohort.rows, model)
        if self.came_damaged.any():
            self.targets = _Flags(cohort, self.came_damaged)

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

    def alter(self, options: TrainingOptions) -> Alter:
        """Degrade training images, in another way at each draw."""
        to_input, degrade = super().alter(options), degrader(self.model)
        assert to_input is not None

        def alter(volumes: NDArray[Any], draw: int) -> Image:
            rng = np.random.default_rng(seed_of(options.seed, "degrade", draw))
            image, *flags = to_input(volumes, draw)
            return _as_it_came(image) if flags and flags[0].max() > 0 else degrade(image, rng)

        return alter

    def for_validation(self, volumes: NDArray[Any], index: int) -> Image:
        """Degrade an image in the same way at every validation."""
        if self.came_damaged[index]:
            return _as_it_came(volumes[0])
        rng = np.random.default_rng(seed_of(VALIDATION_SEED, "degrade", index))
        return degrader(self.model)(volumes[0], rng)

    def figures(self, batch: Tensor, condition: Tensor | None) -> dict[str, float]:
        """Compute PSNR in dB, its gain and SSIM of a restored image; IoU of the damage found."""
        del condition
        if batch.shape[1] == 3 and (batch[0, 1] < 0).all():
            return {}  # nobody knows what it was
        given, clean = batch[:, 0], batch[0, -1].cpu().numpy()
        repaired = self.model.repair(given)[0].cpu().numpy()
        found = repair_figures(repaired, given[0].cpu().numpy(), clean)
        if isinstance(self.model, FindsDamage):
            told = self.model.find_damage(given)[0].cpu().numpy() > LIKELY
            found["mask_iou"] = iou(told, batch[0, 1].cpu().numpy() > 0)
        return found

    def picture(self, batch: Tensor, condition: Tensor | None) -> Slices:
        """Show an image as given, restored, and as it was; and the mask of damage as found."""
        del condition
        given = batch[:, 0]
        shown = [given, self.model.repair(given), batch[:, -1]]
        if isinstance(self.model, FindsDamage):
            shown.insert(1, 2 * self.model.find_damage(given) - 1)
        return [s for images in shown for s in image_slices(images[0].cpu().numpy())]


@dataclass(frozen=True)
class _Flags:
    """Beside each image one that is white if it came damaged, else black."""

    cohort: Cohort
    flags: NDArray[np.bool_]

    def __getitem__(self, index: Any, /) -> NDArray[np.integer]:
        images = self.cohort.volumes[index]
        white = np.iinfo(images.dtype).max
        flags = np.asarray(self.flags[index])
        flags = flags.reshape(*flags.shape, *[1] * len(self.cohort.shape))
        return np.broadcast_to(flags * white, images.shape).astype(images.dtype)


def _as_it_came(image: Image) -> Image:
    """(3, *sides) of an image of which nobody knows what it was."""
    return np.stack([image, np.full_like(image, -1), image])


class ClassificationTask(ImageTask):
    """Images or label volumes, to be classified by a column of ``participants.tsv``."""

    def check(self) -> None:
        """Refuse a column that holds no classes.

        Raises:
            InputError: it has a value for every second training volume.
        """
        target, rows = (
            self.model.target,
            [self.cohort.rows[i] for i in self.cohort.indices("train")],
        )
        levels = {row.get(target, "") for row in rows} - set(MISSING)
        if len(levels) > max(len(rows) / 2, 2):
            raise InputError(
                f"{target!r} has {len(levels)} values in {len(rows)} training volumes: no classes "
                f"that can be learned: {self.cohort.folder}"
            )

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
