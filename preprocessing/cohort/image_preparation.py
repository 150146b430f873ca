"""Preparation of images: all of one size, and which of their values become −1 and 1."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Self, cast

import numpy as np
from skimage.transform import resize

from foldnorm.preprocessing.cohort.cohort import Cohort
from foldnorm.preprocessing.cohort.images import ImageFile, Pixels, read_image
from foldnorm.preprocessing.cohort.layout import layout_in
from foldnorm.preprocessing.core.errors import InputError
from foldnorm.preprocessing.core.isolation import isolated

Rule = Literal["auto", "full", "percentiles", "window"]
RULES = ("auto", "full", "percentiles")
PERCENTILES = 0.5, 99.5  # of each image, under that rule
N_LOOKED_AT = 5  # images that settle what a preparation leaves open
SMALLEST, LARGEST = 8, 512  # side


@dataclass(frozen=True)
class ImagePreparation:
    """Options of preparing images, the same for every image of a cohort.

    Attributes:
        size: sides that images are brought to; one number stands for all; None: they are of one
            size already.
        rule: which values become −1 and 1: ``full``, the range of the file's 8 or 16 bits;
            ``percentiles``, `PERCENTILES` of each image; ``window``, ``low`` and ``high``;
            ``auto``, full for integers of 8 and 16 bits, else percentiles.
        low: of a window.
        high: of a window.
        bits: of the stored values; 0: by the first image.
    """

    size: tuple[int, ...] | None = None
    rule: Rule = "auto"
    low: float | None = None
    high: float | None = None
    bits: int = 0

    @classmethod
    def parse(cls, size: str, intensities: str) -> Self:
        """Read ``--shape`` and ``--intensities``.

        Raises:
            InputError: they are none.
        """
        sides = _numbers(size, int)
        if size != "native" and not (
            sides and len(sides) <= 3 and all(SMALLEST <= side <= LARGEST for side in sides)
        ):
            raise InputError(
                f"--shape: expected 1 to 3 sides of {SMALLEST} to {LARGEST}, or native, "
                f"got {size!r}"
            )
        if intensities in RULES:
            return cls(sides, cast(Rule, intensities))
        ends = _numbers(intensities, float)
        if ends is None or len(ends) != 2 or ends[0] >= ends[1]:
            raise InputError(
                "--intensities: expected auto, full, percentiles or LOW,HIGH with LOW < HIGH, got "
                f"{intensities!r}"
            )
        return cls(sides, "window", *ends)

    def as_dict(self) -> dict[str, Any]:
        """Return the settings that two cohorts must share to be comparable."""
        return {
            "size": None if self.size is None else list(self.size),
            "intensities": {
                "rule": self.rule,
                "low": self.low,
                "high": self.high,
                "bits": self.bits,
            },
            "colour": "luminance, ITU-R BT.601",
        }

    @classmethod
    def from_cohort(cls, folder: Path) -> Self:
        """Read the preparation of a cohort of images, or of an exported model of images.

        Raises:
            InputError: it is no cohort, or one of label volumes.
        """
        record = Cohort.describe(layout_in(folder))["Cohort"]["preparation"]
        if "intensities" not in record:
            raise InputError(f"expected a cohort of images, got one of label volumes: {folder}")
        return cls.from_record(record)

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Self:
        """Inverse of `as_dict`."""
        size = record["size"]
        return cls(None if size is None else tuple(size), **record["intensities"])


@dataclass(frozen=True)
class PreparedImage:
    """An image as it is packed.

    Attributes:
        pixels: grey values, uint8 or uint16.
        low: value of the file that became 0.
        high: value of the file that became the largest.
        warnings: what is unusual about the file, a line each.
    """

    pixels: Pixels
    low: float
    high: float
    warnings: tuple[str, ...] = ()


def completed(
    images: Sequence[ImageFile], asked: ImagePreparation
) -> tuple[ImagePreparation, tuple[int, ...] | None]:
    """Settle what a preparation leaves open by what most images are like.

    Looked at are `N_LOOKED_AT` images from the first to the last, and where none of these is
    readable, the first that is: one odd image must not decide what the others are left out for.

    Returns:
        The preparation, and the sides of its images; None if their size is given, or is that of a
        preparation that is complete.

    Raises:
        InputError: no image is readable.
    """
    if asked.bits:
        return asked, None
    places = np.linspace(0, len(images) - 1, min(N_LOOKED_AT, len(images))).astype(int)
    reasons: list[str] = []
    found = Counter[tuple[tuple[int, ...], np.dtype[Any]]]()
    for image in [*(images[place] for place in places), *images]:
        if found and found.total() + len(reasons) >= len(places):
            break
        outcome = isolated(read_image, image)
        if outcome.reason:
            reasons.append(outcome.reason)
        else:
            pixels = outcome.result[0]
            found[pixels.shape, pixels.dtype] += 1
    for (shape, dtype), _ in found.most_common(1):
        rule: Rule = asked.rule
        if rule == "auto":
            rule = "full" if dtype.kind == "u" else "percentiles"
        size = asked.size * len(shape) if asked.size and len(asked.size) == 1 else asked.size
        settled = replace(asked, rule=rule, size=size, bits=8 if dtype == np.uint8 else 16)
        return settled, shape if size is None else None
    raise InputError(f"none of {len(images)} images is readable, such as: {reasons[0]}")


def prepare_image(image: ImageFile, preparation: ImagePreparation) -> PreparedImage:
    """Read an image, bring it to the size, and to the stored values.

    Raises:
        InputError: it is not readable, or the rule does not suit it.
    """
    pixels, warnings = read_image(image)
    low, high = _range(pixels, preparation, image.path)
    if preparation.size is not None:
        pixels = resized_to(pixels, preparation.size, image.path)
    dtype = np.uint8 if preparation.bits == 8 else np.uint16
    highest = np.iinfo(dtype).max
    if (low, high) != (0, highest):
        share = (pixels.astype(np.float64) - low) / (high - low)
        pixels = np.rint(np.clip(share, 0, 1) * highest)
    return PreparedImage(np.ascontiguousarray(pixels, dtype=dtype), low, high, warnings)


def resized_to(pixels: Pixels, size: tuple[int, ...], path: Path) -> Pixels:
    """Resize an image without distortion: it is padded to the aspect with its lowest value first.

    Args:
        pixels: (I, J) or (I, J, K).
        size: sides.
        path: named in the error.

    Raises:
        InputError: it has another number of axes.
    """
    if pixels.ndim != len(size):
        raise InputError(f"expected {len(size)} axes, got {pixels.shape}: {path}")
    if pixels.shape == size:
        return pixels
    scale = max(has / wanted for has, wanted in zip(pixels.shape, size, strict=True))
    sides = [
        max(round(wanted * scale), has) for has, wanted in zip(pixels.shape, size, strict=True)
    ]
    missing = [side - has for side, has in zip(sides, pixels.shape, strict=True)]
    padded = np.pad(pixels, [(m // 2, m - m // 2) for m in missing], constant_values=pixels.min())
    resized = resize(padded, size, order=1, anti_aliasing=True, preserve_range=True)
    return np.rint(resized).astype(pixels.dtype) if pixels.dtype.kind == "u" else resized


def _numbers(text: str, kind: Callable[[str], Any]) -> tuple[Any, ...] | None:
    """Numbers separated by commas; None if it is anything else."""
    try:
        return tuple(kind(part) for part in text.split(","))
    except ValueError:
        return None


def _range(pixels: Pixels, preparation: ImagePreparation, path: Path) -> tuple[float, float]:
    """Values that become the lowest and the highest that are stored."""
    if preparation.rule == "window":
        assert preparation.low is not None
        assert preparation.high is not None
        return preparation.low, preparation.high
    if preparation.rule == "full":
        if pixels.dtype.itemsize * 8 != preparation.bits or pixels.dtype.kind != "u":
            raise InputError(
                f"expected values of {preparation.bits} bits as the others have, got "
                f"{pixels.dtype}; --intensities percentiles or LOW,HIGH take any: {path}"
            )
        return 0.0, float(np.iinfo(pixels.dtype).max)
    low, high = (float(value) for value in np.percentile(pixels, PERCENTILES))
    if low >= high:
        raise InputError(f"all values are {low:g}: {path}")
    return low, high
