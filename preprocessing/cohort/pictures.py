"""Label volumes as pictures: slices side by side, one colour a class."""

import base64
import io
import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from foldnorm.preprocessing.cohort.cohort import Cohort
from foldnorm.preprocessing.io.schemes import LabelScheme
from foldnorm.preprocessing.spatial.crop import bounding_box

# Class colours on a light ground, dark for the class that matters; distinct for colour blindness.
PALETTE = np.array(
    [
        [255, 255, 255],
        [214, 221, 232],
        [24, 66, 122],
        [222, 119, 36],
        [36, 148, 116],
        [180, 52, 90],
    ],
    dtype=np.uint8,
)
GAP = 2  # pixels between slices
FULL_CHANGE = 64.0  # grey values of 255, from which on a change has its full colour


def class_colours(n_classes: int) -> NDArray[np.uint8]:
    """Colours of the classes, (n, 3); those beyond the palette share its last."""
    table = PALETTE[[0, 2]] if n_classes == 2 else PALETTE
    return table[np.minimum(np.arange(n_classes), len(table) - 1)]


def colour_slice(
    labels: NDArray[np.integer], n_classes: int, colours: NDArray[np.uint8] | None = None
) -> NDArray[np.uint8]:
    """Colour a slice of class numbers, (A, B) → (B, A, 3); the second axis points up."""
    table = class_colours(n_classes) if colours is None else colours
    return table[np.minimum(labels, len(table) - 1)].transpose(1, 0, 2)[::-1]


def middle_slices(
    volume: NDArray[np.integer], n_classes: int, colours: NDArray[np.uint8] | None = None
) -> list[NDArray[np.uint8]]:
    """Sagittal, coronal and axial slice through the middle of a volume.

    Args:
        volume: (I, J, K) class numbers.
        n_classes: of them.
        colours: (n, 3) of the classes; None: as everywhere.
    """
    i, j, k = (side // 2 for side in volume.shape)
    views = (volume[i], volume[:, j], volume[:, :, k])
    return [colour_slice(view, n_classes, colours) for view in views]


def volume_slices(cohort: Cohort, volume: NDArray[Any]) -> list[NDArray[np.uint8]]:
    """Middle slices of a volume of a cohort, as models see it: of classes, or of intensities."""
    if cohort.holds_images:
        return image_slices(volume)
    return middle_slices(volume, cohort.scheme.n_classes)


def grey_slices(
    field: NDArray[np.floating], at: tuple[int, int, int] | None = None
) -> list[NDArray[np.uint8]]:
    """Slices of a field as those of `middle_slices`: white at 0, black at its largest value.

    Args:
        field: (I, J, K), not negative.
        at: voxel through which the slices go; the middle if None.
    """
    i, j, k = at or tuple(side // 2 for side in field.shape)
    share = field / max(float(field.max()), 1e-12)
    return [
        np.repeat((255 * (1 - view.T[::-1, :, None])).round(), 3, axis=2).astype(np.uint8)
        for view in (share[i], share[:, j], share[:, :, k])
    ]


def image_slices(image: NDArray[np.floating]) -> list[NDArray[np.uint8]]:
    """Draw an image from −1 (black) to 1 (white); of a volume, the middle slice of each axis.

    Args:
        image: (I, J), rows and columns of a picture, or (I, J, K).
    """
    views = [image]
    if image.ndim == 3:
        i, j, k = (side // 2 for side in image.shape)
        views = [image[i], image[:, j], image[:, :, k]]
    grey = [np.rint((np.clip(view, -1, 1) + 1) * 127.5).astype(np.uint8) for view in views]
    return [np.repeat(view[..., None], 3, axis=2) for view in grey]


def changed_slices(
    before: NDArray[np.floating], after: NDArray[np.floating]
) -> list[NDArray[np.uint8]]:
    """Draw where ``after`` is darker (orange) and brighter (green), on ``before``, dimmed.

    Args:
        before: (I, J) or (I, J, K), from −1 to 1.
        after: likewise.
    """
    views = zip(image_slices(before), image_slices(after), strict=True)
    found = []
    for old, new in views:
        change = new[..., :1].astype(np.float32) - old[..., :1]
        strength = np.minimum(np.abs(change) / FULL_CHANGE, 1)
        colour = np.where(change < 0, PALETTE[3], PALETTE[4])
        found.append((strength * colour + (1 - strength) * old / 2).round().astype(np.uint8))
    return found


def contact_sheet(
    rows: Sequence[Sequence[NDArray[np.uint8]]], *, scale: int = 3
) -> NDArray[np.uint8]:
    """Lay pictures out in a grid; a row is as high, a column as wide, as its largest picture."""
    heights = [max(picture.shape[0] for picture in row) for row in rows]
    widths = [max(p.shape[1] for p in c if p is not None) for c in itertools.zip_longest(*rows)]
    tops = np.cumsum([0, *(height + GAP for height in heights)])
    lefts = np.cumsum([0, *(width + GAP for width in widths)])
    sheet = np.full((tops[-1], lefts[-1], 3), 246, dtype=np.uint8)
    for top, row in zip(tops, rows, strict=False):
        for left, picture in zip(lefts, row, strict=False):
            sheet[top : top + picture.shape[0], left : left + picture.shape[1]] = picture
    return sheet.repeat(scale, axis=0).repeat(scale, axis=1)


def montage(before: NDArray[np.uint8], after: NDArray[np.uint8], scheme: LabelScheme) -> bytes:
    """PNG of a volume before preparation and after it: three middle slices of what it holds, each.

    The second row is brought to the scale of the first.

    Args:
        before: (I, J, K) class numbers.
        after: (I, J, K) class numbers.
        scheme: of both.
    """
    rows = []
    for volume in (before, after):
        held = bounding_box(volume != scheme.fill)
        rows.append(
            middle_slices(volume if held is None else volume[held.slices], scheme.n_classes)
        )
    scale = rows[0][0].shape[0] / rows[1][0].shape[0]
    rows[1] = [_enlarged(picture, scale) for picture in rows[1]]
    return png(contact_sheet(rows, scale=1))


def _enlarged(picture: NDArray[np.uint8], scale: float) -> NDArray[np.uint8]:
    height, width = (max(round(side * scale), 1) for side in picture.shape[:2])
    resized = Image.fromarray(picture).resize((width, height), Image.Resampling.NEAREST)
    return np.asarray(resized, dtype=np.uint8)


def png(picture: NDArray[np.uint8]) -> bytes:
    """Encode an (H, W, 3) picture."""
    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, format="PNG")
    return stream.getvalue()


def grey_png(image: NDArray[np.unsignedinteger[Any]]) -> bytes:
    """Encode an (H, W) image of 8 or 16 bits."""
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, format="PNG")
    return stream.getvalue()


def inline_png(content: bytes) -> str:
    """Return an ``img`` source that needs no file."""
    return "data:image/png;base64," + base64.b64encode(content).decode()
