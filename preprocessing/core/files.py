"""Files written whole or not at all: to a temporary name first, then renamed."""

import csv
import glob
import hashlib
import json
import os
import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from foldnorm.preprocessing.core.errors import InputError

Item = TypeVar("Item")
Made = TypeVar("Made")


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; rename it onto ``path`` if the block succeeds.

    On any error the temporary file is removed and ``path`` is as it was. What a killed writer of
    the same ``path`` left is removed too: a path has one writer at a time.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    for stale in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
        stale.unlink(missing_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_bytes(path: Path, content: bytes) -> None:
    """Write ``content`` to ``path`` atomically."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 ``text`` to ``path`` atomically."""
    write_bytes(path, text.encode())


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write ``content`` as indented JSON, keys in the order given."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object; an unreadable file is an `InputError` that names it."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"no such file: {path}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"not readable as JSON ({error}): {path}") from error
    if not isinstance(content, dict):
        raise InputError(f"expected a JSON object, got {type(content).__name__}: {path}")
    return content


def write_tsv(path: Path, rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> None:
    """Write a BIDS table: tab separated, one header line, ``n/a`` for what is missing."""
    lines = ["\t".join(columns)]
    for row in rows:
        lines.append("\t".join(_cell(row.get(column)) for column in columns))
    write_text(path, "\n".join(lines) + "\n")


def read_tsv(path: Path) -> list[dict[str, str]]:
    """Read a table of strings, tab separated (comma for ``.csv``); ``n/a`` becomes ``""``."""
    delimiter = "," if path.suffix == ".csv" else "\t"
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream, delimiter=delimiter)
            rows = [
                {k: ("" if v in (None, "n/a") else v) for k, v in row.items() if k is not None}
                for row in reader
            ]
    except FileNotFoundError:
        raise InputError(f"no such file: {path}") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"not readable as a table ({error}): {path}") from error
    return rows


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
    if isinstance(value, float):
        return "n/a" if value != value else f"{value:.6g}"
    return str(value).replace("\t", " ").replace("\n", " ")


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
