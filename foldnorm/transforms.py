"""The preprocessing steps as MONAI transforms, on arrays and (``…d``) on dictionaries."""

from foldnorm.pipeline.transforms import (
    CropToCohortBox,
    CropToCohortBoxd,
    Discretise,
    Discretised,
    SulcusPriorityDownsample,
    SulcusPriorityDownsampled,
)

__all__ = [
    "CropToCohortBox",
    "CropToCohortBoxd",
    "Discretise",
    "Discretised",
    "SulcusPriorityDownsample",
    "SulcusPriorityDownsampled",
]
