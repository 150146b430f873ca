"""Alignment to MNI space by deep structures, and by registration to a template."""

from pathlib import Path

import numpy as np
import pytest
from conftest import write_nifti
from test_segmentation import SEGMENTATION, labels_of, skeletonise, two_brains

from foldnorm.pipeline.cli import main
from foldnorm.preprocessing.cohort.cohort import Cohort
from foldnorm.preprocessing.core.errors import InputError
from foldnorm.preprocessing.core.files import read_json
from foldnorm.preprocessing.io.volumes import read_labels, voxel_size_of
from foldnorm.preprocessing.skeletons.alignment import (
    OUTER_PLANES,
    STRUCTURES,
    Template,
    align_to_structures,
    align_to_template,
    read_template,
    tissue_of,
)
from foldnorm.preprocessing.skeletons.segmentation import SegmentedHemisphere, hemispheres
from foldnorm.preprocessing.spatial.space import read_trm, voxel_to_aims

# A head beside its place in MNI space: turned, stretched and moved (native mm → MNI mm).
HEAD_TO_MNI = np.array(
    [[1.08, 0.02, 0.03, 4.0], [-0.02, 1.05, 0.12, -6.0], [-0.03, -0.1, 1.12, 9.0], [0, 0, 0, 1.0]]
)
VOXEL_MM = 4.0
SHAPE = (36, 46, 34)
AFFINE = np.diag([VOXEL_MM, VOXEL_MM, VOXEL_MM, 1.0])
AFFINE[:3, 3] = [-73, -100, -70]


def places(world_to_mni):
    """Where the voxels of a grid lie in MNI space, (*SHAPE, 3) mm."""
    ijk = np.stack([*np.indices(SHAPE), np.ones(SHAPE)], axis=-1)
    return (ijk @ (world_to_mni @ AFFINE).T)[..., :3]


def radius(mni):
    """Squared, 1 on an ellipsoid that reaches the outer planes."""
    low, high = (np.array(planes) for planes in OUTER_PLANES)
    return np.square((mni - (low + high) / 2) / ((high - low) / 2)).sum(axis=-1)


def head(structures=STRUCTURES):
    """White matter in an ellipsoid, with small balls as structures."""
    mni = places(HEAD_TO_MNI)
    labels = np.where(radius(mni) < 1, np.where(mni[..., 0] < 0, 2, 41), 0)
    for pair, place in structures.items():
        for number, sign in zip(pair, (1, -1), strict=True):
            away = mni - [sign * place[0], place[1], place[2]]
            labels[np.linalg.norm(away, axis=-1) < VOXEL_MM] = number
    return labels_of(labels.astype(np.int16), AFFINE)


def distances(matrix, volume):
    """Distances in mm between where two transforms put the voxels of a brain."""
    voxels = np.argwhere(volume.data)
    world = np.c_[voxels, np.ones(len(voxels))] @ volume.affine.T
    return np.linalg.norm((world @ (matrix - HEAD_TO_MNI).T)[:, :3], axis=1)


def test_deep_structures_and_outer_planes_find_the_way_to_mni():
    volume = head()
    alignment = align_to_structures(volume)
    assert distances(alignment.world_to_mni, volume).max() < VOXEL_MM
    assert alignment.record["Structures"] == 14
    assert alignment.record["ResidualMm"] < VOXEL_MM / 2


def test_one_hemisphere_is_enough():
    volume = head()
    volume.data[places(HEAD_TO_MNI)[..., 0] > 0] = 0
    alignment = align_to_structures(volume)
    assert alignment.record["Structures"] == 7
    assert distances(alignment.world_to_mni, volume).max() < 2 * VOXEL_MM


def test_labels_without_deep_structures_have_no_such_way():
    assert align_to_structures(labels_of(two_brains())) is None


@pytest.mark.parametrize(
    ("moved", "reason"),
    [
        ({(n[1], n[0]): place for n, place in STRUCTURES.items()}, "wrong sides"),
        (
            dict(zip(STRUCTURES, [*list(STRUCTURES.values())[3:], *list(STRUCTURES.values())[:3]],
                     strict=True)),
            "mm from their places|scale the axes|wrong sides",
        ),
    ],
)  # fmt: skip
def test_structures_at_other_places_are_refused(moved, reason):
    with pytest.raises(InputError, match=reason):
        align_to_structures(head(moved))


def brain(world_to_mni, sides=("L", "R")):
    """White matter within grey in an ellipsoid; what it lacks below shows how it is turned."""
    mni = places(world_to_mni)
    whole = (radius(mni) < 1) & ~((mni[..., 1] > 20) & (mni[..., 2] < 0))
    white = whole & (radius(mni) < 0.6)
    half = {"L": mni[..., 0] < 0, "R": mni[..., 0] > 0}
    return [
        SegmentedHemisphere(side, whole & ~white & half[side], white & half[side]) for side in sides
    ]


@pytest.mark.parametrize("sides", [("L", "R"), ("L",)])
def test_registration_to_a_template_finds_the_way(sides):
    template = Template(tissue_of(brain(np.eye(4))), AFFINE, "")
    found = brain(HEAD_TO_MNI, sides)
    alignment = align_to_template(found, AFFINE, template, None)
    held = labels_of(tissue_of(found), AFFINE)
    assert distances(alignment.world_to_mni, held).mean() < VOXEL_MM
    assert alignment.record["Overlap"] > 0.9


def test_what_does_not_look_like_the_template_is_refused():
    template = Template(tissue_of(brain(np.eye(4))), AFFINE, "")
    plate = np.zeros(SHAPE, np.bool_)
    plate[4:32, 4:40, 15:17] = True
    with pytest.raises(InputError, match=r"alignment.*plates"):
        align_to_template(
            [SegmentedHemisphere("L", plate, plate)], AFFINE, template, Path("plates")
        )


def test_swapped_sides_are_refused():
    with pytest.raises(InputError, match=r"left labels lie right of the right ones \(x = 4"):
        hemispheres(labels_of(two_brains({"L": (42, 41), "R": (3, 2)})))


def write_template(path, volume):
    """A grey-white volume whose midline lies between the two brains."""
    affine = np.eye(4)
    affine[0, 3] = -31.5
    return str(write_nifti(path, volume, affine))


def test_a_template_aligns_what_has_no_transform(tmp_path):
    write_nifti(tmp_path / "maps/sub-a.nii.gz", two_brains())
    volume = two_brains({"L": (100, 200), "R": (100, 200)})
    template = write_template(tmp_path / "template.nii.gz", volume)
    assert skeletonise(tmp_path / "maps", tmp_path / "tree", "--align", template) == 0
    sidecar = read_json(tmp_path / "tree/a" / SEGMENTATION / "Lskeleton_a.json")
    assert sidecar["Alignment"]["Overlap"] > 0.98
    words = ["--space", "mni", "--hemi", "L", "--quiet", "--n-procs", "1"]
    assert main(["preprocess", str(tmp_path / "tree"), "-o", str(tmp_path / "c"), *words]) == 0
    cohort = Cohort.open(tmp_path / "c")
    centre = np.argwhere(np.array(cohort.volumes[0]) > 0).mean(axis=0) + cohort.affine[:3, 3]
    assert centre == pytest.approx([16 - 31.5, 16, 16], abs=1)


def test_a_failed_alignment_leaves_the_skeleton_and_says_so(tmp_path, capsys):
    write_nifti(tmp_path / "maps/sub-a.nii.gz", two_brains())
    plates = np.zeros((64, 32, 32), np.int16)
    plates[2:30, 2:30, 16], plates[34:62, 2:30, 16] = 100, 100
    plates[2:30, 2:30, 17], plates[34:62, 2:30, 17] = 200, 200
    template = write_template(tmp_path / "template.nii.gz", plates)
    assert skeletonise(tmp_path / "maps", tmp_path / "tree", "--align", template) == 0
    sidecar = read_json(tmp_path / "tree/a" / SEGMENTATION / "Lskeleton_a.json")
    assert sidecar["Alignment"] is None
    (warning,) = [w for w in sidecar["Warnings"] if "no way to MNI space" in w]
    assert "sub-a.nii.gz" in warning
    assert "no way to MNI space" in capsys.readouterr().err
    assert not list((tmp_path / "tree").rglob("*.trm"))


def test_a_template_of_a_tree_is_its_most_frequent_tissue(tmp_path):
    """Two brains of which the third is left out: it leads nowhere."""
    maps = tmp_path / "maps"
    for name in ("a", "b", "c"):
        volume = two_brains()
        volume[:, :3] = 0 if name != "b" else volume[:, :3]
        write_nifti(maps / f"sub-{name}.nii.gz", volume)
    rows = ["participant_id\tpath\ttransform"]
    xfm = tmp_path / "t.xfm"
    xfm.write_text("Linear_Transform =\n1 0 0 -32\n0 1 0 -16\n0 0 1 0;\n")
    rows += [f"{n}\tmaps/sub-{n}.nii.gz\t{xfm if n != 'c' else 'n/a'}" for n in "abc"]
    (tmp_path / "table.tsv").write_text("\n".join(rows) + "\n")
    assert skeletonise(tmp_path / "table.tsv", tmp_path / "tree") == 0
    out = tmp_path / "template.nii.gz"
    assert main(["template", str(tmp_path / "tree"), "-o", str(out), "--quiet"]) == 1  # c
    template = read_template(out)
    x, y, z = (np.array([16, 16, 10]) - [32, 16, 0] - template.affine[:3, 3]).round().astype(int)
    assert template.tissue[x, y, z] == 2
    first = two_brains()
    assert np.count_nonzero(template.tissue) == pytest.approx(np.count_nonzero(first), rel=0.02)
    assert main(["template", str(tmp_path / "tree"), "-o", str(out), "--quiet"]) == 2  # exists
    assert main(["template", str(tmp_path / "tree"), "-o", str(tmp_path / "t.txt"), "--quiet"]) == 2


@pytest.mark.slow
def test_a_real_brain_is_aligned_alike_by_structures_and_to_another_brain(real_data, tmp_path):
    """Map 3 as the template of map 9: both ways agree within half a centimetre on average."""
    maps = real_data / "brain_labels"
    first, second = (maps / f"training_seg_{n}.nii.gz" for n in ("03", "09"))
    assert skeletonise(first, tmp_path / "one") == 0
    template = tmp_path / "template.nii.gz"
    assert main(["template", str(tmp_path / "one"), "-o", str(template), "--quiet"]) == 0
    volume = read_labels(second)
    by_structures = align_to_structures(volume).world_to_mni
    aligned = align_to_template(
        hemispheres(volume), volume.affine, read_template(template), second
    ).world_to_mni
    voxels = np.argwhere(np.isin(volume.data, (2, 3, 41, 42)))[::101]
    world = np.c_[voxels, np.ones(len(voxels))] @ volume.affine.T
    apart = np.linalg.norm((world @ (aligned - by_structures).T)[:, :3], axis=1)
    assert apart.mean() < 5
    # And the file that is written says the same.
    assert skeletonise(second, tmp_path / "two") == 0
    (path,) = (tmp_path / "two").rglob("*.trm")
    skeleton = read_labels(next((tmp_path / "two").rglob("Lskeleton_*.nii.gz")))
    aims = voxel_to_aims(skeleton.data.shape, voxel_size_of(skeleton.affine))
    written = read_trm(path) @ aims @ np.linalg.inv(skeleton.affine)
    assert written == pytest.approx(by_structures, abs=1e-4)
