"""Where no cache can be written and nobody has a name, all works, and nothing frightens."""

import getpass
import json
import os
import subprocess
import sys

import pytest
from conftest import skeleton_source

from foldnorm.environment import TORCH_CACHE, prepare_environment

COMMANDS = """
import json, sys
if sys.argv[1] == "nobody":
    import pwd
    def unknown(number):
        raise KeyError(f"getpwuid(): uid not found: {number}")
    pwd.getpwuid = unknown  # as in a container that runs under any number
from foldnorm.pipeline.cli import main
for words in json.loads(sys.argv[2]):
    code = main([*words, "--quiet"])
    if code:
        sys.exit(f"{words}: {code}")
"""
PLACES = (
    "HOME",
    "XDG_CACHE_HOME",
    "XDG_CONFIG_HOME",
    "MPLCONFIGDIR",
    "NUMBA_CACHE_DIR",
    TORCH_CACHE,
)
NAMES = ("LOGNAME", "USER", "LNAME", "USERNAME")


def test_a_cache_of_torch_that_cannot_be_made_is_not_asked_for(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv(TORCH_CACHE, str(tmp_path / "file/cache"))
    prepare_environment()
    assert TORCH_CACHE not in os.environ
    monkeypatch.setenv(TORCH_CACHE, str(tmp_path / "cache"))
    prepare_environment()
    assert os.environ[TORCH_CACHE] == str(tmp_path / "cache")


@pytest.mark.parametrize("error", [KeyError("uid not found"), OSError("No username set")])
def test_who_has_no_name_gets_one(monkeypatch, error):
    def nobody(number):
        raise error

    for name in NAMES:
        monkeypatch.setenv(name, "")  # as if it was not set; and set back in the end
    monkeypatch.setattr("pwd.getpwuid", nobody)
    with pytest.raises((KeyError, OSError)):  # by the version of Python
        getpass.getuser()
    prepare_environment()
    assert getpass.getuser() == f"uid_{os.getuid()}"


@pytest.mark.slow
@pytest.mark.parametrize("who", ["unwritable", "nobody"])
def test_no_command_needs_a_home(small_cohort, tmp_path, who):
    source, run, scores = skeleton_source(tmp_path / "source", 2), tmp_path / "run", tmp_path / "s"
    (tmp_path / "file").touch()
    environment = {key: v for key, v in os.environ.items() if key not in (*PLACES, *NAMES)}
    if who == "unwritable":
        environment |= dict.fromkeys(PLACES, str(tmp_path / "file/folder"))
    commands = [
        ["preprocess", source, "-o", tmp_path / "cohort", "--n-procs", "2"],
        ["train", "autoencoder", small_cohort.folder, "-o", run, "--training.steps", "3",
         "--device", "cpu"],
        ["score", run, small_cohort.folder, "-o", scores, "--maps", "--device", "cpu"],
        ["report", small_cohort.folder, run, scores, "-o", tmp_path / "report.html"],
    ]  # fmt: skip
    words = json.dumps([[str(word) for word in command] for command in commands])
    done = subprocess.run(
        [sys.executable, "-c", COMMANDS, who, words],
        capture_output=True, text=True, env=environment,
    )  # fmt: skip
    strange = [o for o in done.stderr.splitlines() if not o.startswith("foldnorm: warning: ")]
    assert (done.returncode, done.stdout, strange) == (0, "", [])
