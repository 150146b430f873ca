"""Files changed at random, through commands that read them: only our own error, and no harm.

For a minute, always with the same changes: what fails is of the change at hand. ``make fuzz`` goes
on for an hour, or as long as ``FOLDNORM_FUZZ_SECONDS`` says, with others each time.
"""

import contextlib
import gzip
import io
import os
import shutil
import time
import zipfile

import pytest
from corpus import FILES, FOLDERS, replace, run, written_input
from corpus_fixtures import fixture_of, places_of
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

ASKED = os.environ.get("FOLDNORM_FUZZ_SECONDS")
SECONDS = float(ASKED or 60)
ALL = {**FILES, **FOLDERS}
APPLYING = ("translate", "label-sulci", "restore", "classify")  # a model that has to be trained
# Of the commands that read a folder of ours, those that take no training.
QUICK = ("embed", "score", "view", "report", "combine", "generate", "preprocess like it")
COMMANDS = {
    name: [c for c in kind.commands if c in QUICK or (name in FILES and c not in APPLYING)]
    for name, kind in ALL.items()
}
TOKENS = (
    *(b"\t", b"\n", b"\r", b'"', b"\0", b"\xff", b"\xc3\xa9", b" ", b",", b"/", b"\\", b"..", b":"),
    *(b"nan", b"inf", b"1e999", b"-1", b"0", b"1.5", b"99999999999999999999", b"0x10", b"007"),
    *(b"{", b"}", b"[", b"]", b"- ", b"&a *a", b"!!python/object:os.system", b"null", b"true"),
    *(b"n/a", b"../../PWNED", b"/etc/passwd", b"sub-1", b"\xe2\x80\xae", b"{}", b"[]", b"on: no"),
)
GZIP, ZIP = b"\x1f\x8b", b"PK\x03\x04"


class TimeIsUp(BaseException):
    """The end of a test that goes on until then; Hypothesis lets it pass."""


@st.composite
def changed(draw, whole):
    """Some bytes, a few times overwritten, cut, doubled, or with a token put in."""
    content = bytearray(whole)
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.one_of(st.integers(0, min(400, len(content))),
                               st.integers(0, len(content))))  # fmt: skip
        length = draw(st.integers(1, 16))
        way = draw(st.sampled_from(("write", "put in", "token", "leave out", "double", "cut")))
        if way == "write":
            content[place : place + length] = draw(st.binary(min_size=length, max_size=length))
        elif way == "put in":
            content[place:place] = draw(st.binary(max_size=length))
        elif way == "token":
            content[place : place + draw(st.integers(0, 4))] = draw(st.sampled_from(TOKENS))
        elif way == "leave out":
            del content[place : place + length]
        elif way == "double":
            content[place:place] = content[place : place + 20 * length]
        elif draw(st.booleans()):
            del content[place:]
    return bytes(content)


@st.composite
def damaged(draw, whole):
    """A file changed as it lies on disk, or what is packed in it, and packed again."""
    if whole.startswith(GZIP) and draw(st.booleans()):
        return gzip.compress(draw(changed(gzip.decompress(whole))), 1)
    if whole.startswith(ZIP) and draw(st.booleans()):
        return repacked(draw, whole)
    return draw(changed(whole))


def repacked(draw, whole):
    """An archive in which one member was changed."""
    stream = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(whole)) as old, zipfile.ZipFile(stream, "w") as new:
        victim = draw(st.sampled_from(old.namelist()))
        for name in old.namelist():
            content = old.read(name)
            new.writestr(name, draw(changed(content)) if name == victim else content)
    return stream.getvalue()


@pytest.mark.slow
@pytest.mark.timeout(0)
@pytest.mark.usefixtures("no_waiting")
@pytest.mark.parametrize("name", [name for name, commands in COMMANDS.items() if commands])
def test_no_change_of_a_file_is_more_than_an_error_of_ours(request, tmp_path, name):
    kind = ALL[name]
    fixture = fixture_of(request, kind)
    places = {c: places_of(request, kind.commands[c]) for c in COMMANDS[name]}
    whole = written_input(kind, tmp_path / "good", fixture).read_bytes()
    end = time.monotonic() + SECONDS / len(COMMANDS)
    found = []  # also what time ends the shrinking of

    @settings(
        max_examples=1_000_000,
        phases=[Phase.generate, Phase.shrink],
        database=None,
        derandomize=ASKED is None,
        suppress_health_check=list(HealthCheck),
    )
    @given(content=damaged(whole), command=st.sampled_from(COMMANDS[name]))
    def fuzz(content, command):
        if time.monotonic() > end:
            raise TimeIsUp
        root = tmp_path / "example"
        file = written_input(kind, root / "in", fixture)
        replace(file, content)
        own = {"source": root / "in", "file": file, "out": root / "out", **places[command]}
        try:
            run(kind.commands[command], own, tmp_path)
        except BaseException as error:
            found.append(error)
            raise
        finally:
            shutil.rmtree(root)

    with contextlib.suppress(TimeIsUp):
        fuzz()
    if found:
        raise found[-1]
