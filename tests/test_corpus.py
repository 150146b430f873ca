"""Every kind of damaged file through every command that reads it: our own error, in one line."""

import shutil
import string

import pytest
from corpus import (
    APPLIED_RUN,
    FILES,
    FOLDERS,
    GENERIC,
    SCORE_SULCI,
    atlas,
    cases,
    nifti,
    picture,
    replace,
    run,
    written_input,
)

from foldnorm.pipeline.cli import COMMANDS, main
from foldnorm.pipeline.view.server import ViewServer

ALL = {**FILES, **FOLDERS}
BUNDLE = "bundle of "
MODELS = ("small_run", *APPLIED_RUN)
WITHOUT_INPUT = {
    "demo": "runs other commands on phantoms",
    "phantom": "draws",
    "models": "lists what is shipped",
    "doctor": "looks at the machine",
}


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


def outcome(request, root, name, command, damage=None):
    """Run a command on a file, which is damaged first; returns its code, and what it said."""
    kind, source, out = ALL[name], root / "in", root / "out"
    file = written_input(kind, source, fixture_of(request, kind))
    if damage is not None:
        replace(file, {**GENERIC, **kind.damages}[damage](file.read_bytes()))
    template = kind.commands[command]
    places = {"source": source, "file": file, "out": out, **places_of(request, template)}
    found = run(template, places, root)
    shutil.rmtree(root)
    return found


def check(request, tmp_path, case):
    """Run a command on a damaged file."""
    name, damage, command = case
    code, said = outcome(request, tmp_path, name, command, damage)
    meant = {command, damage, f"{command}/{damage}"}
    if not meant & {*ALL[name].harmless}:
        assert said.strip(), "nothing was said"
        assert bool(code) != bool(meant & {*ALL[name].warned})


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    monkeypatch.setattr(ViewServer, "serve_forever", lambda self: None)


def identify(case):
    return "/".join(case).replace(" ", "-")


def by_speed(found):
    """Cases as parameters; those that a model has to be trained for are slow."""
    slow = pytest.mark.slow
    return [
        pytest.param(case, marks=[slow] * needs_model(case[0], case[-1]), id=identify(case))
        for case in found
    ]


def needs_model(name, command):
    """True if a folder of ours is read, or a command that applies a model."""
    return name in FOLDERS or any(f"{{{model}}}" in ALL[name].commands[command] for model in MODELS)


@pytest.mark.parametrize("case", by_speed(cases(ALL)))
def test_a_damaged_file_is_one_line(request, tmp_path, case):
    check(request, tmp_path, case)


def whole():
    """Kinds and commands, those of one folder of ours once, whichever of its files is meant."""
    found = {}
    for name, kind in ALL.items():
        for command, words in kind.commands.items():
            made = kind.make[0] if isinstance(kind.make, tuple) else name
            found.setdefault((made, words), (name, command))
    return found.values()


@pytest.mark.parametrize("case", by_speed(whole()))
def test_a_whole_file_is_read(request, tmp_path, case):
    """Or its damage would prove nothing."""
    code, said = outcome(request, tmp_path, *case)
    assert code == 0 or "no p-value" in said, said


def test_the_corpus_is_large():
    assert len({case[:2] for case in cases(ALL)}) >= 80


def test_every_command_that_reads_files_is_in_the_corpus():
    tested = {words.split()[0] for kind in ALL.values() for words in kind.commands.values()}
    assert tested | {*WITHOUT_INPUT} == {*COMMANDS}
    assert not tested & {*WITHOUT_INPUT}
