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
from foldnorm.pipeline.artifacts import QUALITY, QUALITY_PAIRS, QUALITY_SIDECAR, SYNTHETIC_SHEET
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
from foldnorm.preprocessing.cohort.cohort import DESCRIPTION, Brain, Cohort, intensities_of
from foldnorm.preprocessing.cohort.images import ImageFile, read_image
from foldnorm.preprocessing.cohort.pictures import contact_sheet, png, volume_slices
from foldnorm.preprocessing.core.errors import InputError
from foldnorm.preprocessing.core.files import write_bytes, write_json, write_tsv
from foldnorm.preprocessing.io.scan import (
    NIFTI,
    PICTURES,
    STACKS,
    Scan,
    not_used,
    scan,
    unused_line,
)
from foldnorm.preprocessing.io.volumes import read_labels

MIN_VOLUMES = 8  # of a set
N_FITTED = 1000  # training volumes, at most, that features are fitted to
COMPONENTS = 32  # of the features, where no encoder is given
MAX_SIDE = 32  # blocks along the longest side of what these are fitted to
N_SHOWN = 6  # closest pairs
LOG = logging.getLogger(__name__)
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
    """

    number: int = 200
    seed: int = 0
    microstructure: bool = False


@dataclass(frozen=True)
class _Set:
    """Volumes, and whose each is.

    Attributes:
        volumes: (N, *sides) as models see them: class numbers, or intensities from −1 to 1.
        groups: participant of each.
    """

    volumes: NDArray[Any]
    groups: list[str]


@dataclass(frozen=True)
class QualityResult:
    """Comparison of synthetic volumes with training ones, beside held-out ones.

    Attributes:
        table: a row a figure: of synthetic volumes, of held-out ones, of training volumes among
            themselves where that can be said, and which way is better.
        closest_pairs: PNG of synthetic volumes that are nearest to a training volume, above it.
        about: what was compared; more of ``quality.json``.
    """

    table: list[dict[str, Any]]
    closest_pairs: bytes
    about: Mapping[str, Any]

    def save(self, out: Path) -> None:
        """Write ``quality.tsv``, ``closest_pairs.png`` and ``quality.json``."""
        write_tsv(out / QUALITY, self.table, tuple(QUALITY.columns))
        write_bytes(out / QUALITY_PAIRS, self.closest_pairs)
        sets = ("synthetic", "held_out", "training")
        figures = {row["figure"]: {name: row[name] for name in sets} for row in self.table}
        write_json(out / QUALITY_SIDECAR, {**self.about, "figures": figures})


def measure_quality(
    cohort: Cohort,
    synthetic: Path,
    options: QualityOptions,
    encoder: TrainedModel | None = None,
) -> QualityResult:
    """Compare synthetic volumes with the cohort that their generator was trained on.

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
    known = cohort.indices("train")
    drawn = _drawn(cohort, synthetic, options, rng)
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
    about = {
        "cohort": str(cohort.folder.resolve()),
        "synthetic": str(synthetic.resolve()),
        "phantom": cohort.is_phantom,
        "volumes_of_each_set": len(drawn["synthetic"].groups),
        "training_volumes": len(known),
        "features": "codes of the encoder" if encoder else "principal components of the training "
                    "volumes",
        "seed": options.seed,
    }  # fmt: skip
    return QualityResult(rows, closest, about)


def _drawn(
    cohort: Cohort, synthetic: Path, options: QualityOptions, rng: np.random.Generator
) -> dict[str, _Set]:
    """As many volumes of each set.

    Raises:
        InputError: there are too few.
    """
    made = _Synthetic.from_folder(synthetic, cohort)
    known, held_out = cohort.indices("train"), cohort.indices("validation", "test")
    sizes = {"synthetic": made.count, "held_out": len(held_out), "training": len(known)}
    count = min(options.number, *sizes.values())
    if count < MIN_VOLUMES:
        shown = ", ".join(f"{size} {name}" for name, size in sizes.items())
        raise InputError(f"expected at least {MIN_VOLUMES} volumes of each set, got {shown}")
    return {
        "synthetic": made.some(rng.permutation(made.count)[:count]),
        "held_out": _set_of(cohort, rng.permutation(held_out)[:count]),
        "training": _set_of(cohort, rng.permutation(known)[:count]),
    }


def _to_nearest(
    cohort: Cohort, drawn: dict[str, _Set], known: NDArray[np.int64], figures: Figures
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
    cohort: Cohort, drawn: dict[str, _Set], options: QualityOptions, figures: Figures
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


@dataclass(frozen=True)
class _Synthetic:
    """Synthetic volumes: files of a folder, or a cohort; read when they are asked for."""

    cohort: Cohort
    paths: list[Path]
    other: Cohort | None = None

    @classmethod
    def from_folder(cls, folder: Path, cohort: Cohort) -> "_Synthetic":
        """Open the synthetic volumes of a folder.

        Raises:
            InputError: there are none, or they are of another shape.
        """
        if (folder / DESCRIPTION).is_file():
            other = Cohort.open(folder)
            if other.holds_images != cohort.holds_images or other.shape != cohort.shape:
                raise InputError(f"expected volumes of {cohort.shape} like the cohort's: {folder}")
            return cls(cohort, [], other)
        suffixes = (*PICTURES, *STACKS, *NIFTI) if cohort.holds_images else NIFTI
        scanned = scan(folder) if folder.is_dir() else Scan()
        paths = [
            path
            for path in scanned.files
            if path.name.lower().endswith(suffixes)
            and path.parent == folder
            and path.name != SYNTHETIC_SHEET.name
        ]
        line = unused_line(
            not_used(scanned, {*paths, folder / SYNTHETIC_SHEET.name}, []), str(folder)
        )
        if not paths:
            raise InputError(line or f"no synthetic volume found: {folder}")
        if line:
            LOG.warning("%s", line)
        return cls(cohort, paths)

    @property
    def count(self) -> int:
        """Number of volumes."""
        return len(self.paths) if self.other is None else len(self.other.rows)

    def some(self, chosen: NDArray[np.int64]) -> _Set:
        """Read the volumes with these numbers."""
        if self.other is not None:
            return _set_of(self.other, chosen)
        volumes = []
        for n in chosen:
            volume = _read(self.paths[n], self.cohort)
            if volume.shape != self.cohort.shape:
                raise InputError(
                    f"expected {self.cohort.shape}, got {volume.shape}: {self.paths[n]}"
                )
            volumes.append(volume)
        return _Set(np.stack(volumes), [self.paths[n].name for n in chosen])


def _read(path: Path, cohort: Cohort) -> NDArray[Any]:
    """One volume, as models see it."""
    if not cohort.holds_images:
        classes = read_labels(path).data
        if classes.min() < 0 or classes.max() >= cohort.scheme.n_classes:
            raise InputError(
                f"expected class numbers 0 to {cohort.scheme.n_classes - 1}, got {classes.min()} "
                f"to {classes.max()}: {path}"
            )
        return classes.astype(np.uint8)
    pixels, _ = read_image(ImageFile("synthetic", "0", path))
    if pixels.dtype.kind == "f":
        return np.clip(pixels, -1, 1).astype(np.float32)
    return intensities_of(pixels)


def _set_of(cohort: Cohort, chosen: NDArray[np.int64]) -> _Set:
    volumes = np.stack([brain.volume for brain in cohort.brains(chosen)])
    return _Set(volumes, [cohort.rows[n]["participant_id"] for n in chosen])


def _floats(cohort: Cohort, volumes: NDArray[Any]) -> Volumes:
    """Intensities; of label volumes, where there is structure: −1 or 1."""
    if cohort.holds_images:
        return volumes
    return cohort.scheme.foreground(volumes).astype(np.float32) * 2 - 1


def _in_features(
    cohort: Cohort, drawn: dict[str, _Set], fitted: NDArray[np.int64], encoder: TrainedModel | None
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
        blocks = _blocks(_floats(cohort, _set_of(cohort, fitted).volumes))
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
    cohort: Cohort, drawn: dict[str, _Set], options: QualityOptions
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


def _prevalence(cohort: Cohort, drawn: dict[str, _Set]) -> dict[str, Any]:
    """Compare the share of volumes with structure, on average over blocks of the box."""
    maps = {
        name: _blocks(_floats(cohort, own.volumes)).mean(axis=0) / 2 for name, own in drawn.items()
    }
    apart = {name: float(np.abs(maps[name] - maps["training"]).mean())
             for name in ("synthetic", "held_out")}  # fmt: skip
    return {"figure": "prevalence_difference", "better": "low", **apart, "training": None}


def _closest(
    cohort: Cohort,
    made: _Set,
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
            for s in volume_slices(cohort, _set_of(cohort, known[places[[n]]]).volumes[0])
        ],
    ]
    return png(contact_sheet(rows))
