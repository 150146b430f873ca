"""V-Net and `translate`: true pairs only, any sides, results in the space of the input."""

import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import skeleton_volume, write_nifti
from test_pairs import SEGMENTATION, grey_white_of, pair_source, preprocess

from foldnorm.models.hypersphere_classifier import HypersphereClassifier
from foldnorm.models.noise import StepNoise
from foldnorm.models.restorer import Restorer
from foldnorm.models.sulcus_segmenter import SulcusSegmenter
from foldnorm.models.vnet import VNet
from foldnorm.pipeline.cli import main
from foldnorm.pipeline.inference.inputs import open_input
from foldnorm.pipeline.inference.translate import Translator, _write
from foldnorm.pipeline.metrics.classes import class_dice, class_distances
from foldnorm.pipeline.runs.metrics_log import MetricsLog
from foldnorm.pipeline.runs.run_folder import RunFolder
from foldnorm.pipeline.training.registry import task_of
from foldnorm.preprocessing.cohort.cohort import Cohort
from foldnorm.preprocessing.core.errors import InputError
from foldnorm.preprocessing.core.files import read_json, read_tsv
from foldnorm.preprocessing.io.schemes import LabelClass, LabelScheme, load_scheme
from foldnorm.preprocessing.io.volumes import read_labels

TINY = [
    "--training.steps", "4", "--training.batch_size", "4", "--training.log_every", "1",
    "--training.validate_every", "2", "--model.init_args.channels", "[8,8]",
    "--model.init_args.convolutions", "[1,1]",
]  # fmt: skip
SMALL = {"channels": [8, 8], "convolutions": [1, 1]}


@pytest.fixture(scope="module")
def pair_cohort(tmp_path_factory):
    """24 pairs of 16³, split 0.5 / 0.25 / 0.25."""
    folder = tmp_path_factory.mktemp("pairs")
    words = ["--voxel-size", "1.5", "--pad", "16,16,16", "--split-fractions", "0.5", "0.25", "0.25"]
    assert preprocess(pair_source(folder / "source", 24), folder / "c", *words, "--quiet") == 0
    return Cohort.open(folder / "c")


def train(cohort, out, *more):
    return main(
        ["train", "vnet", str(cohort.folder), "-o", str(out),
         "--device", "cpu", "--quiet", *TINY, *more]
    )  # fmt: skip


@pytest.fixture(scope="module")
def run(pair_cohort, tmp_path_factory):
    out = tmp_path_factory.mktemp("vnet") / "run"
    assert train(pair_cohort, out) == 0
    return out


def weights(run):
    return RunFolder(run).load_checkpoint("last")["model"]


def noise():
    return StepNoise((0, 0, 0), 2, torch.device("cpu"))


@pytest.mark.parametrize("stem", [1, 2])
@pytest.mark.parametrize("sides", [(8, 8, 8), (5, 9, 12), (1, 2, 3)])
def test_volumes_of_any_sides_keep_them(sides, stem):
    model = VNet(3, 4, stem=stem, **SMALL)
    logits = model.translate(torch.zeros(2, *sides, dtype=torch.uint8))
    assert logits.shape == (2, 4, *sides)


def test_each_way_starts_from_its_own_volume():
    """The second volume has classes that the first has not, so a mix-up cannot pass."""
    pairs = torch.zeros(2, 2, 8, 8, 8, dtype=torch.uint8)
    pairs[:, 1] = 4
    forwards = VNet(2, 5, **SMALL)
    assert forwards.translate(pairs[:, 0]).shape[1] == 5
    backwards = VNet(2, 5, reverse=True, **SMALL)
    assert backwards.translate(pairs[:, 1]).shape[1] == 2
    for model in (forwards, backwards):
        terms = model.loss("translation", pairs, noise())
        assert terms["loss"].isfinite()
        assert model.validation_loss(pairs).shape == (2,)


def test_it_learns_a_translation():
    """Class 2 in, class 1 out: a rule of one voxel is learned in a few steps."""
    torch.manual_seed(0)
    first = torch.randint(0, 3, (4, 8, 8, 8), dtype=torch.uint8)
    pairs = torch.stack([first, (first == 2).to(torch.uint8)], dim=1)
    model = VNet(3, 2, dice_weight=0.5, **SMALL)
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(60):
        optimizer.zero_grad()
        terms = model.loss("translation", pairs, noise())
        terms["loss"].backward()
        optimizer.step()
    assert set(terms) == {"cross_entropy", "dice_loss", "loss"}
    found = model.translate(first).argmax(dim=1)
    assert (found == pairs[:, 1]).float().mean() > 0.95


@pytest.mark.parametrize(
    "make",
    [
        lambda **levels: VNet(3, 3, **levels),
        lambda **levels: Restorer(3, **levels),
        lambda **levels: SulcusSegmenter((8, 8, 8), 3, sulci=["a"], **levels),
        lambda **levels: HypersphereClassifier((8, 8, 8), 3, **levels),
    ],
)
def test_levels_need_as_many_widths_as_stages(make):
    with pytest.raises(ValueError, match=r"one number a level each, got \[8\] and \[1, 2\]"):
        make(channels=[8], convolutions=[1, 2])


def test_training_writes_the_dice_of_each_class(run, pair_cohort):
    table = MetricsLog(run / "metrics.csv", up_to=99)
    for name in ("loss", "dice_background", "dice_grey", "dice_white", "mean_dice"):
        assert table.column(f"validation/{name}")[0] == [2, 4], name
    assert len(list((run / "samples").glob("*.png"))) == 2
    report = run.parent / "report.html"
    assert main(["report", str(pair_cohort.folder), str(run), "-o", str(report), "--quiet"]) == 0
    assert "mean_dice" in report.read_text()


@pytest.mark.parametrize("stop", [1, 3])
def test_a_resumed_run_equals_an_unbroken_one_bit_for_bit(pair_cohort, tmp_path, stop):
    moved = ["--training.augmentation.shift", "1", "--training.augmentation.rotation", "5"]
    assert train(pair_cohort, tmp_path / "whole", *moved) == 0
    out = tmp_path / "run"
    assert train(pair_cohort, out, "--training.session_steps", str(stop), *moved) == 75
    assert train(pair_cohort, out, "--resume", "auto", *moved) == 0
    for name, tensor in weights(tmp_path / "whole").items():
        assert torch.equal(tensor, weights(out)[name]), name


def test_in_bfloat16_a_resumed_run_equals_an_unbroken_one_too(pair_cohort, tmp_path):
    """Its last level is two voxels wide, where oneDNN's gradients in bfloat16 are arbitrary."""
    words = ["--training.precision", "bf16", "--model.init_args.channels", "[16,16,64]",
             "--model.init_args.convolutions", "[1,1,1]"]  # fmt: skip
    assert train(pair_cohort, tmp_path / "whole", *words) == 0
    out = tmp_path / "run"
    assert train(pair_cohort, out, "--training.session_steps", "2", *words) == 75
    assert train(pair_cohort, out, "--resume", "auto", *words) == 0
    for name, tensor in weights(tmp_path / "whole").items():
        assert torch.equal(tensor, weights(out)[name]), name


@pytest.mark.slow
def test_two_processes_equal_one_on_the_whole_batch(pair_cohort, tmp_path):
    moved = ["--training.augmentation.shift", "1", "--training.augmentation.rotation", "5"]
    assert train(pair_cohort, tmp_path / "one", *moved) == 0
    arguments = ["train", "vnet", str(pair_cohort.folder), "-o",
                 str(tmp_path / "two"), "--device", "cpu", "--quiet", *TINY, *moved]  # fmt: skip
    subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
         "-m", "foldnorm.pipeline.cli", *arguments],
        check=True, timeout=300, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    for name, tensor in weights(tmp_path / "one").items():
        difference = torch.linalg.vector_norm(tensor - weights(tmp_path / "two")[name])
        assert difference <= 1e-5 * torch.linalg.vector_norm(tensor), name


def test_a_cohort_without_pairs_is_refused(small_cohort, tmp_path, capsys):
    assert train(small_cohort, tmp_path / "run") == 2
    assert "VNet needs pairs, and the cohort has none; preprocess it with --pair" in (
        capsys.readouterr().err
    )
    with pytest.raises(InputError, match="needs pairs"):
        task_of(VNet(**SMALL), small_cohort)


def test_a_cohort_is_translated_and_measured(run, pair_cohort, tmp_path, capsys):
    out = tmp_path / "t"
    words = ["translate", str(run), str(pair_cohort.folder), "-o", str(out), "--split", "test"]
    assert main([*words, "--device", "cpu"]) == 0
    assert "mean_dice" in capsys.readouterr().out
    rows = read_tsv(out / "translations.tsv")
    assert len(rows) == len(pair_cohort.indices("test"))
    key = f"{rows[0]['participant_id']}_hemi-{rows[0]['hemi']}"
    made = read_labels(out / f"{key}_desc-translated_dseg.nii.gz")
    assert set(np.unique(made.data)) <= {0, 100, 200}
    index = pair_cohort.keys().index(key)
    truth = np.array(pair_cohort.pairs[index])
    expected = class_dice((made.data // 100).astype(np.uint8), truth, pair_cohort.pair_scheme)
    assert float(rows[0]["mean_dice"]) == pytest.approx(expected["mean_dice"], abs=1e-4)
    assert read_json(out / "translations.json")["volumes"] == len(rows)
    assert main([*words, "--quiet"]) == 2  # there already


@pytest.mark.parametrize(
    ("values", "dtype"),
    [((0, 1, 255), "uint8"), ((0, 1, 256), "uint16"), ((-1, 1, 300), "int16"),
     ((-1, 1, 70000), "int32")],
)  # fmt: skip
def test_values_of_classes_are_written_as_they_are(tmp_path, values, dtype):
    """Whichever classes a volume holds, its type is that of all volumes of the scheme."""
    classes = tuple(LabelClass(str(value), (value,)) for value in values)
    for held in ([0, 1], [0, 1, 2]):
        volume = np.resize(np.uint8(held), (3, 3, 3))
        _write(tmp_path / "t.nii.gz", volume, LabelScheme("own", classes), np.eye(4))
        made = read_labels(tmp_path / "t.nii.gz").data
        assert np.array_equal(made, np.array(values)[volume])
        assert made.dtype == dtype


def test_a_split_without_brains_is_refused_before_anything_is_written(run, pair_cohort, tmp_path):
    rows = [{**row, "split": "train"} for row in pair_cohort.rows]
    translator = Translator.open(run, torch.device("cpu"))
    with pytest.raises(InputError, match="no brain of split test"):
        translator.translate(replace(pair_cohort, rows=rows), ["test"]).save(tmp_path / "t")
    assert not (tmp_path / "t").exists()


def test_a_file_is_translated_in_its_own_grid(run, tmp_path, capsys):
    """Twice as long as the training volumes, so in windows; another volume is broken."""
    long = np.concatenate([skeleton_volume(0), skeleton_volume(1)], axis=1)
    affine = np.diag([-1.0, 1, 1, 1])
    affine[:3, 3] = (40, -7, 3)
    write_nifti(tmp_path / "in/sub-a.nii.gz", long[::-1], affine)
    write_nifti(tmp_path / "in/sub-b.nii.gz", np.full((9, 9, 9), 11, np.int16))
    out = tmp_path / "t"
    words = ["translate", str(run), str(tmp_path / "in"), "-o", str(out), "--device", "cpu"]
    assert main([*words, "--quiet"]) == 1
    assert "sub-b" in capsys.readouterr().err
    given = read_labels(tmp_path / "in/sub-a.nii.gz")
    made = read_labels(out / "sub-a_desc-translated_dseg.nii.gz")
    assert made.data.shape == given.data.shape
    assert made.affine == pytest.approx(given.affine)
    assert [path.name for path in out.glob("*.nii.gz")] == ["sub-a_desc-translated_dseg.nii.gz"]
    assert main([*words, "--quiet", "--overwrite", "--split", "test"]) == 2


def test_a_translation_of_a_file_does_not_depend_on_the_other_files(run, tmp_path):
    """Though all are packed in one box: a small volume is not shown the void around it."""
    translator = Translator.open(run, torch.device("cpu"))
    write_nifti(tmp_path / "two/sub-a.nii.gz", skeleton_volume(0, (18, 18, 20)))
    far = np.eye(4)
    far[:3, 3] = (30, -20, 9)
    write_nifti(tmp_path / "two/sub-b.nii.gz", skeleton_volume(1), far)
    made = []
    for name, source in (("alone", "two/sub-a.nii.gz"), ("both", "two")):
        given = open_input(
            translator.run, tmp_path / source, tmp_path / name,
            uncropped=translator.source_preparation, quiet=True,
        )  # fmt: skip
        first, *_ = translator.translate(given)
        made.append(first)
        assert first.key == "sub-a"
    assert np.array_equal(made[0].classes, made[1].classes)
    assert made[0].classes.any()


def test_a_window_says_of_a_place_what_the_whole_volume_says(pair_cohort, tmp_path):
    """A network that sees one voxel at a time: windows must change nothing."""
    out = tmp_path / "run"
    one = ["--model.init_args.channels", "[8]", "--model.init_args.convolutions", "[1]",
           "--model.init_args.kernel_size", "1", "--model.init_args.norm", "false",
           "--model.init_args.stem", "1"]  # fmt: skip
    assert train(pair_cohort, out, *one) == 0
    translator = Translator.open(out, torch.device("cpu"))
    volume = np.random.default_rng(0).integers(0, 3, (20, 37, 16)).astype(np.uint8)
    whole = translator.model.translate(torch.from_numpy(volume)[None]).argmax(1)[0].numpy()
    assert (translator.trained.translate_volume(volume) == whole).all()


def test_skeletons_come_out_of_grey_white_volumes_in_reverse(pair_cohort, tmp_path):
    out = tmp_path / "run"
    assert train(pair_cohort, out, "--model.init_args.reverse", "true") == 0
    assert main(["translate", str(out), str(pair_cohort.folder), "-o", str(tmp_path / "t"),
                 "--quiet"]) == 0  # fmt: skip
    assert "dice_sulcus" in read_tsv(tmp_path / "t/translations.tsv")[0]
    place = tmp_path / "s" / "s0" / SEGMENTATION
    write_nifti(place / "Lgrey_white_s0.nii.gz", grey_white_of(skeleton_volume(0)))
    assert (
        main(["translate", str(out), str(tmp_path / "s"), "-o", str(tmp_path / "f"), "--quiet"])
        == 0
    )
    made = read_labels(tmp_path / "f/sub-s0_hemi-L_desc-translated_dseg.nii.gz")
    assert set(np.unique(made.data)) <= {11, 0, 60}


def test_a_model_that_does_not_translate_says_so(small_run, small_cohort, tmp_path, capsys):
    words = ["translate", str(small_run), str(small_cohort.folder), "-o", str(tmp_path / "t")]
    assert main(words) == 2
    assert "WGANGP does not translate" in capsys.readouterr().err


def test_dice_and_distances_of_a_shifted_cube():
    scheme = load_scheme("grey-white")
    target = np.zeros((12, 12, 12), np.uint8)
    target[3:9, 3:9, 3:9] = 1
    target[5:7, 5:7, 5:7] = 2
    moved = np.roll(target, 1, axis=0)
    dice = class_dice(moved, target, scheme)
    assert dice["dice_white"] == pytest.approx(0.5)
    assert class_dice(target, target, scheme)["mean_dice"] == 1
    distances = class_distances(moved, target, scheme, (2.0, 1.0, 1.0))
    assert distances["hd95_white"] == pytest.approx(2.0)
    assert 0 < distances["assd_grey"] < 2
    same = class_distances(target, target, scheme, (2.0, 1.0, 1.0))
    assert same["surface_dice_grey"] == 1
    assert same["hd95_white"] == 0
    empty = class_distances(np.zeros_like(target), target, scheme, (1.0, 1.0, 1.0))
    assert np.isnan(empty["hd95_white"])
