"""A source of broken volumes: each is one clear line, and none stops the others."""

import contextlib
import gzip
import struct

import nibabel
import numpy as np
import pytest
from conftest import skeleton_volume, write_nifti
from hypothesis import given, settings
from hypothesis import strategies as st
from test_fold_graph import ARG, write_graph
from test_fold_table import TALAIRACH

from foldnorm.pipeline.cli import main
from foldnorm.preprocessing.cohort.cohort import Cohort
from foldnorm.preprocessing.cohort.preparation import Preparation
from foldnorm.preprocessing.cohort.prepare_volume import prepare_volume
from foldnorm.preprocessing.core.errors import InputError
from foldnorm.preprocessing.core.files import read_json
from foldnorm.preprocessing.io.schemes import SKELETON
from foldnorm.preprocessing.io.source_volume import Companions, SourceVolume
from foldnorm.preprocessing.io.volumes import read_labels
from foldnorm.preprocessing.spatial.space import read_trm

GOOD = gzip.compress(nibabel.Nifti1Image(skeleton_volume(), np.eye(4)).to_bytes(), mtime=0)
PLAIN = gzip.decompress(GOOD)


def header(place, form, *values):
    """The good file with other bytes in its header."""
    content = bytearray(PLAIN)
    struct.pack_into(form, content, place, *values)
    return gzip.compress(bytes(content))


def image(data, affine=None):
    return gzip.compress(
        nibabel.Nifti1Image(data, np.eye(4) if affine is None else affine).to_bytes()
    )


def turned():
    angle = np.radians(20)
    affine = np.eye(4)
    affine[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    return affine


BROKEN = {
    "empty": (b"", "empty file"),
    "text": (b"not an image", "not a NIfTI file"),
    "truncated": (GOOD[: len(GOOD) // 2], "truncated or damaged"),
    "checksum": (GOOD[:-8] + b"\0\0\0\0" + GOOD[-4:], "checksum"),
    "garbage": (gzip.compress(b"\xff" * 500), "not a NIfTI file"),
    "fewvoxels": (gzip.compress(PLAIN[:-100]), "truncated"),
    "headeronly": (gzip.compress(PLAIN[:348]), "truncated"),
    "shortheader": (gzip.compress(PLAIN[:100]), "not a NIfTI file"),
    "magic": (header(344, "4s", b"abcd"), "not a NIfTI file"),
    "pairheader": (header(344, "4s", b"ni1\0"), ".hdr and .img"),
    "nineaxes": (header(40, "<h", 9), "expected 3 axes, got 9"),
    "negativeaxes": (header(40, "<h", -128), "expected 3 axes, got -128"),
    "sideless": (header(252, "<hh", 0, 0), "left and right cannot be known"),
    "offsetinheader": (header(108, "<f", 100.0), "vox_offset is 100"),
    "datatype": (header(70, "<h", 999), "unknown NIfTI data type, code 999"),
    "bomb": (gzip.compress(PLAIN + bytes(2**21)), "holds far more than"),
    "complexvoxels": (image(np.zeros((3, 3, 3), np.complex64)), "complex64"),
    "colours": (header(70, "<h", 128), "bytes expected"),
    "terabytes": (header(40, "<8h", 3, 32767, 32767, 32767, 1, 1, 1, 1), "bytes expected"),
    "negativedim": (header(40, "<8h", 3, 24, -24, 24, 1, 1, 1, 1), "empty side"),
    "zerodim": (header(40, "<8h", 3, 24, 0, 24, 1, 1, 1, 1), "empty side"),
    "nodim": (header(40, "<8h", 0, 24, 24, 24, 1, 1, 1, 1), "3-D volume"),
    "fourdim": (image(np.zeros((3, 3, 3, 2), np.int16)), "3-D volume"),
    "twodim": (image(np.zeros((3, 3), np.int16)), "3-D volume"),
    "nan": (image(np.full((3, 3, 3), np.nan, np.float32)), "NaN"),
    "vastlabels": (image(np.full((3, 3, 3), 1e20, np.float32)), "got 1e+20"),
    "fractions": (image(np.full((3, 3, 3), 0.5, np.float32)), "such as 0.5"),
    "singular": (header(296, "<4f", 0, 0, 0, 0), "singular"),  # srow_y
    "rotated": (image(skeleton_volume(), turned()), "rotated by 20"),
    "nothing": (image(np.full((9, 9, 9), 11, np.int16)), "empty volume"),
    "nosulcus": (image(np.zeros((9, 9, 9), np.int16)), "no voxel of class 'sulcus'"),
    "vastvoxels": (image(skeleton_volume(), np.diag([1e6, 1e6, 1e6, 1])), "voxels of"),
}


def test_twenty_five_broken_volumes_are_twenty_five_lines(tmp_path, capsys):
    source = tmp_path / "source"
    source.mkdir()
    for name, (content, _) in BROKEN.items():
        (source / f"sub-{name}.nii.gz").write_bytes(content)
    (source / "sub-loop.nii.gz").symlink_to("sub-loop.nii.gz")
    (source / "sub-gone.nii.gz").symlink_to("nowhere.nii.gz")
    (source / "sub-good1.nii.gz").write_bytes(GOOD)
    (source / "sub-good2.nii.gz").write_bytes(image(skeleton_volume(1)))
    out = tmp_path / "out"
    assert main(["preprocess", str(source), "-o", str(out), "--n-procs", "1", "--quiet"]) == 1
    lines = capsys.readouterr().err.splitlines()
    expected = {f"sub-{name}": reason for name, (_, reason) in BROKEN.items()}
    expected |= {"sub-loop": "symbolic links", "sub-gone": "no such file"}
    assert len(lines) == len(expected)
    for line in lines:
        key, reason = line.removeprefix("foldnorm: ").split(": ", 1)
        assert expected[key] in reason, line
        assert "unexpected" not in reason, line
        assert f"{key}.nii.gz" in reason, line
    assert Cohort.open(out).keys() == ["sub-good1", "sub-good2"]
    assert {f["volume"] for f in read_json(out / "run_report.json")["failed"]} == set(expected)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out", "source"]


COMPANIONS = {
    "cutgraph": ({"graph": ARG[: len(ARG) // 2]}, "truncated fold graph"),
    "nograph": ({"graph": "hello"}, "not a fold graph"),
    "threenumbers": ({"transform": "1 2 3"}, "four lines of three numbers"),
    "flat": ({"transform": "0 0 0\n" + "0 0 0\n" * 3}, "not an affine transform"),
    "faraway": ({"transform": "9e9 0 0\n1 0 0\n0 1 0\n0 0 1\n"}, "outside MNI space"),
    "missing": ({}, "no transform to MNI space"),
}


def test_broken_graphs_and_transforms_are_one_line_each(tmp_path, capsys):
    (tmp_path / "a.nii.gz").write_bytes(GOOD)
    good = "0 0 0\n-1 0 0\n0 -1 0\n0 0 -1\n"
    rows = ["participant_id\tpath\tgraph\ttransform"]
    for name, (files, _) in {**COMPANIONS, "fine": ({"transform": good}, "")}.items():
        graph, transform = tmp_path / f"{name}.arg", tmp_path / f"{name}.trm"
        if "graph" in files:
            graph.write_text(files["graph"])
        text = files.get("transform", good if "graph" in files else None)
        if text is not None:
            transform.write_text(text)
        cells = [path.name if path.exists() else "n/a" for path in (graph, transform)]
        rows.append("\t".join([name, "a.nii.gz", *cells]))
    (tmp_path / "list.tsv").write_text("\n".join(rows) + "\n")
    words = ["--space", "mni", "--n-procs", "1", "--quiet"]
    assert (
        main(["preprocess", str(tmp_path / "list.tsv"), "-o", str(tmp_path / "out"), *words]) == 1
    )
    shared, *lines = capsys.readouterr().err.splitlines()
    assert "one file of 7 participants" in shared
    assert len(lines) == len(COMPANIONS)
    for line in lines:
        key, reason = line.removeprefix("foldnorm: sub-").split(": ", 1)
        assert COMPANIONS[key][1] in reason, line
    assert Cohort.open(tmp_path / "out").keys() == ["sub-fine"]


def test_a_bucket_with_a_wrong_count_fails_its_hemisphere_only(tmp_path, capsys):
    text = ARG.replace("filename_base", TALAIRACH + "filename_base")
    graph = write_graph(tmp_path / "g", text)
    bucket = graph.with_suffix(".data") / "ss_Bucket.bck"
    content = bytearray(bucket.read_bytes())
    content[33:37] = struct.pack("<I", 9)
    bucket.write_bytes(content)
    write_nifti(tmp_path / "a.nii.gz", skeleton_volume())
    (tmp_path / "list.tsv").write_text(
        "participant_id\tpath\tgraph\n1\ta.nii.gz\tg/L1_session.arg\n2\ta.nii.gz\tn/a\n"
    )
    out = tmp_path / "out"
    assert main(["preprocess", str(tmp_path / "list.tsv"), "-o", str(out), "--quiet"]) == 1
    assert "truncated bucket file" in capsys.readouterr().err
    assert Cohort.open(out).keys() == ["sub-2"]


@pytest.mark.parametrize(
    ("participant", "key"),
    [("007", "sub-007"), ("1e5", "sub-1e5"), ("--help", "sub-help"), ("Zoë 1", "sub-Zoe1"),
     ("../../x", "sub-x"), ("/etc/passwd", "sub-etcpasswd"), ("sub-9", "sub-9")],
)  # fmt: skip
def test_odd_ids_and_paths_stay_inside_the_output_folder(tmp_path, participant, key):
    folder = tmp_path / "a folder with é, spaces"
    write_nifti(folder / "in/a b é.nii.gz", skeleton_volume())
    table = folder / "in/list.tsv"
    table.write_text(f"participant_id\tpath\n{participant}\ta b é.nii.gz\n", encoding="utf-8")
    out = folder / "out"
    assert main(["preprocess", str(table), "-o", str(out), "--quiet", "--n-procs", "1"]) == 0
    assert Cohort.open(out).keys() == [key]
    assert list(tmp_path.iterdir()) == [folder]
    assert set(folder.iterdir()) == {folder / "in", out}


@settings(max_examples=400)
@given(st.data())
def test_no_damage_to_a_header_crashes_the_volume_reader(tmp_path_factory, data):
    """Bytes changed, mostly within the header; anything but a volume is our own error."""
    content = bytearray(PLAIN)
    for _ in range(data.draw(st.integers(1, 6))):
        place = data.draw(st.one_of(st.integers(0, 351), st.integers(0, len(content) - 1)))
        content[place] = data.draw(st.integers(0, 255))
    content = content[: data.draw(st.integers(300, len(content)))]
    path = tmp_path_factory.mktemp("header") / "a.nii"
    path.write_bytes(content)
    with contextlib.suppress(InputError):
        volume = read_labels(path)
        assert volume.data.ndim == 3
        assert volume.data.dtype.kind in "iub"
        assert np.isfinite(volume.affine).all()


@given(st.data())
def test_no_damage_crashes_the_decompression(tmp_path_factory, data):
    content = bytearray(GOOD)
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.mktemp("gzip") / "a.nii.gz"
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    with contextlib.suppress(InputError):
        # The checksum lets nothing else through.
        assert (read_labels(path).data == skeleton_volume()).all()


NUMBER = st.one_of(
    st.floats().map(str), st.integers().map(str), st.sampled_from(["1", "0", "-1", "1e400", "x"])
)


@given(st.one_of(
    st.binary(max_size=200),
    st.lists(st.lists(NUMBER, max_size=4).map(" ".join), max_size=6).map("\n".join).map(str.encode),
))  # fmt: skip
def test_no_text_crashes_the_reader_of_transforms(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("trm") / "a.trm"
    path.write_bytes(content)
    with contextlib.suppress(InputError):
        assert np.isfinite(np.linalg.inv(read_trm(path))).all()


@settings(max_examples=40)
@given(st.data())
def test_no_damage_to_a_volume_crashes_its_preparation(tmp_path_factory, data):
    """The whole chain, into MNI space: a readable volume of odd voxels is no crash either."""
    folder = tmp_path_factory.mktemp("chain")
    content = bytearray(PLAIN)
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(40, 351))] = data.draw(st.integers(0, 255))
    (folder / "a.nii").write_bytes(content)
    (folder / "t.trm").write_text("1 2 3\n1 0 0\n0 1 0\n0 0 1\n")
    source = SourceVolume("a", "L", folder / "a.nii", Companions(transform=folder / "t.trm"))
    for space in ("native", "mni"):
        with contextlib.suppress(InputError):
            prepared = prepare_volume(source, Preparation(SKELETON, 2.0, space=space))
            assert prepared.classes.max() == SKELETON.top
            assert prepared.bounds.shape == prepared.classes.shape
