"""Whose a volume is, and of which side, by the name of its file.

Known are the names of Morphologist (``Lskeleton_ID``) and of deep_folding
(``Lskeleton_generated_ID``), of BIDS (``sub-ID_ses-1_hemi-L_desc-x_dseg``), and plain ones with the
side at one end (``ID_left``, ``lh.ID``). A name that says a side unclearly is refused.
"""

import re
import unicodedata
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from foldnorm.preprocessing.core.counts import counted
from foldnorm.preprocessing.core.errors import InputError

EXPECTED = "expected sub-ID_hemi-L or sub-ID_hemi-R, or a table with participant_id, path and hemi"
STEMS = ("skeleton", "grey_white")  # of volumes that cohorts are made of
# Other volumes of one hemisphere, as Morphologist, deep_folding and foldnorm name them.
OF_HEMISPHERE = (
    *STEMS, "resampled_skeleton", "folds", "foldlabel", "resampled_foldlabel", "hull", "depth",
    "bottom", "cortex", "csf", "roots", "sulci", "sulcivoronoi", "distmap", "resampled_distmap",
    "gw_interface", "head", "white", "hemi", "mask_skeleton", "mask_foldlabel",
)  # fmt: skip
SIDES = {"L": "L", "R": "R", "lh": "L", "rh": "R", "left": "L", "right": "R"}
OTHER_SIDE = {"l": "r", "r": "l", "lh": "rh", "rh": "lh", "left": "right", "right": "left"}
ENTITIES = {
    "ses", "acq", "rec", "run", "hemi", "space", "res", "den", "desc", "label", "atlas",
    "seg", "cohort", "proc", "ce", "dir", "inv", "part", "chunk", "task", "tpl", "sample",
    "split", "echo", "mod", "from", "to", "mode", "model",
}  # fmt: skip
INTENSITIES = {
    "T1w", "T2w", "FLAIR", "PDw", "T1map", "T2map", "T2starw", "UNIT1", "inplaneT1", "bold",
    "boldref", "dwi", "dwiref", "sbref", "epi", "probseg", "xfm", "defacemask", "angio",
}  # fmt: skip
# Ends of names that say which kind of labels a file holds.
LABELS = {
    "dseg", "seg", "segmentation", "labels", "synthseg", "aseg", "ribbon", "aparc+aseg",
    "skeleton", "mask", "pveseg",
}  # fmt: skip
COMPANION_DESCRIPTIONS = ("folds", "pair")  # desc- of what goes with a volume
NOBODY = LABELS | {  # file names that say what a file holds and not whose it is
    "grey_white", "greywhite", "label", "brain", "volume", "image", "t1", "t1w", "t2", "t2w",
    "wm", "gm", "csf", "hull", "folds", "anat", "template", "atlas", "average", "mean",
    "orig", "norm", "brainmask", "wmparc", "lskeleton", "rskeleton", "lgrey_white",
    "rgrey_white", "left", "right", "lh", "rh", "l", "r",
}  # fmt: skip
MORPHOLOGIST = re.compile(
    rf"(?P<hemi>[LR])(?P<kind>{'|'.join(OF_HEMISPHERE)})(?:_generated)?_(?P<participant>.+)"
)
CROPPED = "cropped_skeleton"  # as in crops of deep_folding, Lcrops/ID_cropped_skeleton
ONE_SIDED = tuple(side + stem for side in "LR" for stem in STEMS)  # as words of a longer name
# Sides in other languages: they are not guessed, but such a name says nobody's id alone.
FOREIGN_SIDES = {
    "gauche", "droite", "droit", "links", "rechts", "izquierdo", "izquierda", "derecho", "derecha",
    "sinistro", "sinistra", "destro", "destra", "esquerdo", "esquerda", "direito", "direita",
}  # fmt: skip
COPY = re.compile(r".*(?:\s?\(\d+\)|[ _-][Cc]opy(?:[ _-]?\d+)?)")
# Files of which a person has several, told apart by a number: the tissues of SPM and CAT12 (c1ID,
# mwp2ID), of FAST (ID_pve_0), of Atropos (IDPosteriors1), and probabilities of labels.
PARTS = (
    re.compile(r"(?:m?[wru]{0,2}|s)[cp](?P<number>[0-6])(?=[A-Za-z]..)"),
    re.compile(r".+_(?:pve|prob|probseg|tissue)_?(?P<number>\d+)"),
    re.compile(r".+Posteriors?_?(?P<number>\d+)"),
)
# Names of which a participant has several: sides, visits, slices.
ONE_OF_SEVERAL = re.compile(
    r"(?P<person>.+?)(?:[._ -](?:left|right|[lr]h?)|[._ -]?(?:slice|image|img|page|frame|view|visit"
    r"|session|ses|scan|run|tp)[._ -]?\d+)",
    re.IGNORECASE,
)
SEPARATORS = "._-"
MAX_KNOWN = 1 << 17  # ids whose labels are kept: those of a population, asked for again and again
TOKENS = re.compile(r"[._\-\s]+")


@dataclass(frozen=True)
class FileName:
    """Name of a volume's file, understood.

    Attributes:
        participant: id as it is written, without the ``sub-`` of BIDS.
        hemi: ``L``, ``R``, or empty where the name does not say.
        kind: what the volume holds (``skeleton``, ``dseg``, ``T1w``), or empty.
        desc: the BIDS entity of that name.
        of_morphologist: True if the name is one of Morphologist or deep_folding.
    """

    participant: str
    hemi: str = ""
    kind: str = ""
    desc: str = ""
    of_morphologist: bool = False


@lru_cache(MAX_KNOWN)
def bids_label(participant: str) -> str:
    """Return the id with only the letters and digits that BIDS allows, without its ``sub-``.

    Accents are dropped, however they are encoded; other letters become their number, so that ids
    which differ by these stay apart.

    Example:
        >>> bids_label("sub-Zoé_1"), bids_label("李1")
        ('Zoe1', 'u674e1')
    """
    plain = unicodedata.normalize("NFKD", participant_of(participant))
    spelled = (
        f"u{ord(sign):x}" if sign.isalnum() and not sign.isascii() else sign for sign in plain
    )
    return re.sub(r"[^A-Za-z0-9]", "", "".join(spelled))


def participant_of(text: str) -> str:
    """Return the id without the ``sub-`` that BIDS puts before it.

    Accents are written one way, which macOS and Linux do not do.
    """
    return unicodedata.normalize("NFC", text).strip().removeprefix("sub-")


def side_of(word: str) -> str:
    """Side that a word says (``L``, ``lh``, ``Left``, ``Lcrops``): ``L``, ``R``, or empty."""
    word = word.removesuffix("crops")
    return SIDES.get(word) or (SIDES.get(word.lower(), "") if len(word) > 1 else "")


def understand(stem: str, stems: Collection[str] = (), own_kind: str = "") -> FileName:
    """Tell whose volume a file is, by its name.

    Args:
        stem: name without suffix.
        stems: those of the files beside it: a single letter at the beginning is a side if some
            file has the other one there, and a name that differs from another by the side alone
            names a side.
        own_kind: kind of volume that a label scheme names, beside `OF_HEMISPHERE`.

    Raises:
        InputError: it names no participant, or a side unclearly.
    """
    stem = unicodedata.normalize("NFC", stem)
    if COPY.fullmatch(stem):
        raise InputError("the name is that of a copy")
    if _is_part(stem, stems):
        raise InputError(f"one of several files of a person, such as tissues; {EXPECTED}")
    own = re.fullmatch(rf"(?P<hemi>[LR])(?P<kind>{re.escape(own_kind)})_(?P<participant>.+)", stem)
    match = MORPHOLOGIST.fullmatch(stem) or (own if own_kind else None)
    if match:
        kind, participant = match["kind"].removeprefix("resampled_"), match["participant"]
        if _has_entities(participant):  # a session is no person
            participant = _of_bids(participant).participant
        return FileName(participant_of(participant), match["hemi"], kind, "", True)
    is_bids = stem.startswith("sub-") or _has_entities(stem)
    found = _of_bids(stem) if is_bids else _plain(stem, stems)
    if not is_bids and not (
        bids_label(found.participant) and found.participant.lower() not in NOBODY
    ):
        raise InputError(f"the name says nobody's id; {EXPECTED}")
    is_clear = is_bids and found.hemi  # hemi-L, whatever words the id has
    has_mirrored = not found.hemi and not _mirrored(stem).isdisjoint(stems)
    if not is_clear and (has_mirrored or _says_side(found.participant) or _says_other_side(found)):
        raise InputError(f"the name says a side, but not clearly; {EXPECTED}")
    return found


def files_of_one_person(paths: Iterable[Path]) -> list[str]:
    """Warn if names say that several pictures are one participant's: at most one line.

    Args:
        paths: of pictures, of which no table says whose they are.
    """
    people: dict[str, list[str]] = {}
    for path in paths:
        of_bids = path.name.partition("_")[0] if re.match("sub-[^_]+_", path.name) else ""
        match = ONE_OF_SEVERAL.fullmatch(path.name.removesuffix(path.suffix))
        if person := of_bids or (match["person"] if match else ""):
            people.setdefault(f"{path.parent}/{person}", []).append(path.name)
    several = [names for names in people.values() if len(names) > 1]
    if not several or (len(people) < 2 and not several[0][0].startswith("sub-")):
        return []  # of one alone, the word is rather that of the collection
    return [
        f"{counted(sum(map(len, several)), 'file name')} seem to be of "
        f"{counted(len(several), 'participant')} ({' and '.join(several[0][:2])}); without a table "
        "of file and participant_id each image is a participant of its own, and splits part them"
    ]


def _is_part(stem: str, stems: Collection[str]) -> bool:
    """Return whether a number alone tells a name from another, see `PARTS`."""
    for pattern in PARTS:
        if match := pattern.match(stem):
            start, end = match.span("number")
            others = {f"{stem[:start]}{n:0{end - start}d}{stem[end:]}" for n in range(10)}
            if not (others - {stem}).isdisjoint(stems):
                return True
    return False


def _has_entities(stem: str) -> bool:
    """Return whether a name holds entities of BIDS behind an id: ``100206_hemi-L``."""
    return any("-" in part and part.partition("-")[0] in ENTITIES for part in stem.split("_")[1:])


def _of_bids(stem: str) -> FileName:
    """Read ``sub-ID[_entity-value…][_suffix]``; an ID may hold underscores, as OASIS's do."""
    head, *parts = stem.removeprefix("sub-").split("_")
    participant, entities, kind = [head], dict[str, str](), ""
    others: dict[str, str] = {}  # that BIDS does not know, or that may name a side
    for n, part in enumerate(parts):
        key, dash, value = part.partition("-")
        if dash and (key not in ENTITIES or len(value) > 1):
            others[key] = value
        if dash and key in ENTITIES:
            entities.setdefault(key, value)
        elif side_of(part):
            entities.setdefault("hemi", part)
        elif n == len(parts) - 1 and (entities or part in INTENSITIES | LABELS):
            kind = part
        elif not entities:
            participant.append(part)
    said = entities.get("hemi", "")
    if said and not (side_of(said) or side_of(said.upper())):
        raise InputError(f"hemi-{said} is no side; {EXPECTED}")
    unclear = [f"{key}-{value}" for key, value in others.items() if side_of(value)]
    if unclear and not said:
        raise InputError(f"{unclear[0]} says a side, but not clearly; {EXPECTED}")
    if len({side_of(part.removeprefix("hemi-")) for part in parts} - {""}) > 1:
        raise InputError(f"the name says two sides; {EXPECTED}")
    hemi = side_of(said) or side_of(said.upper())
    return FileName("_".join(participant), hemi, kind, entities.get("desc", ""))


def _plain(stem: str, stems: Collection[str]) -> FileName:
    """Take a side and a kind from the ends of a name; the rest is the id."""
    hemis, kind, rest = list[str](), "", stem
    while True:
        begin, end = _first(rest), _last(rest)
        if end and side_of(end) and not hemis:
            hemis, rest = [side_of(end)], rest[: -len(end) - 1]
        elif end in ONE_SIDED and not hemis and not kind:
            hemis, kind, rest = [end[0]], end[1:], rest[: -len(end) - 1]
        elif end and end in (CROPPED, *LABELS, *STEMS) and not kind:
            kind, rest = end.removeprefix("cropped_"), rest[: -len(end) - 1]
        elif begin and side_of(begin) and not hemis and _is_side(begin, stem, stems):
            hemis, rest = [side_of(begin)], rest[len(begin) + 1 :]
        elif begin in STEMS and not kind:
            kind, rest = begin, rest[len(begin) + 1 :]
        else:
            return FileName(rest, hemis[0] if hemis else "", kind)


def _first(rest: str) -> str:
    """First word of a name of several, or empty."""
    known = [kind for kind in STEMS if rest.startswith(tuple(kind + s for s in SEPARATORS))]
    match = re.match(r"([^._\-]+)[._\-].", rest)
    return known[0] if known else match[1] if match else ""


def _last(rest: str) -> str:
    """Last word of a name of several, or empty."""
    known = [
        kind
        for kind in (
            CROPPED,
            *(side + stem for side in "LR" for stem in STEMS),
            *STEMS,
            "aparc+aseg",
        )
        if rest.endswith(tuple(s + kind for s in SEPARATORS))
    ]
    match = re.search(r".[._\-]([^._\-]+)$", rest)
    return known[0] if known else match[1] if match else ""


def _is_side(begin: str, stem: str, stems: Collection[str]) -> bool:
    """Return whether a first word is a side: ``lh`` is, ``L`` if another name begins with ``R``."""
    if len(begin) > 1:
        return True
    other = OTHER_SIDE[begin.lower()].upper()
    return any(name.startswith(tuple(other + s for s in SEPARATORS)) for name in stems)


def _says_other_side(found: FileName) -> bool:
    """Return whether a word within an id is the side that the rest of the name does not say."""
    sides = {side_of(word) for word in TOKENS.split(found.participant)}
    return bool(found.hemi) and bool(sides - {"", found.hemi})


def _says_side(participant: str) -> bool:
    """Return whether a word within an id is a side, or its first a letter that may be one."""
    words = TOKENS.split(participant)
    return any(
        (side_of(word) and len(word) > 1) or word.lower() in FOREIGN_SIDES for word in words
    ) or (len(words) > 1 and words[0] in ("L", "R"))


def _mirrored(stem: str) -> set[str]:
    """Names of the other side, wherever this one may say its own."""
    swapped = {
        re.sub(
            r"left|right",
            lambda match: _as_written(OTHER_SIDE[match[0].lower()], match[0]),
            stem,
            flags=re.IGNORECASE,
        ),
        re.sub(
            r"(?<![A-Za-z])([LlRr][Hh]?)(?![A-Za-z])",
            lambda match: _as_written(OTHER_SIDE[match[0].lower()], match[0]),
            stem,
        ),
    }
    ends = {"L": "R", "R": "L"}
    if stem[0] in ends:
        swapped.add(ends[stem[0]] + stem[1:])
    if stem[-1] in ends:
        swapped.add(stem[:-1] + ends[stem[-1]])
    return swapped - {stem}


def _as_written(word: str, like: str) -> str:
    """Word in the case of another."""
    return word.upper() if like.isupper() else word.title() if like[0].isupper() else word
