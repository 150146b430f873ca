"""The deletion benchmark: by size, how well each score tells altered brains from healthy ones.

*Unpaired*: subjects are divided at random; half are altered, the other half are controls, so no
brain is compared with itself. *Paired*: the altered half before and after. Size 0 is the control:
the same code path deletes nothing, and AUROC must be 0.5 within its interval.
"""

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foldnorm.pipeline.artifacts import (
    BENCHMARK,
    BENCHMARK_SIDECAR,
    BENCHMARK_SUBJECTS,
    LOCALISATION,
)
from foldnorm.pipeline.metrics.bootstrap import Weights, bootstrap_interval
from foldnorm.pipeline.metrics.detection import detection, paired_share
from foldnorm.pipeline.runs.provenance import benchmark_track
from foldnorm.pipeline.scoring.brain_scores import BrainScores
from foldnorm.pipeline.scoring.latent_distance import conformal_p
from foldnorm.pipeline.scoring.localisation import localisation
from foldnorm.pipeline.scoring.map_scores import ScoreTable
from foldnorm.preprocessing.alteration.alteration import Altered, altering
from foldnorm.preprocessing.alteration.deletion import HALF_WAY, Refilling, SizeRange
from foldnorm.preprocessing.alteration.kinds import DEFORMING
from foldnorm.preprocessing.cohort.cohort import Brain, Cohort, family_of, row_key
from foldnorm.preprocessing.cohort.each_volume import each_volume
from foldnorm.preprocessing.core.errors import InputError
from foldnorm.preprocessing.core.files import write_json, write_tsv
from foldnorm.preprocessing.core.problems import Problem

BOOTSTRAPS = 300
ALARM = 0.05  # p-value below which a brain is called unusual
MIN_SUBJECTS = 4  # two controls and two altered brains
ERASING = ("fold", "ball")  # kinds of deletion whose place can be asked about


@dataclass(frozen=True)
class BenchmarkOptions:
    """Options of `benchmark`.

    Attributes:
        sizes: deletions; the control is added.
        kind: of deletion.
        splits: of the cohort to test on; never training.
        draws: how often subjects are divided and deletions drawn anew.
        seed: of both.
        refilling: how far neighbours are drawn, where the kind draws any.
    """

    sizes: tuple[SizeRange, ...]
    kind: str = "fold"
    splits: tuple[str, ...] = ("test",)
    draws: int = 5
    seed: int = 0
    refilling: Refilling = HALF_WAY


@dataclass(frozen=True)
class BenchmarkResult:
    """Figures of how well each score tells altered brains from healthy ones.

    Attributes:
        table: a row a size and score; ``false_alarm`` is the share of the untouched brains that the
            calibration brains give p < `ALARM`, if they are others.
        subjects: the scores behind it, a row a size, draw and brain.
        localisation: whether evidence points at what was deleted, a row a deletion; empty where
            there are no maps.
        about: content of ``benchmark.json``.
        indices: of the brains that were looked at.
        failed: brains that could not be read, scored or altered, and why.
    """

    table: list[dict[str, Any]]
    subjects: list[dict[str, Any]]
    localisation: list[dict[str, Any]]
    about: Mapping[str, Any]
    indices: NDArray[np.int64]
    failed: list[Problem]

    def save(self, out: Path) -> None:
        """Write ``benchmark.tsv``, the tables behind it, and ``benchmark.json``."""
        if self.localisation:
            write_tsv(out / LOCALISATION, self.localisation, tuple(LOCALISATION.columns))
        write_tsv(out / BENCHMARK, self.table, tuple(BENCHMARK.columns))
        write_tsv(out / BENCHMARK_SUBJECTS, self.subjects, tuple(self.subjects[0]))
        write_json(out / BENCHMARK_SIDECAR, self.about)


def benchmark(scorer: BrainScores, cohort: Cohort, options: BenchmarkOptions) -> BenchmarkResult:
    """Run the benchmark.

    A brain that cannot be read or scored takes no part, and is named in the result.

    Args:
        scorer: fitted.
        cohort: the brains.
        options: what is compared.

    Raises:
        InputError: brains were trained on, or there are too few, or too few have such a fold.
    """
    if "train" in options.splits:
        raise InputError("the benchmark runs on brains never trained on, not on the training split")
    failed: list[Problem] = []
    asked = cohort.indices(*options.splits)
    scored, healthy = scorer.score_each(cohort, asked.tolist(), failed)
    indices = np.array(scored, dtype=np.int64)
    if len(indices) < MIN_SUBJECTS:
        raise InputError(
            f"the benchmark needs at least {MIN_SUBJECTS} brains in split "
            f"{'+'.join(options.splits)}, the cohort has {len(indices)}"
            f"{_besides(failed)}: {cohort.folder}"
        )
    families = [family_of(cohort.rows[i]) for i in indices]
    alarms = _false_alarms(scorer, healthy, {cohort.keys()[i] for i in indices})
    rows, subjects = [], []
    places: list[dict[str, Any]] = []
    sizes = [SizeRange(0), *[s for s in options.sizes if not s.is_control]]
    for size in sizes:
        draws = [
            _draw(scorer, cohort, indices, size, options, n, failed) for n in range(options.draws)
        ]
        for name in healthy:
            rows.append(
                {
                    "size": str(size),
                    "score": name,
                    **_figures(healthy[name], name, draws, families, options),
                    "false_alarm": alarms.get(name, float("nan")),
                }
            )
        subjects.extend(_subject_rows(cohort, indices, healthy, draws, size, options))
        places += [row for draw in draws for row in draw.places]
    track = benchmark_track(options.kind, scorer.edits, scorer.sulci)
    about = {"track": track, **_about(cohort, options, len(indices))}
    return BenchmarkResult(rows, subjects, places, about, indices, list(dict.fromkeys(failed)))


def _besides(failed: Sequence[Problem]) -> str:
    """Say in brackets what could not be used, if anything."""
    if not failed:
        return ""
    return f" (beside {len(failed)} that cannot be used, {failed[0].key}: {failed[0].reason})"


def _false_alarms(scorer: BrainScores, healthy: ScoreTable, tested: set[str]) -> dict[str, float]:
    """Share of healthy brains that are called unusual, by score; empty if it cannot be known."""
    calibrating = scorer.calibration
    if not len(calibrating) or tested & set(map(row_key, calibrating.rows)):
        return {}
    known = scorer.score(calibrating)
    return {
        name: float((conformal_p(values, known[name]) < ALARM).mean())
        for name, values in healthy.items()
    }


@dataclass(frozen=True)
class _Draw:
    """One draw of deletions: positions in ``indices`` that were altered, and their scores.

    ``places`` are rows of `LOCALISATION`, where evidence points.
    """

    positions: NDArray[np.int64]
    scores: ScoreTable
    places: list[dict[str, Any]]


def _draw(
    scorer: BrainScores,
    cohort: Cohort,
    indices: NDArray[np.int64],
    size: SizeRange,
    options: BenchmarkOptions,
    n: int,
    failed: list[Problem],
) -> _Draw:
    seed = options.seed + n
    chosen = indices[halves(len(indices), seed)]

    def altered() -> Iterator[Brain]:
        alter = altering(cohort, size, kind=options.kind, seed=seed, refilling=options.refilling)
        for _, a in each_volume(cohort, chosen.tolist(), partial(map, alter), failed):
            if a is None:
                continue
            order.append(a.index)
            if points:
                waiting.append(a)
            yield cohort.brain(a.index, a.volume)

    def on_map(z: NDArray[np.floating]) -> None:
        a = waiting.popleft()
        places.append(
            {
                "size": str(size),
                "draw": n,
                "volume": row_key(cohort.rows[a.index]),
                "name": a.deletion.name,
                "deletion_size": a.deletion.size,
                **localisation(cohort, a.index, a.volume, z[0], scorer.map_scores[0].THRESHOLD),
            }
        )

    order: list[int] = []
    waiting: deque[Altered] = deque()
    places: list[dict[str, Any]] = []
    points = bool(scorer.map_scores) and options.kind in ERASING and not size.is_control
    scores = scorer.score(altered(), on_map if points else None)
    number = len(next(iter(scores.values())))
    if number < MIN_SUBJECTS // 4:
        raise InputError(f"too few brains have a fold of size {size}: {cohort.folder}")
    position = {int(index): p for p, index in enumerate(indices)}
    return _Draw(np.array([position[i] for i in order]), scores, places)


def _figures(
    before: NDArray[np.float64],
    name: str,
    draws: Sequence[_Draw],
    families: Sequence[str],
    options: BenchmarkOptions,
) -> dict[str, Any]:
    """Mean over draws, with a bootstrap over families that is the same for all draws."""
    parts = []
    for n, draw in enumerate(draws):
        control = ~halves(len(before), options.seed + n)
        parts.append((draw.positions, draw.scores[name], control))

    def mean_detection(weights: Weights) -> tuple[float, float, float]:
        return _mean_detection(before, parts, weights)

    point = mean_detection(np.ones(len(before)))
    low, high = bootstrap_interval(mean_detection, families, BOOTSTRAPS, seed=options.seed)
    figures: dict[str, Any] = {}
    for column, (key, value) in enumerate(zip(("auroc", "ap", "fpr95"), point, strict=True)):
        figures |= {key: value, f"{key}_low": low[column], f"{key}_high": high[column]}
    paired = [paired_share(d.scores[name], before[d.positions]) for d in draws]
    n_altered = np.array([len(part[0]) for part in parts])
    n_control = np.array([part[2].sum() for part in parts])
    return {
        **figures,
        "prevalence": float((n_altered / (n_altered + n_control)).mean()),
        "paired": float(np.mean(paired)),
        "n": round(float(n_altered.mean())),
    }


def halves(number: int, seed: int) -> NDArray[np.bool_]:
    """Choose the subjects that are altered in an unpaired comparison: a random half."""
    chosen = np.zeros(number, dtype=np.bool_)
    chosen[np.random.default_rng(seed).permutation(number)[: number // 2]] = True
    return chosen


def _mean_detection(
    before: NDArray[np.float64],
    parts: Sequence[tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.bool_]]],
    weights: Weights,
) -> tuple[float, float, float]:
    found = []
    for positions, altered, control in parts:
        w_pos, w_neg = weights[positions], weights[control]
        if w_pos.sum() and w_neg.sum():
            d = detection(altered, before[control], w_pos=w_pos, w_neg=w_neg)
            found.append((d.auroc, d.ap, d.fpr95))
    auroc, ap, fpr95 = np.mean(found, axis=0) if found else (np.nan,) * 3
    return float(auroc), float(ap), float(fpr95)


def _subject_rows(
    cohort: Cohort,
    indices: NDArray[np.int64],
    healthy: ScoreTable,
    draws: Sequence[_Draw],
    size: SizeRange,
    options: BenchmarkOptions,
) -> list[dict[str, Any]]:
    """Every score behind the table: each subject of each draw, as control or altered."""
    rows: list[dict[str, Any]] = []
    for n, draw in enumerate(draws):
        chosen = halves(len(indices), options.seed + n)
        where = {int(p): row for row, p in enumerate(draw.positions)}
        for p, index in enumerate(indices):
            if chosen[p] and p not in where:
                continue
            scores = {
                name: draw.scores[name][where[p]] if chosen[p] else healthy[name][p]
                for name in healthy
            }
            key = row_key(cohort.rows[index])
            rows.append(
                {"size": str(size), "draw": n, "volume": key, "altered": int(chosen[p]), **scores}
            )
    return rows


def _about(cohort: Cohort, options: BenchmarkOptions, number: int) -> dict[str, Any]:
    return {
        "cohort": str(cohort.folder),
        "phantom": cohort.is_phantom,
        "splits": list(options.splits),
        "brains": number,
        "kind": options.kind,
        **(asdict(options.refilling) if options.kind in DEFORMING else {}),
        "sizes": [str(size) for size in options.sizes],
        "draws": options.draws,
        "seed": options.seed,
        "bootstraps": BOOTSTRAPS,
        "interval": "95 % percentile bootstrap over families",
        "false_alarm": f"share of untouched brains with p < {ALARM:g}, where that can be known",
        "note": "unpaired: a random half of the brains altered, the other half controls, averaged "
        "over draws; paired: share of altered brains whose score rises; size 0 deletes nothing",
    }
