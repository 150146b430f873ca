import json
import shutil
from pathlib import Path

import nibabel
import numpy as np
import pytest
from conftest import skeleton_source, skeleton_volume, write_nifti

from foldnorm.pipeline.cli import main
from foldnorm.preprocessing.cohort.cohort import Cohort
from foldnorm.preprocessing.cohort.options import PreprocessOptions
from foldnorm.preprocessing.cohort.plan import CohortPlan
from foldnorm.preprocessing.cohort.preparation import Preparation
from foldnorm.preprocessing.cohort.preprocess import preprocess
from foldnorm.preprocessing.core.errors import InputError
from foldnorm.preprocessing.core.files import read_json
from foldnorm.preprocessing.io.sources import Source
from foldnorm.preprocessing.io.volumes import write_labels
from foldnorm.preprocessing.topology.thinning import thin


def run(source: Path, out: Path, *more: str) -> int:
    return main(["preprocess", str(source), "-o", str(out), "--n-procs", "1", "--quiet", *more])


def snapshot(folder: Path) -> dict[str, bytes]:
    return {
        str(p.relative_to(folder)): p.read_bytes()
        for p in sorted(folder.rglob("*"))
        if p.is_file() and p.name != "run_report.json"
    }


def test_the_cohort_folder_holds_what_it_promises(small_cohort):
    folder = small_cohort.folder
    assert small_cohort.volumes.dtype == np.uint8
    assert small_cohort.volumes.shape == (24, 16, 16, 16)
    assert len(small_cohort.rows) == 24
    assert read_json(folder / "dataset_description.json")["DatasetType"] == "derivative"
    sidecar = read_json(folder / "sub-s00/anat/sub-s00_dseg.json")
    assert len(sidecar["InputSHA256"][0]) == 64
    assert sidecar["Parameters"]["voxel_size"] == 1.5
    assert set(np.unique(small_cohort.volumes)) == {0, 1, 2}
    assert not list(folder.rglob(".*"))


def test_a_packed_volume_is_its_file_at_its_place(small_cohort):
    image = nibabel.load(small_cohort.folder / "sub-s03/anat/sub-s03_dseg.nii.gz")
    data = np.asanyarray(image.dataobj)
    index = small_cohort.keys().index("sub-s03")
    packed = np.array(small_cohort.volumes[index])
    for voxel in np.argwhere(data == 2)[::7]:
        world = image.affine @ [*voxel, 1]
        place = np.rint(np.linalg.inv(small_cohort.affine) @ world)[:3].astype(int)
        assert packed[tuple(place)] == 2
    assert (packed == 2).sum() == (data == 2).sum()


def test_running_again_skips_everything_and_gives_the_same_bytes(tmp_path, capsys):
    source = skeleton_source(tmp_path / "source", 3)
    assert run(source, tmp_path / "a") == 0
    before = snapshot(tmp_path / "a")
    assert run(source, tmp_path / "a") == 0
    assert read_json(tmp_path / "a/run_report.json")["skipped"] == 3
    assert run(source, tmp_path / "a", "--overwrite") == 0
    assert snapshot(tmp_path / "a") == before


def test_a_changed_input_is_done_again(tmp_path):
    source = skeleton_source(tmp_path / "source", 3)
    assert run(source, tmp_path / "out", "--crop", "none") == 0
    write_nifti(source / "sub-s01.nii.gz", skeleton_volume(77))
    assert run(source, tmp_path / "out", "--crop", "none") == 0
    assert read_json(tmp_path / "out/run_report.json")["skipped"] == 2


def test_shards_then_a_last_call_equal_one_call(tmp_path):
    source = skeleton_source(tmp_path / "source", 5)
    assert run(source, tmp_path / "whole") == 0
    for part in ("1/2", "2/2"):
        assert run(source, tmp_path / "parts", "--shard", part) == 0
    with pytest.raises(InputError, match=r"no dataset_description\.json"):
        Cohort.open(tmp_path / "parts")
    assert run(source, tmp_path / "parts") == 0
    assert read_json(tmp_path / "parts/run_report.json")["skipped"] == 5
    whole = snapshot(tmp_path / "whole")
    parts = {k: v for k, v in snapshot(tmp_path / "parts").items() if "shard" not in k}
    assert parts == whole


def test_several_processes_give_the_same_bytes(tmp_path):
    source = skeleton_source(tmp_path / "source", 4)
    assert run(source, tmp_path / "one") == 0
    assert run(source, tmp_path / "two", "--n-procs", "2") == 0
    assert snapshot(tmp_path / "one") == snapshot(tmp_path / "two")


def test_adding_subjects_moves_nobody(tmp_path):
    source = skeleton_source(tmp_path / "source", 6)
    assert run(source, tmp_path / "out", "--crop", "none") == 0
    before = {row["participant_id"]: row["split"] for row in Cohort.open(tmp_path / "out").rows}
    skeleton_source(source, 12)
    assert run(source, tmp_path / "out", "--crop", "none") == 0
    cohort = Cohort.open(tmp_path / "out")
    after = {row["participant_id"]: row["split"] for row in cohort.rows}
    assert len(after) == 12
    assert before.items() <= after.items()


def test_a_family_stays_together(tmp_path):
    source = skeleton_source(tmp_path / "files", 12)
    lines = [f"s{n:02d}\tfiles/sub-s{n:02d}.nii.gz\tF{n // 4}" for n in range(12)]
    table = tmp_path / "list.tsv"
    table.write_text("participant_id\tpath\tfamily\n" + "\n".join(lines) + "\n")
    assert source.is_dir()
    assert run(table, tmp_path / "out", "--split-fractions", "0.4", "0.3", "0.3") == 0
    rows = Cohort.open(tmp_path / "out").rows
    for family in ("F0", "F1", "F2"):
        assert len({row["split"] for row in rows if row["family"] == family}) == 1


def test_a_subject_that_does_not_fit_the_frozen_box_is_named(tmp_path, capsys):
    source = tmp_path / "source"
    small = np.full((24, 24, 24), 11, np.int16)
    small[8:16, 8:16, 8:16] = 60
    write_nifti(source / "sub-a.nii.gz", small)
    assert run(source, tmp_path / "out") == 0
    large = small.copy()
    large[5:16, 8:18, 8:16] = 60
    write_nifti(source / "sub-b.nii.gz", large)
    assert run(source, tmp_path / "out") == 1
    assert "3 voxels left, 2 voxels anterior too far" in capsys.readouterr().err
    assert [row["participant_id"] for row in Cohort.open(tmp_path / "out").rows] == ["sub-a"]
    assert run(source, tmp_path / "out", "--overwrite") == 0
    assert len(Cohort.open(tmp_path / "out").rows) == 2


def test_a_margin_leaves_room_for_larger_brains_that_are_laid_out_alike(tmp_path, capsys):
    small = np.full((24, 24, 24), 11, np.int16)
    small[8:16, 8:16, 8:16] = 60
    write_nifti(tmp_path / "healthy/sub-a.nii.gz", small)
    large = small.copy()
    large[6:16, 8:17, 8:16] = 60
    write_nifti(tmp_path / "others/sub-b.nii.gz", large)
    for room, code in (("cohort", 1), ("cohort@2", 0)):
        healthy = tmp_path / room
        assert run(tmp_path / "healthy", healthy, "--crop", room) == 0
        others = tmp_path / f"others-{room}"
        assert run(tmp_path / "others", others, "--layout-from", str(healthy)) == code
        said = capsys.readouterr().err
        if code:
            assert f"2 voxels left, 1 voxel anterior too far (prepare {healthy} with room" in said
    assert Cohort.open(tmp_path / "cohort").shape == (8, 8, 8)
    cohort = Cohort.open(tmp_path / "others-cohort@2")
    assert cohort.shape == (12, 12, 12)
    assert (cohort.volumes[0][:10, 2:11, 2:10] == 2).all()


def test_like_prepares_as_another_cohort_was(tmp_path, small_cohort):
    source = skeleton_source(tmp_path / "source", 2)
    assert run(source, tmp_path / "out", "--layout-from", str(small_cohort.folder)) == 0
    cohort = Cohort.open(tmp_path / "out")
    assert cohort.preparation == small_cohort.preparation
    assert cohort.shape == small_cohort.shape
    assert (cohort.volumes[0] == small_cohort.volumes[0]).all()


def test_another_preparation_in_the_same_folder_is_refused(tmp_path, capsys):
    source = skeleton_source(tmp_path / "source", 2)
    assert run(source, tmp_path / "out") == 0
    assert run(source, tmp_path / "out", "--voxel-size", "2") == 2
    assert "another voxel_size" in capsys.readouterr().err


def test_failures_are_isolated_and_reported(tmp_path, capsys):
    source = skeleton_source(tmp_path / "source", 2)
    (source / "sub-empty.nii.gz").write_bytes(b"")
    write_nifti(source / "sub-flat.nii.gz", np.full((4, 4, 4), 11, np.int16))
    write_nifti(source / "sub-inside.nii.gz", np.zeros((4, 4, 4), np.int16))
    write_nifti(source / "sub-two.nii.gz", np.zeros((4, 4), np.int16))
    good = (source / "sub-s00.nii.gz").read_bytes()
    (source / "sub-cut.nii.gz").write_bytes(good[: len(good) // 2])
    assert run(source, tmp_path / "out") == 1
    errors = capsys.readouterr().err.strip().splitlines()
    assert len(errors) == 5
    failed = {
        f["volume"]: f["reason"] for f in read_json(tmp_path / "out/run_report.json")["failed"]
    }
    assert "empty file" in failed["sub-empty"]
    assert "empty volume" in failed["sub-flat"]
    assert "no voxel of class 'sulcus'" in failed["sub-inside"]
    assert "3-D" in failed["sub-two"]
    assert "truncated" in failed["sub-cut"]
    assert len(Cohort.open(tmp_path / "out").rows) == 2


def test_a_cohort_of_one_is_a_cohort(tmp_path):
    source = skeleton_source(tmp_path / "source", 1)
    assert run(source / "sub-s00.nii.gz", tmp_path / "out") == 0
    assert len(Cohort.open(tmp_path / "out").rows) == 1


def test_voxels_of_another_size_are_refused_by_name(tmp_path, capsys):
    source = tmp_path / "source"
    write_nifti(source / "sub-a.nii.gz", skeleton_volume())
    write_nifti(source / "sub-b.nii.gz", skeleton_volume(), np.diag([2.0, 2, 2, 1]))
    assert run(source, tmp_path / "out", "--voxel-size", "native") == 1
    assert "voxels of 2 × 2 × 2 mm, the cohort's are 1 × 1 × 1 mm" in capsys.readouterr().err


def test_a_factor_instead_of_a_voxel_size(tmp_path):
    source = skeleton_source(tmp_path / "source", 2)
    assert run(source, tmp_path / "out", "--factor", "2") == 0
    cohort = Cohort.open(tmp_path / "out")
    assert cohort.voxel_size == (2.0, 2.0, 2.0)
    assert cohort.preparation["factor"] == 2
    raw = skeleton_volume(0) == 60
    blocks = raw.reshape(12, 2, 12, 2, 12, 2).any(axis=(1, 3, 5))
    assert (np.array(cohort.volumes[0]) == 2).sum() == blocks.sum()


def test_right_hemispheres_mirrored_onto_left_ones(tmp_path):
    source = tmp_path / "source"
    volume = skeleton_volume(3)
    affine = np.eye(4)
    affine[:3, 3] = (-30, 0, 0)
    write_nifti(source / "sub-a_hemi-L.nii.gz", volume, affine)
    mirrored = np.eye(4)
    mirrored[:3, 3] = (30 - 23, 0, 0)
    write_nifti(source / "sub-a_hemi-R.nii.gz", volume[::-1].copy(), mirrored)
    assert run(source, tmp_path / "out", "--mirror-right") == 0
    left, right = Cohort.open(tmp_path / "out").volumes
    assert (left == right).all()
    image = nibabel.load(tmp_path / "out/sub-a/anat/sub-a_hemi-R_dseg.nii.gz")
    assert nibabel.aff2axcodes(image.affine) == ("L", "A", "S")


def test_a_full_disk_leaves_nothing_half_written(tmp_path, monkeypatch, capsys):
    """A write that fails for want of space: one line, exit 1, no file where none is whole."""
    source = skeleton_source(tmp_path / "source", 2)
    write = Path.write_bytes

    def full(path, content):
        if "s01_dseg.nii" in path.name:
            write(path, content[:50])
            raise OSError(28, "No space left on device", str(path))
        return write(path, content)

    monkeypatch.setattr(Path, "write_bytes", full)
    assert run(source, tmp_path / "out") == 1
    assert "No space left on device" in capsys.readouterr().err
    assert not list((tmp_path / "out/sub-s01").rglob("*.*"))
    monkeypatch.undo()
    assert run(source, tmp_path / "out", "--overwrite") == 0


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--voxel-size", "big"], "expected mm or native"),
        (["--voxel-size", "-1"], "above 0 mm"),
        (["--crop", "sphere"], "--crop"),
        (["--pad", "weird"], "pad"),
        (["--split-fractions", "1", "1", "1"], "three shares"),
        (["--scheme", "nothing"], "neither a file"),
        (["--participant-label", "0815"], "no volume of participant 0815"),
    ],
)
def test_bad_arguments_exit_2_with_one_line(tmp_path, capsys, arguments, reason):
    source = skeleton_source(tmp_path / "source", 1)
    assert run(source, tmp_path / "out", *arguments) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert reason in lines[0]


def test_folds_are_packed_with_names_and_sizes(phantom_cohort):
    assert phantom_cohort.folds is not None
    assert phantom_cohort.folds.shape == phantom_cohort.volumes.shape
    labelled = np.array(phantom_cohort.folds) > 0
    assert (np.array(phantom_cohort.volumes)[labelled] == phantom_cohort.scheme.top).all()
    names = {row["name"] for row in phantom_cohort.fold_table}
    assert "superior_temporal" in names
    assert phantom_cohort.is_phantom
    for row in phantom_cohort.fold_table[:20]:
        index = phantom_cohort.keys().index(f"{row['participant_id']}_hemi-{row['hemi']}")
        count = (np.array(phantom_cohort.folds[index]) == int(row["label"])).sum()
        assert count == int(row["voxels"])


@pytest.mark.parametrize("voxel_size", ["1.0", "2.0"])
def test_real_hemispheres_become_a_cohort(real_data, tmp_path, voxel_size):
    out = tmp_path / "out"
    code = run(real_data / "morphologist", out, "--voxel-size", voxel_size, "--mirror-right")
    assert code == 0
    cohort = Cohort.open(out)
    assert len(cohort.rows) == 4
    for index, key in enumerate(cohort.keys()):
        sidecar = json.loads(next(out.glob(f"sub-*/anat/{key}_dseg.json")).read_text())
        held = (np.array(cohort.volumes[index]) == 2).sum()
        assert held == sidecar["VoxelCounts"]["sulcus"]


def test_hippocampi_become_a_cohort(real_data, tmp_path):
    scheme = tmp_path / "hippocampus.yaml"
    scheme.write_text(
        "name: hippocampus\nclasses:\n- {name: background, values: [0]}\n"
        "- {name: anterior, values: [1]}\n- {name: posterior, values: [2]}\n"
    )
    out = tmp_path / "out"
    assert run(real_data / "hippocampus", out, "--scheme", str(scheme), "--pad", "multiple:16") == 0
    cohort = Cohort.open(out)
    assert cohort.volumes.shape == (160, 48, 64, 48) or cohort.shape[0] % 16 == 0
    assert set(np.unique(cohort.volumes)) == {0, 1, 2}


def test_real_hemispheres_meet_in_mni_space(real_data, tmp_path):
    """Hull gone, sheets thin, right ones mirrored: all four fill much the same box."""
    out = tmp_path / "out"
    code = run(
        real_data / "morphologist", out, "--space", "mni", "--voxel-size", "2",
        "--hull", "remove", "--thin", "--mirror-right",
    )  # fmt: skip
    assert code == 0
    cohort = Cohort.open(out)
    assert all(a <= b for a, b in zip(cohort.shape, (50, 108, 84), strict=True))
    brains = np.array(cohort.volumes) > 0
    common = brains.all(axis=0).sum() / brains.any(axis=0).sum()
    assert common > 0.6
    hulls = {
        json.loads(path.read_text())["Hull"] for path in out.glob("sub-100206/anat/*_dseg.json")
    }
    assert hulls == {"removed by fold graph"}
    for volume in cohort.volumes:
        assert (thin(np.array(volume), 2) == volume).all()


def test_a_region_of_named_sulci_in_mni_space(real_data, tmp_path):
    """What the study cropped by hand: the terminal branches of the superior temporal sulcus."""
    out = tmp_path / "out"
    code = run(
        real_data / "morphologist", out, "--participant-label", "100206", "--space", "mni",
        "--mirror-right", "--crop", "region:S.T.s.ter.asc.ant.+S.T.s.ter.asc.post.@5",
    )  # fmt: skip
    assert code == 0
    cohort = Cohort.open(out)
    assert all(30 < side < 80 for side in cohort.shape)
    names = {(row["hemi"], row["name"]) for row in cohort.fold_table}
    for which in ("ant", "post"):
        assert ("L", f"S.T.s.ter.asc.{which}._left") in names
        assert ("R", f"S.T.s.ter.asc.{which}._right") in names
    for index, key in enumerate(cohort.keys()):
        sidecar = json.loads(next(out.glob(f"sub-*/anat/{key}_dseg.json")).read_text())
        assert sidecar["FoldLabels"] == "fold graph"
        whole = cohort.folds[index] > 0
        assert (np.array(cohort.volumes[index])[whole] == 2).all()
        labels = np.unique(cohort.folds[index])[1:]
        assert {str(label) for label in labels} <= set(sidecar["FoldNames"])
    assert (
        main(["alter", str(out), "-o", str(tmp_path / "deleted"), "--size", "100", "--quiet"]) == 0
    )


def test_labels_of_a_graph_of_another_skeleton_move_to_this_one(real_data, tmp_path):
    out = tmp_path / "out"
    words = ("--participant-label", "001", "--hemi", "L", "--voxel-size", "2")
    assert run(real_data / "morphologist", out, *words) == 0
    sidecar = json.loads(next(out.glob("sub-*/anat/*_dseg.json")).read_text())
    assert "moved to the nearest voxels" in sidecar["FoldLabels"]
    cohort = Cohort.open(out)
    labelled = cohort.folds[0] > 0
    assert (np.array(cohort.volumes[0])[labelled] == 2).all()
    large = {row["name"] for row in cohort.fold_table if float(row["size"]) > 300}
    assert {"S.C._left", "S.T.s._left"} <= large


def test_without_a_transform_the_others_are_finished(tmp_path, capsys):
    source = skeleton_source(tmp_path / "source", 3)
    (tmp_path / "t.trm").write_text("0 0 0\n-1 0 0\n0 -1 0\n0 0 -1\n")
    table = tmp_path / "list.tsv"
    rows = [f"s{n}\tsource/sub-s{n:02d}.nii.gz\t{'t.trm' if n else 'n/a'}" for n in range(3)]
    table.write_text("participant_id\tpath\ttransform\n" + "\n".join(rows) + "\n")
    assert run(table, tmp_path / "out", "--space", "mni") == 1
    assert "sub-s0: no transform to MNI space beside it" in capsys.readouterr().err
    assert Cohort.open(tmp_path / "out").keys() == ["sub-s1", "sub-s2"]
    assert len(list(source.iterdir())) == 3


def test_mni_space_refuses_what_it_cannot_do(tmp_path, capsys):
    source = skeleton_source(tmp_path / "source", 2)
    words = ("--space", "mni", "--voxel-size", "native")
    assert run(source, tmp_path / "out", *words) == 2
    assert "needs a --voxel-size" in capsys.readouterr().err
    words = ("--scheme", "grey-white", "--hull", "remove")
    assert run(source, tmp_path / "out", *words) == 2
    assert "--hull remove is for skeletons" in capsys.readouterr().err


def test_preparing_without_fold_labels_takes_earlier_ones_away(phantom_source, tmp_path):
    words = ["--quiet", "--n-procs", "1", "--voxel-size", "2"]
    source, out = str(phantom_source), tmp_path / "out"
    assert main(["preprocess", source, "-o", str(out), *words]) == 0
    assert Cohort.open(out).folds is not None
    assert (
        main(["preprocess", source, "-o", str(out), *words, "--fold-labels", "none", "--overwrite"])
        == 0
    )
    assert Cohort.open(out).folds is None
    assert not list(out.rglob("*desc-folds*"))


def test_names_in_files_stay():
    options = {"resampling": "max", "fold_labels": "none", "crop": "region:central"}
    plan = CohortPlan.from_options(PreprocessOptions(**options, outside_class="outside"))
    record = plan.record()
    assert list(record) == [
        "scheme", "voxel_size", "method", "mirror_right", "factor", "space", "hull", "thin",
        "folds", "pair", "whole_brain", "crop", "regions", "off_mask", "pad",
    ]  # fmt: skip
    assert (record["method"], record["folds"], record["off_mask"]) == ("max", "none", "outside")
    assert Preparation.from_dict(json.loads(json.dumps(record))) == plan.preparation


def test_packing_is_skipped_only_where_the_very_same_is_packed(tmp_path, monkeypatch):
    source, out = skeleton_source(tmp_path / "source", 3), tmp_path / "out"
    assert run(source, out) == 0
    files = [out / name for name in ("volumes.npy", "qc.html", "dataset_description.json")]
    before = [path.stat().st_mtime_ns for path in files]
    assert run(source, out) == 0
    assert [path.stat().st_mtime_ns for path in files] == before
    packed = snapshot(out)
    # Killed while packing others: what lies there is no longer what the description said.
    write_labels(source / "sub-s03.nii.gz", skeleton_volume(3), np.eye(4))
    monkeypatch.setattr("foldnorm.preprocessing.cohort.pack.write_participants", die)
    with pytest.raises(KeyboardInterrupt):
        preprocess([Source(source)], out, CohortPlan.from_options(PreprocessOptions(quiet=True)))
    monkeypatch.undo()
    assert np.load(out / "volumes.npy", mmap_mode="r").shape[0] == 4
    (source / "sub-s03.nii.gz").unlink()
    shutil.rmtree(out / "sub-s03")
    assert run(source, out) == 0
    assert snapshot(out) == packed


def die(*_):
    raise KeyboardInterrupt
