"""Writes configs/sizes.json: what each shipped model offers, its parameters, its peak memory.

`foldnorm models` prints that file, so that it need not import torch. A model is built for volumes
of 48³ (those of ``…_report.yaml`` for 80³, those of images for 64²), and trained for two rounds at
its configured batch size on random volumes, in a process of its own: the memory is what the process
took beyond what it had with torch imported. Ends with one line of JSON.
"""

import argparse
import importlib
import json
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

CONFIGS = Path(__file__).parents[1] / "configs"
SIDE, REPORT_SIDE, IMAGE_SIDE = 48, 80, 64
CLASSES = 3
OF_IMAGES = ("images", "noisy", "classified", "damaged")  # what a model reads
SULCI = ["one", "two"]  # of a recogniser; each more is a few weights


def configured(name: str, shape: tuple[int, ...], n_classes: int | None) -> dict[str, Any]:
    from foldnorm.pipeline.runs.config import resolve

    return resolve(
        name,
        [],
        shape=shape,
        n_classes=n_classes,
        n_pair_classes=CLASSES,
        training_rows=[{"class": "a"}, {"class": "b"}],
        sulci=lambda: SULCI,
    )


def measure(name: str) -> dict[str, object]:
    import torch

    from foldnorm.models.blocks import as_channels_last
    from foldnorm.models.noise import StepNoise
    from foldnorm.models.protocols import (
        Classifies,
        Decodes,
        Encodes,
        Generates,
        Recognises,
        Restores,
        RestoresImages,
        Translates,
    )
    from foldnorm.pipeline.runs.config import build_model, training_options

    side = REPORT_SIDE if name.endswith("_report") else SIDE
    config = configured(name, (side,) * 3, CLASSES)
    shape: tuple[int, ...] = (side,) * 3
    module, _, kind = config["model"]["class_path"].rpartition(".")
    if getattr(importlib.import_module(module), kind).input_kind in OF_IMAGES:
        shape = (IMAGE_SIDE,) * 2
        config = configured(name, shape, None)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    model = as_channels_last(build_model(config["model"]), len(shape))
    batch = training_options(config).batch_size
    networks = sorted({n for p in model.phases.values() for n in p.networks})
    optimizers = {n: torch.optim.Adam(getattr(model, n).parameters()) for n in networks}
    single = model.input_kind in ("volumes", "images", "classified")
    sides = (
        (batch, *shape) if single else (batch, 3 if model.input_kind == "damaged" else 2, *shape)
    )
    volumes = torch.randint(0, CLASSES, sides, dtype=torch.uint8)
    if model.input_kind in OF_IMAGES:
        volumes = torch.rand(sides) * 2 - 1
    condition = None
    if model.input_kind == "classified":
        condition = torch.eye(2)[torch.randint(0, 2, (batch,))]
    for step in range(2):
        for phase in dict.fromkeys(p for s in (0, 10**9) for p in model.phase_order(s)):
            for network in networks:
                getattr(model, network).requires_grad_(network in model.phases[phase].networks)
            noise = StepNoise((0, step, 0), batch, torch.device("cpu"))
            model.loss(phase, volumes, noise, condition)["loss"].backward()
            for network in model.phases[phase].networks:
                optimizers[network].step()
                optimizers[network].zero_grad(set_to_none=True)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    protocols = {
        "encode": Encodes,
        "decode": Decodes,
        "sample": Generates,
        "translate": Translates,
        "restore": Restores,
        "recognise": Recognises,
        "classify": Classifies,
        "repair": RestoresImages,
    }
    return {
        "offers": [what for what, protocol in protocols.items() if isinstance(model, protocol)],
        "input_kind": model.input_kind,
        "shape": list(shape),
        "batch_size": batch,
        "parameters": sum(p.numel() for p in model.parameters()),
        "training_mib": round((peak - before) / 2**10),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", help="one configuration, printed and not written")
    arguments = parser.parse_args()
    if arguments.only:
        print(json.dumps(measure(arguments.only)))
        return
    sizes = {}
    for path in sorted(CONFIGS.glob("*.yaml")):
        command = [sys.executable, __file__, "--only", path.stem]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        sizes[path.stem] = json.loads(done.stdout.splitlines()[-1])
        print(path.stem, sizes[path.stem], flush=True)
    (CONFIGS / "sizes.json").write_text(json.dumps(sizes, indent=2) + "\n", encoding="utf-8")
    print(json.dumps({name: size["training_mib"] for name, size in sizes.items()}))


if __name__ == "__main__":
    main()
