"""Every shipped configuration on a GPU that is simulated, in processes of their own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BENCHMARKS = ROOT / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))
from gpu_smoke import CASES  # noqa: E402

NO_SIMULATION = 77
BEGIN = """
import simulated_cuda
try:
    simulated_cuda.install()
except simulated_cuda.Unavailable as reason:
    print(reason)
    raise SystemExit(77)
import torch
from simulated_tensors import GPU, TRAFFIC, MixedDevicesError, Simulation

def waits(work):
    before = TRAFFIC.copy()
    work()
    return sum(TRAFFIC.since(before).waits.values())

def is_refused(work, error=MixedDevicesError):
    try:
        work()
    except error:
        return True
    return False
"""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1800),  # a configuration takes a minute, and five on a busy machine
]


def run(*words: object) -> str:
    """Run Python in `benchmarks`; skips where the simulation cannot be built."""
    done = subprocess.run(
        [sys.executable, *map(str, words)], cwd=BENCHMARKS, capture_output=True, text=True,
        check=False, env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    if done.returncode == NO_SIMULATION:
        pytest.skip(f"no simulated GPU here: {(done.stdout + done.stderr).strip()}")
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def simulated(body: str) -> None:
    lines = [f"    {line}" for line in body.strip().splitlines()]
    run("-c", "\n".join([BEGIN, "with Simulation():", *lines]))


def test_what_cuda_refuses_is_refused():
    simulated("""
x = torch.randn(2, 3, device=GPU)
assert x.device == GPU and (x * 2).device == GPU
assert is_refused(lambda: x + torch.ones(2, 3))
assert is_refused(lambda: x @ torch.ones(3, 2))
assert is_refused(lambda: torch.cat([x, torch.ones(2, 3)]))
assert is_refused(lambda: torch.ones(4)[torch.zeros(2, dtype=torch.long, device=GPU)])
assert is_refused(lambda: torch.zeros(()).add_(x.sum()))
assert is_refused(lambda: torch.randn(2, device=GPU, generator=torch.Generator()))
assert is_refused(lambda: torch.randn(2, generator=torch.Generator(GPU)), RuntimeError)
assert is_refused(lambda: x.numpy(), TypeError)
assert (x + torch.tensor(2.0)).device == GPU
assert torch.equal(x[torch.tensor([1])], x[1:])
""")


def test_what_waits_is_counted():
    simulated("""
x, pinned = torch.randn(2, 3, device=GPU), torch.randn(4).pin_memory()
assert waits(lambda: x * 2 + torch.full((3,), 1.0, device=GPU)) == 0
assert waits(lambda: pinned.to(GPU, non_blocking=True)) == 0
assert waits(lambda: torch.where(x > 0, 1.0, x)) == 0
for work in (lambda: x.sum().item(), lambda: bool(x.all()), lambda: x.cpu(), lambda: x.nonzero(),
             lambda: x[x > 0], lambda: pinned.to(GPU), lambda: torch.ones(4).to(GPU),
             lambda: torch.tensor([1, 2], device=GPU), lambda: x.sum().tolist()):
    assert waits(work) == 1
""")


def test_gradients_are_those_of_the_cpu():
    simulated("""
torch.manual_seed(0)
own = torch.nn.Sequential(torch.nn.Conv3d(2, 4, 3), torch.nn.GroupNorm(2, 4), torch.nn.PReLU())
x, found = torch.randn(2, 2, 6, 6, 6), []
for device in ("cpu", "cuda"):
    own.zero_grad()
    own = own.to(device)
    own(x.to(device)).square().mean().backward()
    found.append([p.grad.cpu() for p in own.parameters()])
assert all(map(torch.equal, *found))
""")


def test_a_gpu_draws_each_volume_by_itself():
    simulated("""
from foldnorm.models.noise import StepNoise
whole = StepNoise((0, 3, 1), 4, GPU)
parts = [StepNoise((0, 3, 1), 2, GPU, rank, 2) for rank in (0, 1)]
assert waits(lambda: StepNoise((0, 3, 1), 4, GPU).normal(5)) == 0
assert torch.equal(whole.normal(5), torch.cat([part.normal(5) for part in parts]))
assert torch.equal(whole.uniform(), torch.cat([part.uniform() for part in parts]))
as_on_cpu = StepNoise((0, 3, 1), 4, GPU, source="cpu").normal(5).cpu()
assert torch.equal(as_on_cpu, StepNoise((0, 3, 1), 4, torch.device("cpu")).normal(5))
""")


def test_an_image_is_the_same_however_many_a_gpu_draws():
    simulated("""
from foldnorm.models.ddpm import DDPM
from foldnorm.models.noise import generator_on
for sampler in ("ddpm", "ddim"):
    torch.manual_seed(0)
    model = DDPM((8, 8), channels=(8,), attention=(False,), diffusion_steps=6, sampling_steps=3,
                 sampler=sampler).eval()
    expected = model.sample(2, torch.Generator().manual_seed(3))
    model = model.to(GPU)
    few, many = (model.sample(n, generator_on(GPU, 3)).cpu() for n in (2, 5))
    assert torch.allclose(few, many[:2], atol=1e-5)
    assert torch.equal(model.sample(2, generator_on(GPU, 3, "cpu")).cpu(), expected)
""")


@pytest.fixture(scope="module")
def cohorts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("simulated") / "cohorts"


@pytest.mark.parametrize("config", CASES)
def test_a_configuration_trains_resumes_and_is_used_and_hardly_waits(config, cohorts, tmp_path):
    run("device_simulation.py", tmp_path / "out.json", "--cohorts", cohorts, "--configs", config)
