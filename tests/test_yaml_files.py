"""YAML as plain values: what cannot be walked is refused in one line, soon."""

import pytest

from foldnorm.preprocessing.core.errors import InputError
from foldnorm.preprocessing.core.files import read_json
from foldnorm.preprocessing.core.yaml_files import MAX_CHARACTERS, parse_yaml, read_yaml

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
