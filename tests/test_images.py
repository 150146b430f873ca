"""Sources of images: what is read, whose it is, what becomes of the intensities."""

import gzip
import json

import nibabel
import numpy as np
import pytest
import tifffile
from PIL import Image

from foldnorm.pipeline.cli import main
from foldnorm.preprocessing.cohort.cohort import Cohort
from foldnorm.preprocessing.cohort.image_preparation import ImagePreparation, resized_to
from foldnorm.preprocessing.cohort.images import (
    ImageFile,
    find_images,
    read_idx,
    read_image,
    write_image,
)
from foldnorm.preprocessing.core.errors import InputError
from foldnorm.preprocessing.core.files import read_tsv

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (12, 16), dtype=np.uint8)


def save(path, pixels, mode=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".tif":
        tifffile.imwrite(path, pixels)
    else:
        Image.fromarray(pixels, mode).save(path)
    return path


def read(path, index=None):
    return read_image(ImageFile("a", "0", path, index))[0]


def idx(array):
    code = {np.dtype("u1"): 8, np.dtype(">f4"): 13}[array.dtype]
    head = bytes([0, 0, code, array.ndim]) + np.array(array.shape, ">u4").tobytes()
    return head + array.tobytes()


@pytest.fixture
def people(tmp_path):
    """Two classes, six people with three images each."""
    rows = ["file\tparticipant_id\tage"]
    for person in range(6):
        for n in range(3):
            name = f"{'ab'[person % 2]}/p{person}_{n}.png"
            save(tmp_path / "source" / name, RNG.integers(0, 256, (16, 16), dtype=np.uint8))
            rows.append(f"{name}\tsub-p{person}\t{40 + person}")
    (tmp_path / "source/participants.tsv").write_text("\n".join(rows) + "\n")
    return tmp_path / "source"


def cohort_of(source, out, *words):
    assert main(["images", str(source), "-o", str(out), "--quiet", *words]) == 0
    return Cohort.open(out)


def test_grey_values_are_read_as_they_are(tmp_path):
    sixteen = (GREY.astype(np.uint16) << 8) + 7
    assert np.array_equal(read(save(tmp_path / "a.png", GREY)), GREY)
    assert np.array_equal(read(save(tmp_path / "b.png", sixteen)), sixteen)
    assert np.array_equal(read(save(tmp_path / "c.tif", sixteen)), sixteen)
    assert read(tmp_path / "b.png").dtype == np.uint16
    stack = RNG.integers(0, 256, (5, 6, 7), dtype=np.uint8)
    assert np.array_equal(read(save(tmp_path / "d.tif", stack)), stack)


def test_colour_becomes_luminance(tmp_path):
    colour = RNG.integers(0, 256, (12, 16, 3), dtype=np.uint8)
    expected = np.rint(colour @ [0.299, 0.587, 0.114])
    assert np.array_equal(read(save(tmp_path / "a.png", colour)), expected)
    opaque = np.dstack([colour, np.full((12, 16), 255, np.uint8)])
    assert np.array_equal(read(save(tmp_path / "b.png", opaque)), expected)
    palette = Image.fromarray(colour).quantize(8)
    palette.save(tmp_path / "c.png")
    shown = np.asarray(palette.convert("RGB")) @ [0.299, 0.587, 0.114]
    assert np.array_equal(read(tmp_path / "c.png"), np.rint(shown))
    faint = np.dstack([GREY, np.full((12, 16), 255, np.uint8)])
    assert np.array_equal(read(save(tmp_path / "d.png", faint, "LA")), GREY)


def test_nifti_comes_in_one_order_of_axes(tmp_path):
    volume = RNG.normal(size=(4, 5, 6)).astype(np.float32)
    nibabel.save(nibabel.Nifti1Image(volume, np.diag([-1.0, 1, 1, 1])), tmp_path / "a.nii.gz")
    assert np.allclose(read(tmp_path / "a.nii.gz"), volume[::-1])


def test_other_programs_read_the_volumes_that_are_written(tmp_path):
    volume = np.linspace(-1, 1, 60, dtype=np.float32).reshape(3, 4, 5)
    write_image(tmp_path / "drawn", volume, 16)
    assert (nibabel.load(tmp_path / "drawn.nii.gz").get_fdata() == volume).all()


def test_idx_archives_are_read_with_their_labels(tmp_path):
    images = RNG.integers(0, 256, (5, 6, 7), dtype=np.uint8)
    labels = np.array([3, 1, 4, 1, 5], np.uint8)
    (tmp_path / "x-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(images)))
    (tmp_path / "x-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(labels)))
    sought = find_images(tmp_path)
    found, problems = sought.items, sought.problems
    assert not problems
    assert [image.known["class"] for image in found] == ["3", "1", "4", "1", "5"]
    assert np.array_equal([read_image(image)[0] for image in found], images)
    ones = find_images(tmp_path, classes=["1"]).items
    assert [image.index for image in ones] == [1, 3]


def test_damaged_archives_are_said_to_be(tmp_path):
    path = tmp_path / "images-idx3-ubyte"
    path.write_bytes(idx(np.zeros((2, 3, 3), np.uint8))[:-1])
    with pytest.raises(InputError, match=r"truncated: 34 bytes expected, got 33"):
        read_idx(path)
    for content in (b"", b"PK\3\4", b"\0\0\x09"):
        other = tmp_path / f"other{len(content)}"
        other.write_bytes(content)
        with pytest.raises(InputError, match=r"not an idx archive"):
            read_idx(other)
    squeezed = tmp_path / "images-idx3-ubyte.gz"
    squeezed.write_bytes(gzip.compress(idx(np.zeros((2, 3, 3), np.uint8)))[:-9])
    with pytest.raises(InputError, match="truncated or damaged gzip"):
        read_idx(squeezed)
    lying = tmp_path / "lying-images-idx3-ubyte"
    head = b"\0\0\x0e\3" + b"\x7f\xff\xff\xff" * 3
    for content in (head, gzip.compress(head + bytes(999))):
        lying.write_bytes(content)
        with pytest.raises(InputError, match=r"truncated: .* bytes expected"):
            read_idx(lying)
    lying.write_bytes(gzip.compress(idx(np.zeros((2, 3, 3), np.uint8)) + bytes(2**21)))
    with pytest.raises(InputError, match="far more than the 34 bytes"):
        read_idx(lying)


def test_images_of_one_person_share_a_split(people, tmp_path):
    cohort = cohort_of(people, tmp_path / "cohort", "--split-fractions", ".4", ".3", ".3")
    splits = {}
    for row in cohort.rows:
        splits.setdefault(row["participant_id"], set()).add(row["split"])
    assert len(splits) == 6
    assert all(len(found) == 1 for found in splits.values())
    assert len({key for found in splits.values() for key in found}) > 1
    assert len(set(cohort.keys())) == 18
    assert {row["age"] for row in cohort.rows} == {str(40 + n) for n in range(6)}


def test_line_breaks_in_a_table_do_not_break_the_cohort(people, tmp_path):
    lines = ['file,participant_id,"age\n(years)"']
    for row in read_tsv(people / "participants.tsv"):
        lines.append(f'{row["file"]},{row["participant_id"]},"a\r\nb"')
    table = tmp_path / "table.csv"
    table.write_bytes("\r\n".join(lines).encode())
    cohort = cohort_of(people, tmp_path / "cohort", "--table", str(table))
    assert {row["age (years)"] for row in cohort.rows} == {"a b"}


def test_without_a_table_each_image_is_alone(people, tmp_path):
    (people / "participants.tsv").unlink()
    cohort = cohort_of(people, tmp_path / "cohort")
    assert len({row["participant_id"] for row in cohort.rows}) == 18
    assert {row["class"] for row in cohort.rows} == {"a", "b"}


def test_a_table_of_something_else_is_left_alone(people):
    (people / "participants.tsv").write_text("participant_id\tage\nsub-1\t3\n")
    assert len(find_images(people).items) == 18
    with pytest.raises(InputError, match="file and participant_id"):
        find_images(people, table=people / "participants.tsv")


def test_what_the_table_and_the_folder_do_not_share_is_said(people, tmp_path, capsys):
    save(people / "a/stranger.png", GREY)
    (people / "a/p0_0.png").unlink()
    assert main(["images", str(people), "-o", str(tmp_path / "cohort"), "--quiet"]) == 1
    said = capsys.readouterr().err
    assert "a/stranger.png: the table does not say whose it is" in said
    assert "a/p0_0.png: the table names it" in said
    assert len(Cohort.open(tmp_path / "cohort").rows) == 17


def test_one_bad_image_does_not_end_the_others(people, tmp_path, capsys):
    (people / "a/p0_1.png").write_bytes((people / "a/p0_1.png").read_bytes()[:40])
    save(people / "b/p1_1.png", np.zeros((16, 17), np.uint8))
    save(people / "b/p1_2.png", np.zeros((16, 16), np.uint16))
    assert main(["images", str(people), "-o", str(tmp_path / "cohort"), "--quiet"]) == 1
    said = capsys.readouterr().err
    assert "not readable as an image" in said
    assert "(16, 17) pixels, expected (16, 16) as the others or the model have them" in said
    assert "expected values of 8 bits as the others have, got uint16" in said
    cohort = Cohort.open(tmp_path / "cohort")
    assert cohort.volumes.shape == (15, 16, 16)
    report = json.loads((tmp_path / "cohort/run_report.json").read_text())
    assert report["done"] == 15
    assert len(report["failed"]) == 3


def test_intensities_go_from_minus_one_to_one(tmp_path):
    save(tmp_path / "source/a.png", np.tile(np.array([0, 128, 255, 64], np.uint8), (8, 2)))
    cohort = cohort_of(tmp_path / "source", tmp_path / "cohort")
    (brain,) = cohort.brains([0])
    expected = 2 * np.array([0, 128, 255, 64]) / 255 - 1
    assert brain.volume.dtype == np.float32
    assert np.allclose(brain.volume[0, :4], expected, atol=1e-6)


def test_a_window_and_percentiles_are_recorded(tmp_path):
    pixels = np.linspace(-50, 150, 8**3, dtype=np.float32).reshape(8, 8, 8)
    (tmp_path / "source").mkdir()
    nibabel.save(nibabel.Nifti1Image(pixels, np.eye(4)), tmp_path / "source/a.nii.gz")
    window = cohort_of(tmp_path / "source", tmp_path / "w", "--intensities=0,100")
    (brain,) = window.brains([0])
    assert np.allclose(brain.volume, np.clip(pixels / 50 - 1, -1, 1), atol=1e-4)
    ends = cohort_of(tmp_path / "source", tmp_path / "p")
    low, high = np.percentile(pixels, (0.5, 99.5))
    assert float(ends.rows[0]["low"]) == pytest.approx(low, rel=1e-4)
    assert float(ends.rows[0]["high"]) == pytest.approx(high, rel=1e-4)
    assert ends.preparation["intensities"]["rule"] == "percentiles"
    assert ends.shape == (8, 8, 8)


def test_resizing_keeps_the_aspect_and_the_mean():
    tall = np.zeros((80, 40), np.uint8)
    tall[20:60, 10:30] = 200
    small = resized_to(tall, (40, 40), None)
    assert small.shape == (40, 40)
    rows, columns = np.nonzero(small > 100)
    assert np.ptp(rows) + 1 == 20
    assert np.ptp(columns) + 1 == 10  # not stretched to the square
    assert columns.mean() == pytest.approx(19.5)  # padded on both sides
    assert 4.0 * small.sum() == pytest.approx(tall.sum(), rel=0.02)


def test_a_finished_cohort_is_skipped_and_another_is_refused(people, tmp_path, capsys):
    cohort_of(people, tmp_path / "cohort")
    before = (tmp_path / "cohort/volumes.npy").read_bytes()
    assert main(["images", str(people), "-o", str(tmp_path / "cohort")]) == 0
    assert "(18 of them before)" in capsys.readouterr().out
    assert main(["images", str(people), "-o", str(tmp_path / "cohort"), "--shape", "8"]) == 2
    assert "prepared before with another preparation" in capsys.readouterr().err
    save(people / "a/p0_0.png", np.zeros((16, 16), np.uint8))
    assert main(["images", str(people), "-o", str(tmp_path / "cohort")]) == 2
    assert "sources_sha256" in capsys.readouterr().err
    assert (tmp_path / "cohort/volumes.npy").read_bytes() == before
    assert main(["images", str(people), "-o", str(tmp_path / "cohort"), "--overwrite"]) == 0
    assert not list((tmp_path / "cohort").glob("tmp*"))


def test_another_cohort_is_prepared_alike(people, tmp_path):
    first = cohort_of(people, tmp_path / "first", "--shape", "8", "--intensities", "10,90")
    second = cohort_of(people, tmp_path / "second", "--layout-from", str(tmp_path / "first"))
    assert second.preparation == first.preparation
    assert second.shape == (8, 8)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--shape", "4"], "--shape: expected"),
        (["--shape", "9,x"], "--shape: expected"),
        (["--shape", "8,8,8,8"], "--shape: expected"),
        (["--shape", "8,8,8"], "expected 3 axes"),
        (["--intensities", "5"], "--intensities: expected"),
        (["--intensities", "9,3"], "--intensities: expected"),
        (["--classes", "c"], "no image of class 'c'; there are a, b"),
    ],
)
def test_nonsense_is_refused_in_one_line(people, tmp_path, capsys, words, said):
    assert main(["images", str(people), "-o", str(tmp_path / "cohort"), *words]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


def test_no_images_are_said_to_be_none(tmp_path, capsys):
    assert main(["images", str(tmp_path / "nowhere"), "-o", str(tmp_path / "cohort")]) == 2
    (tmp_path / "empty").mkdir()
    assert main(["images", str(tmp_path / "empty"), "-o", str(tmp_path / "cohort")]) == 2
    assert "no image found" in capsys.readouterr().err


def test_commands_of_label_volumes_refuse_images(people, tmp_path, capsys):
    cohort_of(people, tmp_path / "cohort")
    out = str(tmp_path / "out")
    for words in (
        ["train", "beta_vae", str(tmp_path / "cohort"), "-o", out],
        ["alter", str(tmp_path / "cohort"), "-o", out, "--size", "500", "--kind", "ball"],
    ):
        assert main(words) == 2
        error = capsys.readouterr().err
        assert "cohort of images" in error
        assert error.count("\n") == 1


def test_preprocess_says_who_takes_pictures(people, tmp_path, capsys):
    assert main(["preprocess", str(people), "-o", str(tmp_path / "cohort")]) == 2
    assert "foldnorm images takes pictures" in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    assert main(["preprocess", str(tmp_path / "empty"), "-o", str(tmp_path / "cohort")]) == 2
    assert "pictures" not in capsys.readouterr().err


def test_preparation_survives_its_record():
    own = ImagePreparation((8, 9), "window", 1.0, 2.0, 16)
    assert ImagePreparation.from_record(json.loads(json.dumps(own.as_dict()))) == own


def test_real_slices_and_digits(real_data, tmp_path):
    slices = cohort_of(real_data / "brain_slices", tmp_path / "slices", "--shape", "64")
    assert len(slices.rows) == 1200
    people = {}
    for row in slices.rows:
        people.setdefault(row["participant_id"], set()).add(row["split"])
    assert len(people) == 75
    assert all(len(splits) == 1 for splits in people.values())
    digits = cohort_of(real_data / "mnist", tmp_path / "digits")
    assert digits.volumes.shape == (10000, 28, 28)
    assert digits.volumes.mean() == pytest.approx(33.79, abs=0.01)  # of the 10,000 test digits
