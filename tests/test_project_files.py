"""Files around the code that no command reads: they must at least agree with it."""

import configparser
import re
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[1]
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))
FORMS = sorted((ROOT / ".github/ISSUE_TEMPLATE").glob("*.yml"))
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
GUIDES = [ROOT / "CONTRIBUTING.md", ROOT / "docs/adding.md", ROOT / "docs/architecture.md"]
PYTHON = "Programming Language :: Python :: 3."


def setup():
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    return config["metadata"]


def bounds():
    """Whatever `setup.cfg` may install, with its bounds."""
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    lists = [config["options"]["install_requires"], *config["options.extras_require"].values()]
    found = [Requirement(line) for text in lists for line in text.splitlines() if line]
    return [requirement for requirement in found if requirement.name != "foldnorm"]


def steps_of(workflow):
    jobs = yaml.safe_load(workflow.read_text(encoding="utf-8"))["jobs"]
    return [step for job in jobs.values() for step in job["steps"]]


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.stem)
def test_workflows_make_what_the_makefile_can_and_pin_their_actions(workflow):
    steps = steps_of(workflow)
    assert any(step.get("run") == "bash .ci/run" for step in steps)
    for step in steps:
        for target in re.findall(r"^make ([\w-]+)", step.get("run", ""), re.MULTILINE):
            assert f"\n{target}:" in MAKEFILE
        assert "uses" not in step or re.fullmatch(r"[\w./-]+@(v\d+|release/v\d+)", step["uses"])


def test_every_python_that_is_promised_is_tested():
    promised = {
        line.removeprefix("Programming Language :: Python :: ")
        for line in setup()["classifiers"].splitlines()
        if line.startswith(PYTHON)
    }
    tests = yaml.safe_load((ROOT / ".github/workflows/tests.yml").read_text(encoding="utf-8"))
    assert promised == set(tests["jobs"]["versions"]["strategy"]["matrix"]["python"])


def pins_of(constraints):
    lines = (ROOT / constraints).read_text(encoding="utf-8").splitlines()
    return {
        canonicalize_name(name): Version(version)
        for name, _, version in (line.partition("==") for line in lines)
        if version
    }


def test_the_oldest_dependencies_that_are_tested_are_those_that_are_allowed():
    pinned = pins_of("constraints-min.txt")
    for requirement in bounds():
        (oldest,) = [s.version for s in requirement.specifier if s.operator == ">="]
        pin, bound = pinned[canonicalize_name(requirement.name)], Version(oldest)
        assert pin.release[: len(bound.release)] == bound.release, requirement
        assert pin in requirement.specifier
    workflow = (ROOT / ".github/workflows/tests.yml").read_text(encoding="utf-8")
    assert "--constraint constraints-min.txt" in workflow


def test_hooks_run_what_make_check_runs():
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
    hooks = {hook["id"]: hook["entry"] for repo in config["repos"] for hook in repo["hooks"]}
    assert list(hooks) == ["ruff", "ruff-format", "mypy"]
    recipe = MAKEFILE.partition("\ncheck:")[2].partition("\n\n")[0].replace("$(BIN)/", ".venv/bin/")
    commands = [line.strip() for line in recipe.splitlines()[1:]]
    assert len(commands) == len(hooks)
    for entry, command in zip(hooks.values(), commands, strict=True):
        tool = re.match(r"\S+( check| format)?", entry)
        assert tool
        assert command.startswith(tool.group())


@pytest.mark.parametrize("form", FORMS, ids=lambda path: path.stem)
def test_issue_forms_are_forms(form):
    content = yaml.safe_load(form.read_text(encoding="utf-8"))
    assert {"name", "description", "body"} <= content.keys()
    asked = [part for part in content["body"] if part["type"] != "markdown"]
    assert len({part["id"] for part in asked}) == len(asked)
    assert any(part.get("validations", {}).get("required") for part in asked)


def test_the_changelog_knows_the_version():
    lines = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8").splitlines()
    headings = [line for line in lines if line.startswith("## ")]
    assert headings[0] == "## Unreleased"
    assert re.fullmatch(rf"## {re.escape(setup()['version'])} – \d{{4}}-\d\d-\d\d", headings[1])


@pytest.mark.parametrize("guide", GUIDES, ids=lambda path: path.stem)
def test_guides_name_files_that_there_are(guide):
    text = guide.read_text(encoding="utf-8")
    here = [f"/{path.relative_to(ROOT)}" for path in ROOT.rglob("*") if ".venv" not in path.parts]
    named = re.findall(r"`([\w./]+\.(?:pyi?|yaml))`", text)
    assert named
    for name in named:
        assert any(path.endswith(f"/{name}") for path in here), name
    for link in re.findall(r"\]\((?!http)([^)#]+)\)", text):
        assert (guide.parent / link).exists(), link
