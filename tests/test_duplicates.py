"""Scans that are in a cohort under two ids."""

import itertools

import numpy as np
import pytest
from conftest import skeleton_source, skeleton_volume, write_nifti
from scipy import ndimage

from foldnorm.pipeline.cli import main
from foldnorm.preprocessing.cohort.cohort import Cohort
from foldnorm.preprocessing.cohort.duplicates import (
    BUCKETS,
    SAME_SCAN,
    as_text,
    candidates,
    from_text,
    overlap,
    signature_of,
)
from foldnorm.preprocessing.core.files import read_json, read_tsv
from foldnorm.preprocessing.io.volumes import read_labels


def run(source, out, *more):
    return main(["preprocess", str(source), "-o", str(out), "--n-procs", "1", "--quiet", *more])


def scatter(seed, shared=0.0, shape=(40, 40, 40)):
    """Random voxels, of which a share is that of seed 0."""
    common = np.random.default_rng(0).random(shape) < 0.05 * shared
    return common | (np.random.default_rng(seed).random(shape) < 0.05 * (1 - shared))


@pytest.mark.parametrize("order", ["C", "F"])
def test_a_signature_is_of_the_surface_whatever_the_order_of_memory(order):
    """A ball on a turned grid, and the points of its shell on a grid of which all are surface."""
    i, j, k = np.mgrid[:19, :24, :21]
    structure = (i - 4) ** 2 + (j - 12) ** 2 + (k - 10) ** 2 < 100  # cut by the border of the array
    shell = structure & ~ndimage.binary_erosion(structure)
    affine = np.array([[0, 0.5, 0, 3], [-1, 0, 0, 7], [0, 0, 2, -9], [0, 0, 0, 1.0]])
    mm = np.argwhere(shell) @ affine[:3, :3].T + affine[:3, 3]
    points = np.zeros(tuple(np.ptp(2 * mm, axis=0).astype(int) + 1), bool)  # one voxel a point
    low = mm.min(axis=0)
    points[tuple((2 * (mm - low)).astype(int).T)] = True
    scattered = np.diag([0.5, 0.5, 0.5, 1])
    scattered[:3, 3] = low
    found = signature_of(np.asarray(structure, order=order), affine)
    assert np.array_equal(found, signature_of(points, scattered))


@pytest.mark.parametrize("shared", [0.0, 0.5, 0.9, 1.0])
def test_signatures_estimate_the_dice_overlap(shared):
    first, second = scatter(1, shared), scatter(2, shared)
    true = 2 * (first & second).sum() / (first.sum() + second.sum())
    found = overlap(*(signature_of(mask, np.eye(4)) for mask in (first, second)))
    assert found == pytest.approx(true, abs=0.12)


def test_a_place_in_the_world_counts_not_the_place_in_the_array():
    mask = scatter(1)
    affine = np.eye(4)
    affine[0, 3] = 3
    assert (signature_of(mask[3:], affine) == signature_of(mask[3:], affine)).all()
    whole = np.zeros_like(mask)
    whole[3:] = mask[3:]
    assert overlap(signature_of(mask[3:], affine), signature_of(whole, np.eye(4))) == 1
    assert overlap(signature_of(mask[3:], np.eye(4)), signature_of(whole, np.eye(4))) < 0.3


def test_of_a_blob_only_the_surface_counts():
    blob = np.zeros((30, 30, 30), bool)
    blob[5:25, 5:25, 5:25] = True
    larger = np.zeros_like(blob)
    larger[4:26, 4:26, 4:26] = True
    assert overlap(signature_of(blob, np.eye(4)), signature_of(larger, np.eye(4))) < 0.1


def test_a_signature_is_read_as_it_was_written_and_none_resembles_nothing():
    signature = signature_of(scatter(1), np.eye(4))
    assert (from_text(as_text(signature)) == signature).all()
    assert overlap(from_text(""), from_text("")) == 0


def test_candidates_are_few_and_hold_every_near_identical_pair():
    rng = np.random.default_rng(0)
    rows = rng.integers(0, 2**32 - 2, (500, BUCKETS), dtype=np.uint32)
    rows[400] = np.where(rng.random(BUCKETS) < 0.7, rows[20], rows[400])
    assert candidates(rows).tolist() == [[20, 400]]
    assert len(candidates(np.repeat(rows[:1], 300, axis=0))) < 300 * 17


def test_real_scans_that_are_there_twice_stand_apart_from_other_people(real_data):
    ids = ("NKI-RS-22-3", "NKI-TRT-20-5", "NKI-RS-22-14", "NKI-TRT-20-14", "HLN-12-11")
    white = {}
    for name in ids:
        volume = read_labels(real_data / "mindboggle" / name / "mri/aparc+aseg.mgz")
        white[name] = signature_of(volume.data == 2, volume.affine)
    found = {
        (a, b) for a, b in itertools.combinations(ids, 2) if overlap(white[a], white[b]) > SAME_SCAN
    }
    assert found == {ids[:2], ids[2:4]}


@pytest.fixture
def source(tmp_path):
    """Twelve skeletons; s09 is s02 with one voxel changed, and in another split."""
    folder = skeleton_source(tmp_path / "source", 12)
    copy = skeleton_volume(2)
    copy[3, 3, 3] = 60
    write_nifti(folder / "sub-s09.nii.gz", copy)
    return folder


SPLIT = ("--split-fractions", "0.4", "0.3", "0.3", "--split-seed", "8")


def test_a_scan_under_two_ids_is_flagged_and_said_to_leak(source, tmp_path, capsys):
    out = tmp_path / "out"
    assert run(source, out, *SPLIT) == 0
    split = {row["participant_id"]: row["split"] for row in Cohort.open(out).rows}
    assert split["sub-s02"] != split["sub-s09"]
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("foldnorm: warning: sub-s02 and sub-s09 are of the same scan (Dice")
    assert f"in {split['sub-s02']} and {split['sub-s09']}: they leak through a split" in line
    assert "give sub-s09 the family s02 in the source's participants.tsv or table" in line
    flags = {row["participant_id"]: row["flags"] for row in read_tsv(out / "qc.tsv")}
    assert flags["sub-s02"] == "same scan as sub-s09"
    assert flags["sub-s09"] == "same scan as sub-s02"
    assert not any(flag for name, flag in flags.items() if name not in ("sub-s02", "sub-s09"))
    (scan,) = read_json(out / "run_report.json")["duplicates"]
    assert (scan["first"], scan["second"]) == ("s02", "s09")
    # Nothing is done again, and it is said again.
    assert run(source, out, *SPLIT) == 0
    assert "leak through a split" in capsys.readouterr().err


def test_what_the_line_says_puts_both_into_one_split(source, tmp_path, capsys):
    (source / "participants.tsv").write_text("participant_id\tfamily\ns09\ts02\n")
    assert run(source, tmp_path / "out", *SPLIT) == 0
    (line,) = capsys.readouterr().err.splitlines()
    assert "11 of 12 volumes got nothing" in line
    split = {row["participant_id"]: row["split"] for row in Cohort.open(tmp_path / "out").rows}
    assert split["sub-s02"] == split["sub-s09"]
    table = {row["participant_id"]: row["flags"] for row in read_tsv(tmp_path / "out/qc.tsv")}
    assert table["sub-s09"] == "same scan as sub-s02"


def test_duplicates_can_be_dropped(source, tmp_path, capsys):
    out = tmp_path / "out"
    assert run(source, out, "--drop-duplicates") == 0
    assert "left out: sub-s09" in capsys.readouterr().err
    assert len(Cohort.open(out).rows) == 11
    report = read_json(out / "run_report.json")
    assert report["dropped"] == ["s09"]
    assert not any(row["flags"] for row in read_tsv(out / "qc.tsv"))
    assert run(source, out) == 0
    assert len(Cohort.open(out).rows) == 12


def test_of_three_copies_the_first_is_kept(source, tmp_path, capsys):
    write_nifti(source / "sub-s05.nii.gz", skeleton_volume(2))
    assert run(source, tmp_path / "out", "--drop-duplicates") == 0
    assert read_json(tmp_path / "out/run_report.json")["dropped"] == ["s05", "s09"]
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3
    assert all("left out: sub-s" in line and "left out: sub-s02" not in line for line in lines)
