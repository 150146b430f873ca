"""SLURM itself: a controller and two nodes on this machine, in a folder, on ports of its own."""

import getpass
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from processes import free_port

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scancel", "scontrol", "squeue")
SYSTEM = os.pathsep.join(["/usr/sbin", "/usr/local/sbin", "/sbin"])
CONFIGURATION = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={place}/munge/socket,cred_expire=5
CredType=cred/munge
StateSaveLocation={place}/state
SlurmdSpoolDir={place}/spool-%n
SlurmctldPidFile={place}/slurmctld.pid
SlurmdPidFile={place}/slurmd-%n.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
AccountingStorageType=accounting_storage/none
MpiDefault=none
KillWait=10
NodeName=one NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=4
NodeName=two NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs=4
PartitionName=cpu Nodes=one,two Default=YES MaxTime=INFINITE State=UP
"""


class Slurm:
    """A cluster of two nodes, `one` and `two`; no accounting."""

    def __init__(self, place: Path) -> None:
        path = os.pathsep.join([str(place / "bin"), os.environ["PATH"], SYSTEM])
        missing = [name for name in PROGRAMS if shutil.which(name, path=path) is None]
        if missing:
            pytest.skip(f"no SLURM on this machine (slurm-wlm, munge): {', '.join(missing)}")
        self.place, self.started = place, []
        self.environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith(("SLURM_", "SBATCH_"))},
            "PATH": path,
            "SLURM_CONF": str(place / "slurm.conf"),
            "MASTER_ADDR": "127.0.0.1",  # the nodes' names are no hosts
            "OMP_NUM_THREADS": "1",
        }
        command = place / "bin/foldnorm"
        command.parent.mkdir()
        command.write_text(f'#!/bin/bash\nexec {sys.executable} -m foldnorm.pipeline.cli "$@"\n')
        command.chmod(0o755)

    def start(self) -> None:
        """Start all daemons; the test is skipped where they do not come up."""
        place = self.place
        for name in ("munge", "state", "spool-one", "spool-two"):
            (place / name).mkdir(mode=0o700)
        (place / "munge/key").write_bytes(os.urandom(128))
        (place / "munge/key").chmod(0o400)
        text = CONFIGURATION.format(
            host=socket.gethostname().partition(".")[0],
            user=getpass.getuser(),
            place=place,
            ports=[free_port() for _ in range(3)],
        )
        (place / "slurm.conf").write_text(text)
        files = ("socket", "key-file", "pid-file", "log-file", "seed-file")
        munge = [f"--{name}={place}/munge/{name.partition('-')[0]}" for name in files]
        self._daemon("munged", "--foreground", "--force", *munge)
        self._daemon("slurmctld", "-D")
        for node in ("one", "two"):
            self._daemon("slurmd", "-D", "-N", node)
        for _ in range(120):
            states = self.call("sinfo", "--noheader", "--format=%T", check=False).stdout.split()
            if states == ["idle"]:
                return
            time.sleep(0.5)
        said = [path.read_text()[-300:] for path in sorted(place.glob("*.out"))]
        self.stop()
        pytest.skip(f"SLURM does not come up here: {' '.join(' '.join(said).split())}")

    def stop(self) -> None:
        """End what was started, and nothing else."""
        self.call("scancel", "--me", check=False)
        for _ in range(40):
            if not self.call("squeue", "--noheader", check=False).stdout:
                break
            time.sleep(0.5)
        for process in reversed(self.started):
            process.terminate()
        for process in self.started:
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()

    def _daemon(self, *words: str) -> None:
        path = self.place / f"{len(self.started)}-{words[0]}.out"
        with path.open("w") as out:
            self.started.append(
                subprocess.Popen(
                    words, env=self.environment, stdout=out, stderr=out, start_new_session=True
                )
            )

    def call(self, *words: object, check: bool = True, **more: str):
        """Run a command of the cluster's user."""
        return subprocess.run(
            [str(word) for word in words], env={**self.environment, **more}, cwd=self.place,
            check=check, capture_output=True, text=True, timeout=600,
        )  # fmt: skip

    def submit(self, *words: object) -> str:
        """Give a job to sbatch; returns its number."""
        said = self.call("sbatch", "--parsable", "--output", self.place / "%j.out", *words)
        return said.stdout.strip()

    def said(self, job: str) -> str:
        """Return what a job has printed."""
        path = self.place / f"{job}.out"
        return path.read_text() if path.is_file() else ""

    def steps(self) -> str:
        """Return the steps that run, each followed by a blank."""
        return self.call("squeue", "--steps", "--noheader", "--format=%i ").stdout

    def shown(self, job: str, key: str) -> str:
        """One value of what scontrol shows of a job."""
        words = self.call("scontrol", "--oneliner", "show", "job", job).stdout.split()
        return next(word.partition("=")[2] for word in words if word.startswith(f"{key}="))

    def wait_for(self, what, job: str = "", *, seconds: float = 300) -> None:
        """Wait until ``what()`` is true, as long as a job has not failed."""
        deadline = time.monotonic() + seconds
        while not what():
            assert time.monotonic() < deadline, "it did not come to pass"
            assert not job or self.shown(job, "JobState") != "FAILED", self.said(job)
            time.sleep(0.3)

    def ended(self, job: str) -> str:
        """Wait until a job has ended; returns how."""
        ends = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT")
        self.wait_for(lambda: self.shown(job, "JobState") in ends)
        return self.shown(job, "JobState")
