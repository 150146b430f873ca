"""Folds that an atlas leaves without a name, and hemispheres that lie in it as they should not."""

from dataclasses import replace

import nibabel
import numpy as np
import pytest
from test_atlas import AFFINE, SHAPE, SULCI, maps, sheets

from foldnorm.pipeline.cli import main
from foldnorm.pipeline.inference.atlas_folds import INSIDE, NO_SULCUS, UNSURE
from foldnorm.pipeline.inference.atlas_orientation import MAX_LOOKED_AT, MirrorCheck
from foldnorm.preprocessing.cohort.cohort import (
    DESCRIPTION,
    FOLD_COLUMNS,
    FOLD_TABLE,
    FOLDS,
    VOLUMES,
)
from foldnorm.preprocessing.cohort.cohort_files import write_description, write_participants
from foldnorm.preprocessing.core.arrays import write_array
from foldnorm.preprocessing.core.files import read_json, read_tsv, write_json, write_tsv
from foldnorm.preprocessing.io.schemes import SKELETON
from foldnorm.preprocessing.io.volumes import read_labels
from foldnorm.preprocessing.naming.alignment import transformed
from foldnorm.preprocessing.naming.atlas import SulcusAtlas

UNLIKE = (0, 20, 0)  # mm between the first sheet of a right side and the mirror image of a left one


def points_of(side):
    """Points of the sheets of a side, as `maps` has them, and the number of each."""
    points, numbers = sheets()
    if side == "R":
        points = (points + np.where(numbers[:, None] == 1, UNLIKE, 0)) * [-1, 1, 1]
    return points, numbers


def cohort_of(folder, brains, inside=None):
    """Cohort in MNI space: one hemisphere for each side, points and numbers of ``brains``."""
    volumes = np.full((len(brains), *SHAPE), SKELETON.fill, np.uint8)
    folds = np.zeros(volumes.shape, np.uint16)
    whose, table = [], []
    for n, (side, points, numbers) in enumerate(brains):
        voxels = np.rint(transformed(points, np.linalg.inv(AFFINE))).astype(int)
        volumes[(n, *voxels.T)], folds[(n, *voxels.T)] = SKELETON.top, numbers
        who = {"participant_id": f"sub-{n}", "hemi": side}
        whose.append(who)
        table += [
            {**who, "label": own, "inside": (inside or {}).get(own, ""), "size": 9, "voxels": 9}
            for own in np.unique(numbers)
        ]
    write_array(folder / VOLUMES, volumes, shape=volumes.shape, dtype=volumes.dtype)
    write_array(folder / FOLDS, folds, shape=folds.shape, dtype=folds.dtype)
    write_participants(folder, [{**who, "split": "test"} for who in whose])
    write_tsv(folder / FOLD_TABLE, table, FOLD_COLUMNS)
    preparation = {"scheme": SKELETON.as_dict(), "hull": "keep", "space": "mni"}
    record = {"preparation": preparation, "voxel_size": [4, 4, 4], "affine": AFFINE.tolist(),
              "phantom": True}  # fmt: skip
    write_description(folder, "test", record)
    return folder


@pytest.fixture(scope="module")
def atlas(tmp_path_factory):
    """Atlas of both sides, of which one is no mirror image of the other."""
    folder = tmp_path_factory.mktemp("atlas")
    maps(maps(folder), "R", unlike=UNLIKE)
    atlas = SulcusAtlas.from_masks(folder)
    atlas.save(folder / "a.npz")
    return folder / "a.npz"


def label(atlas, cohort, out, *more):
    """Name the folds of a cohort; rows of ``folds.tsv``, by participant and fold."""
    words = ["label-sulci", atlas, cohort, "-o", out, "--quiet", *more]
    assert main(list(map(str, words))) in (0, 1)
    return {(row["participant_id"], row["fold"]): row for row in read_tsv(out / "folds.tsv")}


def test_a_name_below_the_least_probability_is_not_given(atlas, tmp_path):
    points, numbers = sheets()
    middle = (points[numbers == 1] + points[numbers == 4]) / 2  # between two sulci
    stray = np.array([-35.0, 5, -45]) + np.random.default_rng(0).uniform(-6, 6, (60, 3))
    brain = "L", np.concatenate([points, middle, stray]), np.r_[numbers, [6] * 625, [7] * 60]
    cohort = cohort_of(tmp_path / "cohort", [brain])
    every = label(atlas, cohort, tmp_path / "every", "--least-probability", 0)
    likely = float(every["sub-0", "6"]["probability"])
    assert 0.3 < likely < 0.99
    assert [every["sub-0", str(n)]["unnamed"] for n in range(1, 8)] == [""] * 6 + [NO_SULCUS]
    least = likely + 0.005
    some = label(atlas, cohort, tmp_path / "some", "--least-probability", least)
    row = some["sub-0", "6"]
    assert (row["sulcus"], row["unnamed"]) == ("", UNSURE)
    assert row["likeliest"] == every["sub-0", "6"]["sulcus"]
    assert row["second"] == every["sub-0", "6"]["second"] != ""
    assert [some["sub-0", str(n)]["sulcus"] for n in range(1, 6)] == list(SULCI)
    assert read_json(tmp_path / "some/sulci.json")["least_probability"] == least
    volumes = [read_labels(tmp_path / f"{n}/sub-0_hemi-L_desc-sulci_dseg.nii.gz").data
               for n in ("every", "some")]  # fmt: skip
    folds = np.load(cohort / FOLDS)[0]
    assert volumes[0][folds == 6].all()
    assert not volumes[1][(folds == 6) | (folds == 7)].any()
    assert np.array_equal(volumes[0][folds < 6], volumes[1][folds < 6])


@pytest.mark.parametrize(("vocabulary", "is_named"), [("brainvisa", True), ("dkt", False)])
def test_a_fold_inside_a_gyrus_is_no_sulcus_between_gyri(tmp_path, vocabulary, is_named):
    SulcusAtlas.from_masks(maps(tmp_path / "maps"), vocabulary).save(tmp_path / "a.npz")
    points, numbers = sheets()
    dimple = (points[numbers == 1] + points[numbers == 4]) / 2  # between two sulci
    brain = "L", np.concatenate([points, dimple]), np.r_[numbers, [6] * 625]
    inside = {2: "insula", 6: "insula"}
    cohort = cohort_of(tmp_path / "cohort", [brain], inside=inside)
    rows = label(tmp_path / "a.npz", cohort, tmp_path / "out")
    assert float(rows["sub-0", "2"]["probability"]) > 0.9 > float(rows["sub-0", "6"]["probability"])
    assert rows["sub-0", "6"]["unnamed"] == INSIDE
    assert rows["sub-0", "2"]["unnamed"] == ("" if is_named else INSIDE)
    assert rows["sub-0", "2"]["likeliest"] == "along"
    assert [rows["sub-0", str(n)]["unnamed"] for n in (1, 3, 4, 5)] == [""] * 4
    rows = label(tmp_path / "a.npz", cohort, tmp_path / "none", "--least-probability", 1)
    assert rows["sub-0", "2"]["unnamed"] == INSIDE  # why the atlas is unsure
    assert rows["sub-0", "1"]["unnamed"] == UNSURE


@pytest.mark.parametrize("own", [None, "brainvisa", "dkt"])
def test_names_of_another_nomenclature_are_said(atlas, tmp_path, caplog, own):
    cohort = cohort_of(tmp_path / "cohort", [("L", *sheets())])
    if own is not None:
        description = read_json(cohort / DESCRIPTION)
        description["Cohort"]["fold_vocabularies"] = {own: 1}
        write_json(cohort / DESCRIPTION, description)
    label(atlas, cohort, tmp_path / "out")
    said = "names sulci as brainvisa does, the cohort's own folds have names of dkt"
    assert (said in caplog.text) is (own == "dkt")


def test_a_cohort_of_a_release_without_gyri_of_folds_is_named(atlas, tmp_path):
    cohort = cohort_of(tmp_path / "cohort", [("L", *sheets())])
    rows = read_tsv(cohort / FOLD_TABLE)
    write_tsv(cohort / FOLD_TABLE, rows, [name for name in FOLD_COLUMNS if name != "inside"])
    assert all(row["sulcus"] for row in label(atlas, cohort, tmp_path / "out").values())


def turned(points, *signs):
    middle = (points.min(axis=0) + points.max(axis=0)) / 2
    return (points - middle) * signs + middle


def test_a_hemisphere_of_another_side_or_turned_around_is_flagged(atlas, tmp_path, capsys):
    left, numbers = points_of("L")
    right = points_of("R")[0]
    brains = [
        ("L", left, ""),
        ("R", left, "a left hemisphere"),
        ("L", right, "a right hemisphere"),
        ("L", turned(left, 1, -1, 1), "a left hemisphere turned back to front"),
        ("R", turned(right, 1, 1, -1), "a right hemisphere turned upside down"),
        ("R", right, ""),
        ("L", left * [-1, 1, 1], "a right hemisphere"),  # left and right exchanged, names kept
    ]
    cohort = cohort_of(tmp_path / "cohort", [(side, own, numbers) for side, own, _ in brains])
    rows = label(atlas, cohort, tmp_path / "out")
    flags = {row["participant_id"]: row["flag"] for row in read_tsv(tmp_path / "out/sulci.tsv")}
    for n, (side, _, said) in enumerate(brains):
        word = {"L": "left", "R": "right"}[side]
        expected = f"lies in the atlas unlike a {word} hemisphere; it fits better as {said}"
        assert flags[f"sub-{n}"] == (expected if said else ""), n
        named = [row for row in rows.values() if row["participant_id"] == f"sub-{n}"]
        assert {row["flag"] for row in named} == {flags[f"sub-{n}"]}
        assert len(named) == 5
        key = f"sub-{n}_hemi-{side}"
        image = nibabel.load(tmp_path / f"out/{key}_desc-sulci_dseg.nii.gz")
        assert (b"FLAGGED" in image.header["descrip"].item()) is bool(said)
        sidecar = read_json(tmp_path / "out/sulci.json")
        assert sidecar["alignments"][key]["flag"] == flags[f"sub-{n}"]
    said = capsys.readouterr().err
    assert said.count("it fits better as") == sum(bool(other) for *_, other in brains)


@pytest.mark.parametrize("shift", [0, 40, 300])
def test_an_atlas_in_another_space_is_said(atlas, tmp_path, shift):
    known = SulcusAtlas.open(atlas)
    affine = known.affine.copy()
    affine[1, 3] += shift
    replace(known, affine=affine).save(tmp_path / "a.npz")
    cohort = cohort_of(tmp_path / "cohort", [("L", *sheets())])
    label(tmp_path / "a.npz", cohort, tmp_path / "out")
    flags = {row["flag"] for row in read_tsv(tmp_path / "out/sulci.tsv")}
    (flag,) = flags
    assert ("in another space?" in flag) is (shift > 100)
    assert bool(flag) is (shift > 100)


@pytest.mark.parametrize("is_mirrored", [False, True])
def test_hemispheres_whose_left_and_right_are_exchanged_are_said(
    atlas, tmp_path, caplog, is_mirrored
):
    brains = []
    for side, other in ("LR", "RL"):
        points, numbers = points_of(other if is_mirrored else side)
        brains.append((side, points * ([-1, 1, 1] if is_mirrored else [1, 1, 1]), numbers))
    label(atlas, cohort_of(tmp_path / "cohort", brains), tmp_path / "out")
    assert read_json(tmp_path / "out/sulci.json")["mirrored"] is is_mirrored
    assert ("are left and right exchanged? (2 hemispheres)" in caplog.text) is is_mirrored


def test_many_hemispheres_tell_what_one_does_not():
    check = MirrorCheck(names=None)
    assert not check.is_mirrored
    for count in range(1, MAX_LOOKED_AT + 1):
        check.losses = [-0.015] * count  # as real ones that are mirrored
        assert check.is_mirrored == (count > 4)
        check.losses = [0.015] * count
        assert not check.is_mirrored


def test_the_option_is_of_an_atlas_and_a_probability(atlas, small_run, tmp_path, capsys):
    cohort = cohort_of(tmp_path / "cohort", [("L", *sheets())])
    for model, value, said in ((atlas, 1.5, "from 0 to 1, got 1.5"),
                               (atlas, "nan", "from 0 to 1, got nan"),
                               (small_run, 0.5, "requires an atlas")):  # fmt: skip
        words = ["label-sulci", model, cohort, "-o", tmp_path / "x", "--least-probability", value]
        assert main([*map(str, words), "--quiet"]) == 2
        (line,) = capsys.readouterr().err.strip().splitlines()
        assert said in line
    assert not (tmp_path / "x").exists()
