"""Pairs of a header and its voxels, ``.hdr`` and ``.img``: recognised and named, not read.

Two files that are moved, fetched and renamed apart are one volume less often than one file is;
any tool of the field joins them.
"""

from pathlib import Path

import nibabel

from foldnorm.preprocessing.core.errors import InputError
from foldnorm.preprocessing.io.gzipped import HEAD_BYTES, head_of
from foldnorm.preprocessing.io.volume_headers import MAGIC_AT, PAIR_MAGIC

HEADER_SUFFIXES, VOXEL_SUFFIXES = (".hdr", ".hdr.gz"), (".img", ".img.gz")
NIFTI_PAIR = "NIfTI pair of .hdr and .img; expected both in one .nii (fslchfiletype joins them)"
ANALYZE_PAIR = (
    "Analyze 7.5, which does not tell left from right; expected NIfTI (fslchfiletype writes it; "
    "--assume ras or las then says how its voxels run)"
)
HEADER = "header of: {}"


def pair_fault(path: Path) -> str:
    """Return why a file of a pair is not read; empty if it is none, or its other file is missing.

    Args:
        path: of the header, or of the voxels, which stand for the pair.
    """
    name = path.name.lower()
    for header, voxels in zip(HEADER_SUFFIXES, VOXEL_SUFFIXES, strict=True):
        if name.endswith(voxels):
            return _kind_of_pair(_beside(path, voxels, header))
        if name.endswith(header):
            kind = _kind_of_pair(path)
            return HEADER.format(kind) if kind and _beside(path, header, voxels).exists() else ""
    return ""


def _beside(path: Path, own: str, other: str) -> Path:
    """Return the other file of a pair, whose suffix is spelt in the same case."""
    stem, suffix = path.name[: -len(own)], path.name[-len(own) :]
    return path.with_name(stem + (other.upper() if suffix.isupper() else other))


def _kind_of_pair(header: Path) -> str:
    """Return what a header is that of, as a reason not to read it; empty if of no pair."""
    try:
        with header.open("rb") as stream:
            head = head_of(stream.read(2 * HEAD_BYTES), header)
    except (OSError, InputError):
        return ""
    if any(head[at : at + 4] in PAIR_MAGIC for at in MAGIC_AT):
        return NIFTI_PAIR
    n_bytes = nibabel.AnalyzeHeader.template_dtype.itemsize
    sizes = [int.from_bytes(head[:4], order) for order in ("little", "big")]
    return ANALYZE_PAIR if len(head) >= n_bytes and n_bytes in sizes else ""
