"""The demonstration on phantoms: how long it takes, and what its three ways find.

Runs `foldnorm demo` into OUT/alone, or reads what has been made there, and with --beside also into
OUT/beside while two other processes keep two cores busy. Figures: seconds of both, and AUROC by
score and size of the erased fold, of the benchmarks of `void`, `restorer` and `wgan_gp`; of `void`
and `restorer` also of erased folds that are sulci (``_sulci``) and of the others, secondary folds
(``_others``), which lie anywhere in a phantom. Ends with one line of JSON, which is also written
to RESULT.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from anomaly_statistics import auroc
from figures import write_figures
from tables import of_benchmark

from foldnorm.pipeline.artifacts import BENCHMARK_SUBJECTS, LOCALISATION
from foldnorm.preprocessing.core.files import number, read_json, read_tsv, write_json

FOLDNORM = [sys.executable, "-m", "foldnorm.pipeline.cli"]
BUSY = [sys.executable, "-c", "while True: pass"]
N_BUSY = 2
WAYS = ("void", "restorer", "wgan_gp")
OF_MAPS = {"void": "void_component", "restorer": "evidence_component"}
LEAST = 30  # erased folds that an AUROC is of
SECONDS = "seconds.json"


def seconds_of(out: Path, n_busy: int = 0) -> float:
    """Seconds of a demonstration, made now unless it is there."""
    if not (out / SECONDS).is_file():
        others = [subprocess.Popen(BUSY) for _ in range(n_busy)]
        begin = time.perf_counter()
        try:
            subprocess.run([*FOLDNORM, "demo", "-o", str(out)], check=True)
        finally:
            for other in others:
                other.kill()
                other.wait()
        write_json(out / SECONDS, {"seconds": round(time.perf_counter() - begin)})
    seconds: float = read_json(out / SECONDS)["seconds"]
    return seconds


def found(out: Path) -> dict[str, float]:
    """AUROC by way, score and size; baselines once."""
    figures: dict[str, float] = {}
    for way in WAYS:
        figures |= of_benchmark(out / f"benchmark_{way}", way)
    return figures


def by_name(out: Path) -> dict[str, float]:
    """AUROC of erased folds that are sulci and of others, against intact brains, all draws."""
    figures = {}
    for way, score in OF_MAPS.items():
        folder = out / f"benchmark_{way}"
        rows = read_tsv(folder / BENCHMARK_SUBJECTS)
        names = {_key(row): row["name"] for row in read_tsv(folder / LOCALISATION)}
        intact = np.array([number(row, score) for row in rows if row["altered"] == "0"])
        figures[f"{way}_{score}_intact_median"] = round(float(np.median(intact)), 1)
        for size in sorted({row["size"] for row in rows} - {"0"}):
            altered = [row for row in rows if row["size"] == size and row["altered"] == "1"]
            is_sulcus = np.array([names[_key(row)] != "" for row in altered])
            values = np.array([number(row, score) for row in altered])
            for end, which in (("sulci", is_sulcus), ("others", ~is_sulcus)):
                if which.sum() >= LEAST:
                    figures[f"{way}_{score}_{size}_{end}"] = round(auroc(values[which], intact), 3)
    return figures


def _key(row: dict[str, str]) -> tuple[str, str, str]:
    return row["size"], row["draw"], row["volume"]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path, metavar="OUT", help="folder that keeps everything")
    parser.add_argument("result", type=Path, metavar="RESULT", help="JSON")
    parser.add_argument("--beside", action="store_true", help="also beside two busy processes")
    arguments = parser.parse_args()
    figures = {"seconds": seconds_of(arguments.out / "alone")}
    if arguments.beside:
        figures["seconds_beside_two"] = seconds_of(arguments.out / "beside", N_BUSY)
        figures["beside_two_ratio"] = round(figures["seconds_beside_two"] / figures["seconds"], 2)
    figures |= found(arguments.out / "alone") | by_name(arguments.out / "alone")
    write_figures(arguments.result, figures)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
