"""Images as they come: files and idx archives in, one grey array each out; and files again.

PNG, JPEG, BMP and TIFF of 8 or 16 bit, grey or colour; TIFF stacks and intensity NIfTI, in 3-D;
idx archives (the format of MNIST, LeCun et al. 1998), gzipped or not.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foldnorm.preprocessing.cohort.pictures import grey_png
from foldnorm.preprocessing.core.choices import Orientation
from foldnorm.preprocessing.core.counts import counted
from foldnorm.preprocessing.core.errors import InputError
from foldnorm.preprocessing.core.files import read_tsv, refuse_missing, write_bytes
from foldnorm.preprocessing.core.problems import Problem
from foldnorm.preprocessing.io.file_pairs import pair_fault
from foldnorm.preprocessing.io.gzipped import expand, head_of
from foldnorm.preprocessing.io.names import bids_label, files_of_one_person
from foldnorm.preprocessing.io.people import (
    DECIDED,
    FAMILY,
    OF_VOLUMES,
    columns_passed_over,
    differing_slightly,
    participant_ids,
    perhaps_one_person,
    refuse_pointer,
    require_columns,
    with_known_values,
)
from foldnorm.preprocessing.io.picture_files import read_picture
from foldnorm.preprocessing.io.scan import (
    NIFTI,
    PARTICIPANTS,
    Scan,
    Unused,
    fault_of,
    is_idx,
    is_image,
    not_used,
    scan,
    unused_line,
)
from foldnorm.preprocessing.io.sources import Findings
from foldnorm.preprocessing.io.volumes import nifti_bytes, read_intensities

IDX_LABELS = "labels"
IDX_TYPES = {8: "u1", 9: "i1", 11: ">i2", 12: ">i4", 13: ">f4", 14: ">f8"}
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
        assume: directions that the voxels of a volume run in, if its header does not say.
    """

    participant: str
    image: str
    path: Path
    index: int | None = None
    known: Mapping[str, str] = field(default_factory=dict)
    assume: Orientation | None = None

    @property
    def key(self) -> str:
        """Name of the image in a cohort."""
        return f"sub-{self.participant}_image-{self.image}"


def find_images(
    source: Path,
    *,
    table: Path | None = None,
    classes: Sequence[str] = (),
    assume: Orientation | None = None,
) -> Findings[ImageFile]:
    """List the images of a folder, in subfolders by class if there are any, or of an idx archive.

    Args:
        source: folder, or one file.
        table: says whose images are, by ``file`` (path from ``source``) and ``participant_id``, and
            anything else of them; None: ``participants.tsv`` of the folder, if it has ``file``.
            Without a table every image is a participant of its own.
        classes: keep only these.
        assume: directions that voxels run in, where the header of a volume does not say.

    Raises:
        InputError: there are none, or no image of a class that was asked for.
    """
    refuse_missing(source)
    if fault := pair_fault(source):
        raise InputError(f"{fault}: {source}")
    scanned = scan(source) if source.is_dir() else Scan([source])
    every, others = _files(scanned, source)
    every, problems = _without_faults(every)
    rows, warnings = _table(source, table)
    found = every
    if rows is None:
        warnings += files_of_one_person([image.path for image in found if image.index is None])
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
    unused = not_used(scanned, used, others, images=True)
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
    of_one = (replace(image, assume=assume) for image in found if counts[image.key] == 1)
    single = sorted(of_one, key=lambda image: image.key)
    return Findings(single, problems, unused, warnings, str(source))


def read_image(image: ImageFile) -> tuple[Pixels, tuple[str, ...]]:
    """Grey values of an image as a viewer shows it, and what is unusual about its file.

    Colour becomes luminance (ITU-R BT.601), and what is transparent black. NIfTI axes come in the
    order right, anterior, superior; a third one is of space, whatever its length.

    Returns:
        (I, J) or (I, J, K) uint8, uint16 or float32, and warnings, a line each.

    Raises:
        InputError: it is not readable, or has other dimensions.
    """
    path, warnings = image.path, tuple[str, ...]()
    if image.index is not None:
        pixels = read_idx(path)[image.index]
    elif _suffix(path) in NIFTI:
        pixels, warnings = read_intensities(path, assume=image.assume)
        pixels = pixels.squeeze()
    else:
        pixels, warnings = read_picture(path)
    if pixels.ndim not in (2, 3) or not pixels.size:
        raise InputError(f"expected an image of 2 or 3 axes, got shape {pixels.shape}: {path}")
    if pixels.dtype == np.bool_:
        return pixels.astype(np.uint8) * 255, warnings
    if pixels.dtype in (np.uint8, np.uint16):
        return pixels.astype(pixels.dtype.newbyteorder("=")), warnings
    values = pixels.astype(np.float32)
    if not np.isfinite(values).all():
        bad = int((~np.isfinite(values)).sum())
        raise InputError(
            f"expected finite values, got {counted(bad, 'value')} NaN or infinite: {path}"
        )
    return values, warnings


@lru_cache(maxsize=4)
def read_idx(path: Path) -> Pixels:
    """Read an idx archive, gzipped or not, as an array.

    Raises:
        InputError: it is none, or is cut off.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"not readable ({error.strerror}): {path}") from error
    head = head_of(content, path)
    if len(head) < 4 or head[:2] != b"\0\0" or head[2] not in IDX_TYPES:
        raise InputError(f"not an idx archive: {path}")
    dtype, first = np.dtype(IDX_TYPES[head[2]]), 4 + 4 * head[3]
    shape = tuple(int(side) for side in np.frombuffer(head[4:first], ">u4"))
    n_values = prod(shape)
    whole = expand(content, first + n_values * dtype.itemsize, path)
    surplus = len(whole) - first - n_values * dtype.itemsize
    if surplus or len(shape) != head[3]:
        raise InputError(f"expected {shape} values, got {surplus} bytes more: {path}")
    return np.frombuffer(whole, dtype, offset=first).reshape(shape)


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
    content = nifti_bytes(image.astype(np.float32), np.eye(4), "none")
    write_bytes(stem.with_name(f"{stem.name}.nii.gz"), content)


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
    refuse_pointer(path)
    rows = read_tsv(path)
    if table is None and not (rows and "file" in rows[0]):
        return None, [f"no column file: it does not say whose images are, and is not used: {path}"]
    require_columns(rows, ("file", "participant_id"), path)
    ids, warnings = participant_ids(rows, path)
    rows, said = with_known_values(rows, ids, path)
    families = {name: row.get(FAMILY, "") for name, row in zip(ids, rows, strict=True)}
    warnings += [*said, *perhaps_one_person(families)]
    warnings += columns_passed_over(rows, (*DECIDED, *OF_VOLUMES), path)
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
