"""Threads that wait for work soon sleep, unless the user has said otherwise."""

import os
import subprocess
import sys

import pytest
import torch

SAY = (
    "import os, sys, foldnorm; assert 'torch' not in sys.modules;"
    "print(*map(os.environ.get, ('OMP_WAIT_POLICY', 'KMP_BLOCKTIME', 'GOMP_SPINCOUNT')))"
)
OF_THREADS = ("OMP_WAIT_POLICY", "KMP_BLOCKTIME", "GOMP_SPINCOUNT")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, "PASSIVE 0 1000"),
        ({"OMP_WAIT_POLICY": "ACTIVE"}, "ACTIVE 0 None"),
        ({"KMP_BLOCKTIME": "200"}, "PASSIVE 200 1000"),
        ({"GOMP_SPINCOUNT": "5"}, "PASSIVE 0 5"),
    ],
)
def test_waiting_is_short_before_pytorch_is_loaded(given, expected):
    own = {k: v for k, v in os.environ.items() if k not in OF_THREADS}
    done = subprocess.run([sys.executable, "-c", SAY], env={**own, **given}, check=True,
                          capture_output=True, text=True)  # fmt: skip
    assert done.stdout.strip() == expected


def test_tests_compute_with_one_thread():
    assert torch.get_num_threads() == 1
