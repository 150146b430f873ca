"""Images and volumes told apart by a column."""

import json
from dataclasses import replace

import nibabel
import numpy as np
import pytest
import torch
from conftest import CLASSIFYING, noise_of
from PIL import Image

from foldnorm.models.image_classifier import ImageClassifier
from foldnorm.models.noise import seed_of
from foldnorm.pipeline.cli import main
from foldnorm.pipeline.inference.classify import classification_metrics, classify
from foldnorm.pipeline.runs.run_folder import RunFolder
from foldnorm.pipeline.studies.cross_validation import assign_folds, split_for_fold
from foldnorm.preprocessing.cohort.cohort import Cohort
from foldnorm.preprocessing.core.errors import InputError
from foldnorm.preprocessing.core.files import read_tsv

SIDE = 16


def save_blank(path, sides):
    path.parent.mkdir()
    Image.fromarray(np.zeros(sides, np.uint8)).save(path)


@pytest.mark.parametrize("architecture", ["cnn", "mlp"])
@pytest.mark.parametrize("shape", [(28, 28), (9, 10, 11)])
def test_classifiers_take_images_and_volumes(architecture, shape):
    model = ImageClassifier(shape, 3, condition_size=4, architecture=architecture)
    classes = torch.randint(0, 3, (2, *shape), dtype=torch.uint8)
    assert model.classify(classes).shape == (2, 4)


def test_volumes_without_a_class_teach_nothing():
    torch.manual_seed(0)
    model = ImageClassifier((8, 8), dropout=0.0).eval()
    images, levels = torch.rand(3, 8, 8), torch.tensor([[1.0, 0], [0, 1], [0, 0]])
    all_three = model.loss("classification", images, noise_of(3), levels)
    known = model.loss("classification", images[:2], noise_of(2), levels[:2])
    for name in ("loss", "accuracy"):
        assert all_three[name].item() == pytest.approx(known[name].item(), rel=1e-5)
    nobody = model.loss("classification", images[2:], noise_of(1), levels[2:])
    assert nobody["loss"].item() == 0


def test_a_classifier_tells_upright_from_lying(bars, classifier, tmp_path):
    words = ["classify", str(classifier), str(bars), "-o", str(tmp_path / "told"), "--quiet"]
    assert main(words) == 0
    found = json.loads((tmp_path / "told/classes.json").read_text())
    rows = read_tsv(tmp_path / "told/classes.tsv")
    cohort = Cohort.open(bars)
    tested = [row for row in cohort.rows if row["split"] != "train" and row["way"]]
    assert found["tested"] == len(tested)  # not those that were trained on, nor of no class
    assert found["accuracy"] > 0.9
    assert found["accuracy_low"] <= found["accuracy"] <= found["accuracy_high"]
    assert np.sum(found["confusion"]) == len(tested)
    right = [row for row in rows if not row["used_for"] and row["true"] == row["predicted"]]
    assert found["accuracy"] == pytest.approx(len(right) / len(tested))
    assert len(rows) == 120
    for row in rows:
        p = {level: float(row[f"p_{level}"]) for level in ("lying", "upright")}
        assert sum(p.values()) == pytest.approx(1, abs=1e-4)
        assert row["predicted"] == max(p, key=p.get)


def test_cross_validation_tests_everyone_once(bars, tmp_path, capsys):
    out = tmp_path / "out"
    words = ["crossvalidate", "cnn_classifier", bars, "-o", out, "--cv-folds", "3", "--quiet",
             "--device", "cpu", *CLASSIFYING]  # fmt: skip
    words = list(map(str, words))
    assert main(words) == 0
    found = json.loads((out / "classes.json").read_text())
    rows = read_tsv(out / "classes.tsv")
    known = [row for row in Cohort.open(bars).rows if row["way"]]
    assert sorted(row["participant_id"] for row in rows) == sorted(
        row["participant_id"] for row in known
    )
    for number in range(3):
        data = json.loads((out / f"fold-{number}/data.json").read_text())["participants"]
        tested = {row["participant_id"] for row in rows if row["fold"] == str(number)}
        assert not tested & {*data["train"], *data["validation"]}
    assert found["tested"] == len(known)
    assert found["accuracy"] > 0.85
    weighted = [
        accuracy * sum(row["fold"] == str(n) for row in rows)
        for n, accuracy in enumerate(found["accuracy_of_folds"])
    ]
    assert sum(weighted) / len(rows) == pytest.approx(found["accuracy"])
    before = (out / "fold-0/checkpoints/last.ckpt").stat().st_mtime_ns
    assert main([*words, "--overwrite"]) == 0  # finished trainings are not made again
    assert (out / "fold-0/checkpoints/last.ckpt").stat().st_mtime_ns == before
    assert main([*words, "--overwrite", "--seed", "1"]) == 2  # other folds
    assert "fold 0: expected participants that the model was not" in capsys.readouterr().err


def test_folds_have_as_many_of_each_class():
    rows = [{"participant_id": f"p{n}", "way": "ab"[n % 4 == 0]} for n in range(40)]
    rows += rows[:7]  # several images of some
    fold_of = assign_folds(rows, "way", 5, 0)
    for number in range(5):
        own = [row["way"] for row in rows[:40] if fold_of[row["participant_id"]] == number]
        assert own.count("a") == 6
        assert own.count("b") == 2
    assert assign_folds(rows, "way", 5, 1) != fold_of
    with pytest.raises(InputError, match="of way 'b' there are 10"):
        assign_folds(rows, "way", 11, 0)
    with pytest.raises(InputError, match="at least two"):
        assign_folds(rows, "way", 1, 0)


def test_relatives_are_on_one_side_of_every_fold(bars):
    """Families of one to three, of both classes; who has none is one alone, as before."""
    sizes = [1 + n % 3 for n in range(30)]
    of = [n for n, size in enumerate(sizes) for _ in range(size)]
    rows = [
        {"participant_id": f"p{n}", "family": str(family), "way": "ab"[(n + family) % 2]}
        for n, family in enumerate(of)
    ]
    fold_of = assign_folds(rows, "way", 5, 0)
    assert len({(row["family"], fold_of[row["participant_id"]]) for row in rows}) == 30
    for level in "ab":
        own = [fold_of[row["participant_id"]] for row in rows if row["way"] == level]
        assert {abs(own.count(number) - len(own) / 5) < 2 for number in range(5)} == {True}
    cohort = replace(Cohort.open(bars), rows=rows)
    for number in range(5):
        found = split_for_fold(cohort, fold_of, number, 0).rows
        assert {row["split"] for row in found} == {"train", "validation", "test"}
        assert len({(row["family"], row["split"]) for row in found}) == 30
    with pytest.raises(InputError, match="got 3; of way 'a' there are 2"):
        assign_folds([{**row, "family": str(n % 2)} for n, row in enumerate(rows)], "way", 3, 0)


def test_without_families_folds_are_dealt_in_turn():
    """A cross-validation that was begun goes on with the folds that it had."""
    rows = [{"participant_id": f"p{n}", "way": "abc"[n % 7 % 3], "family": ""} for n in range(33)]
    ordered = sorted(rows, key=lambda row: (row["way"], seed_of(3, "fold", row["participant_id"])))
    dealt = {row["participant_id"]: n % 4 for n, row in enumerate(ordered)}
    assert assign_folds(rows, "way", 4, 3) == dealt


def test_files_are_told_as_the_cohort_is(bars, classifier, tmp_path, capsys):
    source = bars.parent / "source"
    words = ["classify", str(classifier), str(source), "-o", str(tmp_path / "files"), "--quiet"]
    assert main(words) == 0
    words = ["classify", str(classifier), str(bars), "-o", str(tmp_path / "cohort"), "--quiet"]
    assert main(words) == 0
    first, second = (
        {r["participant_id"]: r["predicted"] for r in read_tsv(tmp_path / where / "classes.tsv")}
        for where in ("files", "cohort")
    )
    assert first == second
    unknown = tmp_path / "unknown"  # of whom nothing is known
    unknown.mkdir()
    for path in sorted(source.glob("*.png"))[:5]:
        (unknown / path.name).write_bytes(path.read_bytes())
    assert main([*words[:2], str(unknown), str(tmp_path / "u"), "--quiet"]) == 0
    predicted = [row["predicted"] for row in read_tsv(tmp_path / "u/classes.tsv")]
    assert predicted == [first[f"sub-p{n}"] for n in range(5)]
    assert json.loads((tmp_path / "u/classes.json").read_text())["tested"] == 0
    large = tmp_path / "large"
    save_blank(large / "a.png", (SIDE + 4, SIDE))
    assert main([*words[:2], str(large), str(tmp_path / "l"), "--quiet"]) == 2
    assert (
        "(20, 16) pixels, expected (16, 16) as the others or the model" in capsys.readouterr().err
    )
    assert main([*words[:2], str(source), str(tmp_path / "x"), "--split", "test"]) == 2


def test_a_column_that_is_no_class_is_refused(bars, tmp_path, capsys):
    words = ["train", "mlp_classifier", str(bars), "-o"]
    for target, said in (
        ("image", "is '0000' for all"),
        ("file", "no classes"),
        ("x", "no column"),
    ):
        code = main([*words, str(tmp_path / target), "--model.init_args.target", target])
        assert code == 2
        assert said in capsys.readouterr().err


def test_classes_are_predicted_without_writing(bars, classifier, tmp_path):
    run, cohort = RunFolder.open(classifier), Cohort.open(bars)
    result = classify(run, run.load(), cohort, ["test"])
    assert [row["participant_id"] for row in result.table] == [
        cohort.rows[n]["participant_id"] for n in cohort.indices("test")
    ]
    assert not list(tmp_path.iterdir())
    result.save(tmp_path)
    written = read_tsv(tmp_path / "classes.tsv")
    assert [row["predicted"] for row in written] == [row["predicted"] for row in result.table]
    said = json.loads((tmp_path / "classes.json").read_text())
    assert said["accuracy"] == result.metrics["accuracy"]


def test_accuracy_has_an_interval_over_people_not_images():
    # Ten people, right in all of their images or in none: a hundred images are ten draws.
    def width(number_of_people):
        rows = [
            {"participant_id": str(n % number_of_people), "true": "ab"[n % 2], "predicted": "a"}
            for n in range(1000)
        ]
        found = classification_metrics(rows, ("a", "b"))
        assert found["accuracy"] == 0.5
        assert found["participants"] == number_of_people
        return found["accuracy_high"] - found["accuracy_low"]

    assert width(10) == pytest.approx(2 * 1.96 * 0.5 / np.sqrt(10), rel=0.2)


def test_relatives_are_one_draw_of_an_interval():
    def width(families):
        rows = [
            {"participant_id": str(n), "family": str(n % families), "true": "ab"[n % 2],
             "predicted": "a"}
            for n in range(1000)
        ]  # fmt: skip
        found = classification_metrics(rows, ("a", "b"))
        return found["accuracy_high"] - found["accuracy_low"]

    assert width(10) > 5 * width(1000)
    assert width(1000) == pytest.approx(2 * 1.96 * 0.5 / np.sqrt(1000), rel=0.1)


def test_an_image_without_directions_is_told_if_they_are_assumed(classifier, tmp_path, capsys):
    image = nibabel.Nifti1Image(np.zeros((SIDE, SIDE), np.uint8), np.eye(4))
    image.set_sform(None, 0)
    image.set_qform(None, 0)
    nibabel.save(image, tmp_path / "a.nii")
    words = ["classify", classifier, tmp_path / "a.nii", "-o", tmp_path / "out", "--quiet"]
    assert main(list(map(str, words))) == 2
    assert "--assume ras or las" in capsys.readouterr().err
    assert main([*map(str, words), "--assume", "las"]) == 0
    assert len(read_tsv(tmp_path / "out/classes.tsv")) == 1
