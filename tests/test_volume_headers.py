"""Headers as FSL, ITK and nibabel read them: where left is, sizes, types, and what they hide."""

import gzip
import struct
import sys

import nibabel
import numpy as np
import pytest
import SimpleITK
from conftest import skeleton_volume
from test_fold_graph import write_graph

from foldnorm.pipeline.cli import main
from foldnorm.preprocessing.cohort.cohort import Cohort
from foldnorm.preprocessing.cohort.input_space import InputSpace
from foldnorm.preprocessing.core.errors import InputError
from foldnorm.preprocessing.core.files import read_json, read_tsv
from foldnorm.preprocessing.io.volumes import read_intensities, read_labels

LABELS = np.arange(60, dtype=np.int16).reshape(3, 4, 5)
AFFINE = np.array([[1.0, 0, 0, -7], [0, 1.5, 0, 3], [0, 0, 2, 11], [0, 0, 0, 1]])
LAS = np.diag([-1.0, 1, 1, 1])
DIM, DATATYPE, PIXDIM, OFFSET, SLOPE, UNITS = 40, 70, 76, 108, 112, 123
QFORM_CODE, SFORM_CODE, QUATERNION, SROW = 252, 254, 256, 280


def content_of(labels=LABELS, *, sform=AFFINE, qform=AFFINE, codes=(1, 1), unit="mm"):
    """Bytes of a NIfTI-1 file."""
    image = nibabel.Nifti1Image(labels, sform)
    image.set_sform(sform, codes[0])
    image.set_qform(qform, codes[1])
    image.header.set_xyzt_units(unit)
    return image.to_bytes()


def patched(*changes, content=None):
    """The file with other numbers in its header: place, form, numbers."""
    content = bytearray(content_of() if content is None else content)
    for place, form, *numbers in changes:
        struct.pack_into(form, content, place, *numbers)
    return bytes(content)


def written(tmp_path, content, name="v.nii"):
    path = tmp_path / name
    path.write_bytes(content)
    return path


def metric(sides_mm, unit, per_mm):
    sides = np.diag([*(np.array(sides_mm) * per_mm), 1.0])
    return content_of(sform=sides, qform=sides, unit=unit)


@pytest.mark.parametrize(
    ("content", "sides", "said"),
    [
        (metric((1, 1.5, 2), "mm", 1), (1, 1.5, 2), ""),
        (metric((1, 1.5, 2), "meter", 1e-3), (1, 1.5, 2), "metres"),
        (metric((0.7, 0.7, 0.8), "meter", 1e-3), (0.7, 0.7, 0.8), "metres"),
        (metric((1, 1.5, 2), "micron", 1e3), (1, 1.5, 2), "microns"),
        (metric((0.02, 0.02, 0.05), "micron", 1e3), (0.02, 0.02, 0.05), "microns"),
        (metric((1, 1.5, 2), "unknown", 1), (1, 1.5, 2), ""),
        (metric((1e-3, 1e-3, 1e-3), "unknown", 1), (1e-3, 1e-3, 1e-3), "not named"),
        (metric((700, 700, 700), "unknown", 1), (700, 700, 700), "not named"),
        (patched((UNITS, "<B", 6)), (1, 1.5, 2), ""),  # of no meaning in the standard
        (patched((UNITS, "<B", 2 + 8)), (1, 1.5, 2), ""),  # and seconds
        (
            patched((UNITS, "<B", 1 + 16), content=metric((1, 1, 1), "mm", 1e-3)),
            (1, 1, 1),
            "metres",
        ),
    ],
)
def test_lengths_come_in_millimetres(tmp_path, content, sides, said):
    volume = read_labels(written(tmp_path, content))
    assert np.allclose(volume.voxel_size, sides, rtol=1e-6)
    assert said in " ".join(volume.warnings)
    assert bool(volume.warnings) == bool(said)


def test_an_origin_in_metres_is_one_in_millimetres(tmp_path):
    affine = AFFINE.copy()
    affine[:3] *= 1e-3
    content = content_of(sform=affine, qform=affine, unit="meter")
    found = read_labels(written(tmp_path, content))
    assert np.allclose(found.affine, AFFINE)
    assert found.voxel_size == (1.0, 1.5, 2.0)  # so that the lattice is the same
    # ITK honours the unit likewise (its world is LPS).
    image = SimpleITK.ReadImage(str(tmp_path / "v.nii"))
    assert np.allclose(image.GetOrigin(), [7, -3, 11], atol=1e-4)


MIRRORED = AFFINE @ np.diag([-1.0, 1, 1, 1])
MOVED = AFFINE + np.eye(4, k=3) * 5
THICK = AFFINE @ np.diag([1.0, 1, 2, 1])
ZERO_SFORM = (SROW, "<12f", *[0.0] * 12)
NAN_SFORM = (SROW, "<12f", *[np.nan] * 12)


@pytest.mark.parametrize(
    ("content", "affine", "said"),
    [
        (content_of(), AFFINE, ""),
        (content_of(codes=(0, 1), sform=MIRRORED), AFFINE, ""),
        (content_of(codes=(1, 0), qform=MIRRORED), AFFINE, ""),
        (content_of(codes=(4, 1), qform=MOVED), AFFINE, ""),  # two spaces: no contradiction
        (patched((SFORM_CODE, "<h", 5)), AFFINE, ""),
        (patched((SFORM_CODE, "<h", 6)), AFFINE, "sform_code 6 is unknown"),
        (patched((QFORM_CODE, "<h", -1)), AFFINE, ""),
        (patched(ZERO_SFORM), AFFINE, "sform is singular; qform is used"),
        (patched(NAN_SFORM), AFFINE, "sform is singular; qform is used"),
        (patched((QUATERNION, "<f", np.nan)), AFFINE, "qform is singular; sform is used"),
        (content_of(qform=MIRRORED), AFFINE, "(RAS) and qform (LAS) contradict each other on left"),
        (content_of(qform=AFFINE @ np.diag([1.0, -1, 1, 1])), AFFINE, "on directions; sform"),
        (content_of(qform=MOVED), AFFINE, "put it 5.0 mm apart; sform is used"),
        (content_of(qform=THICK), AFFINE, "2 mm by sform, of 1 × 1.5 × 4 mm by pixdim"),
    ],
)
def test_the_form_that_is_used_is_said(tmp_path, content, affine, said):
    volume = read_labels(written(tmp_path, content))
    assert np.allclose(volume.affine, affine, atol=1e-5)
    assert said in " ".join(volume.warnings)
    assert bool(volume.warnings) == bool(said)


@pytest.mark.parametrize("turn", ["RAS", "LAS", "LPS", "RSA", "PIR", "ASL"])
def test_a_quaternion_is_read_as_nibabel_and_itk_do(tmp_path, turn):
    image = nibabel.Nifti1Image(LABELS, AFFINE)
    orientation = nibabel.orientations.axcodes2ornt(tuple(turn))
    turned = image.as_reoriented(orientation)
    content = content_of(
        np.asarray(turned.dataobj), sform=turned.affine, qform=turned.affine, codes=(0, 1)
    )
    path = written(tmp_path, content)
    volume = read_labels(path)
    canonical = nibabel.as_closest_canonical(nibabel.load(path))
    assert np.array_equal(volume.data, np.asarray(canonical.dataobj))
    assert np.allclose(volume.affine, canonical.affine, atol=1e-5)
    itk = SimpleITK.DICOMOrient(SimpleITK.ReadImage(str(path)), "LPS")  # ITK's RAS+ of ours
    assert np.array_equal(volume.data[::-1, ::-1], SimpleITK.GetArrayFromImage(itk).T)


SIDELESS = {
    "no form": content_of(codes=(0, 0)),
    "negative codes": patched((QFORM_CODE, "<hh", -1, -3)),
    "zero sform": patched(ZERO_SFORM, (QFORM_CODE, "<h", 0)),
    "NaN sform": patched(NAN_SFORM, (QFORM_CODE, "<h", 0)),
    "flat sform": patched((SROW + 16, "<4f", 2.0, 0, 0, 5), (QFORM_CODE, "<h", 0)),
    "NaN quaternion": patched((QUATERNION, "<f", np.nan), (SFORM_CODE, "<h", 0)),
    "infinite quaternion": patched((QUATERNION, "<f", np.inf), (SFORM_CODE, "<h", 0)),
    "both singular": patched(ZERO_SFORM, (QUATERNION, "<f", np.nan)),
    "Analyze in a NIfTI": patched((QFORM_CODE, "<hh", 0, 0), (UNITS, "<B", 0)),
    "NIfTI-2": nibabel.Nifti2Image(LABELS, None).to_bytes(),
}


@pytest.mark.parametrize("name", SIDELESS)
def test_nobody_guesses_where_left_is(tmp_path, name):
    path = written(tmp_path, SIDELESS[name])
    for read in (read_labels, read_intensities):
        with pytest.raises(InputError, match=r"left and right .* --assume ras or las") as caught:
            read(path)
        assert str(path) in str(caught.value)
    right = read_labels(path, assume="ras")
    left = read_labels(path, assume="las")
    assert np.array_equal(right.data, LABELS)
    assert np.array_equal(left.data, LABELS[::-1])
    assert np.allclose(right.voxel_size, left.voxel_size)
    assert "assumed to run las" in left.warnings[-1]
    # As nibabel, FSL and SPM take it: about the middle of the volume.
    assert np.allclose(right.affine @ [1, 1.5, 2, 1], [0, 0, 0, 1], atol=1e-5)


def test_where_nothing_says_nibabel_takes_las(tmp_path):
    path = written(tmp_path, SIDELESS["no form"])
    image = nibabel.as_closest_canonical(nibabel.load(path))
    volume = read_labels(path, assume="las")
    assert np.array_equal(volume.data, np.asarray(image.dataobj))
    assert np.allclose(volume.affine, image.affine)


@pytest.mark.parametrize("size", [0.0, np.nan, np.inf])
def test_sizes_are_not_assumed(tmp_path, size):
    path = written(tmp_path, patched((PIXDIM + 4, "<f", size), (QFORM_CODE, "<hh", 0, 0)))
    with pytest.raises(InputError, match="voxel sizes are"):
        read_labels(path, assume="ras")


def mgh(affine=AFFINE, labels=LABELS):
    return nibabel.MGHImage(labels.astype(np.int32), affine).to_bytes()


@pytest.mark.parametrize(
    "content",
    [mgh()[:28] + b"\0\0" + mgh()[30:], mgh()[:42] + bytes(36) + mgh()[78:]],
    ids=["goodRASFlag", "directions"],
)
def test_freesurfer_volumes_without_directions_are_refused(tmp_path, content):
    path = written(tmp_path, content, "v.mgh")
    with pytest.raises(InputError, match="left and right cannot be known"):
        read_labels(path)
    assert np.array_equal(read_labels(path, assume="ras").data, LABELS)


def swapped(labels=LABELS):
    image = nibabel.Nifti1Image(labels, AFFINE)
    return nibabel.Nifti1Image(
        labels.astype(">i2"), AFFINE, image.header.as_byteswapped(">")
    ).to_bytes()


def extended():
    image = nibabel.Nifti1Image(LABELS, AFFINE)
    image.header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", b"hello" * 99))
    return image.to_bytes()


PLAIN = content_of()
FOUR_D = content_of(LABELS[..., None])
READABLE = {
    "vox_offset 356": patched(
        (OFFSET, "<f", 356.0), content=PLAIN[:352] + b"\1\2\3\4" + PLAIN[352:]
    ),
    "vox_offset 0": patched((OFFSET, "<f", 0.0)),
    "vox_offset 348": patched((OFFSET, "<f", 348.0), content=PLAIN[:348] + PLAIN[352:]),
    "negative pixdim": patched((PIXDIM + 4, "<3f", -1.0, -1.5, -2.0)),
    "qfac 0": patched((PIXDIM, "<f", 0.0)),
    "sform code 5": patched((SFORM_CODE, "<h", 5)),
    "extension": extended(),
    "big endian": swapped(),
    "one volume of 4-D": FOUR_D,
    "4-D of 0 volumes": patched((DIM + 8, "<h", 0), content=FOUR_D),
    "seven axes": patched((DIM, "<h", 7)),
    "sizeof_hdr 0": patched((0, "<i", 0)),
    "bitpix 8": patched((DATATYPE + 2, "<h", 8)),
    "slope NaN": patched((SLOPE, "<ff", np.nan, np.nan)),
    "slope 0": patched((SLOPE, "<ff", 0.0, 7.0)),
    "intercept NaN": patched((SLOPE, "<ff", 1.0, np.nan)),
    "NIfTI-2": nibabel.Nifti2Image(LABELS, AFFINE).to_bytes(),
    "float64": content_of(LABELS.astype(np.float64)),
    "int64": nibabel.Nifti1Image(LABELS.astype(np.int64), AFFINE, dtype=np.int64).to_bytes(),
    "gzipped": gzip.compress(PLAIN),
    "gzipped twice over": gzip.compress(PLAIN[:200]) + gzip.compress(PLAIN[200:]),
    "gzipped and padded": gzip.compress(PLAIN) + bytes(512),
}
# What nibabel refuses but FSL and ITK read.
BEYOND_NIBABEL = {"vox_offset 348", "negative pixdim", "4-D of 0 volumes", "intercept NaN",
                  "vox_offset 0", "sizeof_hdr 0"}  # fmt: skip


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("name", READABLE)
def test_what_other_tools_read_is_read(tmp_path, name, suffix):
    path = written(tmp_path, READABLE[name], f"v{suffix}")
    volume = read_labels(path)
    assert np.array_equal(volume.data, LABELS)
    assert np.allclose(volume.affine, AFFINE)
    assert volume.warnings == ()
    values, _ = read_intensities(path)
    assert np.array_equal(values, LABELS)
    if suffix == ".nii" and name not in BEYOND_NIBABEL and not name.startswith("gzipped"):
        image = nibabel.load(path)
        assert np.array_equal(np.asarray(image.dataobj).reshape(LABELS.shape), LABELS)


@pytest.mark.parametrize("suffix", [".mgh", ".mgz", ".MGZ"])
@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_freesurfer_volumes_are_read_gzipped_or_not(tmp_path, suffix, pack):
    volume = read_labels(written(tmp_path, pack(mgh()), f"v{suffix}"))
    assert np.array_equal(volume.data, LABELS)
    assert np.allclose(volume.affine, AFFINE)
    assert volume.warnings == ()


def scaled(stored, slope, intercept=0.0):
    content = content_of(stored)
    return patched((SLOPE, "<ff", np.float32(slope), np.float32(intercept)), content=content)


@pytest.mark.parametrize(
    "content",
    [
        scaled(LABELS * 127, 1 / 127),
        scaled(LABELS * 255, 1 / 255),
        scaled(LABELS * 499, 1 / 499),
        scaled(LABELS.astype(np.int32) * 30011, 1 / 30011),
        scaled(LABELS * 3 - 9, 1 / 3, 3),
        scaled((LABELS * 10).astype(np.float32), 0.1),
        scaled((LABELS * 10).astype(np.float64), 0.1),
        content_of((LABELS * np.float32(0.999999)).astype(np.float32)),
        content_of((LABELS + 1e-5).astype(np.float32)),
        content_of((LABELS - 1e-9).astype(np.float64)),
    ],
)
def test_labels_beside_an_integer_are_the_integer(tmp_path, content):
    data = read_labels(written(tmp_path, content)).data
    assert data.dtype.kind == "i"
    assert np.array_equal(data, LABELS)


def test_large_labels_survive_a_slope(tmp_path):
    labels = np.array([0, 2035, 11175, 12175, 14175], np.int32).reshape(5, 1, 1)
    path = written(tmp_path, scaled(labels * 1001, 1 / 1001))
    assert np.array_equal(read_labels(path).data, labels)


@pytest.mark.parametrize("worst", [0.5, 1.002, 2.9977654, 1234.25, -7.01])
def test_the_number_that_is_no_label_is_shown_whole(tmp_path, worst):
    values = np.zeros((3, 4, 5))
    values[0, 0, 0], values[1, 2, 3] = 1.0015, worst
    with pytest.raises(InputError, match="got 2 voxels such as") as caught:
        read_labels(written(tmp_path, content_of(values)))
    assert f"such as {worst:.9g} " in str(caught.value)


LYING = {
    "sides": patched((DIM, "<4h", 3, 32767, 32767, 32767)),
    "sides of NIfTI-2": patched(
        (16, "<4q", 3, 2**40, 2**40, 2**40), content=nibabel.Nifti2Image(LABELS, AFFINE).to_bytes()
    ),
    "offset": patched((OFFSET, "<f", 1e9)),
    "type": patched((DATATYPE, "<hh", 64, 64)),
    "one side": patched((DIM + 2, "<h", 4)),
    "too little": PLAIN[:-1],
    "small": PLAIN + bytes(2**21),
}


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
@pytest.mark.parametrize("name", LYING)
def test_sizes_are_checked_before_memory_is_taken(tmp_path, name, pack):
    path = written(tmp_path, pack(LYING[name]))
    with pytest.raises(InputError, match=r"bytes expected|far more than the") as caught:
        read_labels(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("form", [">3i", ">i"])
def test_sizes_of_freesurfer_volumes_are_checked(tmp_path, form):
    sides = [2**30] * 3 if form == ">3i" else [2**31 - 1]
    content = patched((4, form, *sides), content=mgh())
    for pack in (bytes, gzip.compress):
        with pytest.raises(InputError, match="bytes expected"):
            read_labels(written(tmp_path, pack(content), "v.mgz"))


def test_a_bomb_is_not_expanded(tmp_path):
    """A gzip file of 4 GB of zeros behind a header of 60 voxels takes no more than a few MB."""
    import resource

    packer = gzip.zlib.compressobj(wbits=31)
    parts = [packer.compress(PLAIN)]
    zeros = bytes(2**24)
    parts += [packer.compress(zeros) for _ in range(8)]
    path = written(tmp_path, b"".join([*parts, packer.flush()]), "v.nii.gz")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(InputError, match="holds far more than the 472 bytes"):
        read_labels(path)
    unit = 1 if sys.platform == "darwin" else 1024
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * unit < 2**25


def test_more_voxels_than_memory_are_said(tmp_path, monkeypatch):
    monkeypatch.setattr("foldnorm.preprocessing.core.resources.available_memory", lambda: 256)
    with pytest.raises(InputError, match=r"v\.nii.*does not fit into memory"):
        read_labels(written(tmp_path, gzip.compress(PLAIN)))


def test_a_few_bytes_too_many_are_said(tmp_path):
    volume = read_labels(written(tmp_path, PLAIN + bytes(16)))
    assert volume.warnings == ("16 bytes after its voxels are not accounted for by its header",)


@pytest.mark.parametrize(
    "data",
    [
        np.zeros((3, 4, 5), [("R", "u1"), ("G", "u1"), ("B", "u1")]),
        np.ones((3, 4, 5), np.complex64),
    ],
)
def test_neither_colours_nor_complex_numbers_are_grey(tmp_path, data):
    path = written(tmp_path, content_of(data))
    for read in (read_labels, read_intensities):
        with pytest.raises(InputError, match="got voxels of type"):
            read(path)


def source_of(tmp_path, **contents):
    folder = tmp_path / "source"
    folder.mkdir()
    for name, content in contents.items():
        (folder / f"sub-{name}.nii").write_bytes(content)
    return folder


def test_what_files_say_oddly_is_said_and_flagged(tmp_path, capsys):
    metres = np.diag([1e-3, 1e-3, 1e-3, 1])
    skeleton = skeleton_volume()
    source = source_of(
        tmp_path,
        plain=content_of(skeleton_volume(1), sform=np.eye(4), qform=np.eye(4)),
        metres=content_of(skeleton, sform=metres, qform=metres, unit="meter"),
        contradicting=content_of(skeleton_volume(2), sform=np.eye(4), qform=LAS),
    )
    out = tmp_path / "out"
    assert main(["preprocess", str(source), "-o", str(out), "--quiet", "--n-procs", "1"]) == 0
    said = capsys.readouterr().err
    assert "sub-metres: lengths are in metres" in said
    assert "sub-contradicting: sform (RAS) and qform (LAS) contradict each other on left" in said
    assert "sub-plain:" not in said
    rows = {row["participant_id"]: row for row in read_tsv(out / "qc.tsv")}
    assert "lengths are in metres" in rows["sub-metres"]["warnings"]
    assert "1 warning of its source" in rows["sub-contradicting"]["flags"]
    assert not rows["sub-plain"]["warnings"]
    sidecars = {name: read_json(out / f"sub-{name}/anat/sub-{name}_dseg.json")
                for name in ("metres", "plain")}  # fmt: skip
    assert "lengths are in metres" in sidecars["metres"]["FileWarnings"][0]
    assert "FileWarnings" not in sidecars["plain"]
    assert sidecars["metres"]["VoxelCounts"]["sulcus"] == int((skeleton > 11).sum())


def test_lengths_that_make_no_brain_are_refused_with_their_unit(tmp_path, capsys):
    source = source_of(
        tmp_path,
        fine=content_of(skeleton_volume(), sform=np.eye(4), qform=np.eye(4)),
        kilometre=content_of(skeleton_volume(), sform=np.eye(4), qform=np.eye(4), unit="meter"),
        micron=content_of(skeleton_volume(), sform=np.eye(4), qform=np.eye(4), unit="micron"),
    )
    words = ["-o", str(tmp_path / "out"), "--quiet", "--n-procs", "1"]
    assert main(["preprocess", str(source), *words]) == 1
    said = capsys.readouterr().err
    assert "more than 4096 voxels of 1 mm (lengths are in metres" in said
    assert "less than 2 voxels of 1 mm (lengths are in microns" in said
    assert main(["skeletonise", str(source), *words]) == 1
    assert "too thick to follow a sulcus, at most 4 mm (lengths are in metres" in (
        capsys.readouterr().err
    )


def test_assumed_directions_reach_every_reader(tmp_path, capsys):
    skeleton = skeleton_volume()
    skeleton[2:5] = 11  # not symmetrical
    source = source_of(tmp_path, a=content_of(skeleton, sform=LAS, qform=LAS, codes=(0, 0)))
    words = ["preprocess", str(source), "-o", str(tmp_path / "out"), "--quiet", "--n-procs", "1"]
    assert main(words) == 1
    assert "--assume ras or las" in capsys.readouterr().err
    assert main([*words, "--assume", "las"]) == 0
    assert "assumed to run las" in capsys.readouterr().err
    cohort = Cohort.open(tmp_path / "out")
    sidecar = read_json(tmp_path / "out/sub-a/anat/sub-a_dseg.json")
    assert sidecar["Assumed"] == "las"
    (source / "sub-a.nii").write_bytes(content_of(skeleton, sform=LAS, qform=LAS))
    assert main([*words[:3], str(tmp_path / "known"), *words[4:]]) == 0
    assert np.array_equal(cohort.volumes, Cohort.open(tmp_path / "known").volumes)
    (source / "sub-a.nii").write_bytes(content_of(skeleton, codes=(0, 0)))
    space = InputSpace.from_row(cohort, cohort.rows[0])
    assert space.path == source / "sub-a.nii"


def unoriented_table(folder, labels):
    """One volume that does not tell left from right, with a way to MNI space and a fold graph."""
    written(folder, content_of(labels, codes=(0, 0)))
    write_graph(folder)
    (folder / "t.xfm").write_text("Linear_Transform =\n1 0 0 -20\n0 1 0 0\n0 0 1 0;\n")
    row = "a\tv.nii\tL\tL1_session.arg\tt.xfm"
    table = folder / "list.tsv"
    table.write_text(f"participant_id\tpath\themi\tgraph\ttransform\n{row}\n")
    return str(table)


def test_folds_of_a_volume_without_directions_need_an_assumption(tmp_path, capsys):
    table = unoriented_table(tmp_path, LABELS)
    words = ["folds", table, "--n-procs", "1", "--quiet", "-o"]
    assert main([*words, str(tmp_path / "none")]) == 1
    assert "--assume ras or las" in capsys.readouterr().err
    assert main([*words, str(tmp_path / "las"), "--assume", "las"]) == 0
    places = [float(row["x_centre"]) + 20 for row in read_tsv(tmp_path / "las" / "folds.tsv")]
    assert places == [1.0, 0.0]  # mm from the middle of the volume, about which directions turn


def test_a_template_is_made_of_volumes_whose_directions_are_assumed(tmp_path, capsys):
    tissue = np.zeros((24, 24, 24), np.int16)
    tissue[4:20, 4:20, 4:20], tissue[4:8, 8:16, 8:16] = 100, 200
    table, out = unoriented_table(tmp_path, tissue), tmp_path / "t.nii.gz"
    words = ["template", table, "-o", str(out), "--quiet"]
    assert main(words) == 2
    assert "--assume ras or las" in capsys.readouterr().err
    for assume, beyond in (("ras", np.less), ("las", np.greater)):
        assert main([*words, "--assume", assume, "--overwrite"]) == 0
        made = read_labels(out)
        x = made.affine[0, 0] * np.argwhere(made.data == 200)[:, 0] + made.affine[0, 3]
        assert beyond(x.mean(), -20)
