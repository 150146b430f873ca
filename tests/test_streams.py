"""Printing to a terminal of few letters, to nobody, to a full disk; and names that are no text."""

import json
import math
import os
import subprocess
import sys

import numpy as np
import pytest
from conftest import skeleton_volume

from foldnorm.preprocessing.core.files import json_content, numbers_of, read_json, write_json
from foldnorm.preprocessing.io.volumes import write_labels

FOLDNORM = [sys.executable, "-m", "foldnorm.pipeline.cli"]


def run(script, **environment):
    """Run a line of a shell, ``$FOLDNORM`` being the command; its end, and what was said."""
    own = {"FOLDNORM": " ".join(FOLDNORM), "OMP_NUM_THREADS": "1", **environment}
    return subprocess.run(["bash", "-c", script], env={**os.environ, **own}, check=False,
                          capture_output=True, timeout=300)  # fmt: skip


@pytest.mark.parametrize(
    ("script", "code"),
    [
        ("$FOLDNORM models | true; exit ${PIPESTATUS[0]}", 141),
        ("$FOLDNORM inspect nowhere | true; exit ${PIPESTATUS[0]}", 2),
        ("$FOLDNORM preprocess nowhere -o /proc/x | true; exit ${PIPESTATUS[0]}", 1),
        ("$FOLDNORM --help | true; exit ${PIPESTATUS[0]}", 0),
        ("$FOLDNORM dance 2>&1 | true; exit ${PIPESTATUS[0]}", 2),
        ("$FOLDNORM models >&-", 0),
        ("$FOLDNORM inspect nowhere 2>&-", 2),
        ("$FOLDNORM inspect nowhere >&- 2>&-", 2),
        ("$FOLDNORM models > /dev/full", 1),
    ],
)
def test_who_reads_may_leave(script, code):
    done = run(script)
    assert done.returncode == code
    said = done.stderr.decode()
    assert "Traceback" not in said
    assert "Exception ignored" not in said
    assert len(said.splitlines()) <= 1


@pytest.mark.parametrize(
    "environment",
    [{"LC_ALL": "C"}, {"LANG": "C", "LC_ALL": "", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
     {"PYTHONIOENCODING": "ascii"}, {"PYTHONIOENCODING": "latin-1"}],
)  # fmt: skip
def test_every_name_can_be_printed(tmp_path, environment):
    source = os.fsencode(tmp_path) + b"/a\xff\xe2\x88\x92"
    os.makedirs(source)  # noqa: PTH103  # of a name that is no text
    for n in range(2):
        whole = tmp_path / f"sub-{n}.nii.gz"
        write_labels(whole, skeleton_volume(n), [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0],
                                                 [0, 0, 0, 1]])  # fmt: skip
        whole.rename(os.fsdecode(source + b"/" + os.fsencode(whole.name)))
    with open(source + b"/sub-bad\xe9.nii.gz", "wb") as stream:  # noqa: PTH123
        stream.write(b"no volume")
    script = f'$FOLDNORM preprocess "$PLACE" -o {tmp_path / "out"} --n-procs 1'
    done = run(script, PLACE=os.fsdecode(source), **environment)
    assert done.returncode == 1
    assert b"2 volumes done" in done.stdout
    assert b"sub-bad" in done.stderr
    sidecar = read_json(tmp_path / "out/sub-0/anat/sub-0_dseg.json")
    assert os.fsencode(sidecar["Sources"][0]) == source + b"/sub-0.nii.gz"


def test_a_name_that_is_no_text_is_read_back_from_json(tmp_path):
    name = os.fsdecode(b"caf\xe9")
    write_json(tmp_path / "a.json", {"name": name, "−": "é"})
    assert read_json(tmp_path / "a.json") == {"name": name, "−": "é"}
    assert "−" in (tmp_path / "a.json").read_text(encoding="utf-8")
    assert json.loads((tmp_path / "a.json").read_bytes())["name"] == name


def test_numbers_that_are_not_finite_are_null(tmp_path):
    def refuse(word):
        raise ValueError(f"no JSON: {word}")

    content = {"a": math.nan, "b": [1.5, (np.float64("inf"), -math.inf)], "c": {"d": True, "e": 7}}
    write_json(tmp_path / "a.json", content)
    found = json.loads((tmp_path / "a.json").read_text(), parse_constant=refuse)
    assert found == {"a": None, "b": [1.5, [None, None]], "c": {"d": True, "e": 7}}
    assert json_content(content) == found == read_json(tmp_path / "a.json")
    assert str(numbers_of({"a": None, "b": 1.5})) == "{'a': nan, 'b': 1.5}"
