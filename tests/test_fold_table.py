"""The morphometry table and the inspection of a source."""

import json

import numpy as np
import pytest
from conftest import write_nifti
from test_fold_graph import ARG, write_graph

from foldnorm.pipeline.cli import main
from foldnorm.preprocessing.core.files import read_tsv

SEGMENTATION = "t1mri/default_acquisition/default_analysis/segmentation"
TALAIRACH = """Talairach_rotation 1 0 0 0 1 0 0 0 1
Talairach_scale 1 1 1
Talairach_translation 0 0 0
"""


def database(folder, *subjects):
    """A Morphologist tree of left skeletons, the first with the graph of `test_fold_graph`."""
    for number, subject in enumerate(subjects):
        segmentation = folder / subject / SEGMENTATION
        write_nifti(segmentation / f"Lskeleton_{subject}.nii.gz", np.zeros((2, 2, 2), np.int16))
        if number == 0:
            graph = segmentation.parent / "folds/3.1/session"
            graph.mkdir(parents=True)
            text = ARG.replace("filename_base", TALAIRACH + "filename_base").replace(
                "label            S.C._left", "label S.C._left\nsurface_area 12.5\nmaxdepth 3"
            )
            written = write_graph(graph, text)
            written.rename(graph / f"L{subject}_session.arg")
            written.with_suffix(".data").rename(graph / f"L{subject}_session.data")
    return folder


def test_a_row_a_fold(tmp_path):
    source = database(tmp_path / "db", "1")
    registration = source / "1/t1mri/default_acquisition/registration"
    registration.mkdir()
    trm = registration / "RawT1-1_default_acquisition_TO_Talairach-MNI.trm"
    trm.write_text("10 20 30\n-1 0 0\n0 -1 0\n0 0 -1\n")
    assert (
        main(["folds", str(source), "-o", str(tmp_path / "out"), "--quiet", "--n-procs", "1"]) == 0
    )
    first, second = read_tsv(tmp_path / "out/folds.tsv")
    assert (first["name"], first["voxels"], first["surface_mm2"], first["depth_mm"]) == (
        "S.C._left", "3", "12.5", "3",
    )  # fmt: skip
    # Voxels (0, 0, 0), (0, 0, 1) of the surface and (0, 0, 2) of the bottom, of 0.7 mm.
    place = [
        float(first[f"{axis}_{which}"]) for which in ("min", "max", "centre") for axis in "xyz"
    ]
    assert place == pytest.approx([10, 20, 28.6, 10, 20, 30, 10, 20, 29.65])
    assert (second["name"], second["name_automatic"]) == ("F.I.P._left", "S.T.s._left")
    assert second["surface_mm2"] == ""
    columns = json.loads((tmp_path / "out/folds.json").read_text())["Columns"]
    assert list(columns) == list(first)


def test_a_hemisphere_without_a_graph_fails_alone(tmp_path, capsys):
    source = database(tmp_path / "db", "1", "2")
    assert (
        main(["folds", str(source), "-o", str(tmp_path / "out"), "--quiet", "--n-procs", "1"]) == 1
    )
    assert "sub-2_hemi-L: no fold graph beside it" in capsys.readouterr().err
    assert {row["participant_id"] for row in read_tsv(tmp_path / "out/folds.tsv")} == {"1"}


def test_real_folds_lie_where_their_names_say(real_data, tmp_path):
    out = tmp_path / "out"
    assert main(["folds", str(real_data / "morphologist"), "-o", str(out), "--quiet"]) == 0
    rows = read_tsv(out / "folds.tsv")
    assert len(rows) == 237 + 261 + 407 + 421
    for row in rows:
        x = float(row["x_centre"])
        assert x < 8 if row["hemi"] == "L" else x > -8
    parieto_occipital = [float(r["y_centre"]) for r in rows if r["name"].startswith("F.P.O._")]
    orbital = [float(r["y_centre"]) for r in rows if r["name"].startswith("S.Or._")]
    assert parieto_occipital
    assert orbital
    assert max(parieto_occipital) < -40 < 0 < min(orbital)


def test_inspection_says_what_is_there_lacking_and_unclear(tmp_path, capsys):
    source = database(tmp_path / "db", "1", "2")
    second = source / "1" / SEGMENTATION.replace("default_acquisition", "BL")
    write_nifti(second / "Lskeleton_1.nii.gz", np.zeros((2, 2, 2), np.int16))
    assert main(["inspect", str(source), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["participants"] == 2
    assert found["volumes"] == {"skeleton": {"L": 2}, "grey_white": {}, "segmentation": {},
                                "kind_not_named": {}}  # fmt: skip
    assert found["lacking"]["fold graph"] == ["sub-2_hemi-L"]
    assert found["lacking"]["other hemisphere"] == ["sub-1_hemi-L", "sub-2_hemi-L"]
    assert len(found["ambiguous"]["sub-1_hemi-L"]["others"]) == 1
    assert main(["inspect", str(source)]) == 0
    assert "without fold graph: 1 (sub-2_hemi-L)" in capsys.readouterr().out


def test_inspection_of_nothing_and_of_two_of_one_id(tmp_path, capsys):
    assert main(["inspect", str(tmp_path)]) == 2
    assert "no skeleton volume found" in capsys.readouterr().err
    for site in ("a", "b"):
        database(tmp_path / site, "7")
    assert main(["inspect", str(tmp_path)]) == 1
    assert "several volumes of the same id" in capsys.readouterr().out
