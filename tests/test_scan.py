"""Nothing of a source is left out without a word: links, pointers, hidden and foreign files."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from conftest import skeleton_source, skeleton_volume, write_nifti
from PIL import Image

from foldnorm.pipeline.cli import main
from foldnorm.preprocessing.cohort.images import find_images, read_image
from foldnorm.preprocessing.core.errors import InputError
from foldnorm.preprocessing.core.files import read_json
from foldnorm.preprocessing.io.inspection import UNNAMED, inspect_source
from foldnorm.preprocessing.io.layouts import SEGMENTATION
from foldnorm.preprocessing.io.scan import fault_of, scan, unused_line
from foldnorm.preprocessing.io.sources import Source, find_volumes
from foldnorm.preprocessing.io.volumes import read_labels, write_labels

SMALL = np.zeros((2, 2, 2), np.int16)
MORPHOLOGIST = "t1mri/default_acquisition/default_analysis/segmentation"
LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"


def volume(path):
    write_nifti(path, SMALL)
    return path


def keys(source, stem="skeleton"):
    return [v.key for v in find_volumes([Source(source)], stem).items]


def reasons(source, stem="skeleton"):
    """Reason by name of what is not used."""
    return {one.path.name: one.reason for one in find_volumes([Source(source)], stem).unused}


def picture(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(path)


@pytest.fixture
def flat(tmp_path):
    """A folder of one volume, to which something is added."""
    volume(tmp_path / "flat/sub-01.nii.gz")
    return tmp_path / "flat"


@pytest.mark.parametrize("target", ["store/s0", "tree/.store/s0"], ids=["outside", "hidden"])
def test_links_to_folders_of_subjects_are_followed(tmp_path, target):
    volume(tmp_path / target / MORPHOLOGIST / "Lskeleton_s0.nii.gz")
    volume(tmp_path / "tree/s1" / MORPHOLOGIST / "Lskeleton_s1.nii.gz")
    (tmp_path / "tree/s0").symlink_to(tmp_path / target)
    assert keys(tmp_path / "tree") == ["sub-s0_hemi-L", "sub-s1_hemi-L"]


@pytest.mark.parametrize("target", [".", "..", "../..", "loop"])
def test_cycles_of_links_end_and_are_said(flat, target):
    (flat / "sub").mkdir()
    (flat / "sub/loop").symlink_to(target)
    assert keys(flat) == ["sub-01"]
    assert "cycle of symbolic links" in reasons(flat)["loop"]


def test_a_folder_is_read_once_and_by_its_own_name(tmp_path):
    subject = tmp_path / "tree/s1"
    volume(subject / MORPHOLOGIST / "Lskeleton_s1.nii.gz")
    (tmp_path / "tree/a_link").symlink_to(subject)
    (found,) = find_volumes([Source(tmp_path / "tree")], "skeleton").items
    assert found.path.is_relative_to(subject)
    assert reasons(tmp_path / "tree")["a_link"] == "link to what is read under another name"


def test_a_link_to_a_file_that_is_read_is_no_second_person(flat):
    (flat / "newest.nii.gz").symlink_to("sub-01.nii.gz")
    assert keys(flat) == ["sub-01"]
    assert reasons(flat)["newest.nii.gz"] == "link to what is read under another name"


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("._sub-02.nii.gz", "hidden"),
        (".git", "hidden"),
        ("sub-02.nii.gz.part", "format not read (.part)"),
        ("sub-02.nii.gz~", "format not read"),
        ("sub-02.nii (1).gz", "format not read"),
        ("sub-02.img", "format not read (.img)"),
        ("sub-02.nrrd", "format not read (.nrrd)"),
        ("sub-02.nii.bz2", "format not read (.bz2)"),
        ("sub-02_T1w.nii.gz", "another kind of volume"),
        ("notes.txt", "no volume"),
        ("sub-02.png", "picture"),
    ],
)
def test_what_is_not_read_is_named_with_the_reason(flat, name, reason):
    (flat / name).write_bytes(b"x")
    assert keys(flat) == ["sub-01"]
    assert reason in reasons(flat)[name]


@pytest.mark.parametrize("name", ["sub-02.NII.GZ", "sub-02.Nii", "sub-02.MGZ"])
def test_the_case_of_a_suffix_means_nothing(flat, name):
    (flat / name).write_bytes(b"x")
    assert keys(flat) == ["sub-01", "sub-02"]


def test_a_volume_of_upper_case_suffix_is_read(tmp_path):
    write_labels(tmp_path / "a.nii.gz", skeleton_volume(0), np.eye(4))
    (tmp_path / "a.nii.gz").rename(tmp_path / "A.NII.GZ")
    assert np.array_equal(read_labels(tmp_path / "A.NII.GZ").data, skeleton_volume(0))


def pointer(path, kind):
    path.parent.mkdir(parents=True, exist_ok=True)
    if kind == "annex link":
        path.symlink_to("../.git/annex/objects/xx/yy/MD5E-s9--0.nii.gz")
    elif kind == "annex file":
        path.write_text("/annex/objects/MD5E-s9--0.nii.gz\n")
    elif kind == "lfs":
        path.write_text(LFS)
    else:
        path.symlink_to("nowhere")


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("annex link", "not fetched (git-annex"),
        ("annex file", "not fetched (git-annex"),
        ("lfs", "not fetched (git-LFS"),
        ("dangling", "dangling link"),
    ],
)
def test_a_volume_that_is_only_a_pointer_is_a_problem_of_its_own(flat, kind, reason):
    pointer(flat / "sub-02.nii.gz", kind)
    found = find_volumes([Source(flat)], "skeleton")
    assert [v.key for v in found.items] == ["sub-01"]
    (problem,) = found.problems
    assert problem.key == "sub-02"
    assert problem.reason.startswith(reason) or reason in problem.reason
    pointer(flat / "b.png", kind)
    picture(flat / "a.png")
    images = find_images(flat)
    assert any(p.key.endswith("b.png") and reason in p.reason for p in images.problems)
    pointer(flat / "p01/mri/aseg.mgz", kind)
    (problem,) = find_volumes([Source(flat)], SEGMENTATION).problems
    assert (problem.key, reason in problem.reason) == ("sub-p01", True)


def test_a_small_volume_is_no_pointer(tmp_path):
    assert fault_of(volume(tmp_path / "a.nii")) == ""


def test_a_folder_that_cannot_be_read_is_said(flat, monkeypatch):
    (flat / "locked").mkdir()
    scandir = os.scandir

    def refuse(folder):
        if Path(folder).name == "locked":
            raise PermissionError(13, "Permission denied")
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", refuse)
    assert reasons(flat)["locked"] == "folder not readable (Permission denied)"


@pytest.mark.parametrize("name", ["fsaverage", "fsaverage5", "cvs_avg35", "p1_base", "p1.long.b"])
def test_templates_and_longitudinal_runs_of_freesurfer_are_nobody(tmp_path, name):
    for subject in ("subjects/p1", f"store/{name}"):
        volume(tmp_path / subject / "mri/aparc+aseg.mgz")
    (tmp_path / f"subjects/{name}").symlink_to(tmp_path / f"store/{name}")
    tmp_path = tmp_path / "subjects"
    assert keys(tmp_path, SEGMENTATION) == ["sub-p1"]
    assert "FreeSurfer" in reasons(tmp_path, SEGMENTATION)[name]


def test_a_template_behind_a_link_of_another_name_is_nobody(tmp_path):
    volume(tmp_path / "store/fsaverage/mri/aseg.mgz")
    volume(tmp_path / "subjects/p1/mri/aseg.mgz")
    (tmp_path / "subjects/x").symlink_to(tmp_path / "store/fsaverage")
    assert keys(tmp_path / "subjects", SEGMENTATION) == ["sub-p1"]


def test_skeletons_that_were_written_into_the_source_are_no_second_source(tmp_path):
    volume(tmp_path / "s1.nii.gz")
    volume(tmp_path / f"out/s1/{MORPHOLOGIST}/Lgrey_white_s1.nii.gz")
    (tmp_path / "out/run_report.json").write_text("{}")
    assert keys(tmp_path, SEGMENTATION) == ["sub-s1"]
    assert reasons(tmp_path, SEGMENTATION)["out"] == "output of foldnorm"


def test_trees_of_skeletons_are_read_beside_one_another_as_sources_of_a_cohort(tmp_path):
    for part, subject in (("one", "s1"), ("two", "s2")):
        volume(tmp_path / part / subject / MORPHOLOGIST / f"Lskeleton_{subject}.nii.gz")
        (tmp_path / part / "run_report.json").write_text("{}")
    volume(tmp_path / "scores/Lskeleton_s3.nii.gz")
    (tmp_path / "scores/run_report.json").write_text("{}")
    assert keys(tmp_path) == ["sub-s1_hemi-L", "sub-s2_hemi-L"]
    for name in ("dataset_description.json", "volumes.npy"):  # of a cohort, whatever lies in it
        (tmp_path / "cohort/s4" / MORPHOLOGIST).mkdir(parents=True, exist_ok=True)
        (tmp_path / "cohort" / name).write_text("{}")
    of_output = dict.fromkeys(("cohort", "scores"), "output of foldnorm")
    assert reasons(tmp_path) == {"run_report.json": "no volume", **of_output}
    inspection = inspect_source([Source(tmp_path)])
    assert [v.key for v in inspection.volumes["skeleton"]] == keys(tmp_path)
    unused = [one.path.name for one in inspection.unused if one.reason == "output of foldnorm"]
    assert unused == [*of_output]


def test_time_points_of_one_base_are_one_person(tmp_path):
    for name in ("a1", "a2", "base9", "a1.long.base9", "a2.long.base9", "b1"):
        volume(tmp_path / name / "mri/aseg.mgz")
    assert keys(tmp_path, SEGMENTATION) == ["sub-a1", "sub-b1"]
    assert "another time point" in reasons(tmp_path, SEGMENTATION)["a2"]
    assert "base" in reasons(tmp_path, SEGMENTATION)["base9"]


@pytest.mark.parametrize("name", ["base-tps", "base-tps.fastsurfer"])
def test_a_base_is_known_by_what_it_was_made_of(tmp_path, name):
    for subject in ("p1_1", "p1_2", "p1", "q1"):
        volume(tmp_path / subject / "mri/aseg.mgz")
    (tmp_path / "p1" / name).write_text("p1_2\np1_1\n")
    assert keys(tmp_path, SEGMENTATION) == ["sub-p11", "sub-q1"]
    assert "base" in reasons(tmp_path, SEGMENTATION)["p1"]
    assert "another time point" in reasons(tmp_path, SEGMENTATION)["p1_2"]


@pytest.mark.parametrize(
    ("folder", "stem"),
    [("s2/t1mri/t1", "skeleton"), ("s2/mri", SEGMENTATION), ("sub-s2/anat", "skeleton")],
)
def test_a_participant_without_a_volume_is_said(tmp_path, folder, stem):
    kept = {"skeleton": f"s1/{MORPHOLOGIST}/Lskeleton_s1.nii.gz", SEGMENTATION: "s1/mri/aseg.mgz"}
    volume(tmp_path / kept[stem])
    (tmp_path / folder).mkdir(parents=True)
    assert "participant without a volume" in reasons(tmp_path, stem)[folder.split("/")[0]]


def test_a_cohort_is_no_source_and_is_not_entered(tmp_path, capsys):
    source = skeleton_source(tmp_path / "source", 4)
    words = ["--n-procs", "1", "--quiet"]
    assert main(["preprocess", str(source), "-o", str(source / "out"), *words]) == 0
    assert keys(source) == [f"sub-s{n:02d}" for n in range(4)]
    assert reasons(source)["out"] == "output of foldnorm"
    assert main(["preprocess", str(source / "out"), "-o", str(tmp_path / "b"), *words]) == 2
    assert "a cohort of foldnorm already" in capsys.readouterr().err


def test_a_line_and_the_report_say_how_many_files_are_not_used(tmp_path, capsys):
    source = skeleton_source(tmp_path / "source", 4)
    for name in (".DS_Store", ".hidden", "sub-9.nrrd", "README"):
        (source / name).touch()
    out = tmp_path / "out"
    assert main(["preprocess", str(source), "-o", str(out), "--n-procs", "1", "--quiet"]) == 0
    (line,) = capsys.readouterr().err.splitlines()
    assert "4 files or folders not used: 2 hidden (such as .DS_Store)" in line
    unused = read_json(out / "run_report.json")["unused"]
    assert {one["reason"]: one["count"] for one in unused} == {
        "hidden": 2, "format not read (.nrrd)": 1, "no volume": 1,
    }  # fmt: skip


def test_what_is_as_expected_is_not_said_in_a_line(tmp_path):
    source = skeleton_source(tmp_path, 2)
    (source / "README").touch()
    assert unused_line(find_volumes([Source(source)], "skeleton").unused, "here") == ""


def test_images_beside_what_is_none(tmp_path, capsys):
    picture(tmp_path / "in/a.PNG")
    picture(tmp_path / "in/._b.png")
    (tmp_path / "in/c.webp").touch()
    (tmp_path / "real").mkdir()
    picture(tmp_path / "real/d.png")
    (tmp_path / "in/linked").symlink_to(tmp_path / "real")
    assert main(["images", str(tmp_path / "in"), "-o", str(tmp_path / "out"), "--quiet"]) == 0
    assert "1 hidden (such as ._b.png)" in capsys.readouterr().err
    report = read_json(tmp_path / "out/run_report.json")
    assert report["done"] == 2
    assert {one["reason"] for one in report["unused"]} == {"hidden", "format not read (.webp)"}


def test_pictures_beside_an_idx_archive_are_said(tmp_path):
    content = bytes([0, 0, 8, 3]) + np.array((2, 2, 2), ">u4").tobytes() + bytes(8)
    (tmp_path / "t10k-images-idx3-ubyte").write_bytes(content)
    picture(tmp_path / "a.png")
    found = find_images(tmp_path)
    assert len(found.items) == 2
    assert [one.reason for one in found.unused] == ["beside an idx archive, which is read"]


def test_pages_of_another_shape_are_said(tmp_path):
    pages = [Image.fromarray(np.zeros(shape, np.uint8)) for shape in ((8, 8), (4, 4), (4, 4))]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    (image,) = find_images(tmp_path).items
    _, warnings = read_image(image)
    assert warnings == ("2 of its pages, of another size than the first, left out",)


def test_inspect_says_no_kind_that_names_do_not_say(tmp_path, capsys):
    skeleton_source(tmp_path, 3)
    assert main(["inspect", str(tmp_path)]) == 0
    first, *kinds, unnamed = capsys.readouterr().out.splitlines()[:5]
    assert first == "3 participants"
    assert kinds == ["skeleton: none", "grey_white: none", "segmentation: none"]
    assert unnamed.startswith(
        "volumes whose names do not say their kind: 3 without a side in the name; preprocess takes"
    )
    assert main(["inspect", str(tmp_path), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)["volumes"]
    assert said == {"skeleton": {}, "grey_white": {}, "segmentation": {},
                    UNNAMED: {"n/a": 3}}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "command"),
    [("p1/mri/aseg.mgz", "skeletonise"), ("a.png", "images"),
     (f"s/{MORPHOLOGIST}/Lgrey_white_s.nii.gz", "skeletonise")],
)  # fmt: skip
def test_inspect_says_which_command_reads_a_source(tmp_path, capsys, name, command):
    path = tmp_path / name
    picture(path) if path.suffix == ".png" else volume(path)
    (tmp_path / ".hidden").touch()
    assert main(["inspect", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert said.splitlines()[-1] == f"read by foldnorm {command}"
    assert "not used, hidden: 1" in said
    with pytest.raises(InputError, match=f"foldnorm {command}"):
        find_volumes([Source(tmp_path)], "skeleton")


def test_names_of_bytes_that_are_no_text_are_told(flat):
    os.close(os.open(os.fsencode(flat) + b"/\xff.nrrd", os.O_CREAT))
    found = find_volumes([Source(flat)], "skeleton")
    assert "xff.nrrd" in found.record()["unused"][0]["files"][0].encode().decode()
    assert len(scan(flat).files) == 2


@pytest.mark.parametrize(
    "name", ["participants.csv", "Participants.tsv", "participants.xlsx", "below/participants.tsv"]
)
def test_a_table_of_people_that_is_not_read_is_said(flat, name):
    (flat / name).parent.mkdir(exist_ok=True)
    (flat / name).write_text("participant_id\tage\n01\t3\n")
    assert "expected participants.tsv at the top of a source" in reasons(flat)[name.split("/")[-1]]
    assert unused_line(find_volumes([Source(flat)], "skeleton").unused, "here")


def test_sidecars_of_morphologist_are_no_volumes_that_were_meant(tmp_path):
    path = tmp_path / "s1" / MORPHOLOGIST / "Lskeleton_s1.nii.gz"
    volume(path)
    path.with_name(f"{path.name}.minf").write_text("attributes = {}")
    found = find_volumes([Source(tmp_path)], "skeleton")
    assert [one.path.name for one in found.unused] == [f"{path.name}.minf"]
    assert not unused_line(found.unused, "here")


@pytest.mark.parametrize("name", ["sub-02.npy", "sub-02.mat", "a.tif.gz", "sub-02.nii.gz.part"])
def test_other_formats_are_said_where_nothing_else_is(flat, name):
    (flat / name).write_bytes(b"1")
    assert "format not read" in unused_line(find_volumes([Source(flat)], "skeleton").unused, "here")


@pytest.mark.parametrize("suffix", ["jpe", "jfif", "JPEG"])
def test_every_suffix_of_a_jpeg_is_read(tmp_path, suffix):
    Image.fromarray(np.full((8, 8), 7, np.uint8)).save(tmp_path / f"a.{suffix}", format="JPEG")
    (image,) = find_images(tmp_path).items
    assert (read_image(image)[0] == 7).all()
