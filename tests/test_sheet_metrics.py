"""The behaviour measured on a 1-voxel sheet: which metric sees which fault."""

import numpy as np
import pytest

from foldnorm.pipeline.metrics.sheets import (
    PANEL,
    compare_populations,
    mean_panel,
    opening_fraction,
    sheet_panel,
)

SHEET = np.zeros((20, 20, 20), bool)
SHEET[:, 10, :] = True


def thick(voxels):
    volume = np.zeros_like(SHEET)
    volume[:, 10 : 10 + voxels, :] = True
    return volume


def test_a_perfect_copy():
    panel = sheet_panel(SHEET, SHEET)
    assert panel["dice"] == panel["precision"] == panel["recall"] == panel["volume_ratio"] == 1
    assert panel["opening"] == panel["opening_excess"] == panel["assd"] == 0
    assert panel["components"] == panel["euler_number"] == 1
    assert set(panel) == set(PANEL)


@pytest.mark.parametrize(("voxels", "ratio"), [(2, 2.0), (3, 3.0)])
def test_thickening_is_seen_by_ratio_and_opening_but_not_by_surface_dice(voxels, ratio):
    panel = sheet_panel(thick(voxels), SHEET)
    assert panel["volume_ratio"] == ratio
    assert panel["opening_excess"] == 1
    assert panel["dice"] == pytest.approx(2 / (1 + ratio))
    if voxels == 2:
        assert panel["surface_dice"] == 1


def test_a_shift_by_one_voxel_is_seen_by_dice_but_not_by_ratio():
    panel = sheet_panel(np.roll(SHEET, 1, axis=1), SHEET)
    assert panel["dice"] == 0
    assert panel["volume_ratio"] == panel["surface_dice"] == panel["assd"] == 1
    assert panel["opening_excess"] == 0


def test_opening_counts_voxels_of_full_blocks():
    mask = np.zeros((5, 5, 5), bool)
    mask[1:3, 1:3, 1:3] = True
    mask[4, 4, 4] = True
    assert opening_fraction(mask) == 8 / 9


def test_a_cut_sheet_is_two_pieces():
    cut = SHEET.copy()
    cut[9:11] = False
    assert sheet_panel(cut, SHEET)["components"] == 2


def test_empty_sheets_give_nan_not_an_error():
    panel = sheet_panel(np.zeros_like(SHEET), SHEET)
    assert panel["dice"] == 0
    assert np.isnan(panel["precision"])
    assert np.isnan(panel["assd"])
    means = mean_panel([(np.zeros_like(SHEET), SHEET), (SHEET, SHEET)])
    assert means["precision"] == 1
    assert means["dice"] == 0.5
    assert mean_panel([]) == {}


def test_populations_are_compared_without_partners():
    pieces = SHEET.copy()
    pieces[9:11] = False
    compared = compare_populations([pieces, pieces], [SHEET, np.roll(SHEET, 3, axis=1)])
    assert compared == {"volume_ratio": 0.9, "components_ratio": 2.0, "opening_excess": 0.0}
    thickened = compare_populations([thick(2)], [SHEET])
    assert thickened == {"volume_ratio": 2.0, "components_ratio": 1.0, "opening_excess": 1.0}
