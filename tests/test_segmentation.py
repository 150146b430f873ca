"""Segmentations of any origin, and the tree of skeletons that is made of them."""

import nibabel
import numpy as np
import pytest
from conftest import skeleton_volume, write_nifti
from test_skeletonise import brain_with_sulcus

from foldnorm.pipeline.cli import main
from foldnorm.preprocessing.cohort.cohort import Cohort
from foldnorm.preprocessing.core.errors import InputError
from foldnorm.preprocessing.core.files import read_json, read_tsv
from foldnorm.preprocessing.io.volumes import LabelVolume, read_labels
from foldnorm.preprocessing.skeletons.quality import (
    lone_voxels,
    many_folds_warning,
    tissue_warnings,
)
from foldnorm.preprocessing.skeletons.segmentation import (
    BUILT_IN,
    guess_scheme,
    hemispheres,
    load_segmentation_scheme,
)

SEGMENTATION = "t1mri/default_acquisition/default_analysis/segmentation"
NUMBERS = {"L": (3, 2), "R": (42, 41)}


def two_brains(numbers=NUMBERS):
    """Left hemisphere in the first half of the grid, right in the second, FreeSurfer's numbers."""
    grey, white, _ = brain_with_sulcus(open_by=1)
    volume = np.zeros((64, 32, 32), np.int16)
    for hemi, start in (("L", 0), ("R", 32)):
        part = volume[start : start + 32]
        part[grey], part[white] = numbers[hemi]
    return volume


def labels_of(data, affine=None):
    return LabelVolume(data, np.eye(4) if affine is None else affine)


def test_freesurfer_numbers_tell_sides_and_tissue():
    volume = two_brains()
    volume[10, 16, 14] = 10  # thalamus
    volume[33:35, 16, 16] = 1022 + 1000  # cortex of aparc, right
    volume[50, 16, 14] = 251  # corpus callosum, to the nearer side
    left, right = hemispheres(labels_of(volume))
    assert left.white[10, 16, 14]
    assert right.grey[33:35, 16, 16].all()
    assert right.white[50, 16, 14]
    assert not left.white[32:].any()
    assert not right.grey[:32].any()


def test_one_side_can_be_asked_for_and_a_missing_one_is_said():
    volume = two_brains()
    (right,) = hemispheres(labels_of(volume), wanted=["R"])
    assert right.side == "R"
    volume[32:] = 0
    assert [h.side for h in hemispheres(labels_of(volume), wanted=["L"])] == ["L"]
    with pytest.raises(InputError, match="no grey matter of the right hemisphere"):
        hemispheres(labels_of(volume))


def test_what_has_no_side_belongs_to_the_only_side_there_is():
    volume = two_brains()
    volume[32:] = 0
    volume[31, 16, 16] = 251
    (left,) = hemispheres(labels_of(volume), wanted=["L"])
    assert left.white[31, 16, 16]
    with pytest.raises(InputError, match="no label of scheme 'grey-white' is in it"):
        hemispheres(labels_of(volume), BUILT_IN["grey-white"])


def test_morphologists_volumes_need_their_side_or_a_midline(tmp_path):
    volume = two_brains({"L": (100, 200), "R": (100, 200)})
    (left,) = hemispheres(labels_of(volume), side="L")
    assert left.grey[40:].any()
    with pytest.raises(InputError, match="say where the midline is"):
        hemispheres(labels_of(volume))
    path = tmp_path / "s.yaml"
    path.write_text("name: gw\nboth: {grey: [100], white: [200]}\nmidline: 31.5\n")
    left, right = hemispheres(labels_of(volume), load_segmentation_scheme(str(path)))
    assert not left.grey[32:].any()
    assert right.grey[32:].any()


@pytest.mark.parametrize(
    "text",
    ["- 1\n", "name: x\n", "left: {grey: [1]}\n", "left: {grey: 1, white: [2]}\n",
     "both: {grey: [1], white: [2]}\nmidline: here\n", "left: {grey: [a], white: [2]}\n",
     "both: {grey: [1], white: [2]}\nother: 3\n"],
)  # fmt: skip
def test_a_bad_scheme_is_refused(tmp_path, text):
    path = tmp_path / "s.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=r"expected left and right.*s\.yaml"):
        load_segmentation_scheme(str(path))


def test_a_scheme_that_is_no_yaml_is_refused(tmp_path):
    path = tmp_path / "s.yaml"
    path.write_text("a: {b: c\n")
    with pytest.raises(InputError, match=r"not readable as YAML .*s\.yaml"):
        load_segmentation_scheme(str(path))


def test_schemes_by_name_and_by_the_labels():
    assert load_segmentation_scheme("auto") is None
    assert load_segmentation_scheme("freesurfer") is BUILT_IN["freesurfer"]
    with pytest.raises(InputError, match="neither a file nor one of auto, freesurfer"):
        load_segmentation_scheme("aseg")
    assert guess_scheme(labels_of(two_brains())).name == "freesurfer"
    with pytest.raises(InputError, match=r"no known scheme \(1, 7\)"):
        guess_scheme(labels_of(np.array([[[0, 1, 7]]])))


@pytest.mark.parametrize("deep", [0, 10])
def test_freesurfers_labels_without_white_matter_are_refused(deep):
    volume = two_brains({"L": (1010, deep), "R": (2010, 41)})
    expected = "no white matter of the left hemisphere: expected label 2 .*got (10, 41|41), 1010"
    with pytest.raises(InputError, match=expected):
        hemispheres(labels_of(volume))
    (right,) = hemispheres(labels_of(volume), wanted=["R"])
    assert right.white.any()
    with pytest.raises(InputError, match="no white matter of the left"):
        hemispheres(labels_of(two_brains({"L": (1010, deep), "R": (2010, deep)})))


def test_white_matter_by_the_numbers_of_wmparc_is_white_matter():
    left, right = hemispheres(labels_of(two_brains({"L": (1010, 3010), "R": (2010, 5002)})))
    assert left.white.any()
    assert right.white.any()


@pytest.mark.parametrize(
    ("size", "expected"),
    [(1.0, "only"), (2.0, "slices of 2 mm"), (2.5, "slices of 2.5 mm"), (5.0, None)],
)
def test_thick_slices_and_small_brains_are_said(size, expected):
    volume = labels_of(two_brains(), np.diag([1, 1, size, 1]))
    if expected is None:
        with pytest.raises(InputError, match="too thick"):
            hemispheres(volume)
        return
    assert any(expected in warning for h in hemispheres(volume) for warning in h.warnings)


def test_a_brain_that_its_field_of_view_cuts_is_said():
    volume = two_brains()[:, :, :25]
    left, _ = hemispheres(labels_of(volume))
    assert any("cut by the superior" in warning for warning in left.warnings)


def ellipsoids():
    """Two round hemispheres that touch, white within grey, each flat towards the other."""
    i, j, k = np.indices((110, 120, 90))
    volume = np.zeros(i.shape, np.int16)
    for hemi, half in (("L", i < 55), ("R", i >= 55)):
        radius = np.hypot(np.hypot((i - 54.5) / 50, (j - 60) / 56), (k - 45) / 41)
        for tissue, within in zip(NUMBERS[hemi], (1, 0.9), strict=True):
            volume[half & (radius < within)] = tissue
    return volume


@pytest.mark.parametrize(
    ("cut", "flat"),
    [
        ((slice(0), slice(0), slice(0)), {"L": [], "R": []}),
        ((slice(None), slice(None), slice(80, None)), {"L": ["superior"], "R": ["superior"]}),
        ((slice(None), slice(None), slice(10)), {"L": ["inferior"], "R": ["inferior"]}),
        ((slice(None), slice(109, None), slice(None)), {"L": ["anterior"], "R": ["anterior"]}),
        ((slice(10), slice(None), slice(None)), {"L": ["left"], "R": []}),
        ((slice(100, None), slice(None), slice(None)), {"L": [], "R": ["right"]}),
    ],
)
def test_a_brain_that_lost_a_slice_is_said_to_be_flat_there(cut, flat):
    volume = ellipsoids()
    volume[cut] = 0
    for hemisphere in hemispheres(labels_of(volume)):
        said = [w for w in hemisphere.warnings if "is flat" in w]
        assert [w.split()[1] for w in said] == flat[hemisphere.side]


def test_a_volume_without_labels_is_said_to_be_empty():
    with pytest.raises(InputError, match="holds no labels, all voxels are 0"):
        hemispheres(labels_of(np.zeros((8, 8, 8), np.int16)))


def test_freesurfer_files_are_read_whatever_their_axes(tmp_path):
    volume = two_brains()
    affine = np.array([[-1, 0, 0, 63], [0, 0, 1, 0], [0, -1, 0, 31], [0, 0, 0, 1]], float)  # LIA
    turned = volume[::-1].transpose(0, 2, 1)[:, ::-1]
    nibabel.save(nibabel.MGHImage(turned.astype(np.int32), affine), tmp_path / "aseg.mgz")
    assert (read_labels(tmp_path / "aseg.mgz").data == volume).all()
    for content, reason in ((b"nothing", "not a FreeSurfer volume"), (b"", "empty file")):
        (tmp_path / "bad.mgz").write_bytes(content)
        with pytest.raises(InputError, match=reason):
            read_labels(tmp_path / "bad.mgz")
    whole = nibabel.MGHImage(turned.astype(np.int32), affine).to_bytes()
    for content in (whole[:100], whole[:-5000], b"\0" * 400):
        (tmp_path / "bad.mgh").write_bytes(content)
        with pytest.raises(InputError, match=r"not a FreeSurfer volume|truncated|3-D|empty"):
            read_labels(tmp_path / "bad.mgh")


def skeletonise(source, out, *more):
    return main(["skeletonise", str(source), "-o", str(out), "--quiet", "--n-procs", "1", *more])


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Two subjects of a folder of maps, as a tree of skeletons."""
    folder = tmp_path_factory.mktemp("made")
    for name in ("sub-a", "sub-b"):
        write_nifti(folder / "maps" / f"{name}_dseg.nii.gz", two_brains())
    assert skeletonise(folder / "maps", folder / "tree") == 0
    return folder


def test_the_tree_is_one_that_preprocess_and_folds_read(made, tmp_path):
    out = tmp_path / "cohort"
    words = ["--quiet", "--n-procs", "1", "--mirror-right", "--pair", "grey-white"]
    assert main(["preprocess", str(made / "tree"), "-o", str(out), *words]) == 0
    cohort = Cohort.open(out)
    assert len(cohort.rows) == 4
    assert cohort.folds is not None
    assert not ((np.array(cohort.volumes) == 2) & (np.array(cohort.pairs) == 2)).any()
    assert main(["folds", str(made / "tree"), "-o", str(tmp_path / "folds"), "--quiet"]) == 0
    rows = read_tsv(tmp_path / "folds/folds.tsv")
    assert {(row["participant_id"], row["hemi"]) for row in rows} == {
        (s, h) for s in "ab" for h in "LR"
    }
    assert all(float(row["depth_mm"]) > 2 for row in rows if row["fold"] == "1")


def test_both_sides_lie_on_one_grid(made, tmp_path):
    words = ["--quiet", "--n-procs", "1", "--whole-brain"]
    assert main(["preprocess", str(made / "tree"), "-o", str(tmp_path / "c"), *words]) == 0
    assert len(Cohort.open(tmp_path / "c").rows) == 2


def test_a_sheet_that_passes_through_an_island_of_white_matter_makes_it_grey(tmp_path):
    volume = two_brains()
    skeleton_at = (15, 16, 22)  # in the sulcus, as the tree of the plain volume says
    volume[skeleton_at[0] - 1 : skeleton_at[0] + 3, 16, 22] = 2
    write_nifti(tmp_path / "maps/sub-a.nii.gz", volume)
    assert skeletonise(tmp_path / "maps", tmp_path / "tree", "--hemi", "L") == 0
    folder = tmp_path / "tree/a" / SEGMENTATION
    skeleton = read_labels(folder / "Lskeleton_a.nii.gz").data
    tissue = read_labels(folder / "Lgrey_white_a.nii.gz").data
    given = read_labels(tmp_path / "maps/sub-a.nii.gz").data[: tissue.shape[0]]
    crossed = (skeleton != 0) & (skeleton != 11)
    assert not (crossed & (tissue == 200)).any()
    assert np.count_nonzero(tissue == 200) < np.count_nonzero(given == 2)


def test_sidecars_say_what_it_was_made_of_and_what_it_holds(made):
    folder = made / "tree/a" / SEGMENTATION
    sidecar = read_json(folder / "Lskeleton_a.json")
    assert sidecar["Origin"] == "foldnorm skeletonise"
    assert sidecar["Topology"]["EulerNumber"] == 2
    assert sidecar["Sources"] == [str(made / "maps/sub-a_dseg.nii.gz")]
    labels = read_labels(folder / "Lfolds_a.nii.gz").data
    folds = read_json(folder / "Lfolds_a.json")["Folds"]
    assert [f["voxels"] for f in folds] == np.bincount(labels.ravel())[1:].tolist()
    depth = nibabel.load(folder / "Ldepth_a.nii.gz")
    assert depth.get_data_dtype() == np.float32
    assert np.isclose(np.asarray(depth.dataobj).max(), max(f["depth_mm"] for f in folds),
                      atol=0.01)  # fmt: skip


def test_what_is_finished_is_skipped_and_a_bad_map_stops_no_other(made, tmp_path, capsys):
    out, maps = tmp_path / "tree", tmp_path / "maps"
    write_nifti(maps / "sub-a.nii.gz", two_brains())
    write_nifti(maps / "sub-b.nii.gz", np.full((9, 9, 9), 7, np.int16))
    assert skeletonise(maps, out) == 1
    lines = [s for s in capsys.readouterr().err.splitlines() if "warning" not in s]
    assert lines == [f"foldnorm: sub-b: labels are of no known scheme (7); give --labels "
                     f"FILE.yaml: {maps / 'sub-b.nii.gz'}"]  # fmt: skip
    before = {p: p.stat().st_mtime_ns for p in (out / "a").rglob("*.nii.gz")}
    assert skeletonise(maps, out) == 1
    assert read_json(out / "run_report.json")["skipped"] == 1
    assert before == {p: p.stat().st_mtime_ns for p in (out / "a").rglob("*.nii.gz")}


@pytest.mark.parametrize(
    ("number", "expected"), [(4, None), (3, "cm³ of grey matter lie"), (0, "cm³ of sulci lie")]
)
def test_ventricles_within_the_cortex_mask_are_said(tmp_path, number, expected):
    grey, white, _ = brain_with_sulcus(depth=5, open_by=1)
    volume = np.where(grey, 3, np.where(white, 2, 0)).astype(np.int16)
    i, j, k = np.indices(volume.shape)
    volume[(i - 16) ** 2 + (j - 16) ** 2 + (k - 15) ** 2 <= 6.5**2] = number  # a ventricle
    if number == 0:
        volume[15:18, 16, :10] = 0  # open to the outside, or it would be closed as an error
    write_nifti(tmp_path / "maps/sub-a.nii.gz", volume, np.diag([2.0, 2, 2, 1]))
    assert skeletonise(tmp_path / "maps", tmp_path / "tree", "--hemi", "L") == 0
    sidecar = read_json(tmp_path / "tree/a" / SEGMENTATION / "Lskeleton_a.json")
    said = [warning for warning in sidecar["Warnings"] if "ventricles?" in warning]
    assert [expected in warning for warning in said] == ([] if expected is None else [True])


def test_specks_of_white_matter_are_said():
    white = np.zeros((24, 24, 24), bool)
    white[4:20, 4:20, 4:20] = True
    rng = np.random.default_rng(0)
    speckled = white & ~(rng.random(white.shape) < 0.01)
    assert tissue_warnings(~white & False, white, (1.0, 1.0, 1.0)) == []
    (said,) = tissue_warnings(~white & False, speckled, (1.0, 1.0, 1.0))
    assert said.startswith("speckled: ")


def test_lone_voxels_by_hand():
    mask = np.zeros((5, 5, 5), bool)
    mask[0, 0, 0] = True  # alone in a corner
    mask[2, 2, 2] = mask[2, 2, 3] = True  # two are not alone
    assert lone_voxels(mask) == 1
    solid = np.ones((5, 5, 5), bool)
    solid[2, 2, 2] = False  # a hole of one voxel
    assert lone_voxels(solid) == 1


@pytest.mark.parametrize(
    ("folds", "side", "said"), [(570, 1, False), (6464, 1, True), (1600, 0.7, False)]
)
def test_far_more_folds_than_a_brain_has_are_said(folds, side, said):
    assert bool(many_folds_warning(folds, (side, side, side))) == said


def test_a_freesurfer_folder_gives_its_best_volume(tmp_path):
    for subject in ("s1", "s2"):
        (tmp_path / "fs" / subject / "mri").mkdir(parents=True)
    image = nibabel.MGHImage(two_brains().astype(np.int32), np.eye(4))
    nibabel.save(image, tmp_path / "fs/s1/mri/aparc+aseg.mgz")
    nibabel.save(image, tmp_path / "fs/s1/mri/aseg.mgz")
    nibabel.save(image, tmp_path / "fs/s2/mri/ribbon.mgz")
    (tmp_path / "fs/fsaverage").mkdir()
    xfm = tmp_path / "fs/s1/mri/transforms/talairach.xfm"
    xfm.parent.mkdir()
    xfm.write_text("MNI Transform File\nLinear_Transform =\n1 0 0 -32\n0 1 0 -16\n0 0 1 0;\n")
    assert skeletonise(tmp_path / "fs", tmp_path / "out", "--hemi", "L") == 0
    sources = {
        s: read_json(tmp_path / "out" / s / SEGMENTATION / f"Lskeleton_{s}.json")["Sources"][0]
        for s in ("s1", "s2")
    }
    assert [path.rpartition("/")[2] for path in sources.values()] == [
        "aparc+aseg.mgz", "ribbon.mgz",
    ]  # fmt: skip
    assert not list((tmp_path / "out").rglob("R?keleton*"))
    words = ["--space", "mni", "--quiet", "--n-procs", "1", "--participant-label", "s1"]
    assert main(["preprocess", str(tmp_path / "out"), "-o", str(tmp_path / "c"), *words]) == 0
    cohort = Cohort.open(tmp_path / "c")
    brain = np.argwhere(np.array(cohort.volumes[0]) > 0)
    centre = brain.mean(axis=0) + cohort.affine[:3, 3]
    assert centre == pytest.approx([16 - 32, 16 - 16, 16], abs=1)
    assert skeletonise(tmp_path / "fs/s2", tmp_path / "one") == 0


def test_skeletons_of_different_makers_are_mixed_only_when_asked(made, tmp_path, capsys):
    place = tmp_path / "db/m" / SEGMENTATION
    write_nifti(place / "Lskeleton_m.nii.gz", skeleton_volume())
    words = ["--quiet", "--n-procs", "1", "--hemi", "L"]
    ours, both, out = str(made / "tree"), str(tmp_path / "db"), str(tmp_path / "c")
    assert main(["preprocess", ours, both, "-o", out, *words]) == 2
    reason = "different origin (1 Morphologist, 2 foldnorm skeletonise)"
    assert reason in capsys.readouterr().err
    assert not (tmp_path / "c").exists()
    # Nor one after the other.
    assert main(["preprocess", ours, "-o", out, *words]) == 0
    assert main(["preprocess", both, "-o", out, *words]) == 2
    assert reason in capsys.readouterr().err
    assert main(["preprocess", both, "-o", out, *words, "--mix-origins"]) == 0
    cohort = Cohort.open(tmp_path / "c")
    assert cohort.description["Cohort"]["origins"] == {
        "Morphologist": 1, "foldnorm skeletonise": 2,
    }  # fmt: skip
    report = tmp_path / "r.html"
    assert main(["report", out, "-o", str(report), "--quiet"]) == 0
    assert "mixes volumes of different makers" in report.read_text()


def test_preprocess_makes_skeletons_first_when_asked(made, tmp_path, capsys):
    maps = tmp_path / "maps"
    write_nifti(maps / "sub-a.nii.gz", two_brains())
    write_nifti(maps / "sub-b.nii.gz", np.full((9, 9, 9), 7, np.int16))
    words = ["--quiet", "--n-procs", "1", "--from", "segmentation", "--hemi", "L"]
    assert main(["preprocess", str(maps), "-o", str(tmp_path / "c"), *words]) == 1
    assert "no known scheme" in capsys.readouterr().err
    assert Cohort.open(tmp_path / "c").keys() == ["sub-a_hemi-L"]
    assert {path.name for path in tmp_path.iterdir()} == {"maps", "c"}
