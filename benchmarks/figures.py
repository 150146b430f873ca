"""Figures of a benchmark in a file that says where they come from: commit, date, machine."""

import os
import platform
import re
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from foldnorm.preprocessing.core.files import write_json


def write_figures(path: Path, figures: Mapping[str, Any]) -> None:
    """Write ``figures`` with the commit, the date and the machine that they were made on."""
    made = {
        "commit": commit(),
        "date": datetime.now(UTC).date().isoformat(),
        "machine": {
            "processor": processor(),
            "cpus": os.cpu_count(),
            "system": platform.system(),
            "python": platform.python_version(),
        },
    }
    write_json(path, {**made, "figures": dict(figures)})


def flattened(figures: Mapping[str, Any], beginning: str = "") -> dict[str, Any]:
    """Return figures of figures under one name each, as pages ask for them: ``pack_240_cpu_s``."""
    found: dict[str, Any] = {}
    for key, value in figures.items():
        name = beginning + "_".join(re.findall(r"\w+", key))
        found |= flattened(value, f"{name}_") if isinstance(value, Mapping) else {name: value}
    return found


def commit() -> str:
    """Commit of this checkout, with ``-dirty`` if it holds more; empty outside of one."""
    try:
        described = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"],
            cwd=Path(__file__).parent, capture_output=True, text=True, check=True,
        )  # fmt: skip
    except (OSError, subprocess.CalledProcessError):
        return ""
    return described.stdout.strip()


def processor() -> str:
    """Model of the processor, as far as the system names it."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor() or platform.machine()
