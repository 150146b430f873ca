"""Content of a file that may be gzipped, expanded no further than its own header accounts for."""

import zlib
from pathlib import Path

from isal import isal_zlib

from foldnorm.preprocessing.core.errors import InputError
from foldnorm.preprocessing.core.resources import check_fits

GZIP_MAGIC = b"\x1f\x8b"
GZIP_WINDOW_BITS = 31  # zlib's number for "expect a gzip header"
HEAD_BYTES = 2048  # expanded first: the header of any format that is read here fits
MAX_DEFLATE_RATIO = 1100  # deflate cannot expand further
MAX_TRAILING_BYTES = 2**20  # footers, tags and padding that may follow the values


def head_of(content: bytes, path: Path) -> bytes:
    """Return the first `HEAD_BYTES` of what a file holds, or all if there are fewer.

    Args:
        content: of the file, gzipped or not; the name plays no part.
        path: named in the error.

    Raises:
        InputError: damaged already there.
    """
    if not content.startswith(GZIP_MAGIC):
        return content[:HEAD_BYTES]
    stream = zlib.decompressobj(wbits=GZIP_WINDOW_BITS)
    try:
        head = stream.decompress(content[: 2 * HEAD_BYTES], HEAD_BYTES)
    except zlib.error as error:
        raise _damaged(error, path) from error
    # Headers of gzip that hold long names, or several members within the first bytes.
    return head if len(head) == HEAD_BYTES else _expanded(content, HEAD_BYTES, path, whole=False)


def expand(content: bytes, size: int, path: Path) -> bytes:
    """Return all that a file holds, at least ``size`` bytes.

    Args:
        content: of the file, gzipped or not.
        size: bytes that its header accounts for.
        path: named in the error.

    Raises:
        InputError: truncated, damaged, more than `MAX_TRAILING_BYTES` longer than ``size``, or
            larger than memory.
    """
    is_gzipped = content.startswith(GZIP_MAGIC)
    if size > len(content) * (MAX_DEFLATE_RATIO if is_gzipped else 1):
        gzipped = " gzipped" if is_gzipped else ""
        raise InputError(f"truncated: {size} bytes expected, got {len(content)}{gzipped}: {path}")
    if is_gzipped:  # before the system ends the process for it
        check_fits(size, str(path))
    limit = size + MAX_TRAILING_BYTES
    expanded = _expanded(content, limit, path) if is_gzipped else content
    if len(expanded) < size:
        raise InputError(f"truncated: {size} bytes expected, got {len(expanded)}: {path}")
    if len(expanded) > limit:
        raise InputError(
            f"holds far more than the {size} bytes that its header accounts for; expected the "
            f"sizes in the header to be those of the data: {path}"
        )
    return expanded


def _expanded(content: bytes, limit: int, path: Path, *, whole: bool = True) -> bytes:
    """Expand the members of a gzip file, stopping where they exceed ``limit``.

    What follows the last member is left out, as gunzip does.
    """
    members, size = [], 0
    while content.startswith(GZIP_MAGIC) and size <= limit:
        stream = isal_zlib.decompressobj(wbits=GZIP_WINDOW_BITS)
        try:
            members.append(stream.decompress(content, max_length=limit + 1 - size))
        except isal_zlib.error as error:  # type: ignore[misc]  # the stub names an instance
            raise _damaged(error, path) from error
        size += len(members[-1])
        if whole and size <= limit and not stream.eof:
            raise _damaged("it ends within its data", path)
        content = stream.unused_data
    return members[0] if len(members) == 1 else b"".join(members)


def _damaged(reason: object, path: Path) -> InputError:
    return InputError(f"truncated or damaged gzip file ({reason}): {path}")
