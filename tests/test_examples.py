"""Examples in docstrings, run as written.

They may use ``fn``, ``np``, what their module knows, and what the example of the package leaves
(``cohort``, ``config``, ``model``, the folder ``run``).
"""

import doctest
import importlib
import pkgutil

import numpy as np
import pytest

import foldnorm as fn

FRONT = (
    "foldnorm.api",
    "foldnorm.pipeline.runs.model_list",
    "foldnorm.pipeline.runs.trained_model",
    "foldnorm.plotting",
    "foldnorm.preprocessing.cohort.cohort",
    "foldnorm.preprocessing.core.errors",
)
PURE = (
    "foldnorm.pipeline.transforms",
    "foldnorm.preprocessing.cohort.discretise",
    "foldnorm.preprocessing.core.choices",
    "foldnorm.preprocessing.core.counts",
    "foldnorm.preprocessing.io.schemes",
    *(f"{room}.{module.name}"
      for room in ("foldnorm.pipeline.metrics", "foldnorm.preprocessing.spatial")
      for module in pkgutil.iter_modules(importlib.import_module(room).__path__)),
)  # fmt: skip
WITHOUT = {"foldnorm.preprocessing.spatial.target_grid"}  # a protocol; its examples are files


@pytest.fixture(scope="module")
def left(tmp_path_factory):
    """Folder where the example of the package was run, and the names that it leaves."""
    folder = tmp_path_factory.mktemp("examples")
    names = {"np": np}
    example = doctest.DocTestParser().get_doctest(fn.__doc__, names, "foldnorm", None, None)
    runner = doctest.DocTestRunner(optionflags=doctest.FAIL_FAST)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert runner.run(example, clear_globs=False).failed == 0
    return folder, {"np": np, **example.globs}


def check(module, **names):
    result = doctest.testmod(importlib.import_module(module), extraglobs=names)
    assert result.attempted
    assert not result.failed


@pytest.mark.parametrize("module", FRONT)
def test_examples_of_the_front_door(module, left, monkeypatch):
    folder, names = left
    monkeypatch.chdir(folder)
    check(module, **names)


@pytest.mark.parametrize("module", sorted({*PURE} - WITHOUT))
def test_examples_of_pure_functions(module):
    check(module, fn=fn, np=np)
