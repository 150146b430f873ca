import numpy as np
import pytest
import torch
from conftest import skeleton_volume, write_nifti
from monai.data import MetaTensor
from monai.transforms import Compose, EnsureChannelFirstd, LoadImaged, Orientationd

from foldnorm.pipeline.transforms import (
    CropToCohortBox,
    CropToCohortBoxd,
    Discretise,
    Discretised,
    SulcusPriorityDownsample,
    SulcusPriorityDownsampled,
)
from foldnorm.preprocessing.core.errors import InputError


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
