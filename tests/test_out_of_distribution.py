"""Brains that a model cannot judge are told from those that are only unusual."""

import copy
import itertools
from typing import ClassVar

import numpy as np
import pytest
from scipy import ndimage

from foldnorm.pipeline.cli import main
from foldnorm.pipeline.scoring.out_of_distribution import (
    MIN_GAIN,
    N_BLOCKS,
    OTHER_POPULATION,
    OutOfDistributionDetector,
    block_shares,
    hull_share,
    usual_limits,
)
from foldnorm.pipeline.scoring.void import VoidScores
from foldnorm.preprocessing.alteration.alteration import alter
from foldnorm.preprocessing.alteration.deletion import SizeRange
from foldnorm.preprocessing.cohort.cohort import Brain, Cohort
from foldnorm.preprocessing.core.files import read_json, read_tsv
from foldnorm.preprocessing.io.schemes import SKELETON


@pytest.fixture(scope="module")
def cohort(many_phantoms, tmp_path_factory):
    """Sixty coarse phantoms, two thirds of them for training."""
    folder = tmp_path_factory.mktemp("many")
    words = ["preprocess", many_phantoms, "-o", folder / "cohort", "--voxel-size", "4",
             "--crop", "mm:-76,4,-70,10,-40,40", "--split-fractions", ".6", ".2", ".2",
             "--n-procs", "1"]  # fmt: skip
    assert main([*map(str, words), "--quiet"]) == 0
    return Cohort.open(folder / "cohort")


@pytest.fixture(scope="module")
def detector(cohort):
    return OutOfDistributionDetector(cohort.scheme).fit(cohort)


def test_healthy_brains_and_brains_without_a_fold_can_be_judged(cohort, detector):
    held_out = cohort.indices("validation", "test")
    assert not any(detector.flags(cohort.brains(held_out)))
    altered = alter(cohort, held_out, SizeRange(500))
    brains = [Brain(a.volume, cohort.rows[a.index]) for a in altered]
    assert len(brains) > 10
    assert not any(detector.flags(brains))


def without_hull(volume):
    near = ndimage.binary_dilation(volume == 0) & (volume == 2)
    return np.where(near, 1, volume)


def cut(volume):
    volume[:, :6] = 0
    return volume


def small(volume):
    """A newborn's brain, of a third of the volume."""
    shrunk = ndimage.zoom(volume, 0.7, order=0)
    newborn = np.zeros_like(volume)
    at = [(whole - side) // 2 for whole, side in zip(volume.shape, shrunk.shape, strict=True)]
    newborn[tuple(slice(a, a + n) for a, n in zip(at, shrunk.shape, strict=True))] = shrunk
    return newborn


def scalped(volume):
    """At least 3 % of the surface cut off at the top, and no hull at the cut."""
    surface = (ndimage.binary_dilation(volume == 0) & (volume == 2)).sum(axis=(0, 1))
    above = np.cumsum(surface[::-1])[::-1]
    volume[:, :, np.flatnonzero(above >= 0.03 * surface.sum()).max() :] = 0
    return volume


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda v: v[::-1], "mirrored left–right"),
        (lambda v: v[:, ::-1], "mirrored back–front"),
        (lambda v: v[:, :, ::-1], "mirrored bottom–top"),
        (lambda v: np.zeros_like(v), "holds no sulcus"),
        (lambda v: np.ones_like(v), "holds no sulcus"),
        (without_hull, "has a hull unlike"),
        (small, "unlike|unusual amount|moved"),
        (cut, "unlike|unusual amount of outside|better if moved"),
        (lambda v: v.transpose(1, 0, 2), "unlike the training|better if moved|mirrored"),
        (lambda v: np.roll(v, 4, axis=1), "better if moved back–front|unusual amount|unlike"),
        (lambda v: v[5:15, 5:15, 5:15].repeat(2, 0).repeat(2, 1).repeat(2, 2), "unlike|moved|mirr"),
    ],
)
def test_brains_that_are_not_like_the_training_brains_are_known(cohort, detector, spoil, said):
    for brain in cohort.brains(cohort.indices("test")):
        spoilt = np.ascontiguousarray(spoil(brain.volume.copy())).astype(np.uint8)
        flag = detector.flag(Brain(spoilt, brain.row))
        assert flag
        assert any(part in flag for part in said.split("|")), flag


def test_a_brain_that_fits_worse_if_moved_is_not_said_to_fit_better(cohort, detector):
    """Validation brains may be more alike than any brain of another site is to them."""
    strict = copy.copy(detector)
    strict.max_gain_ = -1.0
    for brain in cohort.brains(cohort.indices("test")):
        gain, _ = strict._gain_by_shift(brain.volume)
        assert gain < 0
        assert strict.flag(brain) == ""
        moved = np.roll(brain.volume, 2, axis=2)
        assert strict._gain_by_shift(moved)[0] > MIN_GAIN
        assert strict.flag(Brain(moved, brain.row))


def test_a_saved_detector_names_its_limits_as_release_0_1_did(cohort, detector, tmp_path):
    detector.save(tmp_path)
    limits = detector.state_dict()["limits"]
    assert set(limits) == {"shares", "hull", "surprise", "gain", "foreign"}
    loaded = OutOfDistributionDetector(cohort.scheme).load(tmp_path)
    assert (loaded.max_nll_, loaded.max_gain_) == (limits["surprise"], limits["gain"])
    assert loaded.max_distance_departure_ == limits["foreign"]


def test_the_other_side_is_known_by_its_name(cohort, detector):
    (brain,) = cohort.brains(cohort.indices("test")[:1])
    row = {**brain.row, "hemi": "R"}
    assert detector.flag(Brain(brain.volume, row)) == "is of side R, the training brains of L"


class TrainedOn:
    """A cohort that has other training brains, and no validation brains unless they are given."""

    def __init__(self, cohort, training, validation=()):
        self.cohort, self.training = cohort, training
        self.validation = np.array(validation, dtype=np.int64)

    def __getattr__(self, name):
        return getattr(self.cohort, name)

    def indices(self, *splits):
        return self.validation if "validation" in splits else self.training


def test_without_validation_brains_each_training_brain_is_compared_with_the_others(cohort):
    """Among its own it departs less than any new brain: by (n - 1) / √n at most, where n is few."""
    training = cohort.indices("train")[:20]
    detector = OutOfDistributionDetector(cohort.scheme).fit(TrainedOn(cohort, training))
    left_out, own = [], []
    for index in training:
        others = TrainedOn(cohort, training[training != index])
        alone = OutOfDistributionDetector(cohort.scheme)
        alone._fit_usual(others, others.indices())
        (brain,) = cohort.brains([index])
        left_out.append(alone._distance_departure(brain.volume))
        own.append(detector._distance_departure(brain.volume))
    assert max(own) < max(left_out)
    assert detector.max_distance_departure_ == pytest.approx(max(left_out), rel=1e-4)
    new = cohort.indices("train")[20:]
    assert not any(detector.flags(cohort.brains(new)))


def test_of_validation_brains_the_most_unusual_is_usual(cohort):
    training, validation = np.split(cohort.indices("train"), [8])
    assert len(validation) > 20  # of fewer, one in twenty is none
    detector = OutOfDistributionDetector(cohort.scheme)
    detector.fit(TrainedOn(cohort, training, validation))
    own = [detector._distance_departure(brain.volume) for brain in cohort.brains(validation)]
    assert detector.max_distance_departure_ == max(own)


def test_every_limit_leaves_the_strangest_twentieth_of_training_brains_aside():
    departures = np.stack([np.arange(40.0), np.arange(40.0)[::-1]], axis=1)
    assert usual_limits(departures, held_out=False).tolist() == [38, 38]
    assert usual_limits(departures, held_out=True).tolist() == [39, 39]
    assert usual_limits(departures[:20], held_out=False).tolist() == [19, 39]  # of few, the largest


class Dotted:
    """A cohort whose brains have thirty voxels of sulcus in each part, anywhere in it."""

    scheme, shape, side = SKELETON, (40, 40, 40), 40 // N_BLOCKS
    preparation: ClassVar = {"mirror_right": False}
    rows: ClassVar = [{"hemi": "L"}] * 60

    def indices(self, split="validation"):
        return np.arange(40) if split == "train" else np.arange(40, 60)

    def brains(self, indices):
        return (Brain(self.volume(np.random.default_rng(int(n))), {"hemi": "L"}) for n in indices)

    def volume(self, rng):
        volume = np.ones(self.shape, np.uint8)
        for corner in itertools.product(range(0, 40, self.side), repeat=3):
            inside = np.unravel_index(rng.permutation(self.side**3)[:30], (self.side,) * 3)
            volume[tuple(c + i for c, i in zip(corner, inside, strict=True))] = 2
        return volume


def test_sheets_that_keep_together_elsewhere_are_of_another_population():
    cohort = Dotted()
    detector = OutOfDistributionDetector(cohort.scheme).fit(cohort)
    assert detector.flag(Brain(cohort.volume(np.random.default_rng(99)), {})) == ""
    lumps = np.ones(cohort.shape, np.uint8)
    for i, j, k in itertools.product(range(0, 40, cohort.side), repeat=3):
        lumps[i : i + 5, j : j + 3, k : k + 2] = 2
    usual = block_shares(cohort.volume(np.random.default_rng(99)), 3)
    assert np.array_equal(block_shares(lumps, 3), usual)
    assert detector.flag(Brain(lumps, {})) == OTHER_POPULATION
    there = Dotted()
    there.brains = lambda indices: (Brain(lumps, {}) for _ in indices)  # such are all of that site
    assert OutOfDistributionDetector(cohort.scheme).fit(cohort, there).flag(Brain(lumps, {})) == ""


def test_a_brain_cut_at_its_surface_is_flagged_or_scored_as_it_was(cohort, detector):
    void = VoidScores(cohort.scheme, cohort.voxel_size).fit(cohort.select("train"))
    whole = list(cohort.brains(cohort.indices("test")))
    less = [Brain(scalped(brain.volume.copy()), brain.row) for brain in whole]
    assert all(
        np.count_nonzero(a.volume != b.volume) > 50 for a, b in zip(whole, less, strict=True)
    )
    judged = [n for n, reason in enumerate(detector.flags(less)) if not reason]
    before, after = (void.score([brains[n] for n in judged]) for brains in (whole, less))
    for name, scores in after.items():
        # What the rest of a brain leads to expect changes a little with it.
        assert scores.max() < 1.03 * before[name].max(), name


def test_healthy_brains_without_a_training_split_are_known_too(cohort, detector):
    held_out = Cohort(
        cohort.folder, cohort.description, [{**r, "split": "test"} for r in cohort.rows]
    )
    known = OutOfDistributionDetector(cohort.scheme).fit(held_out)
    (brain,) = cohort.brains(cohort.indices("test")[:1])
    assert known.flag(brain) == ""
    assert known.flag(Brain(brain.volume[::-1].copy(), brain.row))


def test_few_training_brains_know_little(small_cohort):
    few = OutOfDistributionDetector(small_cohort.scheme).fit(small_cohort)
    (brain,) = small_cohort.brains(small_cohort.indices("test")[:1])
    assert not few.flag(Brain(brain.volume[::-1].copy(), brain.row))
    assert few.flag(Brain(brain.volume * 0, brain.row)) == "holds no sulcus"


def test_shares_and_hull_are_what_they_say():
    volume = np.zeros((8, 8, 8), np.uint8)
    volume[:4] = 1
    volume[3, :, :4] = 2
    assert hull_share(volume, SKELETON) == pytest.approx(0.5)
    shares = block_shares(volume, 3).reshape(N_BLOCKS, N_BLOCKS, N_BLOCKS, 3)
    assert shares[0, 0, 0].tolist() == [0, 1, 0]
    assert shares[1, 0, 0].tolist() == [0, 0.5, 0.5]
    assert shares[3, 3, 3].tolist() == [1, 0, 0]
    assert hull_share(np.ones((4, 4, 4), np.uint8), SKELETON) == 0


def test_a_flagged_brain_has_no_p_and_the_others_are_finished(
    cohort, many_phantoms, tmp_path, capsys
):
    run, out = tmp_path / "run", tmp_path / "scores"
    words = ["train", "restorer", cohort.folder, "-o", run,
             "--model.init_args.channels", "[8, 8]", "--model.init_args.convolutions", "[1, 1]",
             "--training.steps", "2", "--device", "cpu", "--quiet"]  # fmt: skip
    assert main(list(map(str, words))) == 0
    spoilt = tmp_path / "spoilt"
    assert main(["alter", str(cohort.folder), "-o", str(spoilt), "--size", "0", "--quiet"]) == 0
    volumes = np.lib.format.open_memmap(spoilt / "volumes.npy", mode="r+")
    bad = int(cohort.indices("test")[0])
    volumes[bad] = volumes[bad][::-1].copy()
    volumes.flush()
    words = ["score", run, spoilt, "-o", out, "--split", "test", "--device", "cpu"]
    assert main(list(map(str, words))) == 1
    said = capsys.readouterr()
    name = cohort.rows[bad]["participant_id"]
    assert f"{name} L: fits the training brains better mirrored" in said.err
    assert "1 not judged" in said.out
    rows = {row["participant_id"]: row for row in read_tsv(out / "scores.tsv")}
    assert rows[name]["flag"]
    assert not rows[name]["p_evidence_top"]
    others = [row for who, row in rows.items() if who != name]
    assert all(
        row["p_evidence_top"] and row["q_evidence_top"] and not row["flag"] for row in others
    )
    for row in others:
        assert float(row["q_evidence_top"]) >= float(row["p_evidence_top"])
    assert read_json(out / "scores.json")["flagged"] == 1

    controls = tmp_path / "controls"
    tested = [row["participant_id"] for row in cohort.rows if row["split"] == "test"]
    words = ["preprocess", many_phantoms, "-o", controls,
             "--layout-from", cohort.folder, "--participant-label", *tested,
             "--split-fractions", 0, 0, 1, "--n-procs", 1, "--quiet"]  # fmt: skip
    assert main(list(map(str, words))) == 0
    words = ["score", run, cohort.folder, "-o", tmp_path / "local", "--controls", controls]
    assert main([*map(str, words), "--device", "cpu"]) == 0
    sidecar = read_json(tmp_path / "local/scores.json")
    number = len(cohort.indices("test"))
    assert sidecar["smallest_p"] == 1 / (number + 1)
    assert f"{number} local controls" in sidecar["sentence"]
    assert "cannot give a p-value below 0.05" in sidecar["sentence"]
    used = {r["participant_id"]: r["used_for"] for r in read_tsv(tmp_path / "local/scores.tsv")}
    assert used[name] == "calibration"
    words = ["score", run, cohort.folder, "-o", tmp_path / "x", "--controls", cohort.folder]
    assert main([*map(str, words), "--device", "cpu"]) == 2
    assert "controls: expected participants that the model was not" in capsys.readouterr().err
