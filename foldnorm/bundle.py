"""Classes that the ``inference.json`` of a bundle names, under addresses that stay.

A bundle is shared and kept: wherever these classes come to lie in foldnorm, here they can be found.
"""

from foldnorm.pipeline.bundle_of_images import (
    ImageNetwork,
    PreparedImaged,
    WrittenImaged,
    images_in,
)
from foldnorm.pipeline.bundle_of_volumes import (
    BundleNetwork,
    LabelValuesd,
    PreparedVolumed,
    volumes_in,
)
from foldnorm.pipeline.bundle_parts import ToldClassd

__all__ = [
    "BundleNetwork",
    "ImageNetwork",
    "LabelValuesd",
    "PreparedImaged",
    "PreparedVolumed",
    "ToldClassd",
    "WrittenImaged",
    "images_in",
    "volumes_in",
]
