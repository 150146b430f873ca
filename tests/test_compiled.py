"""Networks that PyTorch compiles: which, when, and that nothing but the steps knows of it."""

import shutil

import pytest
import torch
from conftest import TINY_TRAINING
from processes import together
from test_models import CPU, MODELS, batch, make, noise, phases_of
from torch._dynamo.testing import CompileCounterWithBackend

from foldnorm.models.checkpointed import Checkpointed
from foldnorm.models.image_classifier import ImageClassifier
from foldnorm.pipeline.cli import main
from foldnorm.pipeline.runs.metrics_log import MetricsLog
from foldnorm.pipeline.runs.run_folder import RunFolder
from foldnorm.pipeline.training.arithmetic import mixed
from foldnorm.pipeline.training.compiled import (
    compile_networks,
    compiled_parts,
    not_compiled,
    uses_graphs,
)
from foldnorm.pipeline.training.train import _freeze_all_but
from foldnorm.preprocessing.core.errors import InputError

CODING = {"encoder", "generator"}
PARTS = {
    "wgan_gp": CODING,
    "gan": {*CODING, "critic"},
    "wgan": {*CODING, "critic"},
    "f_anogan": CODING,
    "unit": {"encoders.first", "encoders.second", "generators.first", "generators.second"},
    "hypersphere_classifier": {"encoder.left.0", "encoder.left.1"},
    "latent_ddpm": {"network", "autoencoder.encoder", "autoencoder.generator"},
    "vnet": {"network"},
}  # fmt: skip
TAKE_LONG = ("latent_ddpm", "latent_flow", "vqvae_transformer")  # to trace


@pytest.fixture
def tracer():
    """PyTorch's tracer and its differentiation ahead of time, without kernels of their own."""
    counter = CompileCounterWithBackend("aot_eager")
    with torch.compiler.set_stance("default", force_backend=counter):
        yield counter
    torch.compiler.reset()


@pytest.mark.parametrize("name", PARTS)
def test_the_largest_modules_are_compiled_unless_their_gradient_is_penalised(name):
    assert set(compiled_parts(make(name))) == PARTS[name]


@pytest.mark.parametrize("name", MODELS)
def test_a_model_says_which_phases_differentiate_twice(name, monkeypatch):
    model, once, seen = make(name), torch.autograd.grad, []

    def grad(*given, create_graph=False, **named):
        seen.append(create_graph)
        return once(*given, create_graph=create_graph, **named)

    monkeypatch.setattr(torch.autograd, "grad", grad)
    for phase in phases_of(model):
        seen.clear()
        model.loss(phase, batch(name), noise())
        assert any(seen) == model.phases[phase].penalises_gradient, phase


def losses_and_gradients(name, how, precision="32"):
    model = make(name).train()
    compile_networks(model, how, CPU)
    found = []
    for phase in phases_of(model):
        _freeze_all_but(model, phase)
        model.zero_grad()
        with mixed(precision, CPU):
            loss = model.loss(phase, batch(name), noise())["loss"]
        loss.backward()
        gradients = [p.grad.flatten() for p in model.parameters() if p.grad is not None]
        found.append(torch.cat([loss.detach().view(1), *gradients]))
    return found


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.slow) if name in TAKE_LONG else name for name in MODELS],
)
def test_compiled_networks_compute_the_same_losses_and_gradients(name, tracer):
    expected = losses_and_gradients(name, False)
    assert tracer.frame_count == 0
    found = losses_and_gradients(name, True)
    assert tracer.frame_count >= len(compiled_parts(make(name)))
    for own, other in zip(found, expected, strict=True):
        torch.testing.assert_close(own, other, rtol=1e-4, atol=1e-5)


def test_small_maps_stay_in_float32_when_compiled(tracer):
    """Where their gradients in bfloat16 are wrong, see `foldnorm.models.small_maps`."""
    (expected,) = losses_and_gradients("restorer", False, "bf16")
    (found,) = losses_and_gradients("restorer", True, "bf16")
    assert tracer.frame_count > 1
    torch.testing.assert_close(found, expected)


def test_what_is_compiled_cannot_be_differentiated_twice(tracer):
    """Else the exception for critics were needless."""
    model = make("wgan_gp")
    compile_networks(model, True, CPU)
    model.critic.compile()
    with pytest.raises(RuntimeError, match="create_graph=False"):
        model.loss("critic", batch("wgan_gp"), noise())["loss"].backward()


def test_a_network_of_single_layers_is_no_option(tracer):
    with pytest.raises(InputError, match="ImageClassifier has nothing to compile"):
        compile_networks(ImageClassifier((8, 8)), True, CPU)


def test_copies_and_names_of_weights_know_nothing_of_it(tracer):
    model = make("vnet")
    names = list(model.state_dict())
    compile_networks(model, True, CPU)
    assert list(model.state_dict()) == names
    with not_compiled():
        model.translate(batch("vnet")[:, 0])
    assert tracer.frame_count == 1  # of the attempt before any network
    model.translate(batch("vnet")[:, 0])
    assert tracer.frame_count > 1


def train(cohort, out, *more):
    words = ["train", "wgan_gp", str(cohort), "-o", str(out), "--device", "cpu", "--quiet"]
    return main([*words, *TINY_TRAINING, *more])


COMPILED = ("--training.compile", "true")


def weights(run):
    return RunFolder(run).load_checkpoint("last")["model"]


def check_trainings(cohort, plain, tmp_path):
    """Whole, and stopped and resumed; beside a training of the same that is not compiled."""
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert train(cohort, whole, *COMPILED) == 0
    assert train(cohort, parts, *COMPILED, "--training.session_steps", "2") == 75
    assert train(cohort, parts, *COMPILED, "--resume", "auto") == 0
    own, other, expected = weights(whole), weights(parts), weights(plain)
    assert list(own) == list(expected)
    for name, tensor in own.items():
        assert torch.equal(tensor, other[name]), name
    logs = [MetricsLog(run / "metrics.csv", up_to=99) for run in (whole, plain)]
    for column in ("critic/loss", "generator/cross_entropy", "validation/loss", "validation/dice"):
        found, wanted = (log.column(column)[1] for log in logs)
        assert found == pytest.approx(wanted, rel=1e-3, abs=1e-4), column
    return whole


@pytest.mark.slow
def test_a_compiled_training_is_one_that_is_not_and_resumes_bit_for_bit(
    small_cohort, small_run, tmp_path, tracer
):
    run = check_trainings(small_cohort.folder, small_run, tmp_path)
    assert tracer.frame_count > 3
    assert main(["export", str(run), "-o", str(tmp_path / "bundle"), "--quiet"]) == 0


@pytest.mark.slow
def test_validation_does_not_depend_on_it(small_cohort, tmp_path, tracer):
    """Figures of the same weights: those of a training whose rate is next to nothing."""
    still = ("--training.learning_rate", "1e-30", "--training.learning_rates", "{critic: 1e-30}",
             "--training.ema", "0.5")  # fmt: skip
    for name, more in (("plain", ()), ("compiled", COMPILED)):
        assert train(small_cohort.folder, tmp_path / name, *still, *more) == 0
    plain, own = (MetricsLog(tmp_path / name / "metrics.csv", up_to=99) for name in
                  ("plain", "compiled"))  # fmt: skip
    columns = {name for row in plain.rows.values() for name in row
               if name.startswith(("validation/", "samples/"))}  # fmt: skip
    assert len(columns) > 5
    assert all(own.column(name) == plain.column(name) for name in columns)


@pytest.mark.slow
def test_two_compiled_processes_are_one_on_the_whole_batch(
    small_cohort, small_run, tmp_path, tracer
):
    codes = together(train, small_cohort.folder, tmp_path / "run", *COMPILED)
    assert codes == [0, 0]
    found = weights(tmp_path / "run")
    for name, tensor in weights(small_run).items():
        difference = torch.linalg.vector_norm(tensor - found[name])
        assert difference <= 1e-5 * torch.linalg.vector_norm(tensor), name


@pytest.mark.slow
@pytest.mark.timeout(1800)  # kernels of two networks and three phases: minutes on a busy machine
@pytest.mark.skipif(shutil.which("g++") is None, reason="no g++ to compile with")
def test_kernels_of_the_compiler_train_likewise(small_cohort, small_run, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))
    check_trainings(small_cohort.folder, small_run, tmp_path)


def test_a_machine_that_cannot_compile_is_one_line(small_cohort, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))
    torch.compiler.reset()
    with torch._inductor.config.patch({"cpp.cxx": ("no-such-compiler",)}):
        assert train(small_cohort.folder, tmp_path / "run", *COMPILED) == 2
    (said,) = capsys.readouterr().err.strip().splitlines()
    assert said.startswith("foldnorm: error: training.compile: networks cannot be compiled here (")
    assert "no-such-compiler" in said
    assert "g++" in said
    assert not (tmp_path / "run/config.yaml").exists()


def test_graphs_are_of_gpus():
    assert uses_graphs("reduce-overhead", torch.device("cuda"))
    assert not uses_graphs("reduce-overhead", CPU)
    assert not uses_graphs(True, torch.device("cuda"))


def test_blocks_that_are_computed_again_are_so_when_compiled(tracer):
    block = Checkpointed(torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Tanh()))
    x, found = torch.randn(3, 4, requires_grad=True), []
    for _ in range(2):
        x.grad = None
        block(x).square().sum().backward()
        found.append(x.grad)
        block.compile()
    assert tracer.frame_count == 1
    torch.testing.assert_close(*found)
