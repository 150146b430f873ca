"""Pictures as a viewer shows them, in grey: PNG, JPEG, BMP, and TIFF with stacks of pages.

Turned as their orientation tag says, black and white as their photometric interpretation says,
colours (palettes, CMYK) as their luminance, transparency on black. TIFF is decoded by tifffile, and
by Pillow where that lacks the compression.
"""

import logging
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image, ImageOps

from foldnorm.preprocessing.core.errors import InputError
from foldnorm.preprocessing.io.scan import STACKS

LUMINANCE = (0.299, 0.587, 0.114)  # of red, green, blue: ITU-R BT.601
# LZW, the furthest, writes a string of at most 3838 bytes as 12 bits.
MAX_EXPANSION = 4000
PHOTOMETRIC, ORIENTATION, INK_SET = 262, 274, 332  # TIFF tags
CMYK_INKS = 1
TURNED, MIRRORED, FLIPPED = (5, 6, 7, 8), (2, 3, 6, 7), (3, 4, 7, 8)  # orientations, see `upright`
WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE, SEPARATED = 0, 1, 2, 3, 5  # photometric
N_SAMPLES = {WHITE_IS_ZERO: 1, BLACK_IS_ZERO: 1, RGB: 3, PALETTE: 1, SEPARATED: 4}
PREMULTIPLIED, UNMULTIPLIED = 1, 2  # kinds of transparency among the extra samples
WHOLE_BITS = (8, 16, 32, 64)
OF_TIME = "its pages are of different times, as its tags say, and are taken as slices in space"
ON_BLACK = "its transparent parts are shown on black"
Pixels = NDArray[Any]
Warnings = tuple[str, ...]

# It tells of each odd tag on stderr; what matters is raised.
logging.getLogger("tifffile").addHandler(logging.NullHandler())


def read_picture(path: Path) -> tuple[Pixels, Warnings]:
    """Read a picture, (I, J), or a TIFF of several pages of one size, (page, I, J).

    Returns:
        Grey values as they are stored, boolean, integer or float, and what was left out of the
        file or changed.

    Raises:
        InputError: it is not readable, or no picture in grey can be made of it.
    """
    try:
        if path.suffix.lower() in STACKS:
            return _tiff(path)
        return _by_pillow(path)
    except InputError:
        raise
    except Exception as error:  # both libraries raise many kinds on foreign bytes
        raise _unreadable(error, path) from error


def upright(pixels: Pixels, orientation: int) -> Pixels:
    """Turn the last two axes, rows and columns as stored, to those that are shown.

    Args:
        pixels: (..., I, J).
        orientation: 1 to 8, as TIFF and EXIF number them; anything else stands for 1.

    Example:
        >>> upright(np.array([[1, 2], [3, 4]]), 6).tolist()  # turned clockwise
        [[3, 1], [4, 2]]
    """
    if orientation in TURNED:
        pixels = pixels.swapaxes(-2, -1)
    if orientation in MIRRORED:
        pixels = pixels[..., ::-1]
    return pixels[..., ::-1, :] if orientation in FLIPPED else pixels


def _unreadable(error: Exception, path: Path) -> InputError:
    reason = (str(error) or type(error).__name__).splitlines()[0]
    remedy = "; pip install imagecodecs" if "imagecodecs" in reason else ""
    return InputError(f"not readable as an image ({reason}{remedy}): {path}")


def _tiff(path: Path) -> tuple[Pixels, Warnings]:
    try:
        return _by_tifffile(path)
    except InputError:
        raise
    except Exception as error:  # a compression or colours that it lacks, or a damaged file
        try:
            return _by_pillow(path)
        except Exception:  # the first error says more
            raise _unreadable(error, path) from error


def _by_pillow(path: Path) -> tuple[Pixels, Warnings]:
    with Image.open(path) as picture:
        n_frames = getattr(picture, "n_frames", 1)
        if picture.format != "TIFF":
            pixels, warnings = _frame(picture)
            more = (f"the first of {n_frames} frames is read",) if n_frames > 1 else ()
            return pixels, (*warnings, *more)
        frames = []
        for number in range(n_frames):
            picture.seek(number)
            frames.append(_frame(picture))
    whole = [pixels for pixels, _ in frames if pixels.shape == frames[0][0].shape]
    left_out = _pages_left_out(n_frames - len(whole))
    pixels = whole[0] if len(whole) == 1 else np.stack(whole)
    return pixels, tuple(dict.fromkeys([w for _, said in frames for w in said] + left_out))


def _frame(picture: Image.Image) -> tuple[Pixels, Warnings]:
    """Grey values of one frame, (I, J), by Pillow."""
    is_inverted = picture.mode.startswith("I;16") and _photometric(picture) == WHITE_IS_ZERO
    picture.load()  # what is damaged in the pixels is an error, in EXIF it is not
    damaged: Warnings = ()
    try:
        picture = ImageOps.exif_transpose(picture)
    except Exception:  # Pillow raises many kinds on foreign bytes
        damaged = ("its EXIF is damaged, so it is taken as upright",)
    if picture.has_transparency_data:
        picture = picture.convert("LA" if picture.mode in ("1", "L", "LA") else "RGBA")
    elif picture.mode in ("P", "CMYK", "YCbCr", "LAB", "HSV", "RGBX"):
        picture = picture.convert("RGB")
    pixels = np.asarray(picture)
    if pixels.ndim == 2:
        return (np.iinfo(np.uint16).max - pixels if is_inverted else pixels), damaged
    if picture.mode in ("LA", "RGBA"):
        colours, alpha = luminance(pixels[..., :-1]), pixels[..., -1]
        grey, warnings = _on_black(colours, alpha, is_multiplied=False)
        return grey, (*damaged, *warnings)
    return luminance(pixels), damaged


def _photometric(picture: Image.Image) -> int | None:
    tags = getattr(picture, "tag_v2", None)
    return None if tags is None else tags.get(PHOTOMETRIC)


def _by_tifffile(path: Path) -> tuple[Pixels, Warnings]:
    with tifffile.TiffFile(path) as file:  # tags are read when they are asked for
        series, others = file.series[0], file.series[1:]
        page = series.keyframe
        _check_size(file, series, path)
        samples = _in_order(series.asarray(), series.axes, path)
        if samples.dtype.kind == "c":
            raise InputError(f"expected grey or colours, got complex numbers: {path}")
        is_film = dict(zip(series.axes, series.shape, strict=True)).get("T", 1) > 1
        grey, warnings = _grey(samples, page, path)
        tag = page.tags.get(ORIENTATION)
        orientation = int(tag.value) if tag is not None else 1
        unlike = sum(len(s.pages) for s in others if not s.keyframe.is_reduced)
    shown = upright(grey[0] if len(grey) == 1 else grey, orientation)
    return shown, (*warnings, *[OF_TIME] * is_film, *_pages_left_out(unlike))


def _pages_left_out(number: int) -> list[str]:
    if not number:
        return []
    return [f"{number} of its pages, of another size than the first, left out"]


def _check_size(file: tifffile.TiffFile, series: tifffile.TiffPageSeries, path: Path) -> None:
    """Refuse a file that is smaller than its tags account for, before memory is taken.

    Raises:
        InputError: it is.
    """
    page, available = series.keyframe, file.filehandle.size
    end = max((a + n for a, n in zip(page.dataoffsets, page.databytecounts, strict=False)),
              default=0)  # fmt: skip
    expected = prod(series.shape) * page.bitspersample // 8
    if page.compression != 1:
        expected //= MAX_EXPANSION
    if max(end, expected) > available:
        raise InputError(
            f"truncated: at least {max(end, expected)} bytes expected, got {available}: {path}"
        )


def _in_order(samples: Pixels, axes: str, path: Path) -> Pixels:
    """Bring the axes of a TIFF to (page, row, column, sample)."""
    if "S" not in axes:
        samples, axes = samples[..., None], f"{axes}S"
    further = [n for n, axis in enumerate(axes) if axis not in "YXS"]
    long = [n for n in further if samples.shape[n] > 1]
    if len(long) > 1 or any(axes[n] == "C" for n in long):
        sides = ", ".join(f"{axis} {n}" for axis, n in zip(axes, samples.shape, strict=True))
        raise InputError(
            f"expected rows, columns and at most one axis of pages in space, got {sides} (C: "
            f"channels, T: time); split it into files: {path}"
        )
    order = [*further, *(axes.index(axis) for axis in "YXS")]
    samples = samples.transpose(order)
    return samples.reshape(-1, *samples.shape[-3:])


def _grey(samples: Pixels, page: tifffile.TiffPage, path: Path) -> tuple[Pixels, Warnings]:
    """Grey values, (page, row, column), of samples as a TIFF stores them.

    Raises:
        InputError: its samples are no colours that a viewer shows.
        ValueError: they are colours that Pillow may know.
    """
    kind, extra = int(page.photometric), [int(e) for e in page.extrasamples]
    if kind not in N_SAMPLES:
        raise ValueError(f"colours of TIFF photometric {kind} are not known")
    n_colours = N_SAMPLES[kind]
    n_more = samples.shape[-1] - n_colours
    if n_more < 0 or (n_more > 1 and PREMULTIPLIED not in extra and UNMULTIPLIED not in extra):
        raise InputError(
            f"expected grey or colours, got {samples.shape[-1]} samples a pixel: {path}"
        )
    colours = samples[..., :n_colours]
    if kind == PALETTE:
        colours = _palette_colours(colours[..., 0], page)
    elif kind == SEPARATED:
        colours = _from_cmyk(colours, page, path)
    elif page.bitspersample not in WHOLE_BITS and samples.dtype != np.bool_:
        colours = _stretched(colours, page.bitspersample)
    grey = luminance(colours)
    if kind == WHITE_IS_ZERO:
        grey = _inverted(grey, path)
    transparent = [n for n, e in enumerate(extra) if e in (PREMULTIPLIED, UNMULTIPLIED)]
    if not transparent:
        said = f"{n_more} of its samples a pixel, no colour, left out"
        return grey, (said,) if n_more else ()
    alpha = samples[..., n_colours + transparent[0]]
    return _on_black(grey, alpha, is_multiplied=extra[transparent[0]] == PREMULTIPLIED)


def luminance(colours: Pixels) -> Pixels:
    """Luminance of colours, (..., 3), or the one grey value there is, (..., 1); the same dtype."""
    if colours.shape[-1] == 1:
        return colours[..., 0]
    grey = colours @ np.array(LUMINANCE)
    return np.rint(grey).astype(colours.dtype) if colours.dtype.kind in "ui" else grey


def _palette_colours(index: Pixels, page: tifffile.TiffPage) -> Pixels:
    table = np.asarray(page.colormap)
    if table.max() > np.iinfo(np.uint8).max:  # some writers keep 8 bits where 16 belong
        table = table // 256
    return np.moveaxis(table.astype(np.uint8)[:, index], 0, -1)


def _from_cmyk(colours: Pixels, page: tifffile.TiffPage, path: Path) -> Pixels:
    """Red, green and blue of cyan, magenta, yellow and black, as Pillow has them."""
    inks = page.tags.get(INK_SET)
    if colours.dtype.kind != "u" or (inks is not None and int(inks.value) != CMYK_INKS):
        raise InputError(f"expected the inks CMYK, got others, {colours.dtype}: {path}")
    highest = np.iinfo(colours.dtype).max
    light = highest - colours.astype(np.float64)
    return np.rint(light[..., :3] * light[..., 3:] / highest).astype(colours.dtype)


def _stretched(values: Pixels, bits: int) -> Pixels:
    """Bring values of, say, 4 or 12 bits to the whole range of the type that holds them."""
    highest = np.iinfo(values.dtype).max
    return np.rint(values * (highest / (2**bits - 1))).astype(values.dtype)


def _inverted(grey: Pixels, path: Path) -> Pixels:
    if grey.dtype == np.bool_:
        return ~grey
    if grey.dtype.kind != "u":
        raise InputError(f"white is 0 in it, so expected unsigned values, got {grey.dtype}: {path}")
    return np.iinfo(grey.dtype).max - grey


def _on_black(grey: Pixels, alpha: Pixels, *, is_multiplied: bool) -> tuple[Pixels, Warnings]:
    """Show what is transparent on black."""
    opaque = np.iinfo(alpha.dtype).max if alpha.dtype.kind == "u" else 1
    if (alpha >= opaque).all():
        return grey, ()
    if is_multiplied:
        return grey, (ON_BLACK,)
    shown = grey * (alpha / opaque)
    return (np.rint(shown).astype(grey.dtype) if grey.dtype.kind == "u" else shown), (ON_BLACK,)
