"""Names of files: parts of them that come from data, none of which leads out of its folder."""

import re

from foldnorm.preprocessing.core.errors import InputError

# No separator of any system, no drive, no control character, and no leading dot: not "..", not
# a hidden file.
NAME = re.compile(r"[^./\\:\x00-\x1f\x7f][^/\\:\x00-\x1f\x7f]*")
RUN_REPORT = "run_report.json"  # of the command that wrote the folder
MAX_BYTES = 200  # a file name has 255 at most, and a suffix


def checked_name(name: object, what: str) -> str:
    """Return the text of a name if it can be part of a file name.

    Args:
        name: may come from data.
        what: it is, and where it stands; begins the message.

    Raises:
        InputError: it is empty, too long, begins with a dot, or has a slash, a backslash, a colon
            or a control character.

    Example:
        >>> checked_name("sub-01_hemi-L", "participant_id")
        'sub-01_hemi-L'
    """
    text = str(name)
    if not NAME.fullmatch(text) or len(text.encode("utf-8", "surrogateescape")) > MAX_BYTES:
        raise InputError(
            f"{what}: expected a name without / \\ : and control characters that does not begin "
            f"with a dot, of at most {MAX_BYTES} bytes; got {text!r:.80}"
        )
    return text
