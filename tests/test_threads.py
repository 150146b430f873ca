"""Threads that wait for work sleep, unless the user has said otherwise."""

import os
import subprocess
import sys

import pytest
import torch

SAY = (
    "import os, sys, foldnorm; assert 'torch' not in sys.modules;"
    "print(os.environ['OMP_WAIT_POLICY'], os.environ['KMP_BLOCKTIME'])"
)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, "PASSIVE 0"),
        ({"OMP_WAIT_POLICY": "ACTIVE"}, "ACTIVE 0"),
        ({"KMP_BLOCKTIME": "200"}, "PASSIVE 200"),
    ],
)
def test_waiting_is_passive_before_pytorch_is_loaded(given, expected):
    own = {k: v for k, v in os.environ.items() if k not in ("OMP_WAIT_POLICY", "KMP_BLOCKTIME")}
    done = subprocess.run([sys.executable, "-c", SAY], env={**own, **given}, check=True,
                          capture_output=True, text=True)  # fmt: skip
    assert done.stdout.strip() == expected


def test_tests_compute_with_one_thread():
    assert torch.get_num_threads() == 1
