"""The tutorial runs from nothing, in a folder of its own."""

import os
import sys
from pathlib import Path

import nbformat
import numpy as np
import pytest
from nbclient import NotebookClient

from foldnorm.preprocessing.io.volumes import read_map

NOTEBOOK = Path(__file__).parents[1] / "docs/tutorial.ipynb"


def printed(notebook) -> str:
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return "".join(output.get("text", "") for output in outputs)


def test_it_has_at_most_twenty_cells_and_names_no_machine():
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    assert len(notebook.cells) <= 20
    text = printed(notebook)
    assert "the peak of the map lies within 4 mm" in text  # it was run before it was kept
    assert str(Path.home()) not in text
    assert "site-packages" not in text


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_it_runs_from_clean(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    for cell in notebook.cells:
        cell.pop("outputs", None)
        if cell.cell_type == "code":
            cell.outputs = []
    where = {"metadata": {"path": str(tmp_path)}}
    NotebookClient(notebook, timeout=900, kernel_name="python3", resources=where).execute()
    assert [path.name for path in tmp_path.iterdir()] == ["tutorial"]
    text = printed(notebook)
    assert "reconstruction_missing           rises in" in text
    assert "brains, 66 of them fitted" in text
    maps = sorted((tmp_path / "tutorial/void/maps").glob("*_z.nii.gz"))
    assert len(maps) == 24
    assert all(np.isfinite(read_map(path)[0]).all() for path in maps)
    assert "SYNTHETIC data" in (tmp_path / "tutorial/report.html").read_text(encoding="utf-8")
