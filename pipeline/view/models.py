"""A trained model as `foldnorm view` uses it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from foldnorm.models.protocols import (
    Decodes,
    Denoises,
    Encodes,
    LearnsFromDamage,
    Restores,
    RestoresImages,
    Translates,
)
from foldnorm.pipeline.data.damage import degradation_of, degraded
from foldnorm.pipeline.inference.restore import Image, RestoreOptions, restore_image
from foldnorm.pipeline.inference.translate import Translator
from foldnorm.pipeline.runs.devices import choose_device
from foldnorm.pipeline.runs.run_folder import RunFolder
from foldnorm.pipeline.runs.trained_model import TrainedModel
from foldnorm.preprocessing.cohort.cohort import Cohort, row_key
from foldnorm.preprocessing.core.errors import InputError
from foldnorm.preprocessing.io.schemes import LabelScheme


@dataclass(frozen=True)
class ViewedModel:
    """Model to view: its input, its output, and the true volume to compare that with.

    Attributes:
        run: its folder.
        trained: the model.
        translator: the same, if it translates.
    """

    run: RunFolder
    trained: TrainedModel
    translator: Translator | None

    @classmethod
    def open(cls, folder: Path, device: str) -> "ViewedModel":
        """Load a model.

        Raises:
            InputError: it is none, or makes nothing of a brain.
        """
        run, chosen = RunFolder.open(folder), choose_device(device)
        trained = run.load(chosen)
        if isinstance(trained.model, (Decodes, Restores, RestoresImages)):
            return cls(run, trained, None)
        if not isinstance(trained.model, Translates):
            raise InputError(f"{type(trained.model).__name__} makes no volume to show: {folder}")
        return cls(run, trained, Translator(run, trained))

    @property
    def makes(self) -> Literal["reconstruction", "restoration", "translation"]:
        """Kind of volume that the model makes."""
        if self.translator is not None:
            return "translation"
        return "restoration" if self.degrades or not self.encodes else "reconstruction"

    @property
    def encodes(self) -> bool:
        """True if the model has a latent space."""
        return isinstance(self.trained.model, Encodes)

    @property
    def degrades(self) -> bool:
        """True if the model learned from degraded images, so that images can be degraded alike."""
        model = self.trained.model
        is_noisy = isinstance(model, Denoises) and model.noise_factor > 0
        return is_noisy or isinstance(model, LearnsFromDamage)

    def repair(self, cohort: Cohort, index: int, *, degrade: bool) -> dict[str, Image]:
        """Repair an image; return the images that `restore_image` gives.

        Args:
            cohort: of images.
            index: of the image.
            degrade: degrade it first, as ``foldnorm restore --degrade`` does.
        """
        # MONAI takes seconds to load, and only those wait for it who look at images.

        (brain,) = cohort.brains([index])
        parts = brain.volume[None]
        if degrade and self.degrades:
            degradation = degradation_of(self.trained.model)
            parts = degraded(brain.volume, degradation, row_key(brain.row))
        return restore_image(self.trained, parts, RestoreOptions())

    def check(self, cohort: Cohort) -> None:
        """Refuse a cohort that was not prepared as that of the model was, or lacks its input."""
        self.run.check_cohort(cohort)
        if self.from_pair and cohort.pairs is None:
            raise InputError(f"the cohort has no pairs to translate from: {cohort.folder}")

    def source_scheme(self, cohort: Cohort) -> LabelScheme:
        """Label scheme of the volume that the model starts from."""
        return cohort.scheme if self.translator is None else self.translator.source_scheme

    def scheme(self, cohort: Cohort) -> LabelScheme:
        """Label scheme of the volume that the model makes."""
        return cohort.scheme if self.translator is None else self.translator.target_scheme

    def make(self, cohort: Cohort, index: int) -> NDArray[np.uint8]:
        """Class numbers of the volume that the model makes of a brain, (I, J, K)."""
        if self.translator is not None:
            return self.trained.translate_volume(self.source(cohort, index))
        (brain,) = cohort.brains([index])
        if isinstance(self.trained.model, Restores):
            return self.trained.restore(brain)[0]
        return self.trained.reconstruct(brain)[0]

    def source(self, cohort: Cohort, index: int) -> NDArray[np.uint8]:
        """Return the volume of a brain that the model starts from."""
        sources = cohort.pairs if self.from_pair else cohort.volumes
        assert sources is not None
        return sources[index]

    def true(self, cohort: Cohort, index: int) -> NDArray[np.uint8] | None:
        """Return the volume that the model should make of a brain; None if it is not known."""
        if self.translator is None:
            return cohort.volumes[index]
        wanted = cohort.volumes if self.from_pair else cohort.pairs
        return None if wanted is None else wanted[index]

    def codes(self, cohort: Cohort) -> NDArray[np.float32]:
        """Codes of all brains of a cohort, (N, d)."""
        return self.trained.encode(cohort.brains(cohort.indices()))

    @property
    def from_pair(self) -> bool:
        """True if the model starts from the second volume of a pair."""
        return self.translator is not None and self.translator.model.reverse
