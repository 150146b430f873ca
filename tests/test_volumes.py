import gzip

import nibabel
import numpy as np
import pytest
from conftest import write_nifti

from foldnorm.preprocessing.core.errors import InputError
from foldnorm.preprocessing.io.volumes import mirror_left_right, read_labels, write_labels

LABELS = np.arange(24, dtype=np.int16).reshape(2, 3, 4)


def test_reading_equals_nibabel_on_a_real_volume(real_skeleton):
    volume = read_labels(real_skeleton)
    image = nibabel.load(real_skeleton)
    assert (volume.data == np.asanyarray(image.dataobj)).all()
    assert np.allclose(volume.affine, image.affine)


@pytest.mark.parametrize("axes", ["RAS", "LIA", "PSR", "ASL", "LPS"])
def test_any_axis_order_becomes_ras(tmp_path, axes):
    ras = nibabel.Nifti1Image(LABELS, np.diag([1.0, 2, 3, 1]))
    turn = nibabel.orientations.ornt_transform(
        nibabel.orientations.io_orientation(ras.affine),
        nibabel.orientations.axcodes2ornt(tuple(axes)),
    )
    path = tmp_path / "volume.nii.gz"
    nibabel.save(ras.as_reoriented(turn), path)
    volume = read_labels(path)
    assert (volume.data == LABELS).all()
    assert np.allclose(volume.affine, ras.affine)


def test_writing_twice_gives_the_same_bytes_and_full_headers(tmp_path):
    affine = np.diag([2.0, 2, 2, 1])
    affine[:3, 3] = (-10, 5, 3)
    for name in ("a.nii.gz", "b.nii.gz"):
        write_labels(tmp_path / name, LABELS.astype(np.uint8), affine)
    assert (tmp_path / "a.nii.gz").read_bytes() == (tmp_path / "b.nii.gz").read_bytes()
    image = nibabel.load(tmp_path / "a.nii.gz")
    assert image.get_data_dtype() == np.uint8
    assert np.allclose(image.affine, affine)
    assert image.header["qform_code"] == image.header["sform_code"] == 1
    assert image.header.get_intent()[0] == "label"
    assert image.header.get_xyzt_units()[0] == "mm"
    assert not list(tmp_path.glob(".*"))


def test_mirroring_moves_nothing_in_the_world(tmp_path):
    path = write_nifti(tmp_path / "v.nii.gz", LABELS)
    volume = read_labels(path)
    mirrored = mirror_left_right(volume)
    assert mirrored.data[0, 1, 2] == volume.data[1, 1, 2]
    assert np.allclose(mirrored.affine @ [0, 1, 2, 1], volume.affine @ [1, 1, 2, 1])


def test_scaled_integers_are_accepted(tmp_path):
    image = nibabel.Nifti1Image(LABELS, np.eye(4))
    image.header.set_slope_inter(2, 1)
    nibabel.save(image, tmp_path / "v.nii.gz")
    stored = np.asanyarray(nibabel.load(tmp_path / "v.nii.gz").dataobj)
    if np.allclose(stored, np.rint(stored)):
        assert (read_labels(tmp_path / "v.nii.gz").data == stored).all()


def test_a_gzip_of_several_members_is_read_whole(tmp_path):
    plain = nibabel.Nifti1Image(LABELS, np.eye(4)).to_bytes()
    path = tmp_path / "v.nii.gz"
    path.write_bytes(gzip.compress(plain[:150]) + gzip.compress(plain[150:]))
    assert (read_labels(path).data == LABELS).all()


def bad_files(folder):
    yield folder / "missing.nii.gz", None, "no such file"
    yield folder / "empty.nii.gz", b"", "empty file"
    yield folder / "text.nii.gz", b"hello", "not a NIfTI file"
    yield folder / "text.nii", b"hello" * 200, "not a NIfTI file"
    yield folder / "picture.png", b"x", "expected a volume"
    good = gzip.compress(nibabel.Nifti1Image(np.tile(LABELS, (9, 9, 9)), np.eye(4)).to_bytes())
    yield folder / "cut.nii.gz", good[: len(good) // 2], "truncated"
    yield folder / "short.nii.gz", gzip.compress(gzip.decompress(good)[:-100]), "truncated"
    yield folder / "damaged.nii.gz", good[:-8] + b"\0\0\0\0" + good[-4:], "damaged .*checksum"


@pytest.mark.parametrize("number", range(8))
def test_a_bad_file_is_one_clear_line(tmp_path, number):
    path, content, reason = list(bad_files(tmp_path))[number]
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=reason) as caught:
        read_labels(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (np.zeros((2, 3, 4, 5), np.int16), "3-D"),
        (np.zeros((4, 5), np.int16), "3-D"),
        (np.full((2, 2, 2), np.nan, np.float32), "8 NaN"),
        (np.full((2, 2, 2), 1.5, np.float32), "8 voxels such as 1.5"),
        (np.zeros((2, 2, 2), np.complex64), "complex"),
    ],
)
def test_bad_voxels_are_named(tmp_path, data, reason):
    with pytest.raises(InputError, match=reason):
        read_labels(write_nifti(tmp_path / "v.nii.gz", data))


def test_a_rotated_affine_is_refused_with_its_angle(tmp_path):
    turn = np.radians(10)
    affine = np.eye(4)
    affine[:2, :2] = [[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]
    with pytest.raises(InputError, match=r"rotated by 10\.0°"):
        read_labels(write_nifti(tmp_path / "v.nii.gz", LABELS, affine))


def test_a_singular_affine_is_refused(tmp_path):
    affine = np.diag([1.0, 1, 0, 1])
    image = nibabel.Nifti1Image(LABELS, np.eye(4))
    image.header["sform_code"] = 1
    image.header["srow_x"], image.header["srow_y"], image.header["srow_z"] = affine[:3]
    image.header["qform_code"] = 0
    path = tmp_path / "v.nii"
    path.write_bytes(image.header.binaryblock + b"\0" * 4 + LABELS.tobytes("F"))
    with pytest.raises(InputError, match=r"singular|NIfTI"):
        read_labels(path)


def test_a_fourth_axis_of_one_is_no_fault(tmp_path):
    path = write_nifti(tmp_path / "v.nii.gz", LABELS[..., None])
    assert read_labels(path).data.shape == LABELS.shape
