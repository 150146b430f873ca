"""Names of folds by the gyri around them: sheets between slabs of cortex, then whole trees."""

import csv
from collections import Counter

import numpy as np
import pytest
from conftest import write_nifti
from nibabel.affines import apply_affine
from scipy.spatial import cKDTree
from test_segmentation import SEGMENTATION, skeletonise, two_brains

from foldnorm.pipeline.cli import main
from foldnorm.pipeline.data.sulcus_labels import common_sulci
from foldnorm.preprocessing.cohort.cohort import Cohort
from foldnorm.preprocessing.core.files import read_json, read_tsv, write_json
from foldnorm.preprocessing.io.source_volume import RIGHT_LABELS
from foldnorm.preprocessing.io.volumes import read_labels, sidecar_path
from foldnorm.preprocessing.naming.gyri import (
    MAX_BARE,
    VOCABULARIES,
    correspondence,
    find_gyri,
    name_folds,
)

SIDE = 24
ONE = (1.0, 1.0, 1.0)
PRECENTRAL, POSTCENTRAL = 24, 22


def slabs(low, high, white=2):
    """Cortex of two labels in planes 8 to 11 and 12 to 15, white matter beyond.

    The fold lies in plane 12, so one bank touches it, and it lies on the other.
    """
    labels = np.full((SIDE, SIDE, SIDE), white)
    labels[8:12], labels[12:16] = low, high
    folds = np.zeros(labels.shape, np.uint16)
    folds[12, 4:20, 4:20] = 7
    return labels, folds


def named(labels, folds, side="L", size=ONE):
    """Name the folds; without white matter there is nothing that the gyri should lie upon."""
    gyri, _ = find_gyri(labels, {side: np.zeros(labels.shape, bool)})[side]
    return name_folds(gyri, folds, size)


@pytest.mark.parametrize(
    ("side", "bases"), [("L", (1000, 1000)), ("R", (2000, 2000)), ("L", (3000, 1000))]
)
def test_a_sheet_between_two_gyri_is_the_sulcus_between_them(side, bases):
    labels, folds = slabs(bases[0] + PRECENTRAL, bases[1] + POSTCENTRAL, {"L": 2, "R": 41}[side])
    (found,) = named(labels, folds, side).values()
    assert (found.sulcus, found.share) == ("central", 1.0)
    assert found.between == ("postcentral", "precentral")


@pytest.mark.parametrize("axes", [(0, 1, 2), (2, 0, 1), (1, 2, 0)])
def test_sheets_may_face_anywhere_and_voxels_be_flat(axes):
    labels, folds = (a.transpose(axes) for a in slabs(1000 + PRECENTRAL, 1000 + POSTCENTRAL))
    size = np.array([1.0, 0.7, 2.5])[list(axes)]
    (found,) = named(labels, folds, size=tuple(size)).values()
    assert found.sulcus == "central"


@pytest.mark.parametrize(
    ("low", "high", "between"),
    [
        (1028, 1028, ("superiorfrontal",)),  # inside of one gyrus
        (1018, 1020, ("parsopercularis", "parstriangularis")),  # a pair that names nothing
        (1024, 0, ()),  # one bank
        (1024, 1000, ()),  # unknown
        (1024, 2022, ()),  # of the other hemisphere
        (1024, 251, ()),  # corpus callosum
        (1024, 77, ()),  # a lesion
    ],
)
def test_no_name_is_invented(low, high, between):
    (found,) = named(*slabs(low, high)).values()
    assert (found.sulcus, found.between) == ("", between)
    assert found.share == (1.0 if between else 0.0)


def test_banks_beyond_the_thickness_of_cortex_are_none():
    labels, folds = slabs(1000 + PRECENTRAL, 1000 + POSTCENTRAL)
    assert named(labels, folds, size=(4.0, 1.0, 1.0))[7].sulcus == "central"
    assert named(labels, folds, size=(5.0, 5.0, 5.0))[7].sulcus == ""


def test_voxels_of_a_fold_vote():
    labels, folds = slabs(1000 + PRECENTRAL, 1000 + POSTCENTRAL)
    labels[8:12, :8] = 1027  # rostral middle frontal gyrus: that pair has no name
    found = named(labels, folds)[7]
    assert found.sulcus == "central"
    assert found.share == pytest.approx(12 / 16)
    labels[8:12, :14] = 1022  # inside of the postcentral gyrus, for the greater part
    found = named(labels, folds)[7]
    assert (found.sulcus, found.between) == ("", ("postcentral",))
    assert found.share == pytest.approx(10 / 16)


def test_few_voxels_do_not_name_a_whole_fold():
    labels, folds = slabs(1000 + PRECENTRAL, 1000 + POSTCENTRAL)
    labels[8:12, 7:] = 0  # three of sixteen rows see two banks
    found = named(labels, folds)[7]
    assert (found.sulcus, found.share) == ("", 1.0)


def test_each_fold_has_its_own_name():
    labels, folds = slabs(1000 + PRECENTRAL, 1000 + POSTCENTRAL)
    labels[8:12, 12:], labels[12:16, 12:] = 1030, 1015
    folds[12, 12:20, 4:20] = 9
    found = named(labels, folds)
    assert {label: one.sulcus for label, one in found.items()} == {
        7: "central", 9: "temporo_parietal",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("low", "high", "sulcus"),
    [
        (46, 46, "S_central"),
        (46, 29, "S_central"),  # and a gyrus
        (46, 69, ""),  # central and precentral sulcus
        (29, 28, ""),  # two gyri name none here
        (29, 29, ""),
        (41, 36, "Lat_Fis-post"),
    ],
)
def test_destrieux_labels_sulci_themselves(low, high, sulcus):
    assert named(*slabs(11100 + low, 11100 + high))[7].sulcus == sulcus
    assert named(*slabs(12100 + low, 12100 + high, 41), side="R")[7].sulcus == sulcus


def test_banks_of_the_superior_temporal_sulcus_name_it():
    assert named(*slabs(1001, 1001))[7].sulcus == "temporo_parietal"
    assert named(*slabs(1001, 1015))[7].sulcus == "temporo_parietal"


def brain(vocabulary="dkt", *, numbers=None):
    """A ball of white matter in a shell of cortex that has all gyri, and the white matter."""
    known = correspondence(vocabulary)
    base = {"dkt": 1000, "destrieux": 11100}[vocabulary]
    numbers = list(known.labels) if numbers is None else numbers
    place = np.indices((32, 32, 32)) - 15.5
    radius = np.sqrt((place**2).sum(axis=0))
    labels = np.zeros(radius.shape, np.int32)
    shell = (radius > 8) & (radius <= 12)
    labels[shell] = base + np.resize(numbers, np.count_nonzero(shell))
    labels[radius <= 8] = 2
    return labels, labels == 2


@pytest.mark.parametrize("vocabulary", VOCABULARIES)
def test_gyri_that_are_all_there_get_no_warning(vocabulary):
    labels, white = brain(vocabulary)
    gyri, warnings = find_gyri(labels, {"L": white})["L"]
    assert (gyri.correspondence.vocabulary, warnings) == (vocabulary, [])


def test_labels_without_gyri_have_none():
    labels, white = brain()
    labels[labels > 2] = 3
    labels[0, 0, :6] = (1000, 2000, 77, 251, 255, 10**6)
    assert find_gyri(labels, {"L": white, "R": white}) == {}


def test_gyri_of_one_hemisphere_are_said_of_the_other():
    labels, white = brain()
    found = find_gyri(labels, {"L": white, "R": white})
    assert found["L"][0] is not None
    assert found["R"] == (None, ["gyri of the other hemisphere only: its folds get no names"])


def test_two_parcellations_in_one_volume_name_nothing():
    labels, white = brain()
    labels[0, 0, 0] = 12146
    gyri, (said,) = find_gyri(labels, {"L": white})["L"]
    assert gyri is None
    assert "two parcellations (destrieux and dkt)" in said


@pytest.mark.parametrize(("shift", "is_refused"), [(0, False), (1, True), (3, True)])
def test_gyri_that_are_shifted_are_said(shift, is_refused):
    labels, white = brain()
    moved = np.roll(np.where(white, 0, labels), shift, axis=1)
    gyri, warnings = find_gyri(np.where(white, 2, moved), {"L": white})["L"]
    assert (gyri is None) == is_refused
    assert any(f"expected at most {MAX_BARE:.0%}" in line for line in warnings) == is_refused


@pytest.mark.parametrize(("structure", "is_refused"), [(41, False), (16, False), (3, True)])
def test_white_matter_ends_at_other_structures_too(structure, is_refused):
    labels, white = brain()
    half = labels[:16]
    half[half > 2] = structure  # the other hemisphere, brain stem; 3 is cortex without gyri
    gyri, _ = find_gyri(labels, {"L": white})["L"]
    assert (gyri is None) == is_refused


def test_a_brain_without_temporal_lobe_is_said_and_the_rest_named():
    lost = (6, 7, 9, 15, 16, 30, 34)
    labels, white = brain(numbers=[n for n in correspondence("dkt").labels if n not in lost])
    gyri, (said,) = find_gyri(labels, {"L": white})["L"]
    assert gyri is not None
    assert "entorhinal, fusiform" in said
    assert "and 2 more" in said


def test_the_table_is_that_of_the_protocol(real_data):
    with (real_data / "dkt_sulci.tsv").open() as stream:
        rows = list(csv.DictReader(stream, delimiter="\t"))
    known = correspondence("dkt")
    expected = np.zeros((256, 256), bool)
    for row in rows:
        (pairs,) = (value for key, value in row.items() if key.startswith("DKT_pairs"))
        for pair in pairs.split():
            one, other = map(int, pair.split("|"))
            assert known.sulci[known.table[one, other] - 1] == row["group"]
            expected[one, other] = expected[other, one] = True
    expected[1, list(known.labels)] = expected[list(known.labels), 1] = True  # bankssts
    assert ((known.table > 0) == expected).all()


def with_gyri(bases, low, high):
    """Both hemispheres, with one gyrus on each bank of their sulci."""
    volume = two_brains().astype(np.int32)
    for grey, base, start in ((3, bases[0], 0), (42, bases[1], 32)):
        part = volume[start : start + 32]
        is_low = np.indices(part.shape)[0] < 16
        part[(part == grey) & is_low] = base + low
        part[(part == grey) & ~is_low] = base + high
    return volume


def cohort_of(folder, name, volume):
    write_nifti(folder / f"maps_{name}/sub-{name}.nii.gz", volume)
    assert skeletonise(folder / f"maps_{name}", folder / f"tree_{name}") == 0
    return folder / f"tree_{name}"


def preprocess(*sources, out, more=()):
    words = ["--quiet", "--n-procs", "1", *more]
    return main(["preprocess", *map(str, sources), "-o", str(out), *words])


@pytest.fixture(scope="module")
def trees(tmp_path_factory):
    """Skeletons of subjects a (DKT), b (Destrieux) and c (no gyri)."""
    folder = tmp_path_factory.mktemp("trees")
    return {
        "dkt": cohort_of(folder, "a", with_gyri((1000, 2000), PRECENTRAL, POSTCENTRAL)),
        "destrieux": cohort_of(folder, "b", with_gyri((11100, 12100), 46, 46)),
        "none": cohort_of(folder, "c", two_brains()),
    }


def test_skeletonise_names_folds_by_itself(trees):
    for side, word in (("L", "left"), ("R", "right")):
        sidecar = read_json(trees["dkt"] / "a" / SEGMENTATION / f"{side}folds_a.json")
        assert sidecar["Vocabulary"] == "dkt"
        largest = sidecar["Folds"][0]
        assert largest["name"] == f"central_{word}"
        assert largest["confidence"] > 0.9
        assert largest["between"] == ["postcentral", "precentral"]


@pytest.mark.parametrize("more", [(), ("--whole-brain",)])
def test_folds_inside_a_gyrus_are_said_in_the_cohort(tmp_path, more):
    tree = cohort_of(tmp_path, "e", with_gyri((1000, 2000), PRECENTRAL, PRECENTRAL))
    sidecar = read_json(tree / "e" / SEGMENTATION / "Lfolds_e.json")
    inside = [fold["fold"] for fold in sidecar["Folds"] if fold["between"] == ["precentral"]]
    assert 1 in inside
    assert preprocess(tree, out=tmp_path / "c", more=more) == 0
    cohort = Cohort.open(tmp_path / "c")
    own = {int(r["label"]): r for r in cohort.fold_table if r["hemi"] in ("", "L")}
    assert [n for n in own if n < RIGHT_LABELS and own[n]["inside"] == "precentral"] == inside
    assert cohort.fold_gyri[cohort.keys()[0]][1] == "precentral"
    assert (1 + RIGHT_LABELS in cohort.fold_gyri[cohort.keys()[0]]) is bool(more)
    assert not any(row["name"] for row in cohort.fold_table if row["inside"])


@pytest.mark.parametrize("has_gyri", [True, False])
def test_a_tree_of_before_folds_had_names_is_said(tmp_path, capsys, has_gyri):
    volume = with_gyri((1000, 2000), PRECENTRAL, POSTCENTRAL) if has_gyri else two_brains()
    tree = cohort_of(tmp_path, "f", volume)
    said = "1 brain was made when folds got no names, though gyri are there: --overwrite names them"
    maps = tmp_path / "maps_f"
    assert skeletonise(maps, tree) == 0
    assert said not in capsys.readouterr().err
    for side in "LR":  # as an earlier release wrote it
        path = tree / "f" / SEGMENTATION / f"{side}skeleton_f.json"
        sidecar = read_json(path)
        assert sidecar.pop("Gyri") == ("dkt" if has_gyri else None)
        write_json(path, sidecar)
    assert skeletonise(maps, tree) == 0  # it has names, if there are gyri
    assert said not in capsys.readouterr().err
    for side in "LR":
        path = tree / "f" / SEGMENTATION / f"{side}folds_f.json"
        folds = read_json(path)["Folds"]
        unknown = ("name", "confidence", "between")
        kept = [{k: v for k, v in fold.items() if k not in unknown} for fold in folds]
        write_json(path, {"Folds": kept})
    assert skeletonise(maps, tree) == 0
    assert (said in capsys.readouterr().err) is has_gyri
    assert read_json(tree / "run_report.json")["skipped"] == 1
    assert skeletonise(maps, tree, "--overwrite") == 0
    assert skeletonise(maps, tree) == 0
    assert said not in capsys.readouterr().err


def test_without_gyri_sidecars_are_what_they_were(trees):
    sidecar = read_json(trees["none"] / "c" / SEGMENTATION / "Lfolds_c.json")
    assert set(sidecar) == {"Folds"}
    assert set(sidecar["Folds"][0]) == {
        "fold", "voxels", "surface_mm2", "depth_mm", "bottom_mm", "min", "max", "centre",
    }  # fmt: skip


def test_foreign_labels_have_no_gyri(tmp_path):
    volume = with_gyri((1000, 2000), PRECENTRAL, POSTCENTRAL)
    write_nifti(tmp_path / "maps/sub-a.nii.gz", volume)
    (tmp_path / "own.yaml").write_text(
        "left: {grey: [1022, 1024], white: [2]}\nright: {grey: [2022, 2024], white: [41]}\n"
    )
    words = ["--labels", str(tmp_path / "own.yaml"), "--hemi", "L"]
    assert skeletonise(tmp_path / "maps", tmp_path / "tree", *words) == 0
    assert set(read_json(tmp_path / "tree/a" / SEGMENTATION / "Lfolds_a.json")) == {"Folds"}


def test_names_reach_the_table_of_folds(trees, tmp_path):
    words = ["--quiet", "--n-procs", "1"]
    assert main(["folds", str(trees["dkt"]), "-o", str(tmp_path / "a"), *words]) == 0
    rows = read_tsv(tmp_path / "a/folds.tsv")
    assert {row["name"] for row in rows if row["fold"] == "1"} == {"central_left", "central_right"}
    assert rows[0]["between"] == "postcentral, precentral"
    assert read_json(tmp_path / "a/folds.json")["Vocabularies"] == {
        "sub-a_hemi-L": "dkt", "sub-a_hemi-R": "dkt",
    }  # fmt: skip
    assert main(["folds", str(trees["none"]), "-o", str(tmp_path / "c"), *words]) == 0
    assert "between" not in read_tsv(tmp_path / "c/folds.tsv")[0]
    assert "Vocabularies" not in read_json(tmp_path / "c/folds.json")


def test_names_reach_the_cohort_its_regions_and_its_report(trees, tmp_path):
    out, more = tmp_path / "c", ("--mirror-right", "--split-fractions", "1", "0", "0")
    assert preprocess(trees["dkt"], out=out, more=more) == 0
    cohort = Cohort.open(out)
    names = {row["hemi"]: row["name"] for row in cohort.fold_table if row["label"] == "1"}
    assert names == {"L": "central_left", "R": "central_right"}
    assert cohort.description["Cohort"]["fold_vocabularies"] == {"dkt": 2}
    assert common_sulci(cohort) == ["central"]
    report = tmp_path / "r.html"
    assert main(["report", str(out), "-o", str(report), "--quiet"]) == 0
    assert "dkt (2)" in report.read_text()
    region = tmp_path / "region"
    assert preprocess(trees["dkt"], out=region, more=(*more, "--crop", "region:central@2")) == 0
    assert np.prod(Cohort.open(region).shape) < np.prod(cohort.shape)


def test_a_whole_brain_has_the_names_of_both_sides(trees, tmp_path):
    assert preprocess(trees["dkt"], out=tmp_path / "c", more=["--whole-brain"]) == 0
    names = {row["name"] for row in Cohort.open(tmp_path / "c").fold_table}
    assert {"central_left", "central_right"} <= names


def test_new_names_are_taken_over(trees, tmp_path):
    volume = with_gyri((1000, 2000), PRECENTRAL, POSTCENTRAL)
    tree = cohort_of(tmp_path, "d", volume)
    assert preprocess(tree, out=tmp_path / "c", more=["--hemi", "L"]) == 0
    path = tree / "d" / SEGMENTATION / "Lfolds_d.json"
    sidecar = read_json(path)
    sidecar["Folds"][0]["name"] = "precentral_left"
    write_json(path, sidecar)
    assert preprocess(tree, out=tmp_path / "c", more=["--hemi", "L"]) == 0
    assert Cohort.open(tmp_path / "c").fold_table[0]["name"] == "precentral_left"


def test_two_vocabularies_are_mixed_only_when_asked(trees, tmp_path, capsys):
    sources, out = (trees["dkt"], trees["destrieux"]), tmp_path / "c"
    said = "names of different vocabularies (2 destrieux, 2 dkt)"
    assert preprocess(*sources, out=out) == 2
    assert said in capsys.readouterr().err
    assert not out.exists()
    # Nor one after the other.
    assert preprocess(sources[0], out=out) == 0
    assert preprocess(sources[1], out=out) == 2
    assert said in capsys.readouterr().err
    assert preprocess(sources[1], out=out, more=["--mix-origins"]) == 0
    assert said in capsys.readouterr().err
    assert Cohort.open(out).description["Cohort"]["fold_vocabularies"] == {
        "destrieux": 2, "dkt": 2,
    }  # fmt: skip


def test_brains_without_names_join_those_that_have_some(trees, tmp_path):
    assert preprocess(trees["dkt"], trees["none"], out=tmp_path / "c") == 0
    assert preprocess(trees["none"], out=tmp_path / "n") == 0
    assert "fold_vocabularies" not in Cohort.open(tmp_path / "n").description["Cohort"]
    sidecar = read_json(tmp_path / "n/sub-c/anat/sub-c_hemi-L_dseg.json")
    assert "FoldVocabulary" not in sidecar
    assert not any(path.endswith("folds_c.json") for path in sidecar["Sources"])


def test_a_table_of_names_and_gyri_are_two_vocabularies(trees, tmp_path, capsys):
    tree = cohort_of(tmp_path, "e", two_brains())
    (tree / "fold_names.tsv").write_text("label\tname\n1\tmine\n")
    assert preprocess(tree, trees["dkt"], out=tmp_path / "c") == 2
    assert "(2 dkt, 2 fold_names.tsv)" in capsys.readouterr().err


@pytest.mark.slow
def test_manual_gyri_of_a_real_brain_name_its_sulci(real_data, tmp_path):
    source = real_data / "mindboggle/NKI-TRT-20-3/mri/aparc+aseg.mgz"
    if not source.is_file():
        pytest.skip("no manual gyri among the real volumes")
    assert skeletonise(source, tmp_path, "--hemi", "L", "--align", "none") == 0
    (path,) = tmp_path.glob("*/t1mri/*/*/segmentation/Lfolds_*.nii.gz")
    folds, gyri = read_labels(path), read_labels(source)
    table = read_json(sidecar_path(path))["Folds"]
    voxels, back = Counter(), Counter()
    for fold in table:
        name = fold["name"].removesuffix("_left")
        voxels[name] += fold["voxels"]
        back[name] += fold["voxels"] * fold["centre"][1]
    total = sum(voxels.values())
    assert 0.5 < 1 - voxels[""] / total < 0.7
    # Of all groups but one at most: not every brain has every small sulcus.
    assert len(set(correspondence("dkt").sulci) & set(voxels)) >= 19
    assert 0.03 < voxels["central"] / total < 0.08
    assert 0.015 < voxels["calcarine"] / total < 0.06
    assert 0.07 < voxels["lateral_fissure"] / total < 0.16
    order = ("orbital", "precentral", "central", "postcentral", "intraparietal")
    places = [back[name] / voxels[name] for name in order]
    assert places == sorted(places, reverse=True)  # from the front to the back of the head
    # Both gyri lie near, whatever the direction in which one looks for them.
    for name, pair in {"central": (1022, 1024), "inferior_temporal": (1009, 1015)}.items():
        mine = [f["fold"] for f in table if f["name"] == f"{name}_left"]
        points = in_world(folds, mine)
        far = [cKDTree(in_world(gyri, [n])).query(points)[0] for n in pair]
        assert (np.max(far, axis=0) < 5).mean() > 0.9


def in_world(volume, labels):
    """Places of voxels with one of these labels, (n, 3) mm."""
    return apply_affine(volume.affine, np.argwhere(np.isin(volume.data, labels)))
