"""What `foldnorm doctor` says of machines that lack something."""

import errno
import json
from importlib import metadata

import pytest

from foldnorm.pipeline.cli import main
from foldnorm.pipeline.runs import machine
from foldnorm.pipeline.runs.machine import examine


def found(folder, topic):
    return [finding for finding in examine(folder) if finding.topic == topic]


def test_a_machine_that_suits_has_no_problem(tmp_path, capsys):
    assert main(["doctor", str(tmp_path), "--json"]) == 0
    findings = json.loads(capsys.readouterr().out)
    assert {"Python", "packages", "GPU", "processors", "memory", "output", "caches"} <= {
        finding["topic"].split()[0] for finding in findings
    }
    assert not list(tmp_path.iterdir())


def test_version_and_debug_print_what_a_report_of_an_error_needs(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert main(["--version", "--debug"]) == 0
    said = capsys.readouterr().out
    assert f"foldnorm {metadata.version('foldnorm')}" in said
    assert f"torch {metadata.version('torch')}" in said


def test_a_package_that_is_too_old_is_a_problem(tmp_path, monkeypatch, capsys):
    own = metadata.version
    monkeypatch.setattr(machine, "version", lambda name: "1.0" if name == "numpy" else own(name))
    assert main(["doctor", str(tmp_path)]) == 1
    (line,) = [x for x in capsys.readouterr().out.splitlines() if "packages:" in x]
    assert line.startswith("problem")
    assert "numpy>=2.2 is needed, 1.0 is installed" in line


def test_a_missing_extra_is_a_note(tmp_path, monkeypatch):
    own = metadata.version

    def without(name):
        if name == "optuna":
            raise metadata.PackageNotFoundError(name)
        return own(name)

    monkeypatch.setattr(machine, "version", without)
    (finding,) = found(tmp_path, "extras")
    assert finding.state == "note"
    assert "search" in finding.text
    assert "projection" not in finding.text


def test_a_place_where_nothing_can_be_written_is_a_problem(tmp_path, monkeypatch):
    def refuse(**options):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(machine.tempfile, "TemporaryFile", refuse)
    (finding,) = found(tmp_path / "not/yet/there", "output")
    assert finding.state == "problem"
    assert f"Read-only file system): {tmp_path}" in finding.text


def test_a_file_system_without_locks_is_a_note(tmp_path, monkeypatch):
    def refuse(handle):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(machine, "flock", refuse)
    assert [finding.state for finding in found(tmp_path, "locks")] == ["note"]
    assert found(tmp_path, "output")[0].state == "fine"


def test_the_time_that_a_container_has_is_said(tmp_path, monkeypatch):
    limit = tmp_path / "cpu.max"
    monkeypatch.setattr(machine, "CGROUP_CPUS", limit)
    limit.write_text("50000 100000\n")
    (finding,) = found(tmp_path, "processors")
    assert finding.state == "note"
    assert "--n-procs 1" in finding.text
    limit.write_text("max 100000\n")
    assert found(tmp_path, "processors")[0].state == "fine"


def test_little_shared_memory_is_a_problem(tmp_path, monkeypatch):
    monkeypatch.setattr(machine, "MIN_SHARED", 10**6)
    monkeypatch.setattr(machine, "SHARED_MEMORY", tmp_path)
    (finding,) = found(tmp_path, "shared memory")
    assert finding.state == "problem"
    assert "--shm-size" in finding.text


def test_a_driver_without_cuda_is_a_problem(tmp_path, monkeypatch):
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    monkeypatch.setattr(machine.shutil, "which", lambda name: "/usr/bin/nvidia-smi")
    monkeypatch.setattr(torch.version, "cuda", None)
    (finding,) = found(tmp_path, "GPU")
    assert finding.state == "problem"
    assert "without CUDA" in finding.text


def test_what_cannot_be_looked_at_is_a_problem_among_the_others(tmp_path, monkeypatch):
    def broken():
        raise ImportError("libcudart.so: cannot open shared object file")

    monkeypatch.setattr(machine, "_gpus", broken)
    findings = examine(tmp_path)
    (finding,) = [each for each in findings if each.topic == "GPU"]
    assert finding.state == "problem"
    assert "libcudart.so" in finding.text
    assert findings[-1].topic == "caches"
