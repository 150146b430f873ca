"""Images as they come: files and idx archives in, one grey array each out; and files again.

PNG, JPEG, BMP and TIFF of 8 or 16 bit, grey or colour; TIFF stacks and intensity NIfTI, in 3-D;
idx archives (the format of MNIST, LeCun et al. 1998), gzipped or not.
"""

import gzip
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from math import prod
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import tifffile
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import SpatialImage
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from foldnorm.preprocessing.cohort.pictures import grey_png
from foldnorm.preprocessing.core.errors import InputError
from foldnorm.preprocessing.core.files import atomic_path, read_tsv, write_bytes
from foldnorm.preprocessing.io.names import bids_label
from foldnorm.preprocessing.io.people import (
    PARTICIPANTS,
    differing_slightly,
    participant_ids,
    require_columns,
)
from foldnorm.preprocessing.io.scan import (
    NIFTI,
    STACKS,
    Scan,
    Unused,
    fault_of,
    is_idx,
    is_image,
    not_used,
    scan,
    unused_line,
)
from foldnorm.preprocessing.io.sources import Findings, Problem

IDX_LABELS = "labels"
IDX_TYPES = {8: "u1", 9: "i1", 11: ">i2", 12: ">i4", 13: ">f4", 14: ">f8"}
LUMINANCE = (0.299, 0.587, 0.114)  # of red, green, blue: ITU-R BT.601
CLASS = "class"  # column of `participants.tsv`: the folder or label of an image
Pixels = NDArray[Any]


@dataclass(frozen=True)
class ImageFile:
    """One image to prepare.

    Attributes:
        participant: whose it is, letters and digits; splits never separate what is one's.
        image: which of theirs, letters and digits.
        path: the file.
        index: of the image in an idx archive; None for other files.
        known: what is known of it, such as its `CLASS`.
    """

    participant: str
    image: str
    path: Path
    index: int | None = None
    known: Mapping[str, str] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """Name of the image in a cohort."""
        return f"sub-{self.participant}_image-{self.image}"


def find_images(
    source: Path, *, table: Path | None = None, classes: Sequence[str] = ()
) -> Findings[ImageFile]:
    """List the images of a folder, in subfolders by class if there are any, or of an idx archive.

    Args:
        source: folder, or one file.
        table: says whose images are, by ``file`` (path from ``source``) and ``participant_id``, and
            anything else of them; None: ``participants.tsv`` of the folder, if it has ``file``.
            Without a table every image is a participant of its own.
        classes: keep only these.

    Raises:
        InputError: there are none, or no image of a class that was asked for.
    """
    if not source.exists():
        raise InputError(f"no such file or folder: {source}")
    scanned = scan(source) if source.is_dir() else Scan([source])
    every, others = _files(scanned, source)
    every, problems = _without_faults(every)
    rows, warnings = _table(source, table)
    found = every
    if rows is None:
        warnings += _shared_prefix(found)
    else:
        found, unclear = _by_table(found, rows, source)
        problems += unclear
    known = {image.known.get(CLASS, "") for image in found}
    for name in classes:
        if name not in known:
            shown = ", ".join(sorted(known - {""})) or "none"
            raise InputError(f"no image of class {name!r}; there are {shown}: {source}")
    found = [image for image in found if not classes or image.known.get(CLASS) in classes]
    used = {image.path for image in every} | {source / PARTICIPANTS}
    used |= {_labels_of(image.path) for image in every if image.index is not None}
    unused = not_used(scanned, used, [*others, *_further_pages(found)], images=True)
    if not found:
        line = unused_line(unused, str(source)) or f"nothing else: {source}"
        failed = f"; {problems[0].key}: {problems[0].reason}" if problems else ""
        raise InputError(f"no image found (PNG, JPEG, BMP, TIFF, NIfTI, idx){failed}; {line}")
    counts = Counter(image.key for image in found)
    problems += [
        Problem(key, f"{count} images of one name; a table with participant_id tells them apart")
        for key, count in counts.items()
        if count > 1
    ]
    single = sorted((i for i in found if counts[i.key] == 1), key=lambda i: i.key)
    return Findings(single, problems, unused, warnings, str(source))


def read_image(image: ImageFile) -> Pixels:
    """Grey values of an image, 2-D or 3-D, uint8, uint16 or float32.

    Colour becomes luminance (ITU-R BT.601), and transparency is left out. NIfTI axes come in the
    order right, anterior, superior.

    Raises:
        InputError: it is not readable, or has other dimensions.
    """
    path = image.path
    try:
        if image.index is not None:
            pixels = read_idx(path)[image.index]
        elif _suffix(path) in NIFTI:
            pixels = _nifti(path)
        elif _suffix(path) in STACKS:
            pixels = tifffile.imread(path)
        else:
            pixels = _picture(path)
    except InputError:
        raise
    except (OSError, ValueError, SyntaxError, EOFError, ImageFileError, UnidentifiedImageError,
            tifffile.TiffFileError, Image.DecompressionBombError) as error:  # fmt: skip
        reason = str(error).split("\n")[0]
        raise InputError(f"not readable as an image ({reason}): {path}") from error
    pixels = _grey(pixels)
    if pixels.ndim not in (2, 3) or not pixels.size:
        raise InputError(f"expected an image of 2 or 3 axes, got shape {pixels.shape}: {path}")
    if pixels.dtype == np.bool_:
        return pixels.astype(np.uint8) * 255
    if pixels.dtype in (np.uint8, np.uint16):
        return pixels.astype(pixels.dtype.newbyteorder("="))
    values = pixels.astype(np.float32)
    if not np.isfinite(values).all():
        bad = int((~np.isfinite(values)).sum())
        raise InputError(f"{bad} values are not finite: {path}")
    return values


@lru_cache(maxsize=4)
def read_idx(path: Path) -> Pixels:
    """Read an idx archive as an array.

    Raises:
        InputError: it is none, or is cut off.
    """
    try:
        content = path.read_bytes()
        content = gzip.decompress(content) if path.suffix == ".gz" else content
    except (OSError, EOFError) as error:
        raise InputError(f"not readable ({error}): {path}") from error
    if len(content) < 4 or content[:2] != b"\0\0" or content[2] not in IDX_TYPES:
        raise InputError(f"not an idx archive: {path}")
    dtype, first = np.dtype(IDX_TYPES[content[2]]), 4 + 4 * content[3]
    shape = tuple(int(side) for side in np.frombuffer(content[4:first], ">u4"))
    if len(content) - first != prod(shape) * dtype.itemsize:
        raise InputError(
            f"expected {prod(shape) * dtype.itemsize} bytes of {shape} values, got "
            f"{len(content) - first}: {path}"
        )
    return np.frombuffer(content[first:], dtype).reshape(shape)


def write_image(stem: Path, image: NDArray[np.floating], bits: int) -> None:
    """Write an image from −1 to 1: PNG of so many bits in 2-D, NIfTI float32 in 3-D.

    Args:
        stem: of the file, without a suffix.
        image: (I, J) or (I, J, K).
        bits: 8 or 16.
    """
    if image.ndim == 2:
        highest = 2**bits - 1
        grey = np.rint((np.clip(image, -1, 1) + 1) / 2 * highest)
        dtype = np.uint8 if bits == 8 else np.uint16
        write_bytes(stem.with_name(f"{stem.name}.png"), grey_png(grey.astype(dtype)))
        return
    with atomic_path(stem.with_name(f"{stem.name}.nii.gz")) as temporary:
        whole = nibabel.Nifti1Image(image.astype(np.float32), np.eye(4))
        temporary.write_bytes(whole.to_bytes())


def _files(scanned: Scan, source: Path) -> tuple[list[ImageFile], list[Unused]]:
    """List the images, and files that would be some if there were no idx archive."""
    if source.is_file() and not is_idx(source):
        return [_image_from_file(source, source.parent)], []
    archives = [path for path in scanned.files if is_idx(path)]
    paths = [
        path
        for path in scanned.files
        if path not in archives and (is_image(path) or _suffix(path) in NIFTI)
    ]
    if archives:
        beside = [Unused(path, "beside an idx archive, which is read") for path in paths]
        return [image for path in archives for image in _images_from_idx(path)], beside
    return [_image_from_file(path, source) for path in paths], []


def _without_faults(images: Sequence[ImageFile]) -> tuple[list[ImageFile], list[Problem]]:
    """Keep the images whose files are there."""
    faults = {path: fault_of(path) for path in {image.path for image in images}}
    problems = [Problem(str(path), fault) for path, fault in sorted(faults.items()) if fault]
    return [image for image in images if not faults[image.path]], problems


def _further_pages(images: Sequence[ImageFile]) -> list[Unused]:
    """Pages of TIFF files that are of another shape than the first, and are not read."""
    unused = []
    for path in (image.path for image in images if _suffix(image.path) in STACKS):
        try:
            with tifffile.TiffFile(path) as file:
                number = sum(len(series.pages) for series in file.series[1:])
        except (OSError, ValueError, tifffile.TiffFileError):
            continue  # said when it is read
        if number:
            part = path.with_name(f"{path.name}#page-{number}")
            unused.append(Unused(part, "page of a TIFF, of another shape than the first"))
    return unused


def _shared_prefix(images: Sequence[ImageFile]) -> list[str]:
    """Warn if names say that several images are one participant's, and no table does."""
    named = [i.path.name for i in images if i.path.name.startswith("sub-") and "_" in i.path.name]
    shared = len(named) - len({name.partition("_")[0] for name in named})
    if not shared:
        return []
    return [
        f"{len(named)} file names begin with sub-, some alike ({named[0]}); without a table of "
        "file and participant_id each image is a participant of its own, and splits part them"
    ]


def _image_from_file(path: Path, source: Path) -> ImageFile:
    """Return the image of a file; its class is the folder of ``source`` that holds it, if any."""
    within = path.relative_to(source)
    known = {"file": within.as_posix()}
    if len(within.parts) > 1:
        known[CLASS] = within.parts[0]
    name = within.as_posix().removesuffix(_suffix(path))
    return ImageFile(bids_label(name), "0", path, known=known)


def _images_from_idx(path: Path) -> list[ImageFile]:
    """Images of an archive, with the labels that lie beside it."""
    images = read_idx(path)
    label_path = _labels_of(path)
    labels = read_idx(label_path) if label_path.is_file() else None
    if labels is not None and labels.shape != images.shape[:1]:
        raise InputError(f"{len(images)} images and labels of {labels.shape}: {label_path}")
    prefix = bids_label(path.name.split("images")[0])
    width = len(str(len(images)))
    return [
        ImageFile(
            f"{prefix}{n:0{width}d}",
            "0",
            path,
            n,
            {"file": f"{path.name}#{n}"} | ({} if labels is None else {CLASS: str(labels[n])}),
        )
        for n in range(len(images))
    ]


def _labels_of(path: Path) -> Path:
    """Archive of the labels of an idx archive of images."""
    return path.with_name(path.name.replace("images", IDX_LABELS).replace("idx3", "idx1"))


def _table(source: Path, table: Path | None) -> tuple[list[dict[str, str]] | None, list[str]]:
    """Rows that say whose images are, None if nothing does; and warnings."""
    path = table or source / PARTICIPANTS
    if table is None and not path.is_file():
        return None, []
    rows = read_tsv(path)
    if table is None and not (rows and "file" in rows[0]):
        return None, [f"no column file: it does not say whose images are, and is not used: {path}"]
    require_columns(rows, ("file", "participant_id"), path)
    ids, warnings = participant_ids(rows, path)
    named = [{**row, "participant_id": name} for row, name in zip(rows, ids, strict=True)]
    return named, warnings


def _by_table(
    found: Sequence[ImageFile], rows: Sequence[Mapping[str, str]], source: Path
) -> tuple[list[ImageFile], list[Problem]]:
    """Images under the participants of a table, numbered within each."""
    by_file = {image.known["file"]: image for image in found}
    of_file: dict[str, Mapping[str, str]] = {}
    contradicted = set()
    for row in rows:
        name = Path(row["file"]).as_posix()
        if of_file.setdefault(name, {**row, "file": name}) != {**row, "file": name}:
            contradicted.add(name)
    images, problems, numbers = [], [], Counter[str]()
    for name, row in of_file.items():
        participant = bids_label(row["participant_id"])
        image = by_file.pop(name, None)
        if name in contradicted:
            problems.append(Problem(name, "rows of the table contradict each other"))
            continue
        if image is None:
            alike = differing_slightly([name], set(by_file))
            reason = "; ".join([f"the table names it, but it is not in {source}", *alike])
            problems.append(Problem(row["file"], reason))
            continue
        if not participant:
            problems.append(Problem(row["file"], "an id needs a letter or a digit"))
            continue
        known = {**image.known, **{k: v for k, v in row.items() if k != "participant_id" and v}}
        number = f"{numbers[participant]:04d}"
        numbers[participant] += 1
        images.append(ImageFile(participant, number, image.path, image.index, known))
    problems += [
        Problem(name, "the table does not say whose it is; it was left out") for name in by_file
    ]
    return images, problems


def _suffix(path: Path) -> str:
    name = path.name.lower()
    return ".nii.gz" if name.endswith(".nii.gz") else path.suffix.lower()


def _picture(path: Path) -> Pixels:
    with Image.open(path) as picture:
        if picture.mode in ("P", "PA", "CMYK", "YCbCr", "LAB", "HSV"):
            return np.asarray(picture.convert("RGB"))
        return np.asarray(picture)


def _nifti(path: Path) -> Pixels:
    loaded = nibabel.load(path)
    if not isinstance(loaded, SpatialImage):
        raise ValueError(f"{type(loaded).__name__} holds no volume")
    volume = nibabel.as_closest_canonical(loaded)
    return np.asanyarray(volume.dataobj).squeeze()


def _grey(pixels: Pixels) -> Pixels:
    """Luminance, where the last axis is of colours."""
    if pixels.ndim != 3 or pixels.shape[2] not in (2, 3, 4):
        return pixels
    if pixels.shape[2] == 2:  # grey and transparency
        return pixels[..., 0]
    grey = pixels[..., :3] @ np.array(LUMINANCE)
    return np.rint(grey).astype(pixels.dtype) if pixels.dtype.kind in "ui" else grey
