"""Files written whole or not at all: to a temporary name first, then renamed."""

import csv
import glob
import hashlib
import json
import math
import os
import re
import socket
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from numbers import Integral, Real
from pathlib import Path
from typing import Any, TypeVar

from foldnorm.preprocessing.core.errors import InputError

Item = TypeVar("Item")
Made = TypeVar("Made")
ANNEXED = "not fetched (git-annex: datalad get, or git annex get)"
BREAKS = re.compile(r"[\t\r\n\0]+")  # what no cell of a tab-separated table can hold
UNKNOWN_CELLS = frozenset({"", "n/a"})  # of a table; `read_tsv` makes them ""
OLD = 86_400.0  # seconds after which nobody on another machine still writes a file


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; rename it onto ``path`` if the block succeeds.

    On any error the temporary file is removed and ``path`` is as it was. What a killed writer of
    the same ``path`` left is removed too: a temporary file is named after the machine and process
    that write it, and those of the living stay.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_what_was_left(path)
    prefix = f".{path.name}.{_machine()}.{os.getpid()}."
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=prefix, suffix=".tmp")
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def refuse_missing(path: Path) -> None:
    """Refuse a path at which nothing lies.

    Raises:
        InputError: there is nothing.
    """
    if not path.exists():
        raise InputError(f"no such file or folder: {path}")


def write_bytes(path: Path, content: bytes) -> None:
    """Write ``content`` to ``path`` atomically."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def write_text(path: Path, text: str) -> None:
    r"""Write UTF-8 ``text`` to ``path`` atomically.

    A byte of a file's name that is no UTF-8 is written as ``\udcxx``, which JSON reads back.
    """
    write_bytes(path, text.encode(errors="backslashreplace"))


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write ``content`` as indented JSON, keys in the order given; see `to_json`."""
    write_text(path, to_json(content, indent=2) + "\n")


def to_json(content: Any, **layout: Any) -> str:
    """Return JSON of content: null for numbers that are not finite, which JSON does not know.

    Args:
        content: mappings, sequences, text, numbers, booleans and None.
        layout: more arguments of `json.dumps`.

    Example:
        >>> to_json({"dice": [0.5, float("nan")]})
        '{"dice": [0.5, null]}'
    """
    return json.dumps(_finite(content), ensure_ascii=False, allow_nan=False, **layout)


def _finite(content: Any) -> Any:
    if isinstance(content, float):
        return content if math.isfinite(content) else None
    if isinstance(content, Mapping):
        return {key: _finite(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_finite(value) for value in content]
    return content


def json_content(content: Any) -> Any:
    """Return content as it is after it was written as JSON and read again."""
    return json.loads(to_json(content))


def numbers_of(content: Mapping[str, float | None]) -> dict[str, float]:
    """Return numbers by name out of a JSON file: NaN for null, see `to_json`."""
    return {name: math.nan if value is None else value for name, value in content.items()}


class Record(dict[str, Any]):
    """Object of a JSON file, or row of a table; what it lacks is an `InputError` with the file.

    Args:
        content: of the object, or cells by column.
        path: of the file.
    """

    __slots__ = ("_path",)  # tables of populations have millions of rows

    def __init__(self, content: Mapping[str, Any], path: Path | None = None) -> None:
        super().__init__(content)
        self._path = path  # hidden: templates take an attribute before a column

    def __missing__(self, key: str) -> Any:
        raise InputError(f"damaged, or of another release: it lacks {key!r}: {self._path}")

    def __or__(self, other: Any) -> Any:
        return Record({**self, **other}, self._path)

    def __ror__(self, other: Any) -> Any:
        return Record({**other, **self}, self._path)


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object; an unreadable file, or a key that is not there, is an `InputError`."""
    try:
        content = json.loads(
            path.read_text(encoding="utf-8"), object_hook=lambda found: Record(found, path)
        )
    except FileNotFoundError:
        raise InputError(f"no such file: {path}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise unreadable(path, "JSON", error) from error
    if not isinstance(content, dict):
        raise InputError(f"expected a JSON object, got {type(content).__name__}: {path}")
    return content


def json_or_nothing(path: Path) -> dict[str, Any]:
    """Read a JSON object that is made anew if need be; empty if it is not there, or is damaged."""
    try:
        return read_json(path)
    except InputError:
        return {}


def unreadable(path: Path, kind: str, error: Exception) -> InputError:
    """Error of a file of ours that holds something else: not fetched, empty, or damaged.

    Args:
        path: of the file.
        kind: of content that was expected.
        error: that reading it raised.
    """
    reason = content_fault(path) or re.sub(r"\x1b\[[0-9;]*m", "", str(error)).split("\n")[0]
    return InputError(f"not readable as {kind} ({reason or type(error).__name__}): {path}")


def content_fault(path: Path) -> str:
    """Return why a file cannot be what its name says: empty, or a pointer to what was not fetched.

    Empty text if nothing of that is so.
    """
    try:
        with path.open("rb") as stream:
            begin = stream.read(64)
    except OSError as error:
        is_annexed = path.is_symlink() and "annex" in path.readlink().parts
        return ANNEXED if is_annexed else error.strerror or ""
    if begin.startswith(b"version https://git-lfs"):
        return "not fetched (git-LFS: git lfs pull)"
    if begin.startswith(b"/annex/objects/"):
        return ANNEXED
    return "" if begin else "empty file"


def write_tsv(path: Path, rows: Iterable[Mapping[str, Any]], columns: Sequence[str]) -> None:
    """Write a BIDS table: tab separated, one header line, ``n/a`` for what is missing.

    Tabs and line breaks in cells and names of columns become a space.

    Raises:
        InputError: two columns have the same name then.
    """
    with tsv_writer(path, columns) as write_row:
        for row in rows:
            write_row(row)


@contextmanager
def tsv_writer(path: Path, columns: Sequence[str]) -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """Yield what writes one row of a table, as `write_tsv` does; the table is whole or not there.

    For tables that are too long to be held, such as that of the folds of a population.
    """
    with (
        atomic_path(path) as temporary,
        temporary.open("w", encoding="utf-8", errors="backslashreplace", newline="\n") as stream,
    ):
        stream.write("\t".join(_distinct(map(_cell, columns), path)) + "\n")

        def write_row(row: Mapping[str, Any]) -> None:
            stream.write("\t".join(_cell(row.get(column)) for column in columns) + "\n")

        yield write_row


def read_tsv(path: Path) -> list[dict[str, str]]:
    """Read a table of strings, tab separated (comma for ``.csv``); ``n/a`` becomes ``""``.

    Tab-separated tables know no quoting (BIDS); in ``.csv`` a cell may stand in double quotes.
    A row that is asked for a column that the table lacks raises an `InputError`.

    Raises:
        InputError: no such file, no table, a column given twice, or a row of another length.
    """
    is_csv = path.suffix.lower() == ".csv"
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            reader = (
                csv.reader(stream, strict=True)
                if is_csv
                else csv.reader(stream, delimiter="\t", quoting=csv.QUOTE_NONE)
            )
            return _rows((cells for cells in reader if any(cells)), lambda: reader.line_num, path)
    except FileNotFoundError:
        raise InputError(f"no such file: {path}") from None
    except (OSError, UnicodeError, csv.Error) as error:
        raise unreadable(path, "a table", error) from error


def _rows(
    lines: Iterator[Sequence[str]], number: Callable[[], int], path: Path
) -> list[dict[str, str]]:
    """Rows of a table, made as they are read; what is equal in the row before is kept once."""
    header: list[str] | None = None
    found: list[dict[str, str]] = []
    for cells in lines:
        if any("\0" in cell for cell in cells):
            raise InputError(f"not readable as a table (it holds a zero byte): {path}")
        if header is None:
            header = _header(cells, path)
            continue
        row = _row(cells, header, number(), path)
        before = found[-1] if found else {}
        row.update((name, before[name]) for name in before if before[name] == row[name])
        found.append(row)
    return found


def number(row: Mapping[str, Any], column: str) -> float:
    """Read a cell of a table as a number.

    Raises:
        InputError: it holds none; or the table lacks the column, see `read_tsv`.
    """
    return _parsed(row, column, float, "a number")


def whole_number(row: Mapping[str, Any], column: str) -> int:
    """Read a cell of a table as a whole number; the errors are those of `number`."""
    return _parsed(row, column, int, "a whole number")


def _parsed(
    row: Mapping[str, Any], column: str, parse: Callable[[Any], Made], expected: str
) -> Made:
    cell = row[column]
    try:
        return parse(cell)
    except (TypeError, ValueError):
        place = f": {row._path}" if isinstance(row, Record) else ""
        raise InputError(
            f"expected {expected} under {column}, got {cell or 'n/a'!r}{place}"
        ) from None


def _header(cells: Sequence[str], path: Path) -> list[str]:
    """Names of the columns, none of them twice, on one line as `tsv_writer` writes them."""
    names = list(map(_text, cells))
    while names and not names[-1]:  # of empty columns that a spreadsheet leaves at the end
        names.pop()
    return _distinct(names, path)


def _distinct(found: Iterable[str], path: Path) -> list[str]:
    """Names of columns, none of them twice."""
    names = list(found)
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InputError(f"column {twice[0]!r} is there twice: {path}")
    return names


def _row(cells: Sequence[str], header: Sequence[str], number: int, path: Path) -> dict[str, str]:
    """Cells by column; empty cells beyond the last column do not count."""
    beyond = any(cells[len(header) :])
    if beyond or len(cells) < len(header):
        raise InputError(
            f"line {number}: {len(cells)} cells, expected {len(header)} as in the header: {path}"
        )
    named = zip(header, cells, strict=False)
    return Record({name: "" if cell in UNKNOWN_CELLS else cell for name, cell in named}, path)


def sha256(content: bytes) -> str:
    """Hexadecimal SHA-256 of ``content``."""
    return hashlib.sha256(content).hexdigest()


def hashed(name: str, salt: str) -> str:
    """Return the salted SHA-256 that replaces a participant's name in what is shared."""
    return sha256(f"{salt}{name}".encode())


def sha256_of(path: Path) -> str:
    """Hexadecimal SHA-256 of a file; a missing one is an `InputError` that names it."""
    try:
        return sha256(path.read_bytes())
    except FileNotFoundError:
        raise InputError(f"no such file: {path}") from None


def threaded_map(
    function: Callable[[Item], Made], items: Iterable[Item], n_threads: int
) -> Iterator[Made]:
    """Yield ``function`` of each item, made by threads, never more than a few ahead."""
    with ThreadPoolExecutor(n_threads) as pool:
        ahead: deque[Future[Made]] = deque()
        for item in items:
            ahead.append(pool.submit(function, item))
            if len(ahead) > n_threads:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()


def _cell(value: Any) -> str:
    if value is None or value == "":
        return "n/a"
    if isinstance(value, Real) and not isinstance(value, Integral):  # numpy's too
        return "n/a" if value != value else f"{value:.6g}"
    return _text(value)


def _text(value: Any) -> str:
    """Text of a cell or of a column's name, on one line."""
    return BREAKS.sub(" ", str(value))


def _machine() -> str:
    """Name this machine in a few letters."""
    return sha256(socket.gethostname().encode())[:8]


def _remove_what_was_left(path: Path) -> None:
    """Remove temporary files of ``path`` whose writers have ended; of other machines, old ones."""
    for left in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
        machine, _, process = left.name.removeprefix(f".{path.name}.").partition(".")
        number = process.partition(".")[0]
        with suppress(OSError):  # another process removes it, too
            if machine == _machine() and number.isdigit():
                is_left = not is_alive(int(number))
            else:
                is_left = time.time() - left.stat().st_mtime > OLD
            if is_left:
                left.unlink()


def is_alive(process: int) -> bool:
    """Say if a process of this machine still runs; one that waits to be reaped does not.

    On Windows, where asking so would stop it, each is taken to run.
    """
    if sys.platform == "win32":
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # of another user
        pass
    try:
        state = Path(f"/proc/{process}/stat").read_bytes().rpartition(b")")[2].split()[0]
    except OSError:  # not Linux, or it has ended meanwhile
        return True
    return state != b"Z"


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
