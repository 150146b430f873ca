"""Contents of the bundle of a model of images, and the parts its ``inference.json`` names."""

from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform
from torch import Tensor, nn

from foldnorm.models.protocols import Classifies, LearnsFromDamage, RestoresImages
from foldnorm.pipeline.bundle.common import ADDRESS, Contents, class_steps, data_format, levels_of
from foldnorm.pipeline.runs.run_folder import RunFolder
from foldnorm.preprocessing.cohort.cohort import intensities_of
from foldnorm.preprocessing.cohort.image_preparation import ImagePreparation, prepare_image
from foldnorm.preprocessing.cohort.images import ImageFile, find_images, write_image
from foldnorm.preprocessing.core.choices import Orientation
from foldnorm.preprocessing.core.errors import InputError

LOWEST, HIGHEST = -1.0, 1.0  # intensities that models see


def contents_of(model: nn.Module, run: RunFolder) -> Contents:
    """Describe a model of images for its bundle.

    Raises:
        InputError: the model only draws new images and takes none.
    """
    shape = [int(side) for side in run.data["shape"]]
    if isinstance(model, Classifies):
        task, use = "classes of images", "foldnorm classify . INPUT -o OUT"
        outputs = data_format("probabilities", "classes", [], levels_of(run))
        written, out = class_steps(), "a JSON file of classes comes out for each"
    elif isinstance(model, RestoresImages):
        task = "restoration" if isinstance(model, LearnsFromDamage) else "reconstruction"
        task, use = f"{task} of images", "foldnorm restore . INPUT -o OUT"
        outputs = data_format("image", "magnitude", shape, ["intensity"], [LOWEST, HIGHEST])
        saved = {
            "_target_": f"{ADDRESS}.WrittenImaged", "keys": "pred", "folder": "@bundle_root",
            "output_dir": "@output_dir",
        }  # fmt: skip
        written, out = [saved], "an image comes out for each"
    else:
        raise InputError(
            f"a bundle makes something of an image, {type(model).__name__} draws new ones only; "
            f"share the run folder: {run.folder}"
        )
    return Contents(
        task=task,
        data="images",
        inputs=data_format("image", "magnitude", shape, ["intensity"], [LOWEST, HIGHEST]),
        outputs=outputs,
        steps={
            "network_def": {"_target_": f"{ADDRESS}.ImageNetwork", "folder": "@bundle_root"},
            "data": {
                "_target_": f"{ADDRESS}.images_in", "dataset_dir": "@dataset_dir",
                "assume": "@assume",
            },
            "preprocessing": [
                {
                    "_target_": f"{ADDRESS}.PreparedImaged", "keys": "image",
                    "folder": "@bundle_root",
                }
            ],
            "inferer": {"_target_": "SimpleInferer"},
            "postprocessing": written,
        },
        commands=use,
        takes=f"a folder of images as `foldnorm images` takes, or one, and {out}",
        example=torch.linspace(LOWEST, HIGHEST, int(np.prod(shape))).reshape(1, 1, *shape),
    )  # fmt: skip


class ImageNetwork(nn.Module):
    """The bundled model from image to image, or to logits of the levels of a column.

    Args:
        folder: of the bundle.
    """

    def __init__(self, folder: str | Path) -> None:
        super().__init__()
        self.model = RunFolder.open(Path(folder)).load().model

    def forward(self, image: Tensor) -> Tensor:
        """(B, 1, *sides) float32 from −1 to 1 → (B, 1, *sides) likewise, or (B, n) logits."""
        if isinstance(image, MetaTensor):  # whose file name goes on
            made = MetaTensor(self.forward(image.as_tensor()))
            made.copy_meta_from(image)
            made.is_batch = image.is_batch
            return made
        if isinstance(self.model, Classifies):
            return self.model.classify(image[:, 0].float()).float()
        assert isinstance(self.model, RestoresImages)
        return self.model.repair(image[:, 0].float()).float().unsqueeze(1)


def images_in(
    dataset_dir: str | Path, assume: Orientation | None = None
) -> list[dict[str, ImageFile]]:
    """List the images that a bundle can take: those of a folder, or a single file.

    Args:
        dataset_dir: the folder, or the file.
        assume: directions that voxels run in, ``ras`` or ``las``, where a header does not say.

    Returns:
        ``{"image": file}`` for each.
    """
    found = find_images(Path(dataset_dir).absolute(), assume=assume)
    found.log()
    if not found.items:
        reason = f" ({found.problems[0].reason})" if found.problems else ""
        raise InputError(f"no image to take{reason}: {dataset_dir}")
    return [{"image": image} for image in found.items]


class PreparedImaged(MapTransform):
    """A file → intensities as the model was trained on.

    Args:
        keys: of `ImageFile` entries.
        folder: of the bundle.
    """

    def __init__(self, keys: KeysCollection, folder: str | Path) -> None:
        super().__init__(keys)
        data = RunFolder.open(Path(folder)).data
        self.preparation = ImagePreparation.from_record(data["preparation"])
        self.shape = tuple(data["shape"])

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the dictionary with (1, *sides) float32 images from −1 to 1."""
        changed = dict(data)
        for key in self.key_iterator(changed):
            image = changed[key]
            pixels = prepare_image(image, self.preparation).pixels
            if pixels.shape != self.shape:
                expected, got = (" × ".join(map(str, s)) for s in (self.shape, pixels.shape))
                raise InputError(
                    f"expected images of {expected} as the model's, got {got}: {image.path}"
                )
            changed[key] = MetaTensor(
                torch.from_numpy(intensities_of(pixels)[None]), meta={"filename_or_obj": image.key}
            )
        return changed


class WrittenImaged(MapTransform):
    """Intensities → PNG of the bits of the training images in 2-D, NIfTI in 3-D.

    Args:
        keys: of (1, *sides) images.
        folder: of the bundle.
        output_dir: folder to write to.
    """

    def __init__(self, keys: KeysCollection, folder: str | Path, output_dir: str | Path) -> None:
        super().__init__(keys)
        record = RunFolder.open(Path(folder)).data["preparation"]
        self.bits, self.output_dir = int(record["intensities"]["bits"]), Path(output_dir)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Write ``KEY_pred``; the dictionary comes back as it is."""
        for key in self.key_iterator(dict(data)):
            image = data[key]
            stem = self.output_dir / f"{image.meta['filename_or_obj']}_pred"
            write_image(stem, image.as_tensor()[0].cpu().numpy(), self.bits)
        return dict(data)
