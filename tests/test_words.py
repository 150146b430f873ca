"""Command lines: inputs anywhere, keys of configurations, and the forms of release 0.1."""

from pathlib import Path

import pytest

from foldnorm.pipeline.cli import build_parser, main
from foldnorm.pipeline.commands.words import OLD_COMMANDS, OLD_FLAGS, arrange

PARSER, COMMANDS = build_parser()
WRITE = [name for name, command in COMMANDS.items() if "--out" in command._option_string_actions]
NAMED_THEIR_OUT = ("train", "compare", "search")  # by a flag, in release 0.1 already
NEW_FLAGS = [(c, old, new) for c, t in OLD_FLAGS.items() for old, new in t.items() if new[0] == "-"]


def inputs(name):
    """As many inputs as a command needs."""
    declared = COMMANDS[name]._get_positional_actions()
    return [action.choices[0] if action.choices else f"in{n}" for n, action in enumerate(declared)]


def required(name):
    """Options that a command needs besides -o."""
    return ["--vary", "a=1"] if name == "search" else []


def parsed(*words):
    """Namespace and keys of a configuration that a command line gives."""
    arranged, overrides = arrange([str(word) for word in words], COMMANDS)
    return vars(PARSER.parse_args(arranged)), overrides


def warned(capsys):
    """Return the one line on stderr."""
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("foldnorm: warning: ")
    return line


@pytest.mark.parametrize("name", WRITE)
def test_the_result_is_named_by_out_everywhere(name, capsys):
    short = parsed(name, *inputs(name), "-o", "result", *required(name))
    assert short == parsed(name, *inputs(name), "--out", "result", *required(name))
    assert short == parsed(name, *required(name), "--out=result", *inputs(name))
    assert short[0]["out"] == Path("result")
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("name", WRITE)
def test_a_missing_out_is_one_line(name, capsys):
    with pytest.raises(SystemExit) as left:
        main([name, *inputs(name), *required(name)])
    assert left.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"foldnorm {name}: error: ")
    assert "required: -o/--out" in line


@pytest.mark.parametrize("name", [name for name in WRITE if name not in NAMED_THEIR_OUT])
def test_an_out_in_the_last_place_is_understood(name, capsys):
    new = parsed(name, *inputs(name), "-o", "result", "--quiet")
    assert capsys.readouterr().err == ""
    assert parsed(name, *inputs(name), "result", "--quiet") == new
    line = warned(capsys)
    assert "OUT is now -o OUT" in line
    assert line.endswith(" ".join(["foldnorm", name, *inputs(name), "-o result --quiet"]))


@pytest.mark.parametrize(("old", "new"), OLD_COMMANDS.items())
def test_old_commands_are_understood(old, new, capsys):
    words = [*inputs(new), "-o", "result"]
    assert parsed(old, *words) == parsed(new, *words)
    assert f"{old} is now {new}" in warned(capsys)


@pytest.mark.parametrize(("name", "old", "new"), NEW_FLAGS)
def test_old_flags_are_understood(name, old, new, capsys):
    action = COMMANDS[name]._option_string_actions[new]
    value = action.choices[-1] if action.choices else "1"
    values = [value] * {None: 1, "+": 2, "*": 2}.get(action.nargs, action.nargs)
    words = [name, *inputs(name), "-o", "result"]
    expected = parsed(*words, new, *values)
    assert capsys.readouterr().err == ""
    assert expected != parsed(*words)
    assert parsed(*words, old, *values) == expected
    line = warned(capsys)
    assert f"{old} is now {new}" in line
    assert " ".join(["-o", "result", new, *map(str, values)]) in line
    if action.nargs is None:
        assert parsed(*words, f"{old}={value}") == expected


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("train --config c --cohort d --out o --training.steps 3",
         "train c d --out o --training.steps 3"),
        ("train --cohort=d --out o --resume auto --config=c",
         "train c d --out o --resume auto"),
        ("search c --cohort d --out o --vary a=1 b=2", "search c d --out o --vary a=1 b=2"),
        ("search --vary a=1 b=2 --cohort d --out o --sampler grid c",
         "search c d --vary a=1 b=2 --out o --sampler grid"),
        ("compare a b --cohort d --out o --sizes 200 500", "compare a b d --out o --size 200 500"),
        ("preprocess a b --folds none --split .7 .2 .1",
         "preprocess a -o b --fold-labels none --split-fractions .7 .2 .1"),
    ],
)  # fmt: skip
def test_old_lines_are_shown_in_the_new_form(old, new, capsys):
    expected = parsed(*new.split())
    assert capsys.readouterr().err == ""
    assert parsed(*old.split()) == expected
    assert warned(capsys).endswith(f": foldnorm {new}")


def test_inputs_may_stand_anywhere(capsys):
    line = "compare a b c -o o --steps 3 --seeds 2"
    expected = parsed(*line.split())
    assert expected[0]["config"] == ["a", "b"]
    assert expected[0]["cohort"] == Path("c")
    for words in ("compare --steps 3 a -o o b --seeds 2 c", "compare a -oo b --steps=3 c --see 2"):
        assert parsed(*words.split()) == expected
    assert capsys.readouterr().err == ""


def test_keys_of_a_configuration_are_kept_as_they_are_given(capsys):
    keys = ["--training.steps", "3", "--model.init_args.x=-1", "--model.init_args.y", "-.5",
            "--model", "a.B", "--training.shape", "[1, 2]"]  # fmt: skip
    for words in (["train", *keys, "c", "d", "-o", "o"], ["train", "c", "-o", "o", "d", *keys]):
        arguments, overrides = parsed(*words)
        assert (arguments["config"], arguments["cohort"]) == ("c", Path("d"))
        assert overrides == keys
    with pytest.raises(SystemExit):
        parsed("score", "run", "cohort", "-o", "o", "--training.steps", "3")
    assert "unrecognized arguments: --training.steps 3" in capsys.readouterr().err


def test_an_input_may_begin_with_a_dash():
    arguments, _ = parsed("score", "-o", "o", "--maps", "--", "-run", "-1")
    assert (arguments["run_folder"], arguments["cohort"]) == (Path("-run"), Path("-1"))


def test_an_old_line_runs(tmp_path, capsys):
    words = ["--subjects", "1", "--voxel-size", "3", "--n-procs", "1", "--quiet"]
    assert main(["phantom", str(tmp_path / "a"), *words]) == 0
    assert f"foldnorm phantom -o {tmp_path}/a --subjects 1" in warned(capsys)
    assert main(["delete", str(tmp_path / "a"), str(tmp_path / "b"), "--size", "0"]) == 2
    first, second = capsys.readouterr().err.splitlines()
    assert "delete is now alter" in first
    assert "not a cohort folder" in second
