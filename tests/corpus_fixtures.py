"""What commands of the corpus read beside the file that is damaged; ``conftest`` loads it."""

import string

import pytest
from corpus import SCORE_SULCI, atlas, nifti, picture

from foldnorm.pipeline.cli import main
from foldnorm.pipeline.view.server import ViewServer

BUNDLE = "bundle of "


@pytest.fixture(scope="session")
def volumes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("volumes")
    nifti(folder)
    return folder


@pytest.fixture(scope="session")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    picture("a.png")(folder)
    return folder


@pytest.fixture(scope="session")
def bundles(tmp_path_factory):
    """Exported models by their runs, each made when it is first asked for."""
    folder = tmp_path_factory.mktemp("sent")

    def export(run):
        out = folder / run.name
        if not out.exists():
            assert main(["export", str(run), "-o", str(out), "--quiet"]) == 0
        return out

    return export


@pytest.fixture(scope="session")
def bundle(small_run, bundles):
    return bundles(small_run)


@pytest.fixture(scope="session")
def scorer(small_run, small_cohort, tmp_path_factory):
    folder = tmp_path_factory.mktemp("scored")
    words = ["score", small_run, small_cohort.folder, "-o", folder / "scores", "--device", "cpu",
             "--save-scorer", folder / "scorer", "--quiet"]  # fmt: skip
    assert main(list(map(str, words))) == 0
    return folder / "scorer"


@pytest.fixture(scope="session")
def toy_atlas(tmp_path_factory):
    return atlas(tmp_path_factory.mktemp("atlas"))


@pytest.fixture(scope="session")
def sulcus_scorer(annotated_cohort, toy_atlas, tmp_path_factory):
    folder = tmp_path_factory.mktemp("sulci")
    places = {"cohort": annotated_cohort.folder, "atlas": toy_atlas, "out": folder / "scores"}
    words = SCORE_SULCI.format(**places).split()
    assert main([*words, "--save-scorer", str(folder / "scorer"), "--quiet"]) == 0
    return folder / "scorer"


@pytest.fixture(scope="session")
def scores(annotated_cohort, tmp_path_factory):
    """Scores of which enough brains calibrate to be combined."""
    out, cohort = tmp_path_factory.mktemp("void") / "scores", str(annotated_cohort.folder)
    words = ["score", "void", cohort, "-o", str(out), "--reference", cohort, "--quiet"]
    assert main(words) == 0
    return out


def folder_of(request, name):
    if name.startswith(BUNDLE):
        run = name.removeprefix(BUNDLE)
        return request.getfixturevalue("bundles")(request.getfixturevalue(run))
    found = request.getfixturevalue(name)
    return getattr(found, "folder", found)


def fixture_of(request, kind):
    """Folder that the input of a kind is copied from, if it is."""
    return folder_of(request, kind.make[0]) if isinstance(kind.make, tuple) else None


def places_of(request, template):
    """Fixtures that a command names, by name."""
    names = {name for _, name, _, _ in string.Formatter().parse(template) if name}
    return {name: folder_of(request, name) for name in names - {"source", "file", "out"}}


@pytest.fixture
def no_waiting(monkeypatch):
    monkeypatch.setattr(ViewServer, "serve_forever", lambda self: None)
