"""The commands and what they call: they join preprocessing and models, room by room.

Bundles of release 0.1 name classes by the modules that they lay in then, and plain MONAI looks them
up: `MOVED` says where those modules lie now.
"""

import importlib
from types import ModuleType

MOVED = {
    "bundle_of_images": "foldnorm.pipeline.bundle.images",
    "bundle_of_volumes": "foldnorm.pipeline.bundle.volumes",
    "bundle_parts": "foldnorm.pipeline.bundle.common",
}


def __getattr__(name: str) -> ModuleType:
    """Find the module that had a name in release 0.1."""
    if name in MOVED:
        return importlib.import_module(MOVED[name])
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
