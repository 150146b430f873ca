"""Out-of-distribution brains: a confident wrong score is the worst outcome.

A brain of the other side, cut off, mirrored, empty, without its hull, or of another place or
resolution gets a score like any other, and that score means nothing. Such brains are known by what
no fold can change: how much of each class they hold, and where, on a coarse scale; and those of
another population or another way of making skeletons by how far from a sulcus their places are,
which a missing fold changes less. With fewer than `MIN_TRAINING` training brains only what is empty
or of another side is known.
"""

import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from foldnorm.pipeline.scoring.baselines import distance_map
from foldnorm.pipeline.scoring.fitted import Fitted, State
from foldnorm.pipeline.scoring.healthy import subsample_evenly
from foldnorm.pipeline.scoring.map_scores import top_share_mean
from foldnorm.pipeline.scoring.normative import NormativeMap
from foldnorm.preprocessing.cohort.cohort import Brain, Cohort, family_of
from foldnorm.preprocessing.io.schemes import LabelScheme

N_BLOCKS = 4  # along each axis of the coarse grid
MAX_Z = 8.0  # standard deviations of training brains
MIN_SHARE_SPREAD = 0.04  # of a share: by so much the blocks of two like brains differ
MAX_RATIO = 1.5  # times as unusual as a usual brain may be
FLIPPED_MARGIN = 0.05  # nats a voxel that a mirrored brain must fit better
MIN_TRAINING = 20  # training brains that it takes to know what is usual
SHIFTS = 20, 10  # parts of a side that a brain is moved by to see whether it fits better there
MIN_STEP = 2  # voxels; one is within the noise of a grid
SHIFTED_MARGIN = 0.04  # nats a voxel that it must gain beyond what any validation brain gains
# Nats a voxel that it must gain at least, however alike validation brains are. Of real brains at
# 2 mm, each judged by three other sites, intact ones gain .017 at most, and 10 mm off .05 at least.
MIN_GAIN = 0.02
USUAL_SHARE = 0.95  # of training brains, each compared with the others, that are usual
N_MEASURED = 200  # validation brains, at most, and training brains whose distances are measured
MIN_DISTANCE_SPREAD = 0.3  # voxels that distances to a sulcus vary by, at least
PRIOR = 1.0  # pseudo-count of a class in the prevalence map
OTHER_POPULATION = (
    "has sulci unlike the training brains': another population, scanner or way of making skeletons?"
)
UNLIKE = "is unlike the training brains: another region, space or resolution?"
# Attribute of each limit, by its name in a saved scorer: names there are a file format.
LIMITS = {
    "shares": "max_shares_",
    "hull": "max_hull_",
    "surprise": "max_nll_",
    "gain": "max_gain_",
    "foreign": "max_distance_departure_",
}
USUAL = ("shares", "hull", "distances")
AXES = ("left–right", "back–front", "bottom–top")
Labels = NDArray[np.uint8]


class OutOfDistributionDetector(Fitted):
    """Detector of brains that are not like the training brains of a cohort, with the reason.

    Args:
        scheme: of the volumes.

    Attributes:
        knows_: whether there were enough training brains to know what is usual.
        sides_: hemispheres that the training brains are.
        mirrors_: whether right hemispheres were mirrored to look like left ones.
        log_prevalence_: (classes, I, J, K) float32, log of the share of each class at each voxel.
        shares, hull, distances: what is usual of the class shares of blocks, of the share of the
            border that is hull, and of distances to a sulcus.
        max_shares_: largest z of class shares of a usual brain, see `usual_limits`; likewise
            ``max_hull_`` of the hull, ``max_nll_`` (negative log-likelihood), ``max_gain_`` (of a
            shift), and ``max_distance_departure_``.
    """

    def __init__(self, scheme: LabelScheme) -> None:
        self.scheme = scheme
        self.shares = NormativeMap(MIN_SHARE_SPREAD, clip=None)
        self.hull = NormativeMap(MIN_SHARE_SPREAD, clip=None)
        self.distances = NormativeMap(MIN_DISTANCE_SPREAD, clip=None)

    def fit(self, reference: Cohort, controls: Cohort | None = None) -> Self:
        """Learn what is usual.

        Args:
            reference: the training cohort; healthy brains that are of no training split are all
                looked at.
            controls: healthy brains of another site, if any: brains of that site are then no
                strangers.
        """
        training = reference.indices("train")
        training = training if len(training) else reference.indices()
        self.knows_ = len(training) >= MIN_TRAINING
        self.sides_ = {reference.rows[index].get("hemi", "") for index in training}
        self.mirrors_ = bool(reference.preparation["mirror_right"])
        self._fit_usual(reference, training)
        self._fit_limits(reference, training, controls)
        return self

    def _fit_usual(self, reference: Cohort, training: NDArray[np.int64]) -> None:
        """Fit the statistics of training brains that others are compared with."""
        counts = np.full((self.scheme.n_classes, *reference.shape), PRIOR, dtype=np.float32)
        shares, hulls = [], []
        for brain in reference.brains(training):
            self._count(counts, brain.volume)
            shares.append(block_shares(brain.volume, self.scheme.n_classes))
            hulls.append(hull_share(brain.volume, self.scheme))
        self._set_prevalence(counts)
        self.shares.fit(lambda: shares)
        self.hull.fit(lambda: np.array(hulls)[:, None])
        few = subsample_evenly(training, N_MEASURED)
        self.distances.fit(
            lambda: (self._distances(brain.volume) for brain in reference.brains(few))
        )

    def _count(self, counts: NDArray[np.float32], volume: Labels, sign: int = 1) -> None:
        """Add a brain to the counts of classes at each voxel, or take it away."""
        for number in range(self.scheme.n_classes):
            counts[number] += sign * (volume == number)

    def _set_prevalence(self, counts: NDArray[np.float32]) -> None:
        self._counts = counts
        self.log_prevalence_ = np.log(counts / counts.sum(axis=0))

    def _without(self, brains: Sequence[Brain]) -> Self:
        """Return what is usual of the training brains but these, whose distances were measured."""
        left, volumes = copy.copy(self), [brain.volume for brain in brains]
        counts = self._counts.copy()
        for volume in volumes:
            self._count(counts, volume, -1)
        left._set_prevalence(counts)
        left.shares = self.shares.without(
            block_shares(volume, self.scheme.n_classes) for volume in volumes
        )
        left.hull = self.hull.without(
            np.array([hull_share(volume, self.scheme)]) for volume in volumes
        )
        left.distances = self.distances.without(self._distances(volume) for volume in volumes)
        return left

    def _fit_limits(
        self, reference: Cohort, training: NDArray[np.int64], controls: Cohort | None
    ) -> None:
        """Fit limits: how unusual a healthy brain may be that was not trained on.

        Where there is no validation brain, each training brain is compared with those of other
        families: among its own it would look more usual than any new brain.
        """
        departures = []
        for usual, brain in self._left_out(reference, training):
            gain, _ = usual._gain_by_shift(brain.volume)
            distance = usual._distance_departure(brain.volume)
            departures.append((*usual._departures(brain.volume), gain, distance))
        held_out = len(reference.indices("validation")) > 0
        limits = usual_limits(np.array(departures), held_out=held_out)
        self.max_shares_, self.max_hull_, self.max_nll_, self.max_gain_ = map(float, limits[:4])
        self.max_distance_departure_ = float(limits[4])
        if controls is not None:
            indices = subsample_evenly(controls.indices(), N_MEASURED)
            own = [self._distance_departure(brain.volume) for brain in controls.brains(indices)]
            self.max_distance_departure_ = max(self.max_distance_departure_, *own)

    def _left_out(
        self, reference: Cohort, training: NDArray[np.int64]
    ) -> Iterator[tuple[Self, Brain]]:
        """Yield healthy brains, each with what is usual of training brains that it is not among."""
        held_out = reference.indices("validation")[:N_MEASURED]
        if len(held_out):
            yield from ((self, brain) for brain in reference.brains(held_out))
            return
        families: dict[str, list[int]] = {}
        for index in subsample_evenly(training, N_MEASURED):
            families.setdefault(family_of(reference.rows[index]) or str(index), []).append(index)
        for indices in families.values():
            brains = list(reference.brains(indices))
            usual = self._without(brains) if len(families) > 1 else self
            yield from ((usual, brain) for brain in brains)

    def state_dict(self) -> State:
        """Return sums over the training brains, and limits of healthy brains left out."""
        limits = {name: getattr(self, attribute) for name, attribute in LIMITS.items()}
        usual = {name: getattr(self, name).state_dict() for name in USUAL}
        return {
            "knows": self.knows_,
            "sides": sorted(self.sides_),
            "mirrors": self.mirrors_,
            "log_prevalence": self.log_prevalence_,
            "limits": limits,
            **usual,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> Self:
        """Take what `state_dict` gave."""
        self.knows_, self.sides_ = state["knows"], set(state["sides"])
        self.mirrors_, self.log_prevalence_ = state["mirrors"], state["log_prevalence"]
        for name, attribute in LIMITS.items():
            setattr(self, attribute, state["limits"][name])
        for name in USUAL:
            getattr(self, name).load_state_dict(state[name])
        return self

    def flags(self, brains: Iterable[Brain]) -> list[str]:
        """Return why each brain cannot be judged; empty where it can."""
        return [self.flag(brain) for brain in brains]

    def flag(self, brain: Brain) -> str:
        """Return why a brain cannot be judged, in a few words; empty if it can."""
        volume, scheme = brain.volume, self.scheme
        if not scheme.foreground(volume).any():
            return f"holds no {scheme.names[scheme.top]}"
        side = brain.row.get("hemi", "")
        if side and self.sides_ - {""} and side not in self.sides_ and not self.mirrors_:
            return f"is of side {side}, the training brains of {', '.join(sorted(self.sides_))}"
        if not self.knows_:
            return ""
        shares, hull, nll = self._departures(volume)
        mirrored = [self._negative_log_likelihood(np.flip(volume, axis)) for axis in range(3)]
        axis = int(np.argmin(mirrored))
        if mirrored[axis] < nll - FLIPPED_MARGIN:
            if mirrored[axis] > self.max_nll_ + SHIFTED_MARGIN:
                return UNLIKE  # neither way it is one of them
            return f"fits the training brains better mirrored {AXES[axis]}"
        if hull > max(MAX_Z, MAX_RATIO * self.max_hull_):
            return "has a hull unlike the training brains', or none"
        gain, axis = self._gain_by_shift(volume, nll)
        if gain > max(self.max_gain_ + SHIFTED_MARGIN, MIN_GAIN):
            return f"fits the training brains better if moved {AXES[axis]}"
        if nll > self.max_nll_ + max(0.5 * abs(self.max_nll_), FLIPPED_MARGIN):
            return UNLIKE
        if shares > max(MAX_Z, MAX_RATIO * self.max_shares_):
            where, number = np.unravel_index(
                self._shares_z(volume).argmax(), (N_BLOCKS**3, scheme.n_classes)
            )
            block = np.unravel_index(int(where), (N_BLOCKS,) * 3)
            return (
                f"holds an unusual amount of {scheme.names[int(number)]} in part "
                f"{', '.join(str(b + 1) for b in block)} of {N_BLOCKS}³: cut off, or shifted?"
            )
        departure = self._distance_departure(volume)
        return OTHER_POPULATION if departure > MAX_RATIO * self.max_distance_departure_ else ""

    def _departures(self, volume: Labels) -> tuple[float, float, float]:
        """Largest z of block shares, z of the hull, negative log-likelihood (nats a voxel)."""
        hull = np.abs(self.hull.z(np.array([hull_share(volume, self.scheme)])))
        return (
            float(self._shares_z(volume).max()),
            float(hull.max()),
            self._negative_log_likelihood(volume),
        )

    def _distances(self, volume: Labels) -> NDArray[np.float32]:
        return distance_map(self.scheme.foreground(volume)).ravel()

    def _distance_departure(self, volume: Labels) -> float:
        """Compute how unusual the distances to a sulcus are, where they are most unusual."""
        return top_share_mean(np.abs(self.distances.z(self._distances(volume))))

    def _gain_by_shift(self, volume: Labels, nll: float | None = None) -> tuple[float, int]:
        """Nats a voxel that a brain fits better, moved by one of `SHIFTS`; and along which axis."""
        own = self._negative_log_likelihood(volume) if nll is None else nll
        gains = []
        for axis in range(3):
            steps = {max(volume.shape[axis] // part, MIN_STEP) for part in SHIFTS}
            moved = [np.roll(volume, sign * by, axis) for by in steps for sign in (1, -1)]
            gains.append(own - min(map(self._negative_log_likelihood, moved)))
        best = int(np.argmax(gains))
        return gains[best], best

    def _shares_z(self, volume: Labels) -> NDArray[np.float32]:
        return np.abs(self.shares.z(block_shares(volume, self.scheme.n_classes)))

    def _negative_log_likelihood(self, volume: Labels) -> float:
        """Negative log-likelihood under the share of each class at each voxel, nats a voxel."""
        log_p = np.take_along_axis(self.log_prevalence_, volume[None].astype(np.intp), axis=0)
        return -float(log_p.mean())


def usual_limits(departures: NDArray[np.float64], *, held_out: bool) -> NDArray[np.float64]:
    """Limits of what is usual, of healthy brains that departed so much.

    Held-out brains were chosen to be judged by, so that the most unusual of them is usual. Training
    brains that stand in for them, each compared with the others, are all that there are, the
    strangest too: of these the twentieth that departs most is left aside, of each kind by itself.

    Args:
        departures: (N, kinds) of each brain.
        held_out: whether they are no training brains.

    Returns:
        (kinds,).
    """
    if held_out:
        return np.asarray(departures.max(axis=0))
    return np.asarray(np.quantile(departures, USUAL_SHARE, axis=0, method="higher"))


def block_shares(volume: Labels, n_classes: int) -> NDArray[np.float64]:
    """Share of each class in `N_BLOCKS`³ parts of a volume, (`N_BLOCKS`³ · n_classes,)."""
    parts = [volume]
    for axis in range(3):
        parts = [piece for part in parts for piece in np.array_split(part, N_BLOCKS, axis=axis)]
    counts = [np.bincount(part.ravel(), minlength=n_classes) / max(part.size, 1) for part in parts]
    return np.concatenate(counts)


def hull_share(volume: Labels, scheme: LabelScheme) -> float:
    """Share of the border between outside and brain that is structure (the hull of a skeleton)."""
    outside = volume == scheme.fill
    touched, hull = 0, 0
    for axis in range(3):
        for first, second in ((slice(None, -1), slice(1, None)), (slice(1, None), slice(None, -1))):
            here = [slice(None)] * 3
            there = [slice(None)] * 3
            here[axis], there[axis] = first, second
            border = outside[tuple(here)] & ~outside[tuple(there)]
            touched += int(border.sum())
            hull += int((border & scheme.foreground(volume[tuple(there)])).sum())
    return hull / touched if touched else 0.0
