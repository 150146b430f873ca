"""List the shipped configurations with what their models are; imports no torch."""

import argparse
import json

HELP = "list the shipped configurations"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("--json", action="store_true", help="as JSON")


def run(arguments: argparse.Namespace) -> int:
    """Run the command."""
    import importlib.resources

    import yaml

    folder = importlib.resources.files("foldnorm.configs")
    found = []
    for path in sorted(folder.iterdir(), key=lambda p: p.name):
        if path.name.endswith(".yaml"):
            text = path.read_text(encoding="utf-8")
            content = yaml.safe_load(text)
            what = text.splitlines()[0].lstrip("# ")
            name = path.name.removesuffix(".yaml")
            found.append({"name": name, "class": content["model"]["class_path"], "what": what})
    if arguments.json:
        print(json.dumps(found, indent=2))
    else:
        for entry in found:
            print(f"{entry['name']:<18} {entry['what']}")
    return 0
