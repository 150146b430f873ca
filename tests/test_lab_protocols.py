"""The lab's deletion protocols: by hand on a small graph, and against the lab's own volumes."""

import json
import shutil

import nibabel
import numpy as np
import pytest

from foldnorm.pipeline.cli import main
from foldnorm.preprocessing.alteration.deletion import SizeRange
from foldnorm.preprocessing.alteration.lab_protocols import (
    AcpcBox,
    erased_voxels,
    graph_candidates,
    raw_candidates,
)
from foldnorm.preprocessing.cohort.cohort import Cohort
from foldnorm.preprocessing.core.errors import InputError
from foldnorm.preprocessing.core.files import read_tsv
from foldnorm.preprocessing.io.fold_graph import FoldGraph, GraphFold, Relation, graph_skeleton
from foldnorm.preprocessing.io.fold_graph import read_fold_graph as read
from foldnorm.preprocessing.io.volumes import read_labels
from foldnorm.preprocessing.spatial.regions import region_of_mask
from foldnorm.preprocessing.spatial.space import ACPC_TO_MNI, graph_to_mni


def points(*voxels):
    return np.array(voxels, np.int16).reshape(-1, 3)


def fold(number, surface, low="0 0 0", high="5 5 5"):
    attributes = {"Tal_boundingbox_min": low, "Tal_boundingbox_max": high}
    bottom = points((number, 9, 9))
    return GraphFold(
        number, 10 + number, "S.C._left", "unknown", attributes, surface, bottom, points()
    )


def graph(tmp_path, *folds, relations=()):
    return FoldGraph(tmp_path / "g.arg", {}, (20, 20, 20), (1.0, 1.0, 1.0), folds, relations)


def test_the_raw_protocol_wants_the_whole_fold_in_the_box_and_more_voxels_than_asked(tmp_path):
    surface = points((1, 1, 1), (1, 1, 2), (1, 1, 3))
    small = graph(tmp_path, fold(1, surface), fold(2, surface, high="5 5 9"), fold(3, surface[:2]))
    box = AcpcBox((-1.0, -1.0, -1.0), (6.0, 6.0, 6.0))
    sizes = [(f.number, size) for f, size in raw_candidates(small, box, SizeRange(2))]
    assert sizes == [(1, 3)]
    assert [f.number for f, _ in raw_candidates(small, None, SizeRange(2))] == [1, 2]
    assert [f.number for f, _ in raw_candidates(small, None, SizeRange(1, 2))] == [3]
    with pytest.raises(InputError, match="no Tal_boundingbox_min"):
        raw_candidates(graph(tmp_path, fold(1, surface, low="1 2 x")), box, SizeRange(2))


def test_the_graph_protocol_counts_voxels_of_one_millimetre_in_the_region(tmp_path):
    surface = points(*((0, 0, k) for k in range(8)))
    to_mni = np.diag([0.5, 0.5, 0.5, 1.0])
    one = graph(tmp_path, fold(1, surface))
    # At half a millimetre a voxel, k / 2 rounds to 0, 0, 1, 2, 2, 2, 3, 4.
    assert [size for _, size in graph_candidates(one, to_mni, None, SizeRange(4))] == [5]
    below = graph_candidates(one, to_mni, lambda mm: mm[:, 2] < 3, SizeRange(0.5))
    assert [size for _, size in below] == [3]
    assert not graph_candidates(one, to_mni, None, SizeRange(5))


def test_junctions_of_every_incident_relation_go_in_the_later_protocol(tmp_path):
    first, second = fold(1, points((1, 1, 1))), fold(2, points((2, 2, 2)))
    relations = (
        Relation("junction", (11, 12), points((3, 3, 3))),
        Relation("hull_junction", (11, 99), points((4, 4, 4))),
        Relation("junction", (12, 99), points((5, 5, 5))),
    )
    both = graph(tmp_path, first, second, relations=relations)
    assert erased_voxels(both, first, junctions=False).tolist() == [[1, 1, 1], [1, 9, 9]]
    later = erased_voxels(both, first, junctions=True).tolist()
    assert later == [[1, 1, 1], [1, 9, 9], [3, 3, 3], [4, 4, 4]]


def test_a_box_of_mni_holds_its_corners_in_acpc():
    low, high = np.array([-60.0, -50.0, -10.0]), np.array([-20.0, -10.0, 40.0])
    box = AcpcBox.from_mni(low, high)
    for acpc in (box.low, box.high):
        mni = ACPC_TO_MNI[:3, :3] @ acpc + ACPC_TO_MNI[:3, 3]
        assert (mni > low - 8).all()
        assert (mni < high + 8).all()


def test_the_labs_own_deletion_in_a_raw_skeleton(real_data):
    """FACTS 3, oracle 2: node 147 and no other; 0 voxels differ."""
    folder = real_data / "oracles/delete_fold_raw"
    boxes = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
    low = np.min([box["bbmin_AIMS_Talairach"] for box in boxes], axis=0)
    high = np.max([box["bbmax_AIMS_Talairach"] for box in boxes], axis=0)
    session = "default_session_auto/R100206_default_session_auto.arg"
    right = read(next(real_data.glob(f"morphologist/hcp/**/{session}")))
    found = raw_candidates(right, AcpcBox(tuple(low), tuple(high)), SizeRange(1000))
    ((chosen, size),) = found
    assert (chosen.node, chosen.sulcus, size) == (147, "F.I.P.r.int.1_right", 1019)
    erased = erased_voxels(right, chosen, junctions=False)
    assert len(erased) == 1019 + 75
    raw = read_labels(next(real_data.glob("morphologist/hcp/**/Rskeleton_100206.nii.gz")))
    volume = raw.data.copy()[::-1, ::-1, ::-1]
    volume[tuple(erased.T.astype(int))] = 0
    oracle = read_labels(folder / "output_skeleton_100206.nii.gz").data
    assert (volume[::-1, ::-1, ::-1] == oracle).all()


def test_the_labs_own_deletion_in_a_graph(real_data):
    """FACTS 3, oracle 1: nodes 129 and 221 are eligible, 129 was deleted; 0 voxels differ."""
    folder = real_data / "oracles/delete_fold_graph"
    right = read(next(real_data.glob("morphologist/hcp/**/R100206_deepcnn_auto.arg")))
    trm = next(real_data.glob("morphologist/hcp/**/*_TO_Talairach-MNI.trm"))
    mask = read_labels(folder / "S.C._right_mask_1mm.nii.gz")
    region = region_of_mask(mask, 5.0, 1.0, mirrored=False)

    def in_region(mm):
        places = mm.astype(int) - region.box.start
        inside = ((places >= 0) & (places < region.box.shape)).all(axis=1)
        inside[inside] = region.mask[tuple(places[inside].T)]
        return inside

    to_mni = graph_to_mni(right, trm, trm)
    found = graph_candidates(right, to_mni, in_region, SizeRange(200, 500))
    assert {f.node: size for f, size in found} == {129: 468, 221: 277}
    chosen = next(f for f, _ in found if f.node == 129)
    skeleton = graph_skeleton(right)
    skeleton[tuple(erased_voxels(right, chosen, junctions=True).T.astype(int))] = 0
    oracle = np.asarray(nibabel.load(folder / "skeleton_100206_suppr.nii.gz").dataobj).squeeze()
    assert (skeleton[::-1, ::-1, ::-1] == oracle).all()


@pytest.fixture(scope="module")
def real_crops(real_data, tmp_path_factory):
    """Both hemispheres of HCP 100206, the lab's central region, right ones in left layout."""
    out = tmp_path_factory.mktemp("crops") / "cohort"
    mask = real_data / "oracles/delete_fold_graph/S.C._right_mask_1mm.nii.gz"
    words = ["--space", "mni", "--hull", "remove", "--mirror-right", "--crop", f"mask:{mask}@5"]
    source = str(real_data / "morphologist/hcp")
    assert main(["preprocess", source, "-o", str(out), "--quiet", "--n-procs", "1", *words]) == 0
    return Cohort.open(out)


def delete(cohort, out, *words):
    code = main(["alter", str(cohort.folder), "-o", str(out), "--quiet", "--n-procs", "1", *words])
    return code, (Cohort.open(out) if code == 0 else None)


@pytest.mark.parametrize("kind", ["fold-raw", "fold-graph"])
def test_the_control_is_prepared_anew_and_equal_to_the_voxel(real_crops, tmp_path, kind):
    code, control = delete(real_crops, tmp_path / "a", "--kind", kind, "--size", "0")
    assert code == 0
    assert (np.array(control.volumes) == np.array(real_crops.volumes)).all()


@pytest.mark.parametrize(("kind", "size"), [("fold-raw", "150"), ("fold-graph", "200-500")])
def test_a_real_fold_goes_and_only_it(real_crops, tmp_path, kind, size):
    code, altered = delete(real_crops, tmp_path / "a", "--kind", kind, "--size", size)
    assert code == 0
    rows = read_tsv(tmp_path / "a/deletions.tsv")
    assert rows
    for n, row in enumerate(rows):
        index = real_crops.keys().index(altered.keys()[n])
        before, after = np.array(real_crops.volumes[index]), np.array(altered.volumes[n])
        changed = before != after
        assert changed.sum() == int(row["voxels"]) > 50
        assert (before[changed] == 2).all()
        assert (after[changed] == 1).all()
        labels = real_crops.folds[index][changed]
        own = labels == int(row["label"])
        assert own.mean() > 0.5
        if kind == "fold-graph":
            assert 200 < float(row["size"]) <= 500


@pytest.mark.parametrize(
    ("gone", "reason"),
    [
        ("L100206_default_session_auto.arg", "not readable"),
        ("Lskeleton_100206.nii.gz", "no such file"),
    ],
)
def test_a_hemisphere_whose_files_are_gone_is_named_and_the_other_altered(
    real_data, tmp_path, capsys, gone, reason
):
    source = tmp_path / "source"
    shutil.copytree(real_data / "morphologist/hcp", source)
    words = ["--space", "mni", "--quiet", "--n-procs", "1"]
    assert main(["preprocess", str(source), "-o", str(tmp_path / "c"), *words]) == 0
    next(source.rglob(gone)).unlink()
    cohort = Cohort.open(tmp_path / "c")
    code, _ = delete(cohort, tmp_path / "a", "--kind", "fold-raw", "--size", "1000")
    assert code == 1
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith(f"foldnorm: sub-100206_hemi-L: {reason}")
    assert Cohort.open(tmp_path / "a").keys() == ["sub-100206_hemi-R"]


def test_the_lab_region_chooses_the_labs_folds(real_crops, tmp_path):
    """Of the session that the tree gives first, not of the oracle's: names, not node numbers."""
    names = set()
    for seed in range(12):
        words = ["--kind", "fold-graph", "--size", "200-500", "--seed", str(seed), "--overwrite"]
        assert delete(real_crops, tmp_path / "a", *words)[0] == 0
        names |= {row["name"] for row in read_tsv(tmp_path / "a/deletions.tsv")}
        sides = {name.rpartition("_")[2] for name in names}
        if sides == {"left", "right"} and any(name.startswith("S.Pe.C.") for name in names):
            return
    raise AssertionError(names)
