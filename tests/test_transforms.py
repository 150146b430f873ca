"""Transforms and the reader, as MONAI uses them."""

import doctest

import nibabel
import numpy as np
import pytest
import torch
from conftest import skeleton_volume, write_nifti
from monai.data import MetaTensor
from monai.transforms import (
    Compose,
    CopyItemsd,
    EnsureChannelFirstd,
    LoadImage,
    LoadImaged,
    Orientationd,
)

from foldnorm import transforms
from foldnorm.models.noise import seed_of
from foldnorm.pipeline.data.items import GeneratorTransform, transformed
from foldnorm.preprocessing.cohort.discretise import discretise
from foldnorm.preprocessing.core.errors import InputError
from foldnorm.preprocessing.io.schemes import SKELETON
from foldnorm.preprocessing.io.volumes import read_labels
from foldnorm.transforms import (
    CropToCohortBox,
    CropToCohortBoxd,
    Discretise,
    Discretised,
    MorphologistReader,
    RandEditFolds,
    RandEditFoldsd,
    RandImageAffine,
    RandSheetAffine,
    RandSheetAffined,
    RandStrokesd,
    SulcusPriorityDownsample,
    SulcusPriorityDownsampled,
)

AFFINE = np.array([[-2.0, 0, 0, 90], [0, -2, 0, 120], [0, 0, -2, 70], [0, 0, 0, 1]])  # as AIMS


def test_a_monai_chain_gives_what_the_cohort_holds(small_cohort, tmp_path):
    path = write_nifti(tmp_path / "sub-s05.nii.gz", skeleton_volume(5))
    chain = Compose(
        [
            LoadImaged("skeleton"),
            EnsureChannelFirstd("skeleton"),
            Orientationd("skeleton", axcodes="RAS"),
            Discretised("skeleton"),
            SulcusPriorityDownsampled("skeleton", voxel_size=1.5),
            CropToCohortBoxd("skeleton", small_cohort.description["Cohort"]["box"]),
        ]
    )
    volume = chain({"skeleton": str(path)})["skeleton"]
    index = small_cohort.keys().index("sub-s05")
    assert isinstance(volume, MetaTensor)
    assert (np.asarray(volume)[0] == small_cohort.volumes[index]).all()
    assert np.allclose(volume.affine, small_cohort.affine, atol=0.76)


def test_the_affine_of_a_metatensor_stays_true():
    volume = MetaTensor(torch.zeros(1, 6, 6, 6, dtype=torch.uint8), affine=torch.eye(4))
    small = SulcusPriorityDownsample(2.0)(volume)
    assert small.shape == (1, 3, 3, 3)
    assert np.allclose(small.affine.diagonal(), [2, 2, 2, 1])
    assert np.allclose(small.affine[:3, 3], 0.5)
    cropped = CropToCohortBox("2,5,1,3,0,2")(volume)
    assert cropped.shape == (1, 3, 2, 2)
    assert np.allclose(cropped.affine[:3, 3], [2, 1, 0])


def test_nothing_is_cut_in_silence():
    volume = torch.ones(1, 6, 6, 6, dtype=torch.uint8)
    with pytest.raises(InputError, match="2 voxels left"):
        CropToCohortBox("2,6,0,6,0,6")(volume)
    assert CropToCohortBox("2,6,0,6,0,6", may_cut=True)(volume).shape == (1, 4, 6, 6)


@pytest.mark.parametrize("bad", [torch.zeros(6, 6, 6), torch.zeros(2, 6, 6, 6)])
def test_a_volume_without_one_channel_is_refused(bad):
    with pytest.raises(InputError, match="channel-first"):
        Discretise()(bad)


def test_labels_that_are_no_integers_are_refused():
    with pytest.raises(InputError, match="integer labels"):
        Discretise()(torch.full((1, 2, 2, 2), 0.5))


@pytest.mark.parametrize("name", transforms.__all__)
def test_examples_run(name):
    (test,) = doctest.DocTestFinder(recurse=False).find(getattr(transforms, name), name)
    assert test.examples, f"no example of {name}"
    assert doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE).run(test).failed == 0


def test_a_draw_is_keyed_by_seed_stream_and_number_and_streams_go_on():
    class Draws(GeneratorTransform):
        def __init__(self, stream):
            super().__init__()
            self.stream = stream

        def __call__(self, item):
            return [*item, self.rng.random()]

    one, two, other = Draws("a"), Draws("a"), Draws("b")
    expected = [
        *np.random.default_rng(seed_of(7, "a", 12)).random(2),
        np.random.default_rng(seed_of(7, "b", 12)).random(),
    ]
    for _ in range(2):
        assert transformed([], [one, two, other], 7, 12) == expected
    assert transformed([], [other, one, two], 7, 12) == [expected[2], *expected[:2]]


def test_random_transforms_work_in_a_chain_of_monai(phantom_cohort):
    chain = Compose(
        [
            RandSheetAffined("image", 8, 0.06, 2, thin=False, folds_key="folds"),
            CopyItemsd("image", names="healthy"),
            RandEditFoldsd("image", ["folds"], most=3, folds_key="folds", untouched=0),
        ]
    )
    found = [phantom_cohort.dataset("train", transform=chain.set_random_state(seed))[0]
             for seed in (0, 0, 1)]  # fmt: skip
    for item in found:
        assert isinstance(item["image"], MetaTensor)
        assert item["image"].dtype == item["healthy"].dtype == torch.uint8
        assert item["folds"].dtype == torch.int32
        assert np.array_equal(item["image"].affine, phantom_cohort.affine)
        changed = item["image"] != item["healthy"]
        assert changed.any()
        assert (item["image"][changed] == phantom_cohort.scheme.void).all()
    assert torch.equal(found[0]["image"], found[1]["image"])
    assert not torch.equal(found[0]["healthy"], found[2]["healthy"])


def test_what_is_drawn_by_monai_moves_on():
    volume = torch.from_numpy(np.where(skeleton_volume(1) == 60, 2, 1).astype(np.uint8))[None]
    move = RandSheetAffine(10).set_random_state(seed=0)
    first, second = move(volume), move(volume)
    assert not torch.equal(first, second)
    assert torch.equal(first, move.set_random_state(seed=0)(volume))


@pytest.mark.parametrize("given", [np.asarray, torch.from_numpy, MetaTensor])
def test_volumes_keep_their_type(given):
    volume = given(np.ones((1, 8, 8, 8), np.uint8))
    image = given(np.linspace(-1, 1, 64, dtype=np.float32).reshape(1, 8, 8))
    moved = RandSheetAffine(10)(volume)
    turned = RandImageAffine(10)(image)
    assert type(moved) is type(volume)
    assert (moved.dtype, turned.dtype) == (volume.dtype, image.dtype)
    assert type(turned) is type(image)


def test_edits_are_as_large_as_the_affine_says():
    full, sizes = np.full((1, 24, 24, 24), 2, np.uint8), []
    for size in (1.0, 2.0):
        affine = torch.diag(torch.tensor([size, size, size, 1.0]))
        volume = MetaTensor(torch.from_numpy(full), affine=affine)
        erase = RandEditFolds(["balls"], radii=(6, 6), untouched=0).set_random_state(seed=0)
        sizes.append(int((erase(volume) != 2).sum()))
    assert 5 < sizes[0] / sizes[1] < 11  # eight times, but for the voxels' corners


def test_all_keys_are_moved_alike():
    image = np.random.default_rng(0).random((1, 12, 12), dtype=np.float32)
    item = {"image": image, "other": image.copy()}
    for chain in (
        transforms.RandImageAffined(["image", "other"], 10, mirror=True),
        RandStrokesd(["image", "other"], mask_keys=["a", "b"]),
    ):
        found = chain(item)
        assert np.array_equal(found["image"], found["other"])
        assert not np.array_equal(found["image"], image)
    with pytest.raises(InputError, match="a mask key for each"):
        RandStrokesd(["image", "other"], mask_keys="mask")


def test_an_image_that_came_damaged_stays_as_it_is():
    item = {"image": np.zeros((1, 12, 12), np.float32), "old": np.array([True])}
    found = RandStrokesd("image", mask_keys="mask", came_damaged_key="old")(item)
    assert not found["image"].any()
    assert (found["mask"] == -1).all()


def test_missing_keys_are_refused_unless_allowed():
    item = {"image": np.ones((1, 8, 8, 8), np.uint8)}
    with pytest.raises(KeyError):
        RandSheetAffined(["image", "other"], 10)(item)
    assert set(RandSheetAffined(["image", "other"], 10, allow_missing_keys=True)(item)) == {"image"}
    assert RandSheetAffined("other", 10, allow_missing_keys=True)(item) == item


def morphologist_subject(folder, sides="LR"):
    """A subject of a Morphologist tree, with skeletons as AIMS writes them."""
    for n, side in enumerate(sides):
        path = folder / f"t1mri/default_acquisition/default_analysis/segmentation/{side}skeleton_s1"
        write_nifti(path.with_suffix(".nii.gz"), skeleton_volume(n, (20, 22, 24)), AFFINE)
    return folder


def test_the_reader_gives_a_skeleton_in_ras_with_its_exact_affine(tmp_path):
    subject = morphologist_subject(tmp_path / "base/s1")
    (path,) = subject.rglob("Lskeleton*")
    expected = read_labels(path)
    for given, reader in ((path, MorphologistReader()), (subject, MorphologistReader(side="L"))):
        volume = LoadImage(reader=reader, dtype=None, ensure_channel_first=True)(given)
        assert volume.dtype == torch.int16
        assert np.array_equal(volume[0], expected.data)
        assert np.array_equal(volume.affine, expected.affine)
        assert volume.meta["original_affine"].tolist() == expected.affine.tolist()
    # The same place in the world holds the same value as in the file.
    raw = skeleton_volume(0, (20, 22, 24))
    voxel = np.array([3, 10, 7])
    world = AFFINE @ [*voxel, 1]
    i, j, k, _ = np.rint(np.linalg.inv(expected.affine) @ world).astype(int)
    assert (i, j, k) == (16, 11, 16)
    assert volume[0, i, j, k] == raw[tuple(voxel)]


def test_the_reader_gives_classes_if_asked_to(tmp_path):
    subject = morphologist_subject(tmp_path / "base/s1")
    load = LoadImaged("image", reader=MorphologistReader("skeleton", side="R"), dtype=None)
    volume = EnsureChannelFirstd("image")(load({"image": str(subject)}))["image"]
    (path,) = subject.rglob("Rskeleton*")
    assert volume.dtype == torch.uint8
    assert np.array_equal(volume[0], discretise(read_labels(path).data, SKELETON))
    assert set(np.unique(volume)) == {0, 1, 2}


def test_the_reader_says_what_it_cannot_read(tmp_path):
    subject, reader = morphologist_subject(tmp_path / "base/s1"), MorphologistReader()
    assert reader.verify_suffix([subject, "a.nii.gz"])
    assert not reader.verify_suffix("a.png")
    with pytest.raises(
        InputError, match=r"one skeleton of side L or R, got 2 \(sub-s1_hemi-L, sub-s"
    ):
        reader.read(subject)
    with pytest.raises(InputError, match="no grey_white volume found"):
        MorphologistReader(side="L", stem="grey_white").read(subject)
    with pytest.raises(InputError, match="one volume a key, got 2"):
        reader.read(list(subject.rglob("*.nii.gz")))


def test_the_reader_reads_a_real_skeleton(real_skeleton):
    volume = LoadImage(reader=MorphologistReader("skeleton"), dtype=None)(real_skeleton)
    expected = read_labels(real_skeleton)
    assert np.array_equal(volume, discretise(expected.data, SKELETON))
    assert np.array_equal(volume.affine, expected.affine)


def directionless(path):
    """A skeleton whose header does not say in which directions voxels run."""
    image = nibabel.Nifti1Image(skeleton_volume(), None)
    image.header.set_zooms((1, 1, 1))
    nibabel.save(image, path)
    return path


def test_the_reader_assumes_directions_if_it_is_told_to(tmp_path, caplog):
    path = directionless(tmp_path / "sub-1.nii.gz")
    with pytest.raises(InputError, match=r"left and right cannot be known"):
        MorphologistReader().read(path)
    with pytest.raises(InputError, match=r"expected ras or las, got 'lps'"):
        MorphologistReader(assume="lps").read(path)
    for assume in ("ras", "las"):
        volume = LoadImage(reader=MorphologistReader(assume=assume), dtype=None)(path)
        expected = read_labels(path, assume=assume)
        assert np.array_equal(volume, expected.data)
        assert np.array_equal(volume.affine, expected.affine)
        assert f"assumed to run {assume}" in caplog.text
    assert np.array_equal(volume, skeleton_volume()[::-1])
