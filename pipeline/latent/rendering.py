"""A shaded picture of a surface, for animations that need no browser."""

import io
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from foldnorm.preprocessing.cohort.surface import Eye, Surface

AZIMUTH, ELEVATION = 60.0, 20.0  # degrees: from the medial side of a left hemisphere, and above
INK, PAPER = np.array([47.0, 109, 181]), np.array([255.0, 255, 255])


def shaded_surface(
    field: NDArray[np.floating],
    *,
    level: float = 0.5,
    pixels: int = 240,
    azimuth: float = AZIMUTH,
    elevation: float = ELEVATION,
) -> NDArray[np.uint8]:
    """Draw the surface where a field falls below a level, in parallel projection.

    Args:
        field: (I, J, K), RAS+, such as the probability of a class; isotropic voxels.
        level: of the surface.
        pixels: side of the picture.
        azimuth: degrees from which it is seen, around the superior axis, 0 from the right, 90 from
            the front.
        elevation: degrees above the horizontal.

    Returns:
        (pixels, pixels, 3) colours, superior up; white where there is nothing.
    """
    size = np.array(field.shape, dtype=np.float64)
    diagonal = float(np.linalg.norm(size))
    eye = Eye.from_angles(azimuth, elevation, size.tolist(), diagonal / pixels, is_square=True)
    seen = Surface(field, (1, 1, 1), level).seen_by(eye)
    near = 1 - 0.5 * seen.depth[seen.hit] / diagonal  # what lies far back is paler
    picture = np.full((pixels, pixels, 3), PAPER)
    picture[seen.hit] = PAPER + (INK * seen.light[:, None] - PAPER) * near[:, None]
    return picture.round().clip(0, 255).astype(np.uint8)


def animation(frames: Sequence[NDArray[np.uint8]], *, milliseconds: int = 250) -> bytes:
    """Return a GIF of (H, W, 3) pictures that goes there and back for ever."""
    pictures = [Image.fromarray(frame).quantize(64) for frame in (*frames, *frames[-2:0:-1])]
    stream = io.BytesIO()
    pictures[0].save(
        stream,
        format="GIF",
        save_all=True,
        append_images=pictures[1:],
        duration=milliseconds,
        loop=0,
    )
    return stream.getvalue()
