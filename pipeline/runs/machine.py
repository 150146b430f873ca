"""Examination of a machine: what it lacks, in plain words (`foldnorm doctor`)."""

import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, metadata, requires, version
from pathlib import Path
from typing import Literal

from packaging.requirements import Requirement

from foldnorm.preprocessing.core.counts import counted
from foldnorm.preprocessing.core.locks import flock
from foldnorm.preprocessing.core.resources import GIB, available_cores, available_memory

State = Literal["fine", "note", "problem"]
PACKAGE = "foldnorm"
MIN_MEMORY, MIN_DISK, MIN_SHARED = 4, 5, 0.5  # GiB, below which something will not work
CGROUP_CPUS = Path("/sys/fs/cgroup/cpu.max")
SHARED_MEMORY = Path("/dev/shm")
OF_THREADS = ("OMP_NUM_THREADS", "OMP_WAIT_POLICY", "KMP_BLOCKTIME", "GOMP_SPINCOUNT")


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        topic: a word or two.
        state: ``problem`` if something will fail or be very slow, ``note`` if it may matter.
        text: what was found, and what to do.
    """

    topic: str
    state: State
    text: str

    def __str__(self) -> str:
        """Write it as a line of a list."""
        mark = {"fine": "ok     ", "note": "note   ", "problem": "problem"}[self.state]
        return f"{mark}  {self.topic}: {self.text}"


def examine(folder: Path) -> list[Finding]:
    """Look at the machine.

    Args:
        folder: where results are to be written; need not exist.

    Returns:
        A finding or more of each topic. One that cannot be looked at is a problem of its own.
    """
    looks: tuple[tuple[str, Callable[[], Iterator[Finding]]], ...] = (
        ("Python", _python),
        ("packages", _packages),
        ("GPU", _gpus),
        ("processors", _processors),
        ("memory", _memory),
        ("output", lambda: _output(folder)),
        ("caches", _caches),
    )
    found: list[Finding] = []
    for topic, look in looks:
        try:
            found += look()
        except Exception as error:  # a broken installation breaks anywhere, and that is the answer
            text = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
            found.append(Finding(topic, "problem", f"cannot be looked at ({text})"))
    return found


def _python() -> Iterator[Finding]:
    text = f"{platform.python_version()} on {platform.platform()}, {PACKAGE} {version(PACKAGE)}"
    yield Finding("Python", "fine", text)
    encoding = getattr(sys.stdout, "encoding", None) or "none"
    if encoding.lower().replace("-", "") != "utf8":
        text = f"prints {encoding}: letters that it lacks are escaped; PYTHONUTF8=1 helps"
        yield Finding("terminal", "note", text)


def _packages() -> Iterator[Finding]:
    """Compare what is installed with what foldnorm asks for."""
    versions, wrong, extras = [], [], set()
    for text in requires(PACKAGE) or []:
        requirement = Requirement(text)
        try:
            installed = version(requirement.name)
        except PackageNotFoundError:
            installed = ""
        if requirement.marker is not None:  # of an extra
            if not installed:
                extras |= _extras_of(requirement)
            continue
        versions.append(f"{requirement.name} {installed or 'missing'}")
        if not installed or not requirement.specifier.contains(installed, prereleases=True):
            wrong.append(f"{requirement} is needed, {installed or 'nothing'} is installed")
    yield Finding("packages", "problem" if wrong else "fine", "; ".join(wrong or versions))
    if extras - {"dev"}:
        text = f"not or not wholly installed: {', '.join(sorted(extras - {'dev'}))}"
        yield Finding("extras", "note", f"{text} (pip install '{PACKAGE}[NAME]')")


def _extras_of(requirement: Requirement) -> set[str]:
    """Return the extras that ask for a requirement."""
    names = metadata(PACKAGE).get_all("Provides-Extra") or []
    marker = requirement.marker
    assert marker is not None
    return {name for name in names if marker.evaluate({"extra": name})}


def _gpus() -> Iterator[Finding]:
    import torch

    if not torch.cuda.is_available():
        if shutil.which("nvidia-smi") is None:
            yield Finding("GPU", "note", "none; everything runs on the processors")
        elif torch.version.cuda is None:
            text = "NVIDIA's driver is there, but this PyTorch was built without CUDA"
            yield Finding("GPU", "problem", text)
        else:
            text = (
                "NVIDIA's driver is there, but PyTorch sees no GPU (old driver, none in this job)"
            )
            yield Finding("GPU", "problem", text)
        return
    for number in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(number)
        name = torch.cuda.get_device_name(number)
        text = f"{name}, {free / GIB:.0f} of {total / GIB:.0f} GiB free, CUDA {torch.version.cuda}"
        if not torch.cuda.is_bf16_supported():
            text += "; no bfloat16: leave --training.precision at tf32"
        yield Finding(f"GPU {number}", "fine", text)


def _processors() -> Iterator[Finding]:
    ours = available_cores()
    text = f"{ours} of {counted(os.cpu_count() or ours, 'core')} may be used"
    quota = _cgroup_cores()
    if quota is not None and quota < ours:
        text += f", a container has the time of {quota:g}: give --n-procs {max(int(quota), 1)}"
    yield Finding("processors", "note" if quota and quota < ours else "fine", text)
    given = [f"{name}={os.environ[name]}" for name in OF_THREADS if name in os.environ]
    yield Finding("threads", "fine", ", ".join(given) or "as libraries have them")


def _cgroup_cores() -> float | None:
    """Return the cores whose time a container has; None if it is not limited."""
    words = CGROUP_CPUS.read_text().split() if CGROUP_CPUS.is_file() else []
    if len(words) != 2 or not words[0].isdigit():
        return None
    return int(words[0]) / int(words[1])


def _memory() -> Iterator[Finding]:
    free = available_memory()
    if free is None:
        yield Finding("memory", "note", "how much is free is not known on this system")
    else:
        short = free < MIN_MEMORY * GIB
        text = f"{free / GIB:.1f} GiB free"
        if short:
            text += f": preprocessing takes about 1 GiB a process, training {MIN_MEMORY} or more"
        yield Finding("memory", "note" if short else "fine", text)
    if SHARED_MEMORY.is_dir():
        shared = shutil.disk_usage(SHARED_MEMORY).free
        if shared < MIN_SHARED * GIB:
            text = (
                f"{shared / 2**20:.0f} MiB of shared memory: processes that read training volumes "
                "need more; start the container with --shm-size 1g, or give --training.workers 0"
            )
            yield Finding("shared memory", "problem", text)


def _output(folder: Path) -> Iterator[Finding]:
    """See if results can be written there, held and kept."""
    place = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    try:
        file = tempfile.TemporaryFile(dir=place)  # noqa: SIM115
    except OSError as error:
        text = f"nothing can be written there ({error.strerror}): {place}"
        yield Finding("output", "problem", text)
        return
    free = shutil.disk_usage(place).free / GIB
    state: State = "note" if free < MIN_DISK else "fine"
    yield Finding("output", state, f"{free:.1f} GiB free in {place}")
    with file:
        try:
            flock(file.fileno())
        except OSError:
            text = "its file system has no locks: do not let two commands write into one folder"
            yield Finding("locks", "note", text)


def _caches() -> Iterator[Finding]:
    """See if compiled kernels are kept."""
    from foldnorm.preprocessing.core.kernels import cache_folder
    from foldnorm.preprocessing.topology import thinning

    kept = cache_folder(thinning._peel)
    if kept is None:
        text = (
            "no folder is writable: every process compiles its kernels anew, which takes seconds; "
            "set NUMBA_CACHE_DIR to a folder that is"
        )
        yield Finding("caches", "note", text)
    else:
        yield Finding("caches", "fine", f"compiled kernels are kept in {kept}")
