"""Every kind of damaged file through every command that reads it: our own error, in one line."""

import shutil

import pytest
from corpus import APPLIED_RUN, FILES, FOLDERS, GENERIC, cases, replace, run, written_input
from corpus_fixtures import fixture_of, places_of

from foldnorm.pipeline.cli import COMMANDS

ALL = {**FILES, **FOLDERS}
MODELS = ("small_run", *APPLIED_RUN)
WITHOUT_INPUT = {
    "demo": "runs other commands on phantoms",
    "phantom": "draws",
    "models": "lists what is shipped",
    "doctor": "looks at the machine",
}


pytestmark = pytest.mark.usefixtures("no_waiting")


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
