"""Preprocessing on many machines: in jobs of SLURM, or by the workers of a Dask scheduler.

Each job prepares one chunk of the volumes, as ``--shard`` does; no two write one file. When all
have ended, what they prepared is packed here.
"""

import os
import subprocess
import time
from collections.abc import Sequence
from concurrent.futures import CancelledError
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from foldnorm.preprocessing.cohort.plan import CohortPlan
from foldnorm.preprocessing.cohort.preprocess import (
    REPORT_OF_SHARD,
    preprocess,
    write_report,
)
from foldnorm.preprocessing.core.errors import InputError
from foldnorm.preprocessing.core.isolation import DASK, end_with
from foldnorm.preprocessing.io.sources import Source

LOGS = "logs"
DEFAULT_MINUTES = 240  # of a job; SLURM's own default may be far less
PAUSE = 5.0  # seconds between two looks at a job
LOOKS = 3  # without a result and a place in the queue: its file may be seen late here


@dataclass(frozen=True)
class Cluster:
    """Cluster or scheduler whose jobs or workers prepare the volumes.

    Attributes:
        kind: ``slurm``; ``local``: the same jobs as processes of this machine; ``dask``.
        jobs: into how many the volumes are divided, for the former two.
        address: of the Dask scheduler.
        options: parameters of submitit.
    """

    kind: Literal["slurm", "local", "dask"]
    jobs: int = 10
    address: str = ""
    options: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def parse(cls, where: str, jobs: int, options: Sequence[str]) -> "Cluster":
        """Read ``--cluster``, ``--jobs`` and ``--cluster-option``."""
        parsed: dict[str, Any] = {}
        for option in options:
            key, equals, value = option.partition("=")
            if not (key and equals):
                raise InputError(f"--cluster-option: expected KEY=VALUE, got {option!r}")
            parsed[key] = int(value) if value.isdigit() else value
        kind, _, address = where.partition(":")
        if kind == "dask" and address:
            return cls("dask", jobs, address, parsed)
        if where in ("slurm", "local"):
            return cls("slurm" if where == "slurm" else "local", jobs, "", parsed)
        raise InputError(f"--cluster: expected slurm, local or dask:ADDRESS, got {where!r}")


def preprocess_on(
    cluster: Cluster, sources: Sequence[Source], out: Path, plan: CohortPlan
) -> dict[str, Any]:
    """Turn sources into a cohort folder as `preprocess` does, and return its report.

    Raises:
        InputError: nothing can be done at all, or the cluster cannot be reached.
    """
    if plan.options.shard is not None or plan.options.finalize:
        raise InputError("--cluster divides and packs by itself: leave --shard and --finalize out")
    if cluster.kind == "dask":
        return _by_dask(cluster, sources, out, plan)
    return _by_jobs(cluster, sources, out, plan)


def _by_dask(
    cluster: Cluster, sources: Sequence[Source], out: Path, plan: CohortPlan
) -> dict[str, Any]:
    distributed = _imported("distributed", "dask")
    try:
        client = distributed.Client(cluster.address, timeout="10s")
    except (OSError, ValueError) as error:
        raise InputError(f"no Dask scheduler answers at {cluster.address} ({error})") from error
    try:
        with client:
            return preprocess(sources, out, _with(plan, n_procs=DASK))
    except CancelledError as error:
        raise ConnectionError(
            f"the Dask scheduler at {cluster.address} has ended; what is finished is not done again"
        ) from error


def _by_jobs(
    cluster: Cluster, sources: Sequence[Source], out: Path, plan: CohortPlan
) -> dict[str, Any]:
    begin = time.perf_counter()
    submitit = _imported("submitit", "slurm")
    for stale in out.glob(REPORT_OF_SHARD.format("*")):
        stale.unlink()
    logs = out.absolute() / LOGS
    parameters = {
        "name": "foldnorm",
        "timeout_min": DEFAULT_MINUTES,
        "cpus_per_task": plan.options.n_procs,
        **cluster.options,
    }
    try:
        executor = submitit.AutoExecutor(folder=logs, cluster=cluster.kind)
        executor.update_parameters(**parameters)
    except (NameError, RuntimeError, ValueError, AssertionError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"--cluster {cluster.kind}: {reason}") from error
    chunks = [
        _with(plan, shard=f"{number}/{cluster.jobs}", quiet=True)
        for number in range(1, cluster.jobs + 1)
    ]
    starter = os.getpid() if cluster.kind == "local" else 0
    jobs = executor.map_array(
        _prepare_chunk,
        [starter] * cluster.jobs,
        [sources] * cluster.jobs,
        [out.absolute()] * cluster.jobs,
        chunks,
    )
    failed = []
    for number, job in enumerate(jobs, start=1):
        reason = failure_of(job, cluster)
        if reason:
            reason = f"{reason}, see {job.paths.stderr}"
            failed.append({"volume": f"chunk {number}/{cluster.jobs}", "reason": reason})
    report = preprocess(sources, out, _with(plan, finalize=True))
    report["failed"] = failed + report["failed"]
    report["seconds"] = round(time.perf_counter() - begin, 2)
    write_report(out, report)
    return report


def failure_of(job: Any, cluster: Cluster) -> str:
    """Wait until a job has ended; why it failed, or nothing.

    submitit asks the accounting of SLURM, and waits for ever for a job that was killed where there
    is none; here the queue is asked, too.
    """
    missed = 0
    while cluster.kind == "slurm" and not job.done():
        missed = missed + 1 if has_left_the_queue(job.job_id) else 0
        if missed == LOOKS:
            return "ended without a result"
        time.sleep(PAUSE)
    raised = job.exception()
    return "" if raised is None else type(raised).__name__


def has_left_the_queue(job: str) -> bool:
    """Say if SLURM's controller has nothing to do with a job any more.

    Args:
        job: its number, of one of an array ``NUMBER_INDEX``.
    """
    words = ["squeue", "--noheader", "--jobs", job]
    asked = subprocess.run(words, capture_output=True, text=True, check=False)
    if asked.returncode:  # of long ago; or the controller does not answer just now
        return "Invalid job id" in asked.stderr
    return not asked.stdout.strip()


def _prepare_chunk(
    starter: int, sources: Sequence[Source], out: Path, plan: CohortPlan
) -> dict[str, Any]:
    """Prepare a chunk in a job, which ends soon after the process ``starter``, unless that is 0.

    In between is a process of submitit that watches the job.
    """
    if starter:
        end_with(starter)
        end_with(os.getppid())
    return preprocess(sources, out, plan)


def _with(plan: CohortPlan, **options: Any) -> CohortPlan:
    """Return the plan with other options."""
    return replace(plan, options=replace(plan.options, **options))


def _imported(name: str, extra: str) -> Any:
    try:
        return __import__(name)
    except ModuleNotFoundError:
        raise InputError(f"--cluster needs {name}: pip install 'foldnorm[{extra}]'") from None
