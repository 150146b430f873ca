"""Which room may import which, and that the wheel holds every room."""

import ast
import configparser
import importlib.metadata
import json
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from foldnorm.models.protocols import Generates, Translates
from foldnorm.pipeline.runs.config import build_model, resolve, shipped_configs

ROOT = Path(__file__).parents[1]
# Kinds of file in the wheel.
HELD = {".py", ".pyi", ".yaml", ".json", ".jinja", ".js", ".html", ".LICENSE"}
# First words of docstrings: such a line does not stand alone in an index of functions.
BANNED = ("What", "How", "Whether", "Which", "Where", "Who", "That", "Those", "Of", "None")
OF_IMAGES = ("images", "noisy", "classified", "damaged")  # what a model reads
ROOMS = ("preprocessing", "models", "pipeline")
LINKED = (*ROOMS, "configs")  # folders that the folder foldnorm links to
FRONT = tuple(f"foldnorm.{p.stem}" for p in (ROOT / "foldnorm").glob("*.py"))  # the front door
FORBIDDEN = {
    "preprocessing": ("torch", "monai", "lightning", "foldnorm.models", "foldnorm.pipeline",
                      *FRONT),
    "models": ("foldnorm.preprocessing", "foldnorm.pipeline", "nibabel", "pathlib", "argparse",
               *FRONT),
    "pipeline": FRONT,
}  # fmt: skip
# Imported when it is asked for, not with the module: `Cohort.dataset` is what PyTorch loads from.
LATE = {("preprocessing/cohort/cohort.py", "foldnorm.pipeline.data.cohort_dataset")}


def imported(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


@pytest.mark.parametrize("room", ROOMS)
def test_rooms_import_only_downwards(room):
    for path in (ROOT / room).rglob("*.py"):
        for name in imported(path):
            if (path.relative_to(ROOT).as_posix(), name) in LATE:
                continue
            for forbidden in FORBIDDEN[room]:
                assert not f"{name}.".startswith(f"{forbidden}."), f"{path}: {name}"


# The rooms of `pipeline`, from the ground floor up, and what each may import besides its own. A
# folder is a room, a module beside them is one by itself; ``room.module`` allows that module alone.
GROUND = ("artifacts", "metrics")
INNER = {
    "artifacts": (),
    "metrics": (),
    "transforms": (),
    "data": ("transforms", *GROUND),
    "runs": ("data", *GROUND),
    "report": ("runs", *GROUND),  # of runs the records, never a model
    "scoring": ("report.page_files", "runs", "data", *GROUND),
    "training": ("runs", "data", *GROUND),
    "latent": ("runs", *GROUND),
    "bundle": ("training", "runs", "artifacts"),
    "inference": ("scoring", "runs", "data", *GROUND),
    "view": ("inference", "report.page_files", "runs", "data", "artifacts"),
    "studies": ("training", "inference", "scoring", "runs", *GROUND),
}
INNER["commands"] = tuple(INNER)
INNER["cli"] = ("commands.outcome", "commands.words")  # it loads the commands by name
INNER_PREPROCESSING = {
    "core": (),
    "topology": ("core",),
    "io": ("core",),
    "spatial": ("io", "core"),
    "cohort": ("spatial", "io", "topology", "core"),
    "naming": ("cohort", "spatial", "io", "topology", "core"),
    "skeletons": ("naming", "cohort", "spatial", "io", "topology", "core"),
    "alteration": ("cohort", "spatial", "io", "topology", "core"),
    "phantom": ("io", "spatial", "core"),
}
TABLES = {"pipeline": INNER, "preprocessing": INNER_PREPROCESSING}


def room_of(module):
    """Room of a module of `pipeline` or `preprocessing`, named from there."""
    return module.partition(".")[0]


def modules_of(package):
    """Every module by its name from the package; not what only says what a room is for."""
    folder = ROOT / package
    for path in folder.rglob("*.py"):
        if path.name != "__init__.py":
            yield ".".join(path.relative_to(folder).with_suffix("").parts), path


def imported_within(package, path):
    """Modules of a package that a file imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            module = name.removeprefix(f"foldnorm.{package}.")
            if module != name:
                file = ROOT / package / f"{module.replace('.', '/')}.py"
                yield module if file.is_file() else module.rpartition(".")[0]


@pytest.mark.parametrize(
    ("package", "room"), [(p, r) for p, table in TABLES.items() for r in table]
)
def test_rooms_import_only_what_the_tables_say(package, room):
    allowed = (room, *TABLES[package][room])
    own = [(module, path) for module, path in modules_of(package) if room_of(module) == room]
    assert own
    for module, path in own:
        for other in imported_within(package, path):
            assert any(f"{other}.".startswith(f"{one}.") for one in allowed), (
                f"{package}: {module} imports {other}"
            )


@pytest.mark.parametrize("package", TABLES)
def test_every_module_lies_in_a_room(package):
    for module, _ in modules_of(package):
        assert room_of(module) in TABLES[package], module


@pytest.mark.parametrize("package", TABLES)
def test_no_arrow_between_rooms_points_upwards(package):
    floors = list(TABLES[package])
    for room, lower in TABLES[package].items():
        assert all(floors.index(room_of(other)) < floors.index(room) for other in lower)


@pytest.mark.parametrize("package", TABLES)
def test_rooms_say_what_they_are_for_and_pass_nothing_on(package):
    for room in TABLES[package]:
        path = ROOT / package / room / "__init__.py"
        if path.parent.is_dir():
            tree = ast.parse(path.read_text())
            assert len(tree.body) == 1, path
            assert ast.get_docstring(tree).count(".") >= 2, path


def test_no_module_shadows_the_standard_library():
    for room in ROOMS:
        for path in (ROOT / room).rglob("*.py"):
            assert path.stem not in sys.stdlib_module_names, path


def test_first_lines_of_docstrings_stand_alone():
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    found = []
    for path in (path for room in ROOMS for path in sorted((ROOT / room).rglob("*.py"))):
        for node in ast.walk(ast.parse(path.read_text())):
            text = ast.get_docstring(node) if isinstance(node, documented) else None
            if text and re.split(r"\W", text, maxsplit=1)[0] in BANNED:
                place = f"{path.relative_to(ROOT)}:{node.body[0].lineno}"
                found.append(f"{place}: {text.splitlines()[0]}")
    assert not found, "\n".join(["docstrings that begin with a banned word:", *found])


@pytest.mark.parametrize("room", LINKED)
def test_editors_find_the_rooms_from_the_root(room):
    link = ROOT / "foldnorm" / room
    assert link.is_symlink()
    assert link.readlink() == Path("..") / room  # relative: the repository can lie anywhere
    assert not (ROOT / room).is_symlink()


def test_setup_lists_every_package():
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    listed = set(config["options"]["packages"].split())
    folders = {p.parent for room in LINKED for p in (ROOT / room).rglob("__init__.py")}
    found = {"foldnorm." + ".".join(f.relative_to(ROOT).parts) for f in folders}
    assert listed == {"foldnorm", *found}


def test_every_requirement_is_pinned():
    pinned = {
        line.split("==")[0].lower().replace("_", "-")
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if "==" in line
    }
    for requirement in importlib.metadata.requires("foldnorm") or []:
        if requirement.startswith("foldnorm["):  # one extra within another
            continue
        name = requirement.split(";")[0].split("[")[0].strip()
        for mark in "<>=!":
            name = name.split(mark)[0].strip()
        assert name.lower().replace("_", "-") in pinned, requirement


@pytest.mark.slow
def test_the_wheel_holds_every_module_and_file(tmp_path):
    # From a copy: a build leaves a folder behind, and a stale one would hide what is missing.
    source = tmp_path / "source"
    ignored = shutil.ignore_patterns(".*", "build", "out", "__pycache__", "*.egg-info")
    shutil.copytree(ROOT, source, ignore=ignored, symlinks=True)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", tmp_path, source]
    subprocess.run(command, check=True)
    (wheel,) = tmp_path.glob("*.whl")
    held = set(zipfile.ZipFile(wheel).namelist())
    for room in ("foldnorm", *LINKED):
        for path in (ROOT / room).rglob("*"):
            if (path.suffix in HELD or path.name == "py.typed") and path.is_file():
                inside = path.relative_to(ROOT / "foldnorm" if room == "foldnorm" else ROOT)
                assert f"foldnorm/{inside}" in held, path
    assert not any(name.startswith(("models/", "pipeline/", "tests/")) for name in held)


@pytest.mark.parametrize("name", shipped_configs())
def test_every_shipped_configuration_builds_what_it_names(name):
    # What `foldnorm models` says without building it (benchmarks/model_sizes.py writes the file).
    size = json.loads((ROOT / "configs/sizes.json").read_text())[name]
    shape = size["shape"]
    sulci = lambda: ["a", "b"]  # noqa: E731
    rows = [{"class": "a"}, {"class": "b"}]
    n_classes = None if size["input_kind"] in OF_IMAGES else 3
    config = resolve(
        name,
        [],
        shape=shape,
        n_classes=n_classes,
        n_pair_classes=3,
        training_rows=rows,
        sulci=sulci,
    )
    model = build_model(config["model"])
    assert model.phase_order(0)
    assert config["model"]["init_args"].get("class_weights") is None
    # Full float32 is for comparing a GPU with a CPU: it takes a GPU several times as long.
    assert config["training"]["precision"] in ("tf32", "bf16")
    if name == "wgan_gp_report":
        assert model.latent_dim == 1728
    assert size["parameters"] == sum(p.numel() for p in model.parameters())
    assert size["input_kind"] == model.input_kind
    assert ("sample" in size["offers"]) == isinstance(model, Generates)
    assert ("translate" in size["offers"]) == isinstance(model, Translates)


def test_kernels_leave_their_cache_to_compiled():
    """Numba's own refuses to import where no place is writable."""
    texts = {path: path.read_text() for room in ROOMS for path in (ROOT / room).rglob("*.py")}
    assert not [path for path, text in texts.items() if re.search(r"@compiled\([^)]*cache=", text)]
    assert any("@compiled(nogil" in text for text in texts.values())
