"""A system without what only POSIX has: everything can be imported, and the first commands run."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import skeleton_source

# What follows is run before foldnorm is imported. Only its own modules see another system: other
# packages have their own builds for each.
ELSEWHERE = '''
import builtins, importlib, os, pkgutil, select, signal, sys

MISSING = {"resource", "fcntl", "pwd", "grp", "termios", "posix", "syslog"}
WITHOUT = {
    "os": {"killpg", "getpgid", "setsid", "fork", "sched_getaffinity", "getuid", "geteuid",
           "pread", "pwrite", "statvfs", "sysconf", "getloadavg", "uname", "mkfifo", "WNOHANG"},
    "select": {"poll", "epoll", "POLLERR", "POLLHUP"},
    "signal": {"SIGUSR1", "SIGUSR2", "SIGCHLD", "SIGKILL", "SIGHUP", "SIGPIPE", "SIGALRM",
               "SIGSTOP", "alarm", "setitimer", "pthread_sigmask", "sigwait"},
    "sys": set(),
}


class Elsewhere:
    """A module as it is on that system."""

    def __init__(self, module, without):
        object.__setattr__(self, "_own", (module, without))

    def __getattr__(self, name):
        module, without = self._own
        if name in without:
            raise AttributeError(f"module {module.__name__!r} has no attribute {name!r}")
        return "win32" if (module.__name__, name) == ("sys", "platform") else getattr(module, name)

    def __setattr__(self, name, value):
        setattr(self._own[0], name, value)


STANDINS = {name: Elsewhere(sys.modules[name], without) for name, without in WITHOUT.items()}
import_module = builtins.__import__


def elsewhere(name, globals=None, locals=None, fromlist=(), level=0):
    importer = (globals or {}).get("__name__", "")
    if importer.split(".")[0] == "foldnorm" and level == 0:
        if name in MISSING:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        if name in STANDINS:
            return STANDINS[name]
    return import_module(name, globals, locals, fromlist, level)


builtins.__import__ = elsewhere
'''
EVERYTHING = """
import foldnorm
failed = []
for module in pkgutil.walk_packages(foldnorm.__path__, "foldnorm."):
    try:
        importlib.import_module(module.name)
    except Exception as error:
        failed.append(f"{module.name}: {error}")
assert not failed, failed
assert sys.modules["foldnorm.preprocessing.core.locks"].fcntl is None
assert sys.modules["foldnorm.pipeline.cli"].select is STANDINS["select"]
"""
COMMANDS = """
from foldnorm.pipeline.cli import main
for line in sys.stdin:
    assert main(line.split()) == 0, line
"""


def run_elsewhere(script: str, said: str = "") -> subprocess.CompletedProcess:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "NO_COLOR": "1"}
    return subprocess.run(
        [sys.executable, "-c", ELSEWHERE + script],
        input=said, text=True, capture_output=True, env=environment, check=False,
    )  # fmt: skip


@pytest.mark.slow
def test_every_module_can_be_imported_without_posix():
    done = run_elsewhere(EVERYTHING)
    assert done.returncode == 0, done.stderr[-2000:]


def test_a_cohort_is_prepared_and_scored_without_posix(tmp_path: Path):
    source = skeleton_source(tmp_path / "source", 12)
    cohort = tmp_path / "cohort"
    words = [
        f"preprocess {source} -o {cohort} --voxel-size 1.5 --pad 16,16,16 --n-procs 1 --quiet",
        f"score void {cohort} --reference {cohort} -o {tmp_path / 'scores'} --quiet",
    ]
    done = run_elsewhere(COMMANDS, "\n".join(words))
    assert done.returncode == 0, done.stderr[-2000:]
    assert (cohort / "volumes.npy").is_file()
    assert len((tmp_path / "scores/scores.tsv").read_text().splitlines()) == 13
    assert not list(tmp_path.rglob(".foldnorm.lock"))


@pytest.mark.slow
def test_a_model_is_trained_without_posix(small_cohort, tmp_path: Path):
    tiny = "--training.steps 2 --training.validate_every 1 --training.batch_size 4"
    words = f"train autoencoder {small_cohort.folder} -o {tmp_path} --device cpu --quiet {tiny}"
    done = run_elsewhere(COMMANDS, words)
    assert done.returncode == 0, done.stderr[-2000:]
    assert (tmp_path / "checkpoints/best.ckpt").is_file()


def test_what_is_missing_there_is_missing():
    """Or the tests above would prove nothing."""
    script = "exec('import resource', {'__name__': 'foldnorm.x'})"
    assert "No module named 'resource'" in run_elsewhere(script).stderr
    script = "exec('import select; select.poll()', {'__name__': 'foldnorm.x'})"
    assert "no attribute 'poll'" in run_elsewhere(script).stderr
    script = "exec('import sys; print(sys.platform)', {'__name__': 'foldnorm.x'})"
    assert run_elsewhere(script).stdout.strip() == "win32"
