"""A diffusion model of the codes of any autoencoder."""

import pytest
import torch
import yaml
from conftest import noise_of
from test_models import CONVOLUTIONAL, SHAPE, VAE, batch, small_latent, train, weights, words

from foldnorm.models.class_paths import ClassPathError
from foldnorm.models.code_scale import CodeScale
from foldnorm.models.latent_ddpm import LatentDDPM
from foldnorm.models.latent_flow import LatentFlow
from foldnorm.models.latent_stage import MEASURED_STEPS
from foldnorm.pipeline.cli import main
from foldnorm.pipeline.runs.run_folder import RunFolder


def of_stage(kind, **init_args):
    return {"first_stage": {"class_path": f"foldnorm.models.{kind}", "init_args": init_args}}


def test_codes_are_brought_to_mean_0_and_standard_deviation_1_and_back():
    scale, generator = CodeScale(3), torch.Generator().manual_seed(0)
    spread = torch.tensor([0.1, 1.0, 7.0]).view(1, 3, 1, 1, 1)
    codes = [5 + spread * torch.randn(4, 3, 5, 4, 3, generator=generator) for _ in range(6)]
    assert torch.equal(scale.normalised(codes[0]), codes[0])  # nothing was measured yet
    for own in codes:
        scale.measure(own)
    normalised = torch.cat([scale.normalised(own) for own in codes])
    assert normalised.mean(dim=(0, 2, 3, 4)).abs().max() < 1e-4
    assert normalised.std(dim=(0, 2, 3, 4)) == pytest.approx([1, 1, 1], abs=1e-2)
    assert torch.allclose(scale.restored(scale.normalised(codes[2])), codes[2], atol=1e-4)
    scale.measure(torch.full((1, 3, 1, 1, 1), 5.0))
    assert scale.normalised(codes[0]).isfinite().all()


def test_a_channel_that_holds_nothing_stays_finite():
    scale = CodeScale(1)
    scale.measure(torch.zeros(2, 1, 4, 4, 4))
    assert torch.equal(scale.normalised(torch.zeros(1, 1, 4, 4, 4)), torch.zeros(1, 1, 4, 4, 4))


def test_the_first_steps_of_the_second_stage_say_how_codes_are_normalised():
    model = small_latent(LatentFlow, autoencoder_share=0.0).train()
    volumes = batch("latent_flow")
    for step in (0, MEASURED_STEPS - 1, MEASURED_STEPS):
        model.loss("diffusion", volumes, noise_of(4, step=step))
        model.after_step("diffusion")
    places = len(volumes) * model.latent_dim / model.n_channels
    assert model.scale.count == 2 * places  # not those of the last step
    normalised = model.to_clean_input(volumes, None, noise_of(4))
    assert normalised.mean(dim=(0, 2, 3, 4)).abs().max() < 0.1
    codes = model.encode(volumes)
    back = model.scale.restored(model.to_clean_input(volumes, None)).flatten(1)
    assert torch.allclose(back, codes, atol=1e-4)


def test_an_autoencoder_of_several_phases_comes_trained():
    wgan = of_stage("WGANGP", **CONVOLUTIONAL)
    with pytest.raises(ValueError, match="WGANGP trains in 6 phases a step; train it by itself"):
        small_latent(LatentFlow, **wgan, training_steps=10)
    model = small_latent(LatentFlow, **wgan, autoencoder_share=0.0, training_steps=10)
    assert list(model.phases) == ["diffusion"]
    assert model.phase_order(0) == ("diffusion",)
    assert model.sample(1, torch.Generator().manual_seed(0)).shape == (1, *SHAPE)


@pytest.mark.parametrize(
    ("stage", "message"),
    [
        (of_stage("BetaVAE", channels=[8], latent_dim=4), "whose code is a map"),
        (of_stage("Autoencoder", **VAE), "expected a variational autoencoder"),
        (of_stage("BetaVAE", **VAE, depth=3), "first_stage: foldnorm.models.BetaVAE: .*depth"),
        (of_stage("Nothing"), "first_stage: no such class: foldnorm.models.Nothing"),
    ],
)
def test_what_has_no_map_of_codes_is_refused(stage, message):
    with pytest.raises((ValueError, ClassPathError), match=message):
        small_latent(LatentDDPM, **stage)


@pytest.mark.parametrize(
    ("name", "stage"),
    [
        ("latent_flow", "distance_autoencoder"),
        ("latent_ddpm", "beta_vae"),
        ("latent_flow", "wgan"),  # another class than the configuration names
    ],
)
def test_it_may_start_from_the_run_of_an_autoencoder(name, stage, small_cohort, tmp_path, capsys):
    assert train(stage, small_cohort, tmp_path / "first") == 0
    from_first = ["--weights", str(tmp_path / "first")]

    def train_second(out, *more):
        every = words(name, small_cohort, tmp_path / out)
        own = [word for word in every if "first_stage" not in word and "share" not in word]
        return main([*own, *from_first, *more])

    assert train_second("run") == 0
    first, second = weights(tmp_path / "first"), weights(tmp_path / "run")
    assert all(torch.equal(value, second[f"autoencoder.{key}"]) for key, value in first.items())
    assert second["scale.count"] > 0
    trained, own = (RunFolder(tmp_path / part).config["model"] for part in ("first", "run"))
    assert own["init_args"]["first_stage"]["class_path"] == trained["class_path"]
    assert own["init_args"]["autoencoder_share"] == 0
    wider = "--model.init_args.first_stage.init_args.code_channels=3"
    assert train_second("wide", wider) == 2
    assert "(differs in code_channels)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({"class_path": None}, "expected a model with class_path and init_args"),
        ({"class_path": "foldnorm.models.VQVAE", "init_args": [1]}, "expected a model with class_"),
        ({"class_path": "os.system"}, "first_stage: expected a class of"),
        ({"class_path": "foldnorm.models.Restorer"}, "first_stage: expected a variational auto"),
    ],
)
def test_weights_of_no_autoencoder_are_refused(model, message, small_cohort, tmp_path, capsys):
    assert train("distance_autoencoder", small_cohort, tmp_path / "first") == 0
    config = tmp_path / "first/config.yaml"
    written = {**yaml.safe_load(config.read_text()), "model": model}
    config.write_text(yaml.safe_dump(written))
    words = ["train", "latent_flow", str(small_cohort.folder), "-o", str(tmp_path / "run")]
    assert main([*words, "--weights", str(tmp_path / "first"), "--device", "cpu"]) == 2
    assert message in capsys.readouterr().err


def test_how_near_a_sheet_has_to_be_is_said_of_what_it_draws_or_of_its_first_stage():
    codes = torch.randn(1, 2, 2, 2, 3, generator=torch.Generator().manual_seed(0))
    first, near, far = (small_latent(LatentFlow, sheet_margin=m) for m in (None, 0.0, 3.0))
    for other in (near, far):
        other.load_state_dict(first.state_dict())
    assert first.sheet_margin == first.autoencoder.sheet_margin == 0.3
    assert far.autoencoder.sheet_margin == 0.3
    voxels = [int((model.to_output(codes) == 2).sum()) for model in (near, first, far)]
    assert voxels == sorted(set(voxels))


def test_weights_of_a_run_before_codes_were_normalised_are_taken_as_they_are():
    model, other = small_latent(LatentDDPM), small_latent(LatentDDPM)
    old = {key: own for key, own in model.state_dict().items() if not key.startswith("scale.")}
    other.scale.measure(torch.ones(1, 2, 2, 2, 3))
    other.load_state_dict(old)
    codes = torch.randn(1, 2, 2, 2, 3)
    assert torch.equal(other.scale.normalised(codes), codes)
    with pytest.raises(RuntimeError, match="autoencoder"):
        other.load_state_dict({k: v for k, v in old.items() if "autoencoder" not in k})
