"""On SLURM itself: chunks of preprocessing, trainings that are requeued, searches, mistakes."""

import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from conftest import TINY_TRAINING, skeleton_source
from processes import together
from slurm_cluster import Slurm

from foldnorm.pipeline.cli import main
from foldnorm.pipeline.runs.run_folder import RunFolder
from foldnorm.preprocessing.cohort.cohort import Cohort
from foldnorm.preprocessing.core.files import read_tsv

pytestmark = pytest.mark.slow
SCRIPT = Path(__file__).parents[1] / "docs/train.slurm"
TWO_NODES = ["--nodes=2", "--ntasks-per-node=1", "--cpus-per-task=1", "--gpus-per-node=0"]


@pytest.fixture(scope="module")
def slurm(tmp_path_factory):
    cluster = Slurm(tmp_path_factory.mktemp("slurm"))
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()


def training(cohort, out, *more):
    return ["wgan_gp", cohort.folder, "-o", out, "--device", "cpu", *TINY_TRAINING,
            "--training.steps", "100000", "--training.validate_every", "5", *more]  # fmt: skip


def reached(out):
    return RunFolder(out).reached


def test_at_the_time_limit_two_tasks_are_requeued_and_go_on_bit_for_bit(
    slurm, small_cohort, tmp_path
):
    out = tmp_path / "run"
    job = slurm.submit(*TWO_NODES, "--time=60", SCRIPT, *training(small_cohort, out))
    slurm.wait_for(lambda: reached(out) > 0, job)
    slurm.call("scontrol", "update", f"JobId={job}", "TimeLimit=2")  # minutes; of them 2 for USR1
    slurm.wait_for(lambda: slurm.shown(job, "Restarts") == "1", job, seconds=120)
    slurm.call("scontrol", "update", f"JobId={job}", "TimeLimit=60")
    first = reached(out)
    assert first > 0
    slurm.wait_for(lambda: reached(out) > first, job)
    slurm.call("scancel", "--signal=USR1", job)
    slurm.wait_for(lambda: slurm.shown(job, "Restarts") == "2", job)
    slurm.call("scancel", job)
    assert slurm.ended(job) == "CANCELLED"
    last = reached(out)
    assert "another of the" not in slurm.said(job)
    whole = tmp_path / "whole"
    words = ["train", *training(small_cohort, whole, "--training.session_steps", last), "--quiet"]
    assert together(main, [str(word) for word in words]) == [75, 75]
    expected = RunFolder(whole).load_checkpoint("last")["model"]
    for name, tensor in RunFolder(out).load_checkpoint("last")["model"].items():
        assert torch.equal(tensor, expected[name]), name


def test_a_job_that_is_cancelled_saves_its_state_and_does_not_come_back(
    slurm, small_cohort, tmp_path
):
    out = tmp_path / "run"
    job = slurm.submit(*TWO_NODES, SCRIPT, *training(small_cohort, out))
    slurm.wait_for(lambda: reached(out) > 0, job)
    slurm.call("scancel", job)
    assert slurm.ended(job) == "CANCELLED"
    rows = read_rows(out)
    assert rows == reached(out)
    assert slurm.shown(job, "Restarts") == "0"


def read_rows(out):
    return (out / "metrics.csv").read_text().count("\n") - 1


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["sbatch", "--wait", "--nodes=1", "--ntasks=2"], "srun started none of them"),
        (["srun", "--nodes=2", "--ntasks=3"], "training needs as many on each"),
    ],
)
def test_what_cannot_train_together_is_refused_at_once(
    words, reason, slurm, small_cohort, tmp_path
):
    train = ["foldnorm", "train", *map(str, training(small_cohort, tmp_path / "run"))]
    if words[0] == "sbatch":
        said = tmp_path / "said"
        done = slurm.call(*words, f"--output={said}", f"--wrap={' '.join(train)}", check=False)
        lines = said.read_text().splitlines()
    else:
        done = slurm.call(*words, *train, check=False)
        lines = [line for line in done.stderr.splitlines() if line.startswith("foldnorm")]
    assert done.returncode == 2
    assert lines
    assert all(reason in line for line in lines)


def test_tasks_of_one_node_train_together_without_a_number_for_each(slurm, small_cohort, tmp_path):
    words = training(small_cohort, tmp_path / "run", "--training.steps", "4")
    done = slurm.call("srun", "--nodes=1", "--ntasks=2", "foldnorm", "train", *words)
    assert "MEMBER: 2/2" in done.stderr
    assert reached(tmp_path / "run") == 4


def test_an_array_of_searches_shares_one_journal(slurm, small_cohort, tmp_path):
    out = tmp_path / "search"
    words = ["foldnorm", "search", "wgan_gp", small_cohort.folder, "-o", out, "--device", "cpu",
             "--vary", "training.learning_rate=1e-4..1e-2:log", "--trials", "2",
             *TINY_TRAINING]  # fmt: skip
    job = slurm.submit("--array=0-1", f"--wrap={' '.join(map(str, words))}")
    slurm.wait_for(lambda: not slurm.call("squeue", "-h", "-j", job, check=False).stdout)
    rows = read_tsv(out / "trials.tsv")
    assert [row["state"] for row in rows] == ["complete"] * 4
    assert len({row["training.learning_rate"] for row in rows}) == 4


def test_a_killed_chunk_is_named_a_requeued_one_goes_on_and_the_same_command_finishes(
    slurm, tmp_path
):
    (volume,) = skeleton_source(tmp_path / "one", 1).iterdir()
    source, out, count = tmp_path / "source", tmp_path / "out", 3000
    source.mkdir()
    for n in range(count):
        shutil.copy(volume, source / f"sub-s{n:04d}.nii.gz")
    words = ["foldnorm", "preprocess", source, "-o", out, "--voxel-size", "2", "--n-procs", "1",
             "--cluster", "slurm", "--jobs", "3", "--quiet"]  # fmt: skip
    process = subprocess.Popen(
        [str(word) for word in words], env=slurm.environment, stderr=subprocess.PIPE, text=True
    )
    slurm.wait_for(lambda: [*(out / "logs").glob("*_submission.sh")])
    (job,) = {path.name.partition("_")[0] for path in (out / "logs").glob("*_submission.sh")}
    for chunk in (f"{job}_0", f"{job}_1"):  # stopped where they are, before they can be ready
        slurm.wait_for(lambda chunk=chunk: f"{chunk}.0 " in slurm.steps())
        slurm.call("scancel", "--signal=STOP", chunk)
    slurm.call("scontrol", "requeue", f"{job}_0")
    slurm.call("scancel", f"{job}_1")
    said = process.communicate(timeout=600)[1]
    assert process.returncode == 1
    assert "chunk 2/3: ended without a result, see " in said
    assert "chunk 1/3" not in said
    assert "chunk 3/3" not in said
    assert len(Cohort.open(out).rows) < count
    assert slurm.call(*words).returncode == 0  # what is finished is not done again
    cohort = Cohort.open(out)
    assert len(cohort.rows) == count
    assert all((volume == cohort.volumes[0]).all() for volume in cohort.volumes)
