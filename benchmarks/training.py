"""Training steps of wgan_gp.yaml at 80³ against the network of the 2021 study, side by side.

Same batch, same machine, one run; each in a process of its own so that peak memory is its own. A
step is five critic steps and one of encoder and generator (ours: without the reconstruction steps
that follow, which the study has not). Ends with one line of JSON, which is also written to OUT.
"""

import argparse
import json
import multiprocessing
import resource
import statistics
import time
from pathlib import Path

import torch
from figures import write_figures

GIBIBYTE = 2**30


def ours(batch: int, steps: int, queue: "multiprocessing.Queue[tuple[float, int]]") -> None:
    from foldnorm.models.blocks import as_channels_last
    from foldnorm.models.noise import StepNoise
    from foldnorm.pipeline.runs.config import build_model, resolve, training_options

    config = resolve(
        "wgan_gp", ["--model.init_args.reconstruction_steps=0"], shape=(80,) * 3, n_classes=3
    )
    options = training_options(config)
    model = as_channels_last(build_model(config["model"]), 3)
    networks = ("critic", "encoder", "generator")
    optimizers = {n: torch.optim.Adam(getattr(model, n).parameters(), lr=1e-4) for n in networks}
    volumes = torch.randint(0, 3, (batch, 80, 80, 80), dtype=torch.uint8)
    assert options.precision != "bf16"

    def step(number: int) -> None:
        for n, phase in enumerate(model.phase_order(0)):
            trained = model.phases[phase].networks
            for name in networks:
                getattr(model, name).requires_grad_(name in trained)
            noise = StepNoise((0, number, n), batch, torch.device("cpu"))
            for name in trained:
                optimizers[name].zero_grad(set_to_none=True)
            model.loss(phase, volumes, noise)["loss"].backward()
            for name in trained:
                optimizers[name].step()

    queue.put((median_seconds(step, steps), peak_memory()))


def study(batch: int, steps: int, queue: "multiprocessing.Queue[tuple[float, int]]") -> None:
    from study_network import StudyTraining

    training = StudyTraining()
    volumes = torch.randint(0, 3, (batch, 80, 80, 80), dtype=torch.uint8)
    queue.put((median_seconds(lambda _: training.step(volumes), steps), peak_memory()))


def median_seconds(step, steps: int) -> float:  # type: ignore[no-untyped-def]
    seconds = []
    for number in range(steps + 1):
        begin = time.perf_counter()
        step(number)
        seconds.append(time.perf_counter() - begin)
    return statistics.median(seconds[1:])


def peak_memory() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path, metavar="OUT", help="JSON")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--steps", type=int, default=3, help="of each, after one to warm up")
    arguments = parser.parse_args()
    print(__doc__.splitlines()[0])
    context = multiprocessing.get_context("spawn")
    found = {}
    for method in (ours, study):
        queue: multiprocessing.Queue[tuple[float, int]] = context.Queue()
        process = context.Process(target=method, args=(arguments.batch, arguments.steps, queue))
        process.start()
        found[method.__name__] = queue.get()
        process.join()
        seconds, memory = found[method.__name__]
        print(f"{method.__name__}: {seconds:.2f} s a step, peak {memory / GIBIBYTE:.2f} GiB")
    figures = {
        "speedup_vs_study": round(found["study"][0] / found["ours"][0], 2),
        "memory_vs_study": round(found["ours"][1] / found["study"][1], 3),
        "batch": arguments.batch,
    }
    for name, (seconds, memory) in found.items():
        figures |= {
            f"{name}_seconds": round(seconds, 2),
            f"{name}_gib": round(memory / GIBIBYTE, 2),
        }
    write_figures(arguments.out, figures)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
