"""Names of sulci in real brains: how many voxels an atlas names right, without training.

DATA is a folder with sulcal_masks (maps of each sulcus), morphologist (archi/001, named by hand,
hcp/100206, named by Morphologist, both left and right), mindboggle (gyri by hand) and
dkt_sulci.tsv. Printed and written:

    rate60_hand, dice_hand    voxels of hand-named folds with the right name, mean Dice of the names
    rate60_own                the same for skeletons made here; the nearest named voxel is the truth
    dice17_hand, dice17_graph mean Dice of the 17 large sulci of `LARGE`, of these and of the graphs
    rate60_auto, dice_auto    against automatic names
    captured_rate             brains turned by 20° and shifted by 20 mm at random, least of 8
    calibration_…             share of rightly named voxels where the posterior lies in a bin; its
                              gap to the mean posterior, with the 95 % interval of a bootstrap over
                              folds, each of which is named as a whole
    gyri_vs_atlas             folds named by gyri and by the atlas that agree, of --brains
                              Mindboggle brains; sulci of both vocabularies by dkt_sulci.tsv
    seconds                   of a processor, a hemisphere at 1 mm, from points to names
    mebibytes                 most that ``foldnorm label-sulci`` takes for two hemispheres at 1 mm

and, by sulcus, the share of its hand-named voxels that are named right. All of it rests on two
people named (one by hand), and on the settings of `foldnorm.preprocessing.naming`, of which the
prior and the sharpness of the posterior were set on these four hemispheres.

OUT keeps what was made. Ends with one line of JSON, which OUT/figures.json holds with commit, date
and machine.
"""

import argparse
import itertools
import json
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from figures import write_figures
from real_cohort import run
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from foldnorm.pipeline.metrics.bootstrap import bootstrap_interval
from foldnorm.preprocessing.cohort.cohort import Cohort, row_key
from foldnorm.preprocessing.core.files import read_tsv
from foldnorm.preprocessing.naming.alignment import transformed
from foldnorm.preprocessing.naming.atlas import AtlasSide, SulcusAtlas
from foldnorm.preprocessing.naming.atlas_names import AtlasFoldNames, name_by_atlas
from foldnorm.preprocessing.naming.sulcus_names import NOT_NAMES, sulcus_name

LAYOUT = ("--space", "mni", "--voxel-size", "1", "--hull", "remove", "--quiet")
BINS = (0.5, 0.6, 0.7, 0.8, 0.9, 0.99, 1.001)
DRAWS = 1000
TURNS, DEGREES, SHIFT_MM = 2, 20.0, 20.0

# Large sulci, and the names that each of them has in graphs.
LARGE = {
    "lateral_fissure": ("F.C.L.p.", "S.C.sylvian.", "F.C.L.a."), "superior_temporal": ("S.T.s.",),
    "central": ("S.C.",), "postcentral": ("S.Po.C.sup.", "F.I.P.Po.C.inf."),
    "superior_frontal": ("S.F.sup.",), "inferior_frontal": ("S.F.inf.",),
    "precentral_superior": ("S.Pe.C.sup.", "S.Pe.C.inter."),
    "precentral_inferior": ("S.Pe.C.inf.",),
    "intraparietal": ("F.I.P.",), "inferior_temporal": ("S.T.i.ant.", "S.T.i.post."),
    "cingulate": ("F.C.M.ant.", "F.C.M.post."), "calcarine": ("F.Cal.ant.-Sc.Cal.",),
    "parieto_occipital": ("F.P.O.",), "collateral": ("F.Coll.",), "subparietal": ("S.s.P.",),
    "orbital": ("S.Or.",), "callosal": ("S.Call.",),
}  # fmt: skip


class Hemisphere(NamedTuple):
    """Points of the folds of a hemisphere, and their names."""

    key: str
    side: AtlasSide
    points: np.ndarray  # (N, 3), MNI mm
    folds: np.ndarray  # (N,)
    names: np.ndarray  # (N,), empty where there is none


def hemispheres(cohort: Cohort, atlas: SulcusAtlas) -> Iterator[Hemisphere]:
    """Yield the hemispheres of a cohort in MNI space; all at once are 100 MB each."""
    tables: dict[str, dict[int, str]] = defaultdict(dict)
    for row in cohort.fold_table:
        name = "" if row["name"] in NOT_NAMES else sulcus_name(row["name"], both_sides=False)
        tables[row_key(row)][int(row["label"])] = name
    assert cohort.folds is not None
    for index, row in enumerate(cohort.rows):
        labels = np.array(cohort.folds[index])
        folds = labels[labels > 0]
        points = transformed(np.argwhere(labels > 0), cohort.affine_of(row))
        table = tables[row_key(row)]
        names = np.array([table.get(int(label), "") for label in folds])
        yield Hemisphere(row_key(row), atlas.side(row["hemi"]), points, folds, names)


def of_voxels(found: AtlasFoldNames, folds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Name of each voxel, and its probability."""
    where = np.searchsorted(found.labels, folds)
    return np.array(found.names())[where], found.probabilities()[where]


def dice(named: np.ndarray, true: np.ndarray) -> float:
    """Mean Dice over the true names."""
    found = []
    for name in np.unique(true):
        own, real = named == name, true == name
        found.append(2 * (own & real).sum() / (own.sum() + real.sum()))
    return float(np.mean(found))


def dice_of_large(every: list[tuple[np.ndarray, ...]]) -> float:
    """Mean Dice of the sulci of `LARGE`, of the names and the truth of each hemisphere."""
    large = {name: sulcus for sulcus, names in LARGE.items() for name in names}
    found = []
    for parts in every:
        named, true = (np.array([large.get(name, "") for name in part]) for part in parts[:2])
        # Voxels of no large sulcus count where they are named after one.
        dices = [
            2 * ((named == sulcus) & (true == sulcus)).sum()
            / ((named == sulcus).sum() + (true == sulcus).sum())
            for sulcus in LARGE if (true == sulcus).any()
        ]  # fmt: skip
        found.append(np.mean(dices))
    return float(np.mean(found))


def rates(brains: list[Hemisphere]) -> tuple[float, float, list[tuple[np.ndarray, ...]]]:
    """Share of voxels with the right name, Dice; names, truth, probability and fold of each."""
    every = []
    for brain in brains:
        names, likely = of_voxels(name_by_atlas(brain.side, brain.points, brain.folds), brain.folds)
        known = brain.names != ""
        every.append((names[known], brain.names[known], likely[known], brain.folds[known]))
    rate = float(np.mean([(names == true).mean() for names, true, *_ in every]))
    return rate, float(np.mean([dice(names, true) for names, true, *_ in every])), every


def calibration(every: list[tuple[np.ndarray, ...]]) -> dict[str, float]:
    """Probability that is given and share that is right, of voxels by bins of the former."""
    parts = []
    for names, true, likely, folds in every:
        _, first, rows = np.unique(folds, return_index=True, return_inverse=True)
        right = np.bincount(rows, names == true)
        parts.append((likely[first], right, np.bincount(rows)))
    said, right, voxels = (np.concatenate(own) for own in zip(*parts, strict=True))
    found = {}
    for low, high in itertools.pairwise(BINS):
        within = (said >= low) & (said < high)
        own, more = voxels[within], (right - voxels * said)[within]
        ends = bootstrap_interval(
            lambda w, own=own, more=more: (w @ more) / (w @ own), np.arange(len(own)), DRAWS
        )
        values = {
            "right": right[within].sum() / own.sum(), "said": np.average(said[within], weights=own),
            "voxels": own.sum() / voxels.sum(), "gap": more.sum() / own.sum(),
            "gap_low": ends[0], "gap_high": ends[1],
        }  # fmt: skip
        found |= {f"calibration_{low:g}_{key}": value for key, value in values.items()}
    return found


def captured(brain: Hemisphere, rng: np.random.Generator) -> float:
    """Share of rightly named voxels of a brain that was turned and shifted."""
    axis, shift = rng.normal(size=(2, 3))
    turn = Rotation.from_rotvec(np.deg2rad(DEGREES) * axis / np.linalg.norm(axis)).as_matrix()
    centre = brain.points.mean(axis=0)
    shift *= SHIFT_MM / np.linalg.norm(shift)
    points = (brain.points - centre) @ turn.T + centre + shift
    names, _ = of_voxels(name_by_atlas(brain.side, points, brain.folds), brain.folds)
    known = brain.names != ""
    return float((names == brain.names)[known].mean())


def with_names_of(brains: list[Hemisphere], truth: list[Hemisphere]) -> list[Hemisphere]:
    """Give the voxels of one skeleton the names of the nearest voxel of another."""
    found = []
    for brain, true in zip(brains, truth, strict=True):
        assert brain.key == true.key
        distance, nearest = cKDTree(true.points).query(brain.points)
        found.append(brain._replace(names=np.where(distance < 3, true.names[nearest], "")))
    return found


def agreement(brains: Iterable[Hemisphere], data: Path) -> dict[str, Any]:
    """Compare names by gyri with those of the atlas, on the voxels that both name."""
    groups = {
        name: row["group"]
        for row in read_tsv(data / "dkt_sulci.tsv") for name in row["BrainVISA_names"].split()
    }  # fmt: skip
    shares, named = [], []
    for brain in brains:
        names, _ = of_voxels(name_by_atlas(brain.side, brain.points, brain.folds), brain.folds)
        own = np.array([groups.get(name, "") for name in names])
        both = (own != "") & (brain.names != "")
        shares.append((own == brain.names)[both].mean())
        named.append(both.mean())
    return {
        "gyri_vs_atlas": round(float(np.mean(shares)), 3),
        "gyri_vs_atlas_least": round(float(np.min(shares)), 3),
        "gyri_vs_atlas_voxels": round(float(np.mean(named)), 3),
        "gyri_vs_atlas_hemispheres": len(shares),
    }


# A child's ru_maxrss has that of its parent in it: it says itself what it took.
LABELLED = """
import re, sys
from pathlib import Path
from foldnorm.pipeline.cli import main
main(sys.argv[1:])
print(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
"""


def memory(atlas: Path, cohort: Path, out: Path) -> int:
    """Most MiB that the command takes, in a process of its own."""
    words = ["label-sulci", atlas, cohort, "-o", out, "--quiet", "--overwrite"]
    program = [sys.executable, "-c", LABELLED, *map(str, words)]
    return round(int(subprocess.run(program, check=True, capture_output=True).stdout) / 1024)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path, metavar="DATA")
    parser.add_argument("out", type=Path, metavar="OUT")
    parser.add_argument("--brains", nargs="*", default=["HLN-12-1", "MMRR-21-2", "NKI-TRT-20-3"])
    arguments = parser.parse_args()
    data, out = arguments.data.absolute(), arguments.out.absolute()
    if not (out / "atlas.npz").is_file():
        run("atlas", data / "sulcal_masks", "-o", out / "atlas.npz", "--quiet")
    atlas = SulcusAtlas.open(out / "atlas.npz")
    morphologist = data / "morphologist"
    made: dict[str, Iterator[Hemisphere]] = {}
    for name, more in (
        ("archi", [morphologist / "archi"]), ("hcp", [morphologist / "hcp"]),
        ("own", [morphologist / "archi", "--from", "segmentation"]),
        ("gyri", [data / "mindboggle", "--from", "segmentation", "--participant-label",
                  *arguments.brains]),
    ):  # fmt: skip
        if not (out / name / "volumes.npy").is_file():
            run("preprocess", more[0], "-o", out / name, *LAYOUT, *more[1:])
        made[name] = hemispheres(Cohort.open(out / name), atlas)
    archi, hcp, own = (list(made[name]) for name in ("archi", "hcp", "own"))
    rate_hand, dice_hand, of_hand = rates(archi)
    rate_auto, dice_auto, of_auto = rates(hcp)
    rate_own, dice_own, of_own = rates(with_names_of(own, archi))
    named, true, *_ = (np.concatenate(part) for part in zip(*of_hand, *of_auto, strict=True))
    figures: dict[str, Any] = {
        "rate60_hand": rate_hand, "dice_hand": dice_hand, "rate60_own": rate_own,
        "dice_own": dice_own, "dice17_hand": dice_of_large(of_own),
        "dice17_graph": dice_of_large(of_hand), "rate60_auto": rate_auto, "dice_auto": dice_auto,
    }  # fmt: skip
    figures |= calibration([*of_hand, *of_auto])
    rng = np.random.default_rng(0)
    both = archi + hcp
    figures["captured_rate"] = min(captured(brain, rng) for brain in both for _ in range(TURNS))
    seconds = []
    for brain in both:
        begun = time.process_time()
        name_by_atlas(brain.side, brain.points, brain.folds)
        seconds.append(time.process_time() - begun)
    figures["seconds"] = float(np.median(seconds))
    figures = {key: round(float(value), 3) for key, value in figures.items()}
    figures |= agreement(made["gyri"], data)
    figures["mebibytes"] = memory(out / "atlas.npz", out / "archi", out / "labelled")
    right = {
        name: round(float((named == true)[true == name].mean()), 2) for name in np.unique(true)
    }
    write_figures(out / "figures.json", figures | {"right_by_sulcus": right})
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
