"""Figures of volumes that can be turned: layers and steps as data for ``volumes.js``."""

import base64
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foldnorm.preprocessing.cohort.pictures import class_colours
from foldnorm.preprocessing.core.files import to_json
from foldnorm.preprocessing.io.volumes import nifti_bytes

Layer = dict[str, str]
Step = dict[str, Any]


def labels_layer(content: bytes) -> Layer:
    """Layer of classes from the bytes of a ``.nii.gz``."""
    return {"kind": "classes", "data": base64.b64encode(content).decode()}


def share_layer(field: NDArray[np.floating], affine: NDArray[np.float64]) -> Layer:
    """Layer of a map of quantities, in 255 steps from 0 to the largest of them."""
    share = np.clip(field / max(float(field.max()), 1e-12), 0, 1)
    content = nifti_bytes((255 * share).round().astype(np.uint8), affine, "none")
    return {"kind": "share", "data": base64.b64encode(content).decode()}


def viewer(
    groups: Mapping[str, Sequence[Step]],
    names: Sequence[str],
    at: Mapping[str, Sequence[int]] | None = None,
    *,
    radiological: bool = False,
) -> dict[str, Any]:
    """Build the values that the template of a figure of volumes needs.

    Args:
        groups: steps by name of what is chosen; a step has a ``name`` and ``layers``, the lowest
            first.
        names: of the classes.
        at: voxel at which a group is opened; None: in the middle.
        radiological: show right and anterior on the left, as radiologists look at slices.
    """
    steps = [step for group in groups.values() for step in group]
    return {
        "groups": list(groups),
        "steps": max(len(group) for group in groups.values()),
        "overlay": any(len(step["layers"]) > 1 for step in steps),
        "json": in_script(
            {
                "palette": class_colours(len(names)).tolist(),
                "names": list(names),
                "radiological": radiological,
                "groups": [
                    {"name": name, "steps": list(own), "at": (at or {}).get(name)}
                    for name, own in groups.items()
                ],
            }
        ),
    }


def in_script(content: Any) -> str:
    """JSON that can stand in a ``script`` element."""
    return to_json(content, separators=(",", ":")).replace("<", "\\u003c")
