"""The real cohort: whole hemispheres of 88 brains of four sites, at 2 mm and at 1 mm.

DATA is a folder with mindboggle (75 subjects with ``mri/aparc+aseg.mgz``) and brain_labels (14
whole-brain maps). OUT gets

    skeletons   of both, with participants.tsv: site, and one family for two scans of one person
    2mm, 1mm    cohorts in MNI space, right hemispheres mirrored, sheets thinned, with fold labels

What is finished is not made again, and has no minutes among the figures. Prints each command line
that it runs, and ends with one line of JSON; figures.json holds it too, with commit, date and
machine.
"""

import argparse
import json
import shlex
import time
from collections.abc import Sequence
from pathlib import Path

from figures import write_figures

from foldnorm.pipeline.cli import main as foldnorm
from foldnorm.preprocessing.cohort.cohort import Cohort, family_of
from foldnorm.preprocessing.core.files import read_json, read_tsv, write_tsv
from foldnorm.preprocessing.skeletons.skeletons import SEGMENTATION_FOLDER

# Whole hemispheres in MNI space, and some mm beyond the largest; the right ones mirrored.
LAYOUT = ["--space", "mni", "--mirror-right", "--thin", "--crop", "mm:-80,16,-122,86,-66,94",
          "--pad", "multiple:8"]  # fmt: skip
SIZES = {"2mm": "2", "1mm": "1"}
SOURCES = ("mindboggle", "brain_labels")
# NKI-RS and NKI-TRT are one site (Rockland); ids as the tree of skeletons has them.
SITES = {"NKI": "NKI", "MMRR": "MMRR", "HLN": "HLN", "training": "SynthSeg"}
# One person, one scan, under two ids.
FAMILIES = {"NKIRS2214": "NKIRS2214", "NKITRT2014": "NKIRS2214",
            "NKIRS223": "NKIRS223", "NKITRT205": "NKIRS223"}  # fmt: skip


def run(*words: object) -> None:
    """Run a foldnorm command line, which may refuse some of its input."""
    print(f"$ foldnorm {shlex.join(map(str, words))}", flush=True)
    code = foldnorm(list(map(str, words)))
    assert code in (0, 1), code


def write_sites(skeletons: Path) -> None:
    """Write the site and family of every brain that has a skeleton."""
    brains = sorted({path.parents[4].name for path in skeletons.glob(
        f"*/*/{SEGMENTATION_FOLDER}/Lskeleton_*.json")})  # fmt: skip
    rows = [
        {
            "participant_id": brain,
            "site": next(site for start, site in SITES.items() if brain.startswith(start)),
            "family": FAMILIES.get(brain),
        }
        for brain in brains
    ]
    write_tsv(skeletons / "participants.tsv", rows, ("participant_id", "site", "family"))


def make(data: Path, out: Path, *, sizes: Sequence[str] = tuple(SIZES), n_procs: int = 2) -> dict:
    """Make skeletons and cohorts; return the figures."""
    procs = ["--n-procs", n_procs, "--quiet"]
    figures: dict[str, object] = {"processes": n_procs}
    refused: list[dict[str, str]] = []
    for source in SOURCES:
        start, folder = time.perf_counter(), out / "skeletons" / source
        is_new = not folder.exists()
        run("skeletonise", data / source, "-o", folder, *procs)
        if is_new:
            figures[f"minutes_{source}"] = round((time.perf_counter() - start) / 60, 1)
        refused += read_json(folder / "run_report.json")["failed"]
    write_sites(out / "skeletons")
    for name in sizes:
        start, cohort = time.perf_counter(), out / name
        is_new = not cohort.exists()
        run("preprocess", out / "skeletons", "-o", cohort, "--voxel-size", SIZES[name], *LAYOUT,
            *procs)  # fmt: skip
        report, table = read_json(cohort / "run_report.json"), read_tsv(cohort / "qc.tsv")
        refused += report["failed"]
        if is_new:
            figures[f"minutes_{name}"] = round((time.perf_counter() - start) / 60, 1)
        rows, duplicates = Cohort.open(cohort).rows, report["duplicates"]
        figures |= {
            f"hemispheres_{name}": len(table),
            f"ids_{name}": len({row["participant_id"] for row in rows}),
            f"people_{name}": len({family_of(row) for row in rows}),
            f"sites_{name}": len({row["site"] for row in rows}),
            f"flagged_{name}": sum(bool(row["flags"]) for row in table),
            f"warned_{name}": sum(bool(row["warnings"]) for row in table),
            f"duplicates_{name}": len(duplicates),
            f"overlaps_{name}": [round(pair["overlap"], 3) for pair in duplicates],
        }
    return {"refused": [failure["volume"] for failure in refused], **figures}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path, metavar="DATA")
    parser.add_argument("out", type=Path, metavar="OUT", help="folder that keeps everything")
    parser.add_argument("--n-procs", type=int, default=2)
    parser.add_argument("--sizes", nargs="+", choices=tuple(SIZES), default=list(SIZES))
    arguments = parser.parse_args()
    figures = make(arguments.data, arguments.out, sizes=arguments.sizes, n_procs=arguments.n_procs)
    write_figures(arguments.out / "figures.json", figures)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
