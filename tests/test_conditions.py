"""What a model is told of each brain: columns as numbers, and models that listen."""

import numpy as np
import pytest
import torch
from conftest import skeleton_source
from test_models import (
    CODES,
    CONVOLUTIONAL,
    ENCODING,
    SHAPE,
    TRANSFORMER,
    VAE,
    batch,
    noise,
    phases_of,
    small_latent,
)

from foldnorm.models.autoencoder import Autoencoder
from foldnorm.models.beta_vae import BetaVAE
from foldnorm.models.dcgan import DCGAN
from foldnorm.models.distance_autoencoder import DistanceAutoencoder
from foldnorm.models.f_anogan import FAnoGAN
from foldnorm.models.gan import GAN
from foldnorm.models.latent_ddpm import LatentDDPM
from foldnorm.models.latent_flow import LatentFlow
from foldnorm.models.protocols import Conditioned, Diffuses, Generates
from foldnorm.models.vqvae import VQVAE
from foldnorm.models.vqvae_transformer import VQVAETransformer
from foldnorm.models.wgan import WGAN
from foldnorm.models.wgan_gp import WGANGP
from foldnorm.pipeline.cli import main
from foldnorm.pipeline.data.conditions import Conditions
from foldnorm.pipeline.runs.run_folder import RunFolder
from foldnorm.preprocessing.cohort.cohort import Cohort
from foldnorm.preprocessing.core.errors import InputError
from foldnorm.preprocessing.core.files import read_tsv, write_tsv
from foldnorm.preprocessing.io.volumes import read_labels

ROWS = [
    {"participant_id": "a", "hemi": "L", "age": "20", "site": "1"},
    {"participant_id": "b", "hemi": "R", "age": "40", "site": "2"},
    {"participant_id": "c", "hemi": "R", "age": "", "site": "2"},
]
TOLD = {"condition": ["hemi", "age"], "condition_size": 3}
MODELS = {
    "autoencoder": lambda: Autoencoder(SHAPE, **VAE, **TOLD),
    "beta_vae": lambda: BetaVAE(SHAPE, **VAE, **TOLD),
    "dcgan": lambda: DCGAN(SHAPE, **CONVOLUTIONAL, **TOLD),
    "distance_autoencoder": lambda: DistanceAutoencoder(SHAPE, **VAE, **TOLD),
    "f_anogan": lambda: FAnoGAN(SHAPE, **CONVOLUTIONAL, **TOLD, training_steps=4),
    "gan": lambda: GAN(SHAPE, widths=[8], critic_widths=[8], latent_dim=4, **TOLD),
    "latent_ddpm": lambda: small_latent(LatentDDPM, training_steps=4, **TOLD),
    "latent_flow": lambda: small_latent(LatentFlow, training_steps=4, norm_groups=1, **TOLD),
    "vqvae": lambda: VQVAE(SHAPE, **CODES, **TOLD),
    "vqvae_transformer": lambda: VQVAETransformer(SHAPE, **TRANSFORMER, **TOLD, training_steps=4),
    "wgan": lambda: WGAN(SHAPE, **CONVOLUTIONAL, **TOLD),
    "wgan_gp": lambda: WGANGP(SHAPE, **CONVOLUTIONAL, **TOLD),
}
LEFT = torch.tensor([[1.0, 0.0, -1.0]])
RIGHT = torch.tensor([[0.0, 1.0, 1.0]])


def test_categories_and_quantities_become_numbers():
    fitted = Conditions.fit(["hemi", "age", "site:category"], ROWS)
    assert fitted.size == 5
    assert fitted.encode(ROWS).tolist() == [
        [1, 0, -1, 1, 0],  # age: mean 30, sd 10
        [0, 1, 1, 0, 1],
        [0, 1, 0, 0, 1],  # an unknown age is the mean
    ]
    assert Conditions.from_dicts(fitted.as_dicts()) == fitted
    assert Conditions.fit([], ROWS).encode(ROWS).shape == (3, 0)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["sex"], "no column 'sex' in participants.tsv, which has participant_id, hemi, age, site"),
        (["same"], "condition 'same' is 'x' for all training volumes"),
        (["empty"], "condition 'empty' is missing for all training volumes"),
        (["one"], "condition 'one' is 1 for all training volumes"),
    ],
)
def test_a_column_that_tells_nothing_is_refused(names, message):
    rows = [
        {**row, "same": "x", "empty": "", "one": one}
        for row, one in zip(ROWS, ("1", "1.0", "1"), strict=True)
    ]
    rows = ROWS if names == ["sex"] else rows
    with pytest.raises(InputError, match=message):
        Conditions.fit(names, rows)


@pytest.mark.parametrize("odd", ["30,5", "unknown", "inf"])
def test_a_word_among_numbers_does_not_make_categories_of_them(odd):
    rows = [{"age": age} for age in ("20", "30", "40.5", "", odd)]
    with pytest.raises(InputError, match=rf"3 of 4 values are numbers, but not '{odd}'"):
        Conditions.fit(["age"], rows)
    assert Conditions.fit(["age:category"], rows).columns[0].levels == tuple(
        sorted({"20", "30", "40.5", odd})
    )


def test_what_training_never_had_is_refused_with_its_participant():
    fitted = Conditions.fit(["hemi", "age"], ROWS)
    with pytest.raises(InputError, match="z: hemi: expected one of L, R, as in training, got 'B'"):
        fitted.encode([{"participant_id": "z", "hemi": "B", "age": "1"}])
    with pytest.raises(InputError, match="z: age: expected a number, got 'old'"):
        fitted.encode([{"participant_id": "z", "hemi": "L", "age": "old"}])


@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "1e999"])
def test_a_quantity_that_is_not_finite_is_refused(value):
    fitted = Conditions.fit(["age"], ROWS)
    with pytest.raises(InputError, match=f"^z: age: expected a number, got '{value}'$"):
        fitted.encode([{"participant_id": "z", "age": value}])
    with pytest.raises(InputError, match=f"^age: expected a number, got '{value}'$"):
        fitted.draw(2, np.random.default_rng(0), {"age": value})


def test_drawn_conditions_are_those_of_training():
    fitted = Conditions.fit(["hemi", "age"], ROWS)
    drawn = fitted.draw(2000, np.random.default_rng(0), {})
    assert drawn[:, 1].mean() == pytest.approx(2 / 3, abs=0.05)
    assert (drawn[:, 0] + drawn[:, 1] == 1).all()
    assert drawn[:, 2].std() == pytest.approx(1, abs=0.1)
    given = fitted.draw(3, np.random.default_rng(0), {"hemi": "L", "age": "50"})
    assert given.tolist() == [[1, 0, 2]] * 3
    with pytest.raises(InputError, match="sex=F: the model is told hemi, age, not sex"):
        fitted.draw(1, np.random.default_rng(0), {"sex": "F"})


def test_every_model_with_a_latent_space_can_be_told():
    assert set(MODELS) == ENCODING


@pytest.mark.parametrize("name", MODELS)
def test_all_networks_learn_from_what_they_are_told(name):
    torch.manual_seed(0)
    model = MODELS[name]()
    assert isinstance(model, Conditioned)
    assert model.condition == ("hemi", "age")
    told = torch.cat([LEFT, LEFT, RIGHT, RIGHT])
    told_nothing = {"encoder"} if isinstance(model, VQVAE) else set()  # what is there is there
    learned = set()
    for phase in phases_of(model):
        model.zero_grad()
        model.loss(phase, batch(name), noise(step=1), told)["loss"].backward()
        for part in set(model.phases[phase].networks) - told_nothing:
            network = getattr(model, part)
            maps = [
                p.grad
                for n, p in network.named_parameters()
                if n.endswith(("condition.maps", "class_embedding.weight"))
                or n == "layers.0.weight"
            ]
            assert maps, part
            columns = maps[0] if maps[0].shape[0] == 3 else maps[0][:, -3:].T
            assert all(column.any() for column in columns), part
            learned.add(part)
    all_networks = {n for p in phases_of(model) for n in model.phases[p].networks}
    assert learned == all_networks - told_nothing


@pytest.mark.parametrize("name", MODELS)
def test_a_code_is_decoded_as_it_is_told(name):
    torch.manual_seed(0)
    model = MODELS[name]()
    with torch.no_grad():
        for n, p in model.named_parameters():
            if n.endswith("condition.maps"):
                p.normal_()
    code = torch.randn(1, model.latent_dim)
    assert not torch.allclose(model.decode(code, LEFT), model.decode(code, RIGHT))
    if isinstance(model, Diffuses):  # its noise is drawn for all volumes at once
        left, right = (
            model.sample(1, torch.Generator().manual_seed(0), told) for told in (LEFT, RIGHT)
        )
        assert not torch.equal(left, right)
    elif isinstance(model, Generates):
        generator = torch.Generator().manual_seed(0)
        both = model.sample(2, generator, torch.cat([LEFT, RIGHT]))
        alone = model.sample(1, torch.Generator().manual_seed(0), LEFT)
        assert torch.equal(both[:1], alone)


@pytest.mark.parametrize("name", sorted(set(MODELS) - {"gan"}))
def test_a_model_that_is_not_told_says_so(name):
    model = MODELS[name]()
    with pytest.raises(ValueError, match="give it the condition"):
        model.decode(model.encode(batch(name)))


def test_two_halves_of_a_batch_give_the_gradient_of_the_whole():
    told = torch.cat([LEFT, RIGHT, RIGHT, LEFT])
    for phase in ("critic", "generator"):
        gradients = []
        for parts in (1, 2):
            torch.manual_seed(0)
            model = MODELS["wgan_gp"]()
            size = 4 // parts
            for rank in range(parts):
                own = slice(rank * size, (rank + 1) * size)
                terms = model.loss(
                    phase, batch("wgan_gp")[own], noise(1, size, rank, parts), told[own]
                )
                (terms["loss"] / parts).backward()
            gradients.append([p.grad for p in model.parameters() if p.grad is not None])
        for whole, half in zip(*gradients, strict=True):
            assert torch.allclose(whole, half, rtol=1e-3, atol=1e-6)


@pytest.fixture(scope="module")
def told_cohort(tmp_path_factory):
    """24 skeletons; those of ``group`` b have a slab of sulcus that those of a have not."""
    folder = tmp_path_factory.mktemp("told")
    source = skeleton_source(folder / "source", 24)
    rows = [
        {"participant_id": f"s{n:02d}", "group": "ab"[n % 2], "age": str(20 + n)} for n in range(24)
    ]
    write_tsv(source / "participants.tsv", rows, ["participant_id", "group", "age"])
    out = folder / "cohort"
    code = main(
        ["preprocess", str(source), "-o", str(out), "--voxel-size", "1.5", "--pad", "16,16,16",
         "--split-fractions", "0.5", "0.25", "0.25", "--n-procs", "1", "--quiet"]
    )  # fmt: skip
    assert code == 0
    cohort = Cohort.open(out)
    volumes = np.array(cohort.volumes)
    for volume, row in zip(volumes, cohort.rows, strict=True):
        volume[4:7, 4:12, 4:12] = 2 if row["group"] == "b" else 1
    np.save(out / "volumes.npy", volumes)
    return Cohort.open(out)


@pytest.fixture(scope="module")
def told_run(told_cohort, tmp_path_factory):
    out = tmp_path_factory.mktemp("told_run") / "run"
    assert train(told_cohort, out) == 0
    return out


def train(cohort, out, *more):
    return main(
        ["train", "beta_vae", str(cohort.folder), "-o", str(out),
         "--device", "cpu", "--quiet", "--training.steps", "240",
         "--training.validate_every", "120",
         "--training.learning_rate", "1e-2", "--training.batch_size", "8",
         "--model.init_args.channels", "[16]", "--model.init_args.kl_weight", "3",
         "--model.init_args.free_nats", "0",
         "--model.init_args.condition", "[group, age]", *more]
    )  # fmt: skip


def test_volumes_are_drawn_as_they_are_told(told_run, tmp_path):
    shares = {}
    for group in "ab":
        out = tmp_path / group
        assert main(["generate", str(told_run), "-o", str(out), "--num", "4", "--quiet",
                     "--device", "cpu", "--condition", f"group={group}",
                     "age=30"]) == 0  # fmt: skip
        drawn = np.stack([read_labels(path).data for path in sorted(out.glob("*.nii.gz"))])
        shares[group] = (drawn[:, 4:7, 4:12, 4:12] == 2).mean()
    assert shares["a"] < 0.3 < 0.7 < shares["b"]


def test_the_rule_is_kept_with_the_run(told_run, told_cohort):
    run = RunFolder.open(told_run)
    assert [column.name for column in run.conditions.columns] == ["group", "age"]
    assert run.config["model"]["init_args"]["condition_size"] == 3
    training = [float(told_cohort.rows[i]["age"]) for i in told_cohort.indices("train")]
    assert run.conditions.columns[1].mean == pytest.approx(np.mean(training))


def test_brains_are_scored_as_they_are_told(told_run, told_cohort, tmp_path):
    arguments = [str(told_run), str(told_cohort.folder)]
    words = ["-o", str(tmp_path / "scores"), "--quiet", "--device", "cpu"]
    assert main(["score", *arguments, *words]) == 0
    loss = {
        row["participant_id"]: float(row["score_reconstruction_loss"])
        for row in read_tsv(tmp_path / "scores/scores.tsv")
    }
    # The same brains, told to be of the other group, are less likely.
    rows = [{**row, "group": "ab"["ba".index(row["group"])]} for row in told_cohort.rows]
    other = tmp_path / "other"
    other.mkdir()
    for path in told_cohort.folder.iterdir():
        (other / path.name).symlink_to(path)
    (other / "participants.tsv").unlink()
    write_tsv(other / "participants.tsv", rows, list(rows[0]))
    told_wrongly = [str(told_run), str(other), "-o", str(tmp_path / "wrong")]
    assert main(["score", *told_wrongly, "--reference", str(told_cohort.folder), "--quiet",
                 "--device", "cpu"]) == 0  # fmt: skip
    wrong = [
        float(row["score_reconstruction_loss"]) > loss[row["participant_id"]]
        for row in read_tsv(tmp_path / "wrong/scores.tsv")
    ]
    assert np.mean(wrong) > 0.9


def test_a_resumed_run_equals_an_unbroken_one(told_cohort, tmp_path):
    few = ["--training.steps", "4", "--training.validate_every", "2"]
    assert train(told_cohort, tmp_path / "whole", *few) == 0
    assert train(told_cohort, tmp_path / "run", *few, "--training.session_steps", "3") == 75
    assert train(told_cohort, tmp_path / "run", *few, "--resume", "auto") == 0
    own, whole = (
        RunFolder(tmp_path / name).load_checkpoint("last")["model"] for name in ("run", "whole")
    )
    assert all(torch.equal(own[key], whole[key]) for key in whole)


def test_a_cohort_without_the_column_is_one_line(small_cohort, tmp_path, capsys):
    assert train(small_cohort, tmp_path / "run") == 2
    assert "no column 'group' in participants.tsv, which has" in capsys.readouterr().err


def test_what_is_given_wrongly_is_one_line(told_run, tmp_path, capsys):
    for words, message in (
        (["group"], "--condition: expected COLUMN=VALUE, got 'group'"),
        (["group=c"], "group: expected one of a, b, as in training, got 'c'"),
        (["sex=F"], "sex=F: the model is told group, age, not sex"),
    ):
        code = main(["generate", str(told_run), "-o", str(tmp_path / "out"), "--condition", *words])
        assert code == 2
        assert message in capsys.readouterr().err
