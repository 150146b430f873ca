"""Training task of a model: its input, and its validation figures and pictures.

A task says what lies beside each volume of a batch, how training volumes are altered, and the
figures and pictures of validation volumes.
"""

import copy
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from foldnorm.models.protocols import Conditioned, Decodes, Diffuses, TakesPatches, Trainable
from foldnorm.pipeline.data.items import ItemTransform, stacked, transformed
from foldnorm.pipeline.data.sheet_affine import RandSheetAffined
from foldnorm.pipeline.metrics.sheets import compare_populations, sheet_panel
from foldnorm.pipeline.runs.options import TrainingOptions
from foldnorm.pipeline.runs.predict import decoded
from foldnorm.preprocessing.cohort.cohort import Cohort
from foldnorm.preprocessing.cohort.pictures import volume_slices
from foldnorm.preprocessing.cohort.preparation import Preparation
from foldnorm.preprocessing.core.arrays import VolumeArray, read_row
from foldnorm.preprocessing.core.errors import InputError

Labels = NDArray[np.uint8]
Slices = list[NDArray[np.uint8]]
VALIDATION_SEED = 0  # of what is done to validation volumes
DIFFUSION_SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)  # of the diffusion steps, at which it is shown


class Task:
    """Volumes as they are.

    Args:
        model: in evaluation mode, where figures are asked for.
        cohort: that it is trained on.

    Attributes:
        auxiliary: by name, what lies beside each volume.
        keys: of what the model is given of an item, in order; see `foldnorm.pipeline.data.items`.

    Raises:
        InputError: the cohort lacks what the model reads.
    """

    keys: tuple[str, ...] = ("image",)

    def __init__(self, model: nn.Module, cohort: Cohort) -> None:
        assert isinstance(model, Trainable)
        self.model: Any = model
        self.cohort = cohort
        self.auxiliary: dict[str, VolumeArray] = {}
        self.check()

    def check(self) -> None:
        """Refuse a cohort that the model cannot read.

        Raises:
            InputError: it holds images, and the model reads classes.
        """
        if self.cohort.holds_images:
            raise InputError(
                f"{type(self.model).__name__} reads label volumes, and this is a cohort of images: "
                f"{self.cohort.folder}"
            )

    @cached_property
    def preparation(self) -> Preparation:
        """Preparation of the cohort."""
        return Preparation.from_dict(self.cohort.preparation)

    def with_model(self, model: nn.Module) -> "Task":
        """Return this task for another model of its kind, such as the average of its weights."""
        other = copy.copy(self)
        other.model = model
        return other

    def check_options(self, options: TrainingOptions) -> None:
        """Refuse options that make no sense for the model.

        Raises:
            InputError: patches, cubes that are dropped, or mirror images that it is not for.
        """
        if options.patch is not None and not isinstance(self.model, TakesPatches):
            raise InputError(
                f"training.patch: {type(self.model).__name__} learns from whole volumes; restorer "
                "takes patches"
            )
        if options.augmentation.dropout and self.model.input_kind != "pairs":
            raise InputError(
                f"training.augmentation.dropout: {type(self.model).__name__} reads no pairs, so it "
                "would learn that holes are healthy"
            )
        if options.augmentation.mirror and not self.cohort.holds_images:
            raise InputError(
                "training.augmentation.mirror: only of images; the mirror image of a hemisphere is "
                "the other one"
            )

    def training_indices(self) -> NDArray[np.int64]:
        """Return the indices of the volumes that are learned from."""
        return self.cohort.indices("train")

    def validation_indices(self) -> NDArray[np.int64]:
        """Return the indices of the volumes that are validated."""
        return self.cohort.indices("validation")

    def transforms(self, options: TrainingOptions) -> list[ItemTransform]:
        """Return the transforms of training items, one after the other."""
        return self.augmentation(options)

    def augmentation(self, options: TrainingOptions, **others: Any) -> list[ItemTransform]:
        """Return the random motion of label volumes, and of others as `RandSheetAffined` says."""
        limits, preparation = options.augmentation, self.preparation
        if not limits.moves and "window_key" not in others:
            return []
        moves = RandSheetAffined(
            "image", limits.rotation, limits.stretch, limits.shift, limits.elastic,
            scheme=preparation.scheme, thin=preparation.thin, **others,
        )  # fmt: skip
        return [moves]

    def validation_transforms(self) -> Sequence[ItemTransform]:
        """Return the transforms of validation items, the same at every validation."""
        return []

    def validation_volume(self, index: int) -> tuple[NDArray[Any], Mapping[str, str]]:
        """Read (I, J, K), or (2 or 3, I, J, K) with what the model reads beside; and its row."""
        item = {"image": self.cohort.to_model_input(read_row(self.cohort.volumes, index))[None]}
        item |= {name: read_row(a, index)[None] for name, a in self.auxiliary.items()}
        item = transformed(item, self.validation_transforms(), VALIDATION_SEED, index)
        return stacked(item, self.keys), self.cohort.rows[index]

    def figures(self, batch: Tensor, condition: Tensor | None) -> dict[str, float]:
        """Compute metrics of the reconstruction of a batch of one validation volume, if any."""
        if not isinstance(self.model, Decodes):
            return {}
        foreground = self.cohort.scheme.foreground
        back = reconstruct(self.model, batch, condition)
        return sheet_panel(foreground(back), foreground(batch[0].cpu().numpy()))

    def picture(self, batch: Tensor, condition: Tensor | None) -> Slices:
        """Show slices of one validation volume, and of its reconstruction if the model makes one.

        For diffusion models, also the noised volume at several steps.
        """
        if not isinstance(self.model, Decodes):
            return []
        volumes = [batch[0].cpu().numpy(), reconstruct(self.model, batch, condition)]
        volumes += self.diffused(batch, condition)[1:]
        return [s for volume in volumes for s in volume_slices(self.cohort, volume)]

    def drawn_figures(self, drawn: NDArray[Any], at_most: int) -> dict[str, float]:
        """Compare volumes that the model has drawn, (N, I, J, K), with validation volumes."""
        foreground = self.cohort.scheme.foreground
        indices = self.cohort.indices("validation")[:at_most]
        real = [foreground(np.array(self.cohort.volumes[index])) for index in indices]
        return compare_populations([foreground(volume) for volume in drawn], real)

    def drawn_pictures(self, drawn: NDArray[Any]) -> list[Slices]:
        """Show drawn volumes, two a row; of a diffusion model, first how one comes out of noise."""
        slices = [volume_slices(self.cohort, volume) for volume in drawn]
        rows = [[*a, *b] for a, b in zip(slices[::2], slices[1::2], strict=False)]
        return [*self.out_of_noise(), *rows]

    def diffused(self, batch: Tensor, condition: Tensor | None) -> list[NDArray[Any]]:
        """Add the noise of each of `DIFFUSION_SHARES` to the first volume of a batch.

        Empty if the model is no diffusion model.
        """
        if not isinstance(self.model, Diffuses):
            return []
        generator = torch.Generator().manual_seed(VALIDATION_SEED)
        left = (
            self.model.diffuse(batch, share, generator, condition) for share in DIFFUSION_SHARES
        )
        return [volumes[0].cpu().numpy() for volumes in left]

    def out_of_noise(self) -> list[Slices]:
        """Draw a volume by diffusion; return its slices after each of `DIFFUSION_SHARES`.

        Empty for a model that needs a condition, or is no diffusion model.
        """
        told = isinstance(self.model, Conditioned) and self.model.condition
        if not isinstance(self.model, Diffuses) or told:
            return []
        generator = torch.Generator().manual_seed(VALIDATION_SEED)
        last = self.model.num_inference_steps - 1
        wanted = {round(share * last) for share in DIFFUSION_SHARES}
        steps = enumerate(self.model.sample_trajectory(1, generator))
        shown = [images[0].cpu().numpy() for n, images in steps if n in wanted]
        return [[s for volume in shown for s in volume_slices(self.cohort, volume)]]


def reconstruct(model: Decodes, batch: Tensor, condition: Tensor | None) -> Labels:
    """Encode and decode the first volume of a batch, (I, J, K) class numbers."""
    made: Labels = decoded(model, model.encode(batch, condition), condition)[0].cpu().numpy()
    return made
