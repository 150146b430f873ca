"""Classes that ``inference.json`` and ``train.json`` of a bundle name, under addresses that stay.

A bundle is shared and kept: wherever these classes come to lie in foldnorm, here they can be found.
"""

from foldnorm.pipeline.bundle.common import ToldClassd
from foldnorm.pipeline.bundle.fine_tuning import FineTuning
from foldnorm.pipeline.bundle.images import (
    ImageNetwork,
    PreparedImaged,
    WrittenImaged,
    images_in,
)
from foldnorm.pipeline.bundle.volumes import (
    BundleNetwork,
    LabelValuesd,
    PreparedVolumed,
    volumes_in,
)

__all__ = [
    "BundleNetwork",
    "FineTuning",
    "ImageNetwork",
    "LabelValuesd",
    "PreparedImaged",
    "PreparedVolumed",
    "ToldClassd",
    "WrittenImaged",
    "images_in",
    "volumes_in",
]
