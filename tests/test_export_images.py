"""Models of images as MONAI bundles."""

import shutil

import numpy as np
import pytest
from conftest import skeleton_source, train_images
from monai.bundle import verify_net_in_out
from PIL import Image
from test_export import CONFIGS, by_monai

from foldnorm.pipeline.cli import main
from foldnorm.preprocessing.cohort.cohort import Cohort
from foldnorm.preprocessing.cohort.cohort_files import write_participants
from foldnorm.preprocessing.core.files import read_json, read_tsv


@pytest.fixture(scope="module")
def bundle_of_denoiser(denoiser, tmp_path_factory):
    out = tmp_path_factory.mktemp("exported") / "denoiser"
    assert main(["export", str(denoiser), "-o", str(out), "--quiet"]) == 0
    return out


@pytest.fixture
def some_images(bars, tmp_path):
    folder = tmp_path / "some"
    folder.mkdir()
    for path in sorted((bars.parent / "source").glob("00[0-3].png")):
        (folder / path.name).write_bytes(path.read_bytes())
    return folder


def test_monai_repairs_images_as_foldnorm_does(bundle_of_denoiser, some_images, tmp_path):
    bundle = bundle_of_denoiser
    verify_net_in_out(
        "network_def", meta_file=str(bundle / CONFIGS[1]), config_file=str(bundle / CONFIGS[0]),
        device="cpu", bundle_root=str(bundle),
    )  # fmt: skip
    made = by_monai(bundle, some_images, tmp_path / "monai")
    assert len(made) == 4
    words = ["restore", str(bundle), str(some_images), "-o", str(tmp_path / "ours"), "--quiet"]
    assert main(words) == 0
    for path in made:
        ours = tmp_path / "ours" / path.name.replace("_pred", "_desc-restored")
        pixels = np.array(Image.open(path))
        assert pixels.std() > 10
        assert np.array_equal(pixels, np.array(Image.open(ours)))


def test_monai_tells_classes_as_foldnorm_does(classifier, some_images, tmp_path):
    bundle = tmp_path / "bundle"
    assert main(["export", str(classifier), "-o", str(bundle), "--quiet"]) == 0
    assert "foldnorm classify . INPUT -o OUT" in (bundle / "docs/README.md").read_text(
        encoding="utf-8"
    )
    made = by_monai(bundle, some_images, tmp_path / "monai")
    words = ["classify", str(bundle), str(some_images), "-o", str(tmp_path / "ours"), "--quiet"]
    assert main(words) == 0
    rows = read_tsv(tmp_path / "ours/classes.tsv")
    assert len(rows) == len(made) == 4
    for path, row in zip(made, rows, strict=True):
        found = read_json(path)
        assert path.name == f"{row['participant_id']}_image-{row['image']}_class.json"
        likely = found["probabilities"]
        assert found["class"] == row["predicted"] == max(likely, key=likely.get)
        assert likely["upright"] == pytest.approx(float(row["p_upright"]), abs=1e-4)


def test_a_classifier_of_volumes_is_a_bundle_too(small_cohort, tmp_path):
    shutil.copytree(small_cohort.folder, tmp_path / "cohort")
    rows = [{**row, "sex": "FM"[n % 2]} for n, row in enumerate(small_cohort.rows)]
    write_participants(tmp_path / "cohort", rows)
    words = ["--model.init_args.target", "sex", "--training.steps", "2"]
    run = train_images(tmp_path / "cohort", tmp_path / "run", "cnn_classifier", *words)
    bundle = tmp_path / "bundle"
    assert main(["export", str(run), "-o", str(bundle), "--quiet"]) == 0
    assert "--given" not in (bundle / "docs/README.md").read_text(encoding="utf-8")
    made = by_monai(bundle, skeleton_source(tmp_path / "source", 2), tmp_path / "monai")
    words = ["classify", str(bundle), str(tmp_path / "cohort"), "-o", str(tmp_path / "ours"),
             "--quiet"]  # fmt: skip
    assert main(words) == 0
    told = {row["participant_id"]: row for row in read_tsv(tmp_path / "ours/classes.tsv")}
    assert [path.name for path in made] == ["sub-s00_class.json", "sub-s01_class.json"]
    for path in made:
        row = told[path.name.partition("_")[0]]
        likely = read_json(path)["probabilities"]
        assert [likely[sex] for sex in "FM"] == pytest.approx(
            [float(row[f"p_{sex}"]) for sex in "FM"], abs=1e-4
        )


def test_images_are_prepared_for_it(bundle_of_denoiser, bars, tmp_path):
    made = []
    for n, like in enumerate((bundle_of_denoiser, bars)):
        words = ["images", str(bars.parent / "source"), "-o", str(tmp_path / str(n)),
                 "--layout-from", str(like)]  # fmt: skip
        assert main([*words, "--quiet"]) == 0
        cohort = Cohort.open(tmp_path / str(n))
        made.append((cohort.preparation, np.array(cohort.volumes)))
    assert made[0][0] == made[1][0]
    assert np.array_equal(made[0][1], made[1][1])


def test_nobody_is_named_in_it(bundle_of_denoiser, bars):
    content = b"".join(p.read_bytes() for p in bundle_of_denoiser.rglob("*") if p.is_file())
    assert str(bars).encode() not in content
    assert b"sub-p17" not in content
    assert not main(
        ["report", str(bundle_of_denoiser), "-o", str(bars.parent / "r.html"), "--quiet"]
    )


def test_what_only_draws_is_no_bundle(bars, tmp_path, capsys):
    words = ["--model.init_args.channels", "[8,8]", "--model.init_args.attention",
             "[false,false]", "--training.steps", "2"]  # fmt: skip
    run = train_images(bars, tmp_path / "ddpm", "ddpm", *words)
    assert main(["export", str(run), "-o", str(tmp_path / "bundle")]) == 2
    assert "DDPM draws new ones only; share the run folder" in capsys.readouterr().err
    assert not (tmp_path / "bundle").exists()
