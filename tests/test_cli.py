import subprocess
import sys

import pytest

from foldnorm.pipeline.cli import COMMANDS, main
from foldnorm.pipeline.commands import report as report_command


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command, capsys):
    with pytest.raises(SystemExit) as left:
        main([command, "--help"])
    assert left.value.code == 0
    assert "usage: foldnorm" in capsys.readouterr().out


def test_help_imports_no_heavy_library():
    code = (
        "import sys; from foldnorm.pipeline.cli import build_parser; build_parser();"
        "print([m for m in ('torch', 'monai', 'lightning', 'scipy', 'numba', 'matplotlib', "
        "'numpy', 'nibabel') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


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
