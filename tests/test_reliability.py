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
from foldnorm.preprocessing.core.files import write_text

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
    left = tmp_path / ".a[1].json.x7k2.tmp"
    other = tmp_path / ".b.json.x7k2.tmp"
    left.touch()
    other.touch()
    write_text(tmp_path / "a[1].json", "{}")
    assert not left.exists()
    assert other.exists()
