"""A shaded picture of a surface, for animations that need no browser."""

import io
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import affine_transform, gaussian_filter

AZIMUTH, ELEVATION = 60.0, 20.0  # degrees: from the medial side of a left hemisphere, and above
LIGHT = np.array([-0.4, 0.5, 0.77])  # from the upper left, in front
INK, PAPER = np.array([47.0, 109, 181]), np.array([255.0, 255, 255])
SMOOTHING = 0.7  # voxels, of the normals


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
    a, e = np.radians([azimuth, elevation])
    towards = np.array([np.cos(e) * np.cos(a), np.cos(e) * np.sin(a), np.sin(e)])
    right = np.array([-np.sin(a), np.cos(a), 0.0])
    up = np.cross(towards, right)
    # Rays: axis 0 to the right of the picture, axis 1 up, axis 2 away from the eye.
    axes = np.stack([right, up, -towards], axis=1)
    size = float(np.linalg.norm(field.shape)) / pixels
    depth = int(np.ceil(np.linalg.norm(field.shape)))
    scale = np.array([size, size, 1.0])
    middle = (np.array([pixels, pixels, depth]) - 1) / 2
    offset = (np.array(field.shape) - 1) / 2 - axes @ (scale * middle)
    shape = (pixels, pixels, depth)
    seen = affine_transform(
        field.astype(np.float32), axes * scale, offset, output_shape=shape, order=1
    )
    solid = seen > level
    first = solid.argmax(axis=2)
    hit = solid.any(axis=2)
    smooth = gaussian_filter(seen, (SMOOTHING / size, SMOOTHING / size, SMOOTHING))
    i, j = np.indices(first.shape)
    # Out of the surface is where the field falls.
    normal = -np.stack([np.gradient(smooth, axis=n)[i, j, first] for n in range(3)], axis=-1)
    normal *= [1 / size, 1 / size, -1]  # the third towards the eye
    normal /= np.maximum(np.linalg.norm(normal, axis=-1, keepdims=True), 1e-9)
    light = 0.35 + 0.65 * np.clip(normal @ (LIGHT / np.linalg.norm(LIGHT)), 0, 1)
    near = 1 - 0.5 * first / depth  # what lies far back is paler
    colour = PAPER + (INK * light[..., None] - PAPER) * near[..., None]
    colour[~hit] = PAPER
    return colour.transpose(1, 0, 2)[::-1].round().astype(np.uint8)


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
