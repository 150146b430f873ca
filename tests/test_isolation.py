"""One item that fails is one line; a process that is killed takes its own item along, no other."""

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from foldnorm.preprocessing.core.errors import InputError
from foldnorm.preprocessing.core.isolation import DASK, isolated, isolated_batches, isolated_map

FAULTS = {
    "input": (InputError("not a volume: a.nii"), "not a volume: a.nii"),
    "gone": (FileNotFoundError(2, "No such file or directory", "a.nii"),
             "No such file or directory: a.nii"),
    "unnamed": (OSError("broken"), "broken"),
    "memory": (MemoryError("Unable to allocate 5 GiB"),
               "not enough memory (Unable to allocate 5 GiB)"),
    "nomemory": (MemoryError(), "not enough memory"),
    "ours": (ZeroDivisionError("by\nzero"), "unexpected ZeroDivisionError at test_isolation.py:"),
    "deep": (RecursionError("too deep"), "unexpected RecursionError"),
    "index": (IndexError("5"), "unexpected IndexError"),
    "text": (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "no"), "unexpected UnicodeDecodeError"),
    "closed": (EOFError(), "unexpected EOFError"),
}  # fmt: skip


def fail(name):
    if name in FAULTS:
        raise FAULTS[name][0]
    return name.upper()


@pytest.mark.parametrize("name", FAULTS)
def test_whatever_is_raised_is_one_line(name):
    outcome = isolated(fail, name)
    assert outcome.made is None
    assert outcome.reason.startswith(FAULTS[name][1])
    assert "\n" not in outcome.reason
    with pytest.raises((InputError, OSError, MemoryError, RuntimeError)):
        _ = outcome.result


@pytest.mark.parametrize("n_procs", [1, 2])
def test_the_others_are_finished_in_their_order(n_procs):
    items = ["a", *FAULTS, "b"]
    outcomes = list(isolated_map(fail, items, n_procs, in_order=True))
    assert [outcome.item for outcome in outcomes] == items
    assert [outcome.made for outcome in outcomes if not outcome.reason] == ["A", "B"]


@pytest.mark.parametrize("n_procs", [0, -2, -1])
def test_a_number_of_processes_that_is_none_is_said(n_procs):
    """As many libraries count, -1 is all processors; here it is a cluster, which is not there."""
    with pytest.raises(InputError, match=f"n_procs: expected 1 or more processes, got {n_procs}"):
        list(isolated_map(str, [1, 2], n_procs))


def test_of_a_few_that_fail_together_each_is_worked_on_by_itself():
    given = []

    def work(few):
        given.append("".join(few))
        return [fail(name) if name == "input" else name.upper() for name in few]

    outcomes = list(isolated_batches(work, ["a", "b", "c", "input", "d"], 2))
    assert [outcome.made for outcome in outcomes] == ["A", "B", "C", None, "D"]
    assert [outcome.reason for outcome in outcomes if outcome.reason] == [FAULTS["input"][1]]
    assert given == ["ab", "cinput", "c", "input", "d"]


def die_of(item):
    """Be killed by the kernel, at the first try or at each."""
    number, marks = item
    if number == 3 or (number == 1 and not (marks / "tried").exists()):
        (marks / "tried").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def test_a_killed_process_takes_only_its_own_item_along(tmp_path, caplog):
    items = [(n, tmp_path) for n in range(6)]
    outcomes = {o.item[0]: o for o in isolated_map(die_of, items, 2)}
    assert sorted(outcomes) == list(range(6))
    assert "memory" in outcomes[3].reason
    assert "--n-procs" in outcomes[3].reason
    assert sorted(o.made for o in outcomes.values() if not o.reason) == [0, 1, 2, 4, 5]
    assert "memory ran out" in caplog.text


def die_at_three(number):
    if number == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


@pytest.mark.slow
def test_a_killed_dask_worker_takes_only_its_own_item_along(tmp_path):
    dask, distributed = pytest.importorskip("dask"), pytest.importorskip("distributed")
    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 0}),
        distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None,
                                 local_directory=str(tmp_path)) as cluster,
        distributed.Client(cluster),
    ):  # fmt: skip
        outcomes = list(isolated_map(die_at_three, range(6), DASK, in_order=True))
    assert [outcome.made for outcome in outcomes] == [0, 1, 2, None, 4, 5]
    assert "Dask worker was killed, most likely because memory ran out" in outcomes[3].reason


ORPHANS = """
import sys, time
sys.path.insert(0, sys.argv[1])
from foldnorm.preprocessing.core.isolation import isolated_map
from test_isolation import wait_a_minute
list(isolated_map(wait_a_minute, [1, 2, 3], 2))
"""


def wait_a_minute(item):
    time.sleep(60)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_workers_end_soon_after_their_parent(number):
    command = [sys.executable, "-c", ORPHANS, os.path.dirname(__file__)]  # noqa: PTH120
    process = subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"})
    started = psutil.Process(process.pid)
    deadline = time.monotonic() + 60
    while len(started.children()) < 3 and time.monotonic() < deadline:  # and one that tidies up
        time.sleep(0.1)
    time.sleep(1)
    children = started.children()
    assert len(children) >= 2
    process.send_signal(number)
    process.wait()
    assert not psutil.wait_procs(children, timeout=15)[1]
