"""Two processes on one folder: the second is told who is there; the dead hold nothing."""

import os
import signal
import socket
import subprocess
import sys
import time

import pytest
from conftest import skeleton_source

import foldnorm as fn
from foldnorm.pipeline.cli import main
from foldnorm.pipeline.inference.classify import ClassificationResult
from foldnorm.preprocessing.core.errors import InputError
from foldnorm.preprocessing.core.locks import LOCK, held, held_file

HOLD = """
import sys, time
from pathlib import Path
from foldnorm.preprocessing.core.locks import LOCK, held
with held(Path(sys.argv[1]), *sys.argv[2:]):
    print("held", flush=True)
    sys.stdin.read()
"""
FORK = """
import os, sys, time
from pathlib import Path
from foldnorm.preprocessing.core.locks import held
with held(Path(sys.argv[1])):
    if os.fork() == 0:
        time.sleep(3)
        os._exit(0)
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path):
    """A function that starts a process which holds a folder."""
    started = []

    def start(*words, code=HOLD):
        process = subprocess.Popen([sys.executable, "-c", code, *map(str, words)],
                                   stdin=subprocess.PIPE, stdout=subprocess.PIPE)  # fmt: skip
        started.append(process)
        assert process.stdout.readline() == b"held\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_the_second_is_told_who_is_there(holder, tmp_path):
    process = holder(tmp_path)
    begin = time.monotonic()
    with pytest.raises(InputError) as refused, held(tmp_path):
        pass
    assert time.monotonic() - begin < 5
    assert f"process {process.pid} on {socket.gethostname()}" in str(refused.value)
    assert str(tmp_path) in str(refused.value)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_dead_process_holds_nothing(holder, tmp_path, number):
    process = holder(tmp_path)
    process.send_signal(number)
    process.wait()
    assert (tmp_path / LOCK).is_file()
    with held(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []


def test_what_the_children_of_a_dead_process_hold_is_waited_for(holder, tmp_path, caplog):
    process = holder(tmp_path, code=FORK)
    process.kill()
    process.wait()
    with held(tmp_path):
        pass
    assert f"process {process.pid} has died" in caplog.text


def test_it_is_free_again_when_it_has_ended(holder, tmp_path):
    process = holder(tmp_path)
    process.communicate(b"")
    with held(tmp_path), held(tmp_path):  # again within is no matter
        assert [path.name for path in tmp_path.iterdir()] == [LOCK]
    assert list(tmp_path.iterdir()) == []


def test_folders_that_nothing_was_written_to_are_taken_away(tmp_path):
    with held(tmp_path / "a/b"):
        assert (tmp_path / "a/b").is_dir()
    assert list(tmp_path.iterdir()) == []
    with held(tmp_path / "a/b"):
        (tmp_path / "a/b/c").touch()
    assert (tmp_path / "a/b/c").is_file()


def test_locks_of_other_names_do_not_hinder(holder, tmp_path):
    holder(tmp_path, f"{LOCK}.1")
    with held(tmp_path), held(tmp_path, f"{LOCK}.2"):
        names = [LOCK, f"{LOCK}.1", f"{LOCK}.2"]
        assert sorted(path.name for path in tmp_path.iterdir()) == names
        with pytest.raises(InputError, match="is writing there"), held(tmp_path, names[1]):
            pass


@pytest.mark.parametrize("content", [b"", b"x", b"\xff\t\t\t", b"a\tb"])
def test_an_unreadable_record_is_another_process(holder, tmp_path, content):
    holder(tmp_path)
    (tmp_path / LOCK).write_bytes(content)
    with pytest.raises(InputError, match=r"process .*is writing there"), held(tmp_path):
        pass


@pytest.mark.parametrize("command", ["preprocess", "phantom", "images", "skeletonise", "folds"])
def test_every_command_that_writes_a_folder_is_refused(holder, tmp_path, capsys, command):
    source = skeleton_source(tmp_path / "source", 2)
    process = holder(tmp_path / "out")
    words = [] if command == "phantom" else [str(source)]
    assert main([command, *words, "-o", str(tmp_path / "out"), "--quiet"]) == 2
    assert f"process {process.pid} on" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "out").iterdir()] == [LOCK]


@pytest.mark.parametrize(("command", "name"), [("report", "page.html"), ("template", "own.nii.gz")])
def test_every_command_that_writes_a_file_is_refused(holder, tmp_path, capsys, command, name):
    source = skeleton_source(tmp_path / "source", 2)
    out = tmp_path / "out" / name
    process = holder(out.parent, f"{LOCK}.{name}")
    assert main([command, str(source), "-o", str(out), "--quiet"]) == 2
    said = capsys.readouterr().err
    assert f"process {process.pid} on" in said
    assert f"choose another file: {out}" in said
    with held_file(out.with_name("other")), held(out.parent):  # these are free
        assert not out.exists()


def test_functions_of_the_library_are_refused_too(holder, tmp_path):
    source, out = skeleton_source(tmp_path / "source", 2), tmp_path / "out"
    holder(out)
    with pytest.raises(InputError, match="is writing there"):
        fn.preprocess(source, out)
    with pytest.raises(InputError, match="is writing there"):
        ClassificationResult([], (), {}).save(out)
    assert [path.name for path in out.iterdir()] == [LOCK]


WITHOUT_LOCKS = """
import sys
from pathlib import Path
sys.modules["fcntl"] = None  # as on Windows
from foldnorm.pipeline.cli import main
from foldnorm.pipeline.studies.search_journal import journal_lock
print(type(journal_lock(Path(sys.argv[1]))).__name__)
sys.exit(main(sys.argv[2:]))
"""


def test_a_platform_without_locks_goes_without(tmp_path):
    source, out = skeleton_source(tmp_path / "source", 2), tmp_path / "out"
    words = ["preprocess", source, "-o", out, "--n-procs", "1", "--quiet"]
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_LOCKS, *map(str, [tmp_path / "journal", *words])],
        capture_output=True, text=True,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "JournalFileSymlinkLock\n", "")
    assert (out / "volumes.npy").is_file()
    assert not list(out.glob(f"{LOCK}*"))


def test_shards_share_a_folder_but_no_shard_runs_twice(holder, tmp_path, capsys):
    source = skeleton_source(tmp_path / "source", 2)
    out = tmp_path / "out"
    words = ["preprocess", str(source), "-o", str(out), "--n-procs", "1", "--quiet", "--shard"]
    holder(out, f"{LOCK}.1")
    assert main([*words, "1/2"]) == 2
    assert "is writing there" in capsys.readouterr().err
    assert main([*words, "2/2"]) == 0


def test_two_trainings_do_not_share_a_run(holder, small_cohort, tmp_path, capsys):
    holder(tmp_path / "run")
    words = ["train", "autoencoder", str(small_cohort.folder), "-o", str(tmp_path / "run")]
    assert main([*words, "--device", "cpu", "--quiet"]) == 2
    assert "is writing there" in capsys.readouterr().err
    assert os.listdir(tmp_path / "run") == [LOCK]  # noqa: PTH208  # hidden files, too
