import argparse
import collections
import itertools
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import libraries_of

from foldnorm.pipeline.cli import COMMANDS, build_parser, main
from foldnorm.pipeline.commands import report as report_command
from foldnorm.pipeline.commands.outcome import conclude
from foldnorm.pipeline.commands.words import OLD_COMMANDS, OLD_FLAGS, arrange
from foldnorm.preprocessing.core.problems import Problem

ROOT = Path(__file__).parents[1]
PARSER, PARSERS = build_parser()
# First words of a help text that is a fragment.
BANNED = re.compile(
    r"(of|that|what|how|whether|which|where|who|whose|only|as|in|into|to|for|by|with|instead|"
    r"the same)\b", re.IGNORECASE,
)  # fmt: skip
# Flags of other programs, and what release 0.1 wrote into files.
OTHERS = {
    "pipeline/runs/config.py": {"--config"},
    "pipeline/bundle/export.py": {"--given"},
    "pipeline/studies/compare.py": {"--config", "--cohort"},
}
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md",
             *(path for suffix in ("md", "ipynb", "slurm")
               for path in (ROOT / "docs").rglob(f"*.{suffix}")
               if not any(part.startswith("_") for part in path.parts))]  # fmt: skip
CODE = [p for r in ("benchmarks", "foldnorm", "pipeline", "preprocessing", "models")
        for p in (ROOT / r).rglob("*.py") if p.name != "words.py"]  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command, capsys):
    with pytest.raises(SystemExit) as left:
        main([command, "--help"])
    assert left.value.code == 0
    assert "usage: foldnorm" in capsys.readouterr().out


def test_help_imports_no_heavy_library():
    script = "from foldnorm.pipeline.cli import build_parser; build_parser()"
    heavy = "torch monai lightning scipy numba matplotlib numpy nibabel"
    assert not libraries_of(script, heavy.split())


def test_the_version_is_said(capsys):
    with pytest.raises(SystemExit) as left:
        main(["--version"])
    assert left.value.code == 0
    assert capsys.readouterr().out.startswith("foldnorm ")


@pytest.mark.parametrize(
    "words",
    [[], ["dance"], ["phantom"], ["phantom", "-o", "x", "--subjects", "0"], ["models", "--steps"]],
)
def test_bad_usage_exits_2(words):
    with pytest.raises(SystemExit) as left:
        main(words)
    assert left.value.code == 2


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (KeyboardInterrupt(), 130, "interrupted"),
        (OSError(28, "No space left on device", "out.npy"), 1, "No space left on device: out.npy"),
        (MemoryError("Unable to allocate 59.6 GiB"), 1, "not enough memory (Unable to allocate"),
        (type("OutOfMemoryError", (RuntimeError,), {})("CUDA out of memory. Tried to"), 1, "GPU"),
        (ZeroDivisionError("oops"), 70, "internal error, ZeroDivisionError"),
    ],
)
def test_errors_become_codes_and_one_line(monkeypatch, capsys, error, code, text):
    def fail(arguments):
        raise error

    monkeypatch.setattr(report_command, "run", fail)
    assert main(["report", "a", "-o", "b.html"]) == code
    message = capsys.readouterr().err.strip()
    assert text in message
    assert len(message.splitlines()) == 1


def test_a_line_is_one_piece(monkeypatch):
    """Processes that train together write to one stderr: between two pieces, another may write."""
    written = []
    monkeypatch.setattr(sys.stderr, "write", written.append)
    assert main(["report", "nowhere", "-o", "b.html"]) == 2
    conclude(argparse.Namespace(quiet=True), [Problem("sub-a", "damaged")])
    assert len(written) == 2
    assert all(re.fullmatch(r"foldnorm: [^\n]+\n", piece) for piece in written)


def options():
    """Every option of every command, by its name and flag."""
    for name, command in PARSERS.items():
        for action in command._get_optional_actions():
            for flag in action.option_strings:
                yield name, flag, action


@pytest.mark.parametrize("name", COMMANDS)
def test_help_texts_stand_alone(name):
    actions = PARSERS[name]._actions
    texts = {str(action.option_strings or action.dest): action.help for action in actions}
    for place, text in {**texts, "HELP": PARSERS[name].description.splitlines()[0]}.items():
        assert text, place
        assert text != argparse.SUPPRESS, place
        assert not BANNED.match(text), f"{place}: {text}"
        assert re.match(r"\w", text), f"{place}: {text}"
        assert "default " not in text, f"{place}: {text}; write (default: X)"


def test_a_flag_means_one_thing():
    types, choices = (collections.defaultdict(set) for _ in range(2))
    for _, flag, action in options():
        types[flag].add(action.type)
        choices[flag].add(tuple(action.choices or ()))
    types["--voxel-size"] -= {str}  # of preprocess: or native
    for flag, found in types.items():
        assert len(found) == 1, (flag, found)
    for flag, found in choices.items():
        for one, other in itertools.combinations(found, 2):
            assert set(one) & set(other), (flag, one, other)


def test_usage_is_written_as_commands_are_called(capsys):
    with pytest.raises(SystemExit):
        main(["search", "--help"])
    usage = capsys.readouterr().out.splitlines()[0]
    assert usage == "usage: foldnorm search CONFIG COHORT -o OUT --vary KEY=… [options]"


def text_of(path):
    """Text of a document; of a notebook, that of its cells."""
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".ipynb":
        return text
    cells = json.loads(text)["cells"]
    return "\n".join("".join(cell["source"]) for cell in cells)


def command_lines(text):
    """Words of each command line of a text, without comment and with its continuations."""
    text = re.sub(r"\\\n\s*", "", text)
    for match in re.finditer(r"foldnorm(?:\.pipeline\.cli)? ([a-z][a-z-]*\b[^`\n#]*)", text):
        for line in re.split(r"&&|;", f"foldnorm {match[1]}"):
            words = line.strip().replace("'", "").split(None, 1)[-1]
            first = words.split()[0] if words.split() else ""
            known = first in PARSERS or first in OLD_COMMANDS
            if known and "{" not in words:  # which a program fills in
                yield re.sub(r"\$\w+", "1", words)


def test_documents_and_messages_use_the_new_form(capsys):
    current = {flag for _, flag, _ in options()}
    gone = {flag for table in OLD_FLAGS.values() for flag in table} - current
    for path in (*DOCUMENTS, *CODE):
        place, text = path.relative_to(ROOT).as_posix(), text_of(path)
        for line in command_lines(text):
            arrange(shlex.split(line.replace('"', "")), PARSERS)
            assert capsys.readouterr().err == "", f"{place}: {line}"
        own = set(re.findall(r"add_argument\(\s*\"(--[a-z-]+)", text))  # a benchmark's
        for flag in gone - own - OTHERS.get(place, set()):
            assert not re.search(rf"(?<![\w-]){flag}(?![\w-])", text), f"{place}: {flag}"


def test_the_commands_of_readme_and_guides_are_complete():
    pages = [path for path in DOCUMENTS if path.suffix == ".md"]
    block = re.compile(r"^```(\S*)[^\n]*\n(.*?)^```", re.DOTALL | re.MULTILINE)
    blocks = [
        text
        for path in pages
        for kind, text in block.findall(text_of(path))
        if not kind.startswith("{")  # a directive of Sphinx
    ]
    lines = [line for block in blocks for line in command_lines(block)]
    assert len(lines) > 60
    for line in lines:
        words, _ = arrange(shlex.split(line), PARSERS)
        PARSER.parse_args(words)


def test_a_shell_completes_commands_and_options(tmp_path, capsys):
    pytest.importorskip("shtab", reason="the extra completion is not installed")
    with pytest.raises(SystemExit) as left:
        main(["--print-completion", "bash"])
    assert left.value.code == 0
    script = tmp_path / "completion.bash"
    script.write_text(capsys.readouterr().out)
    asked = (
        f"source {script}; COMP_WORDS=(foldnorm score --refer); COMP_CWORD=2;"
        "_shtab_foldnorm foldnorm --refer; echo ${COMPREPLY[@]}"
    )
    done = subprocess.run(["bash", "-c", asked], capture_output=True, text=True, check=True)
    assert sorted(done.stdout.split()) == ["--reference", "--reference-split"]
