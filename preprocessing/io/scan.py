"""One look through a folder for every kind of source: its files, and why others are left out.

Links to folders are followed, each folder once; hidden files, cohorts and FreeSurfer's templates
are not entered. A file that is only a pointer (git-annex, git-LFS) or a dangling link has a fault.
"""

import errno
import os
import re
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from foldnorm.preprocessing.core.counts import counted
from foldnorm.preprocessing.core.file_names import RUN_REPORT
from foldnorm.preprocessing.core.files import ANNEXED, content_fault
from foldnorm.preprocessing.io.file_pairs import pair_fault
from foldnorm.preprocessing.io.volumes import is_volume

PICTURES = (".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp")
STACKS = (".tif", ".tiff")
NIFTI = (".nii", ".nii.gz")
IDX_IMAGES = ("images-idx3-ubyte", "images.idx3-ubyte")
# Of a FreeSurfer or FastSurfer subject, the first that is there: cortex from surfaces before
# cortex from voxels.
FREESURFER_VOLUMES = (
    "aparc+aseg",
    "aparc.DKTatlas+aseg.deep",
    "aparc.a2009s+aseg",
    "wmparc",
    "aseg",
    "ribbon",
)
# Of SUBJECTS_DIR, what is nobody: https://surfer.nmr.mgh.harvard.edu/fswiki/SubjectsDir
TEMPLATES = re.compile(r"fsaverage.*|cvs_avg35.*|V1_average|[lr]h\.EC_average|fs_avg.*")
MORPHOLOGIST = "t1mri"  # first folder of a subject in its database
TIME_POINTS = "base-tps"  # file of a base that names them; base-tps.fastsurfer of FastSurfer
LONGITUDINAL = re.compile(r"(?P<time_point>.+)\.long\.(?P<base>.+)")
# Volumes and images in formats that nothing here reads, and what was meant to be a volume.
PARTICIPANTS = "participants.tsv"
FOREIGN = re.compile(
    r".*(\.(img|hdr|nrrd|nhdr|mha|mhd|mnc|dcm|ima|par|rec|gif|webp|heic|avif|jp2|svs|npy|npz|mat"
    r"|h5|hdf5|zip|tar|tgz|bz2|xz|zst|7z|part|partial|bak|tmp|crdownload)|(png|jpe?g|tiff?|bmp)\.gz"
    r"|~)|.*\.(nii|mgz|mgh)\b(?!.*\.(minf|json)$).*",  # these two are sidecars
    re.IGNORECASE,
)
TABLE_OF_PEOPLE = re.compile(r"participants\.(tsv|csv|txt|xlsx?|ods)", re.IGNORECASE)
HIDDEN = "hidden"
CYCLE = "cycle of symbolic links"
AGAIN = "link to what is read under another name"
DANGLING = "no such file (dangling link)"
OUTPUT = "output of foldnorm"
TEMPLATE = "template of FreeSurfer, nobody"
BASE = "longitudinal base of FreeSurfer: its time points are read"
TIME_POINT = "longitudinal run of FreeSurfer: the cross-sectional one is read"
NO_VOLUME = "no volume"
OTHER_KIND = "another kind of volume"
NOT_ASKED = "left out as asked"
ROUTINE = (
    NO_VOLUME,
    OTHER_KIND,
    NOT_ASKED,
)  # said in a report; a line is printed only beside others
MAX_POINTER = 1024  # bytes; pointers have some 130
MAX_RECORDED = 1000  # files a reason names in a report


@dataclass(frozen=True)
class Unused:
    """File or folder of a source that is not used, and why."""

    path: Path
    reason: str


@dataclass
class Scan:
    """Contents of a source.

    Attributes:
        files: every one that may be used, dangling links among them, sorted.
        folders: that were entered, sorted.
        unused: what was not.
    """

    files: list[Path] = field(default_factory=list)
    folders: list[Path] = field(default_factory=list)
    unused: list[Unused] = field(default_factory=list)


def scan(root: Path, *, trees: bool = False) -> Scan:
    """Look through a folder, and through the folders that links in it lead to.

    Each folder is entered once, by its own name before that of a link.

    Args:
        root: the folder.
        trees: skeletons are looked for, so that trees of them which foldnorm made are entered, as
            no other output of it is.
    """
    walk = _Walk(root, trees)
    walk.enter(root)
    while walk.links:
        links, walk.links = sorted(walk.links), []
        for link in links:
            walk.follow(link)
    found = walk.scan
    own = {path for path in found.files if not path.is_symlink()}
    if len(own) < len(found.files):
        places = {os.path.realpath(path.parent) + os.sep + path.name for path in own}
        again = {p for p in found.files if p not in own and os.path.realpath(p) in places}
        found.files = [path for path in found.files if path not in again]
        found.unused += [Unused(path, AGAIN) for path in again]
    found.files.sort()
    found.folders.sort()
    return found


class _Walk:
    """State of a look through a folder."""

    def __init__(self, root: Path, trees: bool) -> None:
        self.root, self.trees, self.scan = root, trees, Scan()
        self.links: list[Path] = []
        self.entered: set[tuple[int, int]] = set()

    def enter(self, top: Path) -> None:
        """Take the files of a folder and of those in it, and note links to others."""
        waiting = [top]
        while waiting:
            folder = waiting.pop()
            try:
                status = folder.stat()
                with os.scandir(folder) as found:
                    entries = list(found)
            except OSError as error:
                self._leave(folder, f"folder not readable ({error.strerror})")
                continue
            place = (status.st_dev, status.st_ino)
            is_root = folder == self.root
            reason = "" if is_root else _kind_of_folder(folder, entries, self.trees)
            if place in self.entered:
                self._leave(folder, AGAIN)
                continue
            self.entered.add(place)
            if reason:
                self._leave(folder, reason)
                continue
            self.scan.folders.append(folder)
            waiting += [path for entry in entries if (path := self._take(folder, entry))]

    def follow(self, link: Path) -> None:
        """Enter the folder that a link leads to, unless it holds the link or was entered."""
        target = Path(os.path.realpath(link))
        if Path(os.path.realpath(link.parent)).is_relative_to(target):
            self._leave(link, CYCLE)
            return
        self.enter(link)

    def _take(self, folder: Path, entry: os.DirEntry[str]) -> Path | None:
        """Sort an entry in; return the folder that it is, to be entered."""
        path = folder / entry.name
        if entry.name.startswith("."):
            self._leave(path, HIDDEN)
        elif entry.is_dir(follow_symlinks=False):
            return path
        elif entry.is_symlink() and path.is_dir():
            self.links.append(path)
        elif entry.is_symlink() or entry.is_file():
            self.scan.files.append(path)
        else:
            self._leave(path, "no regular file")
        return None

    def _leave(self, path: Path, reason: str) -> None:
        self.scan.unused.append(Unused(path, reason))


def _kind_of_folder(folder: Path, entries: Sequence[os.DirEntry[str]], trees: bool) -> str:
    """Return why a folder is not entered, or nothing."""
    names = {entry.name for entry in entries}
    if is_cohort(names):
        return OUTPUT
    if RUN_REPORT in names and not (trees and _is_tree(folder, entries)):
        return OUTPUT
    is_subject = bool({"mri", "surf"} & names) or any(freesurfer_rank(n) is not None for n in names)
    if not is_subject:
        return ""
    own = {name.removeprefix("sub-") for name in (folder.name, folder.resolve().name)}
    if any(map(TEMPLATES.fullmatch, own)):
        return TEMPLATE
    if LONGITUDINAL.fullmatch(folder.name):
        return TIME_POINT
    is_base = folder.name.endswith("_base") or any(name.startswith(TIME_POINTS) for name in names)
    return BASE if is_base else ""


def _is_tree(folder: Path, entries: Sequence[os.DirEntry[str]]) -> bool:
    """Return whether the folder holds subjects as Morphologist's database does."""
    return any((folder / entry.name / MORPHOLOGIST).is_dir() for entry in entries)


def is_cohort(names: Iterable[str]) -> bool:
    """Return whether a folder of these files is a cohort, finished or in the making."""
    held = set(names)
    return {"dataset_description.json", "volumes.npy"} <= held or any(
        name.startswith("run_report_shard-") for name in held
    )


def freesurfer_rank(name: str) -> int | None:
    """Place of a file name among `FREESURFER_VOLUMES`; None if it is none of them."""
    for rank, stem in enumerate(FREESURFER_VOLUMES):
        if name.startswith(f"{stem}.") and is_volume(Path(name)):
            rest = name.removeprefix(f"{stem}.").lower()
            return rank if rest in ("mgz", "mgh", "nii", "nii.gz") else None
    return None


def fault_of(path: Path) -> str:
    """Return why a file cannot be read at all, or nothing: a dangling link, a pointer."""
    try:
        size = path.stat().st_size
    except OSError as error:
        if error.errno == errno.ELOOP:
            return CYCLE
        if error.errno == errno.ENOENT and not path.is_symlink():
            return ""  # said when it is read
        fault = content_fault(path)
        return DANGLING if error.errno == errno.ENOENT and fault != ANNEXED else fault
    if not os.access(path, os.R_OK):
        return "not readable (no permission)"
    return content_fault(path) if 0 < size <= MAX_POINTER and path.is_file() else ""


def not_used(
    scanned: Scan, used: Collection[Path], reasons: Iterable[Unused], images: bool = False
) -> list[Unused]:
    """List everything of a source that is not used, with the reason.

    Args:
        scanned: contents of the source.
        used: its files that are.
        reasons: those that are known for some files.
        images: the source is one of images, not of label volumes.
    """
    said = {unused.path: unused.reason for unused in reasons}
    rest = [
        Unused(path, said.get(path) or _reason(path, images))
        for path in scanned.files
        if path not in used
    ]
    listed = set(scanned.files)
    elsewhere = [Unused(path, reason) for path, reason in said.items() if path not in listed]
    return sorted([*scanned.unused, *rest, *elsewhere], key=lambda unused: str(unused.path))


def _reason(path: Path, images: bool) -> str:
    if is_volume(path):
        return fault_of(path) or OTHER_KIND
    if path.is_symlink() and (fault := fault_of(path)):
        return fault
    if fault := pair_fault(path):
        return fault
    if FOREIGN.fullmatch(path.name):
        return f"format not read ({path.suffix})"
    if is_image(path) and not images:
        return "picture"
    if TABLE_OF_PEOPLE.fullmatch(path.name):
        return f"table of people that is not read: expected {PARTICIPANTS} at the top of a source"
    return NO_VOLUME


def is_image(path: Path) -> bool:
    """Return whether the name is that of a picture, a TIFF or an idx archive of images."""
    return path.name.lower().endswith((*PICTURES, *STACKS)) or is_idx(path)


def is_idx(path: Path) -> bool:
    """Return whether the name is that of an idx archive of images."""
    return any(name in path.name for name in IDX_IMAGES)


def unused_line(unused: Sequence[Unused], where: str) -> str:
    """Say in one line how many files are not used and why; nothing if that is as expected."""
    counts = Counter(one.reason for one in unused)
    if not set(counts) - set(ROUTINE):
        return ""
    first = {one.reason: one.path.name for one in reversed(unused)}
    rare_last = sorted(counts, key=lambda reason: (reason in ROUTINE, -counts[reason], reason))
    shown = ", ".join(f"{counts[r]} {r} (such as {shown_name(first[r])})" for r in rare_last)
    return (
        f"{counted(len(unused), 'file or folder', 'files or folders')} not used: {shown}: {where}"
    )


def unused_record(unused: Sequence[Unused]) -> list[dict[str, Any]]:
    """Reasons with their files, for a report; at most `MAX_RECORDED` files each are named."""
    groups: dict[str, list[Path]] = {}
    for one in unused:
        groups.setdefault(one.reason, []).append(one.path)
    return [
        {
            "reason": reason,
            "count": len(paths),
            "files": [shown_name(str(path)) for path in paths[:MAX_RECORDED]],
        }
        for reason, paths in groups.items()
    ]


def shown_name(name: str) -> str:
    """Return a file name that any encoding of text can hold, whatever its bytes are."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")
