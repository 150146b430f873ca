"""Checks and timings of foldnorm on a GPU: on phantoms of its own, unattended.

- smoke: every shipped configuration is trained, stopped, resumed and used, in both precisions.
- throughput: volumes a second, memory and utilisation over sides, batches and arithmetic.
- compiling: the same of networks that `torch.compile` compiled, one batch.
- waiting: shares of a step that go to data, noise and synchronisation.
- agreement: losses and gradients beside those of a CPU; a resumed training beside an unbroken one.

OUT/gpu.json is written after every measurement. A measurement that fails is recorded, and the next
one goes on. Exit code 1 if a part failed or time was up before its end. Parts of foldnorm that are
replaced for a measurement are so by name (`training_setup.as_channels_last`, `Batches.batch`).
"""

# ruff: noqa: E402
import time

BEGIN = time.perf_counter()  # loading PyTorch counts

import argparse
import os
import shutil
import tempfile
import threading
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # before CUDA: deterministic products

import numpy as np
import torch
from gpu_agreement import agreement
from gpu_session import Session, command, say, short, tidy
from gpu_smoke import smoke
from gpu_throughput import compiling, throughput
from gpu_waiting import waiting
from PIL import Image

from foldnorm.preprocessing.cohort.cohort import Cohort
from foldnorm.preprocessing.core.resources import available_cores

# What is done, its share of the time, and the cohorts that it takes.
PARTS: dict[str, tuple[Callable[[Session], None], float, set[str]]] = {
    "smoke": (smoke, 0.28, {"small", "images"}),
    "throughput": (throughput, 0.36, {"middle", "large"}),
    "waiting": (waiting, 0.14, {"middle"}),
    "agreement": (agreement, 0.1, {"small"}),
    "compiling": (compiling, 0.12, {"middle"}),
}
RESERVE = 8  # seconds that are kept to end in
BOX = ("--crop", "mm:-72,-8,-70,-6,-28,36")  # 64 mm
COHORTS = {
    "small": ("--voxel-size", "4", *BOX),  # 16³
    "middle": ("--voxel-size", "2.5", "--thin", "--pad", "80,80,80"),
    "large": ("--voxel-size", "2", "--thin", "--pad", "96,96,96"),
}
SUBJECTS = 36  # so that there are 8 to calibrate with


def draw_cohorts(session: Session, wanted: set[str]) -> None:
    """Phantoms at the sides that are wanted, and images of two classes."""
    if "images" in wanted:
        session.cohorts["images"] = _images(session.place)
    of_volumes = wanted & set(COHORTS)
    if not of_volumes:
        return
    source, n_procs = session.place / "phantoms", available_cores()
    size = 4 if session.tiny or of_volumes == {"small"} else 2
    _run(
        "phantom", "-o", source, "--subjects", SUBJECTS, "--voxel-size", size, "--n-procs", n_procs
    )
    for name in sorted(of_volumes):
        words = COHORTS["small" if session.tiny else name]
        _run("preprocess", source, "-o", session.place / name, "--pair", "grey-white", *words,
             "--split-fractions", ".3", ".4", ".3", "--n-procs", n_procs)  # fmt: skip
        session.cohorts[name] = Cohort.open(session.place / name)
        say(f"{name}: {len(session.cohorts[name].rows)} volumes of {session.cohorts[name].shape}")


def _images(place: Path) -> Cohort:
    """Bright bars that lie or stand."""
    folder, rng = place / "png", np.random.default_rng(0)
    folder.mkdir()
    rows = ["file\tparticipant_id\tclass"]
    for n in range(32):
        pixels = rng.normal(60, 10, (32, 32))
        pixels[4 + n % 20 : 7 + n % 20] = 200
        shown = (pixels.T if n % 2 else pixels).clip(0, 255).astype(np.uint8)
        Image.fromarray(shown).save(folder / f"{n:03d}.png")
        rows.append(f"{n:03d}.png\tp{n}\t{'standing' if n % 2 else 'lying'}")
    (folder / "participants.tsv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    _run("images", folder, "-o", place / "images", "--split-fractions", ".5", ".25", ".25")
    return Cohort.open(place / "images")


def _run(*words: object) -> None:
    code, line = command(*words)
    if code:
        raise RuntimeError(f"{words[0]}: {line}")


def run_parts(session: Session, names: list[str], end: float) -> bool:
    """Run parts one by one, each with its share of what time is left; whether all went well."""
    is_well = True
    for n, name in enumerate(names):
        work, share, _ = PARTS[name]
        if session.tiny and name == "smoke":
            share = 1.0  # on a CPU it takes the longest, and tests the most
        shares = share + sum(PARTS[other][1] for other in names[n + 1 :])
        begin = time.perf_counter()
        session.until = begin + max(end - begin, 0) * share / shares
        session.part = {}
        session.figures["parts"][name] = session.part
        say(f"{name}: {session.left:.0f} s")
        try:
            work(session)
        except Exception as error:
            is_well = False
            session.part |= {"error": short(error), "traceback": traceback.format_exc()}
            say(f"{name}: {short(error)}")
        session.part["seconds"] = round(time.perf_counter() - begin, 1)
        session.save()
        tidy()
    return is_well


def _end_at(session: Session, end: float) -> None:
    """Leave the process then, whatever it does: compilers and threads answer to no alarm."""

    def leave() -> None:
        say("time is up")
        shutil.rmtree(session.place, ignore_errors=True)
        os._exit(1)

    timer = threading.Timer(end - time.perf_counter(), leave)
    timer.daemon = True
    timer.start()


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path, metavar="OUT")
    parser.add_argument("--tiny", action="store_true", help="small enough for a CPU")
    parser.add_argument("--device", choices=("cuda", "cpu"))
    parser.add_argument("--minutes", type=float, default=8.0, help="for everything")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--configs", nargs="+", default=[], help="of the smoke test, only these")
    given = parser.parse_args()
    device = torch.device(given.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    if device.type == "cuda" and not torch.cuda.is_available():
        parser.error("no CUDA device")
    if device.type == "cpu" and not given.tiny:
        parser.error("on a CPU only with --tiny: the figures would mean nothing")
    place = Path(tempfile.mkdtemp(prefix="foldnorm-gpu-"))
    session = Session(place, given.out, device, given.tiny, given.configs)
    end = BEGIN + 60 * given.minutes - RESERVE
    _end_at(session, end + RESERVE - 2)
    session.figures |= {
        "device": session.device_name, "torch": torch.__version__, "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(), "numpy": np.__version__, "tiny": given.tiny,
        "defaults": {"cudnn.allow_tf32": torch.backends.cudnn.allow_tf32,
                     "matmul": torch.get_float32_matmul_precision()},
    }  # fmt: skip
    warnings.simplefilter("ignore")
    say(f"{session.device_name}, {given.minutes:g} minutes")
    try:
        draw_cohorts(session, set().union(*(PARTS[name][2] for name in given.parts)))
        session.figures["seconds_to_prepare"] = round(time.perf_counter() - BEGIN, 1)
        is_well = run_parts(session, given.parts, end)
    finally:
        session.figures["seconds"] = round(time.perf_counter() - BEGIN, 1)
        session.save()
        shutil.rmtree(place, ignore_errors=True)
    return int(not is_well)


if __name__ == "__main__":
    raise SystemExit(main())
