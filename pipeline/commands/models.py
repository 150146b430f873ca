"""List the shipped configurations: what their models read and offer, how large they are.

Parameters, and the memory of training at the configured batch size beyond what torch itself takes,
are of volumes of the shape that is named. Imports no torch.
"""

import argparse
import json

HELP = "list the shipped configurations"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("--json", action="store_true", help="print JSON, for programs")


def run(arguments: argparse.Namespace) -> int:
    """Run the command."""
    from foldnorm.pipeline.runs.model_list import list_models

    found = list_models()
    if arguments.json:
        print(json.dumps(found, indent=2))
        return 0
    for entry in found:
        shape = " × ".join(map(str, entry["shape"]))
        print(f"{entry['name']:<26} {entry['what']}")
        print(
            f"{'':<26} reads {entry['input_kind']}; {', '.join(entry['offers'])}; "
            f"{entry['parameters'] / 1e6:.2f} million parameters, {entry['training_mib']} MiB "
            f"to train at {shape}, batch {entry['batch_size']}"
        )
    return 0
