"""Sphinx: the documentation of foldnorm (`make docs`). Needs no network; warnings are errors."""

import os
import re
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "extensions"))

import foldnorm  # noqa: E402

project = "foldnorm"
author = "the foldnorm developers"
copyright = author
version = release = foldnorm.__version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.intersphinx",
    "sphinx_copybutton",
    "sphinx_gallery.gen_gallery",
    "reference_pages",
    "figures",
]
exclude_patterns = [
    "_build",
    "example",
    "extensions",
    "gallery",
    "**/.ipynb_checkpoints",
    "**/sg_execution_times.rst",
]
html_theme = "furo"
html_title = f"foldnorm {release}"
html_static_path: list[str] = []
html_extra_path = ["example"]  # a report of the demo, beside index.html

smartquotes_action = "qe"  # not dashes: they are options of commands
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
nb_execution_mode = "off"  # the tutorial holds what it printed; a test runs it anew

autodoc_typehints = "description"
autodoc_member_order = "bysource"
napoleon_google_docstring = True
napoleon_use_ivar = True

# Only where a network is: without one, each would be a warning.
intersphinx_mapping = (
    {
        "python": ("https://docs.python.org/3", None),
        "numpy": ("https://numpy.org/doc/stable", None),
        "torch": ("https://pytorch.org/docs/stable", None),
        "monai": ("https://docs.monai.io/en/stable", None),
    }
    if os.environ.get("FOLDNORM_DOCS_ONLINE")
    else {}
)

sphinx_gallery_conf = {
    "examples_dirs": "gallery",
    "gallery_dirs": "_gallery",
    "filename_pattern": r"/plot_",
    "image_scrapers": ("gallery_figures.save_figures",),
    "capture_repr": (),
    "download_all_examples": False,
    "notebook_extensions": set(),
    "show_signature": False,
    "remove_config_comments": True,
    "show_memory": False,
    "min_reported_time": 10**6,
    "within_subsection_order": "FileNameSortKey",
    "abort_on_example_error": True,
}
copybutton_prompt_text = r"\$ |>>> "
copybutton_prompt_is_regexp = True


def escape_shapes(
    app: Any, what: str, name: str, documented: Any, options: Any, lines: list[str]
) -> None:
    """Keep the star of shapes such as ``(B, *sides)`` from beginning an emphasis."""
    del app, what, name, documented, options
    lines[:] = [re.sub(r"(?<![*`])\*(?=\w+\))", r"\\*", line) for line in lines]


def setup(app: Any) -> None:
    """Have docstrings prepared."""
    app.connect("autodoc-process-docstring", escape_shapes, priority=400)
