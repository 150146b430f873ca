"""Killed at any moment, started again: the cohort is that of an unbroken run, byte for byte."""

import os
import random
import signal
import subprocess
import sys
import time

import pytest
from conftest import skeleton_source

from foldnorm.pipeline.cli import main
from foldnorm.preprocessing.core import files
from foldnorm.preprocessing.core.files import atomic_path, write_text

SUBJECTS, KILLS = 200, 20


def contents(folder):
    """Everything in a folder but what says how long it took."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != "run_report.json"
    }


def finished(out):
    """Number of volumes prepared."""
    return len(list(out.glob("sub-*/anat/*_dseg.json")))


@pytest.mark.slow
def test_twenty_kills_leave_no_trace(tmp_path):
    source = skeleton_source(tmp_path / "source", SUBJECTS)
    words = ["--voxel-size", "1.5", "--n-procs", "2", "--quiet"]
    assert main(["preprocess", str(source), "-o", str(tmp_path / "unbroken"), *words]) == 0
    expected = contents(tmp_path / "unbroken")
    out = tmp_path / "killed"
    command = [sys.executable, "-m", "foldnorm.pipeline.cli", "preprocess", str(source), "-o",
               str(out)]  # fmt: skip
    rng = random.Random(0)
    seen, killed = [0], 0
    for n in range(KILLS):
        process = subprocess.Popen([*command, *words], start_new_session=True)
        target = seen[-1] + rng.randint(1, 12)
        while process.poll() is None and finished(out) < target:
            time.sleep(0.002)
        time.sleep(rng.uniform(0.0, 0.02))
        if process.poll() is None:
            killed += 1
            # The whole node goes down, or only the first process, whose workers live on a while.
            (os.killpg if n % 2 else os.kill)(process.pid, signal.SIGKILL)
        process.wait()
        seen.append(finished(out))
    assert killed >= KILLS // 2
    assert len(set(seen)) > KILLS // 2
    assert subprocess.run([*command, *words], check=False).returncode == 0
    assert contents(out) == expected


def test_what_a_killed_writer_left_is_removed_by_the_next(tmp_path):
    gone = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"],
                          capture_output=True, text=True, check=True)  # fmt: skip
    machine, dead = files._machine(), int(gone.stdout)
    left = tmp_path / f".a[1].json.{machine}.{dead}.x7k2.tmp"
    old = tmp_path / f".a[1].json.elsewhere.{dead}.x7k2.tmp"
    others = [tmp_path / f".a[1].json.{machine}.{os.getpid()}.x7k2.tmp",
              tmp_path / f".b.json.{machine}.{dead}.x7k2.tmp",
              tmp_path / f".a[1].json.elsewhere.{dead}.y.tmp"]  # fmt: skip
    for path in (left, old, *others):
        path.touch()
    os.utime(old, (0, 0))
    write_text(tmp_path / "a[1].json", "{}")
    assert sorted(tmp_path.glob(".*")) == sorted(others)


def test_writers_of_one_file_leave_each_other_alone(tmp_path):
    path = tmp_path / "shared.json"
    with atomic_path(path) as first:
        first.write_text("first")
        write_text(path, "second")
    assert path.read_text() == "first"
    assert list(tmp_path.iterdir()) == [path]
