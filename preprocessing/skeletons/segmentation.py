"""Segmentations of any origin as grey and white matter of each hemisphere.

FreeSurfer's numbers (``aseg``, ``aparc+aseg``, ``wmparc``, ``ribbon``, FastSurfer, SynthSeg),
Morphologist's grey-white volumes, or a table of numbers in YAML. What lies inside the white
surface, deep nuclei and ventricles, counts as white: the skeleton wants a ball of it.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foldnorm.preprocessing.cohort.quality import SIDES as VIEWS
from foldnorm.preprocessing.cohort.quality import touched_sides
from foldnorm.preprocessing.core.errors import InputError
from foldnorm.preprocessing.core.yaml_files import read_yaml
from foldnorm.preprocessing.io.volumes import LabelVolume
from foldnorm.preprocessing.spatial.crop import bounding_box
from foldnorm.preprocessing.topology.homotopy import Mask

SIDES = ("L", "R")
NAMES = {"L": "left", "R": "right"}
THICK, TOO_THICK = 1.5, 4.0  # mm: a sulcus between thicker slices cannot be followed
# Share of a hemisphere, seen from one side, that lies in one plane of voxels: of 176 intact ones at
# most .083, of those that lost 3 % of their surface to a plane .17 and more.
FLAT = 0.12
SMALL_CM3 = 100.0  # of one hemisphere; a newborn's has about 150


@dataclass(frozen=True)
class Tissue:
    """Label numbers of one hemisphere, or of both together.

    Attributes:
        grey: cortex, with hippocampus and amygdala.
        white: white matter, and what lies inside of it.
        required: labels of ``white`` of which one must be there; deep nuclei alone are no white
            matter. Any of ``white`` if empty.
    """

    grey: tuple[int, ...]
    white: tuple[int, ...]
    required: tuple[int, ...] = ()


@dataclass(frozen=True)
class SegmentationScheme:
    """Label numbers of the tissues of each hemisphere.

    Attributes:
        name: of the scheme.
        left: labels of the left hemisphere.
        right: of the right one.
        both: labels that do not tell sides; parted by the file's side, or by ``midline``.
        midline: world x in mm that parts the hemispheres.
    """

    name: str
    left: Tissue | None = None
    right: Tissue | None = None
    both: Tissue | None = None
    midline: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return the content of a YAML file of this scheme."""
        content: dict[str, Any] = {"name": self.name, "midline": self.midline}
        for key in ("left", "right", "both"):
            tissue = getattr(self, key)
            if tissue is not None:
                content[key] = {"grey": list(tissue.grey), "white": list(tissue.white)}
        return content


def _span(*ranges: tuple[int, int]) -> tuple[int, ...]:
    return tuple(n for low, high in ranges for n in range(low, high + 1))


# aparc (1000, 2000), aparc.a2009s (11100, 12100), and their white matter in wmparc (3000, 13100 …).
# Lesions (25, 57) and hypointensities (77 to 79) lie in white matter; left out, they become sulci.
FREESURFER = SegmentationScheme(
    "freesurfer",
    Tissue(
        (3, 17, 18, 19, 20, *_span((1000, 1035), (11100, 11175))),
        (2, 4, 5, 9, 10, 11, 12, 13, 25, 26, 27, 28, 30, 31, 78, 81,
         *_span((3000, 3035), (5001, 5001), (13100, 13175))),
        (2, *_span((3000, 3035), (5001, 5001), (13100, 13175))),
    ),
    Tissue(
        (42, 53, 54, 55, 56, *_span((2000, 2035), (12100, 12175))),
        (41, 43, 44, 48, 49, 50, 51, 52, 57, 58, 59, 60, 62, 63, 79, 82,
         *_span((4000, 4035), (5002, 5002), (14100, 14175))),
        (41, *_span((4000, 4035), (5002, 5002), (14100, 14175))),
    ),
    Tissue((), (77, 80, 192, *_span((251, 255)))),
)  # fmt: skip
# Gyri of aparc and aparc.a2009s: no other scheme has them, so they tell FreeSurfer's by themselves.
PARCELS = frozenset(_span((1000, 1035), (2000, 2035), (11100, 11175), (12100, 12175)))
GREY_WHITE = SegmentationScheme("grey-white", both=Tissue((100,), (200,)))
BUILT_IN = {scheme.name: scheme for scheme in (FREESURFER, GREY_WHITE)}


@dataclass(frozen=True)
class SegmentedHemisphere:
    """Tissue of one side.

    Attributes:
        side: ``L`` or ``R``.
        grey: (I, J, K) bool.
        white: (I, J, K) bool.
        warnings: what deserves a look, a line each.
    """

    side: str
    grey: Mask = field(repr=False)
    white: Mask = field(repr=False)
    warnings: tuple[str, ...] = ()


def load_segmentation_scheme(name_or_path: str) -> SegmentationScheme | None:
    """Load a scheme that is built in, by its name, or from a YAML file; None for ``auto``.

    The file holds ``name``, and of ``left``, ``right`` and ``both`` what there is, each with
    ``grey`` and ``white`` as lists of integers; ``midline`` (mm) where only ``both`` is.
    """
    if name_or_path == "auto":
        return None
    if name_or_path in BUILT_IN:
        return BUILT_IN[name_or_path]
    path = Path(name_or_path)
    if not path.is_file():
        raise InputError(
            f"label scheme {name_or_path!r} is neither a file nor one of auto, "
            f"{', '.join(BUILT_IN)}"
        )
    content = read_yaml(path, version="1.2")
    try:
        tissues = {
            key: Tissue(_integers(content[key]["grey"]), _integers(content[key]["white"]))
            for key in ("left", "right", "both")
            if key in content
        }
        midline = None if content.get("midline") is None else float(content["midline"])
        unknown = set(content) - {"name", "midline", "left", "right", "both"}
        if unknown or not tissues:
            raise ValueError(unknown)
        return SegmentationScheme(str(content.get("name", path.stem)), **tissues, midline=midline)
    except (ValueError, TypeError, KeyError, AttributeError):
        raise InputError(
            f"expected left and right, or both and a midline, each with lists grey and white: "
            f"{path}"
        ) from None


def hemispheres(
    volume: LabelVolume,
    scheme: SegmentationScheme | None = None,
    *,
    side: str = "",
    wanted: Iterable[str] = SIDES,
) -> list[SegmentedHemisphere]:
    """Grey and white matter of each hemisphere of a segmentation.

    Args:
        volume: RAS+ labels.
        scheme: what they mean; found by the labels if None.
        side: ``L`` or ``R`` if the whole volume is of one hemisphere.
        wanted: sides to return.

    Raises:
        InputError: unknown labels, no grey or white matter, slices too thick, a side missing, or
            nothing that tells the sides apart.
    """
    thickest = max(volume.voxel_size)
    if thickest > TOO_THICK:
        said = f" ({'; '.join(volume.warnings)})" if volume.warnings else ""
        raise InputError(
            f"slices of {thickest:g} mm are too thick to follow a sulcus, at most "
            f"{TOO_THICK:g} mm{said}: {volume.path}"
        )
    scheme = scheme or guess_scheme(volume)
    x = volume.affine[0, 0] * np.arange(volume.data.shape[0]) + volume.affine[0, 3]
    both = _masks(volume, scheme.both)
    sides = {"L": _masks(volume, scheme.left), "R": _masks(volume, scheme.right)}
    if side:
        for other in SIDES:
            sides[other] = sides[other] if other == side else None
        sides[side] = _union(sides[side], both)
    elif both is not None:
        middle = scheme.midline if scheme.midline is not None else _middle(sides, x)
        if middle is not None:
            for hemi, half in (("L", x < middle), ("R", x >= middle)):
                part = tuple(mask & half[:, None, None] for mask in both)
                sides[hemi] = _union(sides[hemi], (part[0], part[1]))
        elif not (scheme.left or scheme.right):
            raise InputError(
                f"labels of scheme {scheme.name!r} do not tell left from right; say where the "
                f"midline is ('midline: 0.0', world mm, in a YAML scheme): {volume.path}"
                if any(mask.any() for mask in both)
                else f"no label of scheme {scheme.name!r} is in it: {volume.path}"
            )
        else:  # one side alone: what has no side belongs to it
            present = [hemi for hemi, masks in sides.items() if masks and masks[1].any()]
            for hemi in present:
                sides[hemi] = _union(sides[hemi], both)
    if not side:
        _check_sides(sides, x, volume)
    chosen = [side] if side else [hemi for hemi in SIDES if hemi in wanted]
    return [_checked(hemi, sides[hemi], scheme, volume) for hemi in chosen]


def guess_scheme(volume: LabelVolume) -> SegmentationScheme:
    """Guess the scheme that the labels of a volume follow."""
    values = {int(v) for v in np.unique(volume.data)} - {0}
    if not values:
        raise InputError(f"holds no labels, all voxels are 0: {volume.path}")
    if values and values <= {100, 200}:
        return GREY_WHITE
    if values & PARCELS or values >= {3, 42}:
        return FREESURFER
    for tissue in (FREESURFER.left, FREESURFER.right):
        assert tissue is not None
        if values & set(tissue.grey) and values & set(tissue.white):
            return FREESURFER
    raise InputError(
        f"labels are of no known scheme ({_first_labels(volume)}); give --labels FILE.yaml: "
        f"{volume.path}"
    )


def _first_labels(volume: LabelVolume) -> str:
    values = [int(v) for v in np.unique(volume.data) if v]
    return ", ".join(str(v) for v in values[:10]) or "none"


def _masks(volume: LabelVolume, tissue: Tissue | None) -> tuple[Mask, Mask] | None:
    if tissue is None:
        return None
    return isin_labels(volume.data, tissue.grey), isin_labels(volume.data, tissue.white)


def isin_labels(data: NDArray[np.integer], values: tuple[int, ...]) -> Mask:
    """Mark where ``data`` is one of ``values``; by look-up if labels are small, as most are."""
    low, high = int(data.min()), int(data.max())
    if high - low > 2**20:
        return np.isin(data, values)
    table = np.zeros(high - low + 1, dtype=np.bool_)
    table[[v - low for v in values if low <= v <= high]] = True
    return table[data - low]


def _union(
    first: tuple[Mask, Mask] | None, second: tuple[Mask, Mask] | None
) -> tuple[Mask, Mask] | None:
    if first is None or second is None:
        return first or second
    return first[0] | second[0], first[1] | second[1]


Sides = Mapping[str, tuple[Mask, Mask] | None]


def _middle(sides: Sides, x: NDArray[np.float64]) -> float | None:
    """World x half-way between the centres of both hemispheres."""
    centres = _centres(sides, x)
    return sum(centres.values()) / 2 if len(centres) == len(SIDES) else None


def _check_sides(sides: Sides, x: NDArray[np.float64], volume: LabelVolume) -> None:
    """Refuse labels that contradict the world."""
    centres = _centres(sides, x)
    if len(centres) == len(SIDES) and centres["L"] > centres["R"]:
        raise InputError(
            f"left labels lie right of the right ones (x = {centres['L']:.0f} and "
            f"{centres['R']:.0f} mm): labels or affine swap the sides: {volume.path}"
        )


def _centres(sides: Sides, x: NDArray[np.float64]) -> dict[str, float]:
    """World x of the centre of white matter of each side that has some."""
    centres = {}
    for hemi, masks in sides.items():
        if masks is not None and masks[1].any():
            along = masks[1].sum(axis=(1, 2))
            centres[hemi] = float((along * x).sum() / along.sum())
    return centres


def _check_white(side: str, scheme: SegmentationScheme, volume: LabelVolume) -> None:
    """Refuse a hemisphere of which only what lies inside of the white matter is labelled."""
    tissue = scheme.left if side == "L" else scheme.right
    if tissue is None or not tissue.required or isin_labels(volume.data, tissue.required).any():
        return
    if not isin_labels(volume.data, tissue.grey + tissue.white).any():
        return  # nothing of this side; said by `_checked`
    raise InputError(
        f"no white matter of the {NAMES[side]} hemisphere: expected label {tissue.required[0]} "
        f"(or those of wmparc), got {_first_labels(volume)}: {volume.path}"
    )


def _checked(
    side: str, masks: tuple[Mask, Mask] | None, scheme: SegmentationScheme, volume: LabelVolume
) -> SegmentedHemisphere:
    _check_white(side, scheme, volume)
    name = NAMES[side]
    for tissue, mask in zip(("grey", "white"), masks or (), strict=False):
        if not mask.any():
            raise InputError(f"no {tissue} matter of the {name} hemisphere: {volume.path}")
    if masks is None:
        raise InputError(f"no labels of the {name} hemisphere: {volume.path}")
    grey, white = masks
    warnings = []
    thickest = max(volume.voxel_size)
    if thickest > THICK:
        warnings.append(f"slices of {thickest:g} mm: narrow sulci are lost")
    cm3 = np.count_nonzero(grey | white) * float(np.prod(volume.voxel_size)) / 1000
    if cm3 < SMALL_CM3:
        warnings.append(f"only {cm3:.0f} cm³ of brain")
    box = bounding_box(grey | white)
    assert box is not None
    touched = touched_sides(box, volume.data.shape)
    if touched:
        warnings.append(f"cut by the {', '.join(touched)} of its field of view")
    warnings += [
        f"its {where} is flat ({share:.0%} of it lie in one plane): cut?"
        for where, share in flat_sides(grey | white, side)
        if where not in touched
    ]
    return SegmentedHemisphere(side, grey, white, tuple(warnings))


def flat_sides(brain: Mask, side: str) -> list[tuple[str, float]]:
    """Sides where a plane along the axes of the volume has cut a hemisphere.

    Args:
        brain: (I, J, K) bool, RAS+.
        side: ``L`` or ``R``; towards the other one hemispheres are flat by nature.

    Returns:
        Each side, and the share of it that lies in one plane.
    """
    found = []
    medial = {"L": "right", "R": "left"}[side]
    for axis, names in enumerate(VIEWS):
        for name, seen in zip(names, (brain, np.flip(brain, axis)), strict=True):
            depth, is_there = seen.argmax(axis=axis), seen.any(axis=axis)
            share = float(np.bincount(depth[is_there]).max() / np.count_nonzero(is_there))
            if name != medial and share > FLAT:
                found.append((name, share))
    return found


def _integers(values: Any) -> tuple[int, ...]:
    if not isinstance(values, list) or not all(type(v) is int for v in values):
        raise ValueError(values)
    return tuple(values)
