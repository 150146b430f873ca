"""An atlas of sulci: what it is made of, how a brain is brought to it, how its folds are named."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest
from conftest import libraries_of, script_of
from scipy.spatial.transform import Rotation

from foldnorm.pipeline.cli import main
from foldnorm.pipeline.scoring import sulcus_norms
from foldnorm.pipeline.scoring.atlas_labeller import AtlasLabeller
from foldnorm.preprocessing.cohort.cohort import Cohort
from foldnorm.preprocessing.core.errors import InputError
from foldnorm.preprocessing.core.files import read_json, read_tsv, write_tsv
from foldnorm.preprocessing.io.volumes import read_labels
from foldnorm.preprocessing.naming.alignment import align, fold_means, transformed
from foldnorm.preprocessing.naming.atlas import SulcusAtlas
from foldnorm.preprocessing.naming.atlas_names import name_by_atlas
from foldnorm.preprocessing.naming.sulcus_shifts import _pair_means, shifted_means

AFFINE = np.array([[4.0, 0, 0, -62], [0, 4, 0, -62], [0, 0, 4, -62], [0, 0, 0, 1]])
SHAPE = (32, 32, 32)
SULCI = ("across", "along", "curved", "slanted", "upper")


def sheets():
    """Points (N, 3) in mm of five sheets of the left hemisphere, and the number of each."""
    a, b = np.meshgrid(np.linspace(-1, 1, 25), np.linspace(-1, 1, 25))
    flat = 0 * a
    planes = (
        np.stack([20 * a - 40, flat + 5, 18 * b + 10], axis=-1),
        np.stack([flat - 55, 20 * a + 35, 12 * b - 10], axis=-1),
        np.stack([18 * a - 35, 12 * a**2 - 35, 16 * b - 5], axis=-1),
        np.stack([15 * a - 20, 15 * a + 20, 15 * b + 25], axis=-1),
        np.stack([16 * a - 35, 20 * b - 20, flat + 40], axis=-1),
    )
    points = np.concatenate([plane.reshape(-1, 3) for plane in planes])
    return points, np.repeat(np.arange(1, 6), a.size)


def maps(folder, side="L", shape=SHAPE, affine=AFFINE, names=SULCI, unlike=(0, 0, 0)):
    """Folder of maps: 20 brains with those sheets, each a little elsewhere.

    The first sheet lies ``unlike`` mm off, as of a side that is no mirror image of the other.
    """
    points, numbers = sheets()
    points = points + np.where(numbers[:, None] == 1, unlike, 0)
    rng = np.random.default_rng(0)
    counts = np.zeros((len(names), *shape), dtype=np.int16)
    flip = np.array([1 if side == "L" else -1, 1, 1])
    for _ in range(20):
        moved = (points + rng.normal(0, 2, 3) + rng.normal(0, 1, points.shape)) * flip
        voxels = np.rint(transformed(moved, np.linalg.inv(affine))).astype(int)
        for n in range(len(names)):
            own = np.unique(voxels[numbers == n + 1], axis=0)
            own = own[((own >= 0) & (own < shape)).all(axis=1)]
            counts[(n, *own.T)] += 1
    word = {"L": "left", "R": "right"}[side]
    (folder / side).mkdir(parents=True, exist_ok=True)
    for name, own in zip(names, counts, strict=True):
        image = nibabel.Nifti1Image(own, affine)
        nibabel.save(image, folder / side / f"{name}_{word}.nii.gz")
    return folder


@pytest.fixture(scope="module")
def atlas(tmp_path_factory):
    return SulcusAtlas.from_masks(maps(tmp_path_factory.mktemp("maps")))


def right_share(found, numbers):
    names = dict(zip(found.labels, found.names(), strict=True))
    return np.mean([names[n] == SULCI[n - 1] for n in numbers])


@pytest.mark.parametrize(("angle", "shift"), [(0, (0, 0, 0)), (8, (3, -4, 2)), (20, (12, -12, 10))])
def test_a_hemisphere_is_found_in_the_atlas_from_where_it_lies(atlas, angle, shift):
    points, numbers = sheets()
    turn = Rotation.from_rotvec(np.deg2rad(angle) * np.array([0.6, 0, 0.8])).as_matrix()
    centre = points.mean(axis=0)
    elsewhere = (points - centre) @ turn.T + centre + np.array(shift)
    found = name_by_atlas(atlas.side("L"), elsewhere, numbers)
    assert right_share(found, numbers) == 1
    back = transformed(elsewhere, found.alignment.matrix)
    assert np.linalg.norm(back - points, axis=1).mean() < 3
    moved = np.linalg.norm(elsewhere - points, axis=1).mean()
    assert found.alignment.moved == pytest.approx(moved, abs=3)


def test_without_a_position_a_hemisphere_is_brought_there_by_its_extent(atlas):
    points, numbers = sheets()
    far = 1.15 * points + np.array([300, -200, 100])
    found = name_by_atlas(atlas.side("L"), far, numbers, is_placed=False)
    assert right_share(found, numbers) == 1
    assert not right_share(name_by_atlas(atlas.side("L"), far, numbers), numbers)


def test_the_slope_of_the_likelihood_is_that_of_its_values(atlas):
    from foldnorm.preprocessing.naming.alignment import _likelihood

    side, (points, numbers) = atlas.side("L"), sheets()
    points = points + np.random.default_rng(1).uniform(-2, 2, points.shape)
    voxels = transformed(points, side.to_voxel).astype(np.float32)
    weights = np.linspace(0.5, 1.5, 5).astype(np.float32)
    slope, spare = np.empty((2, *points.shape), dtype=np.float32)
    _likelihood(side.log_density, voxels, numbers - 1, weights, -4.0, slope)
    for direction in np.eye(3, dtype=np.float32):
        step = 0.02 * direction
        high, low = (
            _likelihood(side.log_density, voxels + sign * step, numbers - 1, weights, -4.0, spare)[
                0
            ]
            for sign in (1, -1)
        )
        assert slope.sum(axis=0) @ direction == pytest.approx((high - low) / 0.04, rel=0.1, abs=0.3)


def test_folds_are_not_crowded_where_all_sulci_are_likely(atlas):
    points, numbers = sheets()
    for elsewhere in (points * [-1, 1, 1] - [90, 0, 0], points * [1, -1, 1], points * 1.4):
        alignment = align(atlas.side("L"), elsewhere, numbers)
        assert 0.6 < np.linalg.det(alignment.matrix[:3, :3]) ** (1 / 3) < 1.4
        assert alignment.likelihood < align(atlas.side("L"), points, numbers).likelihood - 0.2


def test_a_sulcus_that_lies_elsewhere_than_the_others_is_followed(atlas):
    side, (points, numbers) = atlas.side("L"), sheets()
    elsewhere = points + np.where(numbers == 5, 7, 0)[:, None] * np.array([0, 0, 1])
    voxels = [transformed(own, side.to_voxel) for own in (points, elsewhere)]
    there, given = (
        fold_means(side.log_density, own.astype(np.float32), numbers - 1, 5) for own in voxels
    )
    means, shifts = shifted_means(side, voxels[1], numbers - 1, given)
    assert -7 < shifts[4, 2] < -4  # the prior holds it back
    assert np.abs(shifts[:4]).max() < 2
    gained, lost = means[4, 4] - given[4, 4], there[4, 4] - given[4, 4]
    assert gained > 0.8 * lost > 0.5
    far = voxels[1] + 1000
    none = fold_means(side.log_density, far.astype(np.float32), numbers - 1, 5)
    nothing, still = shifted_means(side, far, numbers - 1, none)
    assert not still.any()
    assert nothing == pytest.approx(none, abs=1e-3)


def test_the_slope_of_a_shifted_mean_is_that_of_its_values(atlas):
    side, (points, numbers) = atlas.side("L"), sheets()
    points = points + np.random.default_rng(1).uniform(-2, 2, points.shape)
    voxels = transformed(points, side.to_voxel).astype(np.float32)
    starts = np.searchsorted(numbers, np.arange(1, 7))
    folds, sulci, shifts = np.arange(5), np.arange(5), np.full((5, 3), 0.25)
    slope, spare = np.empty((2, 5, 3), dtype=np.float32)
    means = _pair_means(side.log_density, voxels, starts, folds, sulci, shifts, slope)
    moved = voxels + np.float32(0.25)
    assert means == pytest.approx(
        np.diag(fold_means(side.log_density, moved, numbers - 1, 5)), abs=1e-4
    )
    for axis, direction in enumerate(np.eye(3)):
        high, low = (
            _pair_means(
                side.log_density, voxels, starts, folds, sulci, shifts + step * direction, spare
            )
            for step in (0.02, -0.02)
        )
        assert slope[:, axis] == pytest.approx((high - low) / 0.04, rel=0.1, abs=0.03)


def test_a_posterior_is_shared_between_names_that_share_a_place(atlas):
    points, numbers = sheets()
    apart = name_by_atlas(atlas.side("L"), points, numbers)
    assert (apart.probabilities() > 0.9).all()
    assert np.allclose(apart.posterior.sum(axis=1), 1)
    doubled = np.concatenate([atlas.counts["L"], atlas.counts["L"][:1]])
    twin = replace(atlas, names=(*SULCI, "twin"), counts={"L": doubled})
    found = name_by_atlas(twin.side("L"), points, numbers)
    assert {found.names()[0], found.names(1)[0]} == {"across", "twin"}
    assert found.probabilities()[0] == pytest.approx(0.5, abs=0.05)
    assert found.probabilities(1)[0] == pytest.approx(0.5, abs=0.05)


def test_a_fold_where_no_sulcus_runs_gets_no_name(atlas):
    points, numbers = sheets()
    stray = np.array([-35.0, 5, -45]) + np.random.default_rng(0).uniform(-3, 3, (60, 3))
    found = name_by_atlas(
        atlas.side("L"), np.concatenate([points, stray]), np.append(numbers, [9] * len(stray))
    )
    assert found.names()[-1] == found.names(1)[-1] == ""
    assert found.probabilities()[-1] == 0
    assert all(found.names()[:-1])


def test_a_side_that_is_not_there_is_the_other_one_mirrored(atlas, tmp_path):
    points, numbers = sheets()
    right = points * [-1, 1, 1]
    assert right_share(name_by_atlas(atlas.side("R"), right, numbers), numbers) == 1
    both = SulcusAtlas.from_masks(maps(maps(tmp_path), "R"))
    assert both.sides == ("L", "R")
    own = name_by_atlas(both.side("R"), right, numbers)
    assert right_share(own, numbers) == 1
    assert own.alignment.moved < 3


def test_an_atlas_is_one_file(atlas, tmp_path):
    atlas.save(tmp_path / "a.npz")
    again = SulcusAtlas.open(tmp_path / "a.npz")
    assert again.names == atlas.names == SULCI
    assert np.array_equal(again.counts["L"], atlas.counts["L"])
    assert np.array_equal(again.affine, atlas.affine)
    assert again.about["vocabulary"] == "brainvisa"
    assert again.about["brains"] is None
    with np.load(tmp_path / "a.npz", allow_pickle=False) as arrays:
        about = json.loads(str(arrays["about"]))
        kept = dict(arrays)
    kept["about"] = np.array(json.dumps({**about, "format": 99}))
    np.savez(tmp_path / "later.npz", **kept)
    kept["about"] = np.array(json.dumps({**about, "names": ["one"]}))
    np.savez(tmp_path / "names.npz", **kept)
    np.savez(tmp_path / "arrays.npz", a=np.zeros(3))
    for name, said in (("later", "another release"), ("names", "not an atlas"),
                       ("arrays", "not an atlas")):  # fmt: skip
        with pytest.raises(InputError, match=rf"{said}.*{name}\.npz"):
            SulcusAtlas.open(tmp_path / f"{name}.npz")


def test_maps_that_name_no_sulcus_are_left_out_and_said(tmp_path):
    names = ("across", "along", "chimps_along", "paracingular.", "slanted")
    folder = maps(tmp_path, names=names)
    empty = nibabel.Nifti1Image(np.zeros(SHAPE, dtype=np.int16), AFFINE)
    nibabel.save(empty, folder / "L/never_left.nii.gz")
    atlas = SulcusAtlas.from_masks(folder)
    assert atlas.names == ("across", "along", "slanted")
    assert atlas.about["left_out"] == ["chimps_along_left", "never_left", "paracingular._left"]


@pytest.mark.parametrize("kind", ["shape", "place", "none"])
def test_maps_of_several_grids_or_none_are_refused(tmp_path, kind):
    if kind != "none":
        folder = maps(tmp_path)
        affine = AFFINE.copy()
        affine[0, 3] += kind == "place"
        odd = np.ones(SHAPE if kind == "place" else (8, 8, 8), dtype=np.int16)
        nibabel.save(nibabel.Nifti1Image(odd, affine), folder / "L/odd_left.nii.gz")
    said = "expected maps of sulci" if kind == "none" else r"expected one grid.*odd_left"
    with pytest.raises(InputError, match=said):
        SulcusAtlas.from_masks(tmp_path)


@pytest.fixture(scope="module")
def hemispheres(tmp_path_factory):
    """Six coarse phantoms, both sides, whole hemispheres in MNI space with named folds."""
    folder = tmp_path_factory.mktemp("hemispheres")
    words = ["phantom", "-o", folder / "source", "--subjects", "6", "--voxel-size", "3",
             "--hemi", "L", "R", "--n-procs", "1"]  # fmt: skip
    assert main([*map(str, words), "--quiet"]) == 0
    words = ["preprocess", folder / "source", "-o", folder / "cohort", "--voxel-size", "6",
             "--space", "mni", "--hull", "remove", "--n-procs", "1"]  # fmt: skip
    assert main([*map(str, words), "--quiet"]) == 0
    return Cohort.open(folder / "cohort")


def test_an_atlas_of_a_cohort_counts_its_brains(hemispheres):
    left_out = hemispheres.rows[0]["participant_id"]
    every = SulcusAtlas.from_cohort(hemispheres)
    some = SulcusAtlas.from_cohort(hemispheres, [left_out])
    assert (every.about["brains"], some.about["brains"]) == (6, 5)
    assert some.about["without"] == [left_out]
    assert every.names == some.names
    for side in every.sides:
        assert every.counts[side].max() <= 6
        assert (every.counts[side] >= some.counts[side]).all()
        assert every.counts[side].sum() > some.counts[side].sum() > 0
    where = np.argwhere(every.counts["L"].any(axis=0))
    assert transformed(where, every.affine)[:, 0].mean() < -20
    with pytest.raises(InputError, match="no participant sub-nobody"):
        SulcusAtlas.from_cohort(hemispheres, ["sub-nobody"])


def test_an_atlas_of_the_training_split_leaves_the_others_out(hemispheres, tmp_path):
    words = ["atlas", hemispheres.folder, "-o", tmp_path / "a.npz", "--split", "train"]
    assert main([*map(str, words), "--quiet"]) == 0
    splits = {row["participant_id"]: row["split"] for row in hemispheres.rows}
    others = sorted(name for name, split in splits.items() if split != "train")
    assert others
    assert SulcusAtlas.open(tmp_path / "a.npz").about["without"] == others


def test_label_sulci_names_hemispheres_by_an_atlas_of_others(hemispheres, tmp_path):
    own = hemispheres.rows[0]["participant_id"]
    words = ["atlas", hemispheres.folder, "-o", tmp_path / "a.npz", "--without", own]
    assert main([*map(str, words), "--quiet"]) == 0
    words = ["label-sulci", tmp_path / "a.npz", hemispheres.folder, "-o", tmp_path / "out"]
    assert main([*map(str, words), "--quiet"]) == 0
    true = {
        (row["participant_id"], row["hemi"], row["label"]): row["name"]
        for row in hemispheres.fold_table
    }
    folds = [row for row in read_tsv(tmp_path / "out/folds.tsv") if row["participant_id"] == own]
    named = [row for row in folds if true[own, row["hemi"], row["fold"]]]
    voxels = np.array([int(row["voxels"]) for row in named])
    is_right = [true[own, row["hemi"], row["fold"]] == row["sulcus"] for row in named]
    assert voxels @ np.array(is_right) / voxels.sum() > 0.8
    sulci = read_tsv(tmp_path / "out/sulci.tsv")
    names = [row["name"] for row in read_tsv(tmp_path / "out/sulcus_names.tsv")]
    assert len(sulci) == len(hemispheres) * len(names)
    assert {row["z_missing"] for row in sulci} == {""}
    sidecar = read_json(tmp_path / "out/sulci.json")
    assert all(own["transform_known"] for own in sidecar["alignments"].values())
    key = hemispheres.keys()[0]
    labels = read_labels(tmp_path / f"out/{key}_desc-sulci_dseg.nii.gz")
    original = read_labels(Path(sidecar["labels_in_grid_of"][key]))
    assert labels.data.shape == original.data.shape
    assert 0 < labels.data.max() <= len(names)
    assert (tmp_path / f"out/{key}_desc-sulci.png").read_bytes().startswith(b"\x89PNG")
    assert main([*map(str, words), "--quiet"]) == 2  # it is there


def test_a_side_that_an_atlas_lacks_is_said_once_and_recorded(hemispheres, tmp_path, capsys):
    both = SulcusAtlas.from_cohort(hemispheres)
    replace(both, counts={"L": both.counts["L"]}).save(tmp_path / "left.npz")
    both.save(tmp_path / "both.npz")
    for name, mirrored in (("left", ["R"]), ("both", [])):
        words = ["label-sulci", tmp_path / f"{name}.npz", hemispheres.folder, "-o", tmp_path / name]
        assert main([*map(str, words), "--quiet"]) in (0, 1)
        assert read_json(tmp_path / name / "sulci.json")["atlas"]["mirrored_for"] == mirrored
        said = capsys.readouterr().err
        assert said.count("the atlas has no right side: its left one is mirrored") == len(mirrored)


def test_the_atlas_may_be_named_by_a_flag(hemispheres, tmp_path, capsys):
    SulcusAtlas.from_cohort(hemispheres).save(tmp_path / "a.npz")
    words = ["recognise", "--atlas", tmp_path / "a.npz", hemispheres.folder, tmp_path / "out"]
    assert main([*map(str, words), "--quiet"]) == 0
    assert "label-sulci" in capsys.readouterr().err
    assert (tmp_path / "out/folds.tsv").is_file()


def test_sulci_are_compared_with_those_of_healthy_people(hemispheres, tmp_path, monkeypatch):
    monkeypatch.setattr(sulcus_norms, "MIN_HEALTHY", 2)
    gone = hemispheres.rows[0]["participant_id"]
    indices = [n for n, row in enumerate(hemispheres.rows) if row["participant_id"] != gone]
    healthy_folder, patient_folder = tmp_path / "healthy", tmp_path / "patient"
    for folder in (healthy_folder, patient_folder):
        shutil.copytree(hemispheres.folder, folder)
    kept = [hemispheres.rows[n] for n in indices]
    write_tsv(healthy_folder / "participants.tsv", kept, list(kept[0]))
    for name in ("volumes.npy", "folds.npy"):
        np.save(healthy_folder / name, np.load(hemispheres.folder / name)[indices])
    # The patient has no central sulcus on the left.
    volumes, folds = (np.load(patient_folder / name) for name in ("volumes.npy", "folds.npy"))
    (left,) = (
        n for n, row in enumerate(hemispheres.rows)
        if (row["participant_id"], row["hemi"]) == (gone, "L")
    )  # fmt: skip
    labels = [
        int(row["label"]) for row in hemispheres.fold_table
        if (row["participant_id"], row["hemi"], row["name"]) == (gone, "L", "central")
    ]  # fmt: skip
    erased = np.isin(folds[left], labels)
    assert erased.sum() > 10
    volumes[left][erased], folds[left][erased] = hemispheres.scheme.void, 0
    np.save(patient_folder / "volumes.npy", volumes)
    np.save(patient_folder / "folds.npy", folds)
    SulcusAtlas.from_cohort(hemispheres).save(tmp_path / "a.npz")
    words = ["label-sulci", tmp_path / "a.npz", patient_folder, "-o", tmp_path / "out",
             "--reference", healthy_folder]  # fmt: skip
    assert main([*map(str, words), "--quiet"]) == 0
    rows = read_tsv(tmp_path / "out/sulci.tsv")
    own = [row for row in rows if (row["participant_id"], row["hemi"]) == (gone, "L")]
    (central,) = (row for row in own if row["sulcus"] == "central")
    healthy = [
        float(row["z_missing"]) for row in rows
        if row["sulcus"] == "central" and row is not central
    ]  # fmt: skip
    assert float(central["z_missing"]) > max(5, *healthy)
    assert float(central["p_missing"]) == pytest.approx(1 / 6, abs=1e-5)
    for row in rows:
        assert bool(row["p_missing"]) == (row["participant_id"] == gone)
        assert row["used_for"] == ("" if row["participant_id"] == gone else "calibration")
    assert read_json(tmp_path / "out/sulci.json")["smallest_p"] == 1 / 6
    assert main(["report", str(tmp_path / "out"), "-o", str(tmp_path / "a.html")]) == 0
    other = json.loads((healthy_folder / "dataset_description.json").read_text())
    other["Cohort"]["preparation"]["thin"] = True
    (healthy_folder / "dataset_description.json").write_text(json.dumps(other))
    assert main([*map(str, words), "--quiet", "--overwrite"]) == 2


def test_names_by_an_atlas_need_no_torch(hemispheres, tmp_path):
    """It has a third of the memory that they take."""
    SulcusAtlas.from_cohort(hemispheres).save(tmp_path / "a.npz")
    words = ["label-sulci", tmp_path / "a.npz", hemispheres.folder, "-o", tmp_path / "out",
             "--quiet"]  # fmt: skip
    assert not libraries_of(script_of(words, (0, 1)), {"torch", "sklearn", "monai", "matplotlib"})


def test_without_fold_labels_the_skeleton_is_cut_into_surfaces(hemispheres):
    atlas = SulcusAtlas.from_cohort(hemispheres)
    labeller = AtlasLabeller(atlas, hemispheres)
    brain = hemispheres[0]
    bare = labeller.name(brain._replace(folds=None))
    known = labeller.name(brain)
    named = known.labels > 0
    assert (bare.labels == known.labels)[named].mean() > 0.3  # surfaces of 6 mm hang together
    assert len(bare.folds.labels) > 1
    assert np.allclose(bare.probabilities.sum(axis=0), 1)


def test_bad_input_of_an_atlas_is_one_line(atlas, hemispheres, small_run, tmp_path, capsys):
    atlas.save(tmp_path / "a.npz")
    (tmp_path / "text.npz").write_text("no atlas")
    out = ["-o", tmp_path / "out"]
    for words, said in (
        (["label-sulci", tmp_path / "text.npz", hemispheres.folder, *out], "text.npz"),
        (["label-sulci", tmp_path / "none.npz", hemispheres.folder, *out], "none.npz"),
        (["label-sulci", tmp_path / "a.npz", tmp_path / "nowhere", *out], "nowhere"),
        (["label-sulci", tmp_path / "a.npz", hemispheres.folder, *out, "--reference", "x"],
         "no such file or folder: x"),
        (["label-sulci", tmp_path / "a.npz", hemispheres.folder, *out, "--reference",
          hemispheres.folder], "at least 8 healthy L brains, got 6"),
        (["atlas", tmp_path / "nowhere", "-o", tmp_path / "b.npz"], "no such folder"),
        (["atlas", tmp_path, "-o", tmp_path / "b.txt"], "ends in .npz"),
        (["atlas", tmp_path, "-o", tmp_path / "b.npz"], "expected maps of sulci"),
        (["atlas", maps(tmp_path / "m"), "-o", tmp_path / "b.npz", "--without", "sub-1"],
         "--without requires a cohort"),
    ):  # fmt: skip
        assert main([*map(str, words), "--quiet"]) == 2
        lines = capsys.readouterr().err.strip().splitlines()
        (line,) = (own for own in lines if "the atlas has no right side" not in own)
        assert said in line


def test_whole_brains_are_refused(hemispheres, atlas):
    description = json.loads(json.dumps(hemispheres.description))
    description["Cohort"]["preparation"]["whole_brain"] = True
    with pytest.raises(InputError, match="expected hemispheres"):
        AtlasLabeller(atlas, replace(hemispheres, description=description))
