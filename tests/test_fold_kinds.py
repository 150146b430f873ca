"""Refilled, interrupted and displaced folds, and their controls, on three parallel sheets."""

import numpy as np
import pytest
from scipy import ndimage

from foldnorm.pipeline.cli import main
from foldnorm.preprocessing.alteration.alteration import alter
from foldnorm.preprocessing.alteration.deletion import Refilling, SizeRange
from foldnorm.preprocessing.alteration.fold_axes import fold_axes, interruption
from foldnorm.preprocessing.alteration.fold_erasure import hull_voxels, with_junctions
from foldnorm.preprocessing.alteration.kinds import KINDS
from foldnorm.preprocessing.cohort.cohort import FOLD_COLUMNS, FOLD_TABLE, FOLDS, VOLUMES, Cohort
from foldnorm.preprocessing.cohort.cohort_files import write_description, write_participants
from foldnorm.preprocessing.core.arrays import write_array
from foldnorm.preprocessing.core.errors import InputError
from foldnorm.preprocessing.core.files import read_tsv, write_tsv
from foldnorm.preprocessing.io.schemes import GREY_WHITE, SKELETON

SHAPE = (40, 32, 24)
WITHIN = tuple(slice(3, side - 3) for side in SHAPE)  # hull around it, outside around that
SHEETS = {14: 1, 20: 2, 26: 3}  # place along the first axis → fold label
MIDDLE = 2
NEW = ("refill", "deform", "interrupt", "displace", "scar", "rim")


def brain(bottom, offset=0):
    """Three sheets across a box, from its top down to ``bottom``; junctions have no label."""
    classes = np.zeros(SHAPE, np.uint8)
    classes[2:-2, 2:-2, 2:-2] = 2
    classes[WITHIN] = 1
    folds = np.zeros(classes.shape, np.uint16)
    for at, label in SHEETS.items():
        classes[at + offset, 3:-3, bottom:-3] = 2
        folds[at + offset, 4:-4, max(bottom, 4) : -4] = label
    return classes, folds


def cohort_of(folder, bottom, scheme=SKELETON, offsets=(0,)):
    """One brain an offset of its sheets; the middle one can be drawn."""
    brains = [brain(bottom, offset) for offset in offsets]
    shape = (len(brains), *SHAPE)
    write_array(folder / VOLUMES, [b[0] for b in brains], shape=shape, dtype=np.dtype("u1"))
    write_array(folder / FOLDS, [b[1] for b in brains], shape=shape, dtype=np.dtype("u2"))
    whose = [{"participant_id": f"sub-{n}", "hemi": "L"} for n in range(len(brains))]
    write_participants(folder, [{**who, "split": "test"} for who in whose])
    size = int((brains[0][1] == MIDDLE).sum())
    row = {"label": MIDDLE, "name": "middle", "size": size, "voxels": size}
    write_tsv(folder / FOLD_TABLE, [{**who, **row} for who in whose], FOLD_COLUMNS)
    preparation = {"scheme": scheme.as_dict(), "hull": "keep"}
    record = {"preparation": preparation, "voxel_size": [1, 1, 1], "affine": np.eye(4).tolist()}
    write_description(folder, "test", record)
    return Cohort.open(folder)


@pytest.fixture(scope="module")
def closed(tmp_path_factory):
    """Sheets that part the brain in four."""
    return cohort_of(tmp_path_factory.mktemp("closed"), 3)


@pytest.fixture(scope="module")
def hanging(tmp_path_factory):
    """Sheets that hang from the top, as sulci do."""
    return cohort_of(tmp_path_factory.mktemp("hanging"), 8)


def altered(cohort, kind, *, seed=0, **more):
    (one,) = alter(cohort, [0], SizeRange(1), kind=kind, seed=seed, **more)
    return one


def parts_of(classes):
    return ndimage.label(classes == 1)[1]


def along_first_axis(classes):
    """Places of sheets on a line through the middle of the brain."""
    return np.flatnonzero(classes[3:-3, 16, 14] == 2) + 3


def test_after_a_refill_the_fold_is_gone_and_both_banks_have_come(closed):
    one = altered(closed, "refill", refilling=Refilling(reach=10, share=0.6))
    # 6 mm off: .6 · 6 · (1 − (6 / 27.5)²)³ = 3.1 mm
    assert along_first_axis(one.volume).tolist() == [17, 23]
    assert (one.deletion.reach, one.deletion.share) == (10, 0.6)


def test_a_refill_leaves_no_stub_and_no_hole(closed):
    assert parts_of(closed.volumes[0]) == 4
    for refilling in (Refilling(8, 0.5), Refilling(12, 0.8)):
        volume = altered(closed, "refill", refilling=refilling).volume
        assert parts_of(volume) == 3
        assert not (volume[20, 3:-3, 3:-3] == 2).any()
        assert not ndimage.binary_opening(volume[WITHIN] == 2, np.ones((2, 2, 2))).any()


def test_the_control_of_a_refill_moves_the_banks_and_keeps_the_fold(closed):
    one = altered(closed, "deform", refilling=Refilling(reach=10, share=0.6))
    assert along_first_axis(one.volume).tolist() == [17, 20, 23]
    assert (one.volume[np.array(closed.folds[0]) == MIDDLE] == 2).all()
    assert parts_of(one.volume) == 4


def test_a_refill_and_its_control_move_the_banks_alike(hanging):
    refilled, control = (altered(hanging, kind).volume for kind in ("refill", "deform"))
    away = np.abs(np.arange(SHAPE[0]) - 20) > 1
    assert (refilled[away] == control[away]).all()


def test_nothing_changes_beyond_the_reach(closed):
    one = altered(closed, "refill", refilling=Refilling(reach=2, share=0.5))  # ends at 5.5 mm
    changed = np.argwhere(one.volume != closed.volumes[0])
    assert set(changed[:, 0]) == {20}


@pytest.mark.parametrize("kind", NEW)
def test_hull_and_outside_stay_whatever_is_done(hanging, kind):
    before = np.array(hanging.volumes[0])
    hull = hull_voxels(before == 2, before == 0)
    for seed in range(4):
        volume = altered(hanging, kind, seed=seed).volume
        assert (volume != before).any()
        assert (volume[hull] == 2).all()
        assert ((volume == 0) == (before == 0)).all()


@pytest.mark.parametrize("kind", NEW)
def test_size_0_changes_nothing_and_a_seed_says_all(hanging, kind):
    (control,) = alter(hanging, [0], SizeRange(0), kind=kind)
    assert control.deletion.kind == "none"
    assert control.volume.tobytes() == hanging.volumes[0].tobytes()
    first, again = (altered(hanging, kind, seed=3) for _ in range(2))
    assert first.deletion == again.deletion
    assert first.volume.tobytes() == again.volume.tobytes()


def test_an_interruption_cuts_its_gap_through_the_whole_depth(hanging):
    for seed in range(5):
        one = altered(hanging, "interrupt", seed=seed)
        taken = (np.array(hanging.volumes[0]) == 2) & (one.volume != 2)
        gaps = taken[20, :, 8:-4].sum(axis=0)  # at each depth; the cut need not be upright
        assert 5 <= one.deletion.mm <= 15
        assert gaps == pytest.approx(one.deletion.mm, abs=1.5)
        assert taken[20].sum() == taken.sum()
        left = one.volume[20, 4:-4, 14] == 2
        assert ndimage.label(left)[1] == 2


def test_a_displaced_fold_has_moved_by_what_is_said_and_its_neighbours_make_way(hanging):
    for seed in range(5):
        one = altered(hanging, "displace", seed=seed)
        first, middle, last = along_first_axis(one.volume)
        assert abs(middle - 20) == pytest.approx(one.deletion.mm, abs=1)
        assert first >= 14 if middle > 20 else last <= 26
        assert (middle > 20) == (one.deletion.vector[0] > 0)


@pytest.mark.parametrize("kind", ["scar", "rim"])
def test_scar_and_rim_leave_the_fold_and_take_what_touches_it(hanging, kind):
    one = altered(hanging, kind)
    taken = np.array(hanging.volumes[0]) != one.volume
    assert not taken[np.array(hanging.folds[0]) == MIDDLE].any()
    assert set(np.argwhere(taken)[:, 0]) == {20}
    assert (one.volume[20, 4:-4, -4] == 1).all()


def test_junctions_go_with_the_fold_that_alone_holds_them():
    sheet = np.zeros((9, 9, 3), dtype=bool)
    sheet[:, 4], sheet[4, 5:] = True, True
    folds = np.zeros(sheet.shape, np.uint16)
    folds[:3, 4], folds[6:, 4], folds[4, 6:] = 1, 2, 3  # unlabelled where they meet, at row 3 to 5
    gone = with_junctions(folds == 3, sheet, folds, np.zeros_like(sheet))
    assert gone[4, 5:].all()
    assert not gone[:, 4].any()
    assert with_junctions(sheet & (folds > 0), sheet, folds, np.zeros_like(sheet)).sum() == 39


def test_axes_and_interruption_of_a_hanging_sheet():
    fold, outside = (np.zeros((21, 30, 20), dtype=bool) for _ in range(2))
    fold[10, 3:27, 8:18], outside[:, :, 19] = True, True
    axes = fold_axes(fold, outside, (1.0, 1.0, 1.0))
    assert np.abs(axes.along).round(2).tolist() == [0, 1, 0]
    assert np.abs(axes.across).round(1).tolist() == [1, 0, 0]
    assert axes.down.round(1).tolist() == [0, 0, -1]
    cut = interruption(fold, np.array([10, 14, 12]), axes.along, 6, (1.0, 1.0, 1.0))
    assert set(np.argwhere(cut)[:, 1]) == set(range(11, 18))
    assert cut.sum() == 7 * 10


def test_the_table_says_how_a_fold_was_refilled(hanging, tmp_path):
    words = ["--kind", "refill", "--size", "1", "--reach", "4", "--share", "0.8", "--quiet"]
    assert main(["alter", str(hanging.folder), "-o", str(tmp_path / "a"), *words]) == 0
    (row,) = read_tsv(tmp_path / "a/deletions.tsv")
    assert (row["kind"], row["reach"], row["share"]) == ("refill", "4", "0.8")
    record = Cohort.open(tmp_path / "a").description["Cohort"]["deletion"]
    assert (record["reach"], record["share"]) == (4, 0.8)


@pytest.mark.parametrize(("reach", "share"), [(0, 0.5), (8, 0), (8, 1), (float("nan"), 0.5)])
def test_a_refill_that_cannot_be_is_refused(reach, share):
    with pytest.raises(InputError, match=r"--reach|--share"):
        Refilling(reach, share)


def test_volumes_without_thin_sheets_are_refused(tmp_path):
    grey_white = cohort_of(tmp_path, 3, GREY_WHITE)
    with pytest.raises(InputError, match="thin sheets"):
        KINDS["refill"](grey_white)


def test_an_added_fold_makes_no_block_with_the_sheet_beside_it(tmp_path):
    cohort = cohort_of(tmp_path, 8, offsets=(0, 1))
    one = altered(cohort, "add")
    assert one.deletion.donor == "sub-1_hemi-L"
    assert not ndimage.binary_opening(one.volume[WITHIN] == 2, np.ones((2, 2, 2))).any()
    assert (one.volume[cohort.volumes[0] == 2] == 2).all()
    apart = cohort_of(tmp_path / "apart", 8, offsets=(0, 3))
    assert (altered(apart, "add").volume[23, 4:-4, 8:-4] == 2).all()
