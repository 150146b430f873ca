"""What holds for every model: its protocols, its phases, and one process like two."""

import numpy as np
import pytest
import torch
from scipy import ndimage
from test_image_models import IMAGE_MODELS
from test_vnet import pair_cohort  # noqa: F401  # a fixture

from foldnorm.models.autoencoder import Autoencoder
from foldnorm.models.beta_vae import BetaVAE
from foldnorm.models.classes import MAX_DISTANCE, one_hot, signed_distances, to_classes
from foldnorm.models.dcgan import DCGAN
from foldnorm.models.distance_autoencoder import DistanceAutoencoder
from foldnorm.models.f_anogan import FAnoGAN
from foldnorm.models.gan import GAN
from foldnorm.models.grids import ShapeError
from foldnorm.models.hypersphere_classifier import HypersphereClassifier
from foldnorm.models.latent_ddpm import LatentDDPM
from foldnorm.models.latent_flow import LatentFlow
from foldnorm.models.noise import StepNoise
from foldnorm.models.protocols import (
    Decodes,
    Encodes,
    Generates,
    HasFeatureMaps,
    HasPostStep,
    Recognises,
    Restores,
    Trainable,
    Translates,
)
from foldnorm.models.restorer import Restorer
from foldnorm.models.sulcus_segmenter import SulcusSegmenter
from foldnorm.models.unit import UNIT
from foldnorm.models.vnet import VNet
from foldnorm.models.vqvae import VQVAE
from foldnorm.models.vqvae_transformer import VQVAETransformer
from foldnorm.models.wgan import WGAN
from foldnorm.models.wgan_gp import WGANGP
from foldnorm.pipeline.cli import main
from foldnorm.pipeline.runs.config import shipped_configs
from foldnorm.pipeline.runs.run_folder import RunFolder

CPU = torch.device("cpu")
SHAPE = (8, 8, 12)
CONVOLUTIONAL = {"channels": [8], "critic_channels": [8], "code_channels": 2}
VAE = {"channels": [8], "code_channels": 2}
CODES = {"channels": [8], "code_channels": 8, "n_codebooks": 8, "n_codes": 6}
TRANSFORMER = {
    **CODES,
    "width": 8,
    "depth": 1,
    "heads": 2,
    "box_sides": [1, 2],
    "n_tilings": 1,
    "sheet_margin": 0.0,
}
UNET = {"channels": [8], "attention": [False], "sampling_steps": 2}


def of_codes(kind):
    """Arguments of a small model of the codes of an autoencoder of this class."""
    return {**UNET, "first_stage": {"class_path": f"foldnorm.models.{kind}", "init_args": VAE}}


def small_latent(kind, **others):
    first = {LatentDDPM: "BetaVAE", LatentFlow: "DistanceAutoencoder"}[kind]
    model = kind(SHAPE, **{**of_codes(first), **others})
    for parameter in model.network.parameters():  # MONAI starts some of its convolutions at 0
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.1)
    return model


MODELS = {
    "autoencoder": lambda: Autoencoder(SHAPE, **VAE),
    "beta_vae": lambda: BetaVAE(SHAPE, **VAE, kl_annealing=0.4, training_steps=10),
    "dcgan": lambda: DCGAN(SHAPE, **CONVOLUTIONAL, reconstruction_steps=1),
    "f_anogan": lambda: FAnoGAN(SHAPE, **CONVOLUTIONAL, training_steps=4, critic_steps=2),
    "gan": lambda: GAN(SHAPE, widths=[8], critic_widths=[8], latent_dim=4),
    "hypersphere_classifier": lambda: HypersphereClassifier(
        SHAPE, channels=[8, 8], convolutions=[1, 1], code_channels=2
    ),
    "distance_autoencoder": lambda: DistanceAutoencoder(SHAPE, **VAE),
    "latent_ddpm": lambda: small_latent(LatentDDPM, training_steps=4),
    "latent_flow": lambda: small_latent(LatentFlow, training_steps=4, norm_groups=1),
    "sulcus_segmenter": lambda: SulcusSegmenter(
        SHAPE, sulci=["a", "b"], channels=[8, 8], convolutions=[1, 1]
    ),
    "restorer": lambda: Restorer(channels=[8, 8], convolutions=[1, 1]),
    "unit": lambda: UNIT(SHAPE, 3, 4, channels=[8], critic_channels=[8]),
    "vnet": lambda: VNet(3, 4, channels=[8, 8], convolutions=[1, 1]),
    "vqvae": lambda: VQVAE(SHAPE, **CODES),
    "vqvae_transformer": lambda: VQVAETransformer(SHAPE, **TRANSFORMER, training_steps=4),
    "wgan": lambda: WGAN(SHAPE, **CONVOLUTIONAL, critic_steps=2),
    "wgan_gp": lambda: WGANGP(SHAPE, **CONVOLUTIONAL, critic_steps=2),
}
ENCODING = {
    *("autoencoder", "beta_vae", "dcgan", "distance_autoencoder", "f_anogan", "gan"),
    *("latent_ddpm", "latent_flow", "vqvae", "vqvae_transformer", "wgan", "wgan_gp"),
}
TRANSLATING = {"unit", "vnet"}
LATENT = {"latent_ddpm", "latent_flow"}
EDITING = {"restorer", "hypersphere_classifier"}
FIRST_STAGE = {f"first_stage.init_args.{key}": value for key, value in VAE.items()}
TINY = {
    name: [f"--model.init_args.{key}={value}" for key, value in sizes.items()]
    for name, sizes in {
        "autoencoder": VAE,
        "beta_vae": {**VAE, "kl_annealing": 0.75},
        "dcgan": {**CONVOLUTIONAL, "reconstruction_steps": 1},
        "f_anogan": {**CONVOLUTIONAL, "critic_steps": 2},
        "gan": {"widths": [8], "critic_widths": [8], "latent_dim": 4},
        "hypersphere_classifier": {
            "channels": [8, 8],
            "convolutions": [1, 1],
            "edits": "[balls, slabs, noise]",
        },
        "distance_autoencoder": VAE,
        "latent_ddpm": {**UNET, **FIRST_STAGE, "autoencoder_share": 0.5},
        "latent_flow": {**UNET, **FIRST_STAGE, "norm_groups": 1, "autoencoder_share": 0.5},
        "restorer": {"channels": [8, 8], "convolutions": [1, 1], "edits": "[balls, slabs, noise]"},
        "unit": {"channels": [8], "critic_channels": [8]},
        "vqvae": CODES,
        "vqvae_transformer": TRANSFORMER,
        "wgan": {**CONVOLUTIONAL, "critic_steps": 2},
    }.items()
}


def make(name):
    torch.manual_seed(0)
    return MODELS[name]()


def batch(name, count=4):
    """Volumes; pairs whose second volumes have a class more; edited volumes as they were; sulci."""
    rng = np.random.default_rng(0)
    first = rng.integers(0, 3, (count, *SHAPE), np.uint8)
    if name in EDITING:
        edited = np.where(rng.random(first.shape) < 0.3, np.minimum(first, 1), first)
        return torch.from_numpy(np.stack([edited, first], axis=1))
    if name == "sulcus_segmenter":
        second = rng.integers(0, 3, first.shape, np.uint8)
        return torch.from_numpy(np.stack([first, second], axis=1))
    if name not in TRANSLATING:
        return torch.from_numpy(first)
    return torch.from_numpy(np.stack([first, rng.integers(0, 4, first.shape, np.uint8)], axis=1))


def noise(step=0, count=4, rank=0, world_size=1):
    return StepNoise((0, step, 0), count, CPU, rank, world_size)


def phases_of(model):
    return list(dict.fromkeys(phase for step in (0, 2) for phase in model.phase_order(step)))


def test_every_shipped_configuration_is_tested_here():
    shipped = {name for name in shipped_configs() if not name.endswith("_report")}
    assert set(MODELS) | set(IMAGE_MODELS) == shipped


@pytest.mark.parametrize("name", MODELS)
def test_it_offers_what_it_can(name):
    model = make(name)
    assert isinstance(model, Trainable)
    assert isinstance(model, Decodes) == (name in ENCODING)
    assert isinstance(model, Encodes) == (name in ENCODING | {"hypersphere_classifier"})
    assert isinstance(model, Translates) == (name in TRANSLATING)
    assert isinstance(model, Generates) == (name in ENCODING - {"autoencoder", "vqvae"})
    assert isinstance(model, Restores) == (name in ("restorer", "vqvae_transformer"))
    assert isinstance(model, Recognises) == (name == "sulcus_segmenter")
    kinds = {"unit": "unpaired", "vnet": "pairs", "sulcus_segmenter": "sulci"}
    assert model.input_kind == ("edits" if name in EDITING else kinds.get(name, "volumes"))
    assert model.validation_loss(batch(name)).shape == (4,)
    assert len(model.phase_order(0)) == len(model.phase_order(10**6))
    assert set(phases_of(model)) == set(model.phases) - (
        {"reconstruction"} if name in ("gan", "wgan", "wgan_gp") else set()
    )


@pytest.mark.parametrize("name", sorted(ENCODING))
def test_codes_and_volumes_have_their_shapes(name):
    model = make(name)
    codes = model.encode(batch(name))
    assert codes.shape == (4, model.latent_dim)
    assert model.decode(codes).shape == (4, 3, *SHAPE)
    if isinstance(model, Generates):
        drawn = model.sample(2, torch.Generator().manual_seed(0))
        assert drawn.shape == (2, *SHAPE)
        assert drawn.dtype == torch.uint8
        assert torch.equal(drawn, model.sample(2, torch.Generator().manual_seed(0)))


@pytest.mark.parametrize("name", sorted((ENCODING | EDITING) - LATENT))
def test_each_level_shows_a_map_that_shrinks_inwards(name):
    model = make(name)
    assert isinstance(model, HasFeatureMaps)
    volumes = batch(name)
    volumes = volumes[:, 0] if name in EDITING else volumes
    maps = model.feature_maps(volumes)
    sides = [m.shape[2:].numel() for m in maps]
    assert sides == sorted(sides, reverse=True)
    assert all(m.shape[0] == 4 for m in maps)
    assert (name in ("gan", "vqvae", "vqvae_transformer")) == (not maps)
    all_the_way = model.encode if isinstance(model, Encodes) else model.restore
    assert torch.equal(all_the_way(volumes), all_the_way(volumes, feature_maps=maps))


def test_distances_to_a_class_are_euclidean_and_signed():
    rng = np.random.default_rng(0)
    volume = (rng.random((2, 12, 10, 14)) < 0.02).astype(np.uint8)
    volume[1, 3:9, 2:8, 2:9] = 1
    found = signed_distances(torch.from_numpy(volume), 2).numpy() * MAX_DISTANCE
    for n, own in enumerate(volume):
        outside = ndimage.distance_transform_edt(own == 0)
        inside = ndimage.distance_transform_edt(own == 1)
        expected = np.minimum(outside, MAX_DISTANCE) - np.minimum(inside, MAX_DISTANCE)
        assert found[n, 1] == pytest.approx(expected, abs=1e-4)
        assert found[n, 0] == pytest.approx(-expected, abs=1e-4)
    empty = signed_distances(torch.zeros(1, 4, 4, 4, dtype=torch.uint8), 2)
    assert (empty[:, 1] == 1).all()
    assert (empty[:, 0] == -1).all()


@pytest.mark.parametrize(
    "name", sorted(ENCODING - LATENT - {"gan", "dcgan", "wgan", "distance_autoencoder"})
)
def test_an_encoder_may_see_distances(name):
    torch.manual_seed(0)
    kinds = {
        "autoencoder": (Autoencoder, VAE),
        "beta_vae": (BetaVAE, VAE),
        "f_anogan": (FAnoGAN, CONVOLUTIONAL),
        "vqvae": (VQVAE, CODES),
        "vqvae_transformer": (VQVAETransformer, TRANSFORMER),
        "wgan_gp": (WGANGP, CONVOLUTIONAL),
    }
    kind, sizes = kinds[name]
    models = []
    for sees in ("one-hot", "distance"):
        torch.manual_seed(0)
        models.append(kind(SHAPE, **sizes, encoder_input=sees))
    codes = [model.encode(batch(name)) for model in models]
    assert codes[0].shape == codes[1].shape
    assert not torch.allclose(*codes)


def test_the_critic_is_shown_classes_and_the_encoder_distances():
    model = WGANGP(SHAPE, **CONVOLUTIONAL, encoder_input="distance")
    shown = {"encoder": [], "critic": []}
    for name, seen in shown.items():
        network = getattr(model, name)
        network.register_forward_pre_hook(lambda _, given, seen=seen: seen.append(given[0]))
    for phase in ("critic", "generator"):
        model.loss(phase, batch("wgan_gp"), noise())
    distances = signed_distances(batch("wgan_gp"), 3)
    assert len(shown["encoder"]) == 2
    assert all(torch.equal(given, distances) for given in shown["encoder"])
    assert torch.equal(shown["critic"][0][:4], one_hot(batch("wgan_gp"), 3))


def test_diffusion_of_codes_leaves_the_autoencoder_and_decodes_what_it_draws():
    model = small_latent(LatentDDPM, training_steps=10)
    order = [model.phase_order(step)[0] for step in range(10)]
    assert order == ["reconstruction"] * 4 + ["diffusion"] * 6
    volumes = batch("latent_ddpm")
    codes = model.to_clean_input(volumes, None)
    assert torch.equal(codes.flatten(1), model.encode(volumes))
    back = to_classes(model.decode(model.encode(volumes)))
    assert torch.equal(model.diffuse(volumes, 0.0, torch.Generator()), back)
    drawn = [model.to_clean_input(volumes, None, noise(step)) for step in (0, 1)]
    assert not torch.allclose(*drawn)  # codes, not their means, are near N(0, I)
    stages = list(model.sample_trajectory(2, torch.Generator().manual_seed(0)))
    assert len(stages) == 2
    assert torch.equal(stages[-1], model.sample(2, torch.Generator().manual_seed(0)))
    with pytest.raises(ValueError, match="autoencoder_share"):
        small_latent(LatentDDPM, autoencoder_share=1.0)


@pytest.mark.parametrize("name", MODELS)
def test_a_phase_gives_gradients_to_all_of_its_networks(name):
    model = make(name)
    moved = set()
    for phase in phases_of(model):
        model.zero_grad()
        names = model.phases[phase].networks
        for network in {n for p in model.phases.values() for n in p.networks}:
            getattr(model, network).requires_grad_(network in names)
        terms = model.loss(phase, batch(name), noise(step=1))
        assert all(value.isfinite() for value in terms.values()), terms
        terms["loss"].backward()
        touched = {n for n, p in model.named_parameters() if p.grad is not None and p.grad.any()}
        assert {n.split(".")[0] for n in touched} == set(names)
        moved |= touched
    # What has no gradient: a Wasserstein critic's value is known up to a constant; spreads of codes
    # are learned only where they are drawn from.
    still = {n for n, _ in model.named_parameters()} - moved
    assert all(".to_value.bias" in n or n.endswith("2.1.bias") for n in still), still


@pytest.mark.parametrize("name", MODELS)
def test_two_halves_of_a_batch_give_the_gradient_of_the_whole(name):
    """So two processes that average their gradients train as one does."""
    volumes = batch(name)
    for phase in phases_of(make(name)):
        gradients = []
        for parts in (1, 2):
            model = make(name)
            size = len(volumes) // parts
            for rank in range(parts):
                part = volumes[rank * size : (rank + 1) * size]
                loss = model.loss(phase, part, noise(1, size, rank, parts))["loss"]
                (loss / parts).backward()
            gradients.append({n: p.grad for n, p in model.named_parameters()})
        for n, whole in gradients[0].items():
            half = gradients[1][n]
            assert (whole is None) == (half is None), n
            if whole is not None:
                apart = torch.linalg.vector_norm(whole - half)
                assert apart <= 1e-4 * torch.linalg.vector_norm(whole) + 1e-7, n


def test_clipping_bounds_the_critic_after_its_steps():
    model = make("wgan")
    assert isinstance(model, HasPostStep)
    model.after_step("generator")
    assert max(p.abs().max() for p in model.critic.parameters()) > 0.01
    model.after_step("critic")
    assert max(p.abs().max() for p in model.critic.parameters()) <= 0.01
    assert max(p.abs().max() for p in model.generator.parameters()) > 0.01


def test_the_kl_term_of_a_vae_grows_to_its_weight():
    model = make("beta_vae")

    def weighted(step):
        terms = model.loss("reconstruction", batch("beta_vae"), noise(step))
        return ((terms["loss"] - terms["cross_entropy"]) / (model.kl_weight * terms["kl"])).item()

    assert [weighted(step) for step in (0, 1, 3, 9)] == pytest.approx([0.25, 0.5, 1, 1], rel=1e-3)


def test_f_anogan_trains_its_encoder_last_and_nothing_else_then():
    model = make("f_anogan")
    assert list(model.phase_order(1)) == ["critic", "critic", "generator"]
    assert list(model.phase_order(2)) == ["encoder"] * 3
    assert model.phases["encoder"].networks == ("encoder",)
    real = batch("f_anogan")
    sharp = one_hot(to_classes(model.decode(model.encode(real))), 3)
    with torch.no_grad():
        both = [model.critic.features(volumes) for volumes in (sharp, one_hot(real, 3))]
    terms = model.loss("encoder", real, noise())
    assert terms["features"].item() == pytest.approx((both[0] - both[1]).square().mean().item())
    squares = FAnoGAN(SHAPE, **CONVOLUTIONAL, image_loss="squares")
    assert squares.loss("encoder", batch("f_anogan"), noise())["image"] < 1


def test_unit_goes_both_ways_and_never_sees_a_pair_in_training():
    model = make("unit")
    pairs = batch("unit")
    assert model.translate(pairs[:, 0]).shape == (4, 4, *SHAPE)
    model.reverse = True
    assert model.translate(pairs[:, 1]).shape == (4, 3, *SHAPE)
    # Its losses are sums over kinds: which second volume stands beside which first is all the same.
    mixed = torch.stack([pairs[:, 0], pairs[:, 1].roll(1, dims=0)], dim=1)
    generator = noise()
    generator.normal = lambda *shape: torch.zeros(4, *shape)
    first, second = (model.loss("generators", p, generator)["loss"] for p in (pairs, mixed))
    assert first.item() == pytest.approx(second.item(), rel=1e-5)


def test_dense_layers_refuse_large_volumes():
    with pytest.raises(ShapeError, match=r"too large for dense layers.*take dcgan"):
        GAN((64, 64, 64))


@pytest.fixture(scope="module")
def whole_runs(pair_cohort, tmp_path_factory):  # noqa: F811
    """Each model, trained for four steps without a break; made when first asked for."""
    folder, made = tmp_path_factory.mktemp("runs"), {}

    def run(name):
        if name not in made:
            made[name] = folder / name
            assert train(name, pair_cohort, made[name]) == 0
        return made[name]

    return run


def words(name, cohort, out):
    return ["train", name, str(cohort.folder), "-o", str(out),
            "--device", "cpu", "--quiet", "--training.steps", "4", "--training.batch_size", "4",
            "--training.log_every", "1", "--training.validate_every", "2",
            *TINY[name]]  # fmt: skip


def train(name, cohort, out, *more):
    return main([*words(name, cohort, out), *more])


def weights(run):
    return RunFolder(run).load_checkpoint("last")["model"]


@pytest.mark.parametrize("name", TINY)
def test_a_resumed_run_equals_an_unbroken_one(name, whole_runs, pair_cohort, tmp_path):  # noqa: F811
    out = tmp_path / "run"
    assert train(name, pair_cohort, out, "--training.session_steps", "3") == 75
    assert train(name, pair_cohort, out, "--resume", "auto") == 0
    for key, tensor in weights(whole_runs(name)).items():
        assert torch.equal(tensor, weights(out)[key]), key


def test_codes_of_a_vae_with_edits_lie_far_out_where_something_was_edited():
    torch.manual_seed(0)
    model = BetaVAE(SHAPE, **VAE, edits=["balls"], separation_weight=10.0)
    assert model.input_kind == "edits"
    healthy = torch.from_numpy(np.random.default_rng(0).integers(0, 3, (4, *SHAPE), np.uint8))
    edited = healthy.clone()
    edited[:, :4] = 1  # half of each volume
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for step in range(120):
        terms = model.loss("reconstruction", torch.stack([edited, healthy], 1), noise(step))
        optimizer.zero_grad()
        terms["loss"].backward()
        optimizer.step()
    with torch.no_grad():
        code = model.encode(edited).view(4, 2, *model.encoder.grid)
    length = code.square().sum(1).sqrt()
    assert length[:, :1].min() > 2 * length[:, 1:].mean()
    assert terms["cross_entropy"] < 1.05  # it reconstructs the healthy ones, chance is ln 3
    assert torch.equal(model.split_edited(torch.stack([edited, healthy], 1))[0], healthy)


@pytest.mark.parametrize("name", ["beta_vae", "wgan"])
def test_a_generative_model_may_learn_from_edits_too(name, pair_cohort, tmp_path, capsys):  # noqa: F811
    more = ["--model.init_args.edits=[balls]"]
    assert train(name, pair_cohort, tmp_path / "run", *more) == 0
    table = (tmp_path / "run/metrics.csv").read_text(encoding="utf-8")
    assert "reconstruction/separation" in table
    assert "validation/dice" in table
    dense = [*more, "--model.init_args.latent_dim=4"]
    assert train(name, pair_cohort, tmp_path / "dense", *dense) == 2
    assert "edits: need a code that is a map" in capsys.readouterr().err
