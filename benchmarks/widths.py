"""Where the multiplications of a training lie: on which grids, in maps of how many channels.

Tensor cores multiply tiles of 64 channels and more; a convolution between few channels leaves most
of a tile empty. One step of each configuration (all its phases, forward and backward, one volume of
`--side` voxels each way) is computed on this CPU, and its operations counted by the grid on which
the kernel is applied and by the smaller number of channels, in or out. Shares of all; ends with one
line of JSON, which is also written to OUT.
"""

import argparse
import json
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from figures import flattened, write_figures
from gpu_throughput import CONFIGS, Flops

from foldnorm.models.noise import StepNoise
from foldnorm.models.protocols import Trainable, networks_of
from foldnorm.pipeline.runs.config import build_model, resolve

NARROW = 32  # channels: half of a tile
CONVOLUTIONS = {torch.ops.aten.convolution: 0, torch.ops.aten.convolution_backward: 1}
Places = Counter[tuple[int, int]]  # operations by longest side of the grid, and channels


class FlopsByPlace(Flops):
    """Counts operations by where they are; products that know no grid under (0, 0)."""

    def __init__(self) -> None:
        super().__init__()
        self.found: Places = Counter()

    def add(self, flops: int, packet: Any, args: tuple[Any, ...], out: Any) -> None:
        """Count the operations of one call where its kernel is applied."""
        is_backward = CONVOLUTIONS.get(packet)
        place = (0, 0) if is_backward is None else _place(is_backward, args, out)
        self.found[place] += flops


def _place(is_backward: int, args: tuple[Any, ...], out: Any) -> tuple[int, int]:
    """Longest side of the grid of a convolution, and the fewer of its channels."""
    given, weight = args[is_backward : is_backward + 2]
    made = args[0] if is_backward else out
    # A gradient of a gradient has the map in the place of the kernel.
    sides = max(min(max(given.shape[2:]), max(made.shape[2:])), *weight.shape[2:])
    return sides, min(weight.shape[:2])


def operations(config: str, side: int) -> Places:
    """Count what a step of a configuration computes for one volume a phase."""
    sizes: dict[str, Any] = {"shape": (side,) * 3, "n_classes": 3, "n_pair_classes": 3, "void": 1}
    model = build_model(resolve(config, [], **sizes)["model"]).train()
    assert isinstance(model, Trainable)
    found: Places = Counter()
    for phase, times in Counter(model.phase_order(0)).items():
        for name in networks_of(model):
            getattr(model, name).requires_grad_(name in model.phases[phase].networks)
        volumes = torch.randint(3, (1, side, side, side), dtype=torch.uint8)
        if model.input_kind == "pairs":
            volumes = torch.stack([volumes, volumes], dim=1)
        with FlopsByPlace() as count:
            model.loss(phase, volumes, StepNoise((0, 0, 0), 1, volumes.device))["loss"].backward()
        model.zero_grad(set_to_none=True)
        for place, flops in count.found.items():
            found[place] += times * flops
    return found


def shares(found: Places) -> dict[str, float]:
    """Return the operations of a step, and how they are shared out."""
    whole, finest = found.total(), max(grid for grid, _ in found)
    of_finest = {channels: n for (grid, channels), n in found.items() if grid == finest}
    narrow = sum(n for channels, n in of_finest.items() if channels < NARROW)
    return {
        "gflop": round(whole / 1e9, 1),
        "voxels_of_a_side": finest,
        "finest_narrow": round(narrow / whole, 4),
        "finest_wide": round((sum(of_finest.values()) - narrow) / whole, 4),
        "coarser": round(1 - sum(of_finest.values()) / whole, 4),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path, metavar="OUT", help="JSON")
    parser.add_argument("--side", type=int, default=80)
    arguments = parser.parse_args()
    figures: dict[str, Any] = {"side": arguments.side}
    for config in CONFIGS:
        found = operations(config, arguments.side)
        figures[config] = shares(found)
        for (grid, channels), flops in sorted(found.items(), reverse=True):
            print(f"{config}: {grid}³, {channels} channels: {flops / found.total():.4f}")
    write_figures(arguments.out, flattened(figures))
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
