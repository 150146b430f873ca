"""Are synthetic volumes any good? One table for any generator, each figure beside its floor.

What was made and real volumes that were not trained on are both compared with training volumes,
as many of each: a perfect generator would look like the held-out ones.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from skimage.filters import threshold_otsu
from sklearn.decomposition import PCA
from torch import Tensor

from foldnorm.models.noise import seed_of
from foldnorm.pipeline.artifacts import (
    BLIND_KEY,
    BLIND_SHEET,
    QUALITY,
    QUALITY_PAIRS,
    QUALITY_SIDECAR,
)
from foldnorm.pipeline.metrics.structure import (
    distance_between,
    microstructure_statistics,
    sheet_statistics,
)
from foldnorm.pipeline.metrics.two_sample import (
    diversity,
    memorised,
    mmd,
    nearest,
    precision_recall_coverage,
    two_sample_auroc,
)
from foldnorm.pipeline.runs.trained_model import TrainedModel
from foldnorm.pipeline.studies.blind_sheet import BlindSheet
from foldnorm.pipeline.studies.synthetic_volumes import SyntheticVolumes, VolumeSet, set_of
from foldnorm.preprocessing.cohort.cohort import Brain, Cohort
from foldnorm.preprocessing.cohort.each_volume import readable
from foldnorm.preprocessing.cohort.pictures import contact_sheet, png, volume_slices
from foldnorm.preprocessing.core.counts import counted
from foldnorm.preprocessing.core.errors import InputError
from foldnorm.preprocessing.core.files import write_bytes, write_json, write_tsv
from foldnorm.preprocessing.core.problems import Problem

LOG = logging.getLogger(__name__)
MIN_VOLUMES = 8  # of a set
N_FITTED = 1000  # training volumes, at most, that features are fitted to
COMPONENTS = 32  # of the features, where no encoder is given
MAX_SIDE = 32  # blocks along the longest side of what these are fitted to
N_SHOWN = 6  # closest pairs
# Which way a figure is good: the nearer to the floor, or the higher, or the lower.
BETTER = {"mmd": "low", "precision": "high", "recall": "high", "coverage": "high",
          "ms_ssim": "floor", "nearest_training": "floor", "memorised": "low",
          "two_sample_auroc": "low"}  # fmt: skip
Volumes = NDArray[np.float32]
Figures = dict[str, dict[str, float]]  # by set and name


@dataclass(frozen=True)
class QualityOptions:
    """Options of the comparison of synthetic with real volumes.

    Attributes:
        number: of volumes of each set, at most.
        seed: of what is drawn.
        microstructure: also measure images as microstructures.
        blind_sheet: volumes of either kind, at most, that a reader is to tell apart; 0: no sheet.
    """

    number: int = 200
    seed: int = 0
    microstructure: bool = False
    blind_sheet: int = 0


@dataclass(frozen=True)
class QualityResult:
    """Comparison of synthetic volumes with training ones, beside held-out ones.

    Attributes:
        table: a row a figure: of synthetic volumes, of held-out ones, of training volumes among
            themselves where that can be said, and which way is better.
        closest_pairs: PNG of synthetic volumes that are nearest to a training volume, above it.
        about: what was compared; more of ``quality.json``.
        failed: volumes that cannot be read, and why.
        blind_sheet: synthetic and held-out volumes in random order, if asked for.
    """

    table: list[dict[str, Any]]
    closest_pairs: bytes
    about: Mapping[str, Any]
    failed: list[Problem]
    blind_sheet: BlindSheet | None = None

    def save(self, out: Path) -> None:
        """Write ``quality.tsv``, ``closest_pairs.png``, ``quality.json`` and the blind sheet."""
        write_tsv(out / QUALITY, self.table, tuple(QUALITY.columns))
        write_bytes(out / QUALITY_PAIRS, self.closest_pairs)
        sets = ("synthetic", "held_out", "training")
        figures = {row["figure"]: {name: row[name] for name in sets} for row in self.table}
        write_json(out / QUALITY_SIDECAR, {**self.about, "figures": figures})
        for stale in (BLIND_SHEET, BLIND_KEY):  # of other volumes
            (out / stale).unlink(missing_ok=True)
        if self.blind_sheet is not None:
            self.blind_sheet.save(out)


def measure_quality(
    cohort: Cohort,
    synthetic: Path,
    options: QualityOptions,
    encoder: TrainedModel | None = None,
) -> QualityResult:
    """Compare synthetic volumes with the cohort that their generator was trained on.

    A volume of either that cannot be read takes no part, and is named in the result.

    Args:
        cohort: its training split is the reference, the other splits are the floor.
        synthetic: folder that `foldnorm generate` wrote, or a cohort.
        options: how.
        encoder: a model of the cohort, in whose codes sets are compared; None: principal components
            of the training volumes.

    Raises:
        InputError: there are too few volumes, or they are of another shape.
    """
    rng = np.random.default_rng(seed_of(options.seed, "quality"))
    failed: list[Problem] = []
    known = readable(cohort, cohort.indices("train"), failed)
    drawn = _drawn(cohort, synthetic, known, options, rng, failed)
    figures = _in_features(cohort, drawn, rng.permutation(known)[:N_FITTED], encoder)
    nearest_of = _to_nearest(cohort, drawn, known, figures)
    _in_pictures(cohort, drawn, options, figures)
    rows = [
        {"figure": figure, "better": better,
         **{name: figures[name].get(figure) for name in drawn}}
        for figure, better in BETTER.items()
    ]  # fmt: skip
    rows += _statistics(cohort, drawn, options)
    closest = _closest(cohort, drawn["synthetic"], known, *nearest_of["synthetic"])
    about: dict[str, Any] = {
        "cohort": str(cohort.folder.resolve()),
        "synthetic": str(synthetic.resolve()),
        "phantom": cohort.is_phantom,
        "volumes_of_each_set": len(drawn["synthetic"].groups),
        "training_volumes": len(known),
        "features": "codes of the encoder" if encoder else "principal components of the training "
                    "volumes",
        "seed": options.seed,
        "warnings": _warnings(figures, drawn),
    }  # fmt: skip
    for warning in about["warnings"]:
        LOG.warning(warning)
    sheet = _blind_sheet(cohort, drawn, options) if options.blind_sheet else None
    return QualityResult(rows, closest, about, list(dict.fromkeys(failed)), sheet)


def _warnings(figures: Figures, drawn: dict[str, VolumeSet]) -> list[str]:
    """Say that precision and recall say nothing, where held-out volumes have no recall either."""
    if figures["held_out"]["recall"] > 0:
        return []
    count = counted(len(drawn["held_out"].groups), "volume")
    return [
        f"with {count} of each set precision and recall say nothing: recall is 0 for held-out real "
        "volumes too; compare more (--num), or codes (--encoder)"
    ]


def _blind_sheet(
    cohort: Cohort, drawn: dict[str, VolumeSet], options: QualityOptions
) -> BlindSheet:
    """Lay out as many synthetic as held-out volumes, which are in random order already."""
    synthetic, real = (
        VolumeSet(own.volumes[: options.blind_sheet], own.groups[: options.blind_sheet])
        for own in (drawn["synthetic"], drawn["held_out"])
    )
    rng = np.random.default_rng(seed_of(options.seed, "blind sheet"))
    return BlindSheet.from_sets(cohort, synthetic, real, rng)


def _drawn(
    cohort: Cohort,
    synthetic: Path,
    known: NDArray[np.int64],
    options: QualityOptions,
    rng: np.random.Generator,
    failed: list[Problem],
) -> dict[str, VolumeSet]:
    """As many volumes of each set.

    Args:
        cohort: of the training volumes and those that are held out.
        synthetic: see `measure_quality`.
        known: indices of the training volumes.
        options: how many, at most.
        rng: draws them.
        failed: to which volumes are added that cannot be read, and why.

    Raises:
        InputError: there are too few.
    """
    made = SyntheticVolumes.from_folder(synthetic, cohort)
    held_out = readable(cohort, cohort.indices("validation", "test"), failed)
    found = made.some(rng.permutation(made.count), min(options.number, len(known)), failed)
    sizes = {"synthetic": len(found.groups), "held_out": len(held_out), "training": len(known)}
    count = min(options.number, *sizes.values())
    if count < MIN_VOLUMES:
        shown = ", ".join(f"{size} {name}" for name, size in sizes.items())
        besides = f" (beside {failed[0].key}: {failed[0].reason})" if failed else ""
        raise InputError(
            f"expected at least {MIN_VOLUMES} volumes of each set, got {shown}{besides}"
        )
    return {
        "synthetic": VolumeSet(found.volumes[:count], found.groups[:count]),
        "held_out": set_of(cohort, rng.permutation(held_out)[:count]),
        "training": set_of(cohort, rng.permutation(known)[:count]),
    }


def _to_nearest(
    cohort: Cohort, drawn: dict[str, VolumeSet], known: NDArray[np.int64], figures: Figures
) -> dict[str, tuple[NDArray[np.float64], NDArray[np.int64]]]:
    """Distance of each volume to the nearest training volume, and which that is; with figures."""
    found = {}
    for name in ("synthetic", "held_out"):
        every = (_floats(cohort, brain.volume) for brain in cohort.brains(known))
        found[name] = nearest(_floats(cohort, drawn[name].volumes), every)
    for name, (apart, _) in found.items():
        figures[name]["nearest_training"] = float(np.median(apart))
        figures[name]["memorised"] = memorised(apart, found["held_out"][0])
    return found


def _in_pictures(
    cohort: Cohort, drawn: dict[str, VolumeSet], options: QualityOptions, figures: Figures
) -> None:
    """Measure the diversity of each set, and how well a network tells it from training volumes."""
    volumes = {name: _floats(cohort, own.volumes) for name, own in drawn.items()}
    if len(cohort.shape) == 3:  # a network for whole volumes would take hours
        volumes = {name: _shrunk(own) for name, own in volumes.items()}
    for name, own in drawn.items():
        count = len(own.groups)
        figures[name]["ms_ssim"] = diversity(volumes[name], own.groups, count, options.seed)
    for name in ("synthetic", "held_out"):
        groups = drawn[name].groups, drawn["training"].groups
        figures[name]["two_sample_auroc"] = two_sample_auroc(
            volumes[name], volumes["training"], groups, options.seed
        )


def _floats(cohort: Cohort, volumes: NDArray[Any]) -> Volumes:
    """Intensities; of label volumes, where there is structure: −1 or 1."""
    if cohort.holds_images:
        return volumes
    return cohort.scheme.foreground(volumes).astype(np.float32) * 2 - 1


def _in_features(
    cohort: Cohort,
    drawn: dict[str, VolumeSet],
    fitted: NDArray[np.int64],
    encoder: TrainedModel | None,
) -> Figures:
    """MMD, precision, recall and coverage of each set beside the training one."""
    if encoder is not None:
        if encoder.conditions.size:
            told = ", ".join(column.name for column in encoder.conditions.columns)
            raise InputError(
                f"--encoder: {type(encoder.model).__name__} is told {told}, and nobody knows that "
                "of a synthetic volume; take a model that is told nothing"
            )
        features = {
            name: encoder.encode(Brain(volume, {}) for volume in own.volumes).astype(np.float64)
            for name, own in drawn.items()
        }
    else:
        blocks = _blocks(_floats(cohort, set_of(cohort, fitted).volumes))
        pca = PCA(min(COMPONENTS, len(blocks) - 1), random_state=0).fit(blocks)
        features = {name: pca.transform(_blocks(_floats(cohort, own.volumes)))
                    for name, own in drawn.items()}  # fmt: skip
    figures: Figures = {name: {} for name in drawn}
    for name in ("synthetic", "held_out"):
        figures[name] = {
            "mmd": mmd(features[name], features["training"]),
            **precision_recall_coverage(features[name], features["training"]),
        }
    return figures


def _blocks(volumes: Volumes) -> NDArray[np.float64]:
    """Means of blocks, at most `MAX_SIDE` along the longest side, (N, d)."""
    return _shrunk(volumes).reshape(len(volumes), -1).astype(np.float64)


def _shrunk(volumes: Volumes) -> Volumes:
    """Means of blocks, at most `MAX_SIDE` along the longest side, (N, *grid)."""
    sides = volumes.shape[1:]
    factor = max(-(-max(sides) // MAX_SIDE), 1)
    if factor == 1:
        return volumes
    grid = [max(side // factor, 1) for side in sides]
    pool: Any = F.adaptive_avg_pool2d if len(sides) == 2 else F.adaptive_avg_pool3d
    pooled: Tensor = pool(torch.from_numpy(volumes).unsqueeze(1), grid)
    return pooled.squeeze(1).numpy()


def _statistics(
    cohort: Cohort, drawn: dict[str, VolumeSet], options: QualityOptions
) -> list[dict[str, Any]]:
    """Compare the distribution of each statistic with that of training volumes."""
    if cohort.holds_images and not options.microstructure:
        return []
    measured: dict[str, list[dict[str, float]]] = {}
    if cohort.holds_images:
        threshold = float(threshold_otsu(drawn["training"].volumes))
        for name, own in drawn.items():
            measured[name] = [microstructure_statistics(v, threshold) for v in own.volumes]
    else:
        for name, own in drawn.items():
            measured[name] = [sheet_statistics(v, cohort.scheme) for v in own.volumes]
    rows = []
    far = {name: distance_between(measured[name], measured["training"])
           for name in ("synthetic", "held_out")}  # fmt: skip
    for statistic in far["synthetic"]:
        means = {name: np.nanmean([row.get(statistic, np.nan) for row in rows_of])
                 for name, rows_of in measured.items()}  # fmt: skip
        rows.append({"figure": f"mean_{statistic}", "better": "floor", **means})
        apart = {name: own[statistic] for name, own in far.items()}
        rows.append({"figure": f"ks_{statistic}", "better": "low", **apart, "training": None})
    if not cohort.holds_images:
        rows.append(_prevalence(cohort, drawn))
    return rows


def _prevalence(cohort: Cohort, drawn: dict[str, VolumeSet]) -> dict[str, Any]:
    """Compare the share of volumes with structure, on average over blocks of the box."""
    maps = {
        name: _blocks(_floats(cohort, own.volumes)).mean(axis=0) / 2 for name, own in drawn.items()
    }
    apart = {name: float(np.abs(maps[name] - maps["training"]).mean())
             for name in ("synthetic", "held_out")}  # fmt: skip
    return {"figure": "prevalence_difference", "better": "low", **apart, "training": None}


def _closest(
    cohort: Cohort,
    made: VolumeSet,
    known: NDArray[np.int64],
    distances: NDArray[np.float64],
    places: NDArray[np.int64],
) -> bytes:
    """Synthetic volumes that are nearest to a training volume, above it."""
    chosen = np.argsort(distances)[:N_SHOWN]
    rows = [
        [s for n in chosen for s in volume_slices(cohort, made.volumes[n])],
        [
            s
            for n in chosen
            for s in volume_slices(cohort, set_of(cohort, known[places[[n]]]).volumes[0])
        ],
    ]
    return png(contact_sheet(rows))
