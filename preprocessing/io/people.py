"""Tables of people: ids as they are written, rows that go with volumes, and rows that do not.

Nothing is joined by guess: an id that differs by zeros or case alone is another, and it is said.
"""

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from foldnorm.preprocessing.core.counts import counted
from foldnorm.preprocessing.core.errors import InputError
from foldnorm.preprocessing.core.files import read_tsv
from foldnorm.preprocessing.io.names import bids_label, participant_of
from foldnorm.preprocessing.io.scan import fault_of

PARTICIPANT = "participant_id"
QC_PASS, QC_FAIL = {"", "1", "pass", "ok", "yes"}, {"0", "fail", "exclude", "no"}
# An integer that was read as a number and written again, in some countries with a comma.
FLOAT = re.compile(r"(?:sub-)?\d+(?:\.0+|,0)")
EXPONENT = re.compile(r"(?:sub-)?\d+(?:[.,]\d+)?[eE]\+\d+")
VISIT = re.compile(
    r"(?P<person>.+)[._-](?:mr|tp|ses|session|visit|scan|run|wave|timepoint|time|day|[vtm])[._-]?\d+",
    re.IGNORECASE,
)
N_SHOWN = 3  # ids that a message names
# What R, pandas and spreadsheets write where BIDS has n/a; of a family, what people write too.
UNKNOWN = ("na", "nan", "n/a", "<na>", "#n/a", "null")
NO_FAMILY = (*UNKNOWN, "none", "unknown", "-", ".", "?")
FAMILY = "family"
MAX_FAMILY = 8  # participants; of more, it is rather a number for those whose family is unknown
DECIDED = ("split",)  # columns that cohorts have of their own
OF_VOLUMES = ("hemi", "image")  # likewise, of the names of files where no table lists these


@dataclass(frozen=True)
class People:
    """Rows of a table, one for each person.

    Attributes:
        path: of the table.
        known: id in letters and digits → what the table says; not what its rows contradict.
        warnings: a line each.
    """

    path: Path
    known: Mapping[str, dict[str, str]]
    warnings: list[str] = field(default_factory=list)

    def join_warnings(self, labels: Sequence[str]) -> list[str]:
        """Say which volumes got nothing of the table, and which rows belong to none.

        Args:
            labels: ids of the volumes, one for each, in letters and digits.
        """
        without = [label for label in labels if label not in self.known]
        nobody = sorted(set(self.known) - set(labels))
        if not labels or not (without or nobody):
            return []
        said = []
        if without:
            said.append(
                f"{len(without)} of {counted(len(labels), 'volume')} got nothing ({_some(without)})"
            )
        if nobody:
            rows = counted(len(self.known), "row")
            said.append(f"no volume for {len(nobody)} of {rows} ({_some(nobody)})")
        alike = differing_slightly(nobody, set(without))
        return [f"{'; '.join([*said, *alike])}: {self.path}"]


def read_people(path: Path) -> People:
    """Read a table with ``participant_id`` and anything else.

    A person may have several rows; what they contradict each other in is left out and said.

    Raises:
        InputError: no such table, no such column, or ids that are no text.
    """
    refuse_pointer(path)
    rows = read_tsv(path)
    if not rows:
        return People(path, {})
    ids, warnings = participant_ids(rows, path)
    rows, said = with_known_values(rows, ids, path)
    warnings += said
    warnings += columns_passed_over(rows, (*DECIDED, *OF_VOLUMES), path)
    by_label: dict[str, list[dict[str, str]]] = {}
    for participant, row in zip(ids, rows, strict=True):
        others = {k: v for k, v in row.items() if k != PARTICIPANT}
        by_label.setdefault(bids_label(participant), []).append(others)
    if nameless := by_label.pop("", []):
        warnings.append(f"no id in {counted(len(nameless), 'row')}: {path}")
    known, contradicted = {}, {}
    for label, group in by_label.items():
        differing = [key for key in group[0] if len({row[key] for row in group}) > 1]
        known[label] = {k: v for k, v in group[0].items() if k not in differing}
        if differing:
            contradicted[label] = differing
    if contradicted:
        columns = sorted({column for differing in contradicted.values() for column in differing})
        warnings.append(
            f"rows of {counted(len(contradicted), 'participant')} "
            f"({_some(sorted(contradicted))}) contradict each other in {', '.join(columns)}, of "
            f"which they got nothing: {path}"
        )
    return People(path, known, warnings)


def participant_ids(rows: Sequence[Mapping[str, str]], path: Path) -> tuple[list[str], list[str]]:
    """Ids of a table's rows without ``sub-``, and warnings.

    A column of integers that were written as floats (``100206.0``) is read as the integers, and
    that is said.

    Raises:
        InputError: no column of ids; ids rounded by a spreadsheet, or only some of them floats.
    """
    require_columns(rows, (PARTICIPANT,), path)
    written = [_known(row[PARTICIPANT].strip()) for row in rows]
    given = [text for text in written if text]
    rounded = [text for text in given if EXPONENT.fullmatch(text)]
    floats = [text for text in given if FLOAT.fullmatch(text)]
    if rounded:
        raise InputError(f"the id {rounded[0]} was rounded by a spreadsheet: expected text: {path}")
    if not floats:
        return [participant_of(text) for text in written], []
    if len(floats) < len(given):
        raise InputError(
            f"{len(floats)} of {len(given)} ids are floats ({floats[0]}): expected text: {path}"
        )
    whole = [_integer_of(participant_of(text)) for text in written]
    return whole, [f"ids are floats ({floats[0]}) and were read as {whole[0]}: {path}"]


def _known(text: str) -> str:
    return "" if text.lower() in UNKNOWN else text


def _integer_of(text: str) -> str:
    return re.split("[.,]", text)[0]


def with_known_values(
    rows: Sequence[Mapping[str, str]], ids: Sequence[str], path: Path
) -> tuple[list[dict[str, str]], list[str]]:
    """Rows of a table of people in which what is unknown is empty, and warnings.

    A value that stood for "unknown" would be a family whose members all come into one split, or a
    site or a sex of its own.

    Args:
        rows: of the table.
        ids: of their participants.
        path: of the table.
    """
    known, read_as_unknown = [], Counter[str]()
    for row in rows:
        own = dict(row)
        for column, value in row.items():
            unknown = NO_FAMILY if column == FAMILY else UNKNOWN
            if column != PARTICIPANT and value.strip().lower() in unknown:
                own[column] = ""
                read_as_unknown[f"{value.strip()} under {column}"] += 1
        if FLOAT.fullmatch(own.get(FAMILY, "")):
            own[FAMILY] = _integer_of(own[FAMILY])
        known.append(own)
    warnings = []
    if read_as_unknown:
        warnings.append(f"read as n/a: {_some(sorted(read_as_unknown))}: {path}")
    members: dict[str, set[str]] = {}
    for participant, row in zip(ids, known, strict=True):
        members.setdefault(row.get(FAMILY, ""), set()).add(participant)
    members.pop("", None)
    large = [name for name, own in members.items() if len(own) > MAX_FAMILY]
    warnings += [
        f"family {name} has {counted(len(members[name]), 'participant')}, all in one split; "
        f"expected n/a where no family is known: {path}"
        for name in large[:N_SHOWN]
    ]
    return known, warnings


def columns_passed_over(
    rows: Sequence[Mapping[str, str]], columns: Sequence[str], path: Path
) -> list[str]:
    """Say which columns of a table a cohort does not take, if they hold anything: one line."""
    held = [name for name in columns if any(row.get(name, "") for row in rows)]
    if not held:
        return []
    what = f"column{'s' * (len(held) > 1)} {' and '.join(held)}"
    why = "a split is drawn by family or participant, a hemisphere is what names of files say"
    return [f"{what} of the table not used ({why}): {path}"]


def refuse_pointer(path: Path) -> None:
    """Refuse a table that is a dangling link, or only points to one.

    Raises:
        InputError: it says which.
    """
    if fault := fault_of(path):
        raise InputError(f"{fault}: {path}")


def require_columns(rows: Sequence[Mapping[str, str]], columns: Sequence[str], path: Path) -> None:
    """Refuse a table without these columns.

    Raises:
        InputError: it says which columns there are.
    """
    if rows and set(columns) <= set(rows[0]):
        return
    got = ", ".join(rows[0]) if rows else "no row"
    raise InputError(f"expected the columns {' and '.join(columns)}, got {got}: {path}")


def read_excluded(path: Path) -> set[str]:
    """Ids that a table of quality control excludes.

    Args:
        path: table with ``participant_id`` and ``qc``: 1, pass, ok or yes keeps a participant; 0,
            fail, exclude or no leaves it out; empty keeps it.

    Raises:
        InputError: other columns or words, or two verdicts on one participant.
    """
    refuse_pointer(path)
    rows = read_tsv(path)
    require_columns(rows, (PARTICIPANT, "qc"), path)
    fails: dict[str, bool] = {}
    ids, _ = participant_ids(rows, path)
    for number, (participant, row) in enumerate(zip(ids, rows, strict=True), start=2):
        verdict = row["qc"].strip().lower()
        if verdict not in QC_FAIL | QC_PASS:
            expected = ", ".join(sorted((QC_PASS | QC_FAIL) - {""}))
            raise InputError(
                f"line {number}: qc is {row['qc']!r}, expected one of {expected}: {path}"
            )
        if fails.setdefault(participant, verdict in QC_FAIL) != (verdict in QC_FAIL):
            raise InputError(
                f"{participant} passes in one row and fails in another; a participant is kept or "
                f"left out whole: {path}"
            )
    return {participant for participant, is_out in fails.items() if is_out}


def refuse_unknown(
    asked: Iterable[str], there: Collection[str], where: str, *, what: str = ""
) -> None:
    """Refuse ids that were named and are nobody's.

    Args:
        asked: ids in letters and digits.
        there: those of the source.
        where: they were looked for.
        what: was asked, put before the message.

    Raises:
        InputError: some are not there.
    """
    unknown = sorted(set(asked) - set(there))
    if unknown:
        alike = differing_slightly(unknown, there)
        reason = "; ".join([f"no volume of participant {_some(unknown)} in {where}", *alike])
        raise InputError(what + reason)


def perhaps_one_person(families: Mapping[str, str]) -> list[str]:
    """Say which ids may be one person's, who would be in two splits: at most one line.

    Those that only a visit tells apart (``OAS1_0001_MR1``), and those that only zeros or letter
    case do.

    Args:
        families: id → family, empty where none is known.
    """
    groups: dict[str, list[str]] = {}
    for participant in sorted(families):
        match = VISIT.fullmatch(participant)
        groups.setdefault(_core(bids_label(match["person"] if match else participant)), []).append(
            participant
        )
    alike = [
        ids
        for ids in groups.values()
        if len(ids) > 1 and ("" in (own := {families[one] for one in ids}) or len(own) > 1)
    ]
    if not alike:
        return []
    cases = counted(len(alike), "such case")
    return [
        f"{' and '.join(alike[0][:N_SHOWN])} may be one person ({cases}), who would be in two "
        "splits: give their rows one family, or write ids alike"
    ]


def differing_slightly(labels: Iterable[str], others: Collection[str]) -> list[str]:
    """Say which ids differ from others by zeros, case or a ``sub`` alone: at most one line."""
    by_core: dict[str, str] = {}
    for other in sorted(others):
        by_core.setdefault(_core(other), other)
    for label in labels:
        alike = by_core.get(_core(label), label)
        if alike != label:
            return [f"{label} and {alike} differ by zeros or letter case alone: write ids alike"]
    return []


def _core(label: str) -> str:
    """Id without what programs change in it."""
    return re.sub(r"(?<!\d)0+(?=\d)", "", label.lower().removeprefix("sub"))


def _some(labels: Sequence[str]) -> str:
    return ", ".join(labels[:N_SHOWN]) + (", …" if len(labels) > N_SHOWN else "")
