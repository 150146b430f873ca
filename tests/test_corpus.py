"""Every kind of damaged file through every command that reads it: our own error, in one line."""

import shutil
import string

import pytest
from corpus import FILES, FOLDERS, GENERIC, cases, nifti, replace, run, written_input

from foldnorm.pipeline.cli import main
from foldnorm.pipeline.view.server import ViewServer

ALL = {**FILES, **FOLDERS}


@pytest.fixture(scope="session")
def volumes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("volumes")
    nifti(folder)
    return folder


@pytest.fixture(scope="session")
def bundle(small_run, tmp_path_factory):
    out = tmp_path_factory.mktemp("sent") / "bundle"
    assert main(["export", str(small_run), "-o", str(out), "--quiet"]) == 0
    return out


@pytest.fixture(scope="session")
def scorer(small_run, small_cohort, tmp_path_factory):
    folder = tmp_path_factory.mktemp("scored")
    words = ["score", small_run, small_cohort.folder, "-o", folder / "scores", "--device", "cpu",
             "--save-scorer", folder / "scorer", "--quiet"]  # fmt: skip
    assert main(list(map(str, words))) == 0
    return folder / "scorer"


@pytest.fixture(scope="session")
def scores(scorer):
    return scorer.parent / "scores"


def folder_of(request, name):
    found = request.getfixturevalue(name)
    return getattr(found, "folder", found)


def fixture_of(request, kind):
    """Folder that the input of a kind is copied from, if it is."""
    return folder_of(request, kind.make[0]) if isinstance(kind.make, tuple) else None


def places_of(request, template):
    """Fixtures that a command names, by name."""
    names = {name for _, name, _, _ in string.Formatter().parse(template) if name}
    return {name: folder_of(request, name) for name in names - {"source", "file", "out"}}


def check(request, tmp_path, case):
    """Run a command on a damaged file."""
    name, damage, command = case
    kind, source, out = ALL[name], tmp_path / "in", tmp_path / "out"
    file = written_input(kind, source, fixture_of(request, kind))
    replace(file, {**GENERIC, **kind.damages}[damage](file.read_bytes()))
    template = kind.commands[command]
    places = {"source": source, "file": file, "out": out, **places_of(request, template)}
    code, said = run(template, places, tmp_path)
    if not {command, damage, f"{command}/{damage}"} & {*kind.harmless}:
        assert code, "nothing was said"
        assert said.strip()
    shutil.rmtree(tmp_path)


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    monkeypatch.setattr(ViewServer, "serve_forever", lambda self: None)


def identify(case):
    return "/".join(case).replace(" ", "-")


@pytest.mark.parametrize("case", [*cases(FILES)], ids=identify)
def test_a_damaged_file_is_one_line(request, tmp_path, case):
    check(request, tmp_path, case)


@pytest.mark.slow
@pytest.mark.parametrize("case", [*cases(FOLDERS)], ids=identify)
def test_a_damaged_file_of_ours_is_one_line(request, tmp_path, case):
    check(request, tmp_path, case)


def test_the_corpus_is_large():
    assert len({case[:2] for case in cases(ALL)}) >= 80
