"""Memory and cores that this process may use, and refusal of what would not fit."""

import os
from pathlib import Path

from foldnorm.preprocessing.core.errors import InputError

GIB = 2**30
MEMINFO = Path("/proc/meminfo")
LIMITS = (  # of a job: cgroup v2
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory.current"),
)


def available_memory() -> int | None:
    """Return the free bytes of this machine and this job; None if unknown."""
    found = []
    if MEMINFO.is_file():
        lines = dict(line.split(":", 1) for line in MEMINFO.read_text().splitlines())
        if "MemAvailable" in lines:
            found.append(1024 * int(lines["MemAvailable"].split()[0]))
    limit, used = (path.read_text().strip() if path.is_file() else "" for path in LIMITS)
    if limit.isdigit() and used.isdigit():
        found.append(int(limit) - int(used))
    return min(found) if found else None


def available_cores() -> int:
    """Count the cores that this process may use: those of its job, on a cluster."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def check_fits(size: int, what: str) -> None:
    """Refuse what would take more memory than is free.

    Args:
        size: bytes that it takes.
        what: takes it, such as a file; begins the message.

    Raises:
        InputError: with both.
    """
    available = available_memory()
    if available is not None and size > available:
        raise InputError(
            f"{what}: does not fit into memory, it takes {size / GIB:.1f} GiB and "
            f"{available / GIB:.1f} GiB are free"
        )
