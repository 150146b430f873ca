"""Networks and losses by class path: what may be named, what is checked, and that they train."""

import os
import sys

import numpy as np
import pytest
import torch
import yaml
from conftest import noise_of
from monai.networks.nets import EfficientNetBN
from test_vnet import TINY, pair_cohort, train  # noqa: F401  # a fixture among them

from foldnorm import models
from foldnorm.models import class_paths
from foldnorm.models.autoencoder import Autoencoder
from foldnorm.models.class_paths import ClassPathError, build
from foldnorm.models.damage_unet import DamageUNet
from foldnorm.models.dcgan import DCGAN
from foldnorm.models.ddpm import DDPM
from foldnorm.models.f_anogan import FAnoGAN
from foldnorm.models.grids import ShapeError
from foldnorm.models.hypersphere_classifier import HypersphereClassifier
from foldnorm.models.image_classifier import ImageClassifier
from foldnorm.models.image_vae import ImageVAE
from foldnorm.models.latent_ddpm import LatentDDPM
from foldnorm.models.named_losses import NamedLoss
from foldnorm.models.named_networks import NamedNetwork, named_networks_of
from foldnorm.models.rectified_flow import RectifiedFlow
from foldnorm.models.restorer import Restorer
from foldnorm.models.sulcus_segmenter import SulcusSegmenter
from foldnorm.models.vnet import VNet
from foldnorm.models.wgan_gp import WGANGP
from foldnorm.pipeline import cli
from foldnorm.pipeline.cli import main
from foldnorm.pipeline.runs.class_paths import gathered
from foldnorm.pipeline.runs.config import ConfigurationParser, build_model
from foldnorm.pipeline.runs.run_folder import RunFolder
from foldnorm.preprocessing.core.errors import InputError
from foldnorm.preprocessing.core.files import read_tsv

SHAPE = (16, 16, 16)


def named(name, package="monai.networks.nets", **init_args):
    return {"class_path": f"{package}.{name}", "init_args": init_args}


SMALL = {"init_filters": 8, "blocks_down": [1, 1], "blocks_up": [1]}
SEGRESNET = named("SegResNet", **SMALL)
SMALL_VAE = named("BetaVAE", "foldnorm.models", channels=[8], code_channels=2)
DEEP = named("DenseNet", init_features=4, growth_rate=4, block_config=[1, 1, 1, 1])
DENSENET = named("DenseNet", init_features=4, growth_rate=4, block_config=[1, 1])
INSTANCE = named("DenseNet", init_features=4, growth_rate=4, block_config=[1, 1], norm="instance")
UNETR = named("UNETR", feature_size=4, hidden_size=16, mlp_dim=16, num_heads=2)
DENSE = {  # name → network, and the side of a volume that it takes
    "SegResNet": (SEGRESNET, 16),
    "DynUNet": (named("DynUNet", kernel_size=[3, 3, 3], strides=[1, 2, 2], filters=[4, 8, 8],
                      upsample_kernel_size=[2, 2]), 16),
    "SwinUNETR": (named("SwinUNETR", feature_size=12, depths=[1, 1, 1, 1],
                        norm_name=["group", {"num_groups": 4}]), 32),
    "UNet": (named("UNet", channels=[4, 8], strides=[2]), 16),
    "VNet": (named("VNet", in_channels=4), 16),
    "AttentionUnet": (named("AttentionUnet", channels=[4, 8], strides=[2]), 16),
    "UNETR": ({**UNETR, "init_args": {**UNETR["init_args"], "img_size": SHAPE}}, 16),
    "ours": (named("vnet.VNetwork", "foldnorm.models", channels=[4, 8], convolutions=[1, 1],
                   kernel_size=3, stem=2, norm=True), 16),
}  # fmt: skip


def volumes(*beside, side=16, count=2, classes=3):
    rng = np.random.default_rng(0)
    return torch.from_numpy(rng.integers(0, classes, (count, *beside, *[side] * 3), np.uint8))


def learns(model, batch, condition=None):
    """Every phase has a finite loss, and its networks a gradient."""
    for n, phase in enumerate(dict.fromkeys(model.phase_order(0))):
        model.zero_grad()
        model.loss(phase, batch, noise_of(len(batch), n), condition)["loss"].backward()
        for network in model.phases[phase].networks:
            gradients = [p.grad for p in getattr(model, network).parameters() if p.grad is not None]
            assert gradients
            assert all(g.isfinite().all() for g in gradients), (phase, network)
            assert any(g.any() for g in gradients), (phase, network)


@pytest.mark.parametrize("name", DENSE)
def test_dense_networks_translate(name):
    network, side = DENSE[name]
    model = VNet(3, 4, network=network)
    (own,) = named_networks_of(model)
    own.check([side] * 3, 2)
    learns(model, volumes(2, side=side))
    with torch.no_grad():
        assert model.eval().translate(volumes(side=side)).shape == (2, 4, side, side, side)


MODELS = {  # model, its batch, and the condition of each volume
    "restorer": lambda: (Restorer(coordinates=True, network=SEGRESNET), volumes(2), None),
    "sulcus_segmenter": lambda: (
        SulcusSegmenter(SHAPE, sulci=["a", "b"], network=SEGRESNET), volumes(2), None
    ),
    "hypersphere_classifier": lambda: (
        HypersphereClassifier(SHAPE, network=SEGRESNET), volumes(2), None
    ),
    "classifier": lambda: (
        ImageClassifier(SHAPE, 3, condition_size=2, network=DENSENET), volumes(), torch.eye(2)
    ),
    "autoencoder": lambda: (
        Autoencoder(SHAPE, channels=[8], code_channels=2, encoder=DENSENET, condition=["age"],
                    condition_size=1), volumes(), torch.ones(2, 1)
    ),
    "generator": lambda: (
        Autoencoder(SHAPE, channels=[8], latent_dim=4, generator=named(
            "Generator", start_shape=[4, 8, 8, 8], channels=[4, 3], strides=[1, 2]),
            condition=["age"], condition_size=1), volumes(), torch.ones(2, 1)
    ),
    "wgan_gp": lambda: (
        WGANGP(SHAPE, channels=[8], latent_dim=4, encoder=DENSENET, critic=INSTANCE),
        volumes(), None
    ),
    "dcgan": lambda: (
        DCGAN(SHAPE, channels=[8], latent_dim=4, critic=DENSENET, condition=["age"],
              condition_size=1), volumes(), torch.ones(2, 1)
    ),
    "f_anogan": lambda: (
        FAnoGAN(SHAPE, channels=[8], critic_channels=[8], latent_dim=4, encoder=DENSENET,
                image_loss=named("DiceLoss", "monai.losses"), gan_share=0.0), volumes(), None
    ),
    "image_vae": lambda: (
        ImageVAE((16, 16), [8], 4, encoder=DENSENET), torch.rand(2, 16, 16), None
    ),
    "damage_unet": lambda: (
        DamageUNet((16, 16), network=SEGRESNET), torch.rand(2, 3, 16, 16).round(), None
    ),
    "ddpm": lambda: (
        DDPM((16, 16), network=SEGRESNET, condition=["age"], condition_size=1),
        torch.rand(2, 16, 16), torch.ones(2, 1)
    ),
    "ddpm_of_steps": lambda: (
        DDPM((16, 16), patch=2, network=named(
            "DiffusionModelUNet", channels=[8], attention_levels=[False], num_res_blocks=1,
            norm_num_groups=4)), torch.rand(2, 16, 16), None
    ),
    "rectified_flow": lambda: (
        RectifiedFlow((16, 16), network=SEGRESNET, condition=["age"], condition_size=1),
        torch.rand(2, 16, 16), torch.ones(2, 1)
    ),
    "latent_ddpm": lambda: (
        LatentDDPM(SHAPE, first_stage=SMALL_VAE, network=SEGRESNET, autoencoder_share=0.01),
        volumes(), None
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MODELS)
def test_each_model_takes_a_network(name):
    torch.manual_seed(0)
    model, batch, condition = MODELS[name]()
    found = list(named_networks_of(model))
    assert found
    for network in found:
        network.check(batch.shape[-3:], 2)
    learns(model, batch, condition)


def test_a_restorer_begins_by_trusting_what_it_sees():
    model = Restorer(network=SEGRESNET)
    with torch.no_grad():
        for p in model.network.correction.parameters():
            p.zero_()
        assert torch.equal(model.restore(volumes()).argmax(1), volumes().long())


def test_a_repair_begins_as_the_smooth_fill():
    """The filler's weight is 0 at first, so what it makes does not depend on its network."""
    torch.manual_seed(0)
    first, second = (DamageUNet((16, 16), network=SEGRESNET).eval() for _ in range(2))
    second.finder.load_state_dict(first.finder.state_dict())
    images = torch.rand(2, 16, 16)
    assert torch.equal(first.repair(images), second.repair(images))


def test_channels_that_there_are_not_are_zeros():
    network = NamedNetwork(named("VNet", in_channels=4), inputs=3, outputs=2).eval()
    x = torch.rand(1, 3, 16, 16, 16)
    whole = torch.cat([x, torch.zeros(1, 1, 16, 16, 16)], dim=1)
    with torch.no_grad():
        assert torch.equal(network(x), network.network(whole))


@pytest.mark.parametrize(
    ("network", "sides", "reason"),
    [
        (named("SegResNet"), (12, 16, 16), "multiples of 8 do: preprocess --pad multiple:8"),
        (named("SwinUNETR", feature_size=12), (16, 32, 32), "must be divisible by 2"),
        (named("SegResNet", in_channels=2), (16, 16, 16), "expected input"),
        (named("UNet", channels=[4, 8], strides=[2], spatial_dims=2), (16, 16, 16), "4D"),
        (DEEP, (16, 16, 16), "Expected more than 1 value"),
        (DENSENET, (16, 16, 16), "expected (1, 4, 16, 16, 16) to come out, got (1, 4)"),
        (named("SegResNet", **SMALL, out_channels=2), (16, 16, 16), "got (1, 2, 16, 16, 16)"),
        (named("SegResNetVAE", **SMALL, input_image_size=SHAPE), (16, 16, 16), "got tuple"),
    ],
)
def test_what_does_not_suit_is_said_in_one_line(network, sides, reason):
    own = NamedNetwork(network, inputs=3, outputs=4)
    with pytest.raises(ShapeError) as caught:
        own.check(sides, 1)
    message = str(caught.value)
    assert reason in message
    assert message.startswith(f"{network['class_path']} does not suit")
    assert "\n" not in message


def test_a_check_changes_nothing():
    network = NamedNetwork(DENSENET, inputs=3, outputs=4, gives="numbers")
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    state = torch.get_rng_state()
    network.check(SHAPE, 2)
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)
    assert network.training


@pytest.mark.parametrize(
    ("network", "reason"),
    [
        (named("system", "os"), "expected a class of monai.networks.nets or foldnorm.models"),
        (named("Linear", "torch.nn"), "expected a class of monai.networks.nets"),
        (named("nets_of_others.Net", "monai.networks"), "expected a class of"),
        (named("NoNet"), "no such class"),
        (named("resnet18"), "expected a class of torch.nn.Module"),
        (named("SegResNet", filters=8), "unexpected keyword argument 'filters'"),
        (named("UNet", channels=[4, 8]), "strides"),
        (named("VNet"), "should be divisible by in_channels"),
        (named("DenseNet121", pretrained=True), "pretrained is refused"),
        (named("ResNet", pretrained_path="x"), "pretrained_path is refused"),
        (named("TorchVisionFCModel"), "loads weights of others"),
    ],
)
def test_what_may_not_or_cannot_be_built_is_refused(network, reason):
    with pytest.raises(ClassPathError, match=reason):
        VNet(network=network)


def test_networks_that_would_load_weights_by_default_do_not(monkeypatch):
    def load(*_, **__):
        raise ConnectionRefusedError

    monkeypatch.setattr(torch.utils.model_zoo, "load_url", load)
    arguments = {"model_name": "efficientnet-b0", "spatial_dims": 2}
    with pytest.raises(ConnectionRefusedError):
        EfficientNetBN(**arguments)
    network = build(named("EfficientNetBN", **arguments), class_paths.NETWORKS)
    assert isinstance(network, EfficientNetBN)


def test_a_penalised_critic_has_no_batch_norm():
    with pytest.raises(ValueError, match="no batch norm where its gradient is penalised"):
        WGANGP(SHAPE, channels=[8], critic=DENSENET)


@pytest.mark.parametrize("name", ["DiceCELoss", "SoftclDiceLoss", "TverskyLoss"])
def test_a_loss_is_a_mean_over_volumes(name):
    loss = NamedLoss(named(name, "monai.losses"), 3)
    torch.manual_seed(0)
    logits, wanted = torch.randn(2, 3, *SHAPE), volumes()
    apart = [loss(logits[n : n + 1], wanted[n : n + 1]) for n in range(2)]
    assert torch.isclose(loss(logits, wanted), torch.stack(apart).mean())
    right = 20.0 * torch.nn.functional.one_hot(wanted.long(), 3).movedim(-1, 1)
    assert loss(right, wanted) < 0.1 < loss(logits, wanted)


@pytest.mark.parametrize(
    ("loss", "others", "reason"),
    [
        (named("Linear", "torch.nn"), {}, "expected a class of monai.losses"),
        (named("ContrastiveLoss", "monai.losses"), {}, "ContrastiveLoss: "),
        (named("DiceLoss", "monai.losses"), {"dice_weight": 1.0}, "takes the place of"),
    ],
)
def test_losses_that_are_none_are_refused(loss, others, reason):
    with pytest.raises(ClassPathError, match=reason):
        VNet(loss_function=loss, **others)


def test_a_loss_of_labels_is_none_of_images():
    with pytest.raises(ClassPathError, match="of label volumes, not of images"):
        ImageVAE((16, 16), [8], 4, loss_function=named("DiceLoss", "monai.losses"))


WORDS = ["--training.steps", "2", "--training.validate_every", "1", "--training.precision", "32"]
BY_WORDS = [
    "--model.init_args.network.class_path", "monai.networks.nets.SegResNet",
    "--model.init_args.network.init_args.init_filters=8",
    "--model.init_args.network.init_args.blocks_down", "[1, 1]",
    "--model.init_args.network.init_args.blocks_up", "[1]",
    "--model.init_args.network.init_args.dropout_prob", "0.3",
]  # fmt: skip
LOSS = '--model.init_args.loss_function={"class_path": "monai.losses.DiceCELoss"}'


def saved(run):
    return RunFolder(run).load_checkpoint("last")["model"]


@pytest.fixture(scope="module")
def run(pair_cohort, tmp_path_factory):  # noqa: F811
    """Two steps of a SegResNet with dropout and a loss by class path, in one go."""
    out = tmp_path_factory.mktemp("named") / "run"

    assert train(pair_cohort, out, *WORDS, *BY_WORDS, LOSS) == 0
    return out


def test_it_trains_and_a_resumed_run_equals_an_unbroken_one(run, pair_cohort, tmp_path):  # noqa: F811
    out = tmp_path / "run"
    again = [*WORDS, *BY_WORDS,
             LOSS]  # fmt: skip
    assert train(pair_cohort, out, *again, "--training.session_steps", "1") == 75
    assert train(pair_cohort, out, *again, "--resume", "auto") == 0
    assert all(torch.equal(tensor, saved(out)[name]) for name, tensor in saved(run).items())
    config = yaml.safe_load((run / "config.yaml").read_text())["model"]["init_args"]
    assert config["network"]["class_path"] == "monai.networks.nets.SegResNet"
    assert config["network"]["init_args"]["blocks_down"] == [1, 1]
    assert "translation/loss_function" in (run / "metrics.csv").read_text()


def test_volumes_of_other_sides_go_in_windows(run):
    model = RunFolder.open(run).load()
    volume = np.ones((11, 16, 19), np.uint8)
    assert model.translate_volume(volume).shape == volume.shape


def test_it_is_exported_and_opened_again(run, tmp_path):
    """The bundle is checked against the run as it is written."""
    assert main(["export", str(run), "-o", str(tmp_path / "bundle"), "--quiet"]) == 0
    ours, theirs = (RunFolder.open(f).load() for f in (run, tmp_path / "bundle"))
    volume = volumes(count=1)[0].numpy()
    assert np.array_equal(ours.translate_volume(volume), theirs.translate_volume(volume))


def test_a_network_that_asks_for_its_sides_is_told(pair_cohort, tmp_path):  # noqa: F811
    words = [f"--model.init_args.network.init_args.{name}={value}"
             for name, value in UNETR["init_args"].items()]  # fmt: skip
    path = "--model.init_args.network.class_path=monai.networks.nets.UNETR"
    out = tmp_path / "run"
    assert train(pair_cohort, out, "--training.steps", "1", path, *words) == 0
    told = yaml.safe_load((out / "config.yaml").read_text())["model"]["init_args"]["network"]
    assert told["init_args"]["img_size"] == [16, 16, 16]


def test_sides_that_do_not_suit_exit_2_before_anything_is_written(pair_cohort, tmp_path, capsys):  # noqa: F811
    path = "--model.init_args.network.class_path=monai.networks.nets.SwinUNETR"
    out = tmp_path / "run"
    assert train(pair_cohort, out, path) == 2
    said = capsys.readouterr().err
    assert "SwinUNETR does not suit 16 × 16 × 16 voxels" in said
    assert said.count("\n") == 1
    assert not out.exists()


PACKAGE = """
from pathlib import Path
from torch import nn
Path(__file__).with_name("imported").touch()

class Net(nn.Module):
    def __init__(self, in_channels, out_channels):
        super().__init__()
        self.conv = nn.Conv3d(in_channels, out_channels, 1)

    def forward(self, x):
        return self.conv(x)
"""


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package of somebody, which says when it is imported."""
    folder = tmp_path / "package"
    folder.mkdir()
    (folder / "somebodys_nets.py").write_text(PACKAGE)
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setenv(class_paths.TRUST, "")
    yield folder / "imported"
    sys.modules.pop("somebodys_nets", None)


@pytest.mark.parametrize(
    "model",
    [
        {"class_path": "somebodys_nets.Net", "init_args": {"in_channels": 1, "out_channels": 1}},
        {"class_path": "foldnorm.models.VNet",
         "init_args": {"network": {"class_path": "somebodys_nets.Net"}}},
        {"class_path": "foldnorm.models.VNet",
         "init_args": {"loss_function": {"class_path": "somebodys_nets.Net"}}},
        {"class_path": "foldnorm.models.label_autoencoder.LabelAutoencoder",
         "init_args": {"encoder": {"class_path": "somebodys_nets.Net"}}},
    ],
)  # fmt: skip
def test_a_run_of_somebody_imports_nothing(model, package):
    with pytest.raises(InputError, match="expected"):
        build_model(model)
    assert not package.exists()


def test_a_package_that_the_user_names_is_trusted(pair_cohort, package, tmp_path, capsys):  # noqa: F811
    words = ["--training.steps", "1", "--model.init_args.network.class_path=somebodys_nets.Net"]
    assert train(pair_cohort, tmp_path / "run", *words) == 2
    assert "foldnorm --trust PACKAGE" in capsys.readouterr().err
    assert not package.exists()
    assert train(pair_cohort, tmp_path / "run", *words, "--trust", "somebodys_nets") == 0
    assert package.exists()
    assert os.environ[class_paths.TRUST] == ",somebodys_nets"  # for processes that it starts
    RunFolder.open(tmp_path / "run").load()


def test_the_command_line_sets_what_networks_read():
    assert cli.TRUST == class_paths.TRUST


@pytest.mark.parametrize("name", models.__all__)
def test_no_argument_of_a_model_imports_what_it_is_given(name):
    """The parser imports what an argument of a module's or a function's type names."""
    parser = ConfigurationParser(exit_on_error=False)
    parser.add_class_arguments(getattr(models, name), "model")
    for action in parser._actions:
        kind = str(getattr(action, "_typehint", ""))
        assert not any(word in kind for word in ("Module", "Callable", "type[", "Any")), action.dest


def test_words_change_single_arguments_of_what_a_configuration_names():
    content = {"model": {"init_args": {"network": named("UNet", channels=[4], strides=[])}}}
    words = ["--model.init_args.network.init_args.channels", "[8, 8]", "--training.steps", "3",
             "--model.init_args.norm=true"]  # fmt: skip
    assert gathered(words, content) == [
        "--training.steps", "3", "--model.init_args.norm=true",
        '--model.init_args.network={"class_path": "monai.networks.nets.UNet", '
        '"init_args": {"channels": [8, 8], "strides": []}}',
    ]  # fmt: skip
    other = ["--model.init_args.network.class_path=a.B"]
    assert gathered(other, content) == [
        '--model.init_args.network={"class_path": "a.B", "init_args": {}}'
    ]


def test_a_translation_says_its_dice(run, pair_cohort, tmp_path):  # noqa: F811
    out = tmp_path / "out"
    assert main(["translate", str(run), str(pair_cohort.folder), "-o", str(out), "--quiet"]) == 0
    assert read_tsv(next(out.glob("*.tsv")))
