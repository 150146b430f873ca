"""A picture is what a viewer shows: whatever way one picture is stored, it is read as that."""

import struct

import numpy as np
import pytest
import tifffile
from PIL import Image

from foldnorm.pipeline.cli import main
from foldnorm.preprocessing.cohort.cohort import Cohort
from foldnorm.preprocessing.core.errors import InputError
from foldnorm.preprocessing.core.files import read_json
from foldnorm.preprocessing.io.picture_files import (
    LUMINANCE,
    OF_TIME,
    ON_BLACK,
    read_picture,
    upright,
)

GREY = np.zeros((12, 16), np.uint8)
GREY[2:8, 3:6], GREY[9:, 10:] = 204, 102  # no symmetry: any turn would be seen
COLOUR = np.dstack([GREY, GREY[::-1], 255 - GREY])
SHOWN = np.rint(COLOUR @ np.array(LUMINANCE)).astype(np.uint8)
TABLE = np.zeros((3, 256), np.uint16)
TABLE[:, :3] = np.array([0, 102, 204]) * 257
INDEX = (GREY // 102).astype(np.uint8)
RED_HERRING = np.where(GREY == 0, 200, GREY).astype(np.uint8)  # beneath what is transparent
OPAQUE = np.where(GREY == 0, 0, 255).astype(np.uint8)


def tiff(pixels, **words):
    return lambda path: tifffile.imwrite(path, pixels, **words)


def by_pillow(picture, **words):
    return lambda path: picture.save(path, **words)


def oriented(number):
    """The rows and columns to be stored so that the picture is shown upright."""
    stored = np.arange(GREY.size).reshape(GREY.shape)
    back = np.empty(GREY.size, int)
    turned = upright(np.arange(GREY.size).reshape(GREY.shape if number < 5 else GREY.shape[::-1]),
                     number)  # fmt: skip
    back[turned.ravel()] = stored.ravel()
    return GREY.ravel()[back].reshape(GREY.shape if number < 5 else GREY.shape[::-1])


def with_exif(number):
    exif = Image.Exif()
    exif[274] = number
    return by_pillow(Image.fromarray(oriented(number)), exif=exif)


def tagged(number, **words):
    return tiff(oriented(number), extratags=[(274, "H", 1, number, True)], **words)


def palette(**words):
    picture = Image.fromarray(INDEX, "P")
    picture.putpalette([0, 0, 0, 102, 102, 102, 204, 204, 204])
    return by_pillow(picture, **words)


def cmyk(pixels):
    """No ink but black."""
    inks = np.zeros((*pixels.shape, 4), pixels.dtype)
    inks[..., 3] = np.iinfo(pixels.dtype).max - pixels
    return inks


LA = np.dstack([RED_HERRING, OPAQUE])
RGBA = np.dstack([RED_HERRING] * 3 + [OPAQUE])
SIXTEEN = GREY.astype(np.uint16) * 257
WRITTEN = {
    **{f"orientation {n}.tif": tagged(n) for n in range(1, 9)},
    **{f"orientation {n}, LZW.tif": by_pillow(Image.fromarray(oriented(n)), compression="tiff_lzw",
                                              tiffinfo={274: n}) for n in (3, 6)},
    **{f"orientation {n}.png": with_exif(n) for n in range(1, 9)},
    "orientation 9.tif": tiff(GREY, extratags=[(274, "H", 1, 9, True)]),
    "white is 0.tif": tiff(255 - GREY, photometric="miniswhite"),
    "white is 0, deflated.tif": tiff(255 - GREY, photometric="miniswhite", compression="zlib"),
    "white is 0, LZW.tif": by_pillow(Image.fromarray(GREY), compression="tiff_lzw",
                                     tiffinfo={262: 0}),
    "palette.tif": tiff(INDEX, photometric="palette", colormap=TABLE),
    "palette of 8 bits.tif": tiff(INDEX, photometric="palette", colormap=TABLE // 257),
    "palette by Pillow.tif": palette(),
    "palette, LZW.tif": palette(compression="tiff_lzw"),
    "palette.png": palette(),
    "palette.bmp": palette(),
    "transparent palette.png": palette(transparency=0),
    "CMYK.tif": tiff(cmyk(GREY), photometric="separated"),
    "CMYK by Pillow.tif": by_pillow(Image.fromarray(cmyk(GREY), "CMYK")),
    "CMYK, LZW.tif": by_pillow(Image.fromarray(cmyk(GREY), "CMYK"), compression="tiff_lzw"),
    "alpha.tif": tiff(RGBA, photometric="rgb", extrasamples=["unassalpha"]),
    "grey and alpha.tif": tiff(LA, photometric="minisblack", planarconfig="contig",
                               extrasamples=["unassalpha"]),
    "premultiplied.tif": tiff(np.dstack([GREY] * 3 + [OPAQUE]), photometric="rgb",
                              extrasamples=["assocalpha"]),
    "alpha.png": by_pillow(Image.fromarray(RGBA, "RGBA")),
    "grey and alpha.png": by_pillow(Image.fromarray(LA, "LA")),
    "transparent grey.png": by_pillow(Image.fromarray(RED_HERRING), transparency=200),
    "planes.tif": tiff(np.stack([GREY] * 3), photometric="rgb", planarconfig="separate"),
    "LZW.tif": by_pillow(Image.fromarray(GREY), compression="tiff_lzw"),
    "packbits.tif": by_pillow(Image.fromarray(GREY), compression="packbits"),
    "big endian.tif": tiff(GREY, byteorder=">"),
    "one page.tif": tiff(GREY[None]),
    "thumbnail.tif": lambda path: [
        tifffile.imwrite(path, GREY),
        tifffile.imwrite(path, GREY[::2, ::2], append=True, subfiletype=1),
    ],
}  # fmt: skip


@pytest.mark.parametrize("name", WRITTEN)
def test_one_picture_is_read_whatever_way_it_is_stored(tmp_path, name):
    path = tmp_path / name
    WRITTEN[name](path)
    pixels, warnings = read_picture(path)
    assert pixels.dtype == np.uint8
    assert np.array_equal(pixels, GREY)
    transparent = "transparent" in name or "alpha" in name or "premultiplied" in name
    assert warnings == ((ON_BLACK,) if transparent else ())


@pytest.mark.parametrize(
    ("name", "write", "expected"),
    [
        ("grey.tif", tiff(SIXTEEN), SIXTEEN),
        ("grey.png", by_pillow(Image.fromarray(SIXTEEN)), SIXTEEN),
        ("big endian.tif", tiff(SIXTEEN, byteorder=">"), SIXTEEN),
        ("white.tif", tiff(65535 - SIXTEEN, photometric="miniswhite"), SIXTEEN),
        ("lzw.tif", by_pillow(Image.fromarray(SIXTEEN), compression="tiff_lzw"), SIXTEEN),
        ("cmyk.tif", tiff(cmyk(SIXTEEN), photometric="separated"), SIXTEEN),
        ("rgb.tif", tiff(np.dstack([SIXTEEN] * 3), photometric="rgb"), SIXTEEN),
        ("signed.tif", tiff(SIXTEEN.astype(np.int32) - 9), SIXTEEN.astype(np.int32) - 9),
        ("float.tif", tiff(GREY.astype(np.float32) / 7), GREY.astype(np.float32) / 7),
        ("bits.tif", tiff(GREY > 0, photometric="minisblack"), GREY > 0),
        ("white bits.tif", tiff(GREY == 0, photometric="miniswhite"), GREY > 0),
        ("bits.png", by_pillow(Image.fromarray(GREY > 0)), GREY > 0),
        ("fax.tif", by_pillow(Image.fromarray(GREY > 0), compression="group4"), GREY > 0),
    ],
)
def test_other_depths_keep_their_values(tmp_path, name, write, expected):
    write(tmp_path / name)
    pixels, warnings = read_picture(tmp_path / name)
    assert np.array_equal(pixels, expected)
    assert pixels.dtype.kind == expected.dtype.kind
    assert warnings == ()


@pytest.mark.parametrize(
    ("name", "write", "off"),
    [
        ("colour.png", by_pillow(Image.fromarray(COLOUR)), 0),
        ("colour.bmp", by_pillow(Image.fromarray(COLOUR)), 0),
        ("colour.tif", tiff(COLOUR), 0),
        ("lzw.tif", by_pillow(Image.fromarray(COLOUR), compression="tiff_lzw"), 0),
        ("colour.jpg", by_pillow(Image.fromarray(COLOUR), quality=100, subsampling=0), 3),
        ("cmyk.jpg", by_pillow(Image.fromarray(COLOUR).convert("CMYK"), quality=100), 3),
        ("jpeg.tif", by_pillow(Image.fromarray(COLOUR), compression="jpeg", quality=100), 9),
        ("cmyk.tif", by_pillow(Image.fromarray(COLOUR).convert("CMYK")), 1),
        ("half.tif", tiff(np.dstack([COLOUR, GREY * 0 + 127]), photometric="rgb",
                          extrasamples=["unassalpha"]), None),
    ],
)  # fmt: skip
def test_colours_have_the_luminance_that_pillow_shows(tmp_path, name, write, off):
    write(tmp_path / name)
    pixels, _ = read_picture(tmp_path / name)
    if off is None:
        assert np.abs(pixels - SHOWN * (127 / 255)).max() <= 0.5
    else:
        assert np.abs(pixels.astype(int) - SHOWN).mean() <= off


def test_four_and_twelve_bits_are_the_whole_range(tmp_path):
    """A TIFF of 4 bits: white is 15 in it, 255 in what a viewer shows."""
    rows = np.array([[0, 15, 5, 10], [15, 0, 10, 5]], np.uint8)
    packed = (rows[:, ::2] << 4 | rows[:, 1::2]).tobytes()
    tags = [(256, 3, 4), (257, 3, 2), (258, 3, 4), (259, 3, 1), (262, 3, 1), (273, 4, 8),
            (277, 3, 1), (278, 3, 2), (279, 4, len(packed))]  # fmt: skip
    entries = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags)
    content = b"II*\0" + struct.pack("<I", 8 + len(packed)) + packed
    content += struct.pack("<H", len(tags)) + entries + bytes(4)
    (tmp_path / "a.tif").write_bytes(content)
    assert np.array_equal(read_picture(tmp_path / "a.tif")[0], rows * 17)


def test_pages_of_one_size_are_a_stack_and_others_are_said(tmp_path):
    stack = np.stack([GREY, GREY[::-1], GREY[:, ::-1]])
    tifffile.imwrite(tmp_path / "stack.tif", stack, photometric="minisblack")
    assert np.array_equal(read_picture(tmp_path / "stack.tif")[0], stack)
    pages = [Image.fromarray(page) for page in stack]
    pages[0].save(tmp_path / "lzw.tif", save_all=True, append_images=pages[1:],
                  compression="tiff_lzw")  # fmt: skip
    assert np.array_equal(read_picture(tmp_path / "lzw.tif")[0], stack)
    tifffile.imwrite(tmp_path / "unlike.tif", GREY)
    tifffile.imwrite(tmp_path / "unlike.tif", GREY[:5, :5], append=True)
    pages[0].save(tmp_path / "unlike, lzw.tif", save_all=True, compression="tiff_lzw",
                  append_images=[Image.fromarray(GREY[:5, :5].copy())])  # fmt: skip
    for name in ("unlike.tif", "unlike, lzw.tif"):
        pixels, warnings = read_picture(tmp_path / name)
        assert np.array_equal(pixels, GREY)
        assert warnings == ("1 of its pages, of another size than the first, left out",)


@pytest.mark.parametrize("n", [2, 3, 4])
def test_narrow_pages_are_no_colours(tmp_path, n):
    stack = np.arange(5 * 6 * n, dtype=np.uint16).reshape(5, 6, n)
    tifffile.imwrite(tmp_path / "a.tif", stack, photometric="minisblack")
    assert np.array_equal(read_picture(tmp_path / "a.tif")[0], stack)


def test_pages_of_different_times_are_said(tmp_path):
    for axes, said in (("ZYX", ()), ("TYX", (OF_TIME,))):
        path = tmp_path / f"{axes}.tif"
        tifffile.imwrite(path, np.stack([GREY] * 2), imagej=True, metadata={"axes": axes})
        pixels, warnings = read_picture(path)
        assert pixels.shape == (2, *GREY.shape)
        assert warnings == said


REFUSED = {
    "complex.tif": (tiff(GREY.astype(np.complex64)), "complex numbers"),
    "channels.tif": (tiff(np.stack([GREY] * 3), imagej=True, metadata={"axes": "CYX"}), "C 3"),
    "time.tif": (tiff(np.zeros((2, 3, 5, 5), np.uint8), imagej=True, metadata={"axes": "TZYX"}),
                 "at most one axis"),
    "samples.tif": (tiff(COLOUR, photometric="minisblack", planarconfig="contig"),
                    "got 3 samples a pixel"),
    "white floats.tif": (tiff(GREY.astype(np.float32), photometric="miniswhite"), "white is 0"),
    "raw.tif": (tiff(COLOUR, photometric="linear_raw"), "photometric 34892 are not known"),
    "inks.tif": (tiff(cmyk(GREY), photometric="separated", extratags=[(332, "H", 1, 2, True)]),
                 "inks CMYK"),
    "text.tif": (lambda path: path.write_bytes(b"hello" * 99), "not readable"),
    "text.png": (lambda path: path.write_bytes(b"hello" * 99), "not readable"),
    "empty.tif": (lambda path: path.write_bytes(b""), "not readable"),
    "empty.jpg": (lambda path: path.write_bytes(b""), "not readable"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_picture_in_grey_is_one_line(tmp_path, name):
    write, said = REFUSED[name]
    write(tmp_path / name)
    with pytest.raises(InputError, match=said) as caught:
        read_picture(tmp_path / name)
    assert str(tmp_path / name) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("words", [{}, {"compression": "zlib"}])
def test_lying_sizes_take_no_memory(tmp_path, words):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, GREY, **words)
    with tifffile.TiffFile(path, mode="r+") as file:
        for tag in (256, 257):
            file.pages[0].tags[tag].overwrite(2**31 - 1, dtype="I")
    with pytest.raises(InputError, match="truncated: at least"):
        read_picture(path)


@pytest.mark.parametrize("name", ["a.tif", "a, LZW.tif", "a.png", "a.jpg", "a.bmp"])
def test_truncated_pictures_are_said_to_be(tmp_path, name):
    noise = np.random.default_rng(0).integers(0, 256, (40, 40), dtype=np.uint8)
    words = {"compression": "tiff_lzw"} if "LZW" in name else {}
    Image.fromarray(noise).save(tmp_path / name, **words)
    content = (tmp_path / name).read_bytes()
    for keep in (10, 100, len(content) // 2, len(content) - 40):
        (tmp_path / name).write_bytes(content[:keep])
        with pytest.raises(InputError, match=r"not readable|truncated"):
            read_picture(tmp_path / name)


def test_damaged_exif_turns_nothing(tmp_path):
    Image.fromarray(GREY).save(tmp_path / "a.png", exif=b"Exif\0\0garbage" * 3)
    pixels, _ = read_picture(tmp_path / "a.png")
    assert np.array_equal(pixels, GREY)


def test_what_is_unusual_about_images_is_said_and_kept(tmp_path, capsys):
    source = tmp_path / "source"
    source.mkdir()
    Image.fromarray(GREY).save(source / "plain.png")
    Image.fromarray(RGBA, "RGBA").save(source / "alpha.png")
    out = tmp_path / "out"
    assert main(["images", str(source), "-o", str(out), "--quiet"]) == 0
    said = f"alpha.png: {ON_BLACK}"
    assert capsys.readouterr().err == f"foldnorm: warning: {said}\n"
    assert read_json(out / "run_report.json")["warnings"] == [said]
    first, second = Cohort.open(out).volumes
    assert np.array_equal(first, second)
