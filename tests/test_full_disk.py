"""A disk that is full, by quota: no file may grow beyond a limit (RLIMIT_FSIZE)."""

import resource
import subprocess
import sys

import pytest
from conftest import TINY_TRAINING, skeleton_source

from foldnorm.preprocessing.cohort.cohort import Cohort


def run_limited(limit, *words):
    """Run foldnorm where no file can grow beyond ``limit`` bytes."""
    return subprocess.run(
        [sys.executable, "-m", "foldnorm.pipeline.cli", *map(str, words)],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def leftovers(folder):
    return [p for p in folder.rglob("*") if p.name.endswith(".tmp")]


@pytest.mark.slow
def test_packing_fails_in_one_line_and_leaves_nothing_half_written(tmp_path):
    source, out = skeleton_source(tmp_path / "source", 6), tmp_path / "out"
    words = ["preprocess", source, "-o", out, "--n-procs", "1", "--quiet"]
    done = run_limited(20_000, *words)
    assert done.returncode == 1
    assert len(done.stderr.strip().splitlines()) == 1
    assert "File too large" in done.stderr
    assert not (out / "volumes.npy").exists()
    assert not leftovers(out)
    assert run_limited(10_000_000, *words).returncode == 0
    assert len(Cohort.open(out).rows) == 6


@pytest.mark.slow
def test_a_checkpoint_that_cannot_be_written_is_one_line(small_cohort, tmp_path):
    out = tmp_path / "run"
    words = ["train", "wgan_gp", small_cohort.folder, "-o", out,
             "--device", "cpu", "--quiet", *TINY_TRAINING]  # fmt: skip
    done = run_limited(20_000, *words)
    assert done.returncode == 1
    assert "File too large" in done.stderr.strip().splitlines()[-1]
    assert not leftovers(out)
    assert not list(out.rglob("*.ckpt"))
