"""Recognition of sulci on phantoms, for `anomaly.py`: what is absent, erased, displaced, added."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from anomaly_statistics import BOOTSTRAPS, INTERVAL, auroc, interval_of

from foldnorm.pipeline.data.sulcus_labels import SulcusLabels, sulcus_voxels
from foldnorm.pipeline.metrics.classes import sulcus_dice
from foldnorm.pipeline.runs.run_folder import RunFolder
from foldnorm.pipeline.scoring.healthy import split_validation
from foldnorm.pipeline.scoring.network_labeller import NetworkLabeller
from foldnorm.pipeline.scoring.recognition import RecognitionScores
from foldnorm.pipeline.scoring.sulcus_measures import AtlasTemplate
from foldnorm.preprocessing.cohort.cohort import Cohort, row_key
from foldnorm.preprocessing.core.files import read_tsv
from foldnorm.preprocessing.io.volumes import read_labels

FIRST_TEST, ABSENT_FROM = 10000, 10300
EACH, EACH_OTHER = 45, 15  # phantoms in which a sulcus is absent; erased, displaced, …
# Those that have over 500 mm² of the crop in many phantoms, and three more of the hemisphere.
SULCI = ["calcarine", "callosal", "central", "collateral", "inferior_temporal", "intraparietal",
         "lateral_fissure", "parieto_occipital", "postcentral", "superior_temporal"]  # fmt: skip
OUTSIDE_THE_CROP = ["cingulate", "precentral_superior", "superior_frontal"]
# What is done to a sulcus, and by which of its departures that is looked for.
VARIANTS = {"absent": "missing", "erased": "missing", "interrupted": "interrupted",
            "displaced": "displaced", "added": "large"}  # fmt: skip
LEAST = 500  # mm² that the healthy phantom has of a sulcus for its absence to count
CONTROLS = range(
    ABSENT_FROM - FIRST_TEST
)  # of the healthy test phantoms; no one of whom is altered


@dataclass(frozen=True)
class Region:
    """Part of a hemisphere that is looked at.

    Attributes:
        name: of the runs and results.
        end: of the names of its cohorts: ``c…`` to train, ``t…`` healthy, ``absent…`` and others.
        prefix: of its figures.
        kinds: what is done to sulci.
    """

    name: str
    end: str
    prefix: str
    kinds: tuple[str, ...]


CROP = Region("sulci", "2", "", tuple(VARIANTS))
HEMISPHERE = Region("hemisphere", "h", "hemisphere_", ("absent",))


@lru_cache
def sizes_of(out: Path, region: Region) -> dict[str, dict[str, float]]:
    """mm² that healthy phantoms have of each sulcus, by volume."""
    if region is CROP:
        return sulcus_voxels(Cohort.open(out / "t1"))
    found: dict[str, dict[str, float]] = {}
    for tree in ("test", "extra"):
        names = {int(r["label"]): r["name"] for r in read_tsv(out / tree / "fold_names.tsv")}
        for path in sorted((out / tree).rglob("Lfolds_*.nii.gz")):
            counts = np.bincount(read_labels(path).data.ravel(), minlength=max(names) + 1)
            key = f"sub-{path.name.removeprefix('Lfolds_').removesuffix('.nii.gz')}_hemi-L"
            found[key] = {name: float(counts[label]) for label, name in names.items()}
    return found


def altered_brains(out: Path, kind: str, region: Region = CROP) -> Iterator[tuple[int, str]]:
    """Row in the cohort of a kind, and the sulcus, where it counts."""
    sizes = sizes_of(out, region)
    for n, row in enumerate(Cohort.open(out / f"{kind}{region.end}").rows):
        sulcus = row["variant"].split(":")[1]
        if sizes[row_key(row)].get(sulcus, 0) > LEAST:
            yield n, sulcus


def recognition(out: Path, run: Path, region: Region, seed: int) -> dict[str, Any]:
    """Departures of sulci in altered and healthy brains, by the model and by the atlas."""
    folder = out / "results" / f"{region.name}-{seed}"
    groups = {"healthy": (Cohort.open(out / f"t{region.end}"), list(CONTROLS))}
    for kind in region.kinds:
        rows = [n for n, _ in altered_brains(out, kind, region)]
        groups[kind] = Cohort.open(out / f"{kind}{region.end}"), rows
    own = RunFolder.open(run)
    missing = {g: v for g, v in groups.items() if not (folder / f"{g}.npz").is_file()}
    if missing:
        _name(missing, own, own.training_cohort(out / f"c{region.end}"), folder)
    sulci = list(own.config["model"]["init_args"]["sulci"])
    truth = {k: [sulci.index(s) for _, s in altered_brains(out, k, region)] for k in region.kinds}
    found: dict[str, Any] = {"sulci": sulci, "truth": truth}
    for group in groups:
        found |= np.load(folder / f"{group}.npz")
    return found


def _name(
    groups: dict[str, tuple[Cohort, list[int]]], own: RunFolder, reference: Cohort, folder: Path
) -> None:
    """Departures of the sulci of groups of brains, a file a group; Dice of the healthy ones."""
    folder.mkdir(parents=True, exist_ok=True)
    model = NetworkLabeller(own.load(torch.device("cpu")), reference.scheme)
    compared, _ = split_validation(reference)
    kept: dict[str, dict[str, Any]] = {group: {} for group in groups}
    atlas = AtlasTemplate(model.sulci, reference.scheme).fit(reference)
    for who, names in (("model", model), ("atlas", atlas)):
        scores = RecognitionScores(names, reference.affine)
        scores.fit(reference.view(compared))
        for group, (cohort, rows) in groups.items():
            measures = scores.measures(cohort.brains(rows))
            departures = scores.norms.departures(measures)
            kept[group] |= {f"{who}_{group}_{name}": z for name, z in departures.items()}
            kept[group][f"{who}_panel"] = scores.norms.panel_
    if "healthy" in groups:
        cohort, rows = groups["healthy"]
        sulci = SulcusLabels(cohort, model.sulci)
        brains = zip(rows, model.named(cohort.brains(rows)), strict=True)
        kept["healthy"]["dice"] = np.array(
            [sulcus_dice(b.labels, sulci[n], len(model.sulci)) for n, b in brains]
        )
    for group, arrays in kept.items():
        np.savez(folder / f"{group}.npz", **arrays)


def report_recognition(results: list[dict[str, Any]], region: Region) -> dict[str, list[float]]:
    """Print what becomes of altered sulci; returns the figures for the JSON."""
    figures: dict[str, list[float]] = {}
    print(f"\n{region.name}: {len(results)} seeds")
    for who in ("model", "atlas"):
        for kind in region.kinds:
            for panel in (False, True) if kind in ("absent", "erased") else (False,):
                found = [found_of(result, who, kind, panel=panel) for result in results]
                mean = {key: np.mean([f[key] for f in found], axis=0).tolist() for key in found[0]}
                number = int(mean.pop("n")[0])
                label = f"{who}, {kind}{', panel' if panel else ''}, {number} brains"
                shown = [f"{k} {v[0]:.3f} [{v[1]:.3f}, {v[2]:.3f}]" for k, v in mean.items()]
                print(f"{label:<36}", *shown)
                if who == "model" and kind == "absent":
                    end = "_panel" if panel else ""
                    names = {"500": "AUROC", "named": "named", "given": "given"}
                    figures |= {
                        f"{region.prefix}absent_{n}{end}": mean[key] for n, key in names.items()
                    }
    print("each sulcus alone, AUROC:", *region.kinds)
    for n, sulcus in enumerate(results[0]["sulci"]):
        shown = [np.mean([alone(result, kind, n) for result in results]) for kind in region.kinds]
        if not np.isnan(shown).all():
            print(f"  {sulcus:<36}", *(f"{value:.2f}" for value in shown))
    dice = np.nanmean([np.nanmean(result["dice"], axis=1) for result in results], axis=0)
    figures[f"{region.prefix}recognition_dice"] = interval_of(dice)
    print(f"Dice of sulci, healthy test brains: {np.mean(dice):.3f}")
    return figures


def alone(result: dict[str, Any], kind: str, sulcus: int) -> float:
    """AUROC of one sulcus, asked about by its name; NaN where it is never altered so."""
    z, low = (result[f"model_{group}_{VARIANTS[kind]}"][:, sulcus] for group in (kind, "healthy"))
    own = np.array(result["truth"][kind]) == sulcus
    return auroc(z[own], low) if own.any() else float("nan")


def found_of(result: dict[str, Any], who: str, kind: str, *, panel: bool) -> dict[str, list[float]]:
    """Measure if altered brains stand out, and if their sulcus is the one that does."""
    columns = np.flatnonzero(result[f"{who}_panel"]) if panel else np.arange(len(result["sulci"]))
    truth, departure = np.array(result["truth"][kind]), VARIANTS[kind]
    counted = np.isin(truth, columns)
    altered = result[f"{who}_{kind}_{departure}"][counted][:, columns]
    healthy = result[f"{who}_healthy_{departure}"][:, columns]
    place = np.searchsorted(columns, truth[counted])
    rank = np.argsort(-altered, axis=1)
    given = [(healthy[:, t] < z[t]).mean() for z, t in zip(altered, place, strict=True)]
    top, low = altered.max(axis=1), healthy.max(axis=1)
    rng = np.random.default_rng(0)
    drawn = [auroc(rng.choice(top, len(top)), rng.choice(low, len(low))) for _ in range(BOOTSTRAPS)]
    return {
        "n": [float(counted.sum())],
        "AUROC": [auroc(top, low), *map(float, np.percentile(drawn, INTERVAL))],
        "named": interval_of((rank[:, 0] == place).astype(float)),
        "among three": interval_of((rank[:, :3] == place[:, None]).any(axis=1).astype(float)),
        "given": interval_of(np.array(given)),
    }
