"""Environment variables that libraries read while they are loaded."""

import getpass
import os
from pathlib import Path

# Threads of OpenMP that wait for work spin, unless they are told not to before PyTorch is loaded:
# beside other processes that costs many times what it saves (`benchmarks/threads.py`). GNU's may
# spin 1,000 times, some 25 µs, before they sleep: where nothing else runs they then lose less.
THREADS = {"OMP_WAIT_POLICY": "PASSIVE", "KMP_BLOCKTIME": "0"}
SPINS = ("GOMP_SPINCOUNT", "1000")
TORCH_CACHE = "TORCHINDUCTOR_CACHE_DIR"  # PyTorch makes this folder when it is loaded


def prepare_environment() -> None:
    """Set what libraries wait badly without, or cannot be loaded without, unless the user has."""
    if "OMP_WAIT_POLICY" not in os.environ:  # a count of spins outweighs the policy
        os.environ.setdefault(*SPINS)
    for name, value in THREADS.items():
        os.environ.setdefault(name, value)
    try:
        getpass.getuser()  # as MONAI asks
    except (KeyError, OSError, ImportError):  # in a container, under a number that nobody has
        number = os.getuid() if hasattr(os, "getuid") else 0  # not on Windows
        os.environ["LOGNAME"] = f"uid_{number}"
    place = os.environ.get(TORCH_CACHE)
    if place is not None:
        try:
            Path(place).mkdir(parents=True, exist_ok=True)
        except OSError:  # PyTorch then takes one in the folder for temporary files
            del os.environ[TORCH_CACHE]
