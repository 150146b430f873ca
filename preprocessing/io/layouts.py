"""Volumes of a folder by its layout: FreeSurfer's, Morphologist's, BIDS, or a flat folder of files.

Also folders ``L`` and ``R`` as deep_folding writes them. What is no volume that was asked for, or
says nobody's id, comes with the reason.
"""

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from foldnorm.preprocessing.core.counts import counted
from foldnorm.preprocessing.core.errors import InputError
from foldnorm.preprocessing.io.names import (
    COMPANION_DESCRIPTIONS,
    EXPECTED,
    INTENSITIES,
    LABELS,
    OF_HEMISPHERE,
    STEMS,
    FileName,
    participant_of,
    side_of,
    understand,
)
from foldnorm.preprocessing.io.scan import (
    BASE,
    LONGITUDINAL,
    OTHER_KIND,
    TIME_POINTS,
    Scan,
    Unused,
    freesurfer_rank,
    is_image,
    scan,
)
from foldnorm.preprocessing.io.volumes import is_volume, volume_stem

NOT_CHOSEN = "another acquisition, session or description of a hemisphere that is read"
SEGMENTATION = "segmentation"  # asked for as a stem: grey and white matter of any origin
# Folders between a subject's and its volumes, beside sessions: of FreeSurfer, BIDS, the Human
# Connectome Project (in standard space: the second of its two) and UK Biobank.
STANDARD_SPACE = "MNINonLinear"
WITHIN_SUBJECT = ("mri", "anat", "T1w", STANDARD_SPACE, "FreeSurfer", "freesurfer")


@dataclass(frozen=True)
class Located:
    """Volume of a folder, and whose it is.

    Attributes:
        path: of the file.
        name: what its name and folders say.
        freesurfer: True if it is that of a FreeSurfer subject.
    """

    path: Path
    name: FileName
    freesurfer: bool = False


@dataclass
class Contents:
    """Volumes of a folder.

    Attributes:
        volumes: that were asked for.
        refused: files that would be volumes, but do not say clearly whose or of which side.
        others: files and folders that are not used, where the reason is known.
    """

    volumes: list[Located] = field(default_factory=list)
    refused: list[Unused] = field(default_factory=list)
    others: list[Unused] = field(default_factory=list)


def locate_volumes(scanned: Scan, root: Path, stem: str) -> Contents:
    """Find the volumes of one kind in a folder.

    Args:
        scanned: what lies in it.
        root: the folder.
        stem: ``skeleton``, ``grey_white`` or another of Morphologist's; `SEGMENTATION`; or empty.
    """
    volumes = [path for path in scanned.files if is_volume(path)]
    contents = Contents()
    if stem == SEGMENTATION:
        contents = _of_freesurfer(scanned, volumes)
        stem = "grey_white"
    if not contents.volumes:
        contents = _by_names(volumes, root, stem)
    contents.others += _participants_without(scanned, root, contents)
    return contents


def other_kinds(folder: Path, stem: str) -> list[str]:
    """Say what else a folder holds, and which command reads it."""
    if not folder.is_dir():
        return []
    hints = []
    for other in (*STEMS, SEGMENTATION):
        scanned = scan(folder, trees=other != SEGMENTATION)
        located = locate_volumes(scanned, folder, other).volumes
        if other != SEGMENTATION:
            located = [one for one in located if one.name.of_morphologist]
        if other == stem or not located:
            continue
        command = "preprocess" if other == "skeleton" else "skeletonise"
        hints.append(f"foldnorm {command} takes its {counted(len(located), f'{other} volume')}")
    if images := sum(map(is_image, scanned.files)):
        hints.append(f"foldnorm images takes pictures ({counted(images, 'file')})")
    return hints


def locate_file(path: Path) -> Located:
    """Tell whose a single file is; a name that says nothing clearly is itself the id."""
    if freesurfer_rank(path.name) is not None:
        return Located(path, _of_folder(_subject_folder(path)), freesurfer=True)
    try:
        return Located(path, understand(volume_stem(path)))
    except InputError:
        return Located(path, FileName(volume_stem(path)))


def _of_freesurfer(scanned: Scan, volumes: Sequence[Path]) -> Contents:
    """Take the segmentation of each FreeSurfer subject, one time point of each person."""
    by_subject = defaultdict(list)
    for path in volumes:
        if freesurfer_rank(path.name) is not None:
            by_subject[_subject_folder(path)].append(path)
    time_points: dict[str, list[str]] = defaultdict(list)  # by the base they share
    for one in scanned.unused:
        if match := LONGITUDINAL.fullmatch(one.path.name):
            time_points[match["base"]].append(match["time_point"])
        elif one.reason == BASE:
            time_points[one.path.name] += _time_points_of(one.path)
    left_out = dict.fromkeys(time_points, BASE)
    for base, names in time_points.items():
        there = [f.name for f in sorted(by_subject) if f.name in names]
        reason = f"another time point of the person of {base}"
        left_out |= dict.fromkeys(there[1:], reason)
    contents = Contents()
    for folder, paths in sorted(by_subject.items()):
        if reason := left_out.get(folder.name, ""):
            contents.others.append(Unused(folder, reason))
            continue
        ranked = sorted(
            paths,
            key=lambda path: (
                path.parent.name == STANDARD_SPACE,
                freesurfer_rank(path.name),
                path.parent == folder,
            ),
        )
        contents.volumes.append(Located(ranked[0], _of_folder(folder), freesurfer=True))
        contents.others += [
            Unused(path, NOT_CHOSEN) for path in ranked[1:] if path.parent != ranked[0].parent
        ]
    return contents


def _time_points_of(base: Path) -> list[str]:
    """Time points that a longitudinal base of FreeSurfer says it was made of."""
    return [
        line.strip()
        for path in sorted(base.glob(f"{TIME_POINTS}*"))
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines()
    ]


def _subject_folder(path: Path) -> Path:
    """Folder that is named after the subject of a FreeSurfer volume."""
    folder = path.absolute().parent
    while _is_within_subject(folder):
        folder = folder.parent
    return folder


def _is_within_subject(folder: Path) -> bool:
    """Return whether a folder belongs to the subject that one further up is named after.

    FreeSurfer's own of the Human Connectome Project is one, ``100307/T1w/100307``.
    """
    above = folder.parent
    is_inner = above.name in WITHIN_SUBJECT and above.parent.name == folder.name
    return folder.name in WITHIN_SUBJECT or folder.name.startswith("ses-") or is_inner


def _of_folder(folder: Path) -> FileName:
    """Tell whose a folder is: ``ID``, ``sub-ID`` or ``sub-ID_ses-1``."""
    if folder.name.startswith("sub-"):
        return replace(understand(folder.name), kind="", desc="")
    return FileName(participant_of(folder.name))


def _by_names(volumes: Sequence[Path], root: Path, stem: str) -> Contents:
    """Take volumes by their names: Morphologist's if there are any, else BIDS and plain ones."""
    contents = Contents()
    beside = defaultdict(set)
    for path in volumes:
        beside[path.parent].add(volume_stem(path))
    plain = []
    for path in volumes:
        side = _side_of_folder(path, root)
        try:
            name = understand(volume_stem(path), beside[path.parent], stem)
            if side and name.hemi not in ("", side):
                raise InputError(f"the folder is {path.parent.name}, the name says {name.hemi}")
        except InputError as error:
            plain.append((path, FileName(""), str(error)))
            continue
        located = Located(path, replace(name, hemi=name.hemi or side))
        if not name.of_morphologist:
            plain.append((path, located.name, ""))
        elif _is_wanted(name.kind, stem):
            contents.volumes.append(located)
        else:
            contents.others.append(Unused(path, OTHER_KIND))
    if contents.volumes:
        reason = "beside volumes that are named as Morphologist does"
        contents.others += [
            Unused(p, OTHER_KIND if n.kind in INTENSITIES else reason) for p, n, _ in plain
        ]
        return contents
    for path, name, refusal in plain:
        _take_plain(contents, path, name, refusal, root, stem)
    return contents


def _take_plain(
    contents: Contents, path: Path, name: FileName, refusal: str, root: Path, stem: str
) -> None:
    """Sort in a file that is not named as Morphologist does."""
    is_bids = path.name.startswith("sub-")
    if not (path.parent == root or is_bids or _side_of_folder(path, root)):
        reason = f"in a folder of no known layout; {EXPECTED}"
        contents.others.append(
            Unused(path, OTHER_KIND if path.parent.name in WITHIN_SUBJECT else reason)
        )
    elif refusal:
        contents.refused.append(Unused(path, refusal))
    elif (
        name.desc in COMPANION_DESCRIPTIONS
        or not _is_wanted(name.kind, stem)
        or (name.kind == "mask" and path.parent != root)
    ):
        contents.others.append(Unused(path, OTHER_KIND))
    else:
        contents.volumes.append(Located(path, name))


def _is_wanted(kind: str, stem: str) -> bool:
    """Return whether a volume that is called so may be of the kind that was asked for."""
    if not kind or kind == stem:
        return True
    if not stem:
        return kind in STEMS or kind not in (*OF_HEMISPHERE, *INTENSITIES)
    known = {*OF_HEMISPHERE, *INTENSITIES} - (LABELS - {"skeleton"})
    return kind not in known


def _side_of_folder(path: Path, root: Path) -> str:
    """Side that the folder of a file is named after, empty if it is the source itself."""
    return "" if path.parent == root else side_of(path.parent.name)


def _participants_without(scanned: Scan, root: Path, contents: Contents) -> list[Unused]:
    """List folders of a participant in which there is no volume that was asked for."""
    held: set[Path] = set()
    for folder in {path.parent for path in _paths(contents)}:
        held.update((folder, *folder.parents))
    inner = {f.parent for f in scanned.folders if f.name in ("t1mri", "mri") and f != root}
    bids = {f for f in scanned.folders if f.name.startswith("sub-") and f != root}
    return [
        Unused(folder, "participant without a volume of this kind")
        for folder in sorted((inner | bids) - held)
        if folder != root
    ]


def _paths(contents: Contents) -> Collection[Path]:
    left_out = [one.path / "any" for one in contents.others if one.path.is_dir()]
    left_out += [one.path for one in contents.others if one.reason == NOT_CHOSEN]
    return [
        *(v.path for v in contents.volumes), *(r.path for r in contents.refused), *left_out,
    ]  # fmt: skip
