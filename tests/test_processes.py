"""Training on two processes is training on one with the whole batch, whatever is trained."""

import numpy as np
import pytest
import torch
from processes import together
from test_models import TINY

from foldnorm.pipeline.cli import main
from foldnorm.pipeline.runs.config import shipped_configs
from foldnorm.pipeline.runs.run_folder import RunFolder
from foldnorm.pipeline.training import train as train_module

# Adam moves an entry whose gradient is all rounding by up to the learning rate. A gradient that is
# not averaged moves every entry by as much: a hundred times the bound, at this rate too.
LOW_RATE = 2e-4

LEVELS = {"channels": [8, 8], "convolutions": [1, 1]}
CRITIC = {"channels": [8], "critic_channels": [8], "critic_steps": 2}
OF_VOLUMES = {
    "wgan_gp": CRITIC,
    "wgan_gp_report": {**CRITIC, "latent_dim": 8},
    "vnet": LEVELS,
    "sulcus_segmenter": LEVELS,
}
# Dropout leaves out other units on each process, as on each volume.
OF_IMAGES = {
    "cnn_classifier": {"target": "way", "widths": [8, 8], "hidden": 8, "dropout": 0.0},
    "mlp_classifier": {"target": "way", "widths": [8], "dropout": 0.0},
    "dense_autoencoder": {"widths": [8], "latent_dim": 4},
    "convolutional_autoencoder": {"widths": [8]},
    "denoising_autoencoder": {"widths": [8]},
    "ddpm": {"channels": [8, 16], "attention": [False, True], "sampling_steps": 2},
    "rectified_flow": {"channels": [8, 16], "attention": [False, True], "sampling_steps": 2},
    "image_vae": {"channels": [8], "latent_dim": 4},
    "image_wgan_gp": {**CRITIC, "latent_dim": 4},
    "multi_domain_vae": {"channels": [8, 8], "code_channels": 4},
    "damage_unet": {"channels": 8, "tta_flips": False},
}


def words_of(name):
    if name in TINY:
        return TINY[name]
    sizes = {**OF_VOLUMES, **OF_IMAGES}[name]
    return [f"--model.init_args.{key}={value}".replace("'", "") for key, value in sizes.items()]


def run(name, cohort, out, rate):
    words = ["train", name, str(cohort), "-o", str(out), "--device", "cpu", "--quiet",
             "--training.steps", "4", "--training.batch_size", "4", "--training.log_every", "1",
             "--training.validate_every", "4", "--training.validation_volumes", "4",
             "--training.learning_rate", str(rate), "--training.precision", "32",
             *words_of(name)]  # fmt: skip
    return main(words)


def gradients_of_run(name, cohort, out):
    """Mean gradient of each phase of four steps, at a rate that leaves the weights as they are."""
    found, average = [], train_module.average_gradients

    def kept(fabric, optimizers):
        average(fabric, optimizers := list(optimizers))
        groups = [group for optimizer in optimizers for group in optimizer.param_groups]
        gradients = [p.grad for group in groups for p in group["params"]]
        found.append(torch.cat([g.flatten() for g in gradients if g is not None]).double().numpy())

    train_module.average_gradients = kept
    try:
        assert run(name, cohort, out, 1e-30) == 0
    finally:
        train_module.average_gradients = average
    return found


@pytest.fixture
def cohort_of(request):
    cohorts = {"vnet": "paired_cohort", "unit": "paired_cohort",
               "sulcus_segmenter": "annotated_cohort"}  # fmt: skip

    def of(name):
        if name in OF_IMAGES:
            return request.getfixturevalue("bars")
        return request.getfixturevalue(cohorts.get(name, "small_cohort")).folder

    return of


@pytest.mark.slow
@pytest.mark.parametrize("name", shipped_configs())
def test_the_mean_gradient_of_two_processes_is_that_of_the_whole_batch(name, cohort_of, tmp_path):
    cohort = cohort_of(name)
    alone = gradients_of_run(name, cohort, tmp_path / "one")
    two, same = together(gradients_of_run, name, cohort, tmp_path / "two")
    assert len(alone) == len(two) >= 4
    for one, mean, other in zip(alone, two, same, strict=True):
        assert np.array_equal(mean, other)
        assert np.linalg.norm(mean - one) <= 1e-5 * np.linalg.norm(one)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["dcgan", "f_anogan", "gan", "latent_ddpm", "latent_flow", "unit", "vqvae", "wgan"]
)
def test_so_are_the_weights_that_are_learned(name, cohort_of, tmp_path):
    cohort = cohort_of(name)
    assert run(name, cohort, tmp_path / "one", LOW_RATE) == 0
    assert together(run, name, cohort, tmp_path / "two", LOW_RATE) == [0, 0]
    one, two = (RunFolder(tmp_path / n).load_checkpoint("last")["model"] for n in ("one", "two"))
    # Relative to the tensor: Adam divides by the gradient's size, so an entry whose gradient is all
    # rounding moves by its rounding.
    for key, tensor in one.items():
        difference = torch.linalg.vector_norm(tensor - two[key])
        assert difference <= 1e-5 * torch.linalg.vector_norm(tensor), key
