"""The list of configurations that come with foldnorm; imports no torch."""

import importlib.resources
import json
from typing import Any

import yaml


def list_models() -> list[dict[str, Any]]:
    """List the shipped configurations, sorted by name.

    Returns:
        Of each ``name``, ``class``, ``what`` in a sentence, its ``input_kind``, what it ``offers``,
        ``parameters``, and the memory of training, ``training_mib``, at ``batch_size`` volumes of
        ``shape``.

    Example:
        >>> [entry["name"] for entry in list_models()][:2]
        ['autoencoder', 'beta_vae']
    """
    folder = importlib.resources.files("foldnorm.configs")
    sizes = json.loads((folder / "sizes.json").read_text(encoding="utf-8"))
    found = []
    for path in sorted(folder.iterdir(), key=lambda p: p.name):
        if path.name.endswith(".yaml"):
            text = path.read_text(encoding="utf-8")
            name, what = path.name.removesuffix(".yaml"), text.splitlines()[0].lstrip("# ")
            class_path = yaml.safe_load(text)["model"]["class_path"]
            found.append({"name": name, "class": class_path, "what": what, **sizes[name]})
    return found
