"""Names of folds that were learned from gyri by hand, on people of a site left out.

COHORT is 1mm of real_cohort.py: 148 hemispheres of 72 people (two are there twice) whose folds are
named by manual gyri, of three sites. DATA holds sulcal_masks and dkt_sulci.tsv. For each site, an
atlas is made and names are learned from the two others (``foldnorm atlas COHORT --learn --without
…``, one person under two ids counted as one), and the folds of its people are named.

What is counted are voxels of folds, by 21 classes: 20 sulci of the DKT protocol, and none. The
truth is the name of a voxel's fold by the vote of its manual gyri, or that it has none: it lies
inside a gyrus, mostly. Rate is the share of all voxels with the right class, Dice the mean over the
21 classes, each over all voxels. Of

    learned     what was learned, with hemispheres where they lie in MNI space
    given       the same, but no name that is less likely than label-sulci gives

and, on one hemisphere in --every, with ``few_`` before them:

    learned     the same
    placed      learned, after the hemisphere was aligned with the atlas as label-sulci does it
    atlas       the same atlas without what was learned: a fold gets the likeliest sulcus
    densities   the same with the density of folds without a name as one of 21
    both        mean of the probabilities of learned and densities
    masks       the atlas of sulcal_masks, its names grouped by dkt_sulci.tsv

``…_named`` are rates over the voxels whose fold has a name. Intervals are of a bootstrap over
people. ``truth_again_…`` is the truth against itself: two scans that are one, whose gyri were drawn
twice; a voxel has the name of the nearest one of the other within 2 mm. Settings of the namer were
chosen on people of MMRR left out, from people of MMRR alone.

OUT keeps an atlas and the names of each site, which are not made again; --sites makes some of them.
Ends with one line of JSON, which OUT/figures.json holds with commit, date and machine.
"""

import argparse
import itertools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from figures import write_figures
from real_cohort import run
from scipy.spatial import cKDTree
from scipy.special import softmax

from foldnorm.pipeline.inference.atlas_folds import LEAST_PROBABILITY
from foldnorm.pipeline.metrics.bootstrap import bootstrap_interval
from foldnorm.preprocessing.cohort.cohort import Cohort, family_of, row_key
from foldnorm.preprocessing.core.files import read_tsv
from foldnorm.preprocessing.naming.alignment import fold_means, transformed
from foldnorm.preprocessing.naming.atlas import AtlasSide, SulcusAtlas
from foldnorm.preprocessing.naming.atlas_names import name_by_atlas
from foldnorm.preprocessing.naming.learned_names import aligned
from foldnorm.preprocessing.naming.named_folds import names_by_label

SITES = ("MMRR", "HLN", "NKI")
TWICE = (("NKIRS2214", "NKITRT2014"), ("NKIRS223", "NKITRT205"))  # one scan each
BINS = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.001)
DRAWS = 1000
WAYS = ("placed", "atlas", "densities", "both", "masks")  # of one hemisphere in --every
Arrays = dict[str, np.ndarray]


def learn(cohort: Cohort, site: str, out: Path) -> None:
    """Make the atlas of all sites but one."""
    left_out = {
        row["participant_id"] for row in cohort.rows if row["site"] not in set(SITES) - {site}
    }
    run("atlas", cohort.folder, "-o", out, "--learn", "--without", *sorted(left_out), "--quiet")


def named(
    cohort: Cohort,
    site: str,
    atlas: SulcusAtlas,
    masks: SulcusAtlas,
    groups: Mapping[str, str],
    every: int,
) -> Arrays:
    """Name the folds of a site: a row a fold, with its truth and the class by each way of naming.

    Classes are −1 where a hemisphere was not named that way.
    """
    assert atlas.learned is not None
    assert cohort.folds is not None
    tables = names_by_label(cohort)
    classes = [*atlas.names, ""]
    number_of = {name: n for n, name in enumerate(classes)}
    sides = {hemi: (atlas.side(hemi), masks.side(hemi)) for hemi in "LR"}
    found: dict[str, list[Any]] = {}
    indices = [n for n, row in enumerate(cohort.rows) if row["site"] == site]
    for number, index in enumerate(indices):
        row = cohort.rows[index]
        hemi, volume = row["hemi"], np.array(cohort.folds[index])
        points = transformed(np.argwhere(volume), cohort.affine_of(row))
        labels, folds, voxels = np.unique(
            volume[volume > 0], return_inverse=True, return_counts=True
        )
        own = tables[row_key(row)]
        likely = with_none(atlas.learned.posterior(points, folds, hemi))
        ways = dict.fromkeys(WAYS, np.full(len(labels), -1))
        if number % every == 0:
            side, of_masks = sides[hemi]
            density = densities(atlas.learned.places, points, folds, hemi)
            by_placed = name_by_atlas(side, points, folds, learned=atlas.learned, hemi=hemi)
            by_atlas = name_by_atlas(side, points, folds)
            by_masks = name_by_atlas(of_masks, points, folds)
            ways = {
                "placed": [number_of[name] for name in by_placed.names()],
                "atlas": [number_of[name] for name in by_atlas.names()],
                "densities": density.argmax(axis=1),
                "both": (likely + density).argmax(axis=1),
                "masks": [number_of[groups.get(name, "")] for name in by_masks.names()],
            }
        for key, values in {
            "truth": [number_of[own.get(int(label), "")] for label in labels],
            "voxels": voxels,
            "hemisphere": np.full(len(labels), row_key(row)),
            "person": np.full(len(labels), family_of(row)),
            "likely": likely,
            **ways,
        }.items():
            found.setdefault(key, []).append(np.asarray(values))
    return {key: np.concatenate(values) for key, values in found.items()}


def densities(places: AtlasSide, points: np.ndarray, folds: np.ndarray, hemi: str) -> np.ndarray:
    """Probabilities of the classes by their densities in the learned atlas alone."""
    left = aligned(places, points * (-1.0 if hemi == "R" else 1.0, 1, 1), folds)
    voxels = transformed(left, places.to_voxel).astype(np.float32)
    return softmax(fold_means(places.log_density, voxels, folds, int(folds.max()) + 1), axis=1)


def with_none(posterior: np.ndarray) -> np.ndarray:
    """Append the probability of no name, (F, n) → (F, n + 1)."""
    return np.column_stack([posterior, np.maximum(1 - posterior.sum(axis=1), 0)])


def rates(folds: Arrays, given: np.ndarray, n_classes: int) -> dict[str, Any]:
    """Rate, rate of those with a name, and Dice, with intervals; Dice and recall by class."""
    keys, rows = np.unique(folds["hemisphere"], return_inverse=True)
    owners = np.array([folds["person"][folds["hemisphere"] == key][0] for key in keys])
    table = np.zeros((len(keys), n_classes, n_classes))
    np.add.at(table, (rows, folds["truth"], given), folds["voxels"])

    def statistic(weights: np.ndarray) -> list[float]:
        of_all = np.tensordot(weights, table, axes=1)
        right, real, own = np.diag(of_all), of_all.sum(axis=1), of_all.sum(axis=0)
        named = right[:-1].sum() / real[:-1].sum()
        return [right.sum() / real.sum(), named, float(np.mean(2 * right / (real + own)))]

    low, high = bootstrap_interval(statistic, owners, DRAWS)
    found: dict[str, Any] = {"hemispheres": len(keys), "people": len(np.unique(owners))}
    for n, (name, value) in enumerate(
        zip(("rate", "named", "dice"), statistic(np.ones(len(keys))), strict=True)
    ):
        found |= {name: value, f"{name}_low": low[n], f"{name}_high": high[n]}
    of_all = table.sum(axis=0)
    right = np.diag(of_all)
    found["dice_by_class"] = 2 * right / (of_all.sum(axis=0) + of_all.sum(axis=1))
    found["right_by_class"] = right / of_all.sum(axis=1)
    return found


def truth_again(cohort: Cohort, classes: list[str]) -> dict[str, float]:
    """Rate and Dice of the truth of one file of a person against that of the other."""
    tables, found = names_by_label(cohort), []
    rows = {row_key(row): index for index, row in enumerate(cohort.rows)}
    for pair, hemi in itertools.product(TWICE, "LR"):
        known = []
        for participant in pair:
            key = f"sub-{participant}_hemi-{hemi}"
            volume = np.array(cohort.folds[rows[key]])
            points = transformed(np.argwhere(volume), cohort.affine_of(cohort.rows[rows[key]]))
            names = [tables[key].get(int(label), "") for label in volume[volume > 0]]
            known.append((points, np.array([classes.index(name) for name in names])))
        (points, own), (others, other) = known
        distance, nearest = cKDTree(others).query(points)
        table = np.zeros((len(classes), len(classes)))
        np.add.at(table, (own, other[nearest]), distance < 2)
        right, both = np.diag(table), table.sum(axis=0) + table.sum(axis=1)
        found.append([right.sum() / table.sum(), np.mean(2 * right[both > 0] / both[both > 0])])
    rate, dice = np.mean(found, axis=0)
    return {"truth_again_rate": round(rate, 3), "truth_again_dice": round(dice, 3)}


def calibration(folds: Arrays, likely: np.ndarray) -> dict[str, float]:
    """Probability of the likeliest class and share of voxels that are right, by bins of it."""
    said, right = likely.max(axis=1), likely.argmax(axis=1) == folds["truth"]
    found = {}
    for low, high in itertools.pairwise(BINS):
        within = (said >= low) & (said < high)
        weights = folds["voxels"] * within
        found |= {
            f"calibration_{low:g}_said": np.average(said, weights=weights),
            f"calibration_{low:g}_right": np.average(right, weights=weights),
            f"calibration_{low:g}_voxels": weights.sum() / folds["voxels"].sum(),
        }
    return {key: round(float(value), 3) for key, value in found.items()}


def figures(of_sites: Mapping[str, Arrays], classes: list[str]) -> dict[str, Any]:
    """Compute everything that is written."""
    first = next(iter(of_sites.values()))
    folds = {key: np.concatenate([own[key] for own in of_sites.values()]) for key in first}
    n = len(classes)
    some = {key: own[folds["masks"] >= 0] for key, own in folds.items()}
    learned, none = folds["likely"].argmax(axis=1), n - 1
    given = np.where(folds["likely"].max(axis=1) < LEAST_PROBABILITY, none, learned)
    compared = {"learned": (folds, learned), "given": (folds, given)}
    compared |= {
        f"learned_{site}": (own, own["likely"].argmax(axis=1)) for site, own in of_sites.items()
    }
    compared["few_learned"] = (some, some["likely"].argmax(axis=1))
    compared |= {f"few_{way}": (some, some[way]) for way in WAYS}
    found: dict[str, Any] = {}
    for way, (own, given) in compared.items():
        found |= {f"{way}_{key}": value for key, value in rates(own, given, n).items()}
    by_class = {key: found.pop(key) for key in list(found) if key.endswith("by_class")}
    found = {key: value if isinstance(value, int) else round(float(value), 3)
             for key, value in found.items()}  # fmt: skip
    found |= {"dkt_rate": found["learned_rate"], "dkt_dice": found["learned_dice"]}
    found |= calibration(folds, folds["likely"])
    shares = np.bincount(folds["truth"], folds["voxels"], n) / folds["voxels"].sum()
    found["by_class"] = {
        name or "none": {
            "voxels": round(float(shares[c]), 3),
            "dice": round(float(by_class["learned_dice_by_class"][c]), 2),
            "right": round(float(by_class["learned_right_by_class"][c]), 2),
            "few_atlas_dice": round(float(by_class["few_atlas_dice_by_class"][c]), 2),
        }
        for c, name in enumerate(classes)
    }  # fmt: skip
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path, metavar="DATA")
    parser.add_argument("cohort", type=Path, metavar="COHORT")
    parser.add_argument("out", type=Path, metavar="OUT")
    parser.add_argument("--sites", nargs="+", choices=SITES, default=list(SITES))
    parser.add_argument("--every", type=int, default=20)
    arguments = parser.parse_args()
    data, out = arguments.data.absolute(), arguments.out.absolute()
    out.mkdir(parents=True, exist_ok=True)
    cohort = Cohort.open(arguments.cohort.absolute())
    groups = {
        name: row["group"]
        for row in read_tsv(data / "dkt_sulci.tsv") for name in row["BrainVISA_names"].split()
    }  # fmt: skip
    for site in arguments.sites:
        if (out / f"{site}.npz").is_file():
            continue
        path = out / f"without_{site}.npz"
        if not path.is_file():
            learn(cohort, site, path)
        masks = SulcusAtlas.from_masks(data / "sulcal_masks")
        own = named(cohort, site, SulcusAtlas.open(path), masks, groups, arguments.every)
        np.savez_compressed(out / f"{site}.npz", **own)
    if not all((out / f"{site}.npz").is_file() for site in SITES):
        return
    of_sites = {site: dict(np.load(out / f"{site}.npz", allow_pickle=False)) for site in SITES}
    atlas = SulcusAtlas.open(out / f"without_{SITES[0]}.npz")
    classes = [*atlas.names, ""]
    found = figures(of_sites, classes) | truth_again(cohort, classes)
    write_figures(out / "figures.json", found)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
