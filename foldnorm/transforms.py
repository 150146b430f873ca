"""Transforms of foldnorm for MONAI, on arrays and (``…d``) on dictionaries, and its reader.

Preprocessing: `Discretise`, `SulcusPriorityDownsample`, `CropToCohortBox`. Random, of label
volumes: `RandSheetAffine`, `RandEditFolds`, `RandCubeDropout`, `RandReplaceSulcusd`. Random, of
images: `RandImageAffine`, `RandStrokes`, `RandClippedNoise`. Training applies these very classes;
``set_random_state`` seeds them, as all of MONAI's.
"""

from foldnorm.pipeline.data.damage import (
    RandClippedNoise,
    RandClippedNoised,
    RandStrokes,
    RandStrokesd,
)
from foldnorm.pipeline.data.edits import RandEditFolds, RandEditFoldsd
from foldnorm.pipeline.data.image_affine import RandImageAffine, RandImageAffined
from foldnorm.pipeline.data.sheet_affine import (
    RandCubeDropout,
    RandCubeDropoutd,
    RandSheetAffine,
    RandSheetAffined,
)
from foldnorm.pipeline.data.sulcus_replacement import RandReplaceSulcusd
from foldnorm.pipeline.transforms import (
    CropToCohortBox,
    CropToCohortBoxd,
    Discretise,
    Discretised,
    MorphologistReader,
    SulcusPriorityDownsample,
    SulcusPriorityDownsampled,
)

__all__ = [
    "CropToCohortBox",
    "CropToCohortBoxd",
    "Discretise",
    "Discretised",
    "MorphologistReader",
    "RandClippedNoise",
    "RandClippedNoised",
    "RandCubeDropout",
    "RandCubeDropoutd",
    "RandEditFolds",
    "RandEditFoldsd",
    "RandImageAffine",
    "RandImageAffined",
    "RandReplaceSulcusd",
    "RandSheetAffine",
    "RandSheetAffined",
    "RandStrokes",
    "RandStrokesd",
    "SulcusPriorityDownsample",
    "SulcusPriorityDownsampled",
]
