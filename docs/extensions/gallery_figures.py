"""Pictures of the gallery: figures that a script names, of pyplot or not."""

from collections.abc import Mapping
from typing import Any

from matplotlib import pyplot
from matplotlib.figure import Figure
from sphinx_gallery.scrapers import figure_rst

DPI = 130


def save_figures(
    block: tuple[Any, ...], variables: Mapping[str, Any], settings: Mapping[str, Any]
) -> str:
    """Save the figures that a block of a script made, and return the text that shows them."""
    del block
    named = variables["example_globals"]
    figures = [name for name, value in named.items() if isinstance(value, Figure)]
    paths = []
    for name in figures:
        paths.append(next(variables["image_path_iterator"]))
        named.pop(name).savefig(paths[-1], dpi=DPI, bbox_inches="tight")
    pyplot.close("all")
    return figure_rst(paths, settings["src_dir"])
