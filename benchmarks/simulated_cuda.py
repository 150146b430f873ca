"""A CUDA device that is none: tensors say that they are on it, and their data lie on the CPU.

`install` is called before PyTorch is imported anywhere, in a process of its own: PyTorch asks once
whether there is a GPU. From then on ``cuda`` can be asked for, and under `Simulation`

- operators refuse mixtures of devices as on CUDA: a tensor of no axis and index tensors may stay on
  the CPU, everything else may not; a generator belongs to the device that it draws on;
- copies between the devices are counted, and so is what makes Python wait until the device has done
  all that it was told: values that Python reads, shapes that depend on values (`nonzero`, a mask
  as an index), and copies that are not of pinned memory or not ``non_blocking``.

Nothing is said about speed, about kernels (cuDNN's and those that a GPU has not) and about numbers:
those are a CPU's. Built with PyTorch's headers and ``g++``, in some seconds.

Its kin in PyTorch: ``FakeTensorMode`` has devices without data, and computes nothing.
"""

import ctypes
import importlib.util
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

SOURCE = Path(__file__).with_suffix(".cpp")


class Unavailable(RuntimeError):
    """The simulation cannot be built on this machine."""


def install() -> None:
    """Build the parts that PyTorch's core asks for, and load them.

    Raises:
        Unavailable: PyTorch is loaded already, is built for GPUs, or there is no compiler.
    """
    found = importlib.util.find_spec("torch")
    compiler = shutil.which("g++")
    if "torch" in sys.modules:
        raise Unavailable("PyTorch was imported before the simulation was installed")
    if found is None or found.origin is None or compiler is None:
        raise Unavailable("no PyTorch or no g++ on this machine")
    torch_folder = Path(found.origin).parent
    if list((torch_folder / "lib").glob("*torch_cuda*")):
        raise Unavailable("this PyTorch is built for GPUs")
    with tempfile.TemporaryDirectory(prefix="foldnorm-cuda-") as folder:
        library = Path(folder) / "simulated_cuda.so"
        libraries = torch_folder / "lib"
        words = [compiler, "-std=c++20", "-shared", "-fPIC", "-O0", f"-I{torch_folder / 'include'}",
                 f"-L{libraries}", f"-Wl,-rpath,{libraries}", str(SOURCE), "-lc10", "-ltorch_cpu",
                 "-o", str(library)]  # fmt: skip
        built = subprocess.run(words, capture_output=True, text=True, check=False)
        if built.returncode:
            raise Unavailable(f"g++ cannot build it: {built.stderr.strip()[:500]}")
        ctypes.CDLL(str(library)).register_simulated_cuda()
