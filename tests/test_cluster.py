"""Preprocessing divided over jobs and workers gives what one process gives."""

import os
import shutil
import subprocess
import sys
import time
from functools import partial
from types import SimpleNamespace

import psutil
import pytest
from conftest import skeleton_source

from foldnorm.pipeline.cli import main
from foldnorm.preprocessing.cohort import cluster as cluster_module
from foldnorm.preprocessing.cohort.cluster import Cluster, failure_of, has_left_the_queue
from foldnorm.preprocessing.cohort.cohort import Cohort
from foldnorm.preprocessing.core.errors import InputError
from foldnorm.preprocessing.core.files import read_json, read_tsv


def preprocess(source, out, *more):
    words = ["--quiet", "--n-procs", "1", "--voxel-size", "2", *more]
    return main(["preprocess", str(source), "-o", str(out), *words])


def same_files(first, second):
    """Every file is there in both with the same bytes, reports of runs and their logs aside."""

    def files(folder):
        return {
            path.relative_to(folder): path.read_bytes()
            for path in folder.rglob("*")
            if path.is_file() and "run_report" not in path.name and "logs" not in path.parts
        }

    assert files(first) == files(second)


def test_shards_and_a_gathering_equal_one_run(tmp_path):
    source = skeleton_source(tmp_path / "source", 5)
    assert preprocess(source, tmp_path / "one") == 0
    for shard in ("1/2", "2/2"):
        assert preprocess(source, tmp_path / "two", "--shard", shard) == 0
    assert not (tmp_path / "two/volumes.npy").exists()
    assert preprocess(source, tmp_path / "two", "--finalize") == 0
    same_files(tmp_path / "one", tmp_path / "two")
    assert read_json(tmp_path / "two/run_report.json")["done"] == 5


def test_gathering_names_what_no_shard_has_prepared_and_why(tmp_path, capsys):
    source = skeleton_source(tmp_path / "source", 4)
    (source / "sub-s00.nii.gz").write_bytes(b"nothing")
    assert preprocess(source, tmp_path / "out", "--shard", "1/2") == 1
    capsys.readouterr()
    assert preprocess(source, tmp_path / "out", "--finalize") == 1
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 3
    assert "not a NIfTI file" in lines[0]
    assert all("no shard has prepared it" in line for line in lines[1:])
    assert len(Cohort.open(tmp_path / "out").rows) == 1


def test_gathering_reads_no_source_volume(tmp_path):
    source = skeleton_source(tmp_path / "source", 2)
    assert preprocess(source, tmp_path / "out", "--shard", "1/1") == 0
    for path in source.glob("*.nii.gz"):
        path.write_bytes(b"changed since")
    assert preprocess(source, tmp_path / "out", "--finalize") == 0


def test_a_volume_that_no_longer_can_be_read_leaves_the_cohort(tmp_path):
    source = skeleton_source(tmp_path / "source", 3)
    assert preprocess(source, tmp_path / "out") == 0
    (source / "sub-s01.nii.gz").write_bytes(b"nothing")
    assert preprocess(source, tmp_path / "out") == 1
    rows = read_tsv(tmp_path / "out/participants.tsv")
    assert [row["participant_id"] for row in rows] == ["sub-s00", "sub-s02"]


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--cluster", "nowhere"], "expected slurm, local or dask:ADDRESS"),
        (["--cluster", "dask:"], "expected slurm, local or dask:ADDRESS"),
        (["--cluster", "dask:tcp://127.0.0.1:1"], "no Dask scheduler answers"),
        (["--cluster", "local", "--cluster-option", "mem"], "expected KEY=VALUE"),
        (["--cluster", "local", "--cluster-option", "nonsense=1"], "nonsense"),
        (["--cluster", "local", "--finalize"], "leave --shard and --finalize out"),
        (["--finalize", "--shard", "1/2"], "leave --shard out"),
        (["--cluster", "slurm"], "srun"),
    ],
)
def test_what_cannot_be_is_one_line(tmp_path, capsys, monkeypatch, words, reason):
    monkeypatch.setenv("PATH", str(tmp_path))  # no SLURM, even where there is one
    source = skeleton_source(tmp_path / "source", 1)
    assert preprocess(source, tmp_path / "out", *words) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert reason in line


def test_options_of_submitit_are_numbers_where_they_look_like_it():
    cluster = Cluster.parse("slurm", 5, ["timeout_min=60", "slurm_partition=cpu"])
    assert cluster.options == {"timeout_min": 60, "slurm_partition": "cpu"}
    with pytest.raises(InputError):
        Cluster.parse("slurm:here", 5, [])


class FakeJob:
    """A job that ran at once, or ended before its work."""

    paths = SimpleNamespace(stderr="logs/7_log.err")

    def __init__(self, work):
        self.work = work
        if work is not None:
            work()

    def done(self):
        return True

    def exception(self):
        return None if self.work else RuntimeError("out of memory")


class FakeExecutor:
    def __init__(self, folder, cluster):
        assert cluster == "slurm"
        assert folder.is_absolute()

    def update_parameters(self, **parameters):
        assert parameters["slurm_partition"] == "cpu"
        assert parameters["timeout_min"] == 240

    def map_array(self, function, *arguments):
        works = [partial(function, *a) for a in zip(*arguments, strict=True)]
        return [FakeJob(None), *(FakeJob(work) for work in works[1:])]


def test_a_failed_job_and_its_volumes_are_named_and_the_others_packed(
    tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr("submitit.AutoExecutor", FakeExecutor)
    source = skeleton_source(tmp_path / "source", 5)
    words = ["--cluster", "slurm", "--jobs", "3", "--cluster-option", "slurm_partition=cpu"]
    assert preprocess(source, tmp_path / "out", *words) == 1
    lines = capsys.readouterr().err.strip().splitlines()
    assert lines[0] == "foldnorm: chunk 1/3: RuntimeError, see logs/7_log.err"
    assert [line.split(":")[1].strip() for line in lines[1:]] == ["sub-s00", "sub-s03"]
    assert len(Cohort.open(tmp_path / "out").rows) == 3


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("echo 7_1 cpu foldnorm R", False),
        ("echo 7_[1-3] cpu foldnorm PD", False),
        ("true", True),
        ("echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1", True),
        ("echo 'slurm_load_jobs error: Unable to contact slurm controller' >&2; exit 1", False),
    ],
)
def test_a_job_has_left_the_queue_only_if_the_controller_says_so(
    answer, expected, tmp_path, monkeypatch
):
    (tmp_path / "squeue").write_text(f"#!/bin/sh\n{answer}\n")
    (tmp_path / "squeue").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert has_left_the_queue("7_1") is expected


def test_a_job_that_is_gone_without_a_result_is_not_waited_for(monkeypatch):
    """As where SLURM keeps no accounts: submitit never learns that it was killed."""
    looks = iter([False, True, False, True, True, True])
    monkeypatch.setattr(cluster_module, "has_left_the_queue", lambda job: next(looks))
    monkeypatch.setattr(cluster_module, "PAUSE", 0.0)
    job = SimpleNamespace(job_id="7_1", done=lambda: False)
    assert failure_of(job, Cluster("slurm")) == "ended without a result"
    assert list(looks) == []


@pytest.mark.slow
def test_jobs_equal_one_process(tmp_path):
    source = skeleton_source(tmp_path / "source", 5)
    assert preprocess(source, tmp_path / "one") == 0
    cluster = ["--cluster", "local", "--jobs", "2"]
    assert preprocess(source, tmp_path / "two", *cluster) == 0
    same_files(tmp_path / "one", tmp_path / "two")
    assert list((tmp_path / "two/logs").glob("*.out"))


@pytest.mark.slow
def test_jobs_of_this_machine_end_soon_after_who_started_them(tmp_path):
    (volume,) = skeleton_source(tmp_path / "one", 1).iterdir()
    source, out = tmp_path / "source", tmp_path / "out"
    source.mkdir()
    for n in range(3000):  # more than can be prepared before it is looked again
        shutil.copy(volume, source / f"sub-s{n:04d}.nii.gz")
    words = ["preprocess", source, "-o", out, "--cluster", "local", "--jobs", "2", "--n-procs", "2"]
    process = subprocess.Popen([sys.executable, "-m", "foldnorm.pipeline.cli", *map(str, words)])
    deadline = time.monotonic() + 120
    while len(list(out.rglob("*_dseg.json"))) < 4 and time.monotonic() < deadline:
        time.sleep(0.1)
    started = psutil.Process(process.pid).children(recursive=True)
    assert len(started) >= 8  # of each job one that watches, the job, and its workers
    process.kill()
    process.wait()
    assert not psutil.wait_procs(started, timeout=20)[1]


@pytest.mark.slow
def test_the_workers_of_a_dask_cluster_equal_one_process(tmp_path):
    from distributed import LocalCluster

    source = skeleton_source(tmp_path / "source", 6)
    assert preprocess(source, tmp_path / "one") == 0
    with LocalCluster(
        n_workers=2, threads_per_worker=1, dashboard_address=None, local_directory=str(tmp_path)
    ) as cluster:
        words = ["--cluster", f"dask:{cluster.scheduler_address}"]
        assert preprocess(source, tmp_path / "two", *words) == 0
    same_files(tmp_path / "one", tmp_path / "two")
