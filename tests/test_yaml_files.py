"""YAML as plain values: what cannot be walked is refused in one line, soon."""

import pytest

from foldnorm.pipeline.cli import main
from foldnorm.pipeline.runs.config import config_path, resolve_for
from foldnorm.pipeline.runs.run_folder import RunFolder
from foldnorm.preprocessing.core.errors import InputError
from foldnorm.preprocessing.core.files import read_json
from foldnorm.preprocessing.core.yaml_files import (
    MAX_CHARACTERS,
    parse_yaml,
    read_yaml,
    write_yaml,
)
from foldnorm.preprocessing.io.schemes import load_scheme
from foldnorm.preprocessing.spatial.regions import read_regions

LAUGHS = "a0: &a0 [ha, ha]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 9)
)
REFUSED = {
    "deep": ("[" * 5000, "nested too deeply"),
    "deep mapping": ("{a: " * 5000, "nested too deeply"),
    "laughs": (LAUGHS, "with every alias written out"),
    "holds itself": ("&a [*a]", "holds itself"),
    "holds itself below": ("&a {b: {c: *a}}", "holds itself"),
    "object": ("!!python/object/apply:os.system [true]", "could not determine a constructor"),
    "tag": ("!!bool x", "not of its tag"),
    "int": ("!!int x", "invalid literal"),
    "date": ("2024-13-45", "month must be in 1..12"),
    "unclosed": ("a: [1", "expected"),
    "tab": ("a:\n\t- b", "cannot start any token"),
    "two documents": ("a\n---\nb", "expected a single document"),
    "long": ("# " + "x" * MAX_CHARACTERS, "characters"),
    "twice": ("{a: 1, b: 2, a: 3}", "key 'a' is given twice"),
    "twice below": ("a:\n  - {b: 1, b: 1}", "key 'b' is given twice"),
    "control": ("a: \x07", "special characters are not allowed"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_yaml_that_is_none_or_without_end_is_one_line(tmp_path, name):
    text, reason = REFUSED[name]
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(InputError) as refusal:
        read_yaml(tmp_path / "a.yaml")
    message = str(refusal.value)
    assert reason in message
    assert "a.yaml" in message
    assert "\n" not in message


def test_aliases_as_our_own_files_have_them_are_read():
    assert parse_yaml("a: &x [1, 2]\nb: *x\n") == {"a": [1, 2], "b": [1, 2]}


def test_deeply_nested_json_is_one_line(tmp_path):
    (tmp_path / "a.json").write_text('{"a":' * 100_000)
    with pytest.raises(InputError, match="not readable as JSON"):
        read_json(tmp_path / "a.json")


def test_words_stay_words_where_yaml_names_things(tmp_path):
    path = tmp_path / "scheme.yaml"
    path.write_text("name: on\nfill: no\nclasses:\n  - {name: no, values: [0]}\n"
                    "  - {name: yes, values: [1]}\n")  # fmt: skip
    scheme = load_scheme(str(path))
    assert (scheme.name, scheme.names) == ("on", ["no", "yes"])
    path.write_text("on: [S.C., off]\n")
    assert read_regions(path)["on"] == ("S.C.", "off")


def test_merged_keys_are_not_given_twice():
    assert parse_yaml("a: &a {b: 1, c: 2}\nd: {<<: *a, b: 3}") == {
        "a": {"b": 1, "c": 2}, "d": {"b": 3, "c": 2},
    }  # fmt: skip


def test_a_configuration_that_says_a_key_twice_is_refused(small_cohort, tmp_path, capsys):
    path = tmp_path / "own.yaml"
    text = config_path("autoencoder").read_text(encoding="utf-8")
    path.write_text(text + "\ntraining:\n  steps: 2\n")
    words = ["train", str(path), str(small_cohort.folder), "-o", str(tmp_path / "run"), "--quiet"]
    assert main(words) == 2
    assert "key 'training' is given twice" in capsys.readouterr().err


def test_on_and_no_are_booleans_in_a_configuration(small_cohort, tmp_path):
    path = tmp_path / "own.yaml"
    text = config_path("autoencoder").read_text(encoding="utf-8")
    assert "training:\n" in text
    path.write_text(text.replace("training:\n", "training:\n  tensorboard: on\n"))
    assert resolve_for(small_cohort, str(path), [])["training"]["tensorboard"] is True


def test_a_file_that_says_how_it_ends_is_refused_wherever_it_is_cut_off(tmp_path):
    content = {"model": {"class_path": "a.B"}, "training": {"steps": 2, "betas": [0.5, 0.9]}}
    path = tmp_path / "config.yaml"
    write_yaml(path, content)
    assert read_yaml(path) == content
    text = path.read_text()
    after_the_first_line = range(text.index("\n") + 1, len(text) - 1)
    for length in after_the_first_line:
        path.write_text(text[:length])
        with pytest.raises(InputError, match=r"cut off: expected '...' as the last line"):
            read_yaml(path)


def test_a_file_of_somebody_else_or_of_release_0_1_may_end_as_it_likes(tmp_path):
    (tmp_path / "a.yaml").write_text("---\na: 1\n")
    assert read_yaml(tmp_path / "a.yaml") == {"a": 1}


def test_a_run_whose_configuration_is_cut_off_after_its_model_does_not_open(small_run, tmp_path):
    text = (small_run / "config.yaml").read_text()
    (tmp_path / "config.yaml").write_text(text[: text.index("training:") + len("training: {}")])
    with pytest.raises(InputError, match=r"cut off: .*config\.yaml"):
        _ = RunFolder(tmp_path).config
