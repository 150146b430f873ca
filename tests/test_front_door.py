"""``import foldnorm as fn``: the only import that a notebook needs."""

import ast
import configparser
import pickle
import re
from dataclasses import fields, replace
from doctest import script_from_examples
from pathlib import Path

import docstring_parser
import numpy as np
import pytest
import torch
import yaml
from conftest import libraries_of, skeleton_source
from matplotlib.figure import Figure
from monai.data import MetaTensor
from monai.transforms import Compose, EnsureTyped, RandFlipd
from torch.utils.data import DataLoader

import foldnorm as fn
from foldnorm.models.protocols import Recognises, Restores, Translates
from foldnorm.pipeline.bundle.export import export
from foldnorm.pipeline.cli import build_parser
from foldnorm.pipeline.commands.preprocess import _options
from foldnorm.pipeline.runs.run_folder import RunFolder
from foldnorm.preprocessing.cohort.options import PreprocessOptions, flag
from foldnorm.preprocessing.cohort.plan import CohortPlan

ROOT = Path(__file__).parents[1]
NAMES = [
    "Cohort", "InputError", "Scorer", "TrainedModel", "datasets", "list_models", "load",
    "load_config", "metrics", "plot", "preprocess", "train", "transforms",
]  # fmt: skip
TINY = {"training.steps": 1, "training.batch_size": 2, "training.log_every": 1}
SMALL = {**TINY, "model.init_args.channels": [4], "model.init_args.code_channels": 2}


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    """Eight phantoms of 16³ voxels with pairs and fold labels."""
    folder = tmp_path_factory.mktemp("phantoms")
    return fn.datasets.phantoms(
        8, str(folder), crop="mm:-72,-8,-70,-6,-28,36", pair="grey-white",
        split_fractions=[0.5, 0.25, 0.25],
    )  # fmt: skip


@pytest.fixture(scope="module")
def autoencoder(pairs, tmp_path_factory):
    config = fn.load_config("autoencoder", pairs, SMALL)
    out = tmp_path_factory.mktemp("runs") / "autoencoder"
    return fn.train(config, str(pairs.folder), str(out), device="cpu", quiet=True), out


def trained(name, pairs, tmp_path, **overrides):
    words = {**TINY, **{f"model.init_args.{key}": value for key, value in overrides.items()}}
    config = fn.load_config(name, pairs, words)
    return fn.train(config, pairs, tmp_path / name, device="cpu", quiet=True)


def test_its_names_are_these():
    assert sorted(fn.__all__) == NAMES
    assert dir(fn) == NAMES
    for name in NAMES:
        assert getattr(fn, name) is not None
    with pytest.raises(AttributeError, match="nonsense"):
        fn.nonsense  # noqa: B018


@pytest.mark.parametrize(
    ("asked", "heavy"),
    [
        ("__version__", "numpy scipy numba matplotlib nibabel torch monai lightning"),
        ("list_models()", "numpy scipy numba matplotlib nibabel torch monai lightning"),
        ("InputError", "numpy scipy numba matplotlib nibabel torch monai lightning"),
        ("Cohort", "torch monai lightning"),
        ("TrainedModel", "SimpleITK"),
    ],
)
def test_it_loads_no_heavy_library(asked, heavy):
    script = f"import foldnorm; dir(foldnorm); foldnorm.{asked}"
    assert not libraries_of(script, heavy.split())


def test_the_version_stands_in_one_place():
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    assert fn.__version__ == setup["metadata"]["version"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == fn.__version__


def test_models_are_listed():
    found = {entry["name"]: entry for entry in fn.list_models()}
    assert found["wgan_gp"]["class"] == "foldnorm.models.WGANGP"
    assert "decode" in found["wgan_gp"]["offers"]


def test_options_are_those_of_the_command(tmp_path):
    for words, options in (
        ([], {}),
        (["--voxel-size", "native", "--hemi", "L", "--thin", "--pad", "cubic", "--pair",
          "grey-white", "--crop", "mm:0,1,0,1,0,1", "--split-fractions", "0", "0", "1"],
         {"voxel_size": "native", "hemi": "L", "thin": True, "pad": "cubic", "pair": "grey-white",
          "crop": "mm:0,1,0,1,0,1", "split_fractions": [0, 0, 1]}),
        (["--factor", "2", "--rule", "nearest", "--shard", "1/2", "--fold-labels", "none"],
         {"factor": 2, "rule": "nearest", "shard": "1/2", "fold_labels": "none"}),
    ):  # fmt: skip
        command = ["preprocess", "SOURCE", "-o", "OUT", "--n-procs", "1", *words]
        given = _options(build_parser()[0].parse_args(command))
        assert given == PreprocessOptions.from_words(options)
    with pytest.raises(fn.InputError, match="no option 'voxelsize'"):
        fn.preprocess(tmp_path, tmp_path / "out", voxelsize=2)


def test_options_and_flags_are_the_same_words():
    _, commands = build_parser()
    flags = set(commands["preprocess"]._option_string_actions)
    others = {"-h", "--help", "-o", "--out", "--from", "--labels", "--align", "--cluster", "--jobs",
              "--cluster-option", "--debug", "--trust"}  # fmt: skip
    assert flags - others == {flag(option.name) for option in fields(PreprocessOptions)}
    docstring = docstring_parser.parse(PreprocessOptions.__doc__)
    assert [one.args[1] for one in docstring.params] == [
        option.name for option in fields(PreprocessOptions)
    ]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"voxel_size": "two"}, "--voxel-size: expected mm or native, got 'two'"),
        ({"hull": "gone"}, "--hull: expected keep or remove, got 'gone'"),
        ({"hemi": ["L", "left"]}, "--hemi: expected L or R, got 'left'"),
        ({"factor": 0}, "--factor: expected at least 1, got 0"),
        ({"factor": 2, "voxel_size": 2}, "a voxel size or a factor, not both"),
        ({"shard": "3/2", "finalize": True}, "--shard: expected I/N with 1 ≤ I ≤ N, got '3/2'"),
        ({"split_fractions": (1, 1, 1)}, "three shares that sum to 1"),
        ({"outside_class": "sulcus"}, "--outside-class needs a region"),
    ],
)
def test_options_that_do_not_suit_are_refused(words, said):
    with pytest.raises(fn.InputError, match=re.escape(said)):
        CohortPlan.from_options(PreprocessOptions.from_words(words))


def test_preprocess_gives_the_cohort_and_says_what_failed(tmp_path, caplog):
    source = skeleton_source(tmp_path / "source", 3)
    (source / "sub-broken.nii.gz").write_bytes(b"nothing")
    cohort = fn.preprocess(str(source), str(tmp_path / "a"), voxel_size=1.5, quiet=True)
    assert len(cohort) == 3
    assert "sub-broken" in caplog.text
    assert (cohort.folder / "qc.html").is_file()
    like = {"layout_from": str(tmp_path / "a"), "voxel_size": "1.5", "quiet": True}
    alike = fn.preprocess([source], tmp_path / "b", **like)
    assert np.array_equal(alike.volumes, cohort.volumes)
    for words in ({"voxel_size": 2}, {"pad": "cubic"}, {"rule": "nearest"}, {"crop": "none"}):
        with pytest.raises(fn.InputError, match="is not that of the cohort of --layout-from"):
            fn.preprocess(source, tmp_path / "c", layout_from=tmp_path / "a", **words)


def test_a_cohort_is_a_sequence_of_brains(pairs):
    assert len(list(pairs)) == len(pairs) == 8
    assert np.array_equal(pairs[3].volume, pairs.volumes[3])
    assert pairs[-1].row == pairs.rows[-1]
    assert [b.row for b in pairs.select("test")] == [r for r in pairs.rows if r["split"] == "test"]
    with pytest.raises(IndexError):
        pairs[8]


def test_a_config_takes_values_of_any_type(pairs):
    config = fn.load_config("wgan_gp", str(pairs.folder), {
        "training.steps": 7, "training.patience": None, "training.decay": "linear",
        "model.init_args.norm": True, "training.betas": [0.1, 0.2],
    })  # fmt: skip
    told = config["training"]
    assert (told["steps"], told["patience"], told["decay"]) == (7, None, "linear")
    assert tuple(told["betas"]) == (0.1, 0.2)
    assert config["model"]["init_args"]["norm"] is True
    with pytest.raises(fn.InputError, match="stepz"):
        fn.load_config("wgan_gp", pairs, {"training.stepz": 1})


def test_a_run_exists_is_said_before_it_is_touched(autoencoder, pairs):
    model, out = autoencoder
    config = fn.load_config("autoencoder", pairs, SMALL)
    with pytest.raises(fn.InputError, match="run exists"):
        fn.train(config, pairs, out, device="cpu")
    again = fn.train(config, pairs, out, device="cpu", resume=True, quiet=True)
    assert np.array_equal(again.encode(pairs), model.encode(pairs))


def test_a_session_that_ends_early_is_said_and_continued(pairs, tmp_path, caplog):
    words = {**SMALL, "training.steps": 2, "training.session_steps": 1}
    config = fn.load_config("autoencoder", pairs, words)
    fn.train(config, pairs, tmp_path / "run", device="cpu", quiet=True)
    assert "stopped before the last step" in caplog.text
    fn.train(config, pairs, tmp_path / "run", device="cpu", quiet=True, resume=True)
    assert RunFolder(tmp_path / "run").cost["parameters"] > 0  # written when all steps are done


def test_brains_may_be_given_in_any_form(autoencoder, pairs):
    model, _ = autoencoder
    whole = model.encode(pairs)
    assert whole.shape == (8, model.model.latent_dim)
    array = np.array(pairs.volumes)
    for given, expected in (
        (pairs.view(range(8)), whole), (pairs.brains(range(8)), whole), (array, whole),
        (list(pairs), whole), (torch.from_numpy(array), whole), (pairs[2], whole[2:3]),
        (array[2], whole[2:3]), (array[2].astype(np.int64), whole[2:3]),
        (pairs.dataset()[2]["image"], whole[2:3]),
    ):  # fmt: skip
        assert np.allclose(model.encode(given), expected, atol=1e-5)
    for bad in (array[2, :8], array[0, 0], array.astype(np.int64) + 500):
        with pytest.raises(fn.InputError, match="expected"):
            model.encode(bad)


def test_a_cohort_that_was_prepared_otherwise_is_refused(autoencoder, small_cohort):
    for given in (small_cohort, small_cohort.select("test")):
        with pytest.raises(fn.InputError, match="preprocessing differs"):
            autoencoder[0].reconstruct(given)


def test_codes_go_forth_and_back(autoencoder, pairs):
    model, _ = autoencoder
    made = model.reconstruct(pairs)
    assert made.shape == pairs.volumes.shape
    assert made.dtype == np.uint8
    codes = model.encode(pairs)
    assert np.array_equal(model.decode(codes), made)
    assert np.array_equal(model.decode(codes[0]), made[:1])
    with pytest.raises(fn.InputError, match="expected codes of"):
        model.decode(codes[:, :3])
    with pytest.raises(fn.InputError, match="expected at least one brain"):
        model.reconstruct([])


def test_a_bundle_is_opened_like_a_run(autoencoder, pairs, tmp_path):
    model, out = autoencoder
    export(RunFolder.open(out), pairs, tmp_path / "bundle")
    opened = fn.load(str(tmp_path / "bundle"), device="cpu")
    assert np.array_equal(opened.encode(pairs), model.encode(pairs))


def test_what_a_model_cannot_do_is_one_line(autoencoder, pairs):
    model, _ = autoencoder
    for method, said in (
        ("translate", "does not translate"), ("restore", "restores nothing"),
        ("recognise", "recognises no sulci"),
    ):  # fmt: skip
        with pytest.raises(fn.InputError, match=f"Autoencoder {said}"):
            getattr(model, method)(pairs)
    with pytest.raises(fn.InputError, match="does not draw"):
        model.sample(2)


def test_new_volumes_are_drawn_by_their_seed(pairs, tmp_path):
    model = trained("beta_vae", pairs, tmp_path, channels=[4], code_channels=2)
    drawn = model.sample(3, seed=1)
    assert drawn.shape == (3, *pairs.shape)
    assert np.array_equal(drawn, model.sample(3, seed=1))
    with pytest.raises(fn.InputError, match="the model is told nothing"):
        model.sample(1, given={"sex": "f"})


def test_a_conditioned_model_is_told_nothing_of_an_array(pairs, tmp_path):
    known = replace(pairs, rows=[{**row, "sex": "fm"[n % 2]} for n, row in enumerate(pairs.rows)])
    model = trained("beta_vae", known, tmp_path, channels=[4], code_channels=2, condition=["sex"])
    array = np.stack([brain.volume for brain in known])
    told = model.encode(known)
    assert not np.allclose(model.encode(array), told, atol=1e-5)
    assert np.array_equal(model.reconstruct(known), model.decode(told, known.rows))
    assert model.decode(told).shape == array.shape


@pytest.mark.parametrize("reverse", [False, True])
def test_pairs_are_translated(reverse, pairs, tmp_path):
    model = trained("vnet", pairs, tmp_path, channels=[4], convolutions=[1], reverse=reverse)
    assert isinstance(model.model, Translates)
    made = model.translate(pairs)
    source = np.array(pairs.pairs if reverse else pairs.volumes)
    assert np.array_equal(made, model.translate(source))
    with torch.no_grad():
        expected = model.model.translate(torch.from_numpy(source)).argmax(1).numpy()
    assert np.array_equal(made, expected)


def test_brains_are_restored(pairs, tmp_path):
    model = trained("restorer", pairs, tmp_path, channels=[4], convolutions=[1])
    assert isinstance(model.model, Restores)
    made = model.restore(pairs.select("test"))
    assert made.shape == (len(pairs.select("test")), *pairs.shape)
    assert made.max() < pairs.scheme.n_classes


def test_sulci_are_recognised(pairs, tmp_path):
    model = trained("sulcus_segmenter", pairs, tmp_path, channels=[4], convolutions=[1])
    assert isinstance(model.model, Recognises)
    made = model.recognise(pairs)
    assert made.shape == pairs.volumes.shape
    assert not made[np.array(pairs.volumes) <= pairs.scheme.void].any()
    assert made.max() <= len(model.model.sulci)


def test_images_are_reconstructed(bars, denoiser):
    images = fn.Cohort.open(bars)
    model = fn.load(denoiser, device="cpu")
    made = model.reconstruct(images)
    assert made.shape == images.volumes.shape
    assert made.dtype == np.float32
    assert np.allclose(model.restore(images[0].volume), made[:1], atol=1e-5)


def test_a_loader_and_monai_take_a_cohort(pairs):
    chain = Compose([RandFlipd("image", prob=1.0, spatial_axis=0), EnsureTyped(["image", "folds"])])
    plain, flipped = pairs.dataset("train"), pairs.dataset("train", transform=chain)
    item = plain[0]
    assert isinstance(item["image"], MetaTensor)
    assert item["image"].shape == (1, *pairs.shape)
    assert item["image"].dtype == torch.uint8
    assert np.array_equal(item["image"].affine, pairs.affine)
    index = pairs.indices("train")[0]
    assert np.array_equal(item["image"][0], pairs.volumes[index])
    assert np.array_equal(item["folds"][0], pairs.folds[index].astype(int))
    assert np.array_equal(item["pair"][0], pairs.pairs[index])
    assert item["participant_id"] == pairs.rows[index]["participant_id"]
    assert np.array_equal(flipped[0]["image"][0], np.flip(pairs.volumes[index], 0))
    batch = next(iter(DataLoader(plain, batch_size=2, num_workers=1)))
    assert batch["image"].shape == (2, 1, *pairs.shape)
    assert len(batch["participant_id"]) == 2


def test_workers_are_not_sent_the_volumes(pairs):
    dataset = pairs.dataset()
    dataset[0]
    sent = pickle.dumps(dataset)
    assert len(sent) < np.asarray(pairs.volumes).nbytes // 2
    assert torch.equal(pickle.loads(sent)[1]["image"], dataset[1]["image"])


def test_a_cohort_without_folds_and_one_of_images_are_datasets_too(small_cohort, bars):
    assert set(small_cohort.dataset()[0]) & {"folds", "pair"} == set()
    item = fn.Cohort.open(bars).dataset()[0]
    assert item["image"].dtype == torch.float32
    assert -1 <= item["image"].min() < item["image"].max() <= 1


def test_phantoms_are_drawn_in_a_folder_of_their_own():
    cohort = fn.datasets.phantoms(2, voxel_size=8.0, variant="absent:central")
    again = fn.datasets.phantoms(2, voxel_size=8.0, variant="absent:central")
    assert cohort.is_phantom
    assert cohort.folder != again.folder
    assert np.array_equal(cohort.volumes, again.volumes)
    assert all(row["variant"] == "absent:central" for row in cohort.rows)
    assert all(side % 8 == 0 for side in cohort.shape)


def test_a_volume_is_plotted(pairs, bars):
    for volume in (pairs[0], pairs.volumes[0], pairs.dataset()[0]["image"]):
        figure = fn.plot(volume, title="a phantom")
        assert isinstance(figure, Figure)
        assert [axes.get_title() for axes in figure.axes] == ["sagittal", "coronal", "axial"]
        shown = figure.axes[0].images[0].get_array()
        assert len(np.unique(shown.reshape(-1, 3), axis=0)) > 1
    assert len(fn.plot(fn.Cohort.open(bars)[0]).axes) == 1
    with pytest.raises(fn.InputError, match="expected a volume"):
        fn.plot(np.zeros((2, 3, 4, 5), np.uint8))


def test_a_hemisphere_is_drawn_with_its_sulci_by_name(pairs):
    names = {int(row["label"]): row["name"] for row in pairs.fold_table}
    figure = fn.plot(pairs[0], "a phantom", surface=True, labels=pairs.folds[0], names=names)
    lateral, medial = figure.axes
    assert [lateral.get_title(), medial.get_title()] == ["lateral", "medial"]
    written = {text.get_text() for axes in figure.axes for text in axes.texts}
    assert {"A", "P", "20 mm"} < written
    assert written & set(names.values())
    plain = fn.plot(pairs[0], surface=True)
    assert not np.array_equal(picture_of(figure), picture_of(plain))


def picture_of(figure):
    return np.asarray(figure.axes[0].images[0].get_array())


def test_evidence_and_a_difference_have_scales_of_their_own(pairs):
    volume = pairs.volumes[0]
    evidence = np.zeros(volume.shape, np.float32)
    evidence[4:12, 4:12, 4:12] = 3
    one, two = (fn.plot(volume, surface=True, values=v) for v in (evidence, -evidence))
    assert one.axes[-1].get_ylim() == (0, 3)
    assert two.axes[-1].get_ylim() == (-3, 3)
    assert not np.array_equal(picture_of(one), picture_of(two))


def test_a_mirrored_right_hemisphere_is_drawn_on_the_right(pairs):
    left = pairs[0]
    mirrored = np.diag([-1.0, 1, 1, 1]) @ left.affine
    right = left._replace(row={**left.row, "hemi": "R"}, affine=mirrored)
    first, second = (fn.plot(brain, surface=True) for brain in (left, right))
    assert first.axes[0].get_title() == second.axes[0].get_title() == "lateral"
    seen, turned = (np.any(picture_of(figure) < 250, axis=-1) for figure in (first, second))
    assert (seen != turned[:, ::-1]).mean() < 0.01


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"labels": np.zeros((2, 2, 2), int)}, "surface=True"),
        ({"surface": True, "values": np.zeros((2, 2, 2))}, "of shape"),
    ],
)
def test_arrays_that_cannot_be_drawn_are_refused(pairs, words, message):
    with pytest.raises(fn.InputError, match=message):
        fn.plot(pairs.volumes[0], **words)
    with pytest.raises(fn.InputError, match="class numbers"):
        fn.plot(np.zeros((4, 4, 4)), surface=True)


def test_functions_and_transforms_are_exported():
    for module in (fn.metrics, fn.transforms):
        assert all(callable(getattr(module, name)) for name in module.__all__)
    mask = np.zeros((8, 8, 8), bool)
    mask[2:6, 3, 2:6] = True
    assert fn.metrics.sheet_panel(mask, mask)["dice"] == 1


def example_of(text):
    (block,) = re.findall(r"```python\n(import foldnorm as fn\n.*?)```", text, re.DOTALL)
    return block


def program_of(text):
    """Return what Python understands of it: no comments, no layout."""
    return ast.dump(ast.parse(text))


def test_the_example_of_the_readme_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    block = example_of((ROOT / "README.md").read_text(encoding="utf-8"))
    assert len(block.strip().splitlines()) <= 8
    names: dict[str, object] = {}
    exec(compile(block, "README.md", "exec"), names)
    assert isinstance(names["figure"], Figure)
    assert names["codes"].shape[0] > 0


def test_the_docstring_of_the_package_says_what_the_readme_says():
    block = example_of((ROOT / "README.md").read_text(encoding="utf-8"))
    assert program_of(block) == program_of(script_from_examples(fn.__doc__ or ""))
